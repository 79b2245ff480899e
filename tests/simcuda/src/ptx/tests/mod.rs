//! What the tests of the interpreter share: memory that is one array, and kernels around a few instructions.

mod nvrtc;

use super::{Launch, Memory, Module};

/// Where the first byte of [`Ram`] is.
pub(super) const BASE: u64 = 0x7000_0000_0000;

/// Global memory: bytes from [`BASE`] on.
pub(super) struct Ram(pub(super) Vec<u8>);

impl Ram {
    fn range(&self, address: u64, len: usize) -> Result<std::ops::Range<usize>, String> {
        let start = address.checked_sub(BASE).map(|start| start as usize);
        match start.and_then(|start| start.checked_add(len)) {
            Some(end) if end <= self.0.len() => Ok(end - len..end),
            _ => Err(format!("{len} bytes at {address:#x} are not allocated")),
        }
    }

    pub(super) fn words(values: &[u32]) -> Self {
        Self(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub(super) fn word(&self, at: usize) -> u32 {
        self.words_at(at, 1)[0]
    }

    pub(super) fn words_at(&self, at: usize, count: usize) -> Vec<u32> {
        self.0[4 * at..][..4 * count].chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

impl Memory for Ram {
    fn load(&mut self, address: u64, into: &mut [u8]) -> Result<(), String> {
        into.copy_from_slice(&self.0[self.range(address, into.len())?]);
        Ok(())
    }

    fn store(&mut self, address: u64, from: &[u8]) -> Result<(), String> {
        let range = self.range(address, from.len())?;
        self.0[range].copy_from_slice(from);
        Ok(())
    }
}

/// Parameters, eight bytes each.
pub(super) fn params(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
