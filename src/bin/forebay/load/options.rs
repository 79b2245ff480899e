//! What `bench load` can be told.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use forebay::decode::DecoderKind;
use forebay::device::DeviceChoice;
use forebay::engine::{CuFileApi, Direct, EngineKind, EngineOptions, Polling, RequirePath, SimFaults};
use forebay::loader::Pin;
use forebay::raw::Shape;
use forebay::source::{Filter, IndexMode};
use forebay::storage::RateLimits;
use forebay::{DType, Error, ErrorBudget, Layout, OnError};

use super::crops::Crops;
use crate::ui;

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
    pub(super) key: String,
    pub(super) label: String,
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

impl Load {
    /// A run over a data set with everything else as by default.
    pub fn of(dataset: &str) -> Self {
        ui::defaults(dataset)
    }
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
