//! The feeding thread: walks the order, keeps reads in flight, hands out what has landed.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::Shared;
use super::landed::{Bytes, Landing};
use super::ready::Ready;
use super::seat::{ReadRequest, SampleBytes, Seat, Waiting, of_token};
use super::tray::{Exit, Tray};
use super::work::Job;
use crate::engine::{Completion, Engine, FileCache, OpenFile, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Region, Slot};
use crate::source::Extent;

/// How long it sleeps at most before it looks whether the run was ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Files that are longer than this are opened before memory is taken for them: what of it they do not fill is lost to others.
const FILE_BYTES_MAX: usize = 128 << 10;

/// The part of the difference by which the length that is expected of a file sinks to that of a shorter one.
const FILE_BYTES_DECAY: usize = 256;

/// The state of the feeding thread.
pub(super) struct Feed<'a> {
    shared: &'a Shared,
    ready: &'a Ready,
    exit: &'a Exit,
    jobs: Sender<Job>,
    engine: Engine,
    files: FileCache,
    path: PathBuf,
    /// Samples between admission and landing. Each has an operation in flight or is in `starting`, so there
    /// are never more of them than operations.
    seats: Vec<Seat>,
    free_seats: Vec<usize>,
    /// Seats whose reads are not all started, in the order of their turn. Only the first can have memory: it
    /// waits for room in the engine then, else for memory.
    starting: VecDeque<usize>,
    /// What the sample planned last needs.
    ranges: Vec<Range<u64>>,
    /// Taken from the arena for the first of `starting`.
    memory: Vec<Bytes>,
    completions: Vec<Completion>,
    /// The length that most files do not exceed, by those that were opened lately; 0 before the first.
    file_bytes: usize,
    /// What has landed so far.
    landed: SampleBytes,
}

/// The batch whose samples are being admitted.
struct Admitting {
    tray: Arc<Tray>,
    slot: Slot,
    next: usize,
}

impl<'a> Feed<'a> {
    pub(super) fn new(shared: &'a Shared, ready: &'a Ready, exit: &'a Exit, jobs: Sender<Job>) -> Result<Self> {
        let (engine, fallbacks) = shared.start_engine()?;
        *crate::report::lock(&shared.engine_name) = engine.kind().name();
        drop(fallbacks); // Reported with those of the run, at its end.
        Ok(Self {
            shared,
            ready,
            exit,
            jobs,
            engine,
            files: FileCache::default(),
            path: PathBuf::new(),
            seats: (0..shared.depth).map(|_| Seat::default()).collect(),
            free_seats: (0..shared.depth).rev().collect(),
            starting: VecDeque::with_capacity(shared.depth),
            ranges: Vec::new(),
            memory: Vec::new(),
            completions: Vec::with_capacity(shared.depth),
            file_bytes: 0,
            landed: SampleBytes::default(),
        })
    }

    /// Feeds all batches of the epochs, or as many as there are before the run is ended.
    pub(super) fn run(mut self, epochs: Range<u64>) -> Result<()> {
        let batches = self.feed(epochs);
        let counters = &self.shared.counters;
        for fallback in self.engine.fallbacks() {
            counters.set_fallback(fallback);
        }
        if let Some(cufile) = self.shared.cufile() {
            *crate::report::lock(&counters.receipts) = cufile.receipts();
        }
        counters.bytes_data.fetch_add(self.landed.data, Relaxed);
        counters.bytes_needed.fetch_add(self.landed.needed, Relaxed);
        counters.bytes_asked.fetch_add(self.landed.asked, Relaxed);
        let done = self.engine.counters();
        counters.bytes_read.fetch_add(done.bytes_read, Relaxed);
        counters.reads.fetch_add(done.reads, Relaxed);
        counters.depth.store(self.engine.depth() as u64, Relaxed);
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
            self.start_reads();
            let mut slot_wanted = None;
            while self.starting.is_empty() && self.engine.wanted() > 0 {
                if let Some(batch) = &mut admitting
                    && batch.next < batch.tray.samples.len()
                {
                    let (tray, slot, index) = (Arc::clone(&batch.tray), batch.slot.clone(), batch.next);
                    batch.next += 1;
                    self.admit(Waiting { tray, slot, index });
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
            } else if let Some(&first) = self.starting.front() {
                let lens_bytes = self.seats[first].region_lens(&self.engine);
                self.shared.arena.wait_for_space(lens_bytes, LOOK_EVERY)?;
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
        if let Some(cuda) = &shared.cuda {
            tray.expect_device();
            cuda.start_round(slot.index())?;
        }
        Ok(Admitting { tray: Arc::new(tray), slot, next: 0 })
    }

    /// Starts a sample's way: an open, or reads of an object that is open already.
    fn admit(&mut self, waiting: Waiting) {
        let Some(number) = self.free_seats.pop() else { unreachable!("room in the engine but no seat") };
        let sample = waiting.tray.samples[waiting.index];
        self.seats[number].take(waiting);
        match self.start(number, sample) {
            Ok(()) => self.start_reads(),
            Err(error) => self.fail(number, error),
        }
    }

    fn start(&mut self, number: usize, sample: u64) -> Result<()> {
        let source = &*self.shared.source;
        match source.extent(sample)? {
            Extent::Object(object) => {
                source.object_path(object, &mut self.path)?;
                let region = self.memory_of_file(sample)?;
                let token = self.seats[number].open(number);
                match region {
                    Some(region) => self.engine.read_file(token, &self.path, region),
                    None => self.engine.open(token, &self.path),
                }
                Ok(())
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
                self.choose_reads(number, file, offset..end)
            }
        }
    }

    /// Memory for a sample that is a small file read whole, if there is room, by the lengths of those before it.
    fn memory_of_file(&self, sample: u64) -> Result<Option<Region>> {
        let shared = self.shared;
        let is_small = (1..=FILE_BYTES_MAX).contains(&self.file_bytes);
        if !is_small || shared.limits.check_bytes(self.file_bytes as u64).is_err() || !shared.is_plain_file(sample) {
            return Ok(None);
        }
        // A smaller arena reads what fits it, the other way.
        Ok(shared.arena.alloc(self.file_bytes).unwrap_or(None))
    }

    /// Learns from the length of a file.
    fn expect_files_of(&mut self, len_bytes: u64) {
        let len_bytes = usize::try_from(len_bytes).unwrap_or(usize::MAX);
        let sunk = self.file_bytes - self.file_bytes.saturating_sub(len_bytes) / FILE_BYTES_DECAY;
        self.file_bytes = len_bytes.max(sunk);
    }

    /// Decides which bytes of a sample, the bytes `extent` of `file`, are read, and queues it for them.
    fn choose_reads(&mut self, number: usize, file: Arc<OpenFile>, extent: Range<u64>) -> Result<()> {
        let len_bytes = extent.end - extent.start;
        self.shared.limits.check_bytes(len_bytes)?;
        let seat = &mut self.seats[number];
        let Some(Waiting { tray, index, .. }) = &seat.waiting else { return Ok(()) };
        let (plan, landing) = match self.shared.push_down(tray, *index, len_bytes, &file, &mut self.ranges)? {
            Some((plan, landing)) => {
                if landing != Landing::Device {
                    self.shared.refuse_indirect("the kernels do not decode it")?;
                }
                (Some(plan), landing)
            }
            // What it is shows when it is here.
            None => (None, self.shared.landing_of_whole()?),
        };
        seat.choose_reads(file, extent, plan, landing, &mut self.ranges);
        self.starting.push_back(number);
        Ok(())
    }

    /// Starts reads in the order of the samples' turns while there is memory and room.
    fn start_reads(&mut self) {
        while let Some(&number) = self.starting.front() {
            let started = self.start_reads_of(number);
            if let Ok(false) = started {
                return;
            }
            self.starting.pop_front();
            if let Err(error) = started {
                self.fail(number, error);
            }
        }
    }

    /// Whether all reads of a sample are started.
    fn start_reads_of(&mut self, number: usize) -> Result<bool> {
        let Self { shared, engine, seats, memory, .. } = self;
        let seat = &mut seats[number];
        if !seat.has_memory() && seat.landing() != Landing::Host {
            if shared.alloc_for_device(seat, engine, memory) {
                seat.take_memory(memory);
            } else {
                shared.leave_for_want_of_room(seat.landing(), "encoded bytes")?;
                seat.leave_device();
            }
        }
        if !seat.has_memory() {
            if !shared.arena.alloc_all(seat.region_lens(engine), |region| memory.push(Bytes::Host(region)))? {
                return Ok(false);
            }
            seat.take_memory(memory);
        }
        while engine.room() > 0 {
            let Some(ReadRequest { token, file, offset, len_bytes, into }) = seat.next_read(number) else {
                return Ok(true);
            };
            match into {
                Bytes::Host(region) => engine.read(token, file, offset, len_bytes, region),
                Bytes::Device(region) => engine.read_device(token, file, offset, len_bytes, region),
            }
        }
        Ok(seat.is_started())
    }

    fn complete(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for Completion { token, result } in completions.drain(..) {
            let (number, read) = of_token(token);
            self.seats[number].completed();
            let result = result.and_then(|outcome| match outcome {
                Outcome::Opened(file) => {
                    let size_bytes = file.size_bytes();
                    self.expect_files_of(size_bytes);
                    self.choose_reads(number, file, 0..size_bytes)
                }
                Outcome::Read(region) => {
                    self.land(number, read, Bytes::Host(region));
                    Ok(())
                }
                Outcome::ReadFile { region, identity } => {
                    self.expect_files_of(identity.size_bytes);
                    self.shared.limits.check_bytes(identity.size_bytes)?;
                    let landed = self.seats[number].land_file(region, identity);
                    self.hand_on(landed);
                    Ok(())
                }
                Outcome::ReadDevice(region) => {
                    self.land(number, read, Bytes::Device(region));
                    Ok(())
                }
            });
            match result {
                Err(error) if self.may_turn_back(number) => self.turn_back(number, error),
                Err(error) => self.fail(number, error),
                Ok(()) => self.free_if_idle(number),
            }
            self.read_again_on_host(number);
        }
        self.completions = completions;
    }

    /// Takes the bytes of a read, and hands on a sample that has all of its own.
    fn land(&mut self, number: usize, read: usize, bytes: Bytes) {
        let landed = self.seats[number].land(read, bytes);
        self.hand_on(landed);
    }

    /// Hands on a sample that has all of its bytes.
    fn hand_on(&mut self, landed: Option<(Job, SampleBytes)>) {
        if let Some((job, bytes)) = landed {
            self.landed.data += bytes.data;
            self.landed.needed += bytes.needed;
            self.landed.asked += bytes.asked;
            // The channel has a place for every sample; it is closed only when all workers are gone.
            let _ = self.jobs.send(job);
        }
    }

    /// Whether a sample whose read has failed was read to a device, from which it may come back.
    fn may_turn_back(&self, number: usize) -> bool {
        let seat = &self.seats[number];
        seat.waiting.is_some() && seat.landing() == Landing::Device && !self.shared.requires_direct()
    }

    fn turn_back(&mut self, number: usize, error: Error) {
        self.starting.retain(|&starting| starting != number);
        self.seats[number].turn_back(error);
    }

    /// Queues a sample that was turned back, once nothing of it is in flight.
    fn read_again_on_host(&mut self, number: usize) {
        let Some(error) = self.seats[number].turned_back() else { return };
        if let Some(Waiting { tray, index, .. }) = &self.seats[number].waiting {
            self.shared.count_turned_back(tray, *index, error);
            self.starting.push_back(number);
        }
    }

    /// Reports a sample's failure, once, and starts no more reads of it.
    fn fail(&mut self, number: usize, error: Error) {
        if let Some(Waiting { tray, slot, index }) = self.seats[number].give_up() {
            self.starting.retain(|&starting| starting != number);
            let error = self.shared.name_sample(&tray, index, error);
            let filled = tray.fail(&slot, index, None, error);
            self.exit.put_if_filled(&tray, filled);
        }
        self.free_if_idle(number);
    }

    /// Frees a seat whose sample has left it, once nothing refers to it any more.
    fn free_if_idle(&mut self, number: usize) {
        if self.seats[number].is_idle() {
            self.free_seats.push(number);
        }
    }
}
