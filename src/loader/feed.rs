//! The feeding thread: walks the order, keeps reads in flight, hands out what has landed.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::Shared;
use super::exit::{Back, Exit};
use super::landed::{Bytes, Landing};
use super::lanes::Lanes;
use super::ready::Ready;
use super::seat::{ReadRequest, SampleBytes, Seat, Waiting, of_token};
use super::stand_ins::{STORAGE_ERRORS_MAX, StandIns};
use super::tray::{Candidate, Tray};
use super::work::Job;
use crate::batch::Replacement;
use crate::engine::{Completion, Engine, FileCache, Identity, OpenFile, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Region, Slot};
use crate::order::{Step, Steps};
use crate::pool::{ReadShare, Share};
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
    /// Of a pool, that of the operations in flight, which it keeps until the engine has ended.
    reads: Option<ReadShare>,
    /// Whether reads that could start otherwise are left to other loaders of the pool.
    is_held_back: bool,
    files: FileCache,
    path: PathBuf,
    /// Samples between admission and landing: no more than operations.
    seats: Vec<Seat>,
    free_seats: Vec<usize>,
    /// The samples of each root that are to be admitted, and the seats whose reads are not all started.
    lanes: Lanes,
    /// The seat that waits for memory, before which no other gets any.
    memory_wanted: Option<usize>,
    /// What the sample planned last needs.
    ranges: Vec<Range<u64>>,
    /// Taken from the arena for the first of `starting`.
    memory: Vec<Bytes>,
    completions: Vec<Completion>,
    /// Shards that are being opened.
    opening: Vec<Opening>,
    /// The length that most files do not exceed, by those that were opened lately; 0 before the first.
    file_bytes: usize,
    /// What has landed so far.
    landed: SampleBytes,
    /// What comes back of the trays begun, where bad samples are replaced.
    back: Option<Receiver<Back>>,
    /// Trays begun that may want other samples yet.
    unfilled: usize,
    /// With the places that wait for a trial.
    stand_ins: StandIns<Waiting>,
}

/// A shard that is being opened, by the first seat that needs it.
struct Opening {
    object: u64,
    seat: usize,
    /// Others that need it meanwhile.
    waiting: Vec<usize>,
}

impl<'a> Feed<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        ready: &'a Ready,
        exit: &'a Exit,
        jobs: Sender<Job>,
        back: Option<Receiver<Back>>,
    ) -> Result<Self> {
        let (engine, fallbacks) = shared.start_engine()?;
        *crate::report::lock(&shared.engine_name) = engine.kind().name();
        drop(fallbacks); // Reported with those of the run, at its end.
        Ok(Self {
            shared,
            ready,
            exit,
            jobs,
            engine,
            reads: shared.share.as_ref().map(Share::reads),
            is_held_back: false,
            files: FileCache::default(),
            path: PathBuf::new(),
            seats: (0..shared.depth).map(|_| Seat::default()).collect(),
            free_seats: (0..shared.depth).rev().collect(),
            lanes: Lanes::new(shared.depth, shared.engine_options.depth, shared.rate_limits.clone()),
            memory_wanted: None,
            ranges: Vec::new(),
            memory: Vec::new(),
            completions: Vec::with_capacity(shared.depth),
            opening: Vec::new(),
            file_bytes: 0,
            landed: SampleBytes::default(),
            back,
            unfilled: 0,
            stand_ins: StandIns::default(),
        })
    }

    /// Feeds the batches of all steps, or as many as there are before the run is ended.
    pub(super) fn run(mut self, steps: Steps) -> Result<()> {
        let batches = self.feed(steps);
        let counters = &self.shared.counters;
        self.lanes.report(counters);
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
        counters.retries.fetch_add(done.retries, Relaxed);
        counters.timeouts.fetch_add(done.timeouts, Relaxed);
        counters.depth.store(self.lanes.depth() as u64, Relaxed);
        self.ready.end_at(batches?);
        Ok(())
    }

    fn feed(&mut self, steps: Steps) -> Result<u64> {
        let mut batches = steps.zip(0u64..).peekable();
        let mut fed = 0;
        loop {
            let working = Instant::now();
            if self.shared.stop.load(Relaxed) {
                return Ok(fed);
            }
            self.hear_all();
            self.is_held_back = false;
            self.start_reads();
            let mut slot_wanted = None;
            while self.may_begin() && !self.free_seats.is_empty() && self.memory_wanted.is_none() {
                if slot_wanted.is_none()
                    && self.lanes.is_hungry()
                    && let Some(&(step, sequence)) = batches.peek()
                {
                    let samples = step.len() as usize;
                    if let Some(slot) = self.shared.slots.try_acquire(samples) {
                        batches.next();
                        fed = sequence + 1;
                        self.start_batch(sequence, step, &slot)?;
                        continue;
                    }
                    slot_wanted = Some(samples);
                }
                let Some((lane, waiting)) = self.lanes.next_to_admit(Instant::now()) else { break };
                self.admit(lane, waiting);
            }
            self.shared.counters.engine.add_busy(working);
            let is_over = batches.peek().is_none() && self.lanes.is_idle() && self.unfilled == 0;
            if is_over && self.engine.in_flight() == 0 {
                return Ok(fed);
            }
            self.wait(slot_wanted)?;
        }
    }

    /// Whether another operation may begin, as far as the engine and other loaders are concerned.
    fn may_begin(&mut self) -> bool {
        let has_room = self.engine.room() > 0;
        let is_in_share = self.most() > self.engine.in_flight();
        self.is_held_back |= has_room && !is_in_share && !self.lanes.is_idle();
        has_room && is_in_share
    }

    /// Operations that it may have in flight, as far as other loaders are concerned.
    fn most(&mut self) -> usize {
        let Some(reads) = &self.reads else { return self.shared.depth };
        let most = reads.most(self.engine.in_flight()).min(self.shared.depth);
        self.lanes.allow(most);
        most
    }

    /// Sleeps until there is something to do, and takes what has completed.
    fn wait(&mut self, slot_wanted: Option<usize>) -> Result<()> {
        let shared = self.shared;
        let clock = &shared.counters.engine;
        let waiting = Instant::now();
        let limited = if self.engine.room() > 0 { self.lanes.limited_for(waiting) } else { None };
        let timeout = limited.map_or(LOOK_EVERY, |limited| limited.min(LOOK_EVERY));
        self.lanes.wait_begins();
        let is_blocked = if self.engine.in_flight() > 0 {
            self.engine.reap(1, timeout, &mut self.completions)?;
            false
        } else {
            self.look_for_overdue()?;
            if let Some(number) = self.memory_wanted {
                // What can never fit is the sample's error, when it is started.
                let _ = shared.arena.wait_for_space(self.seats[number].region_lens(&self.engine), timeout);
                true
            } else if limited.is_some() {
                std::thread::sleep(timeout);
                false
            } else if let Some(samples) = slot_wanted {
                // Taken and given back at once: the loop takes it again. What comes back meanwhile ends the wait.
                drop(shared.slots.acquire(samples, timeout));
                true
            } else if let Some(back) = self.back.as_ref().filter(|_| self.unfilled > 0) {
                if let Ok(back) = back.recv_timeout(timeout) {
                    self.hear(back);
                }
                true
            } else {
                false
            }
        };
        match limited {
            _ if is_blocked => clock.add_blocked(waiting),
            Some(_) => clock.add_limited(waiting),
            None if self.is_held_back => clock.add_shared(waiting),
            None => clock.add_starved(waiting),
        }
        self.lanes.count_time(Instant::now(), limited.is_some() && !is_blocked);
        self.complete();
        self.lanes.wait_ended(self.engine.now());
        Ok(())
    }

    /// Takes back what is of operations that were given up, for which nobody waits.
    ///
    /// # Errors
    /// Where they are so many that nothing can be read any more.
    fn look_for_overdue(&mut self) -> Result<()> {
        if self.engine.overdue() == 0 {
            return Ok(());
        }
        self.engine.reap(0, Duration::ZERO, &mut self.completions)?;
        if self.engine.room() == 0 && self.engine.in_flight() == 0 {
            return Err(self.engine.stuck());
        }
        Ok(())
    }

    /// Puts the samples of a batch into the lines of their roots.
    fn start_batch(&mut self, sequence: u64, step: Step, slot: &Slot) -> Result<()> {
        let shared = self.shared;
        let mut tray = Tray::new(sequence, step, Arc::clone(&shared.views));
        tray.mixture = shared.order.mixture().cloned();
        let order = shared.order.epoch(step.epoch());
        let mut unknown = tray.fill(&*shared.source, step.positions().map(|position| order.at(position))).into_iter();
        let mut next_unknown = unknown.next();
        if let Some(cuda) = &shared.cuda {
            tray.expect_device();
            cuda.start_round(slot.index())?;
        }
        if self.back.is_some() {
            self.unfilled += 1;
            // Trays before this one are in other slots.
            self.stand_ins.forget_before(step.epoch().saturating_sub(shared.slots.slots() as u64));
        }
        let tray = Arc::new(tray);
        for index in 0..tray.samples.len() {
            let waiting = Waiting { tray: Arc::clone(&tray), slot: slot.clone(), index };
            match next_unknown.take_if(|(unknown, _)| *unknown == index) {
                None => self.lanes.push(&*shared.source, waiting),
                Some((_, error)) => {
                    self.exit.fail(shared, waiting, None, error);
                    next_unknown = unknown.next();
                }
            }
        }
        Ok(())
    }

    /// Takes all that has come back.
    fn hear_all(&mut self) {
        while let Some(Ok(back)) = self.back.as_ref().map(Receiver::try_recv) {
            self.hear(back);
        }
    }

    fn hear(&mut self, back: Back) {
        match back {
            Back::Filled => self.unfilled -= 1,
            Back::Tried { epoch, position, is_good } => {
                if is_good {
                    self.stand_ins.note_good(epoch, position);
                }
                self.end_trial(epoch, position);
            }
            Back::Failed { waiting, is_retryable } => self.failed(waiting, is_retryable),
        }
    }

    /// Takes back a place whose sample, or what stood in for it, has failed.
    fn failed(&mut self, waiting: Waiting, is_retryable: bool) {
        let (tray, index) = (Arc::clone(&waiting.tray), waiting.index);
        let (epoch, Candidate { position, is_stand_in, .. }) = (tray.step.epoch(), tray.candidate(index));
        if is_stand_in && !is_retryable {
            self.stand_ins.note_bad(epoch, position, self.shared.order.samples());
        }
        if is_retryable && tray.count_storage_error(index) >= STORAGE_ERRORS_MAX {
            let why = "storage fails for others too";
            let error = self.shared.cannot_replace(&tray, index, ErrorKind::Io, why);
            self.give_up(&waiting, error);
        } else {
            self.replace(waiting);
        }
        if is_stand_in {
            self.end_trial(epoch, position);
        }
    }

    /// Goes on with the places that waited for what came of a sample.
    fn end_trial(&mut self, epoch: u64, position: u64) {
        for waiting in self.stand_ins.tried(epoch, position) {
            self.replace(waiting);
        }
    }

    /// Ends the run at a batch for which a sample is missing.
    fn give_up(&mut self, Waiting { tray, slot, index }: &Waiting, error: Error) {
        tray.note_failure(*index, error);
        self.exit.go_without(tray, slot, *index, None);
    }

    /// Puts another sample in a place: the next of the order behind the one that was there last.
    fn replace(&mut self, waiting: Waiting) {
        let (shared, tray, index) = (self.shared, Arc::clone(&waiting.tray), waiting.index);
        let (epoch, own) = (tray.step.epoch(), tray.step.position(index as u64));
        let (order, positions) = (shared.order.epoch(epoch), shared.order.samples());
        let (mut last, mut key) = (tray.candidate(index).position, String::new());
        loop {
            let next = self.stand_ins.next(epoch, own, last, positions);
            let distance = |to: u64| if to > own { to - own } else { positions - own + to };
            let passed = next.map_or(positions, distance) - 1;
            let Some(position) = next.filter(|_| passed <= shared.bad_in_a_row_max()) else {
                let error = shared.none_is_left(&tray, index);
                return self.give_up(&waiting, error);
            };
            let sample = order.at(position);
            match shared.source.key(sample, &mut key).and_then(|()| shared.source.label(sample)) {
                Ok(label) => {
                    if let Some(waiting) = self.stand_ins.may_try(epoch, position, waiting) {
                        tray.stand_in(index, Replacement { position, sample, label, key });
                        self.lanes.push_first(&*shared.source, waiting);
                    }
                    return;
                }
                // It is the source that says so, and no storage.
                Err(_) => {
                    self.stand_ins.note_bad(epoch, position, positions);
                    last = position;
                }
            }
        }
    }

    /// Starts a sample's way: an open, or reads of an object that is open already.
    fn admit(&mut self, lane: usize, waiting: Waiting) {
        let Some(number) = self.free_seats.pop() else { unreachable!("a seat was seen to be free") };
        let sample = waiting.tray.sample(waiting.index);
        self.seats[number].take(waiting, lane);
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
                let seat = &mut self.seats[number];
                let lane = seat.lane;
                let token = seat.open(number);
                self.lanes.opens(lane);
                // What is held to a limit has to know how much it reads before.
                let region = if self.lanes.is_limited(lane) { None } else { self.memory_of_file(sample)? };
                match region {
                    Some(region) => {
                        self.seats[number].begin_file(Instant::now());
                        self.engine.read_file(token, &self.path, region);
                    }
                    None => self.engine.open(token, &self.path),
                }
                Ok(())
            }
            Extent::Range { object, offset, len_bytes } => match self.files.lookup(object) {
                Some(file) => self.choose_reads_of_part(number, file, offset, len_bytes),
                None => self.open_shard(number, object),
            },
        }
    }

    /// Opens a shard for a sample, or lets that wait for another's open of it.
    fn open_shard(&mut self, number: usize, object: u64) -> Result<()> {
        if let Some(opening) = self.opening.iter_mut().find(|opening| opening.object == object) {
            opening.waiting.push(number);
            return Ok(());
        }
        self.shared.source.object_path(object, &mut self.path)?;
        let seat = &mut self.seats[number];
        let lane = seat.lane;
        let token = seat.open(number);
        self.lanes.opens(lane);
        self.engine.open(token, &self.path);
        self.opening.push(Opening { object, seat: number, waiting: Vec::new() });
        Ok(())
    }

    /// Goes on with the samples that have waited for a shard's open by a seat, but for that seat's own.
    fn shard_opened(&mut self, number: usize, result: &Result<Outcome>) {
        let Some(at) = self.opening.iter().position(|opening| opening.seat == number) else { return };
        let Opening { object, waiting, .. } = self.opening.swap_remove(at);
        if let Ok(Outcome::Opened(file)) = result {
            file.keep_open();
            self.files.insert(object, Arc::clone(file));
        }
        for waiting in waiting {
            let chosen = match result {
                Ok(Outcome::Opened(file)) => self.choose_reads_of_opened(waiting, Arc::clone(file)),
                Ok(_) => unreachable!("it was opened, not read"),
                Err(error) => Err(again(error)),
            };
            if let Err(error) = chosen {
                self.fail(waiting, error);
            }
        }
    }

    /// As [`choose_reads`](Self::choose_reads), of a sample whose file was opened for it.
    fn choose_reads_of_opened(&mut self, number: usize, file: Arc<OpenFile>) -> Result<()> {
        let Some(sample) = self.seats[number].sample() else { return Ok(()) };
        match self.shared.source.extent(sample)? {
            Extent::Object(_) => {
                let size_bytes = file.size_bytes();
                self.expect_files_of(size_bytes);
                self.choose_reads(number, file, 0..size_bytes)
            }
            Extent::Range { offset, len_bytes, .. } => self.choose_reads_of_part(number, file, offset, len_bytes),
        }
    }

    fn choose_reads_of_part(&mut self, number: usize, file: Arc<OpenFile>, offset: u64, len_bytes: u64) -> Result<()> {
        let end = offset.checked_add(len_bytes).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("{len_bytes} bytes at {offset} end beyond any file"))
        })?;
        self.choose_reads(number, file, offset..end)
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
        let (sample, place) = (tray.sample(*index), (file.identity().inode.0, file.path()));
        seat.lane = self.lanes.settle(&*self.shared.source, sample, seat.lane, place);
        let (plans, landing) = match self.shared.push_down(tray, *index, len_bytes, &file, &mut self.ranges)? {
            Some((plans, landing)) => {
                if landing != Landing::Device {
                    self.shared.refuse_indirect("the kernels do not decode it")?;
                }
                (Some(plans), landing)
            }
            // What it is shows when it is here.
            None => (None, self.shared.landing_of_whole()?),
        };
        seat.choose_reads(file, extent, plans, landing, &mut self.ranges);
        self.lanes.queue(seat.lane, number);
        Ok(())
    }

    /// Starts reads in the order of the samples' turns on each root, while there is memory and room.
    fn start_reads(&mut self) {
        self.lanes.retry();
        while let Some((lane, number)) = self.lanes.next_to_start() {
            let started = self.start_reads_of(number);
            if let Ok(false) = started {
                self.lanes.set_stuck(lane);
                continue;
            }
            self.unqueue(number);
            if let Err(error) = started {
                self.fail(number, error);
            }
        }
    }

    /// Whether all reads of a sample are started.
    fn start_reads_of(&mut self, number: usize) -> Result<bool> {
        let Self { shared, engine, reads, is_held_back, seats, memory, lanes, memory_wanted, .. } = self;
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
            // Small samples must not take what a large one waits for.
            let is_its_turn = memory_wanted.is_none_or(|wanting| wanting == number);
            if !is_its_turn
                || !shared.arena.alloc_all(seat.region_lens(engine), |region| memory.push(Bytes::Host(region)))?
            {
                memory_wanted.get_or_insert(number);
                return Ok(false);
            }
            *memory_wanted = None;
            seat.take_memory(memory);
        }
        loop {
            let now = Instant::now();
            if engine.room() == 0 || !lanes.may_read(seat.lane, now) {
                return Ok(seat.is_started());
            }
            if reads.as_ref().is_some_and(|reads| reads.most(engine.in_flight()) <= engine.in_flight()) {
                *is_held_back |= !seat.is_started();
                return Ok(seat.is_started());
            }
            let lane = seat.lane;
            let Some(ReadRequest { token, file, offset, len_bytes, into }) = seat.next_read(number) else {
                return Ok(true);
            };
            let span_bytes = engine.region_len(file, offset, len_bytes);
            match into {
                Bytes::Host(region) => engine.read(token, file, offset, len_bytes, region),
                Bytes::Device(region) => engine.read_device(token, file, offset, len_bytes, region),
            }
            lanes.reads(lane, span_bytes, now);
            seat.begin(now, span_bytes);
        }
    }

    /// Takes a seat out of the line of those whose reads are not all started.
    fn unqueue(&mut self, number: usize) {
        self.lanes.unqueue(self.seats[number].lane, number);
        self.memory_wanted.take_if(|wanting| *wanting == number);
    }

    fn complete(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        let now = Instant::now();
        for Completion { token, result } in completions.drain(..) {
            let (number, read) = of_token(token);
            let seat = &mut self.seats[number];
            seat.completed();
            self.lanes.ended(seat.lane);
            match (&result, seat.begun(read)) {
                (Ok(_), Some((begun, len_bytes))) => {
                    self.lanes.has_read(seat.lane, len_bytes, now.duration_since(begun))
                }
                (Ok(_), None) => {}
                (Err(_), _) => self.lanes.failed(seat.lane),
            }
            self.shard_opened(number, &result);
            let result = result.and_then(|outcome| match outcome {
                Outcome::Opened(file) => self.choose_reads_of_opened(number, file),
                Outcome::Read(region) => {
                    self.land(number, read, Bytes::Host(region));
                    Ok(())
                }
                Outcome::ReadFile { region, identity } => {
                    self.expect_files_of(identity.size_bytes);
                    self.shared.limits.check_bytes(identity.size_bytes)?;
                    self.count_file(number, &identity, now)?;
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
        let lanes = &mut self.lanes;
        self.engine.take_asked_again(|device, len_bytes| lanes.reads_again(device, len_bytes, now));
    }

    /// Counts a file that came in one go where it lies.
    fn count_file(&mut self, number: usize, identity: &Identity, now: Instant) -> Result<()> {
        let seat = &mut self.seats[number];
        let Some(sample) = seat.sample() else { return Ok(()) };
        let source = &*self.shared.source;
        if let Extent::Object(object) = source.extent(sample)? {
            source.object_path(object, &mut self.path)?;
            seat.lane = self.lanes.settle(source, sample, seat.lane, (identity.inode.0, &self.path));
        }
        if let Some(begun) = seat.file_begun() {
            self.lanes.has_read(seat.lane, identity.size_bytes as usize, now.duration_since(begun));
        }
        Ok(())
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
        self.unqueue(number);
        self.seats[number].turn_back(error);
    }

    /// Queues a sample that was turned back, once nothing of it is in flight.
    fn read_again_on_host(&mut self, number: usize) {
        let Some(error) = self.seats[number].turned_back() else { return };
        if let Some(Waiting { tray, index, .. }) = &self.seats[number].waiting {
            self.shared.count_turned_back(tray, *index, error);
            self.lanes.queue(self.seats[number].lane, number);
        }
    }

    /// Reports a sample's failure, once, and starts no more reads of it.
    fn fail(&mut self, number: usize, error: Error) {
        if let Some(waiting) = self.seats[number].give_up() {
            self.unqueue(number);
            self.exit.fail(self.shared, waiting, None, error);
        }
        self.free_if_idle(number);
    }

    /// Frees a seat whose sample has left it, once nothing refers to it any more.
    fn free_if_idle(&mut self, number: usize) {
        if self.seats[number].is_idle() {
            self.lanes.leave(self.seats[number].lane);
            self.free_seats.push(number);
        }
    }
}

/// The error of one sample, said of another that waited for the same.
fn again(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.cause());
    match error.remedy() {
        Some(remedy) => same.with_remedy(remedy),
        None => same,
    }
}
