//! `forebay bench load`: the whole path over a data set, measured.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};
use forebay::batch::Digest;
use forebay::decode::DecoderKind;
use forebay::device::DeviceChoice;
use forebay::engine::{
    CuFileApi, Depth, Direct, EngineKind, EngineOptions, Polling, RequirePath, SimFaults, SimOptions,
};
use forebay::loader::Pin;
use forebay::memory::Placement;
use forebay::order::{LastBatch, Shard, Shuffle};
use forebay::plan::OUTPUT_SIDE_MAX;
use forebay::raw::Shape;
use forebay::source::{Filter, IndexMode, LabelTable, Mismatch, Source, Subset};
use forebay::storage::RateLimits;
use forebay::{
    Augment, Batch, DType, Error, ErrorBudget, Geometry, Layout, Loader, LoaderBuilder, OnError, Pool, PoolOptions,
    Report, State,
};
use serde_json::{Value, json};

use crate::beside::{Beside, Running};
use crate::crops::{Crop, Crops};
use crate::environment::{self, Environment};
use crate::{sheet, ui};

/// Loads a data set as training would, and says how fast and what held it up.
#[derive(Args)]
pub struct Load {
    /// A folder, tar shards (`train-{000..146}.tar`) or a list file; or several, such as the parts of one that is spread
    /// over drives, which are read at once.
    #[arg(required = true, value_name = "DATASET")]
    pub datasets: Vec<String>,
    /// Where tensors are made: host, cuda:N or auto.
    #[arg(long, default_value_t = DeviceChoice::default())]
    pub device: DeviceChoice,
    /// Who decodes on a CUDA device: auto, kernels, nvjpeg, nvjpeg-device or host.
    #[arg(long, default_value_t = DecoderKind::Auto)]
    pub decoder: DecoderKind,
    /// Page-locked memory for the encoded bytes of a batch on their way to a device [default: by the data set].
    #[arg(long, value_name = "BYTES")]
    pub landing_bytes: Option<usize>,
    /// Device memory between the encoded bytes and the tensors of a batch [default: 128 MiB].
    #[arg(long, value_name = "BYTES")]
    pub scratch_bytes: Option<usize>,
    /// Make do with fewer slots where device memory is short.
    #[arg(long)]
    pub fewer_slots: bool,
    /// How storage is read: auto, uring, pread or cufile; or sim, for tests.
    #[arg(long, default_value_t = EngineKind::Auto)]
    pub engine: EngineKind,
    /// Whether reads go around the page cache: auto, preferred, required or off.
    #[arg(long, default_value_t = Direct::Auto)]
    pub direct: Direct,
    /// What encoded bytes must have come to the device by: any, or direct for DMA from storage alone.
    #[arg(long, value_name = "PATH", default_value_t = RequirePath::Any)]
    pub require_path: RequirePath,
    /// Which of cuFile's interfaces reads go through: auto, batch, stream or threads.
    #[arg(long, value_name = "API", default_value_t = CuFileApi::Auto)]
    pub cufile_api: CuFileApi,
    /// Seconds that opening a file or one read may take.
    #[arg(long, value_name = "SECONDS", default_value_t = EngineOptions::READ_TIMEOUT.as_secs_f64())]
    pub read_timeout: f64,
    /// What becomes of a sample that is missing or bad: fail, replace or skip.
    #[arg(long, value_name = "POLICY", default_value_t = OnError::Fail)]
    pub on_error: OnError,
    /// How many samples of an epoch may be replaced or skipped before the run ends, or what share of those taken [default: 1%].
    #[arg(long, value_name = "N|P%")]
    pub error_budget: Option<ErrorBudget>,
    /// Append each sample that is replaced or skipped to this file, as a line of JSON.
    #[arg(long, value_name = "FILE")]
    pub bad_samples: Option<PathBuf>,
    /// Seed of the engine sim, which makes up a storage for tests.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub sim_seed: u64,
    /// What goes wrong with the engine sim: none, all, or some of short,interrupted,eio,eio-sticky,enomem,truncated,replaced,
    /// direct-open,direct-read,open,hang.
    #[arg(long, value_name = "NAME,..", default_value_t = SimFaults::NONE)]
    pub sim_faults: SimFaults,
    /// Whether an index decides which bytes are read: auto, off, required or build.
    #[arg(long, default_value_t = IndexMode::Auto)]
    pub index: IndexMode,
    /// The folder that the index lies in [default: beside the data].
    #[arg(long, value_name = "DIR")]
    pub index_dir: Option<PathBuf>,
    /// Dimensions of samples that are pixels without a header (.raw, .bin).
    #[arg(long, value_name = "HEIGHTxWIDTHx3")]
    pub raw_shape: Option<Shape>,
    /// Load only samples that this holds for, such as `label in 3,5`, `class = dog`, `key = train/*` or `width >= 256` (of
    /// the index). Given several times, all must hold. By the labels of --labels, if there are any.
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<Filter>,
    /// Take labels from this .csv, .tsv or .parquet, by key.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// The columns of --labels that hold keys and labels.
    #[arg(long, value_name = "KEY,LABEL", default_value = "key,label", requires = "labels")]
    pub label_columns: LabelColumns,
    /// Leave out rows of --labels without a sample or whose key came before, and leave samples without a row without a
    /// label: each is counted, and no error.
    #[arg(long, requires = "labels")]
    pub labels_partial: bool,
    /// Draw every class as often as every other, with replacement.
    #[arg(long, conflicts_with = "shuffle_block")]
    pub balanced: bool,
    /// Mix the data sets by these weights, one each, by ratio: every batch has its share of each, and each is gone through
    /// pass after pass.
    #[arg(long, value_name = "WEIGHT,..", value_delimiter = ',', conflicts_with = "balanced")]
    pub mix: Vec<f64>,
    /// Samples of an epoch of --mix [default: as many as all data sets have].
    #[arg(long, value_name = "SAMPLES", requires = "mix")]
    pub mix_epoch: Option<u64>,
    /// Look before every epoch whether the data set has grown, and take on what is new. For a single process.
    #[arg(long, conflicts_with_all = ["mix", "rank", "rank_from_env"])]
    pub refresh: bool,
    /// Decode threads [default: one a processor].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Where threads run on a machine of several nodes: auto, off or the number of a node.
    #[arg(long, default_value_t = Pin::Auto)]
    pub pin: Pin,
    /// Load this data set over and over at the same time, by a loader that shares --threads and --depth with the first.
    #[arg(long, value_name = "DATASET")]
    pub beside: Option<String>,
    /// What is done to its images.
    #[arg(long, value_enum, value_name = "PRESET", default_value_t = Preset::ImagenetVal, requires = "beside")]
    pub beside_augment: Preset,
    /// The first one's part of what both share, where the other's is 1.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "beside")]
    pub pool_weight: u32,
    /// Let each of both have as much as it takes, to see what sharing changes.
    #[arg(long, requires = "beside", conflicts_with = "pool_weight")]
    pub no_pool: bool,
    /// Samples of a batch, of this rank.
    #[arg(long, default_value_t = 128)]
    pub batch: u64,
    /// Samples that all ranks together take in a step, in place of --batch: the same on any number of ranks.
    #[arg(long, value_name = "SAMPLES", conflicts_with = "batch")]
    pub global_batch: Option<u64>,
    /// Load the share of this one, from 0, of several processes.
    #[arg(long, requires = "world")]
    pub rank: Option<u64>,
    /// How many processes there are.
    #[arg(long, requires = "rank")]
    pub world: Option<u64>,
    /// Take rank and world size from the variables of torchrun, MPI, Slurm or Kubernetes.
    #[arg(long, conflicts_with = "rank")]
    pub rank_from_env: bool,
    /// Begin where another run had come to: what its --save-state wrote.
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Write here how far the run has come, when it ends.
    #[arg(long, value_name = "FILE")]
    pub save_state: Option<PathBuf>,
    /// Stop after this many batches, whatever is left of the epochs.
    #[arg(long)]
    pub steps: Option<u64>,
    /// Epochs to load.
    #[arg(long, default_value_t = 1)]
    pub epochs: u64,
    /// Stop after this many seconds, whatever is left of the epochs.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Seed of the order and of every random parameter.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// What is done to every image.
    #[arg(long, value_enum, default_value_t = Preset::ImagenetTrain)]
    pub augment: Preset,
    /// Rows and columns of the output.
    #[arg(long, default_value_t = 224)]
    pub size: u32,
    /// Several crops of every sample, such as 2x224,6x96: COUNTxSIZE of each group, or COUNTxSIZE@LOW-HIGH with bounds of
    /// a random crop's area as parts of the image's.
    #[arg(long, value_name = "CROPS", conflicts_with = "size")]
    pub crops: Option<Crops>,
    /// Augment every sample this many times, each time differently.
    #[arg(long, value_name = "TIMES", default_value_t = 1, conflicts_with = "crops")]
    pub repeat: usize,
    /// Type of the output's elements.
    #[arg(long, value_enum, default_value_t = Element::F32)]
    pub dtype: Element,
    /// Order of the output's dimensions.
    #[arg(long, value_enum, default_value_t = Order::Nchw)]
    pub layout: Order,
    /// Samples in an order that reads blocks of this many neighbours together, for media that dislike
    /// random reads.
    #[arg(long)]
    pub shuffle_block: Option<u64>,
    /// Deliver the samples that do not fill a last batch too. Ranks that get none of them have a step fewer.
    #[arg(long)]
    pub partial: bool,
    /// Fill the last batch up with samples from the epoch's beginning.
    #[arg(long, conflicts_with = "partial")]
    pub pad: bool,
    /// Honour EXIF orientation.
    #[arg(long)]
    pub orientation: bool,
    /// Decode JPEG at 1/2, 1/4 or 1/8 where the crop is that much larger than the output: faster, with
    /// slightly other pixels.
    #[arg(long)]
    pub dct_scaling: bool,
    /// Files being opened or read at once, at most.
    #[arg(long, default_value_t = 32)]
    pub depth: usize,
    /// Megabytes a second that may be asked of each file system the data lies on; of one alone with the path of something
    /// on it.
    #[arg(long, value_name = "N[,PATH=N]..")]
    pub limit_mbps: Option<RateLimits>,
    /// Always as many at once as --depth allows, not as many as make the storage faster.
    #[arg(long)]
    pub fixed_depth: bool,
    /// Whether a thread of the kernel takes reads without system calls: off, preferred or required.
    #[arg(long, value_name = "POLLING", num_args = 0..=1, default_value_t = Polling::Off, default_missing_value = "required")]
    pub sqpoll: Polling,
    /// Whether completions of direct reads are polled for: off, preferred or required.
    #[arg(long, value_name = "POLLING", num_args = 0..=1, default_value_t = Polling::Off, default_missing_value = "required")]
    pub iopoll: Polling,
    /// The host memory that the loader may take in all, whatever the images are; refused where it is too little.
    #[arg(long, value_name = "MIB")]
    pub memory_mib: Option<u64>,
    /// Batches that exist at once [default: 3, or 2 where --memory-mib leaves little for more].
    #[arg(long)]
    pub slots: Option<usize>,
    /// Compute the digest of every tensor byte, label, key and place in the order. Those of ranks, and of the parts of a
    /// run that was resumed, add up to that of the whole, as 128-bit numbers.
    #[arg(long)]
    pub digest: bool,
    /// Write a contact sheet of the first batch here.
    #[arg(long, value_name = "OUT.png")]
    pub preview: Option<PathBuf>,
    /// Write the result here.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The augmentations that have a name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Preset {
    /// RandomResizedCrop, flip, normalise.
    ImagenetTrain,
    /// Resize the short side, centre crop, normalise.
    ImagenetVal,
    /// Pixels as decoded, every image of its own size.
    None,
}

/// Element types, by the names that the command line uses.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Element {
    U8,
    F16,
    Bf16,
    F32,
}

/// Layouts, by the names that the command line uses.
#[derive(Clone, Copy, ValueEnum)]
pub enum Order {
    Nchw,
    Nhwc,
}

/// The columns of a table of labels.
#[derive(Clone, Debug)]
pub struct LabelColumns {
    key: String,
    label: String,
}

impl Default for LabelColumns {
    fn default() -> Self {
        Self { key: "key".to_owned(), label: "label".to_owned() }
    }
}

impl FromStr for LabelColumns {
    type Err = Error;

    fn from_str(text: &str) -> forebay::Result<Self> {
        match text.split(',').map(str::trim).collect::<Vec<_>>()[..] {
            [key, label] if !key.is_empty() && !label.is_empty() && key != label => {
                Ok(Self { key: key.to_owned(), label: label.to_owned() })
            }
            _ => {
                Err(Error::invalid_parameter("--label-columns", text, "the names of two columns, with a comma between"))
            }
        }
    }
}

/// What a run came to.
pub struct Outcome {
    pub report: Report,
    pub digest: Option<String>,
    pub on_error: OnError,
    pub error_budget: ErrorBudget,
    pub shard: Shard,
    pub global_batch_size: u64,
    pub steps_per_epoch: u64,
    /// Views of a sample: how many in each group, and the shape of an image there.
    pub views: Vec<(usize, Option<[usize; 3]>)>,
    /// Samples of the data set at the beginning of the run, and at its end.
    pub samples: (u64, u64),
    /// What it was resumed from.
    pub resumed: Option<State>,
    /// How far it has come.
    pub state: State,
    /// Of both, where there was another beside it.
    pub cpu_ms_per_image: f64,
    /// What the other did.
    pub beside: Option<Beside>,
    /// Where the memory that encoded samples land in lay at the end.
    pub placement: Placement,
}

/// Epochs of the demo: enough to see a steady state.
const DEMO_EPOCHS: u64 = 5;

impl Load {
    /// A run over a small data set with everything else as by default.
    pub fn of(dataset: String) -> Self {
        Self {
            datasets: vec![dataset],
            device: DeviceChoice::default(),
            decoder: DecoderKind::Auto,
            landing_bytes: None,
            scratch_bytes: None,
            fewer_slots: false,
            engine: EngineKind::Auto,
            direct: Direct::Auto,
            require_path: RequirePath::Any,
            cufile_api: CuFileApi::Auto,
            read_timeout: EngineOptions::READ_TIMEOUT.as_secs_f64(),
            on_error: OnError::Fail,
            error_budget: None,
            bad_samples: None,
            sim_seed: 0,
            sim_faults: SimFaults::NONE,
            index: IndexMode::Auto,
            index_dir: None,
            raw_shape: None,
            filter: Vec::new(),
            labels: None,
            label_columns: LabelColumns::default(),
            labels_partial: false,
            balanced: false,
            mix: Vec::new(),
            mix_epoch: None,
            refresh: false,
            threads: None,
            pin: Pin::Auto,
            beside: None,
            beside_augment: Preset::ImagenetVal,
            pool_weight: 1,
            no_pool: false,
            batch: 64,
            global_batch: None,
            rank: None,
            world: None,
            rank_from_env: false,
            resume: None,
            save_state: None,
            steps: None,
            epochs: DEMO_EPOCHS,
            seconds: None,
            seed: 0,
            augment: Preset::ImagenetTrain,
            size: 224,
            crops: None,
            repeat: 1,
            dtype: Element::F32,
            layout: Order::Nchw,
            shuffle_block: None,
            partial: false,
            pad: false,
            orientation: false,
            dct_scaling: false,
            depth: 32,
            limit_mbps: None,
            fixed_depth: false,
            sqpoll: Polling::Off,
            iopoll: Polling::Off,
            memory_mib: None,
            slots: None,
            digest: false,
            preview: None,
            json: None,
        }
    }

    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<()> {
        let outcome = self.measure()?;
        ui::print(&format!("{}\n", outcome.report))?;
        ui::print(&format!("CPU           {:.3} ms an image\n", outcome.cpu_ms_per_image))?;
        ui::print(&format!("arena         {}\n", outcome.placement))?;
        if outcome.shard.world_size() > 1 {
            let (shard, samples) = (outcome.shard, outcome.global_batch_size);
            ui::print(&format!("share         {shard}, which take {samples} samples a step\n"))?;
        }
        if self.refresh {
            let (first, last) = outcome.samples;
            ui::print(&format!("samples       {first} at first, {last} at last\n"))?;
        }
        if let Some(beside) = &outcome.beside {
            ui::print(&beside.to_text(&outcome.report))?;
        }
        if let Some(digest) = &outcome.digest {
            ui::print(&format!("digest        {digest}\n"))?;
        }
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&outcome.json())?;
            std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// Loads, with a progress bar, and measures.
    pub fn measure(&self) -> anyhow::Result<Outcome> {
        let seconds = match self.seconds {
            Some(seconds) if !(seconds > 0.0 && seconds.is_finite()) => {
                return Err(Error::invalid_parameter("--seconds", seconds, "a positive number is needed").into());
            }
            seconds => seconds.map(Duration::from_secs_f64),
        };
        let resumed = self.resumed()?;
        let pool = self.pool()?;
        let mut loader = self.loader(resumed, pool.as_ref())?;
        let other = self.other().map(|other| other.loader(None, pool.as_ref())).transpose()?;
        let other = other.map(|other| Running::start(other, self.beside.clone().unwrap_or_default(), pool));
        let bar = ui::bar(self.images_ahead(&loader), "images");
        let mut digest = self.digest.then(Digest::default);
        let classes = loader.source().classes().to_vec();
        let (started, cpu_started) = (Instant::now(), environment::cpu_time());
        let first_samples = loader.source().len();
        let (mut taken, steps) = (0, self.steps.unwrap_or(u64::MAX));
        'run: for epochs in self.runs(&loader) {
            if self.refresh {
                let found = loader.refresh()?;
                bar.inc_length((found.now - found.before).saturating_mul(self.epochs - epochs.start));
            }
            let left = usize::try_from(steps - taken).unwrap_or(usize::MAX);
            for batch in loader.epochs(epochs).take(left) {
                let batch = batch?;
                if taken == 0 {
                    self.preview(&batch, &classes)?;
                }
                taken += 1;
                if let Some(digest) = &mut digest {
                    digest.update(&batch)?;
                }
                bar.inc(batch.len() as u64);
                if taken == steps || seconds.is_some_and(|seconds| started.elapsed() >= seconds) {
                    break 'run;
                }
            }
        }
        bar.finish_and_clear();
        let beside = other.map(Running::finish).transpose()?;
        let cpu = environment::cpu_time().saturating_sub(cpu_started);
        let (report, state, placement) = (loader.report(), loader.state(), loader.placement());
        if let Some(path) = &self.save_state {
            write_state(&state, path)?;
        }
        let images = report.images + beside.as_ref().map_or(0, |beside| beside.report.images);
        let cpu_ms_per_image = cpu.as_secs_f64() * 1e3 / images.max(1) as f64;
        Ok(Outcome {
            report,
            digest: digest.map(|digest| digest.hex()),
            on_error: self.on_error,
            error_budget: self.error_budget.unwrap_or_default(),
            shard: loader.shard(),
            global_batch_size: loader.global_batch_size(),
            steps_per_epoch: loader.steps_per_epoch(),
            views: self.views()?.iter().map(|(augment, count)| (*count, augment.output_shape())).collect(),
            samples: (first_samples, loader.source().len()),
            resumed,
            state,
            cpu_ms_per_image,
            beside,
            placement,
        })
    }

    /// The epochs that are loaded without a pause: all of them, or one at a time from where the run begins.
    fn runs(&self, loader: &Loader) -> impl Iterator<Item = Range<u64>> + use<> {
        let (end, each) = (self.epochs, if self.refresh { 1 } else { self.epochs.max(1) });
        let begin = if self.refresh { loader.state().epoch() } else { 0 };
        std::iter::successors(Some(begin), move |begin| begin.checked_add(each))
            .take_while(move |begin| *begin < end)
            .map(move |begin| begin..begin.saturating_add(each).min(end))
    }

    /// The images of this rank that the epochs have left.
    fn images_ahead(&self, loader: &Loader) -> u64 {
        let (state, ranks) = (loader.state(), loader.shard().world_size());
        let epoch = loader.global_batch_size() / ranks * loader.steps_per_epoch();
        let images = self.epochs.saturating_sub(state.epoch()).saturating_mul(epoch);
        let of_steps = self.steps.map_or(u64::MAX, |steps| steps.saturating_mul(loader.global_batch_size() / ranks));
        images.saturating_sub(state.position() / ranks).min(of_steps)
    }

    fn resumed(&self) -> anyhow::Result<Option<State>> {
        let Some(path) = &self.resume else { return Ok(None) };
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let state = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} holds no state that --save-state has written", path.display()))?;
        Ok(Some(state))
    }

    fn shard(&self) -> forebay::Result<Shard> {
        match (self.rank, self.world) {
            (Some(rank), Some(world)) => Shard::new(rank, world),
            _ if self.rank_from_env => Shard::from_env(),
            _ => Ok(Shard::WHOLE),
        }
    }

    /// What both loaders share, if there are two and they do.
    fn pool(&self) -> anyhow::Result<Option<Pool>> {
        if self.beside.is_none() || self.no_pool {
            return Ok(None);
        }
        Ok(Some(Pool::new(PoolOptions { threads: self.decode_threads()?, depth: self.depth })?))
    }

    /// The load beside it: the same but for what is of one data set.
    fn other(&self) -> Option<Self> {
        let Self {
            device, decoder, engine, direct, index, threads, pin, batch, size, dtype, layout, depth, slots, ..
        } = *self;
        let other = Self::of(self.beside.clone()?);
        let other = Self { device, decoder, engine, direct, index, threads, pin, batch, size, dtype, layout, ..other };
        Some(Self { augment: self.beside_augment, depth, slots, fixed_depth: self.fixed_depth, ..other })
    }

    /// Those asked for; 0 for as many as there are processors to run on.
    fn decode_threads(&self) -> forebay::Result<usize> {
        self.threads.map_or(Ok(0), |threads| ui::threads(Some(threads)))
    }

    fn loader(&self, resumed: Option<State>, pool: Option<&Pool>) -> anyhow::Result<Loader> {
        let threads = self.decode_threads()?;
        let shuffle = match self.shuffle_block {
            Some(samples_per_block) => Shuffle::Block { samples_per_block },
            None => Shuffle::Full,
        };
        let last_batch = match (self.partial, self.pad) {
            (true, _) => LastBatch::Partial,
            (false, true) => LastBatch::Pad,
            (false, false) => LastBatch::Drop,
        };
        // Parameters are judged before the data set is looked at.
        let views = self.views()?;
        if self.batch == 0 {
            return Err(Error::invalid_parameter("--batch", 0, "a batch has at least one sample").into());
        }
        if self.sim_faults != SimFaults::NONE && self.engine != EngineKind::Sim {
            let allowed = "only the engine sim has faults to order: --engine sim";
            return Err(Error::invalid_parameter("--sim-faults", self.sim_faults, allowed).into());
        }
        let read_timeout = Duration::try_from_secs_f64(self.read_timeout).ok().filter(|timeout| !timeout.is_zero());
        let read_timeout = read_timeout.ok_or_else(|| {
            Error::invalid_parameter("--read-timeout", self.read_timeout, "a positive number of seconds is needed")
        })?;
        let builder = self
            .data_sets()?
            .views(views)
            .batch_size(self.batch)
            .shard(self.shard()?)
            .last_batch(last_batch)
            .shuffle(shuffle)
            .seed(self.seed)
            .threads(threads)
            .pin(self.pin)
            .pool_weight(self.pool_weight)
            .depth(self.depth)
            .limit_mbps(self.limit_mbps.clone().unwrap_or_default())
            .depth_control(if self.fixed_depth { Depth::Fixed } else { Depth::default() })
            .sqpoll(self.sqpoll)
            .iopoll(self.iopoll)
            .orientation(self.orientation)
            .device(self.device)
            .decoder(self.decoder)
            .fewer_slots(self.fewer_slots)
            .engine(self.engine)
            .direct(self.direct)
            .require_path(self.require_path)
            .cufile_api(self.cufile_api)
            .read_timeout(read_timeout)
            .on_error(self.on_error)
            .sim(SimOptions { seed: self.sim_seed, faults: self.sim_faults, ..SimOptions::default() })
            .index(self.index);
        let builder = match pool {
            Some(pool) => builder.pool(pool),
            None => builder,
        };
        let builder = match self.global_batch {
            Some(samples) => builder.global_batch_size(samples),
            None => builder,
        };
        let builder = match resumed {
            Some(state) => builder.resume(state),
            None => builder,
        };
        let builder = match self.error_budget {
            Some(budget) => builder.error_budget(budget),
            None => builder,
        };
        let builder = match &self.bad_samples {
            Some(path) => builder.bad_samples_file(path),
            None => builder,
        };
        let builder = match &self.index_dir {
            Some(dir) => builder.index_dir(dir),
            None => builder,
        };
        let builder = match self.raw_shape {
            Some(shape) => builder.raw_shape(shape),
            None => builder,
        };
        let builder = match self.memory_mib {
            Some(mebibytes) => builder.memory_mib(mebibytes),
            None => builder,
        };
        let builder = match self.slots {
            Some(slots) => builder.slots(slots),
            None => builder,
        };
        let builder = match self.landing_bytes {
            Some(bytes) => builder.landing_bytes(bytes),
            None => builder,
        };
        let builder = match self.scratch_bytes {
            Some(bytes) => builder.scratch_bytes(bytes),
            None => builder,
        };
        let builder = if self.balanced { builder.balanced() } else { builder };
        let builder = match self.label_table() {
            Some(table) => builder.map_source(move |source| Ok(Arc::new(table.join(source)?))),
            None => builder,
        };
        let builder = match self.filter.iter().cloned().reduce(Filter::and) {
            Some(filter) => {
                builder.map_source(move |source| Ok(Arc::new(Subset::matching(source, &filter)?) as Arc<dyn Source>))
            }
            None => builder,
        };
        Ok(builder.build()?)
    }

    /// The data sets, as one or mixed.
    fn data_sets(&self) -> forebay::Result<LoaderBuilder> {
        if self.mix.is_empty() {
            return Ok(Loader::open_all(&self.datasets));
        }
        if self.mix.len() != self.datasets.len() {
            let weights = self.mix.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
            let allowed = format!("a weight for each of the {} data sets is needed", self.datasets.len());
            return Err(Error::invalid_parameter("--mix", weights, &allowed));
        }
        let builder = Loader::mixture(self.datasets.iter().zip(self.mix.iter().copied()));
        Ok(match self.mix_epoch {
            Some(samples) => builder.mixture_epoch(samples),
            None => builder,
        })
    }

    fn label_table(&self) -> Option<LabelTable> {
        let LabelColumns { key, label } = &self.label_columns;
        let table = LabelTable::new(self.labels.as_ref()?).columns(key, label);
        let mismatch = if self.labels_partial { Mismatch::Note } else { Mismatch::Fail };
        Some(table.repeated(mismatch).unmatched_rows(mismatch).unmatched_samples(mismatch))
    }

    /// The groups of views that are made of every sample.
    fn views(&self) -> forebay::Result<Vec<(Augment, usize)>> {
        match &self.crops {
            None => Ok(vec![(self.augment("--size", self.size, None)?, self.repeat)]),
            Some(Crops(crops)) => {
                let group = |crop: &Crop| Ok((self.augment("--crops", crop.size, crop.scale)?, crop.count));
                crops.iter().map(group).collect()
            }
        }
    }

    fn augment(&self, option: &str, size: u32, scale: Option<[f64; 2]>) -> forebay::Result<Augment> {
        if !(1..=OUTPUT_SIDE_MAX).contains(&size) {
            let allowed = format!("a side is 1 to {OUTPUT_SIDE_MAX} pixels");
            return Err(Error::invalid_parameter(option, size, &allowed));
        }
        let builder = match (self.augment, scale) {
            (Preset::ImagenetTrain, None) => Augment::imagenet_train(size),
            (Preset::ImagenetTrain, Some(scale)) => {
                let geometry = Geometry::RandomResizedCrop { size: size.into(), scale, ratio: [3.0 / 4.0, 4.0 / 3.0] };
                Augment::imagenet_train(size).geometry(geometry)
            }
            (Preset::ImagenetVal | Preset::None, Some(_)) => {
                let allowed = "only random crops have an area to choose: --augment imagenet-train";
                return Err(Error::invalid_parameter(option, "with bounds of an area", allowed));
            }
            (Preset::ImagenetVal, None) => Augment::imagenet_val(size),
            // Pixels as decoded are bytes; --dtype and --layout speak of tensors.
            (Preset::None, None) => {
                return Augment::builder(Geometry::None).dtype(DType::U8).layout(Layout::Nhwc).build();
            }
        };
        // Bytes hold pixels, not normalised values.
        let builder = if self.dtype == Element::U8 { builder.without_normalize() } else { builder };
        builder.dtype(self.dtype.into()).layout(self.layout.into()).dct_scaling(self.dct_scaling).build()
    }

    fn preview(&self, batch: &Batch, classes: &[String]) -> anyhow::Result<()> {
        match &self.preview {
            Some(path) => Ok(sheet::write_batch(batch, classes, path)?),
            None => Ok(()),
        }
    }
}

/// Writes a state in place of the one before it, so that one of them is there whatever ends the process.
fn write_state(state: &State, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(state)? + "\n";
    let mut unfinished = path.to_owned().into_os_string();
    unfinished.push(".writing");
    std::fs::write(&unfinished, text)
        .and_then(|()| std::fs::rename(&unfinished, path))
        .with_context(|| format!("writing {}", path.display()))
}

impl From<Element> for DType {
    fn from(element: Element) -> Self {
        match element {
            Element::U8 => Self::U8,
            Element::F16 => Self::F16,
            Element::Bf16 => Self::BF16,
            Element::F32 => Self::F32,
        }
    }
}

impl From<Order> for Layout {
    fn from(order: Order) -> Self {
        match order {
            Order::Nchw => Self::Nchw,
            Order::Nhwc => Self::Nhwc,
        }
    }
}

impl Outcome {
    /// The result as JSON; `schema_version` changes when a field changes its meaning.
    pub fn json(&self) -> Value {
        let report = &self.report;
        let milliseconds = |us: u64| us as f64 / 1e3;
        let roots = report.roots.iter().map(|root| {
            json!({
                "name": root.name,
                "device": format!("{}:{}", root.device.0, root.device.1),
                "reads": root.reads,
                "bytes": root.bytes,
                "mbps": root.mbps,
                "latency_p50_us": root.latency_p50_us,
                "latency_p99_us": root.latency_p99_us,
                "busy_s": root.busy.as_secs_f64(),
                "depth_mean": root.depth_mean,
                "depth_max": root.depth_max,
                "limit_mbps": root.limit_mbps,
                "limited_s": root.limited.as_secs_f64(),
            })
        });
        let bad = report.bad.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count)));
        let bad_samples = report.bad_samples.iter().map(|bad| bad.json());
        let parts = report.parts.iter().map(|part| json!({ "name": part.name, "images": part.images }));
        let fallbacks = report.fallbacks.iter().map(crate::json::fallback);
        let routes = report.routes.iter().map(|(route, count)| (route.name().to_owned(), json!(count)));
        json!({
            "schema_version": 1,
            "images": report.images,
            "batches": report.batches,
            "seconds": report.elapsed.as_secs_f64(),
            "images_per_second": report.images_per_second(),
            "cpu_ms_per_image": self.cpu_ms_per_image,
            "bytes_data": report.bytes_data,
            "bytes_needed": report.bytes_needed,
            "bytes_skipped": report.bytes_skipped,
            "bytes_read": report.bytes_read,
            "reads": report.reads,
            "retries": report.retries,
            "timeouts": report.timeouts,
            "depth": report.depth,
            "depth_max": report.depth_max,
            "first_batch_ms": report.first_batch.map(|first| first.as_secs_f64() * 1e3),
            "batch_wait_p50_ms": milliseconds(report.batch_wait_p50_us),
            "batch_wait_p99_ms": milliseconds(report.batch_wait_p99_us),
            "peak_rss_bytes": environment::peak_rss_bytes(),
            "memory_bound_bytes": report.memory_bound_bytes,
            "arena": crate::json::placement(&self.placement),
            "memory": crate::json::memory(&report.memory),
            "large_images": report.large_images,
            "decode_high_water_bytes": report.decode_high_water_bytes,
            "device": report.device.to_string(),
            "device_bound_bytes": report.device_bound_bytes,
            "bytes_uploaded": report.bytes_uploaded,
            "digest": self.digest,
            "beside": self.beside.as_ref().map(|beside| beside.json(report)),
            "pinned": report.pinned.map(|pinned| json!({ "node": pinned.node, "processors": pinned.processors })),
            "rank": self.shard.rank(),
            "world_size": self.shard.world_size(),
            "global_batch_size": self.global_batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "views": self.views.iter().map(|(count, shape)| json!({ "count": count, "shape": shape })).collect::<Vec<_>>(),
            "on_error": self.on_error.name(),
            "error_budget": self.error_budget.to_string(),
            "bad": serde_json::Map::from_iter(bad),
            "replaced": report.replaced,
            "skipped": report.skipped,
            "bad_samples": bad_samples.collect::<Vec<_>>(),
            "parts": parts.collect::<Vec<_>>(),
            "samples_at_first": self.samples.0,
            "samples_at_last": self.samples.1,
            "resumed_from": self.resumed,
            "state": self.state,
            "engine": report.engine,
            "receipts": crate::json::receipts(&report.receipts),
            "roots": roots.collect::<Vec<_>>(),
            "skew": report.skew(),
            "held_up_by": report.held_up_by().map(|root| &root.name),
            "images_indexed": report.indexed,
            "images_not_indexed": report.images.saturating_sub(report.indexed),
            "index_fallbacks": report.index_fallbacks,
            "decoders": serde_json::Map::from_iter(routes),
            "stages": crate::json::stages(&report.stages),
            "bottleneck": report.bottleneck().name(),
            "verdict": report.verdict(),
            "fallbacks": fallbacks.collect::<Vec<_>>(),
            "notes": report.notes,
            "environment": Environment::new(),
            "command": std::env::args().collect::<Vec<_>>(),
        })
    }
}
