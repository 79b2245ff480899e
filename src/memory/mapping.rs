//! Anonymous memory straight from the kernel: zeroed, aligned, in huge pages where they are to be had.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use nix::sys::resource::{Resource, getrlimit};

use super::numa::NODES_MAX;
use super::poison::unpoison;
use crate::error::{Error, ErrorKind, Result};

/// The size of a huge page on x86-64 and (with 4 KiB pages) on aarch64.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory is taken from this node while it has some, else from others (set_mempolicy(2)).
const MPOL_PREFERRED: libc::c_int = 1;

/// The pages that memory consists of. Large ones cost the processor and devices fewer look-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pages {
    /// Of 2 MiB, set aside for the purpose (hugetlbfs, `vm.nr_hugepages`).
    Huge,
    /// Of 2 MiB where the kernel finds some (transparent huge pages).
    Transparent,
    /// Of the smallest size.
    Small,
}

/// Bytes that a mapping of so many takes: whole pages, huge ones from 2 MiB on. `None` beyond the address space.
pub(super) fn mapped_bytes(len_bytes: usize) -> Option<usize> {
    let unit = if len_bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { super::REGION_ALIGN_BYTES };
    len_bytes.checked_next_multiple_of(unit)
}

/// A private mapping, owned: unmapped when dropped.
///
/// It hands out raw pointers only. Whoever cuts it into pieces argues that they do not overlap.
pub(super) struct Mapping {
    start: NonNull<u8>,
    len_bytes: usize,
    pages: Pages,
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
        let pages = if huge { Pages::Transparent } else { Pages::Small };
        let mapping = Self { start, len_bytes, pages };
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

    /// The same for memory that reads land in: on a node of the machine if one is named, and in huge pages that were set aside
    /// where enough of them are free.
    pub(super) fn for_reads(len_bytes: usize, node: Option<u32>) -> Result<Self> {
        if len_bytes >= HUGE_PAGE_BYTES
            && let Some(mapping) = Self::in_huge_pages(len_bytes, node)
        {
            return Ok(mapping);
        }
        let mapping = Self::new(len_bytes)?;
        mapping.prefer(node);
        if lockable_bytes() < HUGE_PAGE_BYTES as u64 {
            mapping.begin_small();
        }
        Ok(mapping)
    }

    /// The same in the smallest pages, whatever the kernel has.
    pub(super) fn in_small_pages(len_bytes: usize) -> Result<Self> {
        let mut mapping = Self::new(len_bytes)?;
        if mapping.pages == Pages::Transparent {
            // SAFETY: the range is exactly our own mapping; this advice does not change contents.
            let _ = unsafe { madvise(mapping.start.cast(), mapping.len_bytes, MmapAdvise::MADV_NOHUGEPAGE) };
            mapping.pages = Pages::Small;
        }
        Ok(mapping)
    }

    /// Makes the first huge page small ones. The kernel counts whole huge pages against the limit on locked memory; of small
    /// ones a part can be registered with io_uring where that is lower.
    fn begin_small(&self) {
        if self.pages == Pages::Transparent {
            // SAFETY: the range is the start of our own mapping; this advice does not change contents.
            let _ = unsafe { madvise(self.start.cast(), HUGE_PAGE_BYTES, MmapAdvise::MADV_NOHUGEPAGE) };
        }
    }

    /// In pages that were set aside, all of them taken at once: one that is missing later, for a limit of the control group,
    /// would be a signal.
    fn in_huge_pages(len_bytes: usize, node: Option<u32>) -> Option<Self> {
        let len_bytes = len_bytes.checked_next_multiple_of(HUGE_PAGE_BYTES)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: as in `new`.
        let start = unsafe { mmap_anonymous(None, NonZeroUsize::new(len_bytes)?, access, flags) }.ok()?;
        let mapping = Self { start: start.cast(), len_bytes, pages: Pages::Huge };
        mapping.prefer(node);
        // SAFETY: the range is exactly our own mapping; this writes nothing over what is there.
        let populated = unsafe { madvise(start, len_bytes, MmapAdvise::MADV_POPULATE_WRITE) };
        populated.is_ok().then_some(mapping)
    }

    /// Takes pages that are not touched yet from a node, while it has some.
    fn prefer(&self, node: Option<u32>) {
        const WORD_BITS: u32 = libc::c_ulong::BITS;
        let Some(node) = node.filter(|node| *node < NODES_MAX) else { return };
        let mut mask: [libc::c_ulong; (NODES_MAX / WORD_BITS) as usize] = [0; (NODES_MAX / WORD_BITS) as usize];
        mask[(node / WORD_BITS) as usize] |= 1 << (node % WORD_BITS);
        // SAFETY: the range is exactly our own mapping, whose contents a policy does not change, and the mask has the
        // bits that are said (the call reads one fewer).
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.len_bytes,
                MPOL_PREFERRED,
                mask.as_ptr(),
                libc::c_ulong::from(NODES_MAX + 1),
                0,
            )
        };
        if let Err(errno) = Errno::result(result) {
            log::warn!("memory for reads is not bound to the NUMA node {node}: {errno}; it costs some bandwidth");
        }
    }

    /// What it consists of.
    pub(super) fn pages(&self) -> Pages {
        self.pages
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

/// The limit on locked memory, which some processes may exceed; no limit where the kernel does not tell.
pub(crate) fn lockable_bytes() -> u64 {
    getrlimit(Resource::RLIMIT_MEMLOCK).map_or(u64::MAX, |(soft, _)| soft)
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

    /// The same for memory that reads land in, on a node of the machine if one is named.
    pub(super) fn for_reads(len_bytes: usize, node: Option<u32>) -> Result<Self> {
        let mapping = Arc::new(Mapping::for_reads(len_bytes, node)?);
        Ok(Self { at: 0, len_bytes: mapping.len_bytes(), mapping })
    }

    /// A mapping of its own in the smallest pages.
    pub(super) fn in_small_pages(len_bytes: usize) -> Result<Self> {
        let mapping = Arc::new(Mapping::in_small_pages(len_bytes)?);
        Ok(Self { at: 0, len_bytes: mapping.len_bytes(), mapping })
    }

    /// What it consists of.
    pub(super) fn pages(&self) -> Pages {
        self.mapping.pages()
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
        // The addresses may be another's next.
        unpoison(self.start, self.len_bytes);
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
        let lens = [1, 4096, 5000, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 1];
        // Also where no page was set aside, and on a node that does not exist.
        let make: [fn(usize) -> Result<Mapping>; 4] = [
            Mapping::new,
            |len| Mapping::for_reads(len, None),
            |len| Mapping::for_reads(len, Some(0)),
            |len| Mapping::for_reads(len, Some(NODES_MAX - 1)),
        ];
        for (len, make) in lens.into_iter().flat_map(|len| make.map(|make| (len, make))) {
            let mapping = make(len).unwrap();
            assert!(mapping.len_bytes() >= len);
            let align = if len >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { 4096 };
            assert_eq!(mapping.start().as_ptr() as usize % align, 0);
            // SAFETY: the mapping is alive and nobody else has a pointer into it.
            let bytes = unsafe { std::slice::from_raw_parts_mut(mapping.start().as_ptr(), mapping.len_bytes()) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(7);
        }
    }

    /// Pages that were set aside are taken while there are enough of them, and given back.
    #[test]
    fn pages_that_were_set_aside_are_used() {
        let pages = |name: &str| -> usize {
            let text = std::fs::read_to_string(format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}"));
            text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        };
        let (set_aside, free) = (pages("nr_hugepages"), pages("free_hugepages"));
        if free < 16 {
            eprintln!(
                "skipped in part: {free} huge pages are set aside and free, 16 are needed (sysctl vm.nr_hugepages)"
            );
        } else {
            // Other tests may take some meanwhile, but not all of them all the time.
            let make = || Mapping::for_reads(HUGE_PAGE_BYTES, None).unwrap().pages() == Pages::Huge;
            let huge = (0..3 * set_aside).filter(|_| make()).count();
            assert!(huge > set_aside, "{huge} of {} in a row were given back and taken again", 3 * set_aside);
        }
        let more = (set_aside + 1) * HUGE_PAGE_BYTES;
        assert_eq!(Mapping::for_reads(more, None).unwrap().pages(), Pages::Transparent);
        assert_eq!(Mapping::for_reads(4096, None).unwrap().pages(), Pages::Small);
    }

    #[test]
    fn an_impossible_size_is_an_error_with_a_remedy() {
        for len in [usize::MAX, isize::MAX as usize, 1 << 60] {
            assert!(Mapping::new(len).err().unwrap().remedy().is_some());
            assert!(Mapping::for_reads(len, None).err().unwrap().remedy().is_some());
        }
    }
}
