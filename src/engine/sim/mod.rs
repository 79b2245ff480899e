//! A storage made up by a seed: real bytes, a clock that jumps, and everything that can go wrong.
//!
//! It is as bad as a kernel may be, and a bit worse: answers overtake each other, bytes that no answer has promised are
//! overwritten, and what was given up may still write when it comes back.

mod fate;
mod faults;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::{CString, OsStr};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::open;
use nix::sys::stat::Mode;

use self::fate::Fate;
pub use self::faults::{SimFault, SimFaults, SimOptions};
use super::files::{OPEN_FLAGS, open_error};
use super::transfer::{Request, Step, Transfer};
use super::{Common, Completion, Identity, OpenFile, Outcome};
use crate::error::Result;

/// What is written where a read has not promised anything.
const SCRIBBLE: u8 = 0xA5;

/// The simulated driver. Everything happens on the caller's thread, in [`reap`](Self::reap).
pub(super) struct Sim {
    common: Arc<Common>,
    options: SimOptions,
    /// The time, which passes in [`reap`](Self::reap) alone.
    clock: Instant,
    /// By number.
    operations: Vec<Option<Operation>>,
    /// When which operation gets its next answer, the first on top. What hangs is not among them.
    events: BinaryHeap<Reverse<(Instant, u64)>>,
}

enum Operation {
    Open { path: CString, fate: Fate },
    Read { transfer: Transfer, fate: Fate, answers: u32 },
}

impl Sim {
    pub(super) fn new(common: &Arc<Common>, depth: usize, options: SimOptions) -> Self {
        Self {
            common: Arc::clone(common),
            options,
            clock: Instant::now(),
            operations: (0..depth).map(|_| None).collect(),
            events: BinaryHeap::with_capacity(depth),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock
    }

    pub(super) fn open(&mut self, number: u64, path: CString) {
        let fate = Fate::of_open(self.options, path_of(&path));
        if !fate.hangs(0) {
            self.schedule(number, fate.delay(0));
        }
        self.operations[number as usize] = Some(Operation::Open { path, fate });
    }

    /// Opens a file at once; none if that hangs.
    pub(super) fn open_now(&self, path: CString) -> Option<Result<Arc<OpenFile>>> {
        let fate = Fate::of_open(self.options, path_of(&path));
        (!fate.hangs(0)).then(|| self.opened(path, &fate))
    }

    pub(super) fn read(&mut self, number: u64, transfer: Transfer) {
        let (file, (offset, len_bytes)) = (transfer.file_and_region().0, transfer.range());
        let fate = Fate::of_read(self.options, file.path(), offset, len_bytes);
        self.put(number, transfer, fate, 0);
    }

    /// Begins a read, or goes on with it after some answers.
    fn put(&mut self, number: u64, transfer: Transfer, fate: Fate, answers: u32) {
        if !fate.hangs(answers) {
            self.schedule(number, fate.delay(answers));
        }
        self.operations[number as usize] = Some(Operation::Read { transfer, fate, answers });
    }

    /// What hangs may come back once it was given up.
    pub(super) fn cancel(&mut self, number: u64) {
        let fate = match &self.operations[number as usize] {
            Some(Operation::Open { fate, .. } | Operation::Read { fate, .. }) => *fate,
            None => return,
        };
        let is_scheduled = self.events.iter().any(|Reverse((_, of))| *of == number);
        if !is_scheduled && let Some(delay) = fate.comes_back() {
            self.schedule(number, delay);
        }
    }

    /// As [`Engine::reap`](super::Engine::reap), and time passes as far as it is waited for.
    pub(super) fn reap(&mut self, min: usize, timeout: Duration, completions: &mut Vec<Completion>) {
        let until = self.clock.checked_add(timeout);
        let enough = completions.len() + min;
        loop {
            let is_enough = completions.len() >= enough;
            let next = self.events.peek().map(|Reverse(event)| *event);
            match next {
                Some((at, number)) if at <= self.clock || !is_enough && until.is_none_or(|until| at <= until) => {
                    self.events.pop();
                    self.clock = self.clock.max(at);
                    completions.extend(self.answer(number));
                }
                _ if is_enough => return,
                _ => {
                    self.clock = until.unwrap_or(self.clock);
                    return;
                }
            }
        }
    }

    fn schedule(&mut self, number: u64, delay: Duration) {
        self.events.push(Reverse((self.clock + delay, number)));
    }

    /// Answers an operation: its completion, if that was the last answer.
    fn answer(&mut self, number: u64) -> Option<Completion> {
        let is_abandoned = self.common.is_abandoned(number);
        let result = match self.operations[number as usize].take()? {
            Operation::Open { path, fate } => self.opened(path, &fate).map(Outcome::Opened),
            Operation::Read { mut transfer, .. } if is_abandoned => {
                // It writes as late as it can.
                let request = transfer.request(&self.common);
                transfer.ends(request).1.fill(SCRIBBLE);
                Err(Common::abandoned())
            }
            Operation::Read { mut transfer, fate, answers } => {
                let request = transfer.request(&self.common);
                let answer = read(&mut transfer, request, &fate, answers);
                match transfer.advance(request, answer, &self.common) {
                    Step::Again(transfer) => {
                        self.put(number, transfer, fate, answers + 1);
                        return None;
                    }
                    Step::Done(result) => result.map(Outcome::Read),
                }
            }
        };
        Some(Completion { token: number, result })
    }

    fn opened(&self, path: CString, fate: &Fate) -> Result<Arc<OpenFile>> {
        if let Some(errno) = fate.open_fails() {
            return Err(open_error(&path, errno));
        }
        let descriptor = open(path.as_c_str(), OPEN_FLAGS, Mode::empty()).map_err(|errno| open_error(&path, errno))?;
        let refusal = fate.strikes_file(SimFault::DirectOpen).then_some("Invalid argument (simulated)");
        let mut file = self.common.opened_or(descriptor, path, refusal)?;
        if fate.strikes_file(SimFault::Replaced)
            && let Some(file) = Arc::get_mut(&mut file)
        {
            let Identity { inode: (device, inode), modified: (seconds, nanoseconds), .. } = file.identity();
            file.pretend((device, inode ^ 1), (seconds + 1, nanoseconds));
        }
        Ok(file)
    }
}

/// Whether a file cannot be opened, or read whole or in a part, since that hangs.
pub(super) fn hangs(options: SimOptions, path: &Path, range: Option<&Range<u64>>) -> bool {
    let Range { start, end } = range.cloned().unwrap_or(0..u64::MAX);
    let read = Fate::of_read(options, path, start, end.saturating_sub(start) as usize);
    Fate::of_open(options, path).strikes(SimFault::Hang) || read.strikes(SimFault::Hang)
}

/// One answer to a request of a read.
fn read(transfer: &mut Transfer, request: Request, fate: &Fate, answer: u32) -> nix::Result<usize> {
    let file = Arc::clone(transfer.file_and_region().0);
    let (is_direct, arrived) = (transfer.is_direct(), transfer.arrived_bytes(request));
    let memory = transfer.ends(request).1;
    let result = match fate.read_fails(answer, is_direct) {
        Some(errno) => Err(errno),
        None => {
            let len_bytes = fate.answer_bytes(answer, request.offset, request.len_bytes, file.size_bytes());
            fill(&file, request.offset, &mut memory[..len_bytes])
        }
    };
    let promised = arrived.max(result.unwrap_or(0));
    memory[promised..].fill(SCRIBBLE);
    result
}

/// Fills memory from a file, through the page cache since that reads at any byte: how much of it.
fn fill(file: &OpenFile, offset: u64, memory: &mut [u8]) -> nix::Result<usize> {
    file.open_buffered()?;
    let descriptor = file.buffered_descriptor().ok_or(Errno::EBADF)?;
    let mut filled = 0;
    while filled < memory.len() {
        match nix::sys::uio::pread(descriptor, &mut memory[filled..], (offset + filled as u64) as i64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

fn path_of(path: &CString) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}
