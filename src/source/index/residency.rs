//! Keeping what is resident of the indexes of a data set small, however large they are.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::map::Sidecar;

/// Look-ups after which pages are given back. A sample is looked up four times or so, and the kernel maps some
/// 400 KiB around what one sample touches: 25 MiB at most.
const LOOK_UPS: u64 = 256;

/// Indexes of this size in sum may be resident as a whole.
const SMALL_BYTES: u64 = 64 << 20;

/// Counts look-ups in the indexes of one data set.
///
/// The pages of an index are the page cache's and can be taken back at any time, but they are counted as this
/// process's memory while they are mapped, and a random order over ten million samples maps all of them.
pub(in crate::source) struct Residency {
    look_ups: AtomicU64,
    is_large: bool,
}

impl Residency {
    /// Of these indexes.
    pub(in crate::source) fn new<'a>(indexes: impl Iterator<Item = &'a Sidecar>) -> Self {
        let bytes = indexes.fold(0u64, |sum, index| sum.saturating_add(index.len_bytes()));
        Self { look_ups: AtomicU64::new(0), is_large: bytes > SMALL_BYTES }
    }

    /// Counts one, and gives pages of the indexes back when it is time.
    pub(in crate::source) fn count<'a, I: Iterator<Item = &'a Sidecar>>(&self, indexes: impl FnOnce() -> I) {
        if self.is_large && self.look_ups.fetch_add(1, Relaxed) % LOOK_UPS == LOOK_UPS - 1 {
            indexes().for_each(Sidecar::release);
        }
    }
}
