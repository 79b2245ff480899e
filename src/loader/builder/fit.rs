//! What of the host's memory each part gets.

use super::LoaderBuilder;
use crate::decode::kernels::Needs;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::memory::{MemoryPlan, are_all_pages_huge};
use crate::plan::SamplePlan;

/// Slots, unless told otherwise; and how many are enough where memory is short.
const SLOTS: usize = 3;
pub(super) const SLOTS_MIN: usize = 2;

/// The arena, unless told otherwise, and where memory is short.
const ARENA_BYTES: usize = 64 << 20;
const ARENA_BYTES_MIN: usize = 4 << 20;

/// What a decode thread has to itself: enough for rows of any width that a JPEG can have, and for what is smaller than
/// two megapixels of another format.
const THREAD_BYTES: usize = 8 << 20;
const THREAD_BYTES_MIN: usize = 1 << 20;

/// What threads share at least: an image of a megapixel.
const DECODE_BYTES_MIN: usize = 16 << 20;

/// What the hungriest decoder takes for a pixel, of a 12-bit JPEG, and for an encoded byte; see [`Decoder::memory_bytes`].
///
/// [`Decoder::memory_bytes`]: crate::decode::Decoder::memory_bytes
const PIXEL_BYTES_MAX: u64 = 28;
const ENCODED_BYTES_MAX: u64 = 4;

/// Code and data of the program that are touched for the first time, rings, the list of open files, what the allocator loses.
const BASE_BYTES: usize = 16 << 20;
/// Stack, tables of fixed size, and the allocator's pieces of a thread; and where the kernel makes all pages huge.
const STACK_BYTES: usize = 768 << 10;
const STACK_BYTES_HUGE: usize = 6 << 20;
/// The same of a thread that only reads.
const READER_BYTES: usize = 64 << 10;
/// Threads beside those that decode and read: feed, launch, settle.
const OTHER_THREADS: usize = 3;
/// What belongs to a sample while its batch is on its way: its job, key, label and place.
const PLACE_BYTES: usize = 1024;
/// The same of a view beyond the first: what is planned of it and what it needs on a device, in vectors that may have up to
/// twice the room.
const VIEW_BYTES: usize = 2 * (size_of::<SamplePlan>() + size_of::<Needs>());

/// Images of their own size have so much of a limit.
const RAGGED_PART: usize = 6;

const MIB: usize = 1 << 20;

impl LoaderBuilder {
    /// The plan for slots of `slot_bytes`, and as many for an upload, with `threads` that decode.
    ///
    /// What was said by name is taken as it is. Without a limit the rest has its default; with one, slots come first, then
    /// arena and threads, up to their defaults, and what remains is for large images.
    ///
    /// # Errors
    /// `LimitExceeded` where the least does not fit.
    pub(super) fn fit(&self, slot_bytes: usize, upload_bytes: usize, threads: usize) -> Result<MemoryPlan> {
        let largest = largest_image_bytes(&self.limits);
        let plan = |slots: usize, arena_bytes: usize, thread_bytes: usize, decode_bytes: usize| {
            let plan = MemoryPlan::new(arena_bytes, slots, 1, slot_bytes)?;
            let other_bytes = self.other_bytes(slots, threads);
            Ok(MemoryPlan { upload_bytes, threads, thread_bytes, decode_bytes, other_bytes, ..plan })
        };
        let Some(limit) = self.limit_bytes()? else {
            let (slots, arena_bytes) = (self.slots.unwrap_or(SLOTS), self.arena_bytes.unwrap_or(ARENA_BYTES));
            return plan(slots, arena_bytes, THREAD_BYTES, largest);
        };
        let least = |slots: usize| {
            plan(slots, self.arena_bytes.unwrap_or(ARENA_BYTES_MIN), THREAD_BYTES_MIN, DECODE_BYTES_MIN.min(largest))
        };
        // A third slot is worth less than what the others need to work well.
        let mut slots = self.slots.unwrap_or(SLOTS);
        if self.slots.is_none() {
            let (three, two) = (least(SLOTS)?.total_bytes(), least(SLOTS_MIN)?.total_bytes());
            if three > limit || limit - three < two / 4 {
                slots = SLOTS_MIN;
            }
        }
        let least = least(slots)?;
        let Some(free) = limit.checked_sub(least.total_bytes()) else {
            return Err(self.does_not_fit(&least, limit));
        };
        let whole = |bytes: usize, unit: usize| bytes / unit * unit;
        let more_arena = whole((free / 4).min(ARENA_BYTES - ARENA_BYTES_MIN), 2 * MIB);
        let arena_bytes = self.arena_bytes.unwrap_or(ARENA_BYTES_MIN + more_arena);
        let more_of_thread = whole((free / 4 / threads.max(1)).min(THREAD_BYTES - THREAD_BYTES_MIN), MIB / 4);
        let thread_bytes = THREAD_BYTES_MIN + more_of_thread;
        let rest = limit - plan(slots, arena_bytes, thread_bytes, 0)?.total_bytes();
        Ok(MemoryPlan { limit_bytes: Some(limit), ..plan(slots, arena_bytes, thread_bytes, rest.min(largest))? })
    }

    /// What images of their own size get in one slot.
    pub(super) fn ragged_bytes(&self) -> Result<usize> {
        let of_limit = |limit: usize| (limit / RAGGED_PART / (2 * MIB) * (2 * MIB)).max(2 * MIB);
        let default = self.limit_bytes()?.map_or(super::RAGGED_SLOT_BYTES, of_limit).min(super::RAGGED_SLOT_BYTES);
        Ok(self.ragged_slot_bytes.unwrap_or(default))
    }

    /// What a slot's landing area may have of a limit, where it was not said.
    pub(super) fn landing_bytes_max(&self) -> Result<usize> {
        let slots = self.slots.unwrap_or(SLOTS);
        Ok(self.limit_bytes()?.map_or(usize::MAX, |limit| (limit / 4 / slots).max(MIB)))
    }

    fn limit_bytes(&self) -> Result<Option<usize>> {
        let Some(mib) = self.memory_mib else { return Ok(None) };
        let bytes = usize::try_from(mib).ok().and_then(|mib| mib.checked_mul(MIB)).filter(|bytes| *bytes > 0);
        let refused = || Error::invalid_parameter("memory_mib", mib, "a number of MiB that can be addressed is needed");
        bytes.ok_or_else(refused).map(Some)
    }

    fn other_bytes(&self, slots: usize, threads: usize) -> usize {
        let stack_bytes = if are_all_pages_huge() { STACK_BYTES_HUGE } else { STACK_BYTES };
        let stacks = (threads + OTHER_THREADS).saturating_mul(stack_bytes);
        let readers = self.depth_max().min(32) * READER_BYTES;
        let views: usize = self.views.iter().flatten().map(|(_, count)| count).sum();
        let place_bytes = PLACE_BYTES + views.saturating_sub(1) * VIEW_BYTES;
        let places = self.places().saturating_mul(slots).saturating_mul(place_bytes);
        BASE_BYTES.saturating_add(stacks).saturating_add(readers).saturating_add(places)
    }

    fn does_not_fit(&self, least: &MemoryPlan, limit: usize) -> Error {
        let needed = least.total_bytes().div_ceil(MIB);
        let message = format!("{} MiB are too few for the loader, which takes at least {least}", limit / MIB);
        // What the slots would have to become, all else being the least. They are mapped in whole huge pages.
        let rest = MemoryPlan { slot_bytes: 0, ..*least }.total_bytes();
        let slot_bytes = limit.saturating_sub(rest) / least.slots.max(1) / (2 * MIB) * (2 * MIB);
        let batch = self.places() as u128 * slot_bytes as u128 / least.slot_bytes.max(1) as u128;
        let smaller = if batch > 0 { format!(", or a batch of at most {batch}") } else { String::new() };
        let fewer = match (least.slots, least.threads) {
            (..=SLOTS_MIN, ..=1) => "",
            (..=SLOTS_MIN, _) => ", or fewer threads",
            (_, _) => ", or fewer slots or threads",
        };
        Error::new(ErrorKind::LimitExceeded, message)
            .with_remedy(format!("allow {needed} MiB (--memory-mib {needed}){smaller}{fewer}"))
    }
}

/// What decoding the largest image takes that the limits let through.
fn largest_image_bytes(limits: &Limits) -> usize {
    let pixels = limits.max_pixels.saturating_mul(PIXEL_BYTES_MAX);
    let bytes = pixels.saturating_add(limits.max_bytes.saturating_mul(ENCODED_BYTES_MAX));
    usize::try_from(bytes).unwrap_or(usize::MAX).min(isize::MAX as usize / 2).max(DECODE_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Loader;

    fn builder(mib: u64) -> LoaderBuilder {
        Loader::open("none").batch_size(32).memory_mib(mib)
    }

    #[test]
    fn a_limit_is_kept_and_used() {
        for mib in [56, 64, 100, 333, 1000, 5000] {
            for threads in [1, 4] {
                let plan = builder(mib).fit(4 << 20, 0, threads).unwrap();
                let (total, limit) = (plan.total_bytes(), mib as usize * MIB);
                assert!(total <= limit && plan.limit_bytes == Some(limit), "{plan}");
                let is_full = plan.decode_bytes == largest_image_bytes(&Limits::default());
                assert!(is_full || total > limit - 4 * MIB, "{plan}");
                assert!(plan.thread_bytes >= THREAD_BYTES_MIN && plan.arena_bytes >= ARENA_BYTES_MIN, "{plan}");
                assert!(plan.decode_bytes >= DECODE_BYTES_MIN && (2..=3).contains(&plan.slots), "{plan}");
            }
        }
        assert_eq!(builder(60).fit(8 << 20, 0, 2).unwrap().slots, 2);
        assert_eq!(builder(600).fit(8 << 20, 0, 2).unwrap().slots, 3);
    }

    #[test]
    fn what_was_said_by_name_is_never_changed() {
        let plan = builder(200).slots(4).arena_bytes(30 << 20).fit(4 << 20, 0, 2).unwrap();
        assert_eq!((plan.slots, plan.arena_bytes), (4, 30 << 20));
        let error = builder(200).slots(60).fit(4 << 20, 0, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(builder(200).arena_bytes(190 << 20).fit(4 << 20, 0, 2).is_err());
        assert_eq!(builder(200).ragged_slot_bytes(7).ragged_bytes().unwrap(), 7);
    }

    /// The least that a refusal names is enough, and so is the batch.
    #[test]
    fn a_refusal_names_numbers_that_are_enough() {
        let error = builder(60).fit(32 << 20, 0, 4).unwrap_err();
        let (text, remedy) = (error.to_string(), error.remedy().unwrap().to_owned());
        assert!(text.contains("60 MiB are too few") && text.contains("2 slots of 32 MiB"), "{text}");
        let number = |after: &str| {
            let rest = &remedy[remedy.find(after).unwrap() + after.len()..];
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().unwrap()
        };
        let needed = number("--memory-mib ");
        assert!(builder(needed).fit(32 << 20, 0, 4).is_ok() && builder(needed - 1).fit(32 << 20, 0, 4).is_err());
        let batch = number("a batch of at most ");
        assert!(batch > 0 && batch < 32);
        assert!(builder(60).batch_size(batch).fit(batch as usize * MIB, 0, 4).is_ok(), "{remedy}");
        assert!(builder(60).batch_size(4 * batch).fit(4 * batch as usize * MIB, 0, 4).is_err(), "{remedy}");
    }

    #[test]
    fn without_a_limit_the_largest_image_has_room() {
        let limits = Limits { max_pixels: 1 << 20, max_bytes: 1 << 20, ..Limits::default() };
        let plan = Loader::open("none").limits(limits).fit(1 << 20, 0, 4).unwrap();
        assert_eq!((plan.slots, plan.arena_bytes, plan.limit_bytes), (3, 64 << 20, None));
        assert_eq!(plan.decode_bytes, 32 << 20);
        let boundless = Limits { max_pixels: u64::MAX, max_bytes: u64::MAX, ..Limits::default() };
        assert!(Loader::open("none").limits(boundless).fit(1 << 20, 0, 4).unwrap().total_bytes() < usize::MAX);
        assert!(builder(0).fit(1 << 20, 0, 4).is_err() && builder(u64::MAX).fit(1 << 20, 0, 4).is_err());
    }
}
