//! The feeding thread: walks the order, keeps reads in flight, hands out what has landed.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::Shared;
use super::ready::Ready;
use super::tray::Tray;
use super::work::Job;
use crate::engine::{Completion, Engine, FileCache, OpenFile, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Slot;
use crate::source::Extent;

/// How long it sleeps at most before it looks whether the run was ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The state of the feeding thread.
pub(super) struct Feed<'a> {
    shared: &'a Shared,
    ready: &'a Ready,
    jobs: Sender<Job>,
    engine: Engine,
    files: FileCache,
    path: PathBuf,
    /// Samples between admission and landing, by the token of their operation.
    pending: Vec<Option<Pending>>,
    free_tokens: Vec<u64>,
    /// Tokens whose file is open and whose read waits for space in the arena, in order.
    parked: VecDeque<(u64, Arc<OpenFile>, Range<u64>)>,
    completions: Vec<Completion>,
}

/// A sample on its way.
struct Pending {
    tray: Arc<Tray>,
    slot: Slot,
    index: usize,
}

/// The batch whose samples are being admitted.
struct Admitting {
    tray: Arc<Tray>,
    slot: Slot,
    next: usize,
}

impl<'a> Feed<'a> {
    pub(super) fn new(shared: &'a Shared, ready: &'a Ready, jobs: Sender<Job>) -> Result<Self> {
        let (engine, fallbacks) = Engine::new(shared.engine, &shared.arena, shared.depth, shared.engine_options)?;
        *crate::report::lock(&shared.engine_name) = engine.kind().name();
        drop(fallbacks); // Reported with those of the run, at its end.
        Ok(Self {
            shared,
            ready,
            jobs,
            engine,
            files: FileCache::default(),
            path: PathBuf::new(),
            pending: (0..shared.depth).map(|_| None).collect(),
            free_tokens: (0..shared.depth as u64).rev().collect(),
            parked: VecDeque::with_capacity(shared.depth),
            completions: Vec::with_capacity(shared.depth),
        })
    }

    /// Feeds all batches of the epochs, or as many as there are before the run is ended.
    pub(super) fn run(mut self, epochs: Range<u64>) -> Result<()> {
        let batches = self.feed(epochs);
        for fallback in self.engine.fallbacks() {
            self.shared.counters.set_fallback(fallback);
        }
        let counters = self.engine.counters();
        self.shared.counters.bytes_read.fetch_add(counters.bytes_read, Relaxed);
        self.shared.counters.bytes_needed.fetch_add(counters.bytes_asked, Relaxed);
        self.ready.end_at(batches?);
        Ok(())
    }

    fn feed(&mut self, epochs: Range<u64>) -> Result<u64> {
        let steps = self.shared.steps.steps();
        let mut batches = epochs.flat_map(|epoch| (0..steps).map(move |step| (epoch, step))).zip(0u64..).peekable();
        let mut fed = 0;
        let mut admitting: Option<Admitting> = None;
        loop {
            let working = Instant::now();
            if self.shared.stop.load(Relaxed) {
                return Ok(fed);
            }
            self.unpark();
            let mut slot_wanted = None;
            while self.parked.is_empty() && !self.free_tokens.is_empty() {
                if let Some(batch) = &mut admitting
                    && batch.next < batch.tray.samples.len()
                {
                    let (tray, slot, index) = (Arc::clone(&batch.tray), batch.slot.clone(), batch.next);
                    batch.next += 1;
                    self.admit(Pending { tray, slot, index });
                    continue;
                }
                admitting = None;
                let Some(&(at, sequence)) = batches.peek() else { break };
                let samples = self.batch_len(at.1);
                let Some(slot) = self.shared.slots.try_acquire(samples) else {
                    slot_wanted = Some(samples);
                    break;
                };
                batches.next();
                fed = sequence + 1;
                admitting = Some(self.start_batch(sequence, at, slot)?);
            }
            let clock = &self.shared.counters.engine;
            clock.add_busy(working);
            let waiting = Instant::now();
            if self.engine.in_flight() > 0 {
                self.engine.reap(1, LOOK_EVERY, &mut self.completions)?;
                clock.add_starved(waiting);
                self.complete();
            } else if let Some((_, file, range)) = self.parked.front() {
                let len_bytes = self.engine.region_len(file, range.start, (range.end - range.start) as usize);
                self.shared.arena.wait_for_space(len_bytes, LOOK_EVERY)?;
                clock.add_blocked(waiting);
            } else if let Some(samples) = slot_wanted {
                // Taken and given back at once: the loop above takes it again.
                drop(self.shared.slots.acquire(samples, LOOK_EVERY));
                clock.add_blocked(waiting);
            } else if admitting.is_none() && batches.peek().is_none() {
                return Ok(fed);
            }
        }
    }

    fn batch_len(&self, step: u64) -> usize {
        let positions = self.shared.steps.positions(step);
        (positions.end - positions.start) as usize
    }

    fn start_batch(&self, sequence: u64, at: (u64, u64), slot: Slot) -> Result<Admitting> {
        let shared = self.shared;
        let mut tray = Tray::new(sequence, at, shared.augment);
        let order = shared.order.epoch(at.0);
        tray.fill(&*shared.source, shared.steps.positions(at.1).map(|position| order.at(position)))?;
        Ok(Admitting { tray: Arc::new(tray), slot, next: 0 })
    }

    /// Starts a sample's way: an open, or a read of an object that is open already.
    fn admit(&mut self, pending: Pending) {
        let Some(token) = self.free_tokens.pop() else { return };
        let sample = pending.tray.samples[pending.index];
        self.pending[token as usize] = Some(pending);
        if let Err(error) = self.start(token, sample) {
            self.fail(token, error);
        }
    }

    fn start(&mut self, token: u64, sample: u64) -> Result<()> {
        let source = &*self.shared.source;
        match source.extent(sample)? {
            Extent::Object(object) => {
                source.object_path(object, &mut self.path)?;
                self.engine.open(token, &self.path);
            }
            Extent::Range { object, offset, len_bytes } => {
                let file = match self.files.lookup(object) {
                    Some(file) => file,
                    None => {
                        source.object_path(object, &mut self.path)?;
                        let file = self.engine.open_now(&self.path)?;
                        self.files.insert(object, Arc::clone(&file));
                        file
                    }
                };
                let end = offset.checked_add(len_bytes).ok_or_else(|| {
                    Error::new(ErrorKind::Corrupt, format!("{len_bytes} bytes at {offset} end beyond any file"))
                })?;
                self.read(token, file, offset..end)?;
            }
        }
        Ok(())
    }

    /// Starts a read, or parks it until the arena has room.
    fn read(&mut self, token: u64, file: Arc<OpenFile>, range: Range<u64>) -> Result<()> {
        let len_bytes = range.end - range.start;
        self.shared.limits.check_bytes(len_bytes)?;
        let region_len = self.engine.region_len(&file, range.start, len_bytes as usize);
        match self.shared.arena.alloc(region_len)? {
            Some(region) => self.engine.read(token, &file, range.start, len_bytes as usize, region),
            None => self.parked.push_back((token, file, range)),
        }
        Ok(())
    }

    /// Starts parked reads while there is room.
    fn unpark(&mut self) {
        for _ in 0..self.parked.len() {
            let Some((token, file, range)) = self.parked.pop_front() else { return };
            let parked = self.parked.len();
            if let Err(error) = self.read(token, file, range) {
                self.fail(token, error);
            } else if self.parked.len() > parked {
                // Still no room: it went to the back, and belongs to the front.
                self.parked.rotate_right(1);
                return;
            }
        }
    }

    fn complete(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for Completion { token, result } in completions.drain(..) {
            let result = result.and_then(|outcome| match outcome {
                Outcome::Opened(file) => {
                    let size_bytes = file.size_bytes();
                    self.read(token, file, 0..size_bytes)
                }
                Outcome::Read(bytes) => {
                    if let Some(Pending { tray, slot, index }) = self.release(token) {
                        // The channel has a place for every seat; it is closed only when all workers are gone.
                        let _ = self.jobs.send(Job { tray, slot, index, bytes });
                    }
                    Ok(())
                }
            });
            if let Err(error) = result {
                self.fail(token, error);
            }
        }
        self.completions = completions;
    }

    fn release(&mut self, token: u64) -> Option<Pending> {
        self.free_tokens.push(token);
        self.pending[token as usize].take()
    }

    fn fail(&mut self, token: u64, error: Error) {
        if let Some(Pending { tray, slot, index }) = self.release(token) {
            let error = self.shared.name_sample(&tray, index, error);
            let filled = tray.fail(&slot, index, None, error);
            self.ready.put_if_filled(&tray, filled);
        }
    }
}

impl Shared {
    /// Says which sample an error is about: its key and where its bytes lie.
    pub(super) fn name_sample(&self, tray: &Tray, index: usize, error: Error) -> Error {
        let key = tray.key(index);
        let mut path = PathBuf::new();
        let place = self.source.extent(tray.samples[index]).and_then(|extent| {
            let (object, offset) = match extent {
                Extent::Object(object) => (object, None),
                Extent::Range { object, offset, .. } => (object, Some(offset)),
            };
            self.source.object_path(object, &mut path).map(|()| offset)
        });
        error.with_sample(match place {
            Ok(None) => format!("{key} ({})", path.display()),
            Ok(Some(offset)) => format!("{key} ({} at byte {offset})", path.display()),
            Err(_) => key.to_owned(),
        })
    }
}
