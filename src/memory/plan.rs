//! The bound on memory, known before the first byte is read.

use super::ViewLayout;
use crate::error::{Error, ErrorKind, Result};

/// What the data path allocates when it is built, and no more later.
///
/// Not in it: the decoders' scratch (bounded by [`Limits`](crate::Limits)), the source's listing, and
/// the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Bytes of the arena that encoded samples are read into.
    pub arena_bytes: usize,
    /// Batches that exist at once: being filled, ready, or held by the consumer.
    pub slots: usize,
    /// Host memory of one batch's output; on a device, for the samples that the host decodes.
    pub slot_bytes: usize,
    /// Host memory of one batch's way to a device, 0 without one.
    pub upload_bytes: usize,
    /// Device memory: outputs, what is uploaded, and scratch. What CUDA's context and nvJPEG take for themselves is not in
    /// it.
    pub device_bytes: usize,
}

impl MemoryPlan {
    /// A plan for slots of `batch_size` samples of `sample_bytes` each.
    ///
    /// # Errors
    /// `LimitExceeded` if the sum does not fit the address space.
    pub fn new(arena_bytes: usize, slots: usize, batch_size: usize, sample_bytes: usize) -> Result<Self> {
        Self::of_views(arena_bytes, slots, batch_size, &ViewLayout::of_one(sample_bytes))
    }

    /// A plan for slots of `batch_size` samples with these views.
    pub(crate) fn of_views(arena_bytes: usize, slots: usize, batch_size: usize, views: &ViewLayout) -> Result<Self> {
        let plan = views
            .len_bytes(batch_size)
            .map(|slot_bytes| Self { arena_bytes, slots, slot_bytes, upload_bytes: 0, device_bytes: 0 })
            .filter(|plan| plan.checked_total().is_some_and(|total| total <= isize::MAX as usize));
        plan.ok_or_else(|| {
            let sample_bytes = views.len_bytes(1).unwrap_or(usize::MAX);
            let message =
                format!("{slots} slots of {batch_size} samples of {sample_bytes} bytes are more than can be addressed");
            Error::new(ErrorKind::LimitExceeded, message).with_remedy("use a smaller batch or output size")
        })
    }

    /// The same, with so many bytes a slot for uploading and on the device.
    pub(crate) fn with_device(self, upload_bytes: usize, device_bytes: usize) -> Self {
        Self { upload_bytes, device_bytes: device_bytes.saturating_mul(self.slots), ..self }
    }

    /// Bytes of host memory in all.
    pub fn total_bytes(&self) -> usize {
        self.checked_total().unwrap_or(usize::MAX)
    }

    fn checked_total(&self) -> Option<usize> {
        let slot_bytes = self.slot_bytes.checked_add(self.upload_bytes)?;
        self.slots.checked_mul(slot_bytes)?.checked_add(self.arena_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_arena_and_slots() {
        let plan = MemoryPlan::new(64 << 20, 3, 256, 150_528).unwrap();
        assert_eq!(plan.total_bytes(), (64 << 20) + 3 * 256 * 150_528);
    }

    #[test]
    fn a_sum_beyond_the_address_space_is_refused() {
        let error = MemoryPlan::new(1 << 20, 3, usize::MAX / 2, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }
}
