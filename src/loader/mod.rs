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
//! Samples of the slots taken wait in one line for each root, the file system that they lie on, and reads are started for
//! the root with the fewest operations in flight. So all roots are read at once, and a limit on one
//! ([`limit_mbps`](LoaderBuilder::limit_mbps)) holds up no other before the slots do.
//!
//! All [views](LoaderBuilder::views) of a sample are planned together: what they need is read once, those that share much
//! are decoded as one window, whose rows go to the resizer of each, and a sample is done when all of them are.
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
//! A sample that cannot be delivered is, as [`OnError`] says, the end of the run, left out, or replaced: then its place goes
//! back to the feeding thread, which reads another sample for it the way that all go. Of a batch that has been launched
//! already, the places whose samples the device refused go round once more.
//!
//! Several loaders of a process may share their threads and reads, in a [`pool`](crate::pool). On a machine of several nodes
//! all threads of a run are bound to the node of the device, or of the storage ([`Pin`]).
//!
//! Threads live as long as an [`Epochs`] iterator; memory lives as long as the [`Loader`] and the batches taken
//! from it.

mod builder;
mod cuda;
mod direct;
mod exit;
mod feed;
mod growth;
mod judge;
mod landed;
mod lanes;
mod launch;
mod pin;
mod policy;
mod push_down;
mod ready;
mod room;
mod run;
mod seat;
mod stand_ins;
mod state;
mod tray;
mod work;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use builder::LoaderBuilder;
use builder::{Choice, Found, Origin, Part};
pub use growth::Refreshed;
use judge::BadSamplesFile;
pub use pin::Pin;
use pin::Processors;
pub use policy::{ErrorBudget, OnError};
pub use run::Epochs;
use state::DataSetId;
pub use state::State;
pub(crate) use tray::Filled;
use tray::Tray;

use crate::batch::{BadSample, Batch};
use crate::decode::DecoderKind;
use crate::device::Device;
use crate::engine::{CuFile, Depth, Engine, EngineKind, EngineOptions};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::memory::{Arena, Budget, MemoryPlan, Placement, SlotPool, numa};
use crate::order::{Cursor, EpochSteps, Order, Shard};
use crate::plan::Views;
use crate::pool::{Share, Turn};
use crate::raw::Shape;
use crate::report::{Counters, Fallback, Report, Setting, StageClock, lock};
use crate::source::index::Recorders;
use crate::source::{Extent, IndexMode, Source};
use crate::storage::ResolvedLimits;

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
    /// Which samples it takes, and what was found of them; `shared` has those that were taken on.
    choice: Choice,
    found: Found,
    /// Behind the last batch that was taken.
    taken: Cursor,
    /// Where the next run begins, if it was resumed.
    resumed: Option<Cursor>,
}

/// What the threads of a run share with the loader.
struct Shared {
    source: Arc<dyn Source>,
    /// The names of the parts of a mixture.
    parts: Vec<String>,
    order: Order,
    /// What tells the data set from others.
    data_set: DataSetId,
    steps: EpochSteps,
    views: Arc<Views>,
    orientation: bool,
    limits: Limits,
    /// Of samples that are pixels alone.
    raw_shape: Option<Shape>,
    index: IndexMode,
    /// What builds the index of what has none, if that is wanted.
    recorder: Option<Recorders>,
    decoder: DecoderKind,
    engine: EngineKind,
    engine_options: EngineOptions,
    depth: usize,
    /// Of what several loaders share, if it is one of them.
    share: Option<Share>,
    /// The processors that its threads run on, if not any.
    processors: Option<Processors>,
    rate_limits: ResolvedLimits,
    threads: usize,
    held_timeout: Duration,
    on_error: OnError,
    budget: ErrorBudget,
    bad_samples_file: Option<BadSamplesFile>,
    memory: MemoryPlan,
    /// For images that need more than a decode thread has.
    decode_budget: Budget,
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
        Self::open_all([data_set])
    }

    /// Describes a loader of several data sets as one, such as the parts of one that is spread over drives or mounts. All of
    /// them are read at once. See [`source::open_all`](crate::source::open_all).
    ///
    /// ```no_run
    /// # fn main() -> forebay::Result<()> {
    /// let loader = forebay::Loader::open_all(["/mnt/a/train-*.tar", "/mnt/b/train-*.tar"]).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_all(data_sets: impl IntoIterator<Item = impl AsRef<Path>>) -> LoaderBuilder {
        let paths = data_sets.into_iter().map(|data_set| data_set.as_ref().to_owned());
        LoaderBuilder::new(Origin::Paths(paths.collect()))
    }

    /// Describes a loader of a source of your own.
    pub fn of(source: Arc<dyn Source>) -> LoaderBuilder {
        LoaderBuilder::new(Origin::Source(source))
    }

    /// Describes a loader that mixes data sets by weights, of which only the ratios count: data sets on a file system, each
    /// as for [`open`](Self::open).
    ///
    /// An epoch has of each its share, near exactly in every batch, and as many samples as the data sets together, or as
    /// [`mixture_epoch`](LoaderBuilder::mixture_epoch) says. Every part is gone through pass after pass, also across epochs:
    /// see [`Mixture`](crate::order::Mixture). A sample that comes again in an epoch is augmented anew.
    /// [`Batch::part`](crate::Batch::part) says where a sample is from, [`Report::parts`] how many came of each.
    ///
    /// Classes are united as those of [`open_all`](Self::open_all): a class that several folders have is one class, with its
    /// place among the names of all as its label; labels of shards and lists are numbers already, and are taken as they are.
    ///
    /// ```no_run
    /// # fn main() -> forebay::Result<()> {
    /// let loader = forebay::Loader::mixture([("data/photos", 0.7), ("data/sketches", 0.3)]).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn mixture(parts: impl IntoIterator<Item = (impl AsRef<Path>, f64)>) -> LoaderBuilder {
        let parts = parts.into_iter().map(|(path, weight)| (Part::Path(path.as_ref().to_owned()), weight));
        LoaderBuilder::new(Origin::Mixture(parts.collect()))
    }

    /// As [`mixture`](Self::mixture), of sources of your own.
    pub fn mixture_of(parts: impl IntoIterator<Item = (Arc<dyn Source>, f64)>) -> LoaderBuilder {
        let parts = parts.into_iter().map(|(source, weight)| (Part::Source(source), weight));
        LoaderBuilder::new(Origin::Mixture(parts.collect()))
    }

    /// The batches of some epochs, one after another without a pause between epochs.
    ///
    /// Of a loader that was [resumed](LoaderBuilder::resume) they begin where that run had come to: the first call that
    /// reaches beyond that place leaves out what lies before it, and a call that ends before it gives none. So the line
    /// that started a run resumes it.
    ///
    /// The loader works ahead until every slot is full. Dropping the iterator at any moment, also in a
    /// panic of the consumer, ends and joins all threads; batches that were taken stay valid.
    pub fn epochs(&mut self, epochs: Range<u64>) -> Epochs<'_> {
        let mut from = Cursor::start_of(epochs.start);
        match self.resumed {
            // All of it lies before that place.
            Some(resumed) if epochs.end <= resumed.epoch => from = resumed,
            Some(resumed) => {
                self.resumed = None;
                from = from.max(resumed);
            }
            None => {}
        }
        if !epochs.is_empty() {
            self.taken = from;
        }
        Epochs::start(&self.shared, self.shared.steps.run(from, epochs.end), &mut self.taken)
    }

    /// The batches of one epoch.
    pub fn epoch(&mut self, epoch: u64) -> Epochs<'_> {
        self.epochs(epoch..epoch.saturating_add(1))
    }

    /// Batches in every epoch, of this rank.
    pub fn steps_per_epoch(&self) -> u64 {
        self.shared.steps.steps()
    }

    /// How far it has come: behind the last batch that was taken, whatever was read ahead. Before the first that is where
    /// the run begins. See [`State`].
    pub fn state(&self) -> State {
        self.shared.state(self.taken)
    }

    /// Which of several processes it loads for.
    pub fn shard(&self) -> Shard {
        self.shared.steps.shard()
    }

    /// Samples that all ranks take in one step.
    pub fn global_batch_size(&self) -> u64 {
        self.shared.steps.global_batch_size()
    }

    /// The data set.
    pub fn source(&self) -> &dyn Source {
        &*self.shared.source
    }

    /// Where the tensors of its batches lie.
    pub fn device(&self) -> Device {
        self.shared.device()
    }

    /// The memory that it takes, part by part.
    pub fn memory(&self) -> MemoryPlan {
        self.shared.memory
    }

    /// Bytes of memory for encoded samples that are in use: of samples on their way, and of reads that hang. 0 between runs
    /// whose reads have all ended.
    pub fn bytes_in_flight(&self) -> usize {
        self.shared.arena.used_bytes()
    }

    /// Where the memory that encoded samples land in lies just now. Asks the kernel, which takes milliseconds.
    pub fn placement(&self) -> Placement {
        self.shared.arena.placement()
    }

    /// What it has done since it was built.
    pub fn report(&self) -> Report {
        let shared = &self.shared;
        let simulated =
            (shared.engine == EngineKind::Sim).then(|| "storage is simulated: its times say nothing".to_owned());
        Report::new(
            &shared.counters,
            Setting {
                decode_threads: shared.threads,
                depth_max: shared.depth,
                engine: *lock(&shared.engine_name),
                device: shared.device(),
                pinned: shared
                    .processors
                    .as_ref()
                    .map(Processors::pinned)
                    .filter(|_| !shared.counters.has_fallback(Fallback::PINNED)),
                memory: shared.memory,
                decode_high_water_bytes: shared.decode_budget.high_water_bytes() as u64,
                fallbacks: [shared.source.index_fallbacks(), &shared.device_fallbacks].concat(),
                parts: shared.parts.clone(),
                notes: shared.source.notes().iter().cloned().chain(simulated).collect(),
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
        // How many operations pay is found for each root.
        let options = EngineOptions { depth: Depth::Fixed, ..self.engine_options };
        match self.cufile() {
            Some(cufile) => Engine::with_cufile(cufile, &self.arena, self.depth, options),
            None => Engine::new(self.engine, &self.arena, self.depth, options),
        }
    }

    /// The turns of a thread that decodes, and counts by this clock.
    fn turn<'a>(&'a self, clock: &'a StageClock) -> Turn<'a> {
        Turn::new(self.share.as_ref(), &self.stop, clock)
    }

    /// Binds the thread that calls to the loader's processors; where that fails it runs on any.
    fn pin_thread(&self) {
        if let Some(processors) = &self.processors
            && let Err(errno) = processors.pin_thread()
        {
            self.counters.set_fallback(Processors::unpinned(errno));
        }
    }

    /// That of a run that has come to a place.
    fn state(&self, at: Cursor) -> State {
        State::new(&self.order, self.data_set, at)
    }

    fn device(&self) -> Device {
        self.cuda.as_ref().map_or(Device::Host, cuda::Cuda::device)
    }

    /// Counts which parts of a mixture the samples of a batch are from.
    fn count_parts(&self, batch: &Batch) {
        if self.parts.is_empty() {
            return;
        }
        let mut counts = lock(&self.counters.parts);
        counts.resize(self.parts.len(), 0);
        (0..batch.len()).for_each(|index| counts[batch.part(index)] += 1);
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
        let sample = tray.sample(index);
        let mut key = String::new();
        if self.source.key(sample, &mut key).is_err() {
            key = format!("number {sample}");
        }
        let (path, offset) = self.place_of(sample);
        error.with_sample(named(&key, path.as_deref(), offset))
    }

    /// A sample that is bad at its own place in a batch.
    fn bad_sample(&self, tray: &Tray, index: usize, error: Error) -> BadSample {
        let (sample, key) = (tray.samples[index], tray.key(index).to_owned());
        let (path, offset) = self.place_of(sample);
        let name = if key.is_empty() { format!("number {sample}") } else { key.clone() };
        let error = error.with_sample(named(&name, path.as_deref(), offset));
        let (epoch, position) = (tray.step.epoch(), tray.step.first() + index as u64);
        let on_error = self.on_error;
        BadSample { epoch, position, sample, key, path, offset, error, on_error, replacement: None }
    }

    /// The file that a sample lies in, and where in it if others do too; nothing where that cannot be learned.
    fn place_of(&self, sample: u64) -> (Option<PathBuf>, Option<u64>) {
        let Ok(extent) = self.source.extent(sample) else { return (None, None) };
        let (object, offset) = match extent {
            Extent::Object(object) => (object, None),
            Extent::Range { object, offset, .. } => (object, Some(offset)),
        };
        let mut path = PathBuf::new();
        match self.source.object_path(object, &mut path) {
            Ok(()) => (Some(path), offset),
            Err(_) => (None, None),
        }
    }
}

/// A sample as errors name it.
fn named(key: &str, path: Option<&Path>, offset: Option<u64>) -> String {
    match (path, offset) {
        (Some(path), None) => format!("{key} ({})", path.display()),
        (Some(path), Some(offset)) => format!("{key} ({} at byte {offset})", path.display()),
        (None, _) => key.to_owned(),
    }
}
