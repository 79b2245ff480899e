//! A small file as one link of operations: statx, open into the ring's own table, read, close.
//!
//! Nothing comes back between them, and no descriptor of the process is used. What the file is (its size, kind, time) is
//! learned by name before it is opened, since statx(2) does not know the ring's table. So a file that is replaced in between
//! could pass for the one before it. It does not, but for one of the same size; and then what is said of the bytes is older
//! than they are, which every later check takes for a change. Anything that is not as it should be sends the file the other
//! way: opened, looked at and read one after the other, which knows every promise.

use std::cell::UnsafeCell;
use std::ffi::CString;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fd, Fixed};
use io_uring::{opcode, types};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::ring::{From, Ring};
use crate::engine::files::{self, OPEN_FLAGS, STATX_MASK};
use crate::engine::{Common, Direct, Identity};
use crate::memory::Region;

/// Files longer than this are opened first: their size decides how many reads there are.
pub(super) const LINKED_BYTES_MAX: usize = 1 << 20;

/// So many files in a row that had to go the other way, and no more is tried this one.
const MISSES_MAX: u32 = 16;

/// The operations of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Status,
    Open,
    Read,
    Close,
}

impl Stage {
    pub(super) const ALL: [Self; 4] = [Self::Status, Self::Open, Self::Read, Self::Close];
}

/// A file on its way. The kernel writes to `status` and `region` until its last operation has completed.
pub(super) struct Linked {
    pub(super) token: u64,
    pub(super) path: CString,
    region: Region,
    status: Box<UnsafeCell<libc::statx>>,
    answers: [Option<Result<usize, Errno>>; Stage::ALL.len()],
}

/// Why a file has to go the other way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// It is larger than its region.
    Larger,
    /// An operation failed, or what came is not what was said.
    Failed(&'static str, Option<Errno>),
}

impl Linked {
    pub(super) fn new(token: u64, path: CString, region: Region) -> Self {
        // SAFETY: `statx` is plain integers, for which zeroes are valid.
        let status = Box::new(UnsafeCell::new(unsafe { std::mem::zeroed() }));
        Self { token, path, region, status, answers: [None; Stage::ALL.len()] }
    }

    /// The entries of its operations. They point to its path, its status and its region, none of which moves with it.
    pub(super) fn entries(&mut self, ring: &Ring, place: u32, direct: Direct) -> Option<[Entry; Stage::ALL.len()]> {
        let slot = DestinationSlot::try_from_slot_target(place).ok()?;
        let at = Fd(libc::AT_FDCWD);
        let status: *mut types::statx = self.status.get().cast();
        let wanted = if direct == Direct::Off { OFlag::empty() } else { OFlag::O_DIRECT };
        // What is no descriptor of the process has no flag to close it on exec.
        let flags = OPEN_FLAGS.difference(OFlag::O_CLOEXEC).union(wanted).bits();
        let path = self.path.as_ptr();
        Some([
            opcode::Statx::new(at, path, status).mask(STATX_MASK).build().flags(Flags::IO_LINK),
            opcode::OpenAt::new(at, path).flags(flags).file_index(Some(slot)).build().flags(Flags::IO_LINK),
            // A read that ends with the file is short, which would break a link; the file is to be closed anyhow.
            ring.read(From::Registered(place), self.region.as_mut_slice(), 0).flags(Flags::IO_HARDLINK),
            opcode::Close::new(Fixed(place)).build(),
        ])
    }

    /// Takes the answer of an operation: whether it was the last.
    pub(super) fn answer(&mut self, stage: Stage, answer: Result<usize, Errno>) -> bool {
        self.answers[stage as usize] = Some(answer);
        self.is_done()
    }

    /// Whether the kernel has let go of it.
    pub(super) fn is_done(&self) -> bool {
        self.answers.iter().all(Option::is_some)
    }

    /// The bytes of the file and which file it was; or its number and path, and why it has to go the other way.
    ///
    /// # Panics
    /// If it is not done.
    pub(super) fn finish(mut self, common: &Common) -> Result<(Region, Identity), (u64, CString, Miss)> {
        assert!(self.is_done(), "the kernel may still write to it");
        match self.judge(common.direct) {
            Ok((len_bytes, identity)) => {
                common.counters.read_file(len_bytes);
                self.region.narrow(0..len_bytes);
                Ok((self.region, identity))
            }
            Err(miss) => Err((self.token, self.path, miss)),
        }
    }

    fn judge(&self, direct: Direct) -> Result<(usize, Identity), Miss> {
        let answer = |stage: Stage, name| match self.answers[stage as usize] {
            Some(Ok(result)) => Ok(result),
            Some(Err(errno)) => Err(Miss::Failed(name, Some(errno))),
            None => Err(Miss::Failed(name, None)),
        };
        answer(Stage::Status, "statx")?;
        // SAFETY: every operation is done, so nobody writes to it any more; the kernel wrote integers over integers.
        let status = unsafe { &*self.status.get() };
        let Some(identity) = files::identity(status) else { return Err(Miss::Failed("not a regular file", None)) };
        if identity.size_bytes > self.region.len() as u64 {
            return Err(Miss::Larger);
        }
        if direct != Direct::Off && files::direct_align_bytes(status).is_err() {
            return Err(Miss::Failed("the file system has no O_DIRECT", None));
        }
        answer(Stage::Open, "open")?;
        let len_bytes = answer(Stage::Read, "read")?;
        answer(Stage::Close, "close")?;
        if len_bytes as u64 != identity.size_bytes {
            return Err(Miss::Failed("another number of bytes than the file's", None));
        }
        Ok((len_bytes, identity))
    }
}

/// Whether files are read so.
#[derive(Default)]
pub(super) struct Links {
    misses: u32,
    is_off: bool,
}

impl Links {
    pub(super) fn is_on(&self) -> bool {
        !self.is_off
    }

    /// Read no file so.
    pub(super) fn turn_off(&mut self) {
        self.is_off = true;
    }

    pub(super) fn hit(&mut self) {
        self.misses = 0;
    }

    /// Counts a file that had to go the other way, and gives up after some in a row.
    pub(super) fn miss(&mut self, miss: &Miss, path: &CString, common: &Common) {
        // The next may fit: who asked knows better by then. What is not there is not there either way.
        let Miss::Failed(what, errno) = miss else { return };
        if matches!(errno, Some(Errno::ENOENT)) {
            return;
        }
        self.misses += 1;
        if self.misses < MISSES_MAX || self.is_off {
            return;
        }
        self.is_off = true;
        common.fallbacks.take("linked opens", "an open, then a read", None, || {
            let errno = errno.map_or_else(String::new, |errno| format!(": {}", errno.desc()));
            let path = files::display(path);
            let cause = format!("{MISSES_MAX} files in a row could not be read so, the last {path}: {what}{errno}");
            (cause, "use Linux 5.19 or later and a file system with O_DIRECT; it costs a little CPU time".to_owned())
        });
    }
}
