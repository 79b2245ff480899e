//! How many operations in flight pay: more while that makes the storage faster, fewer where it does not.
//!
//! Storage has a knee: up to it more in flight is more throughput, beyond it only longer queues. Where the knee is depends
//! on the device, the reads and who else reads, so it is found by trying. By Little's law (J. D. C. Little, Operations
//! Research 9, 1961) an operation takes `depth / rate` on average while the engine is kept full, so that no clock is read for
//! one.

use std::time::{Duration, Instant};

use super::options::Depth;

/// Where the search starts.
const START: usize = 8;
/// A depth is judged by the rate of at least so many rounds of it, for at least so long: bursts and caches of a
/// device are shorter.
const WINDOW_ROUNDS: usize = 4;
const WINDOW: Duration = Duration::from_millis(50);
/// Once the knee is found, how many windows pass before it is looked for again: others come and go.
const HOLD_WINDOWS: u32 = 40;
/// Twice as many in flight must bring at least this much to be worth it, and a few more this much.
const GAIN_DOUBLED: f64 = 1.05;
const GAIN_STEP: f64 = 1.03;
/// What fewer in flight may cost at most.
const LOSS_STEP: f64 = 0.98;
/// An operation that takes so much longer than with fewer in flight has waited for the others.
const QUEUED: f64 = 1.1;

/// Finds the knee. Knows no clock of its own.
#[derive(Debug)]
pub(crate) struct DepthControl {
    max: usize,
    latency_max: Duration,
    depth: usize,
    phase: Phase,
    /// Of the last window at the depth that is held.
    held: Option<Window>,
    window: Option<Started>,
    next_probe: Probe,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Doubles; `held` is half of the depth in use.
    Growing,
    /// Keeps to what was found, for some more windows.
    Holding { windows: u32 },
    /// Tries another depth than `from`.
    Trying { from: usize },
    /// Back at the depth it came from, to compare `tried` with what that gives by now.
    Comparing { tried: Window },
}

#[derive(Clone, Copy, Debug)]
enum Probe {
    Fewer,
    More,
}

/// What a depth gave.
#[derive(Clone, Copy, Debug)]
struct Window {
    depth: usize,
    operations_per_second: f64,
}

#[derive(Clone, Copy, Debug)]
struct Started {
    at: Instant,
    operations: usize,
}

impl Window {
    fn latency_s(&self) -> f64 {
        self.depth as f64 / self.operations_per_second
    }
}

impl DepthControl {
    /// The search that `depth` asks for, if it does, among at most `max` in flight.
    pub(crate) fn of(depth: Depth, max: usize) -> Option<Self> {
        match depth {
            Depth::Fixed => None,
            Depth::Adaptive { latency_max } => Some(Self::new(max, latency_max)),
        }
    }

    /// A search for at most `max` in flight.
    pub(crate) fn new(max: usize, latency_max: Duration) -> Self {
        let depth = START.min(max);
        let phase = if depth < max { Phase::Growing } else { Phase::Holding { windows: HOLD_WINDOWS } };
        Self { max, latency_max, depth, phase, held: None, window: None, next_probe: Probe::Fewer }
    }

    /// How many operations in flight pay.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Takes note of operations that completed. `was_full` says whether as many as pay were in flight before: without, it is
    /// not the storage that sets the rate, and nothing is learned.
    pub(crate) fn completed(&mut self, now: Instant, operations: usize, was_full: bool) {
        let Some(started) = self.window.as_mut().filter(|_| was_full) else {
            self.window = was_full.then_some(Started { at: now, operations: 0 });
            return;
        };
        started.operations += operations;
        let elapsed = now.saturating_duration_since(started.at);
        if elapsed < WINDOW || started.operations < WINDOW_ROUNDS * self.depth {
            return;
        }
        let operations_per_second = started.operations as f64 / elapsed.as_secs_f64();
        self.judge(Window { depth: self.depth, operations_per_second });
        // What is in flight now was begun at the depth before: the next window begins when it is through.
        self.window = None;
    }

    fn judge(&mut self, window: Window) {
        match self.phase {
            Phase::Growing => {
                let pays = self.held.is_none_or(|held| self.pays(held, window, GAIN_DOUBLED));
                match (pays, self.held) {
                    (true, _) if self.depth < self.max => {
                        self.held = Some(window);
                        self.depth = (self.depth * 2).min(self.max);
                    }
                    (false, Some(held)) => self.hold(held.depth),
                    _ => self.hold(self.depth),
                }
            }
            Phase::Holding { windows: 0 } => {
                self.held = Some(window);
                let tried = match self.next_probe {
                    Probe::Fewer => (self.depth * 3 / 4).max(1),
                    Probe::More => (self.depth * 3).div_ceil(2).min(self.max),
                };
                if tried == self.depth {
                    self.turn();
                } else {
                    self.phase = Phase::Trying { from: self.depth };
                    self.depth = tried;
                }
            }
            Phase::Holding { windows } => self.phase = Phase::Holding { windows: windows - 1 },
            Phase::Trying { from } => {
                self.phase = Phase::Comparing { tried: window };
                self.depth = from;
            }
            Phase::Comparing { tried } => {
                let before = self.held.map_or(window.operations_per_second, |held| held.operations_per_second);
                let operations_per_second = (before + window.operations_per_second) / 2.0;
                let held = Window { operations_per_second, ..window };
                let is_better = if tried.depth > held.depth {
                    self.pays(held, tried, GAIN_STEP)
                } else {
                    tried.operations_per_second >= LOSS_STEP * operations_per_second
                };
                if is_better {
                    // The same direction again, soon.
                    self.hold(tried.depth);
                    self.phase = Phase::Holding { windows: 0 };
                } else {
                    self.turn();
                }
            }
        }
    }

    /// Whether more in flight than `fewer` pay.
    fn pays(&self, fewer: Window, more: Window, gain: f64) -> bool {
        let is_in_time = more.latency_s() <= self.latency_max.as_secs_f64();
        let is_faster = more.operations_per_second >= gain * fewer.operations_per_second;
        is_faster && (is_in_time || more.latency_s() <= QUEUED * fewer.latency_s())
    }

    fn hold(&mut self, depth: usize) {
        self.depth = depth;
        self.phase = Phase::Holding { windows: HOLD_WINDOWS };
    }

    /// Keeps to what is in use, and tries the other direction next.
    fn turn(&mut self) {
        self.next_probe = match self.next_probe {
            Probe::Fewer => Probe::More,
            Probe::More => Probe::Fewer,
        };
        self.hold(self.depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Storage that does up to `knee` operations at once, each in `service`.
    struct Storage {
        knee: usize,
        service: Duration,
    }

    /// What a search comes to on storage that is kept full for so many seconds: the depths that it used last.
    fn run(control: &mut DepthControl, storage: &Storage, now: &mut Instant, seconds: u64) -> Vec<usize> {
        let end = *now + Duration::from_secs(seconds);
        let mut used = Vec::new();
        while *now < end {
            let depth = control.depth();
            // One round: as many operations as are in flight, `knee` at a time.
            let rounds = depth.max(storage.knee) as f64 / storage.knee as f64;
            *now += storage.service.mul_f64(rounds);
            control.completed(*now, depth, true);
            used.push(depth);
        }
        used.split_off(used.len() * 9 / 10)
    }

    fn settles(max: usize, knee: usize, service: Duration, latency_max: Duration) -> usize {
        let mut control = DepthControl::new(max, latency_max);
        let mut used = run(&mut control, &Storage { knee, service }, &mut Instant::now(), 60);
        used.sort_unstable();
        used[used.len() / 2]
    }

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn grows_to_the_knee_and_not_far_beyond() {
        for knee in [1, 4, 8, 20, 64, 100] {
            let depth = settles(256, knee, MILLISECOND, Depth::LATENCY_MAX);
            assert!((knee..=knee * 2).contains(&depth), "{depth} for a knee at {knee}");
        }
        assert_eq!(settles(32, 1000, MILLISECOND, Depth::LATENCY_MAX), 32, "never more than the maximum");
        assert_eq!(settles(3, 1000, MILLISECOND, Depth::LATENCY_MAX), 3);
    }

    #[test]
    fn a_long_way_is_no_queue() {
        // Each operation takes longer than the budget, whatever is in flight: more in flight is what helps.
        let depth = settles(64, 1000, 4 * Depth::LATENCY_MAX, Depth::LATENCY_MAX);
        assert_eq!(depth, 64);
    }

    #[test]
    fn stays_within_the_latency_budget() {
        // A device that gains a little from every doubling, at the price of ever longer queues.
        let mut control = DepthControl::new(1024, Duration::from_millis(10));
        let mut now = Instant::now();
        for _ in 0..100_000 {
            let depth = control.depth();
            let rate = 1000.0 * (depth as f64).powf(0.3);
            now += Duration::from_secs_f64(depth as f64 / rate);
            control.completed(now, depth, true);
            assert!(depth as f64 / rate <= 0.030, "{depth} in flight take {} s", depth as f64 / rate);
        }
        let depth = control.depth() as f64;
        assert!(depth / (1000.0 * depth.powf(0.3)) <= 0.0101, "{depth}");
    }

    #[test]
    fn follows_when_the_storage_changes() {
        let mut control = DepthControl::new(256, Depth::LATENCY_MAX);
        let mut now = Instant::now();
        run(&mut control, &Storage { knee: 16, service: MILLISECOND }, &mut now, 20);
        assert!((16..=32).contains(&control.depth()), "{control:?}");
        run(&mut control, &Storage { knee: 100, service: MILLISECOND }, &mut now, 120);
        assert!(control.depth() >= 70, "{control:?}");
        run(&mut control, &Storage { knee: 4, service: MILLISECOND }, &mut now, 240);
        assert!(control.depth() <= 12, "{control:?}");
    }

    #[test]
    fn learns_nothing_while_others_set_the_rate() {
        let mut control = DepthControl::new(256, Depth::LATENCY_MAX);
        let mut now = Instant::now();
        for _ in 0..10_000 {
            now += MILLISECOND;
            control.completed(now, 3, false);
        }
        assert_eq!(control.depth(), START);
    }
}
