//! One read, from request to bytes: what to ask the kernel next, given what it has answered.
//!
//! No I/O happens here but the rare opening of a second descriptor, so every answer that a kernel or a device
//! can give is tested without one.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::{Common, Direct, OpenFile};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{DeviceRegion, Region};

/// Answers in a row without a byte of progress after which a read has failed: interruptions come
/// singly, so this many mean that something else is wrong.
const STALLS_MAX: u32 = 1000;

/// A range of a file rounded outward to an alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Where it starts in the file.
    pub(super) start: u64,
    /// Its bytes.
    pub(super) len_bytes: usize,
    /// Its bytes before the range that it was made for.
    pub(super) skip: usize,
}

impl Span {
    /// The smallest span of multiples of `align` that covers `len_bytes` at `offset`. Saturates: such spans
    /// are refused by the arena and by the check against the file's size.
    pub(super) fn new(align: usize, offset: u64, len_bytes: usize) -> Self {
        let skip = (offset % align as u64) as usize;
        let covered = skip.saturating_add(len_bytes);
        let len_bytes = covered.checked_next_multiple_of(align).unwrap_or(usize::MAX);
        Self { start: offset - skip as u64, len_bytes, skip }
    }
}

/// Memory that a read fills.
pub(super) trait Target {
    /// Whether the page cache can fill it too.
    const IS_ON_HOST: bool;

    /// Its bytes.
    fn len_bytes(&self) -> usize;

    /// Makes only some of its bytes visible.
    fn narrow(&mut self, range: Range<usize>);
}

impl Target for Region {
    const IS_ON_HOST: bool = true;

    fn len_bytes(&self) -> usize {
        self.len()
    }

    fn narrow(&mut self, range: Range<usize>) {
        self.narrow(range);
    }
}

impl Target for DeviceRegion {
    const IS_ON_HOST: bool = false;

    fn len_bytes(&self) -> usize {
        self.len()
    }

    fn narrow(&mut self, range: Range<usize>) {
        self.narrow(range);
    }
}

/// A read in progress. Owns its region and keeps its file open.
#[derive(Debug)]
pub(super) struct Transfer<T = Region> {
    file: Arc<OpenFile>,
    region: T,
    offset: u64,
    len_bytes: usize,
    span: Span,
    /// Bytes of the span that have arrived, from its start.
    filled: usize,
    /// Bytes of the span that were asked for, from its start.
    asked: usize,
    /// Reads go through the page cache from here on.
    buffered: bool,
    retried: bool,
    stalls: u32,
}

/// What to ask the kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Where in the file.
    pub(super) offset: u64,
    /// Where in the region.
    pub(super) at: usize,
    /// How many bytes, at most 1 GiB.
    pub(super) len_bytes: usize,
}

/// Why a request was not answered with bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// What the kernel says.
    Errno(Errno),
    /// What cuFile says.
    CuFile(cufile_sys::Error),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<cufile_sys::Error> for Fault {
    fn from(error: cufile_sys::Error) -> Self {
        match error {
            cufile_sys::Error::Os { errno, .. } => Self::Errno(Errno::from_raw(errno)),
            error => Self::CuFile(error),
        }
    }
}

/// What follows from an answer.
pub(super) enum Step<T = Region> {
    /// Ask again.
    Again(Transfer<T>),
    /// The read has ended.
    Done(Result<T>),
}

impl<T: Target> Transfer<T> {
    /// Begins a read of `len_bytes`, at least 1, at `offset`.
    ///
    /// # Errors
    /// `Truncated` if the file was shorter when it was opened.
    ///
    /// # Panics
    /// If the region is shorter than the span of the read.
    pub(super) fn new(file: Arc<OpenFile>, offset: u64, len_bytes: usize, region: T) -> Result<Self> {
        if offset.checked_add(len_bytes as u64).is_none_or(|end| end > file.size_bytes()) {
            let got = file.size_bytes().saturating_sub(offset);
            return Err(truncated(&file, offset, len_bytes, got));
        }
        let span = Span::new(file.align_bytes(), offset, len_bytes);
        let room = region.len_bytes();
        assert!(room >= span.len_bytes, "a region of {room} bytes for {} bytes", span.len_bytes);
        let buffered = T::IS_ON_HOST && !file.is_direct() && file.open_buffered().is_ok();
        Ok(Self { file, region, offset, len_bytes, span, filled: 0, asked: 0, buffered, retried: false, stalls: 0 })
    }

    /// The next request. A direct one starts and ends on multiples of the alignment: after an answer that ended
    /// between two, it reads the part before once more. What is asked for a second time is counted.
    pub(super) fn request(&mut self, common: &Common) -> Request {
        let align = if self.buffered { 1 } else { self.file.align_bytes() };
        let at = self.filled / align * align;
        let end = if self.buffered { self.needed() } else { self.span.len_bytes };
        let len_bytes = (end - at).min((common.read_bytes_max / align * align).max(align));
        let again = self.asked.saturating_sub(at).min(len_bytes);
        if again > 0 {
            common.again.add(self.file.identity().inode.0, again as u64);
        }
        self.asked = self.asked.max(at + len_bytes);
        Request { offset: self.span.start + at as u64, at, len_bytes }
    }

    /// Where the bytes start that were asked for, and how many they are.
    pub(super) fn range(&self) -> (u64, usize) {
        (self.offset, self.len_bytes)
    }

    /// Whether its requests go around the page cache.
    pub(super) fn is_direct(&self) -> bool {
        !self.buffered && self.file.is_direct()
    }

    /// Bytes at the start of a request's memory that an earlier answer has filled.
    pub(super) fn arrived_bytes(&self, request: Request) -> usize {
        self.filled.saturating_sub(request.at).min(request.len_bytes)
    }

    /// What it reads from, and the memory that it fills.
    pub(super) fn file_and_region(&self) -> (&Arc<OpenFile>, &T) {
        (&self.file, &self.region)
    }

    /// Takes the answer to `request`.
    pub(super) fn advance(
        mut self,
        request: Request,
        answer: Result<usize, impl Into<Fault>>,
        common: &Common,
    ) -> Step<T> {
        match answer.map_err(Into::into) {
            Ok(read) => {
                common.counters.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
                let reached = request.at + read.min(request.len_bytes);
                if reached > self.filled {
                    self.filled = reached;
                    self.stalls = 0;
                    return if self.filled >= self.needed() { self.complete(common) } else { Step::Again(self) };
                }
                self.no_progress(common)
            }
            Err(Fault::Errno(Errno::EINTR | Errno::EAGAIN)) if self.stalls < STALLS_MAX => {
                self.stalls += 1;
                Step::Again(self)
            }
            Err(Fault::Errno(errno @ (Errno::EINVAL | Errno::EOPNOTSUPP)))
                if T::IS_ON_HOST && !self.buffered && self.file.is_direct() =>
            {
                self.refused(errno, common)
            }
            Err(fault) => self.failed(fault, common),
        }
    }

    /// Bytes of the span up to the end of the range that was asked for.
    fn needed(&self) -> usize {
        self.span.skip + self.len_bytes
    }

    fn complete(mut self, common: &Common) -> Step<T> {
        common.counters.read(self.len_bytes);
        self.region.narrow(self.span.skip..self.span.skip + self.len_bytes);
        Step::Done(Ok(self.region))
    }

    /// The file ends here, unless a direct read fell short twice at the same byte. The page cache can tell.
    fn no_progress(mut self, common: &Common) -> Step<T> {
        if !self.buffered && self.may_be_buffered(common) {
            self.buffered = true;
            return Step::Again(self);
        }
        let got = self.filled.saturating_sub(self.span.skip) as u64;
        Step::Done(Err(truncated(&self.file, self.offset, self.len_bytes, got)))
    }

    /// The file system takes O_DIRECT when a file is opened and refuses the read.
    fn refused(mut self, errno: Errno, common: &Common) -> Step<T> {
        let device = self.file.identity().inode.0;
        if let Err(error) = common.direct_refused(&self.file.path().display(), device, errno.desc()) {
            return Step::Done(Err(error));
        }
        if self.file.open_buffered().is_err() {
            return Step::Done(Err(self.error(errno.into())));
        }
        self.file.refuse_direct();
        self.buffered = true;
        Step::Again(self)
    }

    /// One more try, through the page cache where that is allowed.
    fn failed(mut self, fault: Fault, common: &Common) -> Step<T> {
        if self.retried {
            return Step::Done(Err(self.error(fault)));
        }
        common.counters.retries.fetch_add(1, Ordering::Relaxed);
        self.retried = true;
        self.buffered |= self.may_be_buffered(common);
        Step::Again(self)
    }

    fn may_be_buffered(&self, common: &Common) -> bool {
        T::IS_ON_HOST && common.direct != Direct::Required && self.file.open_buffered().is_ok()
    }

    /// The error of a read that no answer can mend.
    pub(super) fn error(&self, fault: Fault) -> Error {
        let (path, into) = (self.file.path().display(), if T::IS_ON_HOST { "" } else { " by cuFile" });
        let what = format!("{path}: read of {} bytes at offset {}{into}", self.len_bytes, self.offset);
        match fault {
            Fault::Errno(errno) => Error::io(what, errno.into()),
            Fault::CuFile(error) => Error::new(ErrorKind::Io, format!("{what}: {error}")).with_source(error),
        }
    }
}

impl Transfer {
    /// Whether its next request goes around the page cache, to a device that is polled.
    pub(super) fn is_polled(&self) -> bool {
        !self.buffered && self.file.is_polled()
    }

    /// Asks again without polling.
    pub(super) fn unpolled(self) -> Self {
        self.file.refuse_polling();
        self
    }

    /// The descriptor that `request` reads from and the memory that it fills.
    pub(super) fn ends(&mut self, request: Request) -> (BorrowedFd<'_>, &mut [u8]) {
        let buffered = self.buffered.then(|| self.file.buffered_descriptor()).flatten();
        let memory = &mut self.region.as_mut_slice()[request.at..request.at + request.len_bytes];
        (buffered.unwrap_or(self.file.descriptor()), memory)
    }
}

fn truncated(file: &OpenFile, offset: u64, expected: usize, got: u64) -> Error {
    let path = file.path().display();
    Error::new(ErrorKind::Truncated, format!("{path}: expected {expected} bytes at offset {offset}, got {got}"))
        .with_remedy("restore the file, or list the data set again")
}

#[cfg(test)]
mod tests;
