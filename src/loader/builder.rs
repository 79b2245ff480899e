//! What a loader can be told, and the checks on it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::cuda::{Built, Cuda, Sizes};
use super::direct::CuFileChoice;
use super::{Loader, Shared, State, state};
use crate::decode::DecoderKind;
use crate::decode::kernels::Capacity;
use crate::decode::nvjpeg::{NvJpeg, NvJpegDevice};
use crate::device::cuda::Gpu;
use crate::device::{Device, DeviceChoice};
use crate::engine::{
    CuFileApi, Depth, Direct, Engine, EngineKind, EngineOptions, Polling, RequirePath, SimOptions,
    estimate_data_set_bytes,
};
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::Grain;
use crate::limits::Limits;
use crate::memory::{Arena, MemoryPlan, SlotPool, UploadLayout};
use crate::order::{EpochSteps, LastBatch, Order, Shard, Shuffle, Weights};
use crate::plan::{Augment, Geometry};
use crate::raw::Shape;
use crate::report::{Counters, Fallback};
use crate::source::index::{BuildOptions, Part, Recorders};
use crate::source::{self, IndexMode, IndexOptions, Source};
use crate::storage::RateLimits;

/// Bytes for images of their own size in one slot, unless told otherwise.
const RAGGED_SLOT_BYTES: usize = 256 << 20;

/// Scratch memory of a slot on a device, unless told otherwise: a photo of 24 megapixels, or several hundred crops of
/// ImageNet's.
const SCRATCH_BYTES: usize = 128 << 20;

/// Bytes for encoded samples on their way to a device, a slot, unless told otherwise.
const LANDING_BYTES_MIN: usize = 1 << 20;
const LANDING_BYTES_MAX: usize = 1 << 30;
/// What rounding to the alignment of storage adds to a sample that is read in a few pieces.
const LANDING_ROUNDING_BYTES: usize = 16 << 10;

/// Samples that are looked at to tell whether a data set has an index.
const INDEX_PROBES: u64 = 64;

/// Describes a [`Loader`].
pub struct LoaderBuilder {
    origin: Origin,
    map_source: Option<MapSource>,
    index: IndexOptions,
    augment: Option<Augment>,
    batch_size: BatchSize,
    shard: Shard,
    resume: Option<State>,
    last_batch: LastBatch,
    shuffle: Shuffle,
    /// In the place of `shuffle`.
    draws: Option<Draws>,
    seed: u64,
    threads: usize,
    depth: usize,
    rate_limits: RateLimits,
    slots: usize,
    arena_bytes: usize,
    ragged_slot_bytes: usize,
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
    device: DeviceChoice,
    decoder: DecoderKind,
    landing_bytes: usize,
    scratch_bytes: usize,
    fewer_slots: bool,
}

/// Samples of a batch, as they were asked for.
#[derive(Clone, Copy)]
enum BatchSize {
    OfRank(u64),
    OfAll(u64),
}

impl BatchSize {
    /// The samples of one rank's batch.
    fn of_rank(self, shard: Shard) -> Result<u64> {
        let ranks = shard.world_size();
        match self {
            Self::OfRank(samples) => Ok(samples),
            Self::OfAll(samples) if samples.is_multiple_of(ranks) => Ok(samples / ranks),
            Self::OfAll(samples) => {
                let allowed = format!("every rank gets the same: it must be a multiple of the {ranks} ranks");
                let near = samples.checked_next_multiple_of(ranks).unwrap_or(ranks);
                Err(Error::invalid_parameter("global_batch_size", samples, &allowed)
                    .with_remedy(format!("use {near}, for example")))
            }
        }
    }
}

/// Makes another source of the one that is opened.
type MapSource = Box<dyn FnOnce(Arc<dyn Source>) -> Result<Arc<dyn Source>> + Send>;

/// What samples are drawn by, with replacement.
enum Draws {
    By(Weights),
    Balanced,
}

/// Where the samples come from.
pub(super) enum Origin {
    /// Data sets that are not opened yet.
    Paths(Vec<PathBuf>),
    Source(Arc<dyn Source>),
}

impl Origin {
    /// The samples, and what builds their index if that is wanted.
    fn open(&self, index: &IndexOptions) -> Result<(Arc<dyn Source>, Option<Recorders>)> {
        let wants_index = index.mode == IndexMode::Build;
        match self {
            Self::Paths(paths) if wants_index => {
                let options = BuildOptions {
                    grain: Grain::default(),
                    part: Part::WHOLE,
                    dir: index.dir.clone(),
                    // It works beside the decode threads.
                    threads: 1,
                    force: false,
                };
                let opened = source::open_each(paths, index)?;
                let recorders = Recorders::new(&opened, &options);
                let source = source::join(opened.into_iter().map(|opened| opened.source).collect())?;
                Ok((source, Some(recorders)))
            }
            Self::Paths(paths) => Ok((source::open_all(paths, index)?, None)),
            Self::Source(_) if wants_index => {
                let allowed = "of a source of your own no index can be built";
                Err(Error::invalid_parameter("index", index.mode, allowed))
            }
            Self::Source(source) => Ok((Arc::clone(source), None)),
        }
    }
}

impl LoaderBuilder {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            map_source: None,
            index: IndexOptions::default(),
            augment: None,
            batch_size: BatchSize::OfRank(128),
            shard: Shard::WHOLE,
            resume: None,
            last_batch: LastBatch::Drop,
            shuffle: Shuffle::Full,
            draws: None,
            seed: 0,
            threads: 0,
            depth: 32,
            rate_limits: RateLimits::default(),
            slots: 3,
            arena_bytes: 64 << 20,
            ragged_slot_bytes: RAGGED_SLOT_BYTES,
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
            device: DeviceChoice::default(),
            decoder: DecoderKind::default(),
            landing_bytes: 0,
            scratch_bytes: SCRATCH_BYTES,
            fewer_slots: false,
        }
    }

    /// What is done to every image. Default: `imagenet_train(224)`.
    pub fn augment(mut self, augment: Augment) -> Self {
        self.augment = Some(augment);
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
    /// threads, by any engine and on any device. See [`Loader::epochs`] for how a run is resumed, and [`State`] for what
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

    /// The order of an epoch. Default [`Shuffle::Full`].
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

    /// Makes another source of the data set once it is opened, such as a [`Subset`](source::Subset) or one with labels from
    /// a [`LabelTable`](source::LabelTable). Said again, it goes on from what was made before.
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
    pub fn map_source(mut self, map: impl FnOnce(Arc<dyn Source>) -> Result<Arc<dyn Source>> + Send + 'static) -> Self {
        let before = self.map_source.take();
        self.map_source = Some(Box::new(move |source| {
            let source = match before {
                Some(before) => before(source)?,
                None => source,
            };
            map(source)
        }));
        self
    }

    /// What every order and every random parameter is derived from. Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Decode threads. Default 0: one a processor.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Files being opened or read at once, at most. Default 32.
    pub fn depth(mut self, reads: usize) -> Self {
        self.depth = reads;
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

    /// Batches that exist at once: being filled, ready, or in the consumer's hands. Default 3.
    pub fn slots(mut self, batches: usize) -> Self {
        self.slots = batches;
        self
    }

    /// Memory for encoded bytes between storage and decoder. Default 64 MiB; a larger sample is refused.
    pub fn arena_bytes(mut self, bytes: usize) -> Self {
        self.arena_bytes = bytes;
        self
    }

    /// Memory for one batch of images of their own size ([`Geometry::None`]). Default 256 MiB; only
    /// what images really fill is ever touched.
    pub fn ragged_slot_bytes(mut self, bytes: usize) -> Self {
        self.ragged_slot_bytes = bytes;
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

    /// Where the tensors are made, and stay: a [`Device`], or [`DeviceChoice::Auto`]. Default: the host.
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

    /// Checks everything, opens the data set and allocates all memory.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` and `EmptyDataset` for what was asked, `LimitExceeded` if the memory is not to
    /// be had, `OutOfMemory` if the device's is not, `Unavailable` if an engine, device or decoder asked for by name is
    /// not, and those of [`open_with`](source::open_with), of what is made of the source and of the weights.
    pub fn build(mut self) -> Result<Loader> {
        let batch_size = self.batch_size.of_rank(self.shard)?;
        self.batch_size = BatchSize::OfRank(batch_size);
        if self.index.mode == IndexMode::Build && self.shard.world_size() > 1 {
            let allowed = "a rank sees its share of the data set only: build the index with `forebay index`";
            return Err(Error::invalid_parameter("index", self.index.mode, allowed));
        }
        let augment = match self.augment {
            Some(augment) => augment,
            None => Augment::imagenet_train(224).build()?,
        };
        if !(2..=1024).contains(&self.slots) {
            return Err(Error::invalid_parameter("slots", self.slots, "2 to 1024: one to fill and one to hand out"));
        }
        if let Some(shape) = self.raw_shape {
            shape.check()?;
            self.limits.check_dimensions(shape.width, shape.height)?;
        }
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        if threads > 4096 {
            return Err(Error::invalid_parameter("threads", threads, "at most 4096 threads decode"));
        }
        if self.read_timeout.is_zero() {
            return Err(Error::invalid_parameter("read_timeout", "0", "a read takes some time"));
        }
        self.check_decoder()?;
        self.check_path()?;
        let rate_limits = self.rate_limits.resolve()?;
        let (gpu, fallback) = self.open_device(&augment)?;
        let (source, recorder) = self.origin.open(&self.index)?;
        let source = match self.map_source.take() {
            Some(map) => map(source)?,
            None => source,
        };
        let order = self.order(&*source)?;
        let steps = EpochSteps::of_rank(order.samples(), batch_size, self.last_batch, self.shard)?;
        let data_set = state::data_set(&*source);
        let resumed = self.resume.map(|state| state.check(&order, data_set)).transpose()?;
        let data_set_bytes = estimate_data_set_bytes(&*source);
        let engine_options = EngineOptions {
            direct: self.direct,
            data_set_bytes,
            cufile_api: self.cufile_api,
            read_timeout: self.read_timeout,
            sim: self.sim,
            depth: self.depth_control,
            sqpoll: self.sqpoll,
            iopoll: self.iopoll,
            ..EngineOptions::default()
        };
        let mut device_fallbacks: Vec<_> = fallback.into_iter().collect();
        let (memory, arena, slots, cuda) = match gpu {
            None => self.host_memory(&augment, &*source)?,
            Some(gpu) => {
                if self.decoder.needs_index() && !self.can_plan(&*source) {
                    return Err(no_index(self.decoder));
                }
                let nvjpeg = match self.nvjpeg(&gpu, &*source, threads) {
                    Some(Err(error)) if self.decoder == DecoderKind::Auto && error.kind() == ErrorKind::Unavailable => {
                        device_fallbacks.push(no_nvjpeg(&error));
                        None
                    }
                    opened => opened.transpose()?,
                };
                let sample_bytes = data_set_bytes.unwrap_or(0) / source.len().max(1);
                let (memory, built) = self.device_memory(gpu, nvjpeg, &augment, &*source, sample_bytes)?;
                let Built { cuda, arena, slots, fallbacks, .. } = built;
                device_fallbacks.extend(fallbacks);
                (memory, arena, slots, Some(cuda))
            }
        };
        if self.engine != EngineKind::Auto {
            // The engine itself is made on the feed thread; here it only shows that it can be made.
            match cuda.as_ref().and_then(|cuda| cuda.cufile.as_ref()) {
                Some(cufile) => Engine::with_cufile(cufile, &arena, self.depth, engine_options)?,
                None => Engine::new(self.engine, &arena, self.depth, engine_options)?,
            };
        }
        Ok(Loader {
            shared: Arc::new(Shared {
                source,
                order,
                data_set,
                steps,
                augment,
                orientation: self.orientation,
                decoder: self.decoder,
                cuda,
                device_fallbacks,
                limits: self.limits,
                raw_shape: self.raw_shape,
                index: self.index.mode,
                recorder,
                engine: self.engine,
                engine_options,
                depth: self.depth,
                rate_limits,
                threads,
                held_timeout: self.held_timeout,
                memory,
                arena,
                slots,
                held: Arc::new(AtomicUsize::new(0)),
                counters: Counters::default(),
                engine_name: Mutex::new("none yet"),
                stop: AtomicBool::new(false),
            }),
            taken: resumed.unwrap_or_default(),
            resumed,
        })
    }

    fn order(&self, source: &dyn Source) -> Result<Order> {
        let weights = match &self.draws {
            None => return Order::new(source.len(), self.seed, self.shuffle),
            Some(Draws::By(weights)) => weights.clone(),
            Some(Draws::Balanced) => Weights::balanced(source)?,
        };
        if weights.samples() != source.len() {
            let error =
                Error::invalid_parameter("weights", format!("of {} samples", weights.samples()), "one a sample");
            return Err(error.with_remedy(format!("the data set has {} samples", source.len())));
        }
        Ok(Order::weighted(weights, self.seed))
    }

    /// Refuses a decoder that contradicts what else was asked for.
    fn check_decoder(&self) -> Result<()> {
        let is_of_device =
            matches!(self.decoder, DecoderKind::Kernels | DecoderKind::NvJpeg | DecoderKind::NvJpegDevice);
        if is_of_device && self.device == DeviceChoice::Exactly(Device::Host) {
            return Err(Error::invalid_parameter("decoder", self.decoder, "the device host has its own: use auto"));
        }
        if self.index.mode == IndexMode::Off && self.decoder.needs_index() && self.raw_shape.is_none() {
            let allowed = "this decoder works by an index: use auto";
            return Err(Error::invalid_parameter("index", self.index.mode, allowed));
        }
        Ok(())
    }

    /// Refuses a path to the device that contradicts what else was asked for.
    fn check_path(&self) -> Result<()> {
        let (is_cufile, is_direct) = (self.engine == EngineKind::CuFile, self.require_path == RequirePath::Direct);
        if !is_cufile && !is_direct {
            return Ok(());
        }
        if is_direct && !is_cufile && self.engine != EngineKind::Auto {
            let allowed = "the path direct is cuFile's: use the engine cufile or auto";
            return Err(Error::invalid_parameter("engine", self.engine, allowed));
        }
        if self.device == DeviceChoice::Exactly(Device::Host) {
            let allowed = "cuFile reads into the memory of a CUDA device: use cuda:0, for example";
            return Err(Error::invalid_parameter("device", "host", allowed));
        }
        if !self.decoder.lands_on_device() {
            let allowed = "cuFile brings the bytes to the device, where the kernels decode them: use auto or kernels";
            return Err(Error::invalid_parameter("decoder", self.decoder, allowed));
        }
        if self.index.mode == IndexMode::Off && self.raw_shape.is_none() {
            let allowed = "what the host does not see has to be indexed: use auto or required";
            return Err(Error::invalid_parameter("index", self.index.mode, allowed));
        }
        Ok(())
    }

    /// Whether cuFile is to read.
    fn cufile_choice(&self, source: &dyn Source) -> CuFileChoice {
        let can_land = self.decoder.lands_on_device() && self.direct != Direct::Off;
        match (self.engine, self.require_path) {
            (EngineKind::CuFile, require) | (EngineKind::Auto, require @ RequirePath::Direct) => {
                CuFileChoice::Needed(require)
            }
            (EngineKind::Auto, _) if can_land && self.can_plan(source) => CuFileChoice::IfDirect,
            _ => CuFileChoice::No,
        }
    }

    /// Whether samples can be planned before they are read: by an index, or a shape that was told.
    fn can_plan(&self, source: &dyn Source) -> bool {
        self.raw_shape.is_some() || indexed(source).any(|is_indexed| is_indexed)
    }

    /// The device, if not the host, and why the host if it was left to us.
    fn open_device(&self, augment: &Augment) -> Result<(Option<Gpu>, Option<Fallback>)> {
        let has_own_sizes = matches!(augment.geometry(), Geometry::None);
        let (gpu, fallback) = match self.device {
            DeviceChoice::Auto if has_own_sizes => (None, Some(Fallback::host_device(&own_sizes()))),
            DeviceChoice::Exactly(Device::Cuda(_)) if has_own_sizes => return Err(own_sizes()),
            device => device.open()?,
        };
        match (&gpu, self.decoder) {
            (None, DecoderKind::Kernels | DecoderKind::NvJpeg | DecoderKind::NvJpegDevice) => {
                let cause = fallback.map_or_else(String::new, |fallback| format!(": {}", fallback.cause));
                let message = format!("the decoder {} is not to be had without a CUDA device{cause}", self.decoder);
                Err(Error::new(ErrorKind::Unavailable, message).with_remedy("use the decoder auto"))
            }
            _ => Ok((gpu, fallback)),
        }
    }

    fn host_memory(
        &self,
        augment: &Augment,
        source: &dyn Source,
    ) -> Result<(MemoryPlan, Arena, SlotPool, Option<Cuda>)> {
        let batch_size = self.places();
        let (memory, slots) = match augment.output_bytes() {
            Some(sample_bytes) => (
                MemoryPlan::new(self.arena_bytes, self.slots, batch_size, sample_bytes)?,
                SlotPool::new(self.slots, batch_size, sample_bytes)?,
            ),
            None => (
                MemoryPlan::new(self.arena_bytes, self.slots, 1, self.ragged_slot_bytes)?,
                SlotPool::ragged(self.slots, batch_size, self.ragged_slot_bytes)?,
            ),
        };
        debug_assert_eq!(augment.output_bytes().is_none(), matches!(augment.geometry(), Geometry::None));
        Ok((memory, Arena::on_node(self.arena_bytes, super::node_of(source, || None))?, slots, None))
    }

    /// nvJPEG, where it was asked for or there are samples for it.
    fn nvjpeg(&self, gpu: &Gpu, source: &dyn Source, threads: usize) -> Option<Result<NvJpeg>> {
        let is_wanted = match self.decoder {
            DecoderKind::NvJpeg => true,
            DecoderKind::Auto => self.index.mode == IndexMode::Off || indexed(source).any(|is_indexed| !is_indexed),
            DecoderKind::Kernels | DecoderKind::NvJpegDevice | DecoderKind::Host => false,
        };
        is_wanted.then(|| NvJpeg::new(gpu, self.places(), threads))
    }

    /// Memory on both sides, for samples of so many encoded bytes.
    fn device_memory(
        &self,
        gpu: Gpu,
        nvjpeg: Option<NvJpeg>,
        augment: &Augment,
        source: &dyn Source,
        encoded_bytes: u64,
    ) -> Result<(MemoryPlan, Built)> {
        let (Some(sample_bytes), Some(shape)) = (augment.output_bytes(), augment.output_shape()) else {
            return Err(Error::new(ErrorKind::Internal, "a device loader without an output size"));
        };
        let places = self.places();
        let memory = MemoryPlan::new(self.arena_bytes, self.slots, places, sample_bytes)?;
        let landing_bytes = match self.landing_bytes {
            0 => landing_bytes(places, encoded_bytes),
            bytes => bytes,
        };
        let upload = UploadLayout::new(places, landing_bytes).ok_or_else(|| {
            let allowed = "what a batch uploads is below 2 GiB: use a smaller batch or fewer landing_bytes";
            Error::invalid_parameter("landing_bytes", landing_bytes, allowed)
        })?;
        let side = shape.into_iter().max().unwrap_or(1);
        let sizes = Sizes {
            augment,
            arena_bytes: self.arena_bytes,
            slots: self.slots,
            places,
            sample_bytes,
            upload,
            capacity: Capacity::new(self.scratch_bytes, places, side, upload.words()),
            may_have_fewer_slots: self.fewer_slots,
            nvjpeg_device: match self.decoder {
                DecoderKind::NvJpegDevice => Some(NvJpegDevice::new(&gpu, places)?),
                _ => None,
            },
            nvjpeg,
            cufile: self.cufile_choice(source),
        };
        let device_bytes = sizes.device_bytes();
        let built = sizes.build(gpu, source)?;
        let memory = MemoryPlan { slots: built.slots.slots(), ..memory };
        Ok((memory.with_device(built.upload_bytes, device_bytes), built))
    }

    fn places(&self) -> usize {
        let (BatchSize::OfRank(samples) | BatchSize::OfAll(samples)) = self.batch_size;
        usize::try_from(samples).unwrap_or(usize::MAX)
    }
}

/// A quarter more than a batch of samples of the size that the data set has on average.
fn landing_bytes(places: usize, encoded_bytes: u64) -> usize {
    let sample_bytes = usize::try_from(encoded_bytes.saturating_add(encoded_bytes / 4)).unwrap_or(usize::MAX);
    let batch_bytes = places.saturating_mul(sample_bytes.saturating_add(LANDING_ROUNDING_BYTES));
    batch_bytes.clamp(LANDING_BYTES_MIN, LANDING_BYTES_MAX)
}

/// Whether an index describes them, or the shape of raw pixels, of some samples from all over the data set.
fn indexed(source: &dyn Source) -> impl Iterator<Item = bool> {
    let (len, probes) = (source.len(), source.len().min(INDEX_PROBES));
    let samples = (0..probes).map(move |probe| (u128::from(probe) * u128::from(len) / u128::from(probes)) as u64);
    samples
        .map(|sample| matches!(source.is_headerless(sample), Ok(true)) || matches!(source.record(sample), Ok(Some(_))))
}

fn own_sizes() -> Error {
    let allowed = "on a device all images of a batch have one size: use a geometry that resizes, or the device host";
    Error::invalid_parameter("geometry", "None", allowed)
}

fn no_index(decoder: DecoderKind) -> Error {
    let message = format!("the decoder {decoder} is not to be had: no index describes the data set");
    Error::new(ErrorKind::Unavailable, message)
        .with_remedy("build one with `forebay index DATASET`, or use the decoder auto")
}

fn no_nvjpeg(error: &Error) -> Fallback {
    let fallback = Fallback {
        what: Fallback::NVJPEG,
        instead: "host decoders",
        cause: error.cause(),
        remedy: error.remedy().unwrap_or("index the data set, so that the kernels decode it: forebay index").to_owned(),
        count: 1,
    };
    log::warn!("{fallback}");
    fallback
}
