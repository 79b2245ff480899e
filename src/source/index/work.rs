//! Many threads over the samples of many units, such as shards, with results in order.
//!
//! Threads take chunks of samples from one unit until it is used up, then from the next: many small
//! shards keep all threads busy, and so does a single large one. Results of a unit are handed on in
//! the order of its samples; a thread that is far ahead of the slowest waits, so that memory is bounded.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::report::lock;
use crate::source::parallel::in_parallel;

/// Chunks that may be done and wait for an earlier one, for each thread.
const CHUNKS_AHEAD: usize = 4;

/// What is done to every unit.
pub(super) trait Task: Sync {
    /// A shard, or the files of a part, opened.
    type Unit: Sync + Send;
    /// What takes the results of a unit.
    type Taker: Send;
    /// What a thread works with.
    type Worker;
    /// The result for a chunk.
    type Output: Send;

    /// Begins the unit of this number, unless there is nothing to do: that, and failing, it notes itself.
    fn open(&self, number: usize) -> Option<(Self::Unit, Self::Taker)>;
    /// Samples of a unit.
    fn len(&self, unit: &Self::Unit) -> u64;
    /// Where the chunk ends that begins at `from`; behind it.
    fn chunk_end(&self, unit: &Self::Unit, from: u64) -> u64;
    /// Makes what one thread needs.
    fn worker(&self) -> Self::Worker;
    /// Works on a chunk.
    fn work(&self, worker: &mut Self::Worker, unit: &Self::Unit, chunk: Range<u64>) -> Result<Self::Output>;
    /// Takes the result of the next chunk.
    fn take(&self, unit: &Self::Unit, taker: &mut Self::Taker, output: Self::Output) -> Result<()>;
    /// Ends a unit, whole or at its first error.
    fn close(&self, unit: &Self::Unit, taker: Self::Taker, result: Result<()>);
}

/// Does the task for units `0..units` on so many threads. `progress` hears of samples done, and of all
/// those in the units begun.
pub(super) fn run<T: Task>(task: &T, units: usize, threads: usize, progress: &(dyn Fn(u64, u64) + Sync)) {
    let run = Run {
        task,
        units,
        threads,
        queue: Mutex::new(Queue { next: 0, current: None }),
        progress: Progress { tell: progress, done: AtomicU64::new(0), known: AtomicU64::new(0) },
    };
    in_parallel(threads, || run.work());
}

struct Run<'a, T: Task> {
    task: &'a T,
    units: usize,
    threads: usize,
    queue: Mutex<Queue<T>>,
    progress: Progress<'a>,
}

struct Progress<'a> {
    tell: &'a (dyn Fn(u64, u64) + Sync),
    done: AtomicU64,
    known: AtomicU64,
}

struct Queue<T: Task> {
    /// The unit to begin next.
    next: usize,
    /// The unit that chunks are taken from, and where the next one begins.
    current: Option<(Arc<Begun<T>>, u64)>,
}

struct Begun<T: Task> {
    unit: T::Unit,
    len: u64,
    /// No more results are wanted.
    is_over: AtomicBool,
    order: Mutex<Order<T>>,
    moved_on: Condvar,
}

struct Order<T: Task> {
    /// The sample whose chunk is taken next.
    next: u64,
    /// Results that came too early, by their first sample; and where they end.
    early: BTreeMap<u64, (u64, Result<T::Output>)>,
    taker: Option<T::Taker>,
}

impl<T: Task> Run<'_, T> {
    fn work(&self) {
        let mut worker = self.task.worker();
        while let Some((begun, chunk)) = self.claim() {
            let output = self.task.work(&mut worker, &begun.unit, chunk.clone());
            self.deliver(&begun, chunk.clone(), output);
            let done = self.progress.done.fetch_add(chunk.end - chunk.start, Relaxed) + chunk.end - chunk.start;
            (self.progress.tell)(done, self.progress.known.load(Relaxed));
        }
    }

    fn claim(&self) -> Option<(Arc<Begun<T>>, Range<u64>)> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some((begun, from)) = &mut queue.current
                && *from < begun.len
                && !begun.is_over.load(Relaxed)
            {
                let end = self.task.chunk_end(&begun.unit, *from).clamp(*from + 1, begun.len);
                return Some((Arc::clone(begun), std::mem::replace(from, end)..end));
            }
            if queue.next == self.units {
                return None;
            }
            let number = queue.next;
            queue.next += 1;
            // Others wait here meanwhile: listing a shard takes a thousandth of the time of decoding it.
            queue.current = self.task.open(number).and_then(|(unit, taker)| self.begin(unit, taker));
        }
    }

    fn begin(&self, unit: T::Unit, taker: T::Taker) -> Option<(Arc<Begun<T>>, u64)> {
        let len = self.task.len(&unit);
        self.progress.known.fetch_add(len, Relaxed);
        if len == 0 {
            self.task.close(&unit, taker, Ok(()));
            return None;
        }
        let order = Mutex::new(Order { next: 0, early: BTreeMap::new(), taker: Some(taker) });
        Some((Arc::new(Begun { unit, len, is_over: AtomicBool::new(false), order, moved_on: Condvar::new() }), 0))
    }

    fn deliver(&self, begun: &Begun<T>, chunk: Range<u64>, output: Result<T::Output>) {
        let mut order = lock(&begun.order);
        order.early.insert(chunk.start, (chunk.end, output));
        loop {
            let next = order.next;
            let Some((end, output)) = order.early.remove(&next) else { break };
            order.next = end;
            let Some(mut taker) = order.taker.take() else { continue };
            let taken = output.and_then(|output| self.task.take(&begun.unit, &mut taker, output));
            if taken.is_err() || end == begun.len {
                begun.is_over.store(true, Relaxed);
                self.task.close(&begun.unit, taker, taken);
            } else {
                order.taker = Some(taker);
            }
        }
        begun.moved_on.notify_all();
        // The chunk that is waited for is another thread's, which does not wait.
        while order.early.len() > CHUNKS_AHEAD * self.threads && !begun.is_over.load(Relaxed) {
            order = begun.moved_on.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
