//! What a loader can be told, and the checks on it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Loader, Shared};
use crate::engine::{Direct, Engine, EngineKind, EngineOptions, estimate_data_set_bytes};
use crate::error::{Error, Result};
use crate::jpeg::Grain;
use crate::limits::Limits;
use crate::memory::{Arena, MemoryPlan, SlotPool};
use crate::order::{EpochSteps, LastBatch, Order, Shuffle};
use crate::plan::{Augment, Geometry};
use crate::report::Counters;
use crate::source::index::{BuildOptions, Part, Recorder};
use crate::source::{self, IndexMode, IndexOptions, Source};

/// Bytes for images of their own size in one slot, unless told otherwise.
const RAGGED_SLOT_BYTES: usize = 256 << 20;

/// Describes a [`Loader`].
pub struct LoaderBuilder {
    origin: Origin,
    index: IndexOptions,
    augment: Option<Augment>,
    batch_size: u64,
    last_batch: LastBatch,
    shuffle: Shuffle,
    seed: u64,
    threads: usize,
    depth: usize,
    slots: usize,
    arena_bytes: usize,
    ragged_slot_bytes: usize,
    orientation: bool,
    limits: Limits,
    engine: EngineKind,
    direct: Direct,
    held_timeout: Duration,
}

/// Where the samples come from.
pub(super) enum Origin {
    /// A data set that is not opened yet.
    Path(PathBuf),
    Source(Arc<dyn Source>),
}

impl Origin {
    /// The samples, and what builds their index if that is wanted.
    fn open(self, index: &IndexOptions) -> Result<(Arc<dyn Source>, Option<Recorder>)> {
        let wants_index = index.mode == IndexMode::Build;
        match self {
            Self::Path(path) => {
                let source = source::open_with(&path, index)?;
                let options = BuildOptions {
                    grain: Grain::default(),
                    part: Part::WHOLE,
                    dir: index.dir.clone(),
                    // It works beside the decode threads.
                    threads: 1,
                    force: false,
                };
                let recorder = wants_index.then(|| Recorder::new(path, options, source.len()));
                Ok((source, recorder))
            }
            Self::Source(_) if wants_index => {
                let allowed = "of a source of your own no index can be built";
                Err(Error::invalid_parameter("index", index.mode, allowed))
            }
            Self::Source(source) => Ok((source, None)),
        }
    }
}

impl LoaderBuilder {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            index: IndexOptions::default(),
            augment: None,
            batch_size: 128,
            last_batch: LastBatch::Drop,
            shuffle: Shuffle::Full,
            seed: 0,
            threads: 0,
            depth: 32,
            slots: 3,
            arena_bytes: 64 << 20,
            ragged_slot_bytes: RAGGED_SLOT_BYTES,
            orientation: false,
            limits: Limits::default(),
            engine: EngineKind::Auto,
            direct: Direct::Auto,
            held_timeout: Duration::from_secs(30),
        }
    }

    /// What is done to every image. Default: `imagenet_train(224)`.
    pub fn augment(mut self, augment: Augment) -> Self {
        self.augment = Some(augment);
        self
    }

    /// Samples of a batch. Default 128.
    pub fn batch_size(mut self, samples: u64) -> Self {
        self.batch_size = samples;
        self
    }

    /// What becomes of the samples that do not fill a batch. Default [`LastBatch::Drop`].
    pub fn last_batch(mut self, last_batch: LastBatch) -> Self {
        self.last_batch = last_batch;
        self
    }

    /// The order of an epoch. Default [`Shuffle::Full`].
    pub fn shuffle(mut self, shuffle: Shuffle) -> Self {
        self.shuffle = shuffle;
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

    /// Files being opened or read at once. Default 32.
    pub fn depth(mut self, reads: usize) -> Self {
        self.depth = reads;
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

    /// How long the iterator waits when the consumer holds every batch, before it says so with
    /// [`BatchesHeld`](crate::ErrorKind::BatchesHeld). Default 30 s.
    pub fn held_timeout(mut self, timeout: Duration) -> Self {
        self.held_timeout = timeout;
        self
    }

    /// Checks everything, opens the data set and allocates all memory.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` and `EmptyDataset` for what was asked, `LimitExceeded` if the memory is not to
    /// be had, `Unavailable` if an engine asked for by name is not, and those of
    /// [`open_with`](source::open_with).
    pub fn build(self) -> Result<Loader> {
        let augment = match self.augment {
            Some(augment) => augment,
            None => Augment::imagenet_train(224).build()?,
        };
        if !(2..=1024).contains(&self.slots) {
            return Err(Error::invalid_parameter("slots", self.slots, "2 to 1024: one to fill and one to hand out"));
        }
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        if threads > 4096 {
            return Err(Error::invalid_parameter("threads", threads, "at most 4096 threads decode"));
        }
        let (source, recorder) = self.origin.open(&self.index)?;
        let steps = EpochSteps::new(source.len(), self.batch_size, self.last_batch)?;
        let order = Order::new(source.len(), self.seed, self.shuffle)?;
        let batch_size = usize::try_from(self.batch_size).unwrap_or(usize::MAX);
        let sample_bytes = augment.output_bytes();
        let memory = match sample_bytes {
            Some(sample_bytes) => MemoryPlan::new(self.arena_bytes, self.slots, batch_size, sample_bytes)?,
            None => MemoryPlan::new(self.arena_bytes, self.slots, 1, self.ragged_slot_bytes)?,
        };
        let slots = match sample_bytes {
            Some(sample_bytes) => SlotPool::new(self.slots, batch_size, sample_bytes)?,
            None => SlotPool::ragged(self.slots, batch_size, self.ragged_slot_bytes)?,
        };
        debug_assert_eq!(sample_bytes.is_none(), matches!(augment.geometry(), Geometry::None));
        let arena = Arena::new(self.arena_bytes)?;
        let data_set_bytes = estimate_data_set_bytes(&*source);
        let engine_options = EngineOptions { direct: self.direct, data_set_bytes, ..EngineOptions::default() };
        if self.engine != EngineKind::Auto {
            // The engine itself is made on the feed thread; here it only shows that it can be made.
            Engine::new(self.engine, &arena, self.depth, engine_options)?;
        }
        Ok(Loader {
            shared: Arc::new(Shared {
                source,
                order,
                steps,
                augment,
                orientation: self.orientation,
                limits: self.limits,
                index: self.index.mode,
                recorder,
                engine: self.engine,
                engine_options,
                depth: self.depth,
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
        })
    }
}
