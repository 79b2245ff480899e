//! A sample between admission and landing: its reads, and what has come of them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::landed::{Bytes, Landed, Landing};
use super::tray::Tray;
use super::work::Job;
use crate::engine::{Engine, Identity, OpenFile};
use crate::error::Error;
use crate::memory::{Region, Slot};
use crate::plan::{Plans, ranges};

/// The bits of a token that number a sample's reads; the others number its seat.
const READ_BITS: u32 = 16;

const _: () = assert!(ranges::READS_MAX <= 1 << READ_BITS);

/// The place of one sample. Its memory is used again by the next.
#[derive(Default)]
pub(super) struct Seat {
    /// The sample; none once it has failed or gone to the decode threads.
    pub(super) waiting: Option<Waiting>,
    /// The line of its root.
    pub(super) lane: usize,
    file: Option<Arc<OpenFile>>,
    /// Where the sample lies in the file.
    extent: Range<u64>,
    /// Where it is read in parts: its plans, and the bytes that they need.
    plans: Option<Plans>,
    needed_bytes: u64,
    reads: Vec<Read>,
    /// When it began to be read, where that is one operation with its opening.
    file_begun: Option<Instant>,
    landing: Landing,
    /// Why its bytes did not get to the device: they are read for the host once nothing of them is in flight.
    turned_back: Option<Error>,
    has_memory: bool,
    started: usize,
    landed: usize,
    /// Operations of the engine that will still complete.
    in_flight: usize,
}

/// A sample that is wanted.
pub(super) struct Waiting {
    pub(super) tray: Arc<Tray>,
    pub(super) slot: Slot,
    pub(super) index: usize,
}

/// One read of a sample.
struct Read {
    /// Within the sample.
    range: Range<u64>,
    /// Its memory before it starts, its bytes when it has landed.
    bytes: Option<Bytes>,
    /// When it started, and what it takes of storage.
    begun: Option<(Instant, usize)>,
}

/// A read to be started.
pub(super) struct ReadRequest<'a> {
    pub(super) token: u64,
    pub(super) file: &'a Arc<OpenFile>,
    pub(super) offset: u64,
    pub(super) len_bytes: usize,
    pub(super) into: Bytes,
}

/// Bytes of samples: all of theirs, those that their plans need, and those that were asked of storage.
#[derive(Default)]
pub(super) struct SampleBytes {
    pub(super) data: u64,
    pub(super) needed: u64,
    pub(super) asked: u64,
}

impl Seat {
    /// Takes in a sample of a lane.
    pub(super) fn take(&mut self, waiting: Waiting, lane: usize) {
        debug_assert!(self.is_idle() && self.reads.is_empty());
        (self.waiting, self.lane) = (Some(waiting), lane);
    }

    /// The sample's number, while it is here.
    pub(super) fn sample(&self) -> Option<u64> {
        self.waiting.as_ref().map(|Waiting { tray, index, .. }| tray.sample(*index))
    }

    /// Settles what is read of the sample, the bytes `extent` of `file`: `ranges` of it where it is planned, else all.
    pub(super) fn choose_reads(
        &mut self,
        file: Arc<OpenFile>,
        extent: Range<u64>,
        plans: Option<Plans>,
        landing: Landing,
        ranges: &mut Vec<Range<u64>>,
    ) {
        if plans.is_none() {
            ranges.clear();
            ranges.push(0..extent.end - extent.start);
        }
        self.needed_bytes = sum(ranges.iter());
        ranges::merge(ranges, file.align_bytes() as u64);
        self.reads.extend(ranges.drain(..).map(|range| Read { range, bytes: None, begun: None }));
        (self.file, self.extent, self.plans) = (Some(file), extent, plans);
        (self.has_memory, self.started, self.landed) = (false, 0, 0);
        self.landing = landing;
    }

    /// Where it lands.
    pub(super) fn landing(&self) -> Landing {
        self.landing
    }

    /// Lands it where the host decodes.
    pub(super) fn leave_device(&mut self) {
        self.landing = Landing::Host;
    }

    /// Starts no more reads to the device, of which one has failed.
    pub(super) fn turn_back(&mut self, error: Error) {
        self.turned_back.get_or_insert(error);
        self.started = self.reads.len();
    }

    /// Starts anew on the host, and says why, once nothing is in flight to the device any more.
    pub(super) fn turned_back(&mut self) -> Option<Error> {
        if self.in_flight > 0 {
            return None;
        }
        let error = self.turned_back.take()?;
        self.reads.iter_mut().for_each(|read| read.bytes = None);
        (self.has_memory, self.started, self.landed, self.landing) = (false, 0, 0, Landing::Host);
        Some(error)
    }

    /// The memory that its reads take.
    pub(super) fn region_lens(&self, engine: &Engine) -> impl Iterator<Item = usize> + Clone {
        let parts = self.file.iter().flat_map(|file| self.reads.iter().map(move |read| (file, &read.range)));
        parts.map(|(file, range)| engine.region_len(file, self.extent.start + range.start, len_bytes(range)))
    }

    /// Whether it has the memory for its reads.
    pub(super) fn has_memory(&self) -> bool {
        self.has_memory
    }

    /// Takes the memory that was allocated for its reads, a piece each.
    pub(super) fn take_memory(&mut self, memory: &mut Vec<Bytes>) {
        debug_assert_eq!(memory.len(), self.reads.len());
        for (read, bytes) in self.reads.iter_mut().zip(memory.drain(..)) {
            read.bytes = Some(bytes);
        }
        self.has_memory = true;
    }

    /// The next read to start, if one is left. Its token is of the seat's `number`.
    pub(super) fn next_read(&mut self, number: usize) -> Option<ReadRequest<'_>> {
        let (file, read) = (self.file.as_ref()?, self.reads.get_mut(self.started)?);
        let token = token(number, self.started);
        self.started += 1;
        self.in_flight += 1;
        Some(ReadRequest {
            token,
            file,
            offset: self.extent.start + read.range.start,
            len_bytes: len_bytes(&read.range),
            into: read.bytes.take()?,
        })
    }

    /// Notes when the read that was started last was, and what it takes of storage.
    pub(super) fn begin(&mut self, at: Instant, len_bytes: usize) {
        let last = self.started.checked_sub(1).and_then(|last| self.reads.get_mut(last));
        if let Some(read) = last {
            read.begun = Some((at, len_bytes));
        }
    }

    /// The same of any read; none of one whose sample has failed.
    pub(super) fn begun(&self, read: usize) -> Option<(Instant, usize)> {
        self.reads.get(read)?.begun
    }

    /// Whether no read is left to start.
    pub(super) fn is_started(&self) -> bool {
        self.started == self.reads.len()
    }

    /// Notes when a file begins to be read in one go.
    pub(super) fn begin_file(&mut self, at: Instant) {
        self.file_begun = Some(at);
    }

    /// When that was.
    pub(super) fn file_begun(&mut self) -> Option<Instant> {
        self.file_begun.take()
    }

    /// Counts an open that starts, and gives its token.
    pub(super) fn open(&mut self, number: usize) -> u64 {
        self.in_flight += 1;
        token(number, 0)
    }

    /// Counts an operation that has completed.
    pub(super) fn completed(&mut self) {
        self.in_flight -= 1;
    }

    /// Keeps the bytes of a read. The sample, once all have come.
    pub(super) fn land(&mut self, read: usize, bytes: Bytes) -> Option<(Job, SampleBytes)> {
        // A sample that has failed has no reads any more, and the bytes are dropped.
        self.reads.get_mut(read)?.bytes = Some(bytes);
        if self.turned_back.is_some() {
            return None;
        }
        self.landed += 1;
        if self.landed < self.reads.len() {
            return None;
        }
        let bytes = SampleBytes {
            data: self.extent.end - self.extent.start,
            needed: self.needed_bytes,
            asked: sum(self.reads.iter().map(|read| &read.range)),
        };
        let Waiting { tray, slot, index } = self.waiting.take()?;
        let modified = self.file.take()?.identity().modified;
        let mut landed = self
            .reads
            .drain(..)
            .filter_map(|Read { range, bytes, .. }| bytes.map(|bytes| Landed { offset: range.start, bytes }));
        // Most samples come in one piece, for which `more` allocates nothing.
        let (first, more) = (landed.next()?, landed.collect());
        let (plans, landing) = (self.plans.take(), self.landing);
        Some((Job { tray, slot, index, modified, plans, landing, first, more }, bytes))
    }

    /// The sample, all of whose bytes came at once, as those of the file that `identity` is of.
    pub(super) fn land_file(&mut self, region: Region, identity: Identity) -> Option<(Job, SampleBytes)> {
        let Waiting { tray, slot, index } = self.waiting.take()?;
        let len_bytes = region.len() as u64;
        let first = Landed { offset: 0, bytes: Bytes::Host(region) };
        let (modified, landing) = (identity.modified, Landing::Host);
        let job = Job { tray, slot, index, modified, plans: None, landing, first, more: Vec::new() };
        Some((job, SampleBytes { data: len_bytes, needed: len_bytes, asked: len_bytes }))
    }

    /// Lets go of a sample that has failed, its memory and the reads that have not started.
    pub(super) fn give_up(&mut self) -> Option<Waiting> {
        self.reads.clear();
        (self.file, self.turned_back) = (None, None);
        self.waiting.take()
    }

    /// Whether the next sample can take the seat.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_none() && self.in_flight == 0
    }
}

/// The seat and the read that a token names.
pub(super) fn of_token(token: u64) -> (usize, usize) {
    ((token >> READ_BITS) as usize, (token & ((1 << READ_BITS) - 1)) as usize)
}

fn token(seat: usize, read: usize) -> u64 {
    (seat as u64) << READ_BITS | read as u64
}

fn len_bytes(range: &Range<u64>) -> usize {
    (range.end - range.start) as usize
}

fn sum<'a>(ranges: impl Iterator<Item = &'a Range<u64>>) -> u64 {
    ranges.map(|range| range.end - range.start).sum()
}
