//! Reads through io_uring (io_uring(7)): one thread, one ring, no thread per read.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use nix::errno::Errno;

use super::files::{OPEN_FLAGS, open_error};
use super::transfer::{Step, Transfer};
use super::{Common, Completion, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Arena;

/// The most that one registered buffer may hold (io_uring_register_buffers(3)).
const REGISTERED_BYTES_MAX: usize = 1 << 30;

/// The user data of cancellations, which no operation has.
const CANCELLATION: u64 = u64::MAX;

/// How long a drop waits for reads that hang in the kernel before it leaves them their memory for good.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The io_uring driver.
///
/// The invariant that everything unsafe here rests on: an operation that the kernel may still carry out
/// stays in `operations`, with the path, region and file it refers to, until its completion has been
/// taken from the ring. `Drop` keeps it by waiting, or else by leaking them.
pub(super) struct Uring {
    ring: IoUring,
    /// By user data.
    operations: Vec<Operation>,
    vacant: Vec<usize>,
    common: Arc<Common>,
    /// What is registered, of the arena and what lies beside it: its start and length, or nothing if it is not.
    registered: Option<(NonNull<u8>, usize)>,
    /// Keeps the registered memory mapped.
    _arena: Arena,
}

enum Operation {
    Vacant,
    Open { token: u64, path: CString },
    Read { token: u64, transfer: Transfer, request: super::transfer::Request },
}

/// Why there is no ring.
pub(super) struct Refusal {
    pub(super) cause: String,
    pub(super) remedy: &'static str,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let message = format!("io_uring is not to be had: {}", refusal.cause);
        Error::new(ErrorKind::Unavailable, message).with_remedy(refusal.remedy)
    }
}

impl Uring {
    /// Sets up a ring for `depth` operations in flight and registers the arena with it.
    pub(super) fn new(common: &Arc<Common>, arena: &Arena, depth: usize) -> Result<Self, Refusal> {
        let ring = set_up(depth as u32, common).map_err(|error| refusal(&error))?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            let cause = "the kernel lacks waits with a timeout (before Linux 5.11)".to_owned();
            return Err(Refusal { cause, remedy: "use a newer kernel" });
        }
        let mut probe = Probe::new();
        let probed = ring.submitter().register_probe(&mut probe).is_ok();
        let needed = [opcode::OpenAt::CODE, opcode::Read::CODE, opcode::ReadFixed::CODE, opcode::AsyncCancel::CODE];
        if !probed || !needed.iter().all(|code| probe.is_supported(*code)) {
            let cause = "the kernel refuses the operations openat, read or cancel".to_owned();
            return Err(Refusal {
                cause,
                remedy: "use a newer kernel, or allow them in the sandbox's io_uring policy",
            });
        }
        let registered = register(&ring, arena, common);
        Ok(Self {
            ring,
            operations: (0..depth).map(|_| Operation::Vacant).collect(),
            vacant: (0..depth).rev().collect(),
            common: Arc::clone(common),
            registered,
            _arena: arena.clone(),
        })
    }

    pub(super) fn open(&mut self, token: u64, path: CString) {
        let Some(index) = self.vacant.pop() else { unreachable!("the engine has checked for room") };
        // The string's bytes stay where they are when it moves into the table.
        let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).flags(OPEN_FLAGS.bits()).build();
        self.operations[index] = Operation::Open { token, path };
        self.push(index as u64, entry);
    }

    pub(super) fn read(&mut self, token: u64, transfer: Transfer) {
        let Some(index) = self.vacant.pop() else { unreachable!("the engine has checked for room") };
        self.request(index, token, transfer);
    }

    /// Asks the kernel to end an operation early, which then completes as interrupted, or not: reads of a disk cannot be.
    pub(super) fn cancel(&mut self, token: u64) {
        let is_it = |operation: &Operation| match operation {
            Operation::Vacant => false,
            Operation::Open { token: of, .. } | Operation::Read { token: of, .. } => *of == token,
        };
        let Some(index) = self.operations.iter().position(is_it) else { return };
        if self.ring.submission().is_full() {
            // An error comes again when it matters.
            let _ = self.enter(0, Duration::ZERO);
        }
        if !self.ring.submission().is_full() {
            self.push(CANCELLATION, opcode::AsyncCancel::new(index as u64).build());
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.operations.len() - self.vacant.len()
    }

    pub(super) fn reap(&mut self, min: usize, timeout: Duration, completions: &mut Vec<Completion>) -> Result<()> {
        if self.in_flight() == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + timeout;
        let enough = completions.len() + min.min(self.in_flight());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let want = enough.saturating_sub(completions.len());
            self.enter(want, left).map_err(|error| Error::io("io_uring_enter", error))?;
            self.collect(completions);
            if completions.len() >= enough || left.is_zero() {
                break;
            }
        }
        // What `collect` had to ask for again must not wait for the next call.
        if !self.ring.submission().is_empty() {
            self.enter(0, Duration::ZERO).map_err(|error| Error::io("io_uring_enter", error))?;
        }
        Ok(())
    }

    /// Submits what is queued and waits for `want` completions or the timeout.
    fn enter(&self, want: usize, timeout: Duration) -> io::Result<()> {
        let timeout = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(want, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                // The time has passed, a signal came, or the kernel is short of something for a moment. What was not
                // submitted stays queued for the next call.
                Errno::ETIME | Errno::EINTR | Errno::EAGAIN | Errno::EBUSY => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes every completion there is from the ring, and asks again for reads that are not complete.
    fn collect(&mut self, completions: &mut Vec<Completion>) {
        while let Some(entry) = self.next_entry() {
            let Ok(index) = usize::try_from(entry.user_data()) else { continue };
            let Some(operation) = self.operations.get_mut(index) else { continue };
            let answer = match entry.result() {
                result if result < 0 => Err(Errno::from_raw(-result)),
                result => Ok(result as usize),
            };
            match mem::replace(operation, Operation::Vacant) {
                Operation::Vacant => continue,
                Operation::Open { token, path } => {
                    let result = match answer {
                        // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it.
                        Ok(file) => self.common.opened(unsafe { OwnedFd::from_raw_fd(file as i32) }, path),
                        Err(errno) => Err(open_error(&path, errno)),
                    };
                    completions.push(Completion { token, result: result.map(Outcome::Opened) });
                }
                // Not its bytes, and no retry.
                Operation::Read { token, .. } if self.common.is_abandoned(token) => {
                    completions.push(Completion { token, result: Err(Common::abandoned()) });
                }
                Operation::Read { token, transfer, request } => match transfer.advance(request, answer, &self.common) {
                    Step::Again(transfer) => {
                        self.request(index, token, transfer);
                        continue;
                    }
                    Step::Done(result) => completions.push(Completion { token, result: result.map(Outcome::Read) }),
                },
            }
            self.vacant.push(index);
        }
    }

    fn next_entry(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Queues the next request of a read.
    fn request(&mut self, index: usize, token: u64, mut transfer: Transfer) {
        let request = transfer.request(&self.common);
        let (descriptor, memory) = transfer.ends(request);
        let (descriptor, start, len) = (types::Fd(descriptor.as_raw_fd()), memory.as_mut_ptr(), memory.len() as u32);
        let entry = match registered_index(self.registered, start as usize, memory.len()) {
            Some(buffer) => opcode::ReadFixed::new(descriptor, start, len, buffer).offset(request.offset).build(),
            None => opcode::Read::new(descriptor, start, len).offset(request.offset).build(),
        };
        self.operations[index] = Operation::Read { token, transfer, request };
        self.push(index as u64, entry);
    }

    fn push(&mut self, user_data: u64, entry: squeue::Entry) {
        let entry = entry.user_data(user_data);
        // SAFETY: path, region and file that the entry points to are in `operations` under its user data until
        // its completion: the invariant of `Uring`.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // The queue has an entry for each operation, and an operation has one request at a time.
        assert!(pushed.is_ok(), "the submission queue is full");
    }

    /// Asks the kernel to cancel everything and waits until it has let go of it: whether it has.
    fn drain(&mut self) -> bool {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        let mut cancelled = false;
        while self.in_flight() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.enter(usize::from(cancelled), left).is_err() {
                return false;
            }
            self.forget_completed();
            if !cancelled && self.ring.submission().is_empty() {
                cancelled = true;
                for index in 0..self.operations.len() {
                    if !matches!(self.operations[index], Operation::Vacant) {
                        self.push(CANCELLATION, opcode::AsyncCancel::new(index as u64).build());
                    }
                }
            }
        }
        true
    }

    /// As `collect`, but nothing is asked for again.
    fn forget_completed(&mut self) {
        while let Some(entry) = self.next_entry() {
            let Ok(index) = usize::try_from(entry.user_data()) else { continue };
            let Some(operation) = self.operations.get_mut(index) else { continue };
            if matches!(operation, Operation::Open { .. }) && entry.result() >= 0 {
                // SAFETY: as in `collect`.
                drop(unsafe { OwnedFd::from_raw_fd(entry.result()) });
            }
            *operation = Operation::Vacant;
            self.vacant.push(index);
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if !self.drain() {
            log::error!("{} reads hang in the kernel: their memory is left to them", self.in_flight());
            mem::forget(mem::take(&mut self.operations));
        }
    }
}

/// A ring with the cheapest completions that the kernel knows.
fn set_up(depth: u32, common: &Common) -> io::Result<IoUring> {
    // Linux 6.1: completions are made when we ask for them, on this thread, not by interrupting it.
    let deferred = IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().build(depth);
    match deferred {
        // Linux 5.11 to 6.0 do not know the flags.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let ring = IoUring::builder().build(depth)?;
            common.fallbacks.take("deferred completions", "completions that interrupt", None, || {
                (
                    format!("io_uring_setup: {error}"),
                    "use Linux 6.1 or later; it costs a little CPU time only".to_owned(),
                )
            });
            Ok(ring)
        }
        other => other,
    }
}

fn refusal(error: &io::Error) -> Refusal {
    let remedy = match error.raw_os_error() {
        Some(libc::ENOSYS) => "use Linux 5.11 or later with CONFIG_IO_URING",
        Some(libc::EPERM | libc::EACCES) => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile, \
             and check sysctl kernel.io_uring_disabled"
        }
        Some(libc::ENOMEM) => "raise the limit on locked memory (ulimit -l)",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit on open files (ulimit -n)",
        _ => "use the pread engine",
    };
    Refusal { cause: format!("io_uring_setup: {error}"), remedy }
}

/// Registers what reads land in, so that the kernel pins and looks up its pages once instead of for every read.
fn register(ring: &IoUring, arena: &Arena, common: &Common) -> Option<(NonNull<u8>, usize)> {
    let (start, len_bytes) = arena.reads();
    let buffers: Vec<libc::iovec> = (0..len_bytes)
        .step_by(REGISTERED_BYTES_MAX)
        .map(|at| libc::iovec {
            iov_base: start.as_ptr().wrapping_add(at).cast(),
            iov_len: REGISTERED_BYTES_MAX.min(len_bytes - at),
        })
        .collect();
    // SAFETY: the buffers are parts of the arena's mapping, which `Uring` keeps mapped as long as the ring exists, and the kernel
    // writes to them only for reads that we submit.
    match unsafe { ring.submitter().register_buffers(&buffers) } {
        Ok(()) => Some((start, len_bytes)),
        Err(error) => {
            let kib = len_bytes.div_ceil(1024);
            common.fallbacks.take("registered buffers", "unregistered reads", None, || {
                (
                    format!("io_uring_register of {kib} KiB: {error}"),
                    format!("raise the limit on locked memory to at least {} KiB (ulimit -l)", kib + 1024),
                )
            });
            None
        }
    }
}

/// The registered buffer that holds all of `len` bytes at `start`, if one does.
fn registered_index(registered: Option<(NonNull<u8>, usize)>, start: usize, len: usize) -> Option<u16> {
    let (first, len_bytes) = registered?;
    let at = start.checked_sub(first.as_ptr() as usize)?;
    let last = at.checked_add(len)?.checked_sub(1)?;
    let index = at / REGISTERED_BYTES_MAX;
    (last < len_bytes && last / REGISTERED_BYTES_MAX == index).then(|| u16::try_from(index).ok()).flatten()
}
