//! The address space: device memory, and the host memory that the device may reach.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use crate::race::Access;
use crate::ranges::Marks;
use crate::result::{Code, Outcome};

/// Device addresses are handed out in these steps, as the real driver aligns them.
const ALIGNMENT: u64 = 512;
/// Least distance between two allocations: what runs off the end of one does not reach the next.
const GUARD_BYTES: u64 = 1 << 16;
/// How much address space is tried for, halved until it is had. Addresses never come back, so there should be a lot.
const SPACE_BYTES: u64 = 1 << 42;
const SPACE_BYTES_MIN: u64 = 1 << 34;

/// What kind of memory an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a device; `ordered` if it is from the stream-ordered allocator.
    Device {
        /// From `cuMemAllocAsync`.
        ordered: bool,
    },
    /// Of a device, for a variable of a module. Ends with the module.
    Variable,
    /// Of the host, page-locked when it was made. Freed by `cuMemFreeHost`.
    HostAllocated,
    /// Of the host, page-locked later. Ended by `cuMemHostUnregister`.
    HostRegistered,
    /// Of both. Freed by `cuMemFree`.
    Managed,
}

/// Where an allocation stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its address is known; the stream has not come to the allocation.
    Ordered,
    /// Usable.
    Live,
    /// The end of its life is queued on a stream.
    Ending,
    /// Over.
    Freed,
}

/// A piece of memory that has an address on a device.
#[derive(Debug)]
pub struct Allocation {
    /// Its first address.
    pub base: u64,
    /// Its size.
    pub len: u64,
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// The device whose memory it takes.
    pub device: usize,
    /// The context it belongs to.
    pub context: u64,
    /// `CU_MEMHOSTALLOC_*` or `CU_MEMHOSTREGISTER_*`.
    pub flags: u32,
    /// The call that made it, for reports.
    pub origin: Arc<str>,
    /// What was written; none for host memory, which the host may write unseen.
    pub defined: Option<Marks>,
    /// What the kernel that runs has touched: read, written. Made when a kernel first comes here.
    pub touched: Option<Box<[Marks; 2]>>,
    /// Whether a kernel ever used this memory, in which case copies cannot tell what changes it.
    pub used_by_kernels: bool,
    /// Accesses that some operation to come may be unordered with.
    pub accesses: Vec<Access>,
    bytes: *mut u8,
    pages: Option<Pages>,
}

// SAFETY: `bytes` is memory of this allocation's own, or of the program, which lends it until it is unregistered; it is
// used under the driver's lock only.
unsafe impl Send for Allocation {}

impl Allocation {
    /// Where the byte at this offset lies, for at most the rest of the allocation.
    pub fn bytes(&self, offset: u64) -> *mut u8 {
        self.bytes.wrapping_add(offset as usize)
    }

    /// Whether the host may use its addresses.
    pub fn is_host(&self) -> bool {
        !matches!(self.kind, Kind::Device { .. } | Kind::Variable)
    }

    /// Writes bytes that lie within it.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        assert!(offset + bytes.len() as u64 <= self.len);
        // SAFETY: the allocation is live, which its memory being there shows, and as long as was just checked.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.bytes(offset), bytes.len()) };
        if let Some(defined) = &mut self.defined {
            defined.set(offset, bytes.len() as u64);
        }
    }

    /// In words, for reports.
    pub fn describe(&self) -> String {
        format!("{:#x} of {} bytes ({})", self.base, self.len, self.origin)
    }

    /// The marks of what kernels read and wrote.
    pub fn touched(&mut self) -> &mut [Marks; 2] {
        self.touched.get_or_insert_with(|| Box::new([Marks::new(self.len), Marks::new(self.len)]))
    }
}

/// All allocations of all devices, by address.
#[derive(Debug)]
pub struct Memory {
    space: Pages,
    next: u64,
    by_base: BTreeMap<u64, usize>,
    all: Vec<Allocation>,
}

impl Memory {
    /// Reserves addresses that fault when the host uses them.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` if the process may not reserve any, as under a limit of its address space.
    pub fn new() -> Outcome<Self> {
        let mut len = SPACE_BYTES;
        let space = loop {
            match Pages::new(len, libc::PROT_NONE) {
                Ok(space) => break space,
                Err(code) if len <= SPACE_BYTES_MIN => return Err(code),
                Err(_) => len /= 2,
            }
        };
        let next = space.address.next_multiple_of(ALIGNMENT) + GUARD_BYTES;
        Ok(Self { space, next, by_base: BTreeMap::new(), all: Vec::new() })
    }

    /// Makes an allocation of device memory, or of host memory that the driver owns.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` if the machine has none to back it with.
    pub fn allocate(&mut self, len: u64, owner: Owner, kind: Kind, state: State) -> Outcome<u64> {
        let pages = Pages::new(len, libc::PROT_READ | libc::PROT_WRITE)?;
        let bytes = pages.address as *mut u8;
        let (base, defined) = match kind {
            Kind::Device { .. } | Kind::Variable => {
                let base = self.next;
                let after = (base + len + GUARD_BYTES).next_multiple_of(ALIGNMENT);
                if after > self.space.address + self.space.len {
                    return Err(Code::OUT_OF_MEMORY);
                }
                self.next = after;
                (base, Some(Marks::new(len)))
            }
            _ => (pages.address, None),
        };
        self.insert(base, len, owner, kind, state, bytes, Some(pages), defined);
        Ok(base)
    }

    /// Takes host memory of the program's into the address space.
    pub fn register(&mut self, address: u64, len: u64, owner: Owner) {
        self.insert(address, len, owner, Kind::HostRegistered, State::Live, address as *mut u8, None, None);
    }

    #[allow(clippy::too_many_arguments)] // One place makes them; a structure of its own would only say it twice.
    fn insert(
        &mut self,
        base: u64,
        len: u64,
        owner: Owner,
        kind: Kind,
        state: State,
        bytes: *mut u8,
        pages: Option<Pages>,
        defined: Option<Marks>,
    ) {
        let Owner { device, context, flags, origin } = owner;
        self.by_base.insert(base, self.all.len());
        self.all.push(Allocation {
            base,
            len,
            kind,
            state,
            device,
            context,
            flags,
            origin,
            defined,
            touched: None,
            used_by_kernels: false,
            accesses: Vec::new(),
            bytes,
            pages,
        });
    }

    /// Ends an allocation. Its addresses are remembered, if they were the device's, and never given again.
    pub fn end(&mut self, index: usize) {
        let allocation = &mut self.all[index];
        allocation.state = State::Freed;
        allocation.pages = None;
        allocation.bytes = ptr::null_mut();
        allocation.defined = None;
        allocation.touched = None;
        allocation.accesses = Vec::new();
        if allocation.is_host() {
            let base = allocation.base;
            self.by_base.remove(&base);
        }
    }

    /// The allocation by its number.
    pub fn get(&self, index: usize) -> &Allocation {
        &self.all[index]
    }

    /// The allocation by its number.
    pub fn get_mut(&mut self, index: usize) -> &mut Allocation {
        &mut self.all[index]
    }

    /// All that are not over.
    pub fn live(&self) -> impl Iterator<Item = (usize, &Allocation)> {
        self.all.iter().enumerate().filter(|(_, allocation)| allocation.state != State::Freed)
    }

    /// All that are not over.
    pub fn live_mut(&mut self) -> impl Iterator<Item = &mut Allocation> {
        self.all.iter_mut().filter(|allocation| allocation.state != State::Freed)
    }

    /// The allocation that these bytes lie in, as they must for an operation to use them.
    ///
    /// # Errors
    /// In words: what lies there instead.
    pub fn find(&self, address: u64, len: u64) -> Result<usize, String> {
        let Some(index) = self.at(address) else { return Err(self.outside(address, len)) };
        let allocation = &self.all[index];
        let past = (address - allocation.base + len).saturating_sub(allocation.len);
        match allocation.state {
            State::Freed => Err(format!("{address:#x} lies in freed memory: {}", allocation.describe())),
            State::Ordered => Err(format!(
                "{address:#x} is used before its allocation has its turn in its stream: {}",
                allocation.describe()
            )),
            State::Live | State::Ending if past > 0 => {
                Err(format!("{len} bytes at {address:#x} reach {past} bytes past the end of {}", allocation.describe()))
            }
            State::Live | State::Ending => Ok(index),
        }
    }

    /// The allocation that has this address, as the host sees it: from the call that made it until it is over.
    pub fn known(&self, address: u64) -> Option<&Allocation> {
        self.at(address).map(|index| &self.all[index]).filter(|allocation| allocation.state != State::Freed)
    }

    /// The allocation that has this address, whatever its state.
    pub fn at(&self, address: u64) -> Option<usize> {
        let (_, index) = self.by_base.range(..=address).next_back()?;
        let allocation = &self.all[*index];
        (address - allocation.base < allocation.len).then_some(*index)
    }

    /// The allocation that begins at this address.
    pub fn based_at(&self, address: u64) -> Option<usize> {
        self.by_base.get(&address).copied()
    }

    /// Host memory of the address space that overlaps these bytes.
    pub fn host_overlap(&self, bytes: Range<u64>) -> Option<usize> {
        let (_, index) = self.by_base.range(..bytes.end).next_back()?;
        let allocation = &self.all[*index];
        (allocation.is_host() && allocation.base + allocation.len > bytes.start).then_some(*index)
    }

    /// Whether the address is one of the reserved ones, allocated or not.
    pub fn is_device(&self, address: u64) -> bool {
        (self.space.address..self.space.address + self.space.len).contains(&address)
    }

    fn outside(&self, address: u64, len: u64) -> String {
        let near = match self.by_base.range(..=address).next_back() {
            Some((_, index)) if self.is_device(address) == self.is_device(self.all[*index].base) => {
                let before = &self.all[*index];
                format!(", {} bytes after the end of {}", address - before.base - before.len, before.describe())
            }
            _ => String::new(),
        };
        let what = if self.is_device(address) { "no allocation" } else { "no memory that the device can reach" };
        format!("{len} bytes at {address:#x} lie in {what}{near}")
    }
}

/// Who an allocation belongs to, and who made it how.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The device.
    pub device: usize,
    /// The context.
    pub context: u64,
    /// `CU_MEMHOSTALLOC_*` or `CU_MEMHOSTREGISTER_*`.
    pub flags: u32,
    /// The call, for reports.
    pub origin: Arc<str>,
}

/// A private mapping, unmapped when dropped.
#[derive(Debug)]
struct Pages {
    address: u64,
    len: u64,
}

impl Pages {
    fn new(len: u64, protection: i32) -> Outcome<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let len = usize::try_from(len.max(1)).map_err(|_| Code::OUT_OF_MEMORY)?;
        // SAFETY: a new mapping touches no memory that exists.
        let address = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(Code::OUT_OF_MEMORY);
        }
        Ok(Self { address: address as u64, len: len as u64 })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own; nothing points into it once its allocation is over.
        unsafe { libc::munmap(self.address as *mut c_void, self.len as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> (Memory, u64) {
        let mut memory = Memory::new().unwrap();
        let owner = Owner { device: 0, context: 1, flags: 0, origin: "test".into() };
        let base = memory.allocate(100, owner, Kind::Device { ordered: false }, State::Live).unwrap();
        (memory, base)
    }

    #[test]
    fn bytes_are_found_within_their_allocation_only() {
        let (mut memory, base) = memory();
        assert!(memory.find(base, 100).is_ok() && memory.find(base + 99, 1).is_ok());
        assert!(memory.find(base + 99, 2).unwrap_err().contains("1 bytes past the end"));
        assert!(memory.find(base + 100, 1).unwrap_err().contains("0 bytes after the end"));
        assert!(memory.find(base - 1, 1).unwrap_err().contains("no allocation"));
        let index = memory.at(base).unwrap();
        memory.end(index);
        assert!(memory.find(base, 1).unwrap_err().contains("freed"));
    }

    #[test]
    fn device_addresses_never_come_back() {
        let (mut memory, base) = memory();
        memory.end(0);
        let owner = Owner { device: 0, context: 1, flags: 0, origin: "test".into() };
        let next = memory.allocate(100, owner, Kind::Device { ordered: false }, State::Live).unwrap();
        assert!(next >= base + 100 + GUARD_BYTES && next.is_multiple_of(ALIGNMENT));
    }
}
