//! The samples of each root on their way: whose turn it is, and what is counted.
//!
//! Batches are filled in order, but not every sample of them is read in order: the samples of the slots taken wait in one
//! line for each root, and whatever can be done is done for the root with the fewest operations in flight. So roots of one
//! speed have as many in flight each, and a slow one takes what the others leave it, but never the last operation that another
//! may need.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use super::seat::Waiting;
use crate::report::{CountedRoot, Counters, RootCounters, lock, merge_root};
use crate::source::Source;
use crate::storage::{Bucket, ResolvedLimits, Roots};

/// The lines of all roots.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    roots: Roots,
    limits: ResolvedLimits,
    /// Operations in flight that the engine may have.
    depth: usize,
    /// Up to when operations in flight were counted.
    counted: Instant,
}

/// The line of one root.
#[derive(Default)]
struct Lane {
    /// Samples that are admitted next.
    waiting: VecDeque<Waiting>,
    /// Seats whose reads are not all started, in the order of their turn. Only the first can have memory.
    starting: VecDeque<usize>,
    /// Whether the first of them could not go on just now.
    is_stuck: bool,
    seats: usize,
    in_flight: usize,
    bucket: Option<Bucket>,
    counters: RootCounters,
}

impl Lanes {
    pub(super) fn new(depth: usize, limits: ResolvedLimits) -> Self {
        Self { lanes: Vec::new(), roots: Roots::default(), limits, depth, counted: Instant::now() }
    }

    /// Puts a sample of a batch into its line.
    pub(super) fn push(&mut self, source: &dyn Source, waiting: Waiting) {
        let lane = self.roots.of_sample(source, waiting.tray.samples[waiting.index]);
        self.make(lane);
        self.lanes[lane].waiting.push_back(waiting);
    }

    /// Whether a root has nothing to read, so that a further batch is to be looked at.
    pub(super) fn is_hungry(&self) -> bool {
        self.lanes.is_empty() || !self.lanes.iter().all(Lane::has_work)
    }

    /// Whether nothing waits to be admitted or started.
    pub(super) fn is_idle(&self) -> bool {
        !self.lanes.iter().any(Lane::has_work)
    }

    /// The sample that is admitted next, and its lane: one of the root with the fewest operations in flight, and of several
    /// such the one that comes first in the order.
    pub(super) fn next_to_admit(&mut self, now: Instant) -> Option<(usize, Waiting)> {
        let most = self.most();
        let ready = self.lanes.iter_mut().enumerate().filter_map(|(number, lane)| {
            let first = lane.waiting.front()?;
            let turn = (lane.in_flight, first.tray.sequence, first.index);
            let may = lane.starting.is_empty() && lane.seats < most && lane.in_flight < most;
            (may && lane.is_within_limit(now)).then_some((turn, number))
        });
        let (_, number) = ready.min()?;
        let lane = &mut self.lanes[number];
        lane.seats += 1;
        Some((number, lane.waiting.pop_front()?))
    }

    /// Gives back the seat of a sample.
    pub(super) fn leave(&mut self, lane: usize) {
        self.lanes[lane].seats -= 1;
    }

    /// The lane of a file that is open. A sample of which it was not known so far moves there.
    pub(super) fn settle(&mut self, lane: usize, device: u64, path: &Path) -> usize {
        let found = self.roots.of_device(device, path);
        if found != lane {
            self.make(found);
            self.lanes[lane].seats -= 1;
            self.lanes[found].seats += 1;
        }
        found
    }

    /// Queues a seat for its reads.
    pub(super) fn queue(&mut self, lane: usize, seat: usize) {
        self.lanes[lane].starting.push_back(seat);
    }

    /// Takes a seat out of that queue, wherever it is in it.
    pub(super) fn unqueue(&mut self, lane: usize, seat: usize) {
        self.lanes[lane].starting.retain(|&starting| starting != seat);
    }

    /// The seat whose reads start next, and its lane.
    pub(super) fn next_to_start(&self) -> Option<(usize, usize)> {
        let ready = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.is_stuck && !lane.starting.is_empty());
        let (number, lane) = ready.min_by_key(|(_, lane)| lane.in_flight)?;
        Some((number, *lane.starting.front()?))
    }

    /// Leaves out a lane whose first seat cannot go on, until [`retry`](Self::retry).
    pub(super) fn set_stuck(&mut self, lane: usize) {
        self.lanes[lane].is_stuck = true;
    }

    /// Looks at all lanes again.
    pub(super) fn retry(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.is_stuck = false);
    }

    /// Whether a read may start as far as its root is concerned.
    pub(super) fn may_read(&mut self, lane: usize, now: Instant) -> bool {
        let most = self.most();
        let lane = &mut self.lanes[lane];
        lane.in_flight < most && lane.is_within_limit(now)
    }

    /// Counts an open that starts.
    pub(super) fn opens(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        lane.in_flight += 1;
        lane.counters.in_flight_max = lane.counters.in_flight_max.max(lane.in_flight);
    }

    /// Counts a read that starts.
    pub(super) fn reads(&mut self, lane: usize, len_bytes: usize, now: Instant) {
        self.opens(lane);
        if let Some(bucket) = &mut self.lanes[lane].bucket {
            bucket.take(len_bytes as u64, now);
        }
    }

    /// Counts an operation that has ended.
    pub(super) fn ended(&mut self, lane: usize) {
        self.lanes[lane].in_flight -= 1;
    }

    /// Counts a read that has ended with all its bytes.
    pub(super) fn has_read(&mut self, lane: usize, len_bytes: usize, took: Duration) {
        let counters = &mut self.lanes[lane].counters;
        counters.reads += 1;
        counters.bytes += len_bytes as u64;
        counters.latency.record_us(took.as_micros() as u64);
    }

    /// How long the limits keep every read from starting that could otherwise; none if nothing could, or if something is
    /// not held back by a limit.
    pub(super) fn limited_for(&mut self, now: Instant) -> Option<Duration> {
        let most = self.most();
        let waits = self.lanes.iter_mut().filter(|lane| lane.has_work() && lane.in_flight < most);
        waits.filter_map(|lane| lane.bucket.as_mut()?.wait(now)).min()
    }

    /// Counts the time since the last call: operations in flight, and limits that held.
    pub(super) fn count_time(&mut self, now: Instant, is_limited: bool) {
        let passed = now.saturating_duration_since(self.counted);
        self.counted = now;
        let most = self.most();
        for lane in &mut self.lanes {
            if lane.in_flight > 0 {
                lane.counters.busy += passed;
                lane.counters.operation_time += passed * lane.in_flight as u32;
            }
            let is_held = is_limited && lane.has_work() && lane.in_flight < most;
            // As it was when the time began: the clock is not moved.
            if is_held && lane.bucket.as_ref().is_some_and(Bucket::owes) {
                lane.counters.limited += passed;
            }
        }
    }

    /// Adds what was counted to that of earlier runs.
    pub(super) fn report(&self, counters: &Counters) {
        let mut roots = lock(&counters.roots);
        let read = self.lanes.iter().zip(self.roots.all()).filter(|(lane, _)| lane.counters.reads > 0);
        for (lane, root) in read {
            merge_root(
                &mut roots,
                CountedRoot {
                    device: root.device,
                    name: root.name.clone(),
                    limit_bytes_per_second: self.limits.bytes_per_second(root.device),
                    counters: lane.counters.clone(),
                },
            );
        }
    }

    /// The most operations in flight that one root may have: all but one for each of the others, or its even share where
    /// there are too few for that.
    fn most(&self) -> usize {
        let count = self.lanes.len().max(1);
        self.depth.saturating_sub(count - 1).max(self.depth / count).max(1)
    }

    /// Makes the lanes up to that of a number.
    fn make(&mut self, number: usize) {
        while self.lanes.len() <= number {
            let device = self.roots.all().get(self.lanes.len()).map(|root| root.device);
            let limit = device.and_then(|device| self.limits.bytes_per_second(device));
            let bucket = limit.map(|limit| Bucket::new(limit, Instant::now()));
            self.lanes.push(Lane { bucket, ..Lane::default() });
        }
    }
}

impl Lane {
    fn has_work(&self) -> bool {
        !self.starting.is_empty() || !self.waiting.is_empty()
    }

    fn is_within_limit(&mut self, now: Instant) -> bool {
        self.bucket.as_mut().is_none_or(|bucket| bucket.wait(now).is_none())
    }
}
