//! Global memory as a kernel sees it.

use std::collections::HashSet;
use std::ptr;

use crate::memory::{Allocation, Memory};
use crate::ptx;
use crate::ranges::Ranges;

/// Checks each access and remembers which bytes were read and written.
pub struct KernelMemory<'a> {
    memory: &'a mut Memory,
    device: usize,
    peers: HashSet<u64>,
    /// The allocation used last: its number and addresses.
    last: (usize, u64, u64),
    used: Vec<usize>,
    unwritten: Option<String>,
    faulted: bool,
}

impl<'a> KernelMemory<'a> {
    /// The memory that a kernel on this device may use: its own, the host's, and that of contexts it has as peers.
    pub fn new(memory: &'a mut Memory, device: usize, peers: HashSet<u64>) -> Self {
        Self { memory, device, peers, last: (0, 0, 0), used: Vec::new(), unwritten: None, faulted: false }
    }

    /// What was touched: allocation, whether written, offsets. What was read and never written, in words. Whether an
    /// access was refused.
    pub fn finish(self) -> (Vec<(usize, bool, Ranges)>, Option<String>, bool) {
        let mut touched = Vec::new();
        for index in self.used {
            let [read, written] = self.memory.get_mut(index).touched();
            touched.push((index, false, read.take()));
            touched.push((index, true, written.take()));
        }
        touched.retain(|(_, _, ranges)| !ranges.is_empty());
        (touched, self.unwritten, self.faulted)
    }

    #[inline]
    fn allocation(&mut self, address: u64, len: u64) -> Result<(&mut Allocation, u64), String> {
        let (_, start, end) = self.last;
        if address < start || address + len > end {
            self.find(address, len)?;
        }
        let (index, start, _) = self.last;
        Ok((self.memory.get_mut(index), address - start))
    }

    #[cold]
    fn find(&mut self, address: u64, len: u64) -> Result<(), String> {
        self.faulted = true;
        let index = self.memory.find(address, len)?;
        let allocation = self.memory.get_mut(index);
        if !allocation.is_host() && allocation.device != self.device && !self.peers.contains(&allocation.context) {
            let what = allocation.describe();
            return Err(format!("{address:#x} is memory of another device without access to its peer: {what}"));
        }
        self.faulted = false;
        allocation.used_by_kernels = true;
        allocation.touched();
        self.last = (index, allocation.base, allocation.base + allocation.len);
        if !self.used.contains(&index) {
            self.used.push(index);
        }
        Ok(())
    }
}

impl ptx::Memory for KernelMemory<'_> {
    fn load(&mut self, address: u64, into: &mut [u8]) -> Result<(), String> {
        let len = into.len() as u64;
        let (allocation, offset) = self.allocation(address, len)?;
        allocation.touched()[0].set(offset, len);
        let missing = allocation.defined.as_ref().and_then(|defined| defined.first_missing(offset, len));
        // SAFETY: the bytes were found to be in a live allocation.
        unsafe { ptr::copy_nonoverlapping(allocation.bytes(offset), into.as_mut_ptr(), into.len()) };
        if let Some(missing) = missing
            && self.unwritten.is_none()
        {
            let what = self.memory.get(self.last.0).describe();
            self.unwritten = Some(format!("byte {missing} of {what}, which nothing ever wrote"));
        }
        Ok(())
    }

    fn store(&mut self, address: u64, from: &[u8]) -> Result<(), String> {
        let len = from.len() as u64;
        let (allocation, offset) = self.allocation(address, len)?;
        allocation.touched()[1].set(offset, len);
        if let Some(defined) = &mut allocation.defined {
            defined.set(offset, len);
        }
        // SAFETY: the bytes were found to be in a live allocation.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), allocation.bytes(offset), from.len()) };
        Ok(())
    }
}
