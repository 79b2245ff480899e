//! The front door: a builder, epochs, and the wiring of the stages.
//!
//! ```text
//!  feed thread              decode threads                 consumer
//!  order -> slot, plan of   header -> plan -> pixels ->    Batch: tensors, labels, keys
//!  reads -> engine ->  jobs    augment -> slot  -> ready -> (dropped: the slot is free again)
//! ```
//!
//! One thread feeds: it walks the epoch's order, takes a free slot for each batch, and keeps reads in
//! flight. A sample that an index describes is planned there, before a byte of it is read, and only the bytes
//! that its crop needs are; any other is read whole and planned once its header is here. Decode threads take
//! whatever has landed and write finished tensors into the batch's slot. The consumer's thread takes filled slots in order.
//!
//! On a CUDA device two threads lie between the decode threads and the consumer:
//!
//! ```text
//!  decode threads             launch thread              settle thread            consumer
//!  entry points -> segments   scratch memory -> one      waits until host memory  Batch: while kernels
//!  or, where the kernels  ->  copy, kernels, events  ->  is free; decodes bad  -> still write it
//!  do not take it, tensor                                samples on the host
//! ```
//!
//! Samples for the kernels are read straight into the memory that this copy starts from. One that the device turns
//! out unable to decode is decoded on the host from the bytes that landed, and copied to its place.
//!
//! With the engine cuFile, samples for the kernels land in the device's copy of that memory instead, and only what
//! describes them is copied: no byte of theirs is ever in host memory. One that cuFile cannot read, or that the kernels
//! cannot decode, is read again for the host, unless [`RequirePath::Direct`](crate::engine::RequirePath::Direct) makes that
//! an error.
//!
//! Threads live as long as an [`Epochs`] iterator; memory lives as long as the [`Loader`] and the batches taken
//! from it.

mod builder;
mod cuda;
mod direct;
mod feed;
mod landed;
mod launch;
mod push_down;
mod ready;
mod run;
mod seat;
mod tray;
mod work;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use builder::LoaderBuilder;
use builder::Origin;
pub use run::Epochs;
pub(crate) use tray::Filled;
use tray::Tray;

use crate::decode::DecoderKind;
use crate::device::Device;
use crate::engine::{CuFile, Engine, EngineKind, EngineOptions};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::memory::{Arena, MemoryPlan, SlotPool, numa};
use crate::order::{EpochSteps, Order};
use crate::plan::Augment;
use crate::raw::Shape;
use crate::report::{Counters, Fallback, Report, Setting, lock};
use crate::source::index::Recorder;
use crate::source::{Extent, IndexMode, Source};

/// Loads batches of a data set, epoch by epoch.
///
/// ```no_run
/// use forebay::{Augment, Loader};
///
/// # fn main() -> forebay::Result<()> {
/// let mut loader = Loader::open("data/train")
///     .batch_size(256)
///     .augment(Augment::imagenet_train(224).build()?)
///     .seed(7)
///     .build()?;
/// for batch in loader.epochs(0..90) {
///     let batch = batch?;
///     let images = batch.images().and_then(|tensor| tensor.as_f32()); // [256, 3, 224, 224]
///     let labels = batch.labels();
/// }
/// println!("{}", loader.report());
/// # Ok(())
/// # }
/// ```
pub struct Loader {
    shared: Arc<Shared>,
}

/// What the threads of a run share with the loader.
struct Shared {
    source: Arc<dyn Source>,
    order: Order,
    steps: EpochSteps,
    augment: Augment,
    orientation: bool,
    limits: Limits,
    /// Of samples that are pixels alone.
    raw_shape: Option<Shape>,
    index: IndexMode,
    /// What builds the index of what has none, if that is wanted.
    recorder: Option<Recorder>,
    decoder: DecoderKind,
    engine: EngineKind,
    engine_options: EngineOptions,
    depth: usize,
    threads: usize,
    held_timeout: Duration,
    memory: MemoryPlan,
    arena: Arena,
    slots: SlotPool,
    /// The device that tensors are made on, if not the host.
    cuda: Option<cuda::Cuda>,
    /// What was not to be had of the device.
    device_fallbacks: Vec<Fallback>,
    /// Batches in the consumer's hands.
    held: Arc<AtomicUsize>,
    counters: Counters,
    /// The engine in use, once there is one.
    engine_name: Mutex<&'static str>,
    /// Set to end the run.
    stop: AtomicBool,
}

impl Loader {
    /// Describes a loader of a data set on a file system: a folder with one directory a class, tar shards
    /// (`shards/`, `train-{000..146}.tar`, `train-*.tar`), or a list file. See [`source::open`](crate::source::open).
    /// [`LoaderBuilder::build`] opens it.
    pub fn open(data_set: impl AsRef<Path>) -> LoaderBuilder {
        LoaderBuilder::new(Origin::Path(data_set.as_ref().to_owned()))
    }

    /// Describes a loader of a source of your own.
    pub fn of(source: Arc<dyn Source>) -> LoaderBuilder {
        LoaderBuilder::new(Origin::Source(source))
    }

    /// The batches of some epochs, one after another without a pause between epochs.
    ///
    /// The loader works ahead until every slot is full. Dropping the iterator at any moment, also in a
    /// panic of the consumer, ends and joins all threads; batches that were taken stay valid.
    pub fn epochs(&mut self, epochs: Range<u64>) -> Epochs<'_> {
        Epochs::start(&self.shared, epochs)
    }

    /// The batches of one epoch.
    pub fn epoch(&mut self, epoch: u64) -> Epochs<'_> {
        self.epochs(epoch..epoch.saturating_add(1))
    }

    /// Batches in every epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.shared.steps.steps()
    }

    /// The data set.
    pub fn source(&self) -> &dyn Source {
        &*self.shared.source
    }

    /// Where the tensors of its batches lie.
    pub fn device(&self) -> Device {
        self.shared.device()
    }

    /// The memory it allocated: all that the data path takes, but for the bytes of a sample that is read a second time
    /// since its index was wrong.
    pub fn memory(&self) -> MemoryPlan {
        self.shared.memory
    }

    /// What it has done since it was built.
    pub fn report(&self) -> Report {
        let shared = &self.shared;
        Report::new(
            &shared.counters,
            Setting {
                decode_threads: shared.threads,
                depth_max: shared.depth,
                engine: *lock(&shared.engine_name),
                device: shared.device(),
                memory_bound_bytes: shared.memory.total_bytes() as u64,
                device_bound_bytes: shared.memory.device_bytes as u64,
                fallbacks: [shared.source.index_fallbacks(), &shared.device_fallbacks].concat(),
                notes: shared.source.notes().to_vec(),
            },
        )
    }
}

/// The NUMA node that samples should land in, on their way to a device at a place on the PCI bus.
fn node_of(source: &dyn Source, pci: impl FnOnce() -> Option<String>) -> Option<u32> {
    if !numa::has_choice() {
        return None;
    }
    let mut path = PathBuf::new();
    let found = source.extent(0).and_then(|extent| {
        let (Extent::Object(object) | Extent::Range { object, .. }) = extent;
        source.object_path(object, &mut path)
    });
    numa::node(found.is_ok().then_some(path.as_path()), pci().as_deref())
}

impl Shared {
    /// cuFile, where it reads what the device decodes.
    fn cufile(&self) -> Option<&Arc<CuFile>> {
        self.cuda.as_ref().and_then(|cuda| cuda.cufile.as_ref())
    }

    /// The engine of a run, and what it could not have.
    fn start_engine(&self) -> Result<(Engine, Vec<Fallback>)> {
        match self.cufile() {
            Some(cufile) => Engine::with_cufile(cufile, &self.arena, self.depth, self.engine_options),
            None => Engine::new(self.engine, &self.arena, self.depth, self.engine_options),
        }
    }

    fn device(&self) -> Device {
        self.cuda.as_ref().map_or(Device::Host, cuda::Cuda::device)
    }

    /// Writes the index that the epoch just loaded has shown to be missing.
    fn write_index(&self) {
        let Some(recorder) = &self.recorder else { return };
        match recorder.write_index() {
            Ok(Some(built)) => log::info!("wrote an index of {} samples, {} files", built.samples, built.files),
            Ok(None) => {}
            Err(error) => self.counters.set_fallback(Fallback {
                what: "building an index",
                instead: "no index",
                cause: error.cause(),
                remedy: error.remedy().unwrap_or("build it with `forebay index`").to_owned(),
                count: 1,
            }),
        }
    }

    /// Says which sample an error is about: its key and where its bytes lie.
    fn name_sample(&self, tray: &Tray, index: usize, error: Error) -> Error {
        let key = tray.key(index);
        let mut path = PathBuf::new();
        let place = self.source.extent(tray.samples[index]).and_then(|extent| {
            let (object, offset) = match extent {
                Extent::Object(object) => (object, None),
                Extent::Range { object, offset, .. } => (object, Some(offset)),
            };
            self.source.object_path(object, &mut path).map(|()| offset)
        });
        error.with_sample(match place {
            Ok(None) => format!("{key} ({})", path.display()),
            Ok(Some(offset)) => format!("{key} ({} at byte {offset})", path.display()),
            Err(_) => key.to_owned(),
        })
    }
}
