//! The bound on memory, known before the first byte is read.

use std::fmt;

use super::ViewLayout;
use super::mapping::mapped_bytes;
use crate::error::{Error, ErrorKind, Result};

/// The host memory of a loader, part by part, and that of its device.
///
/// [`total_bytes`](Self::total_bytes) is never exceeded, whatever the images are. Arena and slots are allocated when the loader is
/// built; decoding takes its part when it needs it, and gives it back.
///
/// Not in it, since it grows with the data set and not with what is loaded of it: the source's listing
/// ([`source_bytes`](Self::source_bytes)). Nor what the kernel takes back whenever it likes: pages of the index, which is mapped,
/// and of the program. Nor what CUDA's context takes.
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
    /// Threads that decode; on a device one more, for what the device turns out unable to decode.
    pub threads: usize,
    /// What each of them has for decoding and augmenting, and may keep.
    pub thread_bytes: usize,
    /// What they share for images that need more than a thread has, of which each waits until there is enough.
    pub decode_bytes: usize,
    /// Stacks, queues, rings, keys, and what the allocator loses.
    pub other_bytes: usize,
    /// What all of it must not exceed, if that was asked for.
    pub limit_bytes: Option<usize>,
    /// By how much the process grew when the data set was opened; not in the sum.
    pub source_bytes: usize,
    /// Device memory: outputs, what is uploaded, and scratch. What CUDA's context and nvJPEG take for themselves is not in
    /// it.
    pub device_bytes: usize,
}

impl MemoryPlan {
    /// A plan for slots of `batch_size` samples of `sample_bytes` each, without anything to decode them in.
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
            .map(|slot_bytes| Self {
                arena_bytes,
                slots,
                slot_bytes,
                upload_bytes: 0,
                threads: 0,
                thread_bytes: 0,
                decode_bytes: 0,
                other_bytes: 0,
                limit_bytes: None,
                source_bytes: 0,
                device_bytes: 0,
            })
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

    /// Those of them that are allocated when the loader is built: arena and slots.
    pub fn fixed_bytes(&self) -> usize {
        self.checked_fixed().unwrap_or(usize::MAX)
    }

    /// What decoding one image can take: a thread's part, and all that is shared.
    pub fn image_bytes(&self) -> usize {
        self.thread_bytes.saturating_add(self.decode_bytes)
    }

    fn checked_fixed(&self) -> Option<usize> {
        let slot_bytes = mapped_bytes(self.slot_bytes)?.checked_add(self.upload_bytes)?;
        self.slots.checked_mul(slot_bytes)?.checked_add(mapped_bytes(self.arena_bytes)?)
    }

    fn checked_total(&self) -> Option<usize> {
        let threads = self.threads.checked_mul(self.thread_bytes)?.checked_add(self.decode_bytes)?;
        self.checked_fixed()?.checked_add(threads)?.checked_add(self.other_bytes)
    }
}

impl fmt::Display for MemoryPlan {
    /// The sum and its parts, in MiB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| Mib(bytes);
        write!(f, "{} MiB", mib(self.total_bytes()))?;
        if let Some(limit) = self.limit_bytes {
            write!(f, " of {}", mib(limit))?;
        }
        write!(f, ": {} slots of {} MiB", self.slots, mib(self.slot_bytes + self.upload_bytes))?;
        write!(f, ", {} MiB of arena", mib(self.arena_bytes))?;
        write!(f, ", {} threads with {} MiB to decode in", self.threads, mib(self.thread_bytes))?;
        write!(f, " and {} MiB more for large images", mib(self.decode_bytes))?;
        write!(f, ", {} MiB for the rest", mib(self.other_bytes))
    }
}

/// Bytes as MiB, with a decimal where there are few.
pub(crate) struct Mib(pub(crate) usize);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.0 as f64 / f64::from(1 << 20);
        let decimals = usize::from(mebibytes < 10.0 && mebibytes.fract() > 0.05);
        write!(f, "{mebibytes:.decimals$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_parts() {
        let plan = MemoryPlan::new(64 << 20, 3, 256, 150_528).unwrap();
        // What is mapped is whole huge pages.
        let slot_bytes = (256usize * 150_528).next_multiple_of(2 << 20);
        assert_eq!(plan.fixed_bytes(), (64 << 20) + 3 * slot_bytes);
        assert_eq!(plan.total_bytes(), plan.fixed_bytes());
        let plan = MemoryPlan { threads: 4, thread_bytes: 100, decode_bytes: 20, other_bytes: 3, ..plan };
        assert_eq!(plan.total_bytes(), plan.fixed_bytes() + 423);
    }

    #[test]
    fn a_sum_beyond_the_address_space_is_refused() {
        let error = MemoryPlan::new(1 << 20, 3, usize::MAX / 2, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        let plan = MemoryPlan::new(0, 2, 1, 1).unwrap();
        assert_eq!(MemoryPlan { decode_bytes: usize::MAX, ..plan }.total_bytes(), usize::MAX);
    }

    #[test]
    fn it_says_its_parts() {
        let plan = MemoryPlan::new(8 << 20, 2, 1, 3 << 20).unwrap();
        let plan = MemoryPlan {
            threads: 4,
            thread_bytes: 3 << 19,
            decode_bytes: 9 << 20,
            limit_bytes: Some(64 << 20),
            ..plan
        };
        let expected = "31 MiB of 64: 2 slots of 3 MiB, 8 MiB of arena, 4 threads with 1.5 MiB to decode in and 9 MiB more \
                        for large images, 0 MiB for the rest";
        assert_eq!(plan.to_string(), expected);
    }
}
