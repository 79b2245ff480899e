//! A token bucket: how a rate is held without looking at the clock more than once a read.

use std::time::{Duration, Instant};

/// What may be made up for after a pause, in seconds at full rate: as long as a thread of a busy machine may sleep longer
/// than it wanted to.
const CREDIT_SECONDS: f64 = 0.1;

/// The least time worth sleeping for. With small reads at a high rate there would be a wake-up for each otherwise.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Holds reads to a rate.
///
/// A read may start whenever nothing is owed, however long it is, and owes its bytes from then on; what is owed is paid off
/// at the rate. So the bytes of any span of time from the first read on are at most those of the rate, and one read. After a
/// pause up to a tenth of a second is made up for.
///
/// The clock is the caller's, so that a simulated one will do.
#[derive(Clone, Debug)]
pub struct Bucket {
    bytes_per_second: f64,
    /// What may be read at once; owed where negative.
    balance_bytes: f64,
    at: Instant,
}

impl Bucket {
    /// One that begins now, and owes nothing. The rate is positive and finite, as that of
    /// [`RateLimits`](super::RateLimits) is.
    pub fn new(bytes_per_second: f64, now: Instant) -> Self {
        debug_assert!(bytes_per_second > 0.0 && bytes_per_second.is_finite());
        Self { bytes_per_second, balance_bytes: 0.0, at: now }
    }

    /// The rate.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes_per_second
    }

    /// Counts a read that starts.
    pub fn take(&mut self, len_bytes: u64, now: Instant) {
        self.settle(now);
        self.balance_bytes -= len_bytes as f64;
    }

    /// How long reads must wait; none if one may start.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.settle(now);
        if self.balance_bytes >= 0.0 {
            return None;
        }
        let seconds = -self.balance_bytes / self.bytes_per_second;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).max(WAIT_MIN))
    }

    /// Whether bytes were owed when the clock was last looked at.
    pub fn owes(&self) -> bool {
        self.balance_bytes < 0.0
    }

    fn settle(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let credit_bytes = self.bytes_per_second * CREDIT_SECONDS;
        self.balance_bytes = (self.balance_bytes + seconds * self.bytes_per_second).min(credit_bytes);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes a second over `seconds` of a clock that moves by what the bucket asks for and `late` more.
    fn rate(bytes_per_second: f64, read_bytes: u64, seconds: f64, late: Duration) -> f64 {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = Bucket::new(bytes_per_second, now);
        let (mut bytes, mut waits) = (0, 0);
        while now.duration_since(start).as_secs_f64() < seconds {
            match bucket.wait(now) {
                None => {
                    bucket.take(read_bytes, now);
                    bytes += read_bytes;
                }
                Some(wait) => {
                    waits += 1;
                    now += wait + late;
                }
            }
        }
        assert!(waits as f64 <= seconds * 1001.0, "{waits} waits in {seconds} s");
        bytes as f64 / now.duration_since(start).as_secs_f64()
    }

    #[test]
    fn a_rate_is_held_within_five_percent() {
        for bytes_per_second in [5e5, 5e7, 2e9, 5e10] {
            for read_bytes in [1, 4096, 110_000, 1 << 20] {
                // A read a second or so says nothing of a rate, and millions take too long here.
                let reads_per_second = bytes_per_second / read_bytes as f64;
                if !(100.0..1e6).contains(&reads_per_second) {
                    continue;
                }
                for late_ms in [0, 3, 50] {
                    let got = rate(bytes_per_second, read_bytes, 2.0, Duration::from_millis(late_ms));
                    let ratio = got / bytes_per_second;
                    assert!((0.95..=1.05).contains(&ratio), "{read_bytes} at {bytes_per_second}/s: {ratio}");
                }
            }
        }
    }

    #[test]
    fn a_pause_is_made_up_for_by_a_tenth_of_a_second_at_most() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1e6, start);
        let now = start + Duration::from_secs(100);
        let mut bytes = 0;
        while bucket.wait(now).is_none() {
            bucket.take(1000, now);
            bytes += 1000;
        }
        assert!((100_000..=101_000).contains(&bytes), "{bytes}");
        // A long read is owed, and paid off at the rate.
        bucket.take(5_000_000, now);
        let wait = bucket.wait(now).unwrap().as_secs_f64();
        assert!((5.0..5.01).contains(&wait), "{wait}");
        // A clock that goes back changes nothing.
        assert!(bucket.wait(start).unwrap().as_secs_f64() >= wait);
    }
}
