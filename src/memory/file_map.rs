//! A file mapped to be read: index sidecars, which are replaced by renaming and never written in place.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

/// The whole of a file as it was when it was mapped, read-only, shared with every process that maps it.
///
/// For files that are replaced by renaming alone. A mapping keeps the replaced file alive, so that its
/// bytes stay as they are; a file that is cut short in place would raise SIGBUS, which is why samples are
/// never mapped: anyone may write them.
pub(crate) struct FileMap {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and its bytes are only ever read.
unsafe impl Send for FileMap {}
// SAFETY: as above.
unsafe impl Sync for FileMap {}

impl FileMap {
    /// Maps all of `file`.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for an empty file.
    pub(crate) fn new(file: &File) -> std::io::Result<Self> {
        let len_bytes = usize::try_from(file.metadata()?.len()).ok().and_then(NonZeroUsize::new);
        let len_bytes =
            len_bytes.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is empty"))?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap(None, len_bytes, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file.as_fd(), 0) }?;
        Ok(Self { start: start.cast(), len_bytes: len_bytes.get() })
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is alive as long as `self`, readable throughout, and never written by this process.
        // Other processes replace such files and do not write them (see the type); should one do so all the
        // same, the reader sees changed bytes, all of which it checks as input: no reference derived from them
        // is assumed to be UTF-8, in range or stable.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len_bytes) }
    }
}

impl FileMap {
    /// Gives back what has become resident; it is mapped again, from the page cache, when it is next read.
    pub(crate) fn release(&self) {
        // SAFETY: exactly our own mapping. Of a shared mapping of a file this drops page table entries and no
        // contents: slices of it stay valid and read the same bytes.
        let _ = unsafe { madvise(self.start.cast(), self.len_bytes, MmapAdvise::MADV_DONTNEED) };
    }
}

impl FileMap {
    /// How many of `len_bytes` from `start` on are in the page cache, and how many of them there are, both in whole pages. The
    /// kernel says so of files that this process owns or may write (mincore(2)), and "all" of others.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for a start that is not on a page, or is behind the end.
    pub(crate) fn resident_bytes(&self, start: usize, len_bytes: usize) -> std::io::Result<(usize, usize)> {
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(4096);
        let left_bytes = self.len_bytes.checked_sub(start).filter(|_| start.is_multiple_of(page_bytes));
        let len_bytes = left_bytes.ok_or(std::io::ErrorKind::InvalidInput)?.min(len_bytes);
        let mut pages = vec![0_u8; len_bytes.div_ceil(page_bytes)];
        // SAFETY: `start + len_bytes` lies within the mapping, which is alive, and `pages` has a byte for each page of that
        // range. Nothing of the mapping itself is read, so that a file cut short meanwhile does no harm.
        let result = unsafe { libc::mincore(self.start.as_ptr().add(start).cast(), len_bytes, pages.as_mut_ptr()) };
        nix::errno::Errno::result(result)?;
        let resident = pages.iter().filter(|page| **page & 1 == 1).count();
        Ok((resident * page_bytes, pages.len() * page_bytes))
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; borrowers of its bytes borrow `self`.
        let _ = unsafe { munmap(self.start.cast(), self.len_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_file_as_it_was_and_refuses_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"old").unwrap();
        let map = FileMap::new(&File::open(&path).unwrap()).unwrap();
        std::fs::write(dir.path().join("new"), b"new and longer").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        let bytes = map.bytes();
        map.release();
        assert_eq!(bytes, b"old");
        std::fs::write(&path, b"").unwrap();
        assert!(FileMap::new(&File::open(&path).unwrap()).is_err());
    }
}
