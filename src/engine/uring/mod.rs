//! Reads through io_uring (io_uring(7)): one thread, one ring, no thread per read.
//!
//! Reads are handed to the kernel as they come, not together with the next wait: a device that waits for a batch to be
//! made up stands still meanwhile, which costs more than the system calls that batches save.

mod linked;
mod ring;
mod table;

use std::ffi::CString;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{cqueue, opcode, types};
use nix::errno::Errno;

use super::files::{OPEN_FLAGS, open_error};
use super::options::{EngineOptions, Polling};
use super::polling::IOPOLL;
use super::transfer::{Request, Step, Transfer};
use super::{Common, Completion, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Arena, Region};
use linked::{LINKED_BYTES_MAX, Linked, Links, Stage};
use ring::{From, Ring};
pub(super) use table::Place;
use table::Table;

/// The user data of cancellations, which no operation has.
const CANCELLATION: u64 = u64::MAX;

/// The user data of an operation is its index, and above these bits which of a link's it is.
const STAGE_SHIFT: u32 = 32;

/// How long a drop waits for reads that hang in the kernel before it leaves them their memory for good.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The io_uring driver.
///
/// The invariant that everything unsafe here rests on: an operation that the kernel may still carry out
/// stays in `operations`, with the path, region and file it refers to, until its completion (of a link, all of them) has
/// been taken from the ring. `Drop` keeps it by waiting, or else by leaking them.
pub(super) struct Uring {
    ring: Ring,
    /// For direct reads from devices that are polled.
    polled: Option<Ring>,
    /// Registered files, the first of which are those of links.
    table: Option<Table>,
    links: Links,
    /// By user data.
    operations: Vec<Operation>,
    vacant: Vec<usize>,
    common: Arc<Common>,
    /// Entries that are queued before the kernel is told.
    submit_batch: usize,
    /// Keeps the registered memory mapped.
    _arena: Arena,
}

enum Operation {
    Vacant,
    Open { token: u64, path: CString },
    Read { token: u64, transfer: Transfer, request: Request },
    Linked(Box<Linked>),
}

impl Operation {
    /// The engine's number for it; none where there is none.
    fn token(&self) -> Option<u64> {
        match self {
            Self::Vacant => None,
            Self::Open { token, .. } | Self::Read { token, .. } => Some(*token),
            Self::Linked(linked) => Some(linked.token),
        }
    }
}

/// Why there is no ring.
pub(super) struct Refusal {
    pub(super) cause: String,
    pub(super) remedy: &'static str,
}

impl std::convert::From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let message = format!("io_uring is not to be had: {}", refusal.cause);
        Error::new(ErrorKind::Unavailable, message).with_remedy(refusal.remedy)
    }
}

impl Uring {
    /// Sets up a ring for `depth` operations in flight and registers the arena with it.
    pub(super) fn new(
        common: &Arc<Common>,
        arena: &Arena,
        depth: usize,
        options: EngineOptions,
    ) -> Result<Self, Refusal> {
        let ring = Ring::new(depth, Stage::ALL.len(), common, arena, options.sqpoll)?;
        let polled = match options.iopoll {
            Polling::Off => None,
            wish => match Ring::polled(depth, common, arena) {
                Ok(ring) => {
                    common.polling.enable();
                    Some(ring)
                }
                Err(error) => {
                    let cause = format!("a ring whose completions are polled for: {error}");
                    let remedy = "use Linux 5.11 or later, or leave polling off";
                    if wish == Polling::Required {
                        return Err(Refusal { cause, remedy });
                    }
                    common.fallbacks.take(IOPOLL, "interrupts", None, || (cause, remedy.to_owned()));
                    None
                }
            },
        };
        let table = Table::new(ring.io(), depth, common);
        let mut links = Links::default();
        // What a link reads is not polled for.
        if !table.as_ref().is_some_and(Table::opens_into) || polled.is_some() {
            links.turn_off();
        }
        Ok(Self {
            ring,
            polled,
            table,
            links,
            operations: (0..depth).map(|_| Operation::Vacant).collect(),
            vacant: (0..depth).rev().collect(),
            common: Arc::clone(common),
            submit_batch: options.submit_batch.max(1),
            _arena: arena.clone(),
        })
    }

    pub(super) fn open(&mut self, token: u64, path: CString) {
        let index = self.take_vacant();
        self.start_open(index, token, path);
    }

    pub(super) fn read(&mut self, token: u64, transfer: Transfer) {
        let index = self.take_vacant();
        self.request(index, token, transfer);
    }

    pub(super) fn read_file(&mut self, token: u64, path: CString, region: Region) {
        let index = self.take_vacant();
        let fits = region.len() <= LINKED_BYTES_MAX.min(self.common.read_bytes_max);
        if !fits || !self.links.is_on() {
            return self.start_open(index, token, path);
        }
        let mut linked = Box::new(Linked::new(token, path, region));
        let Some(entries) = linked.entries(&self.ring, index as u32, self.common.direct) else {
            return self.start_open(index, token, linked.path);
        };
        self.operations[index] = Operation::Linked(linked);
        let mut stages = 0..;
        let entries = entries.map(|entry| entry.user_data(user_data(index, stages.next().unwrap_or_default())));
        // SAFETY: path, status and region that they point to are in `operations` until all have completed: the invariant of
        // `Uring`.
        unsafe { self.ring.push(&entries) };
        self.submit_if_due();
    }

    /// Asks the kernel to end an operation early, which then completes as interrupted, or not: reads of a disk cannot be.
    pub(super) fn cancel(&mut self, token: u64) {
        let Some(index) = self.operations.iter().position(|operation| operation.token() == Some(token)) else { return };
        // Room for what is queued here; an error comes again when it matters.
        let _ = self.submit();
        self.cancel_operation(index);
        let _ = self.submit();
    }

    pub(super) fn in_flight(&self) -> usize {
        self.operations.len() - self.vacant.len()
    }

    pub(super) fn reap(&mut self, min: usize, timeout: Duration, completions: &mut Vec<Completion>) -> Result<()> {
        if let Some(table) = &mut self.table {
            table.take_back(self.ring.io());
        }
        if self.in_flight() == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + timeout;
        let enough = completions.len() + min.min(self.in_flight());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.enter(enough.saturating_sub(completions.len()), left)?;
            self.collect(completions);
            if completions.len() >= enough || left.is_zero() {
                break;
            }
        }
        // What `collect` had to ask for again must not wait for the next call.
        self.submit()
    }

    /// Submits what is queued and waits for `want` completions or the timeout, or a little while where one ring cannot be
    /// waited for without missing the other.
    fn enter(&mut self, want: usize, timeout: Duration) -> Result<()> {
        let failed = |error| Error::io("io_uring_enter", error);
        match &self.polled {
            Some(polled) if polled.in_flight() > 0 && self.ring.in_flight() > 0 => {
                self.ring.enter(0, Duration::ZERO).and_then(|()| polled.enter(0, Duration::ZERO)).map_err(failed)
            }
            Some(polled) if polled.in_flight() > 0 => polled.enter(want, timeout).map_err(failed),
            _ => self.ring.enter(want, timeout).map_err(failed),
        }
    }

    /// Submits what is queued.
    fn submit(&mut self) -> Result<()> {
        for ring in [Some(&mut self.ring), self.polled.as_mut()].into_iter().flatten() {
            if ring.queued() > 0 {
                ring.enter(0, Duration::ZERO).map_err(|error| Error::io("io_uring_enter", error))?;
            }
        }
        Ok(())
    }

    /// Submits once enough is queued, but for what has to be the last before a wait, which submits it. What the kernel
    /// refuses now is queued still, and refused again by the next wait, which reports it.
    fn submit_if_due(&mut self) {
        if self.vacant.is_empty() {
            return;
        }
        for ring in [Some(&mut self.ring), self.polled.as_mut()].into_iter().flatten() {
            if ring.queued() >= self.submit_batch {
                let _ = ring.enter(0, Duration::ZERO);
            }
        }
    }

    /// Takes every completion there is from the rings, and asks again for reads that are not complete.
    fn collect(&mut self, completions: &mut Vec<Completion>) {
        while let Some((index, stage, entry)) = self.next_entry() {
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
                Operation::Read { token, transfer, .. } if answer == Err(Errno::EOPNOTSUPP) && transfer.is_polled() => {
                    self.request(index, token, transfer.unpolled());
                    continue;
                }
                Operation::Read { token, transfer, request } => match transfer.advance(request, answer, &self.common) {
                    Step::Again(transfer) => {
                        self.request(index, token, transfer);
                        continue;
                    }
                    Step::Done(result) => completions.push(Completion { token, result: result.map(Outcome::Read) }),
                },
                Operation::Linked(mut linked) => {
                    if !linked.answer(stage, answer) {
                        self.operations[index] = Operation::Linked(linked);
                        continue;
                    }
                    let token = linked.token;
                    match linked.finish(&self.common) {
                        Ok((region, identity)) => {
                            self.links.hit();
                            let result = Ok(Outcome::ReadFile { region, identity });
                            completions.push(Completion { token, result });
                        }
                        Err((token, ..)) if self.common.is_abandoned(token) => {
                            completions.push(Completion { token, result: Err(Common::abandoned()) });
                        }
                        Err((token, path, miss)) => {
                            self.links.miss(&miss, &path, &self.common);
                            self.start_open(index, token, path);
                            continue;
                        }
                    }
                }
            }
            self.vacant.push(index);
        }
    }

    /// The next completion of an operation, whose it is and which of a link's.
    fn next_entry(&mut self) -> Option<(usize, Stage, cqueue::Entry)> {
        loop {
            let entry = self.ring.next_entry().or_else(|| self.polled.as_mut()?.next_entry())?;
            let (index, stage) = (entry.user_data() & ((1 << STAGE_SHIFT) - 1), entry.user_data() >> STAGE_SHIFT);
            if let Some(stage) = Stage::ALL.get(stage as usize) {
                return Some((index as usize, *stage, entry));
            }
            // Of a cancellation.
        }
    }

    fn take_vacant(&mut self) -> usize {
        let Some(index) = self.vacant.pop() else { unreachable!("the engine has checked for room") };
        index
    }

    fn start_open(&mut self, index: usize, token: u64, path: CString) {
        // The string's bytes stay where they are when it moves into the table.
        let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).flags(OPEN_FLAGS.bits()).build();
        self.operations[index] = Operation::Open { token, path };
        // SAFETY: the path is in `operations` until the completion: the invariant of `Uring`.
        unsafe { self.ring.push(&[entry.user_data(user_data(index, 0))]) };
        self.submit_if_due();
    }

    /// Queues the next request of a read.
    fn request(&mut self, index: usize, token: u64, mut transfer: Transfer) {
        let request = transfer.request(&self.common);
        let polled = if transfer.is_polled() { self.polled.as_mut() } else { None };
        let place = match (&polled, &mut self.table) {
            (None, Some(table)) => table.place(self.ring.io(), transfer.file_and_region().0),
            _ => None,
        };
        let own = transfer.file_and_region().0.descriptor().as_raw_fd();
        let ring = polled.unwrap_or(&mut self.ring);
        let (descriptor, memory) = transfer.ends(request);
        let from = match place {
            Some(place) if descriptor.as_raw_fd() == own => From::Registered(place),
            _ => From::Descriptor(descriptor),
        };
        let entry = ring.read(from, memory, request.offset).user_data(user_data(index, 0));
        self.operations[index] = Operation::Read { token, transfer, request };
        // SAFETY: region and file that the entry points to are in `operations` until its completion: the invariant of
        // `Uring`. A registered file keeps its place as long as it lives.
        unsafe { ring.push(&[entry]) };
        self.submit_if_due();
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
            if !cancelled && self.ring.queued() == 0 {
                cancelled = true;
                self.cancel_all();
            }
        }
        true
    }

    /// Asks the kernel to cancel everything. What is polled for it cannot.
    fn cancel_all(&mut self) {
        for index in 0..self.operations.len() {
            self.cancel_operation(index);
        }
    }

    fn cancel_operation(&mut self, index: usize) {
        let stages = match &self.operations[index] {
            Operation::Vacant => 0,
            Operation::Open { .. } | Operation::Read { .. } => 1,
            Operation::Linked(_) => Stage::ALL.len(),
        };
        for stage in 0..stages {
            let entry = opcode::AsyncCancel::new(user_data(index, stage)).build();
            // SAFETY: it points to nothing.
            unsafe { self.ring.push(&[entry.user_data(CANCELLATION)]) };
        }
    }

    /// As `collect`, but nothing is asked for again.
    fn forget_completed(&mut self) {
        while let Some((index, stage, entry)) = self.next_entry() {
            let Some(operation) = self.operations.get_mut(index) else { continue };
            let is_done = match operation {
                Operation::Open { .. } if entry.result() >= 0 => {
                    // SAFETY: as in `collect`.
                    drop(unsafe { OwnedFd::from_raw_fd(entry.result()) });
                    true
                }
                Operation::Linked(linked) => linked.answer(stage, Ok(0)),
                _ => true,
            };
            if is_done {
                *operation = Operation::Vacant;
                self.vacant.push(index);
            }
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

fn user_data(index: usize, stage: usize) -> u64 {
    index as u64 | (stage as u64) << STAGE_SHIFT
}

#[cfg(test)]
mod tests;
