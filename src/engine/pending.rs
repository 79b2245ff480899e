//! What a caller waits for: its operations by number, and how long each may take.
//!
//! A driver knows an operation by its number alone, which is not used again before the driver has ended it. One that has not
//! ended by its deadline is over for the caller, who gets an error; its memory goes into quarantine, and number and place
//! stay taken until the driver lets go of it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Common, Completion, OpenFile};
use crate::error::{Error, ErrorKind};
use crate::memory::{DeviceRegion, DeviceRegionTicket, Region, RegionTicket};

/// The operations that a driver has.
pub(super) struct Pending {
    /// By number.
    operations: Vec<Option<Operation>>,
    vacant: Vec<usize>,
    /// Those that were begun since the last look at the clock, and have no deadline yet.
    begun: Vec<usize>,
    timeout: Duration,
    /// When the first deadline may pass.
    look_at: Option<Instant>,
    overdue: usize,
}

struct Operation {
    /// The caller's.
    token: u64,
    what: What,
    /// None before the next look at the clock, and where the timeout is longer than any clock runs.
    deadline: Option<Instant>,
    is_overdue: bool,
}

/// What was asked for, as far as an error has to name it.
pub(super) enum What {
    Open(CString),
    Read {
        file: Arc<OpenFile>,
        offset: u64,
        len_bytes: usize,
        memory: Memory,
    },
    /// An open and a read of all there is, in one go.
    ReadFile {
        path: CString,
        memory: Memory,
    },
}

/// The memory of a read.
pub(super) enum Memory {
    Host(RegionTicket),
    Device(DeviceRegionTicket),
}

impl Memory {
    fn quarantine(&self) {
        match self {
            Self::Host(region) => region.quarantine(),
            Self::Device(region) => region.quarantine(),
        }
    }
}

impl From<&Region> for Memory {
    fn from(region: &Region) -> Self {
        Self::Host(region.ticket())
    }
}

impl From<&DeviceRegion> for Memory {
    fn from(region: &DeviceRegion) -> Self {
        Self::Device(region.ticket())
    }
}

impl Pending {
    /// Room for `depth` operations, each of which may take `timeout`.
    pub(super) fn new(depth: usize, timeout: Duration) -> Self {
        Self {
            operations: (0..depth).map(|_| None).collect(),
            vacant: (0..depth).rev().collect(),
            begun: Vec::with_capacity(depth),
            timeout,
            look_at: None,
            overdue: 0,
        }
    }

    /// How long each may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Gives up something that was not among them, and took as long.
    pub(super) fn give_up(&self, common: &Common, what: &What) -> Error {
        give_up(common, what, self.timeout)
    }

    /// Operations that the driver has.
    pub(super) fn len(&self) -> usize {
        self.operations.len() - self.vacant.len()
    }

    /// Those of them whose deadline has passed.
    pub(super) fn overdue(&self) -> usize {
        self.overdue
    }

    /// Those that the caller still waits for.
    pub(super) fn live(&self) -> usize {
        self.len() - self.overdue
    }

    /// When the next deadline may pass.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Takes on an operation: its number.
    pub(super) fn begin(&mut self, common: &Common, token: u64, what: What) -> u64 {
        let Some(number) = self.vacant.pop() else { unreachable!("the engine has checked for room") };
        // The number travels to a driver's thread through a channel.
        common.abandoned[number].store(false, Ordering::Relaxed);
        self.operations[number] = Some(Operation { token, what, deadline: None, is_overdue: false });
        self.begun.push(number);
        number as u64
    }

    /// Looks at the clock: gives deadlines to what was begun, and ends what has passed its own. Their numbers are left in
    /// `expired`.
    pub(super) fn look(&mut self, now: Instant, common: &Common, ended: &mut Vec<Completion>, expired: &mut Vec<u64>) {
        let deadline = now.checked_add(self.timeout);
        for number in self.begun.drain(..) {
            if let Some(operation) = &mut self.operations[number] {
                operation.deadline = deadline;
            }
        }
        if self.look_at.is_none() && self.live() > 0 {
            self.look_at = deadline;
        }
        // Later operations have later deadlines.
        if self.look_at.is_none_or(|look_at| look_at > now) {
            return;
        }
        self.look_at = None;
        for (number, operation) in self.operations.iter_mut().enumerate() {
            let Some(operation) = operation.as_mut().filter(|operation| !operation.is_overdue) else { continue };
            match operation.deadline {
                Some(deadline) if deadline > now => {
                    self.look_at = Some(self.look_at.map_or(deadline, |look_at| look_at.min(deadline)));
                }
                Some(_) => {
                    operation.is_overdue = true;
                    self.overdue += 1;
                    common.abandoned[number].store(true, Ordering::Relaxed);
                    let error = give_up(common, &operation.what, self.timeout);
                    ended.push(Completion { token: operation.token, result: Err(error) });
                    expired.push(number as u64);
                }
                None => {}
            }
        }
    }

    /// Gives the completions of a driver, from `first` on, their callers' tokens, and drops those that no one waits for.
    pub(super) fn settle(&mut self, completions: &mut Vec<Completion>, first: usize) {
        let mut at = first;
        while let Some(completion) = completions.get_mut(at) {
            let number = completion.token as usize;
            let Some(operation) = self.operations[number].take() else {
                unreachable!("the driver ended operation {number} twice")
            };
            self.vacant.push(number);
            if operation.is_overdue {
                self.overdue -= 1;
                completions.swap_remove(at);
            } else {
                completion.token = operation.token;
                at += 1;
            }
        }
    }

    /// What to say where nothing goes on since everything is overdue.
    pub(super) fn stuck(&self) -> Error {
        let first = self.operations.iter().flatten().next().map_or_else(String::new, |operation| {
            let what = match &operation.what {
                What::Open(path) | What::ReadFile { path, .. } => format!("opening {}", display(path)),
                What::Read { file, offset, .. } => format!("reading {} at offset {offset}", file.path().display()),
            };
            format!(", such as {what}")
        });
        let (overdue, timeout) = (self.overdue, self.timeout);
        let message = format!("storage hangs: all {overdue} operations are out for more than {timeout:?}{first}");
        Error::new(ErrorKind::TimedOut, message).with_remedy(REMEDY)
    }
}

impl Drop for Pending {
    /// After the driver's: what it had to leave to the kernel or a library keeps its bytes, and nobody waits for them.
    fn drop(&mut self) {
        for operation in self.operations.iter().flatten() {
            if let What::Read { memory, .. } | What::ReadFile { memory, .. } = &operation.what {
                memory.quarantine();
            }
        }
    }
}

/// Counts and tells what has not come in time.
fn give_up(common: &Common, what: &What, timeout: Duration) -> Error {
    common.counters.timeouts.fetch_add(1, Ordering::Relaxed);
    let error = what.give_up(timeout);
    log::error!("{error}");
    error
}

pub(super) const REMEDY: &str = "see what the storage hangs on (dmesg, nfsstat, lctl), or allow more time: LoaderBuilder::read_timeout, \
                      --read-timeout";

impl What {
    /// Keeps others from waiting for its memory, and says that it has not come.
    fn give_up(&self, timeout: Duration) -> Error {
        let message = match self {
            Self::Open(path) => format!("{}: opening it has not completed within {timeout:?}", display(path)),
            Self::ReadFile { path, memory } => {
                memory.quarantine();
                format!("{}: opening and reading it has not completed within {timeout:?}", display(path))
            }
            Self::Read { file, offset, len_bytes, memory } => {
                memory.quarantine();
                let path = file.path().display();
                format!("{path}: read of {len_bytes} bytes at offset {offset} has not completed within {timeout:?}")
            }
        };
        Error::new(ErrorKind::TimedOut, message).with_remedy(REMEDY)
    }
}

fn display(path: &CString) -> std::path::Display<'_> {
    Path::new(OsStr::from_bytes(path.as_bytes())).display()
}

#[cfg(test)]
mod tests;
