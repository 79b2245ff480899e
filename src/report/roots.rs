//! What was read of each root, and whether one of them holds the others up.

use std::fmt;
use std::time::Duration;

use super::Histogram;

/// Everything counted of one root since the loader was built.
#[derive(Clone, Default)]
pub(crate) struct RootCounters {
    pub(crate) reads: u64,
    /// Operations that ended with an error.
    pub(crate) failed: u64,
    /// Bytes asked of the file system, rounded outward to its alignment.
    pub(crate) bytes: u64,
    /// From the moment that a read was handed to the engine to the one at which it was known to have ended.
    pub(crate) latency: Histogram,
    /// Time with something in flight, and the same counted for each operation.
    pub(crate) busy: Duration,
    pub(crate) operation_time: Duration,
    pub(crate) in_flight_max: usize,
    /// Time in which its limit alone kept reads from starting.
    pub(crate) limited: Duration,
}

impl RootCounters {
    fn merge(&mut self, other: &Self) {
        self.reads += other.reads;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.latency.merge(&other.latency);
        self.busy += other.busy;
        self.operation_time += other.operation_time;
        self.in_flight_max = self.in_flight_max.max(other.in_flight_max);
        self.limited += other.limited;
    }
}

/// A root with its counters.
#[derive(Clone)]
pub(crate) struct CountedRoot {
    pub(crate) device: u64,
    pub(crate) name: String,
    pub(crate) limit_bytes_per_second: Option<f64>,
    pub(crate) counters: RootCounters,
}

/// Adds what a run counted of a root.
pub(crate) fn merge(roots: &mut Vec<CountedRoot>, counted: CountedRoot) {
    match roots.iter_mut().find(|known| known.device == counted.device) {
        Some(known) => known.counters.merge(&counted.counters),
        None => roots.push(counted),
    }
}

/// What was read of one root: a file system that samples lie on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RootReport {
    /// The directory that it is mounted at.
    pub name: String,
    /// Its device number, as major and minor.
    pub device: (u32, u32),
    /// Reads that ended with all their bytes.
    pub reads: u64,
    /// Opens and reads that ended with an error, late ones included; some may have been tried another way with success.
    pub failed: u64,
    /// Bytes that those asked of the file system, rounded outward to its alignment.
    pub bytes: u64,
    /// How long a read took, in microseconds: median.
    pub latency_p50_us: u64,
    /// The same, 99th percentile.
    pub latency_p99_us: u64,
    /// Time during which anything of it was in flight, opens included.
    pub busy: Duration,
    /// Operations in flight, on average over the time inside epochs.
    pub depth_mean: f64,
    /// The most operations in flight at once.
    pub depth_max: usize,
    /// Its limit in megabytes (10^6 bytes) a second, if it has one.
    pub limit_mbps: Option<f64>,
    /// Time in which reads could have started but for the limit.
    pub limited: Duration,
    /// Megabytes (10^6 bytes) that were asked of it a second, over the time inside epochs.
    pub mbps: f64,
}

impl RootReport {
    pub(super) fn new(root: &CountedRoot, elapsed: Duration) -> Self {
        let CountedRoot { device, name, limit_bytes_per_second, counters } = root;
        let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            name: name.clone(),
            device: (libc::major(*device), libc::minor(*device)),
            reads: counters.reads,
            failed: counters.failed,
            bytes: counters.bytes,
            latency_p50_us: counters.latency.quantile_us(0.5),
            latency_p99_us: counters.latency.quantile_us(0.99),
            busy: counters.busy,
            depth_mean: counters.operation_time.as_secs_f64() / seconds,
            depth_max: counters.in_flight_max,
            limit_mbps: limit_bytes_per_second.map(|bytes| bytes / 1e6),
            limited: counters.limited,
            mbps: counters.bytes as f64 / 1e6 / seconds,
        }
    }

    /// Images a second if nothing but the limit held the run up.
    pub(super) fn limit_images_per_second(&self, images: u64) -> Option<f64> {
        Some(self.limit_mbps? * 1e6 * images as f64 / self.bytes.max(1) as f64)
    }
}

impl fmt::Display for RootReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |us: u64| us as f64 / 1e3;
        write!(
            f,
            "{} ({}:{}): {:.1} MB in {} reads, {:.1} MB/s, p50 {:.2} ms, p99 {:.2} ms, {:.1} in flight, at most {}",
            self.name,
            self.device.0,
            self.device.1,
            self.bytes as f64 / 1e6,
            self.reads,
            self.mbps,
            milliseconds(self.latency_p50_us),
            milliseconds(self.latency_p99_us),
            self.depth_mean,
            self.depth_max,
        )?;
        if self.failed > 0 {
            write!(f, ", {} failed", self.failed)?;
        }
        match self.limit_mbps {
            Some(limit) => write!(f, "; limited to {limit} MB/s, which held it {:.2} s", self.limited.as_secs_f64()),
            None => Ok(()),
        }
    }
}

/// Bytes of the root that gave most, by those of the root that gave least; none with one root. Roots that gave nothing are
/// not slow but broken.
pub(super) fn skew(roots: &[RootReport]) -> Option<f64> {
    let bytes = roots.iter().map(|root| root.bytes).filter(|bytes| *bytes > 0);
    let (most, least) = (bytes.clone().max()?, bytes.clone().min()?);
    (bytes.count() > 1).then(|| most as f64 / least as f64)
}

/// The root that the others wait for: more than half-way between its even share of the operations in flight and all of
/// them. One that its limit holds is not slow.
pub(super) fn held_up_by(roots: &[RootReport]) -> Option<&RootReport> {
    let all = roots.iter().map(|root| root.depth_mean).sum::<f64>();
    let most = roots.iter().max_by(|a, b| a.depth_mean.total_cmp(&b.depth_mean))?;
    let is_held_up = roots.len() > 1 && all > 0.0 && most.depth_mean / all > share_of_much(roots.len());
    (is_held_up && most.limited < most.busy / 2).then_some(most)
}

/// Half-way between an even share and all.
fn share_of_much(count: usize) -> f64 {
    (1.0 / count as f64 + 1.0) / 2.0
}

/// What to say of the root that holds the others up.
pub(super) fn sentence(slow: &RootReport, roots: &[RootReport]) -> String {
    let share = |of: f64, all: f64| 100.0 * of / all.max(f64::MIN_POSITIVE);
    let in_flight = share(slow.depth_mean, roots.iter().map(|root| root.depth_mean).sum());
    let bytes = share(slow.bytes as f64, roots.iter().map(|root| root.bytes as f64).sum());
    let remedy = if slow.reads == 0 {
        "nothing of it has arrived: look at it with `forebay doctor`"
    } else if bytes > 100.0 * share_of_much(roots.len()) {
        "it holds more of the data than the others: spread the data evenly"
    } else {
        "it is slower than the others: keep less of the data there, or look at it with `forebay doctor`"
    };
    format!(
        "{} holds the other roots up: {in_flight:.0} % of the operations in flight for {bytes:.0} % of the bytes; {remedy}",
        slow.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str, bytes: u64, depth_mean: f64) -> RootReport {
        let busy_ms = if depth_mean > 0.0 { 1000 } else { 0 };
        let counters = RootCounters {
            reads: bytes / 1000,
            bytes,
            busy: Duration::from_millis(busy_ms),
            operation_time: Duration::from_secs_f64(depth_mean),
            ..RootCounters::default()
        };
        let counted = CountedRoot { device: 1, name: name.into(), limit_bytes_per_second: Some(1e6), counters };
        RootReport::new(&counted, Duration::from_secs(1))
    }

    #[test]
    fn the_root_that_the_others_wait_for_is_named() {
        let even = [root("/a", 1000, 9.0), root("/b", 1000, 8.0)];
        assert_eq!((held_up_by(&even), skew(&even)), (None, Some(1.0)));
        let slow = [root("/a", 1000, 1.0), root("/b", 1000, 30.0)];
        let found = held_up_by(&slow).expect("one is slow");
        let said = sentence(found, &slow);
        assert!(said.contains("/b holds") && said.contains("97 %") && said.contains("slower"), "{said}");
        let full = [root("/a", 100, 1.0), root("/b", 9000, 30.0), root("/c", 100, 1.0)];
        let said = sentence(held_up_by(&full).expect("one is full"), &full);
        assert!(said.contains("/b holds") && said.contains("evenly"), "{said}");
        assert_eq!(skew(&full), Some(90.0));
        // Of three, two thirds are the least that says anything.
        let some = [root("/a", 1, 6.0), root("/b", 1, 2.0), root("/c", 1, 2.0)];
        assert_eq!(held_up_by(&some), None);
        assert_eq!((held_up_by(&slow[..1]), skew(&slow[..1]), held_up_by(&[]), skew(&[])), (None, None, None, None));
    }

    #[test]
    fn a_root_that_gave_nothing_is_named_and_no_part_of_the_skew() {
        let mut roots = [root("/a", 1000, 1.0), root("/b", 2000, 1.0), root("/hung", 0, 40.0)];
        roots[2].failed = 7;
        assert_eq!(skew(&roots), Some(2.0));
        let said = sentence(held_up_by(&roots).expect("it holds the others up"), &roots);
        assert!(said.contains("/hung holds") && said.contains("nothing of it has arrived"), "{said}");
        assert!(
            roots[2].to_string().contains("0 reads") && roots[2].to_string().contains(", 7 failed"),
            "{}",
            roots[2]
        );
        assert!(!roots[0].to_string().contains("failed"), "{}", roots[0]);
        assert_eq!((skew(&roots[1..]), skew(&roots[2..])), (None, None));
    }

    #[test]
    fn a_root_that_its_limit_holds_is_not_called_slow() {
        let mut roots = [root("/a", 1000, 1.0), root("/b", 1000, 30.0)];
        roots[1].limited = Duration::from_millis(900);
        assert_eq!(held_up_by(&roots), None);
        assert_eq!(roots[1].limit_images_per_second(10), Some(10_000.0));
    }

    #[test]
    fn counts_of_several_runs_are_one_root() {
        let counted = |device, reads| {
            let mut latency = Histogram::default();
            latency.record_us(reads * 100);
            let counters = RootCounters { reads, latency, in_flight_max: reads as usize, ..RootCounters::default() };
            CountedRoot { device, name: "/".into(), limit_bytes_per_second: None, counters }
        };
        let mut roots = Vec::new();
        for (device, reads) in [(1, 3), (2, 5), (1, 4)] {
            merge(&mut roots, counted(device, reads));
        }
        let reports: Vec<_> = roots.iter().map(|root| RootReport::new(root, Duration::from_secs(1))).collect();
        assert_eq!((reports.len(), reports[0].reads, reports[0].depth_max), (2, 7, 4));
        assert!((400..=425).contains(&reports[0].latency_p99_us), "{}", reports[0].latency_p99_us);
    }
}
