//! What a loader can be told.

mod build;
mod fit;
mod memory;
mod samples;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use samples::{BatchSize, Draws, MapSource};
pub(super) use samples::{Choice, Found, Origin, Part, Taken};

use super::{ErrorBudget, OnError, Pin, State};
use crate::decode::DecoderKind;
use crate::device::DeviceChoice;
use crate::engine::{CuFileApi, Depth, Direct, EngineKind, EngineOptions, Polling, RequirePath, SimOptions};
use crate::error::Result;
use crate::limits::Limits;
use crate::order::{LastBatch, Shard, Shuffle, Weights};
use crate::plan::Augment;
use crate::pool::Pool;
use crate::raw::Shape;
use crate::source::{IndexMode, IndexOptions, Source};
use crate::storage::RateLimits;

/// Bytes for images of their own size in one slot, unless told otherwise.
const RAGGED_SLOT_BYTES: usize = 256 << 20;

/// Scratch memory of a slot on a device, unless told otherwise: a photo of 24 megapixels, or several hundred crops of
/// ImageNet's.
const SCRATCH_BYTES: usize = 128 << 20;

/// Describes a [`Loader`](crate::Loader).
pub struct LoaderBuilder {
    origin: Origin,
    map_source: Option<MapSource>,
    index: IndexOptions,
    /// Groups of views; none for the default.
    views: Option<Vec<(Augment, usize)>>,
    batch_size: BatchSize,
    shard: Shard,
    resume: Option<State>,
    last_batch: LastBatch,
    shuffle: Shuffle,
    /// In the place of `shuffle`.
    draws: Option<Draws>,
    mixture_epoch: Option<u64>,
    seed: u64,
    threads: usize,
    depth: Option<usize>,
    pool: Option<Pool>,
    pool_weight: u32,
    pin: Pin,
    rate_limits: RateLimits,
    memory_mib: Option<u64>,
    slots: Option<usize>,
    arena_bytes: Option<usize>,
    ragged_slot_bytes: Option<usize>,
    orientation: bool,
    limits: Limits,
    raw_shape: Option<Shape>,
    engine: EngineKind,
    direct: Direct,
    require_path: RequirePath,
    cufile_api: CuFileApi,
    read_timeout: Duration,
    sim: SimOptions,
    depth_control: Depth,
    sqpoll: Polling,
    iopoll: Polling,
    held_timeout: Duration,
    on_error: OnError,
    /// None was asked for.
    error_budget: Option<ErrorBudget>,
    bad_samples_file: Option<PathBuf>,
    device: DeviceChoice,
    decoder: DecoderKind,
    landing_bytes: usize,
    scratch_bytes: usize,
    fewer_slots: bool,
}
impl LoaderBuilder {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            map_source: None,
            index: IndexOptions::default(),
            views: None,
            batch_size: BatchSize::OfRank(128),
            shard: Shard::WHOLE,
            resume: None,
            last_batch: LastBatch::Drop,
            shuffle: Shuffle::Full,
            draws: None,
            mixture_epoch: None,
            seed: 0,
            threads: 0,
            depth: None,
            pool: None,
            pool_weight: 1,
            pin: Pin::default(),
            rate_limits: RateLimits::default(),
            memory_mib: None,
            slots: None,
            arena_bytes: None,
            ragged_slot_bytes: None,
            orientation: false,
            limits: Limits::default(),
            raw_shape: None,
            engine: EngineKind::Auto,
            direct: Direct::Auto,
            require_path: RequirePath::Any,
            cufile_api: CuFileApi::Auto,
            read_timeout: EngineOptions::READ_TIMEOUT,
            sim: SimOptions::default(),
            depth_control: Depth::default(),
            sqpoll: Polling::Off,
            iopoll: Polling::Off,
            held_timeout: Duration::from_secs(30),
            on_error: OnError::Fail,
            error_budget: None,
            bad_samples_file: None,
            device: DeviceChoice::default(),
            decoder: DecoderKind::default(),
            landing_bytes: 0,
            scratch_bytes: SCRATCH_BYTES,
            fewer_slots: false,
        }
    }

    /// What is done to every image. Default: `imagenet_train(224)`. The same as one group of one [view](Self::views); of
    /// the two, what was said last counts.
    pub fn augment(self, augment: Augment) -> Self {
        self.views([(augment, 1)])
    }

    /// Several views of every sample, each with random parameters of its own: groups of so many, made by an augmentation
    /// each. 1 to [`VIEWS_MAX`](crate::plan::VIEWS_MAX) views in all. A sample is read once for all of them; what its views
    /// share is decoded once. With an index, two crops of 0.4 to 1 of the area and six of 0.05 to 0.4 read 1.14 times the bytes
    /// of one of the former (photos of about 500x375); four of 0.08 to 1 read 1.33 times those of one.
    ///
    /// The multi-crop of SwAV (<https://arxiv.org/abs/2006.09882>) and DINO (<https://arxiv.org/abs/2104.14294>) has two
    /// groups; the repeated augmentation of Hoffer et al. (<https://arxiv.org/abs/1901.09335>) is one group of several. A
    /// batch has a tensor for each group: [`Batch::group`](crate::Batch::group).
    ///
    /// A view's parameters depend on its number, counted through all groups
    /// ([`SampleKey::view`](crate::plan::SampleKey::view)): the first is what a loader with one view makes, and a view added
    /// at the end leaves the others as they are. Images of their own size ([`Geometry::None`](crate::Geometry::None)) have one view.
    ///
    /// ```no_run
    /// use forebay::{Augment, Loader};
    ///
    /// # fn main() -> forebay::Result<()> {
    /// let (global, local) = (Augment::imagenet_train(224).build()?, Augment::imagenet_train(96).build()?);
    /// let mut loader = Loader::open("data/train").views([(global, 2), (local, 6)]).batch_size(64).build()?;
    /// for batch in loader.epoch(0) {
    ///     let batch = batch?;
    ///     let teacher = batch.group(0); // [2 * 64, 3, 224, 224]: the first views of all samples, then the second ones
    ///     let students = batch.group(1); // [6 * 64, 3, 96, 96]
    ///     let second = batch.view(0, 1); // [64, 3, 224, 224]
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn views(mut self, groups: impl IntoIterator<Item = (Augment, usize)>) -> Self {
        self.views = Some(groups.into_iter().collect());
        self
    }

    /// Samples of a batch: of this rank, as everywhere in training. All ranks must say the same. Default 128.
    ///
    /// More ranks therefore make a step larger. What keeps it as it is, is
    /// [`global_batch_size`](Self::global_batch_size); of the two, the one said last counts.
    pub fn batch_size(mut self, samples: u64) -> Self {
        self.batch_size = BatchSize::OfRank(samples);
        self
    }

    /// Samples that all ranks together take in a step, of which each gets the same number. With it the batches that an
    /// optimiser sees are the same on any number of ranks, also where a run is resumed on more or fewer of them.
    pub fn global_batch_size(mut self, samples: u64) -> Self {
        self.batch_size = BatchSize::OfAll(samples);
        self
    }

    /// For which of several processes it loads: [`Shard::from_env`] or [`Shard::new`]. Default: the only one.
    ///
    /// Seed, shuffle, batch size and data set must be those of the other ranks; then their batches are disjoint and
    /// together the epoch, and under [`LastBatch::Drop`] and [`LastBatch::Pad`] all have the same number of steps.
    pub fn shard(mut self, shard: Shard) -> Self {
        self.shard = shard;
        self
    }

    /// Begins where another run had come to: with the batch that it would have taken next, on any number of ranks and
    /// threads, by any engine and on any device. See [`Loader::epochs`](crate::Loader::epochs) for how a run is resumed, and [`State`] for what
    /// has to be as it was.
    pub fn resume(mut self, state: State) -> Self {
        self.resume = Some(state);
        self
    }

    /// What becomes of the samples that do not fill a batch of every rank. Default [`LastBatch::Drop`].
    pub fn last_batch(mut self, last_batch: LastBatch) -> Self {
        self.last_batch = last_batch;
        self
    }

    /// The order of an epoch, or of a pass through a part of a [mixture](super::Loader::mixture). Default [`Shuffle::Full`].
    pub fn shuffle(mut self, shuffle: Shuffle) -> Self {
        self.shuffle = shuffle;
        self.draws = None;
        self
    }

    /// Draws the samples of an epoch by weights, with replacement, in the place of a [`shuffle`](Self::shuffle): of the two
    /// the one said last counts. An epoch has as many samples as the weights have [draws](Weights::with_draws).
    pub fn weights(mut self, weights: Weights) -> Self {
        self.draws = Some(Draws::By(weights));
        self
    }

    /// Draws every class as often as every other, as [`Weights::balanced`] does, and in an epoch as many samples as there
    /// are.
    pub fn balanced(mut self) -> Self {
        self.draws = Some(Draws::Balanced);
        self
    }

    /// Samples of an epoch of a [mixture](super::Loader::mixture). Default: as many as its parts have together.
    pub fn mixture_epoch(mut self, samples: u64) -> Self {
        self.mixture_epoch = Some(samples);
        self
    }

    /// Makes another source of the data set once it is opened, such as a [`Subset`](crate::source::Subset) or one with labels from
    /// a [`LabelTable`](crate::source::LabelTable). Said again, it goes on from what was made before.
    ///
    /// Of several data sets that are loaded as one it is given that one; of a [mixture](super::Loader::mixture) each part on
    /// its own, before classes are united. When the data is looked for [again](super::Loader::refresh) it is called again.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use forebay::Loader;
    /// use forebay::source::{Filter, Subset};
    ///
    /// # fn main() -> forebay::Result<()> {
    /// let large: Filter = "width >= 256".parse()?;
    /// let loader = Loader::open("data/train")
    ///     .map_source(move |source| Ok(Arc::new(Subset::matching(source, &large)?)))
    ///     .balanced()
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_source<F>(mut self, map: F) -> Self
    where
        F: Fn(Arc<dyn Source>) -> Result<Arc<dyn Source>> + Send + Sync + 'static,
    {
        self.map_source = Some(match self.map_source.take() {
            Some(before) => Box::new(move |source| map(before(source)?)),
            None => Box::new(map),
        });
        self
    }

    /// What every order and every random parameter is derived from. Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Decode threads. Default 0: one for each processor that they may run on ([`pin`](Self::pin)), in a [`pool`](Self::pool)
    /// as many as that has; there never more than that.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Files being opened or read at once, at most. Default 32, in a [`pool`](Self::pool) that of the pool; there never more
    /// than that.
    pub fn depth(mut self, reads: usize) -> Self {
        self.depth = Some(reads);
        self
    }

    /// Shares decode threads and operations in flight with the other loaders of this pool. Default: it has its own. The batches
    /// are the same.
    pub fn pool(mut self, pool: &Pool) -> Self {
        self.pool = Some(pool.clone());
        self
    }

    /// Its part of the [`pool`](Self::pool), beside those of others: 1 to 1000. Default 1.
    pub fn pool_weight(mut self, weight: u32) -> Self {
        self.pool_weight = weight;
        self
    }

    /// Where its threads run on a machine of several nodes (NUMA). Default [`Pin::Auto`]: on the node of its device.
    pub fn pin(mut self, pin: Pin) -> Self {
        self.pin = pin;
        self
    }

    /// How much may be asked of each root in a second: of each file system that samples lie on. Default: no limit.
    ///
    /// For sharing a file system with others, and for finding out what a slower one would do. What the page cache holds counts
    /// too; what a failed read is repeated for does not. Time that reads are held back for is the report's
    /// [`limited`](crate::report::StageReport::limited), not storage's.
    pub fn limit_mbps(mut self, limits: RateLimits) -> Self {
        self.rate_limits = limits;
        self
    }

    /// How many of them are, up to [`depth`](Self::depth). Default [`Depth::Adaptive`]: as many as make the storage faster.
    pub fn depth_control(mut self, control: Depth) -> Self {
        self.depth_control = control;
        self
    }

    /// Whether a thread of the kernel takes reads from io_uring's queue without system calls. Default [`Polling::Off`].
    pub fn sqpoll(mut self, polling: Polling) -> Self {
        self.sqpoll = polling;
        self
    }

    /// Whether completions of direct reads are polled for, through io_uring. Default [`Polling::Off`].
    pub fn iopoll(mut self, polling: Polling) -> Self {
        self.iopoll = polling;
        self
    }

    /// The host memory that the loader may take, in MiB, whatever its images are. Default: no limit but those of the parts.
    ///
    /// [`build`](Self::build) plans slots, arena, scratch and everything else to fit, and refuses what does not, with the
    /// numbers. What is said of a part by name is never changed. An image that needs more than the plan has for one is an
    /// error of its sample; one that needs more than a thread has waits for others. [`Loader::memory`](super::Loader::memory)
    /// says what was planned, and [`MemoryPlan`](crate::memory::MemoryPlan) what is not in it: above all the listing of the data
    /// set, which grows with that. Holds with glibc's allocator; another one keeps of what was freed as much as it likes.
    ///
    /// An index cannot be built meanwhile ([`IndexMode::Build`]), since what is noted of it grows with the data set.
    pub fn memory_mib(mut self, mebibytes: u64) -> Self {
        self.memory_mib = Some(mebibytes);
        self
    }

    /// Batches that exist at once: being filled, ready, or in the consumer's hands. Default 3; 2 where
    /// [`memory_mib`](Self::memory_mib) leaves little for more.
    pub fn slots(mut self, batches: usize) -> Self {
        self.slots = Some(batches);
        self
    }

    /// Memory for encoded bytes between storage and decoder. Default 64 MiB, or as much as fits
    /// [`memory_mib`](Self::memory_mib), from 4 MiB on; a larger sample is refused.
    pub fn arena_bytes(mut self, bytes: usize) -> Self {
        self.arena_bytes = Some(bytes);
        self
    }

    /// Memory for one batch of images of their own size ([`Geometry::None`](crate::Geometry::None)). Default 256 MiB, or a sixth of
    /// [`memory_mib`](Self::memory_mib); only what images really fill is ever touched.
    pub fn ragged_slot_bytes(mut self, bytes: usize) -> Self {
        self.ragged_slot_bytes = Some(bytes);
        self
    }

    /// Whether EXIF orientation is honoured. Default false, as in torchvision and DALI.
    pub fn orientation(mut self, honoured: bool) -> Self {
        self.orientation = honoured;
        self
    }

    /// What one sample may ask for.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The dimensions of the samples whose extension is `.raw` or `.bin`: bytes of pixels and nothing else
    /// ([`raw`](crate::raw)). One of another length is refused, as all of them are while no shape is given. Only the rows
    /// of a crop are read; that needs no index.
    pub fn raw_shape(mut self, shape: Shape) -> Self {
        self.raw_shape = Some(shape);
        self
    }

    /// Whether an index decides which bytes of a sample are read. Default [`IndexMode::Auto`]. The tensors are the
    /// same either way.
    ///
    /// [`IndexMode::Build`] notes what the index lacks while the first epoch is loaded and writes it at the end of that
    /// epoch, beside the next; ending the run waits for it. The next loader that opens the data set uses it.
    pub fn index(mut self, mode: IndexMode) -> Self {
        self.index.mode = mode;
        self
    }

    /// The folder that the index of a data set lies in, if not beside it. A source of your own knows its own.
    pub fn index_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.index.dir = Some(dir.into());
        self
    }

    /// How storage is read. Default [`EngineKind::Auto`]; an engine asked for by name is never replaced.
    pub fn engine(mut self, engine: EngineKind) -> Self {
        self.engine = engine;
        self
    }

    /// Whether reads go around the page cache. Default [`Direct::Auto`].
    pub fn direct(mut self, direct: Direct) -> Self {
        self.direct = direct;
        self
    }

    /// What the encoded bytes must have come to a CUDA device by. Default [`RequirePath::Any`].
    ///
    /// [`RequirePath::Direct`] takes the engine [`CuFile`](EngineKind::CuFile), needs an index of every sample, and makes
    /// everything an error that would bring encoded bytes into host memory.
    pub fn require_path(mut self, path: RequirePath) -> Self {
        self.require_path = path;
        self
    }

    /// Which of cuFile's interfaces is used where cuFile reads. Default [`CuFileApi::Auto`].
    pub fn cufile_api(mut self, api: CuFileApi) -> Self {
        self.cufile_api = api;
        self
    }

    /// How long opening a file or one read of it may take, before it is an error of its sample
    /// ([`TimedOut`](crate::ErrorKind::TimedOut)). Its memory stays with the read until that has really ended, and everything
    /// else goes on. Default [`EngineOptions::READ_TIMEOUT`], two minutes; [`Duration::MAX`] waits for ever.
    ///
    /// Shards are opened once, at once and without a limit.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// What the engine [`Sim`](EngineKind::Sim) makes up, where it was asked for.
    pub fn sim(mut self, sim: SimOptions) -> Self {
        self.sim = sim;
        self
    }

    /// How long the iterator waits when the consumer holds every batch, before it says so with
    /// [`BatchesHeld`](crate::ErrorKind::BatchesHeld). Default 30 s.
    pub fn held_timeout(mut self, timeout: Duration) -> Self {
        self.held_timeout = timeout;
        self
    }

    /// What becomes of a sample that cannot be delivered. Default [`OnError::Fail`].
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = policy;
        self
    }

    /// How many samples may be replaced or skipped before the run ends. Default: 1 % of an epoch's. `InvalidParameter` at
    /// [`build`](Self::build) under [`OnError::Fail`], where there is none.
    pub fn error_budget(mut self, budget: ErrorBudget) -> Self {
        self.error_budget = Some(budget);
        self
    }

    /// Appends the samples that are replaced or skipped to a file: a line of JSON each ([`BadSample::json`]), when the batch
    /// of its place is taken. The file is there after [`build`](Self::build). Where it cannot be written the run goes on,
    /// and the report says so. `InvalidParameter` under [`OnError::Fail`], whose only one is the error that it ends with.
    ///
    /// [`BadSample::json`]: crate::batch::BadSample::json
    pub fn bad_samples_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.bad_samples_file = Some(path.into());
        self
    }

    /// Where the tensors are made, and stay: a [`Device`](crate::device::Device), or [`DeviceChoice::Auto`]. Default: the host.
    pub fn device(mut self, device: impl Into<DeviceChoice>) -> Self {
        self.device = device.into();
        self
    }

    /// Who decodes on a CUDA device. Default [`DecoderKind::Auto`]. On the host there is no choice.
    pub fn decoder(mut self, decoder: DecoderKind) -> Self {
        self.decoder = decoder;
        self
    }

    /// Page-locked memory for the encoded bytes of one batch on their way to a CUDA device; samples that find no room
    /// there are decoded on the host, and counted. Default 0: a quarter more than a batch of the data set's samples,
    /// 1 MiB to 1 GiB.
    pub fn landing_bytes(mut self, bytes: usize) -> Self {
        self.landing_bytes = bytes;
        self
    }

    /// Device memory for what lies between the encoded bytes and the tensors of one batch: 192 bytes for every 8x8 block
    /// that is decoded. A batch that needs more is decoded in several waves; a single image that does, on the host.
    /// Default 128 MiB.
    pub fn scratch_bytes(mut self, bytes: usize) -> Self {
        self.scratch_bytes = bytes;
        self
    }

    /// Whether fewer slots than asked for, but at least two, are enough where device memory is short. It is a fallback
    /// that the report names. Default false: an error.
    pub fn fewer_slots(mut self, allowed: bool) -> Self {
        self.fewer_slots = allowed;
        self
    }
}
