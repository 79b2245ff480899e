//! The samples of each root on their way: whose turn it is, and what is counted.
//!
//! Batches are filled in order, but not every sample of them is read in order: the samples of the slots taken wait in one
//! line for each root, and whatever can be done is done for the root with the fewest operations in flight. So roots of one
//! speed have as many in flight each, and a slow one takes what the others leave it, but never the last operation that another
//! may need.
//!
//! How many operations in flight pay is found for each root on its own. One that hangs keeps as many as it had, and the others
//! go on as if it were not there.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use super::seat::Waiting;
use crate::engine::{Depth, DepthControl};
use crate::report::{CountedRoot, Counters, RootCounters, lock, merge_root};
use crate::source::Source;
use crate::storage::{Bucket, ResolvedLimits, Roots};

/// The lines of all roots.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    roots: Roots,
    limits: ResolvedLimits,
    /// Operations in flight that the engine may have, how many of them there may be now, and how many pay a root.
    depth_max: usize,
    depth: usize,
    control: Depth,
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
    /// Whether one of its files was open. Before, it may be a root that there is none of.
    is_met: bool,
    /// How many operations in flight pay, where that is looked for; whether as many were when the engine was last waited for,
    /// and how many have ended since.
    control: Option<DepthControl>,
    was_full: bool,
    ended: usize,
    bucket: Option<Bucket>,
    counters: RootCounters,
}

impl Lanes {
    /// Lines of roots that share `depth` operations.
    pub(super) fn new(depth: usize, control: Depth, limits: ResolvedLimits) -> Self {
        Self {
            lanes: Vec::new(),
            roots: Roots::new(),
            limits,
            depth_max: depth,
            depth,
            control,
            counted: Instant::now(),
        }
    }

    /// Sets how many operations in flight there may be in all for now, where others have a share of them.
    pub(super) fn allow(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// Puts a sample of a batch into its line.
    pub(super) fn push(&mut self, source: &dyn Source, waiting: Waiting) {
        let lane = self.lane_of(source, &waiting);
        self.lanes[lane].waiting.push_back(waiting);
    }

    /// Puts a sample that stands in for another before all that wait: its batch may lack nothing else.
    pub(super) fn push_first(&mut self, source: &dyn Source, waiting: Waiting) {
        let lane = self.lane_of(source, &waiting);
        self.lanes[lane].waiting.push_front(waiting);
    }

    fn lane_of(&mut self, source: &dyn Source, waiting: &Waiting) -> usize {
        let lane = self.roots.of_sample(source, waiting.tray.sample(waiting.index));
        self.make(lane);
        lane
    }

    /// Whether a root has nothing to read, so that a further batch is to be looked at.
    pub(super) fn is_hungry(&self) -> bool {
        let mut used = self.lanes.iter().filter(|lane| lane.is_used()).peekable();
        used.peek().is_none() || !used.all(Lane::has_work)
    }

    /// Whether nothing waits to be admitted or started.
    pub(super) fn is_idle(&self) -> bool {
        !self.lanes.iter().any(Lane::has_work)
    }

    /// The sample that is admitted next, and its lane: one of the root with the fewest operations in flight, and of several
    /// such the one that comes first in the order. None of a root that has as many in flight as pay.
    pub(super) fn next_to_admit(&mut self, now: Instant) -> Option<(usize, Waiting)> {
        let most = self.most();
        let ready = self.lanes.iter_mut().enumerate().filter_map(|(number, lane)| {
            let first = lane.waiting.front()?;
            let turn = (lane.in_flight, first.tray.sequence, first.index);
            let most = lane.control.as_ref().map_or(most, |control| control.depth().min(most));
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

    /// The lane of a sample whose file is open, on a device and at a path. One that was taken for another root's moves there.
    pub(super) fn settle(
        &mut self,
        source: &dyn Source,
        sample: u64,
        lane: usize,
        (device, path): (u64, &Path),
    ) -> usize {
        let found = self.roots.of_device(device, path);
        if found != lane {
            self.make(found);
            self.roots.learn(source, sample, path, found);
            self.lanes[lane].seats -= 1;
            self.lanes[found].seats += 1;
        }
        if !self.lanes[found].is_met {
            // Its device may have been taken for another.
            (self.lanes[found].is_met, self.lanes[found].bucket) = (true, self.bucket(found));
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

    /// Whether a root is held to a limit.
    pub(super) fn is_limited(&self, lane: usize) -> bool {
        self.lanes[lane].bucket.is_some()
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

    /// Counts bytes that were asked of a device again.
    pub(super) fn reads_again(&mut self, device: u64, len_bytes: u64, now: Instant) {
        let number = self.roots.all().iter().position(|root| root.device == device);
        if let Some(bucket) = number.and_then(|number| self.lanes.get_mut(number)?.bucket.as_mut()) {
            bucket.take(len_bytes, now);
        }
    }

    /// Counts an operation that has ended.
    pub(super) fn ended(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        lane.in_flight -= 1;
        lane.ended += 1;
    }

    /// Counts one of those that ended with an error.
    pub(super) fn failed(&mut self, lane: usize) {
        self.lanes[lane].counters.failed += 1;
    }

    /// Takes note of what is in flight, before the engine is waited for.
    pub(super) fn wait_begins(&mut self) {
        for lane in &mut self.lanes {
            lane.was_full = lane.control.as_ref().is_some_and(|control| lane.in_flight >= control.depth());
        }
    }

    /// Learns from what has ended meanwhile, by the engine's clock, how many in flight pay.
    pub(super) fn wait_ended(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            let ended = std::mem::take(&mut lane.ended);
            if let Some(control) = &mut lane.control {
                control.completed(now, ended, lane.was_full);
            }
        }
    }

    /// Operations in flight that pay, of all roots together, as far as is known by now.
    pub(super) fn depth(&self) -> usize {
        let used = self.lanes.iter().filter(|lane| lane.is_used());
        used.map(|lane| lane.control.as_ref().map_or(self.depth_max, DepthControl::depth))
            .sum::<usize>()
            .min(self.depth_max)
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

    /// Adds what was counted to that of earlier runs. A lane that nothing came of was for a path that led elsewhere.
    pub(super) fn report(&self, counters: &Counters) {
        let mut roots = lock(&counters.roots);
        let lanes = self.lanes.iter().zip(self.roots.all());
        for (lane, root) in lanes.filter(|(lane, _)| lane.counters.reads + lane.counters.failed > 0) {
            merge_root(
                &mut roots,
                CountedRoot {
                    device: root.device,
                    name: root.name.display().to_string(),
                    limit_bytes_per_second: self.limits.bytes_per_second(root.device),
                    counters: lane.counters.clone(),
                },
            );
        }
    }

    /// The most operations in flight that one root may have: all but one for each of the others, or its even share where
    /// there are too few for that.
    fn most(&self) -> usize {
        let count = self.lanes.iter().filter(|lane| lane.is_used()).count().max(1);
        self.depth.saturating_sub(count - 1).max(self.depth / count).max(1)
    }

    /// Makes the lanes up to that of a number.
    fn make(&mut self, number: usize) {
        while self.lanes.len() <= number {
            let bucket = self.bucket(self.lanes.len());
            let control = DepthControl::of(self.control, self.depth_max);
            self.lanes.push(Lane { bucket, control, ..Lane::default() });
        }
    }

    /// What holds a root to its limit, if it has one.
    fn bucket(&self, number: usize) -> Option<Bucket> {
        let limit = self.limits.bytes_per_second(self.roots.all().get(number)?.device)?;
        Some(Bucket::new(limit, Instant::now()))
    }
}

impl Lane {
    fn has_work(&self) -> bool {
        !self.starting.is_empty() || !self.waiting.is_empty()
    }

    /// Whether there are samples on it, as far as is known.
    fn is_used(&self) -> bool {
        self.is_met || self.seats > 0 || self.has_work()
    }

    fn is_within_limit(&mut self, now: Instant) -> bool {
        self.bucket.as_mut().is_none_or(|bucket| bucket.wait(now).is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::super::tray::Tray;
    use super::*;
    use crate::error::Result;
    use crate::memory::SlotPool;
    use crate::order::{Cursor, EpochSteps, LastBatch};
    use crate::plan::{Augment, Views};
    use crate::source::Extent;
    use crate::storage::RateLimits;

    /// Even samples lie in the folder of the system's temporary files, odd ones among the kernel's.
    struct TwoRoots;

    impl Source for TwoRoots {
        fn len(&self) -> u64 {
            1000
        }

        fn extent(&self, sample: u64) -> Result<Extent> {
            Ok(Extent::Object(sample))
        }

        fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
            *path = if object.is_multiple_of(2) { std::env::temp_dir() } else { "/proc".into() }.join("sample");
            Ok(())
        }

        fn label(&self, _: u64) -> Result<i64> {
            Ok(0)
        }

        fn key(&self, _: u64, _: &mut String) -> Result<()> {
            Ok(())
        }
    }

    /// Lanes in which these samples wait, as those of one batch.
    fn lanes(depth: usize, limits: &RateLimits, samples: impl Iterator<Item = u64>) -> Lanes {
        let mut lanes = Lanes::new(depth, Depth::Fixed, limits.resolve().unwrap());
        waiting(samples).for_each(|waiting| lanes.push(&TwoRoots, waiting));
        lanes
    }

    fn waiting_of(sample: u64) -> Waiting {
        waiting([sample].into_iter()).next().unwrap()
    }

    fn waiting(samples: impl Iterator<Item = u64>) -> impl Iterator<Item = Waiting> {
        let augment = Augment::imagenet_train(8).build().unwrap();
        let samples: Vec<u64> = samples.collect();
        let steps = EpochSteps::new(samples.len() as u64, samples.len() as u64, LastBatch::Drop).unwrap();
        let step = steps.step(Cursor::start_of(0)).unwrap();
        let mut tray = Tray::new(0, step, Arc::new(Views::new([(augment, 1)]).unwrap()));
        assert!(tray.fill(&TwoRoots, samples.into_iter()).is_empty());
        let tray = Arc::new(tray);
        let slot = SlotPool::new(2, tray.samples.len(), 1).unwrap().try_acquire(tray.samples.len()).unwrap();
        (0..tray.samples.len()).map(move |index| Waiting { tray: Arc::clone(&tray), slot: slot.clone(), index })
    }

    /// Admits and opens as long as the engine has room: the samples, in that order.
    fn admit(lanes: &mut Lanes, depth: usize) -> Vec<u64> {
        let mut admitted = Vec::new();
        while in_flight(lanes).iter().sum::<usize>() < depth
            && let Some((lane, waiting)) = lanes.next_to_admit(Instant::now())
        {
            lanes.opens(lane);
            admitted.push(waiting.tray.sample(waiting.index));
        }
        admitted
    }

    fn in_flight(lanes: &Lanes) -> Vec<usize> {
        lanes.lanes.iter().map(|lane| lane.in_flight).collect()
    }

    fn end(lanes: &mut Lanes, lane: usize) {
        lanes.ended(lane);
        lanes.leave(lane);
    }

    #[test]
    fn roots_share_the_depth_evenly_whatever_the_order() {
        // Ten of one root before the first of the other.
        let order = (0..10).map(|n| 2 * n).chain((0..10).map(|n| 2 * n + 1));
        let mut lanes = lanes(8, &RateLimits::default(), order);
        assert_eq!(admit(&mut lanes, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(in_flight(&lanes), [4, 4]);
        // What one has done, it may do again.
        end(&mut lanes, 1);
        assert_eq!(admit(&mut lanes, 8), [9]);
    }

    #[test]
    fn a_root_that_hangs_never_takes_the_last_operation_of_another() {
        let mut lanes = lanes(8, &RateLimits::default(), 0..100);
        lanes.lanes.iter_mut().for_each(|lane| lane.is_met = true);
        admit(&mut lanes, 8);
        // The first root answers nothing any more, the second at once.
        for _ in 0..46 {
            end(&mut lanes, 1);
            assert_eq!(admit(&mut lanes, 8).len(), 1);
            assert_eq!(in_flight(&lanes), [4, 4]);
        }
        // Then it has nothing left, and the other takes what is free, but for one.
        for _ in 0..4 {
            end(&mut lanes, 1);
            admit(&mut lanes, 8);
        }
        assert_eq!(in_flight(&lanes), [7, 0]);
        assert!(lanes.is_hungry() && !lanes.is_idle());
    }

    /// Both roots do up to `knee` operations at once in a millisecond each, but for one that hangs from the first on.
    fn run_at_knees(lanes: &mut Lanes, depth: usize, knees: [usize; 2]) -> [usize; 2] {
        lanes.lanes.iter_mut().for_each(|lane| {
            lane.is_met = true;
            lane.control = DepthControl::of(Depth::default(), depth);
        });
        let mut now = Instant::now();
        let mut most = [0; 2];
        while lanes.lanes.iter().zip(knees).any(|(lane, knee)| knee > 0 && !lane.waiting.is_empty()) {
            admit(lanes, depth);
            lanes.wait_begins();
            now += Duration::from_millis(1);
            for (lane, knee) in knees.into_iter().enumerate() {
                most[lane] = most[lane].max(lanes.lanes[lane].in_flight);
                (0..knee.min(lanes.lanes[lane].in_flight)).for_each(|_| end(lanes, lane));
            }
            lanes.wait_ended(now);
        }
        most
    }

    #[test]
    fn each_root_has_as_many_operations_as_pay_it() {
        let limits = RateLimits::default();
        let mut lanes = lanes(256, &limits, 0..40_000);
        let most = run_at_knees(&mut lanes, 256, [32, 16]);
        // Twice as many as pay are tried, once.
        assert!((32..=64).contains(&most[0]) && (16..=32).contains(&most[1]), "{most:?}");
        assert!((48..=96).contains(&lanes.depth()), "{}", lanes.depth());
        // One that hangs has what was begun before anything was known, and the other all that pay it.
        let mut lanes = super::tests::lanes(256, &limits, 0..40_000);
        let most = run_at_knees(&mut lanes, 256, [0, 64]);
        assert!(most[0] == 8 && (64..=128).contains(&most[1]), "{most:?}");
        // Also where that is all that the engine can have, but for what hangs.
        let mut lanes = super::tests::lanes(32, &limits, 0..8000);
        let most = run_at_knees(&mut lanes, 32, [0, 64]);
        assert_eq!(most, [8, 24]);
    }

    #[test]
    fn what_was_not_kept_full_teaches_nothing() {
        let mut lanes = Lanes::new(64, Depth::default(), RateLimits::default().resolve().unwrap());
        let mut now = Instant::now();
        // Four at once, of eight with which the search begins: the storage might do any number.
        for sample in (0..4000).step_by(4) {
            waiting((sample..sample + 4).map(|sample| 2 * sample)).for_each(|waiting| lanes.push(&TwoRoots, waiting));
            assert_eq!(admit(&mut lanes, 64).len(), 4);
            lanes.wait_begins();
            (0..4).for_each(|_| end(&mut lanes, 0));
            now += Duration::from_millis(1);
            lanes.wait_ended(now);
        }
        lanes.lanes[0].is_met = true;
        assert_eq!(lanes.depth(), 8);
    }

    #[test]
    fn a_root_with_all_that_it_may_have_starts_no_read() {
        let mut lanes = lanes(4, &RateLimits::default(), 0..10);
        admit(&mut lanes, 4);
        assert_eq!((in_flight(&lanes), lanes.most()), (vec![2, 2], 3));
        let now = Instant::now();
        assert!(lanes.may_read(0, now));
        lanes.reads(0, 1, now);
        assert!(!lanes.may_read(0, now) && lanes.may_read(1, now), "the last is the other's");
    }

    /// The mount table says that there is a file system, and the files turn out to lie on another.
    #[test]
    fn a_root_that_there_is_none_of_keeps_nothing_from_the_others() {
        use std::os::unix::fs::MetadataExt;
        let mut lanes = lanes(8, &RateLimits::default(), (0..50).map(|n| 2 * n + 1));
        assert_eq!(admit(&mut lanes, 1), [1]);
        let sys = Path::new("/sys").metadata().unwrap().dev();
        let found = lanes.settle(&TwoRoots, 1, 0, (sys, Path::new("/proc/sample")));
        assert_eq!((found, lanes.lanes[0].seats, lanes.lanes[1].seats), (1, 0, 1));
        assert_eq!(lanes.roots.of_sample(&TwoRoots, 3), 1, "later ones are known");
        // Those that wait move when they are open, one after the other.
        lanes.lanes[0].waiting.clear();
        assert_eq!((lanes.most(), lanes.is_hungry()), (8, true));
        lanes.push(&TwoRoots, waiting_of(3));
        assert!(!lanes.is_hungry(), "the other has nothing to do");
    }

    #[test]
    fn what_is_asked_again_counts_against_the_limit() {
        use std::os::unix::fs::MetadataExt;
        let limits = RateLimits::default().root("/proc", 1.0).unwrap();
        let mut lanes = lanes(8, &limits, 0..40);
        let now = Instant::now();
        let device = |path: &str| Path::new(path).metadata().unwrap().dev();
        lanes.reads_again(device("/sys"), 500_000, now);
        assert!(lanes.may_read(0, now) && lanes.may_read(1, now), "no root of it");
        lanes.reads_again(device("/proc"), 500_000, now);
        assert!(lanes.may_read(0, now) && !lanes.may_read(1, now));
        let wait = lanes.limited_for(now).unwrap().as_secs_f64();
        assert!((0.49..=0.5).contains(&wait), "{wait}");
    }

    #[test]
    fn a_root_alone_has_all_of_the_depth_and_its_own_order() {
        let mut lanes = lanes(8, &RateLimits::default(), (0..50).map(|n| 2 * (49 - n)));
        let expected: Vec<u64> = (0..8).map(|n| 2 * (49 - n)).collect();
        assert_eq!(admit(&mut lanes, 8), expected);
        assert_eq!(in_flight(&lanes), [8]);
        assert!(!lanes.is_hungry());
        // With one operation in all, two roots take turns.
        let mut lanes = super::tests::lanes(1, &RateLimits::default(), 0..10);
        for expected in 0..4 {
            assert_eq!(admit(&mut lanes, 1), [expected]);
            end(&mut lanes, expected as usize % 2);
        }
    }

    #[test]
    fn a_limit_holds_its_own_root_and_is_counted_as_one() {
        let limits = RateLimits::default().root("/proc", 1.0).unwrap();
        let mut lanes = lanes(8, &limits, 0..40);
        let now = Instant::now();
        assert_eq!((lanes.limited_for(now), lanes.may_read(0, now), lanes.may_read(1, now)), (None, true, true));
        // Half a megabyte is half a second's.
        lanes.reads(1, 500_000, now);
        lanes.ended(1);
        assert!(lanes.may_read(0, now) && !lanes.may_read(1, now));
        let wait = lanes.limited_for(now).unwrap().as_secs_f64();
        assert!((0.49..=0.5).contains(&wait), "{wait}");
        assert!(admit(&mut lanes, 8).iter().all(|sample| sample.is_multiple_of(2)));
        assert_eq!(in_flight(&lanes), [7, 0], "what is kept for the other root stays free");
        lanes.count_time(now + Duration::from_millis(300), true);
        let later = now + Duration::from_millis(510);
        assert!(lanes.may_read(1, later) && lanes.limited_for(later).is_none());
        let limited: Vec<_> = lanes.lanes.iter().map(|lane| lane.counters.limited.as_millis()).collect();
        assert!(limited[0] == 0 && (299..=320).contains(&limited[1]), "{limited:?}");
    }
}
