//! Streams: queues of operations, and the events recorded in them.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::iter;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::clock::Clock;
use crate::companion::Companion;
use crate::module::Function;
use crate::result::Code;
use crate::value::ValueWait;

/// A queue of work.
#[derive(Debug)]
pub struct Stream {
    /// The context it belongs to.
    pub context: u64,
    /// Its number among actors.
    pub actor: usize,
    /// Whether it and the legacy stream wait for one another.
    pub blocking: bool,
    /// `CU_STREAM_*`.
    pub flags: u32,
    /// As the program asked.
    pub priority: i32,
    /// What is to be done.
    pub queue: VecDeque<Op>,
    /// What comes before the next operation.
    pub clock: Clock,
    /// Number of the last operation given to it.
    pub queued: u64,
    /// Number of the last operation done.
    pub done: u64,
    /// Whether its first operation runs outside the driver's lock: a host function.
    pub busy: bool,
    /// Destroyed by the program, and gone once its queue is empty.
    pub destroyed: bool,
    /// Whether something is done on it, if it is a companion library's lane and no stream of the program's.
    pub lane: Option<bool>,
}

/// Something a stream does.
#[derive(Debug)]
pub struct Op {
    /// Its number among all operations.
    pub number: u64,
    /// The call that queued it, for reports.
    pub name: Arc<str>,
    /// What the host knew when it was queued.
    pub clock: Clock,
    /// Streams that must have come so far before: the legacy stream and its kind.
    pub after: Vec<(u64, u64)>,
    /// Breaks the context in place of its work.
    pub fault: Option<Code>,
    /// What it does.
    pub work: Work,
}

/// The kinds of work.
#[derive(Debug)]
pub enum Work {
    /// Moves bytes.
    Copy {
        /// Where they are.
        from: Source,
        /// Where they go.
        to: Target,
        /// How many.
        len: u64,
    },
    /// Repeats a pattern of 1, 2 or 4 bytes.
    Fill {
        /// Device address.
        at: u64,
        /// The pattern.
        pattern: Vec<u8>,
        /// How many bytes in all.
        len: u64,
    },
    /// Runs a kernel.
    Launch(Box<KernelLaunch>),
    /// Completes a record of an event.
    Record(Arc<Record>),
    /// Waits for a record of an event.
    Wait(Arc<Record>),
    /// Waits for a value in memory.
    WaitValue(ValueWait),
    /// Writes a value to memory.
    WriteValue {
        /// Device address.
        at: u64,
        /// 4 or 8.
        bytes: u64,
        /// The value.
        value: u64,
        /// Whether who sees it sees what the stream did before.
        tells: bool,
    },
    /// Brings an allocation to life.
    Allocate(u64),
    /// Ends an allocation.
    Free(u64),
    /// Calls a function of the program's.
    Host(HostFunction),
    /// Calls a function of a library that is part of the simulation.
    Companion(Box<Companion>),
}

/// Where a copy comes from.
#[derive(Debug)]
pub enum Source {
    /// Pageable memory, taken when the copy was called for, as the driver's staging does.
    Staged(Vec<u8>),
    /// Memory with an address on the device. The digest of what pinned memory held when the copy was called for.
    Memory(u64, Option<u64>),
}

/// Where a copy goes.
#[derive(Debug)]
pub enum Target {
    /// Pageable memory of a call that has not returned.
    Pageable(u64),
    /// Memory with an address on the device. The digest of the pattern that pinned memory was filled with.
    Memory(u64, Option<u64>),
}

/// A kernel and how it is run.
#[derive(Debug)]
pub struct KernelLaunch {
    /// The kernel.
    pub function: Arc<Function>,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: usize,
    /// Parameter space.
    pub params: Vec<u8>,
}

/// A function to be called when the stream comes to it.
#[derive(Debug)]
pub enum HostFunction {
    /// `cuLaunchHostFunc`.
    Plain(unsafe extern "C" fn(*mut c_void), usize),
    /// `cuStreamAddCallback`: also gets the stream and the state of the context.
    Callback(unsafe extern "C" fn(u64, Code, *mut c_void), u64, usize),
}

/// An event, as the program knows it.
#[derive(Debug)]
pub struct Event {
    /// The context it belongs to.
    pub context: u64,
    /// Whether it takes the time.
    pub timed: bool,
    /// Its latest record, which is the one that waits are for.
    pub record: Option<Arc<Record>>,
}

/// One recording of an event.
#[derive(Debug)]
pub struct Record {
    /// The stream it is in.
    pub stream: u64,
    /// The number of its operation.
    pub number: u64,
    /// When it was come to, and what came before.
    pub done: OnceLock<(Clock, Instant)>,
}

impl Op {
    /// Memory with an address that it is known to read, and to write. Kernels' is not known before they run.
    pub fn touches(&self) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
        match &self.work {
            Work::Copy { from, to, len } => (
                matches!(from, Source::Memory(..)).then(|| from.range(*len)).into_iter().collect(),
                matches!(to, Target::Memory(..)).then(|| to.range(*len)).into_iter().collect(),
            ),
            Work::Fill { at, len, .. } => (Vec::new(), iter::once(*at..at + len).collect()),
            Work::Companion(companion) => companion.touches(),
            Work::WaitValue(wait) => (iter::once(wait.at..wait.at + wait.bytes).collect(), Vec::new()),
            Work::WriteValue { at, bytes, .. } => (Vec::new(), iter::once(*at..at + bytes).collect()),
            _ => (Vec::new(), Vec::new()),
        }
    }
}

impl Source {
    fn range(&self, len: u64) -> Range<u64> {
        match self {
            Self::Memory(at, _) => *at..at + len,
            Self::Staged(_) => 0..0,
        }
    }
}

impl Target {
    fn range(&self, len: u64) -> Range<u64> {
        let (Self::Memory(at, _) | Self::Pageable(at)) = self;
        *at..at + len
    }
}
