//! What the stages count while they run: relaxed atomics, touched once or twice a sample.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::roots::CountedRoot;
use super::{Fallback, Histogram};
use crate::batch::BadSample;
use crate::decode::Route;
use crate::engine::cufile::Receipts;
use crate::error::{Error, ErrorKind};

/// Bad samples that a report names.
const BAD_SAMPLES_NAMED: usize = 16;

/// How the threads of one stage spent their time.
#[derive(Default)]
pub(crate) struct StageClock {
    /// Doing the stage's own work.
    busy_ns: AtomicU64,
    /// Waiting for the stage before it: nothing to work on.
    starved_ns: AtomicU64,
    /// Waiting for the stage behind it: nowhere to put the result.
    blocked_ns: AtomicU64,
    /// Kept from working by a limit that was asked for.
    limited_ns: AtomicU64,
    /// Kept from working by other loaders of the same pool.
    shared_ns: AtomicU64,
}

impl StageClock {
    pub(crate) fn add_busy(&self, since: Instant) {
        add(&self.busy_ns, since);
    }

    pub(crate) fn add_starved(&self, since: Instant) {
        add(&self.starved_ns, since);
    }

    pub(crate) fn add_blocked(&self, since: Instant) {
        add(&self.blocked_ns, since);
    }

    pub(crate) fn add_limited(&self, since: Instant) {
        add(&self.limited_ns, since);
    }

    pub(crate) fn add_shared(&self, since: Instant) {
        add(&self.shared_ns, since);
    }

    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Relaxed))
    }

    pub(crate) fn starved(&self) -> Duration {
        Duration::from_nanos(self.starved_ns.load(Relaxed))
    }

    pub(crate) fn blocked(&self) -> Duration {
        Duration::from_nanos(self.blocked_ns.load(Relaxed))
    }

    pub(crate) fn limited(&self) -> Duration {
        Duration::from_nanos(self.limited_ns.load(Relaxed))
    }

    pub(crate) fn shared(&self) -> Duration {
        Duration::from_nanos(self.shared_ns.load(Relaxed))
    }
}

fn add(total: &AtomicU64, since: Instant) {
    total.fetch_add(since.elapsed().as_nanos() as u64, Relaxed);
}

/// Everything counted since the loader was built.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) images: AtomicU64,
    pub(crate) batches: AtomicU64,
    /// Bytes of the samples that have landed, and those of them that their decoding needed.
    pub(crate) bytes_data: AtomicU64,
    pub(crate) bytes_needed: AtomicU64,
    /// Bytes of theirs that were read: what was needed and short gaps between.
    pub(crate) bytes_asked: AtomicU64,
    /// Bytes that storage delivered: what was asked for, rounded outward to the device's alignment.
    pub(crate) bytes_read: AtomicU64,
    pub(crate) reads: AtomicU64,
    /// Reads that failed once and were tried again, and operations that had not completed by their deadline.
    pub(crate) retries: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    /// Operations in flight that paid, at the end of the last run.
    pub(crate) depth: AtomicU64,
    /// Samples decoded from the parts of theirs that an index named.
    pub(crate) indexed: AtomicU64,
    /// Samples by the decoder that took them, indexed by [`Route`].
    pub(crate) routes: [AtomicU64; Route::ALL.len()],
    pub(crate) engine: StageClock,
    pub(crate) decode: StageClock,
    /// Images that took of the memory that decode threads share.
    pub(crate) large_images: AtomicU64,
    /// Of the thread that waits for a device, and what was copied there.
    pub(crate) device: StageClock,
    pub(crate) bytes_uploaded: AtomicU64,
    pub(crate) consumer: StageClock,
    /// Wall time during which epochs were being iterated.
    pub(crate) running_ns: AtomicU64,
    /// From the start of the first epoch to its first batch; 0 until then.
    pub(crate) first_batch_ns: AtomicU64,
    pub(crate) batch_wait: Mutex<Histogram>,
    /// Samples delivered by the part of a mixture that they are from; none before the first.
    pub(crate) parts: Mutex<Vec<u64>>,
    pub(crate) fallbacks: Mutex<Vec<Fallback>>,
    /// The bad samples of batches that were taken.
    pub(crate) bad: Mutex<BadCounts>,
    /// What reads straight to the device took.
    pub(crate) receipts: Mutex<Receipts>,
    /// What was read of each root, in the order in which they were seen.
    pub(crate) roots: Mutex<Vec<CountedRoot>>,
}

/// Bad samples, and what was done about them.
#[derive(Clone, Default)]
pub(crate) struct BadCounts {
    /// By the kind of their error, in the order in which the kinds were seen.
    pub(crate) kinds: Vec<(ErrorKind, u64)>,
    pub(crate) replaced: u64,
    pub(crate) skipped: u64,
    /// The first.
    pub(crate) first: Vec<Arc<BadSample>>,
}

impl Counters {
    /// Counts bad samples, and logs the first.
    pub(crate) fn count_bad<'a>(&self, samples: impl Iterator<Item = &'a Arc<BadSample>>) {
        let mut counts = lock(&self.bad);
        for bad in samples {
            let kind = bad.error.kind();
            match counts.kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => counts.kinds.push((kind, 1)),
            }
            match bad.action() {
                "replaced" => counts.replaced += 1,
                "skipped" => counts.skipped += 1,
                _ => {}
            }
            if counts.first.len() < BAD_SAMPLES_NAMED {
                log::warn!("{}: {}", bad.action(), bad.error);
                counts.first.push(Arc::clone(bad));
            }
        }
    }

    pub(crate) fn count_route(&self, route: Route) {
        self.routes[route as usize].fetch_add(1, Relaxed);
    }

    /// Counts a sample that was decoded from the parts of it that an index named.
    pub(crate) fn count_indexed(&self, route: Route) {
        self.indexed.fetch_add(1, Relaxed);
        self.count_route(route);
    }

    /// Counts samples that a device decoded, by kernels and by nvJPEG, and how many of them by what an index said.
    pub(crate) fn count_device(&self, kernels: u64, nvjpeg: u64, indexed: u64) {
        self.indexed.fetch_add(indexed, Relaxed);
        self.routes[Route::Kernels as usize].fetch_add(kernels, Relaxed);
        self.routes[Route::NvJpeg as usize].fetch_add(nvjpeg, Relaxed);
    }

    /// Counts the bytes of a sample that was read a second time, and whole.
    pub(crate) fn count_reread(&self, len_bytes: u64) {
        for bytes in [&self.bytes_data, &self.bytes_needed, &self.bytes_asked, &self.bytes_read] {
            bytes.fetch_add(len_bytes, Relaxed);
        }
        self.reads.fetch_add(1, Relaxed);
    }

    /// Whether a fallback of this name was taken.
    pub(crate) fn has_fallback(&self, what: &str) -> bool {
        lock(&self.fallbacks).iter().any(|known| known.what == what)
    }

    /// Adds a fallback, or replaces what was known of the same one.
    pub(crate) fn set_fallback(&self, fallback: Fallback) {
        let mut fallbacks = lock(&self.fallbacks);
        match fallbacks.iter_mut().find(|known| known.what == fallback.what && known.cause == fallback.cause) {
            Some(known) => *known = fallback,
            None => fallbacks.push(fallback),
        }
    }

    /// Counts a sample for which `instead` was taken in place of `what`, and logs the first of each cause. A cause
    /// that names its sample is that of the first alone.
    pub(crate) fn count_fallback(&self, what: &'static str, instead: &'static str, why: impl FnOnce() -> Error) {
        let mut fallbacks = lock(&self.fallbacks);
        if let Some(known) = fallbacks.iter_mut().find(|known| known.what == what) {
            known.count += 1;
            return;
        }
        let why = why();
        let remedy = why.remedy().unwrap_or_default().to_owned();
        let fallback = Fallback { what, instead, cause: why.cause(), remedy, count: 1 };
        log::warn!("{fallback}");
        fallbacks.push(fallback);
    }
}

/// A lock whose data stay valid when a holder panics, as counters do.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
