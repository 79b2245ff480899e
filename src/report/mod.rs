//! What happened, what it cost, and what limited it.
//!
//! Every stage counts the time it worked, the time it starved for want of input and the time it was
//! blocked for want of room. A stage's capacity is the rate it would have reached if nothing had ever
//! held it up; the stage with the least capacity is the bottleneck, and the next one says how much
//! would be gained by removing it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

mod counters;
mod fallback;
mod histogram;
mod roots;

pub(crate) use counters::{Counters, StageClock, lock};
pub use fallback::Fallback;
pub use histogram::Histogram;
pub use roots::RootReport;
pub(crate) use roots::{CountedRoot, RootCounters, merge as merge_root};

use crate::batch::BadSample;
use crate::decode::Route;
use crate::device::Device;
use crate::engine::cufile::Receipts;
use crate::error::ErrorKind;
use crate::memory::MemoryPlan;

/// A stage of the path that can be the bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Storage and the engine that reads it.
    Storage,
    /// A limit that was asked for on what is read of storage in a second, where there is one.
    Limit,
    /// The share of a [pool](crate::pool), where other loaders of it take the rest.
    Share,
    /// The decode threads, which also augment.
    Decode,
    /// The CUDA device, where there is one.
    Device,
    /// The code that takes the batches.
    Consumer,
}

impl Stage {
    /// The name used in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Limit => "rate limit",
            Self::Share => "share of the pool",
            Self::Decode => "decode",
            Self::Device => "device",
            Self::Consumer => "consumer",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Storage => "faster or closer storage, more reads in flight, or tar shards instead of small files",
            Self::Limit => "a higher --limit-mbps, or none",
            Self::Share => "another loader of this pool has the rest: fewer at once, a larger weight, or more for all",
            Self::Decode => "more decode threads or cores",
            Self::Device => "a faster device, more slots, or larger batches to fill it",
            Self::Consumer => "nothing here: the loader waits for the training step",
        }
    }
}

/// How the threads of a stage spent their time, summed over the threads.
#[derive(Clone, Copy, Debug)]
pub struct StageReport {
    /// Which stage.
    pub stage: Stage,
    /// Threads in it.
    pub threads: usize,
    /// Time spent on its own work. For storage: submitting and collecting reads. For a device: from when its host
    /// side begins to wait for a batch until that batch needs the host no more.
    pub busy: Duration,
    /// Time without input. For storage: waiting for the device with reads in flight.
    pub starved: Duration,
    /// Time without room for the result.
    pub blocked: Duration,
    /// For storage: time in which a [limit](crate::LoaderBuilder::limit_mbps) kept reads from starting, which is no fault of
    /// the storage and not in `starved`.
    pub limited: Duration,
    /// Time in which other loaders of the same [pool](crate::pool) had its share: of decode threads waiting for their turn, and
    /// of storage in which reads could have started.
    pub shared: Duration,
    /// Images a second if nothing but this stage had held the run up; infinite for an idle stage.
    pub capacity_images_per_second: f64,
}

/// What came of one of several data sets that are [mixed](crate::Loader::mixture).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartReport {
    /// Its path or pattern, or `part N`.
    pub name: String,
    /// Images delivered.
    pub images: u64,
}

/// What a loader did since it was built.
#[derive(Clone, Debug)]
pub struct Report {
    /// Images delivered.
    pub images: u64,
    /// Batches delivered.
    pub batches: u64,
    /// Images delivered, by the data sets of a mixture; empty where there is none.
    pub parts: Vec<PartReport>,
    /// Wall time spent inside epochs.
    pub elapsed: Duration,
    /// Bytes of the samples that were read, in whole or in part.
    pub bytes_data: u64,
    /// Those of them that decoding needed.
    pub bytes_needed: u64,
    /// Those of them that were not read: what an index saved.
    pub bytes_skipped: u64,
    /// Bytes that storage delivered: what was needed, short gaps between, and what rounding to the device's alignment
    /// adds.
    pub bytes_read: u64,
    /// Reads that storage answered, those of samples that were read a second time included.
    pub reads: u64,
    /// Reads that failed once and were tried again.
    pub retries: u64,
    /// Opens and reads that had not completed in the time that they were allowed.
    pub timeouts: u64,
    /// Operations in flight that paid, as the engine had found out by the end of the last run; 0 before.
    pub depth: u64,
    /// Operations in flight that were allowed.
    pub depth_max: usize,
    /// From the start of the first epoch to its first batch.
    pub first_batch: Option<Duration>,
    /// How long the consumer waited for a batch, in microseconds: median.
    pub batch_wait_p50_us: u64,
    /// The same, 99th percentile.
    pub batch_wait_p99_us: u64,
    /// Images by decoder.
    pub routes: Vec<(Route, u64)>,
    /// Images of which an index told what to read.
    pub indexed: u64,
    /// Images that were read whole because what an index says of them was wrong.
    pub index_fallbacks: u64,
    /// Samples that could not be delivered, by the kind of their error: each place of a batch that was taken counts.
    pub bad: Vec<(ErrorKind, u64)>,
    /// Those of them that others stand in for.
    pub replaced: u64,
    /// Those of them that batches went without.
    pub skipped: u64,
    /// The first 16 of them.
    pub bad_samples: Vec<Arc<BadSample>>,
    /// Storage, decode, where there are such the limit, the share of a pool and the device, consumer.
    pub stages: Vec<StageReport>,
    /// Where the tensors were made.
    pub device: Device,
    /// Bytes that were copied to the device: encoded ones, what describes them, and tensors that the host made.
    pub bytes_uploaded: u64,
    /// The engine in use, such as `uring`.
    pub engine: &'static str,
    /// What reads straight to the device took.
    pub receipts: Receipts,
    /// What was read of each root: each file system that samples lie on.
    pub roots: Vec<RootReport>,
    /// Where its threads run, if they are bound to a node.
    pub pinned: Option<Pinned>,
    /// Host memory for bytes in flight and finished batches, fixed when the loader was built.
    pub memory_bound_bytes: u64,
    /// All of it, part by part.
    pub memory: MemoryPlan,
    /// Images that needed more memory than a decode thread has, and waited until as much was free.
    pub large_images: u64,
    /// The most memory that such images had together.
    pub decode_high_water_bytes: u64,
    /// Device memory, fixed likewise.
    pub device_bound_bytes: u64,
    /// Everything that was done otherwise than asked for or best.
    pub fallbacks: Vec<Fallback>,
    /// What the source left out while listing.
    pub notes: Vec<String>,
}

/// The processors that a loader's threads are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The node of the machine (NUMA).
    pub node: u32,
    /// Those of its processors that the process may use.
    pub processors: usize,
}

/// What a loader knows besides its counters.
pub(crate) struct Setting {
    pub(crate) decode_threads: usize,
    pub(crate) depth_max: usize,
    pub(crate) engine: &'static str,
    pub(crate) device: Device,
    pub(crate) pinned: Option<Pinned>,
    pub(crate) memory: MemoryPlan,
    pub(crate) decode_high_water_bytes: u64,
    /// The names of the parts of a mixture.
    pub(crate) parts: Vec<String>,
    /// Of the source.
    pub(crate) fallbacks: Vec<Fallback>,
    pub(crate) notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(counters: &Counters, setting: Setting) -> Self {
        let images = counters.images.load(Relaxed);
        let elapsed = duration(&counters.running_ns);
        let (p50, p99) = {
            let wait = lock(&counters.batch_wait);
            (wait.quantile_us(0.5), wait.quantile_us(0.99))
        };
        let first_batch = duration(&counters.first_batch_ns);
        let stage = |stage, threads: usize, clock: &StageClock, held: Duration| {
            let own_seconds = elapsed.saturating_sub(held / threads as u32).as_secs_f64();
            StageReport {
                stage,
                threads,
                busy: clock.busy(),
                starved: clock.starved(),
                blocked: clock.blocked(),
                limited: clock.limited(),
                shared: clock.shared(),
                capacity_images_per_second: images as f64 / own_seconds,
            }
        };
        let bytes_data = counters.bytes_data.load(Relaxed);
        let taken = lock(&counters.fallbacks).clone();
        let bad = lock(&counters.bad).clone();
        let (engine, decode) = (&counters.engine, &counters.decode);
        let engine_held = engine.blocked() + engine.limited();
        let decode_held = decode.starved() + decode.blocked();
        let mut stages = vec![
            stage(Stage::Storage, 1, engine, engine_held + engine.shared()),
            stage(Stage::Decode, setting.decode_threads, decode, decode_held + decode.shared()),
        ];
        // With their waits for the pool these stages do what the share allows.
        let of_storage = stage(Stage::Share, 1, engine, engine_held);
        let of_decode = stage(Stage::Share, setting.decode_threads, decode, decode_held);
        let shares =
            [of_storage, of_decode].into_iter().filter(|share| share.shared > (share.busy + share.shared) / 20);
        stages.extend(shares.min_by(|a, b| a.capacity_images_per_second.total_cmp(&b.capacity_images_per_second)).map(
            |share| StageReport { busy: Duration::ZERO, starved: Duration::ZERO, blocked: Duration::ZERO, ..share },
        ));
        let roots: Vec<_> = lock(&counters.roots).iter().map(|root| RootReport::new(root, elapsed)).collect();
        let limits = roots.iter().filter_map(|root| root.limit_images_per_second(images));
        if let Some(capacity_images_per_second) = limits.min_by(f64::total_cmp) {
            let clock = StageClock::default();
            let limit = stage(Stage::Limit, 1, &clock, Duration::ZERO);
            stages.push(StageReport { limited: counters.engine.limited(), capacity_images_per_second, ..limit });
        }
        if setting.device != Device::Host {
            stages.push(stage(Stage::Device, 1, &counters.device, counters.device.starved()));
        }
        stages.push(StageReport {
            // Whatever it did between two calls was its own work.
            busy: elapsed.saturating_sub(counters.consumer.starved()),
            ..stage(Stage::Consumer, 1, &counters.consumer, counters.consumer.starved())
        });
        let counts = lock(&counters.parts).clone().into_iter().chain(std::iter::repeat(0));
        let parts = setting.parts.into_iter().zip(counts).map(|(name, images)| PartReport { name, images });
        Self {
            images,
            parts: parts.collect(),
            batches: counters.batches.load(Relaxed),
            elapsed,
            bytes_data,
            bytes_needed: counters.bytes_needed.load(Relaxed),
            bytes_skipped: bytes_data - counters.bytes_asked.load(Relaxed).min(bytes_data),
            bytes_read: counters.bytes_read.load(Relaxed),
            reads: counters.reads.load(Relaxed),
            retries: counters.retries.load(Relaxed),
            timeouts: counters.timeouts.load(Relaxed),
            depth: counters.depth.load(Relaxed),
            depth_max: setting.depth_max,
            first_batch: (!first_batch.is_zero()).then_some(first_batch),
            batch_wait_p50_us: p50,
            batch_wait_p99_us: p99,
            routes: Route::ALL.iter().map(|&route| (route, counters.routes[route as usize].load(Relaxed))).collect(),
            bad: bad.kinds,
            replaced: bad.replaced,
            skipped: bad.skipped,
            bad_samples: bad.first,
            stages,
            device: setting.device,
            pinned: setting.pinned,
            bytes_uploaded: counters.bytes_uploaded.load(Relaxed),
            engine: setting.engine,
            receipts: *lock(&counters.receipts),
            roots,
            memory_bound_bytes: setting.memory.fixed_bytes() as u64,
            memory: setting.memory,
            large_images: counters.large_images.load(Relaxed),
            decode_high_water_bytes: setting.decode_high_water_bytes,
            device_bound_bytes: setting.memory.device_bytes as u64,
            indexed: counters.indexed.load(Relaxed),
            index_fallbacks: taken.iter().find(|taken| taken.what == Fallback::INDEX).map_or(0, |taken| taken.count),
            fallbacks: [setting.fallbacks, taken].concat(),
            notes: setting.notes,
        }
    }

    /// Images delivered per second of wall time inside epochs.
    pub fn images_per_second(&self) -> f64 {
        self.images as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The stage with the least capacity.
    pub fn bottleneck(&self) -> Stage {
        self.by_capacity()[0].stage
    }

    /// Bytes of the root that gave most, by those of the one that gave least; none where the data lies on one root.
    pub fn skew(&self) -> Option<f64> {
        roots::skew(&self.roots)
    }

    /// The root that the others wait for, if there is one: it has most of the operations in flight.
    pub fn held_up_by(&self) -> Option<&RootReport> {
        roots::held_up_by(&self.roots)
    }

    /// At least two.
    fn by_capacity(&self) -> Vec<StageReport> {
        let mut stages = self.stages.clone();
        stages.sort_by(|a, b| a.capacity_images_per_second.total_cmp(&b.capacity_images_per_second));
        stages
    }

    /// One sentence: the bottleneck, what removing it would bring, and how.
    pub fn verdict(&self) -> String {
        if self.images == 0 {
            return "nothing was delivered".into();
        }
        let [least, next, ..] = self.by_capacity()[..] else { return "there are no stages".into() };
        let verdict = format!(
            "{} is the bottleneck; without it {} would limit at {} images/s; {}",
            least.stage.name(),
            next.stage.name(),
            rate(next.capacity_images_per_second),
            least.stage.remedy(),
        );
        match self.held_up_by() {
            Some(slow) if least.stage == Stage::Storage => {
                format!("{verdict}; {}", roots::sentence(slow, &self.roots))
            }
            _ => verdict,
        }
    }
}

fn duration(nanoseconds: &AtomicU64) -> Duration {
    Duration::from_nanos(nanoseconds.load(Relaxed))
}

fn rate(images_per_second: f64) -> String {
    match images_per_second {
        rate if rate < 1e6 => format!("{rate:.0}"),
        _ => "over a million".into(),
    }
}

/// Bytes as people read them.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(f, "images        {} in {} batches, {seconds:.2} s", self.images, self.batches)?;
        for PartReport { name, images } in &self.parts {
            let share = 100.0 * *images as f64 / self.images.max(1) as f64;
            writeln!(f, "part          {images}, {share:.1} %, of {name}")?;
        }
        writeln!(f, "speed         {:.0} images/s", self.images_per_second())?;
        let speed = mebibytes(self.bytes_read) / seconds.max(f64::MIN_POSITIVE);
        writeln!(
            f,
            "read          {:.1} MiB in {} reads ({:.1} MiB needed), {speed:.0} MiB/s through {}",
            mebibytes(self.bytes_read),
            self.reads,
            mebibytes(self.bytes_needed),
            self.engine,
        )?;
        if self.retries > 0 || self.timeouts > 0 {
            let (retries, timeouts) = (self.retries, self.timeouts);
            writeln!(f, "retried       {retries} reads that had failed; {timeouts} opens or reads were given up")?;
        }
        if self.depth > 0 {
            writeln!(f, "in flight     {} operations that paid, of at most {}", self.depth, self.depth_max)?;
        }
        if self.indexed > 0 || self.bytes_skipped > 0 {
            let share = 100.0 * self.bytes_skipped as f64 / self.bytes_data.max(1) as f64;
            let skipped = mebibytes(self.bytes_skipped);
            write!(f, "skipped       {skipped:.1} MiB, {share:.0} % of the data, by ")?;
            match self.indexed {
                0 => writeln!(f, "the shape of raw pixels")?,
                indexed => writeln!(f, "an index of {indexed} images")?,
            }
        }
        if let Some(first) = self.first_batch {
            writeln!(f, "first batch   after {:.0} ms", first.as_secs_f64() * 1e3)?;
        }
        let milliseconds = |us: u64| us as f64 / 1e3;
        writeln!(
            f,
            "batch wait    p50 {:.1} ms, p99 {:.1} ms",
            milliseconds(self.batch_wait_p50_us),
            milliseconds(self.batch_wait_p99_us),
        )?;
        if self.device != Device::Host {
            let (bytes, per_image) = (mebibytes(self.bytes_uploaded), self.bytes_uploaded / self.images.max(1));
            writeln!(f, "device        {}, {bytes:.1} MiB uploaded, {per_image} bytes an image", self.device)?;
        }
        if !self.receipts.is_empty() {
            writeln!(f, "to the device {}", self.receipts)?;
        }
        for root in &self.roots {
            writeln!(f, "root          {root}")?;
        }
        if let Some(skew) = self.skew() {
            writeln!(f, "skew          {skew:.2} between the roots that gave most and least")?;
        }
        for (route, count) in self.routes.iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "decoded       {count} by {}", route.name())?;
        }
        for stage in &self.stages {
            if stage.stage == Stage::Limit {
                let (held, rate) = (stage.limited.as_secs_f64(), rate(stage.capacity_images_per_second));
                writeln!(f, "{:<13} held reads back for {held:.2} s; allows {rate} images/s", stage.stage.name())?;
                continue;
            }
            if stage.stage == Stage::Share {
                let (held, rate) = (stage.shared.as_secs_f64(), rate(stage.capacity_images_per_second));
                writeln!(f, "pool          others had its share for {held:.2} s; allows {rate} images/s")?;
                continue;
            }
            writeln!(
                f,
                "{:<13} busy {:.2} s, starved {:.2} s, blocked {:.2} s on {} thread{}; could do {} images/s",
                stage.stage.name(),
                stage.busy.as_secs_f64(),
                stage.starved.as_secs_f64(),
                stage.blocked.as_secs_f64(),
                stage.threads,
                if stage.threads == 1 { "" } else { "s" },
                rate(stage.capacity_images_per_second),
            )?;
        }
        if let Some(Pinned { node, processors }) = self.pinned {
            writeln!(f, "threads       pinned to the {processors} processors of node {node}")?;
        }
        write!(f, "memory        {:.0} MiB fixed", mebibytes(self.memory_bound_bytes))?;
        match self.device {
            Device::Host => writeln!(f)?,
            device => writeln!(f, ", {:.0} MiB on {device}", mebibytes(self.device_bound_bytes))?,
        }
        if !self.bad.is_empty() {
            let kinds: Vec<_> = self.bad.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
            let (all, kinds) = (self.bad.iter().map(|(_, count)| count).sum::<u64>(), kinds.join(", "));
            writeln!(f, "bad samples   {all} ({kinds}): {} replaced, {} skipped", self.replaced, self.skipped)?;
        }
        for bad in &self.bad_samples {
            writeln!(f, "{:<13} {}", bad.action(), bad.error)?;
        }
        writeln!(f, "at most       {}", self.memory)?;
        if self.large_images > 0 {
            let high_water = mebibytes(self.decode_high_water_bytes);
            writeln!(f, "large images  {}, which had up to {high_water:.0} MiB together", self.large_images)?;
        }
        for fallback in &self.fallbacks {
            let times = if fallback.count == 1 { "time" } else { "times" };
            writeln!(f, "fallback      {fallback}, {} {times}", fallback.count)?;
        }
        for note in &self.notes {
            writeln!(f, "note          {note}")?;
        }
        write!(f, "verdict       {}", self.verdict())
    }
}
