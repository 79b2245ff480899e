//! A ring with the memory that is registered with it: setting it up, queueing entries, entering the kernel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use nix::errno::Errno;

use super::Refusal;
use crate::engine::{Common, Polling};
use crate::memory::{Arena, HUGE_PAGE_BYTES, REGION_ALIGN_BYTES, lockable_bytes};

/// The most that one registered buffer may hold (io_uring_register_buffers(3)).
const REGISTERED_BYTES_MAX: usize = 1 << 30;

/// How long the kernel's thread polls an empty submission queue before it sleeps and has to be woken by a system call.
const SQPOLL_IDLE_MS: u32 = 50;

/// The largest queue that io_uring_setup(2) allows.
const ENTRIES_MAX: u32 = 32_768;

/// A ring.
pub(super) struct Ring {
    io: IoUring,
    /// What is registered, of the arena and what lies beside it: its start and length, or nothing if it is not.
    buffers: Option<(NonNull<u8>, usize)>,
    /// Entries whose completion has not been taken yet.
    in_flight: usize,
}

/// What a read reads from.
#[derive(Clone, Copy)]
pub(super) enum From<'a> {
    Descriptor(BorrowedFd<'a>),
    /// A place in the table of registered files.
    Registered(u32),
}

impl Ring {
    /// A ring for opens and reads, `depth` at once of up to `entries` entries each, with the cheapest completions that the
    /// kernel knows.
    pub(super) fn new(
        depth: usize,
        entries: usize,
        common: &Common,
        arena: &Arena,
        sqpoll: Polling,
    ) -> Result<Self, Refusal> {
        let entries = entries_of(depth * entries);
        let io = match sqpoll {
            Polling::Off => set_up(entries, common).map_err(|error| refusal(&error))?,
            wish => match IoUring::builder().setup_sqpoll(SQPOLL_IDLE_MS).build(entries) {
                Ok(io) => io,
                Err(error) if wish == Polling::Required => return Err(no_sqpoll(&error)),
                Err(error) => {
                    let io = set_up(entries, common).map_err(|error| refusal(&error))?;
                    let Refusal { cause, remedy } = no_sqpoll(&error);
                    common.fallbacks.take("SQPOLL", "a system call", None, || (cause, remedy.to_owned()));
                    io
                }
            },
        };
        if !io.params().is_feature_ext_arg() || !io.params().is_feature_nodrop() {
            let cause = "the kernel lacks waits with a timeout (before Linux 5.11)".to_owned();
            return Err(Refusal { cause, remedy: "use a newer kernel" });
        }
        let mut probe = Probe::new();
        let probed = io.submitter().register_probe(&mut probe).is_ok();
        let needed = [opcode::OpenAt::CODE, opcode::Read::CODE, opcode::ReadFixed::CODE, opcode::AsyncCancel::CODE];
        if !probed || !needed.iter().all(|code| probe.is_supported(*code)) {
            let cause = "the kernel refuses the operations openat, read or cancel".to_owned();
            let remedy = "use a newer kernel, or allow them in the sandbox's io_uring policy";
            return Err(Refusal { cause, remedy });
        }
        allow_workers(&io, depth, common);
        let buffers = register(&io, arena, common);
        Ok(Self { io, buffers, in_flight: 0 })
    }

    /// A ring whose completions are polled for: for direct reads from devices with queues for that, and nothing else.
    pub(super) fn polled(entries: usize, common: &Common, arena: &Arena) -> io::Result<Self> {
        let io = IoUring::builder().setup_iopoll().build(entries_of(entries))?;
        let buffers = register(&io, arena, common);
        Ok(Self { io, buffers, in_flight: 0 })
    }

    /// The ring itself, for registering.
    pub(super) fn io(&self) -> &IoUring {
        &self.io
    }

    /// Entries whose completion has not been taken yet.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Entries that the kernel has not been told of, or has not taken yet.
    pub(super) fn queued(&mut self) -> usize {
        self.io.submission().len()
    }

    /// A read of `memory` at `offset`.
    pub(super) fn read(&self, from: From<'_>, memory: &mut [u8], offset: u64) -> squeue::Entry {
        let (start, len) = (memory.as_mut_ptr(), memory.len() as u32);
        let buffer = registered_index(self.buffers, start as usize, memory.len());
        match (from, buffer) {
            (From::Descriptor(file), Some(buffer)) => {
                opcode::ReadFixed::new(types::Fd(file.as_raw_fd()), start, len, buffer).offset(offset).build()
            }
            (From::Descriptor(file), None) => {
                opcode::Read::new(types::Fd(file.as_raw_fd()), start, len).offset(offset).build()
            }
            (From::Registered(place), Some(buffer)) => {
                opcode::ReadFixed::new(types::Fixed(place), start, len, buffer).offset(offset).build()
            }
            (From::Registered(place), None) => {
                opcode::Read::new(types::Fixed(place), start, len).offset(offset).build()
            }
        }
    }

    /// Queues entries, all of which the kernel sees at once, so that links between them hold.
    ///
    /// # Safety
    /// What the entries point to stays where it is until the completion of each has been taken.
    pub(super) unsafe fn push(&mut self, entries: &[squeue::Entry]) {
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.io.submission().push_multiple(entries) }.is_ok() {
                self.in_flight += entries.len();
                return;
            }
            // The queue has a place for every entry in flight. Only a thread of the kernel that has taken some and not
            // said so yet makes it look full, for a moment.
            assert!(self.io.params().is_setup_sqpoll(), "the submission queue is full");
            std::thread::yield_now();
        }
    }

    /// Submits what is queued and waits for `want` completions or the timeout. A polled ring waits for one at most, and
    /// does not know timeouts: it comes back when the scheduler wants the processor.
    pub(super) fn enter(&self, want: usize, timeout: Duration) -> io::Result<()> {
        let timeout = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&timeout);
        let want = if self.io.params().is_setup_iopoll() { want.min(1) } else { want };
        match self.io.submitter().submit_with_args(want, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                // The time has passed, a signal came, or the kernel is short of something for a moment. What was not
                // submitted stays queued for the next call.
                Errno::ETIME | Errno::EINTR | Errno::EAGAIN | Errno::EBUSY => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes a completion from the ring.
    pub(super) fn next_entry(&mut self) -> Option<cqueue::Entry> {
        let entry = self.io.completion().next()?;
        self.in_flight -= 1;
        Some(entry)
    }
}

/// Room for so many entries, and as many again for those that a thread of the kernel has taken but not said so yet.
fn entries_of(entries: usize) -> u32 {
    u32::try_from(entries.saturating_mul(2)).unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX)
}

fn set_up(entries: u32, common: &Common) -> io::Result<IoUring> {
    // Linux 6.1: completions are made when we ask for them, on this thread, not by interrupting it.
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(entries);
    match deferred {
        // Linux 5.11 to 6.0 do not know the flags.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let io = IoUring::builder().build(entries)?;
            common.fallbacks.take("deferred completions", "completions that interrupt", None, || {
                (
                    format!("io_uring_setup: {error}"),
                    "use Linux 6.1 or later; it costs a little CPU time only".to_owned(),
                )
            });
            Ok(io)
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

fn no_sqpoll(error: &io::Error) -> Refusal {
    let Refusal { cause, remedy } = refusal(error);
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "use Linux 5.13 or later, or run with CAP_SYS_NICE",
        _ => remedy,
    };
    Refusal { cause: format!("a submission queue that is polled: {cause}"), remedy }
}

/// Lets all that is in flight be opened at once. Looking up and opening a file is done by a thread of the kernel, which sleeps
/// while the directory and the inode are fetched; of those it takes four a processor by itself, and starts none that nothing
/// waits for. The limit is the thread's, for all of its rings, so it is only ever raised.
fn allow_workers(io: &IoUring, depth: usize, common: &Common) {
    let workers = u32::try_from(depth).unwrap_or(u32::MAX);
    let mut allowed = [0; 2];
    let raised = io.submitter().register_iowq_max_workers(&mut allowed).and_then(|()| {
        if allowed[0] >= workers { Ok(()) } else { io.submitter().register_iowq_max_workers(&mut [workers, 0]) }
    });
    if let Err(error) = raised {
        common.fallbacks.take("opens at once", "four a processor", None, || {
            let cause = format!("io_uring_register of {workers} workers: {error}");
            (cause, "use Linux 5.15 or later; files on slow storage are opened fewer at a time".to_owned())
        });
    }
}

/// Registers what reads land in, so that the kernel pins and looks up its pages once instead of for every read: the start of
/// it where the limit on locked memory allows no more.
fn register(io: &IoUring, arena: &Arena, common: &Common) -> Option<(NonNull<u8>, usize)> {
    let (start, all_bytes) = arena.reads();
    let error = match register_start(io, start, all_bytes) {
        Ok(()) => return Some((start, all_bytes)),
        Err(error) => error,
    };
    let mut len_bytes = 0;
    if error.raw_os_error() == Some(libc::ENOMEM) {
        len_bytes = whole_pages(usize::try_from(lockable_bytes()).unwrap_or(usize::MAX).min(all_bytes / 2));
        // Others of this user may have locked some.
        while len_bytes > 0 && register_start(io, start, len_bytes).is_err() {
            len_bytes = whole_pages(len_bytes / 2);
        }
    }
    let (kib, registered_kib) = (all_bytes.div_ceil(1024), len_bytes / 1024);
    common.fallbacks.take("registered buffers", "unregistered reads", None, || {
        let but = if len_bytes > 0 { format!("; {registered_kib} KiB of it are registered") } else { String::new() };
        (
            format!("io_uring_register of {kib} KiB: {error}{but}"),
            format!("raise the limit on locked memory to at least {} KiB (ulimit -l)", kib + 1024),
        )
    });
    (len_bytes > 0).then_some((start, len_bytes))
}

/// The most pages that the kernel counts as no more than so many bytes: huge ones it counts whole.
fn whole_pages(len_bytes: usize) -> usize {
    let page = if len_bytes < HUGE_PAGE_BYTES { REGION_ALIGN_BYTES } else { HUGE_PAGE_BYTES };
    len_bytes / page * page
}

fn register_start(io: &IoUring, start: NonNull<u8>, len_bytes: usize) -> io::Result<()> {
    let buffers: Vec<libc::iovec> = (0..len_bytes)
        .step_by(REGISTERED_BYTES_MAX)
        .map(|at| libc::iovec {
            iov_base: start.as_ptr().wrapping_add(at).cast(),
            iov_len: REGISTERED_BYTES_MAX.min(len_bytes - at),
        })
        .collect();
    // SAFETY: the buffers are parts of the arena's mapping, which `Uring` keeps mapped as long as the ring exists, and the kernel
    // writes to them only for reads that we submit.
    unsafe { io.submitter().register_buffers(&buffers) }
}

/// The registered buffer that holds all of `len` bytes at `start`, if one does.
fn registered_index(buffers: Option<(NonNull<u8>, usize)>, start: usize, len: usize) -> Option<u16> {
    let (first, len_bytes) = buffers?;
    let at = start.checked_sub(first.as_ptr() as usize)?;
    let last = at.checked_add(len)?.checked_sub(1)?;
    let index = at / REGISTERED_BYTES_MAX;
    (last < len_bytes && last / REGISTERED_BYTES_MAX == index).then(|| u16::try_from(index).ok()).flatten()
}
