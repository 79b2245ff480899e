//! Anonymous memory straight from the kernel: zeroed, aligned, in huge pages where they are to be had.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::error::{Error, ErrorKind, Result};

/// The size of a transparent huge page on x86-64 and (with 4 KiB pages) on aarch64.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A private mapping, owned: unmapped when dropped.
///
/// It hands out raw pointers only. Whoever cuts it into pieces argues that they do not overlap.
pub(super) struct Mapping {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it, and `Mapping` itself gives
// no access to its bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method reads or writes the bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `len_bytes` zeroed bytes. From 2 MiB on it is aligned to 2 MiB and huge pages are
    /// asked for. Pages are touched by their first user or by registration with io_uring, so
    /// that a large arena does not delay the first batch.
    pub(super) fn new(len_bytes: usize) -> Result<Self> {
        let refused = |cause: &dyn std::fmt::Display| {
            Error::new(ErrorKind::LimitExceeded, format!("cannot map {len_bytes} bytes: {cause}"))
                .with_remedy("use a smaller batch, fewer slots or a smaller arena, or free memory")
        };
        let huge = len_bytes >= HUGE_PAGE_BYTES;
        let unit = if huge { HUGE_PAGE_BYTES } else { super::REGION_ALIGN_BYTES };
        let slack = if huge { HUGE_PAGE_BYTES } else { 0 };
        let rounded = len_bytes.max(1).checked_next_multiple_of(unit).filter(|len| *len <= isize::MAX as usize - slack);
        let len_bytes = rounded.ok_or_else(|| refused(&"more than the address space"))?;
        // The kernel aligns to 4 KiB only: map one huge page more and give back both ends.
        let Some(mapped_bytes) = NonZeroUsize::new(len_bytes + slack) else { unreachable!("len_bytes is at least 1") };
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches nothing
        // that exists.
        let mapped = unsafe {
            mmap_anonymous(None, mapped_bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)
        }
        .map_err(|errno| refused(&errno))?;
        let lead = mapped.as_ptr().align_offset(unit).min(slack);
        // SAFETY: `lead <= slack`, so `lead + len_bytes` lies inside the mapping just made.
        let start = unsafe { mapped.cast::<u8>().add(lead) };
        let mapping = Self { start, len_bytes };
        // SAFETY: both ends are whole pages of our own mapping (`lead`, `len_bytes` and `slack` are multiples
        // of the page size) which nothing points into.
        unsafe {
            if lead > 0 {
                let _ = munmap(mapped, lead);
            }
            if slack > lead {
                let _ = munmap(start.add(len_bytes).cast(), slack - lead);
            }
        }
        if huge {
            // Advice only: without huge pages everything works, with more page-table walks.
            // SAFETY: the range is exactly our own mapping; this advice does not change contents.
            let _ = unsafe { madvise(start.cast(), len_bytes, MmapAdvise::MADV_HUGEPAGE) };
        }
        Ok(mapping)
    }

    /// The first byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes mapped, rounded up from what was asked for.
    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

/// Some bytes of a mapping, which stays mapped meanwhile. As a mapping, it hands out raw pointers only.
#[derive(Clone)]
pub(super) struct Part {
    mapping: Arc<Mapping>,
    at: usize,
    len_bytes: usize,
}

impl Part {
    /// A mapping of its own, of at least so many bytes: all of it.
    pub(super) fn new(len_bytes: usize) -> Result<Self> {
        let mapping = Arc::new(Mapping::new(len_bytes)?);
        Ok(Self { at: 0, len_bytes: mapping.len_bytes(), mapping })
    }

    /// Takes the first `len_bytes` off it.
    ///
    /// # Panics
    /// If it has fewer.
    pub(super) fn split_off(&mut self, len_bytes: usize) -> Self {
        assert!(len_bytes <= self.len_bytes, "{len_bytes} bytes of {}", self.len_bytes);
        let taken = Self { mapping: Arc::clone(&self.mapping), at: self.at, len_bytes };
        self.at += len_bytes;
        self.len_bytes -= len_bytes;
        taken
    }

    /// The first byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        // SAFETY: `at` lies within the mapping: it starts there and moves by what is left at most.
        unsafe { self.mapping.start().add(self.at) }
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` kept, and every borrower (region, slot, ring) holds the
        // owner of this mapping alive.
        let _ = unsafe { munmap(self.start.cast(), self.len_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_zeroed_and_writable_to_the_last_byte() {
        for len in [1, 4096, 5000, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 1] {
            let mapping = Mapping::new(len).unwrap();
            assert!(mapping.len_bytes() >= len);
            let align = if len >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { 4096 };
            assert_eq!(mapping.start().as_ptr() as usize % align, 0);
            // SAFETY: the mapping is alive and nobody else has a pointer into it.
            let bytes = unsafe { std::slice::from_raw_parts_mut(mapping.start().as_ptr(), mapping.len_bytes()) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(7);
        }
    }

    #[test]
    fn an_impossible_size_is_an_error_with_a_remedy() {
        for len in [usize::MAX, isize::MAX as usize, 1 << 60] {
            assert!(Mapping::new(len).err().unwrap().remedy().is_some());
        }
    }
}
