//! The arena's twin on a CUDA device: addresses that cuFile reads to, and the host never.

use std::ops::Range;
use std::sync::Arc;

use super::ring::{Piece, Ring, Ticket};
use crate::device::Device;
use crate::device::cuda::{DeviceMemory, Gpu};
use crate::error::{Error, Result};

/// A ring of device memory, cut into [`DeviceRegion`]s as an [`Arena`](super::Arena) is into regions. Cloning clones a
/// handle.
#[derive(Clone)]
pub struct DeviceArena(Ring<Memory>);

/// A part of an allocation.
struct Memory {
    whole: Arc<DeviceMemory>,
    at: usize,
}

impl DeviceArena {
    /// An arena of its own on a device, of `capacity_bytes` rounded up to
    /// [`REGION_ALIGN_BYTES`](super::REGION_ALIGN_BYTES).
    ///
    /// # Errors
    /// `InvalidParameter` for [`Device::Host`], `Unavailable` where the device is not to be had, `OutOfMemory`.
    pub fn new(device: Device, capacity_bytes: usize) -> Result<Self> {
        let Device::Cuda(ordinal) = device else {
            return Err(Error::invalid_parameter("device", device, "cuda:N is allowed: host memory has its own arena"));
        };
        let capacity_bytes = capacity_bytes.max(1).next_multiple_of(super::REGION_ALIGN_BYTES);
        let memory = Arc::new(DeviceMemory::new(&Gpu::open(ordinal)?, capacity_bytes)?);
        Ok(Self::of(memory, 0, capacity_bytes))
    }

    /// An arena of the bytes from `at` on of an allocation, which nobody else writes. `at` is a multiple of
    /// [`REGION_ALIGN_BYTES`](super::REGION_ALIGN_BYTES).
    pub(crate) fn of(whole: Arc<DeviceMemory>, at: usize, capacity_bytes: usize) -> Self {
        debug_assert!(at.is_multiple_of(super::REGION_ALIGN_BYTES) && at + capacity_bytes <= whole.len_bytes());
        Self(Ring::new(Memory { whole, at }, capacity_bytes))
    }

    /// As [`Arena::alloc`](super::Arena::alloc).
    ///
    /// # Errors
    /// `LimitExceeded` if the arena could not hold it even when empty.
    pub fn alloc(&self, len_bytes: usize) -> Result<Option<DeviceRegion>> {
        let mut region = None;
        self.alloc_all([len_bytes].into_iter(), |taken| region = Some(taken))?;
        Ok(region)
    }

    /// As [`Arena::alloc_all`](super::Arena::alloc_all).
    ///
    /// # Errors
    /// `LimitExceeded` if the arena could not hold them all even when empty.
    pub fn alloc_all(
        &self,
        lens_bytes: impl Iterator<Item = usize> + Clone,
        mut put: impl FnMut(DeviceRegion),
    ) -> Result<bool> {
        self.0.alloc_all(lens_bytes, |piece| put(DeviceRegion(piece)))
    }

    /// Bytes in all.
    pub fn capacity_bytes(&self) -> usize {
        self.0.capacity_bytes()
    }

    /// Bytes that are out now.
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes()
    }

    /// The allocation it lies in.
    pub(crate) fn memory(&self) -> &Arc<DeviceMemory> {
        &self.0.memory().whole
    }
}

/// A piece of a [`DeviceArena`], owned: no other region overlaps it until it is dropped. It keeps its memory allocated.
///
/// The host cannot look into it. Who reads it on a stream has to know that what was written there is done.
pub struct DeviceRegion(Piece<Memory>);

impl DeviceRegion {
    /// The device address of its first visible byte.
    pub fn address(&self) -> u64 {
        self.memory().address() + self.offset() as u64
    }

    /// Visible bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no byte is visible.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes only `range` of the visible bytes visible.
    ///
    /// # Panics
    /// If the range does not lie within them.
    pub fn narrow(&mut self, range: Range<usize>) {
        self.0.narrow(range);
    }

    /// Copies the visible bytes to the host and waits for that.
    ///
    /// # Errors
    /// `DeviceLost` and the like.
    ///
    /// # Panics
    /// If `into` is not as long.
    pub fn copy_to_host(&self, into: &mut [u8]) -> Result<()> {
        assert_eq!(into.len(), self.len(), "the region's bytes");
        self.memory().copy_to_host(self.offset(), into)
    }

    /// What names it to whoever does not own it.
    pub(crate) fn ticket(&self) -> DeviceRegionTicket {
        DeviceRegionTicket(self.0.ticket())
    }

    /// Where its visible bytes start, from the start of the arena.
    pub(crate) fn position(&self) -> usize {
        self.0.position()
    }

    /// The allocation it lies in.
    pub(crate) fn memory(&self) -> &Arc<DeviceMemory> {
        &self.0.memory().whole
    }

    /// Where its visible bytes start, from the start of the allocation.
    pub(crate) fn offset(&self) -> usize {
        self.0.memory().at + self.0.position()
    }
}

impl std::fmt::Debug for DeviceRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceRegion({:?})", self.0)
    }
}

/// Names a [`DeviceRegion`].
pub(crate) struct DeviceRegionTicket(Ticket<Memory>);

impl DeviceRegionTicket {
    /// As [`RegionTicket::quarantine`](super::RegionTicket::quarantine).
    pub(crate) fn quarantine(&self) {
        self.0.pass();
    }
}
