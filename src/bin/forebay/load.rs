//! `forebay bench load`: the whole path over a data set, measured.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};
use forebay::batch::Digest;
use forebay::decode::DecoderKind;
use forebay::device::DeviceChoice;
use forebay::engine::{CuFileApi, Direct, EngineKind, RequirePath};
use forebay::order::{LastBatch, Shuffle};
use forebay::plan::OUTPUT_SIDE_MAX;
use forebay::raw::Shape;
use forebay::source::{Filter, IndexMode, LabelTable, Mismatch, Source, Subset};
use forebay::{Augment, Batch, DType, Error, Geometry, Layout, Loader, Report};
use serde_json::{Value, json};

use crate::environment::{self, Environment};
use crate::{sheet, ui};

/// Loads a data set as training would, and says how fast and what held it up.
#[derive(Args)]
pub struct Load {
    /// A folder, tar shards (`train-{000..146}.tar`) or a list file.
    pub dataset: String,
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
    /// How storage is read: auto, uring, pread or cufile.
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
    /// Decode threads [default: one a processor].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Samples of a batch.
    #[arg(long, default_value_t = 128)]
    pub batch: u64,
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
    /// Deliver the samples that do not fill a last batch too.
    #[arg(long)]
    pub partial: bool,
    /// Honour EXIF orientation.
    #[arg(long)]
    pub orientation: bool,
    /// Decode JPEG at 1/2, 1/4 or 1/8 where the crop is that much larger than the output: faster, with
    /// slightly other pixels.
    #[arg(long)]
    pub dct_scaling: bool,
    /// Files being opened or read at once.
    #[arg(long, default_value_t = 32)]
    pub depth: usize,
    /// Batches that exist at once.
    #[arg(long, default_value_t = 3)]
    pub slots: usize,
    /// Compute the digest of every tensor byte, label and key, in order.
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
#[derive(Clone, Copy, ValueEnum)]
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
    pub cpu_ms_per_image: f64,
}

/// Epochs of the demo: enough to see a steady state.
const DEMO_EPOCHS: u64 = 5;

impl Load {
    /// A run over a small data set with everything else as by default.
    pub fn of(dataset: String) -> Self {
        Self {
            dataset,
            device: DeviceChoice::default(),
            decoder: DecoderKind::Auto,
            landing_bytes: None,
            scratch_bytes: None,
            fewer_slots: false,
            engine: EngineKind::Auto,
            direct: Direct::Auto,
            require_path: RequirePath::Any,
            cufile_api: CuFileApi::Auto,
            index: IndexMode::Auto,
            index_dir: None,
            raw_shape: None,
            filter: Vec::new(),
            labels: None,
            label_columns: LabelColumns::default(),
            labels_partial: false,
            balanced: false,
            threads: None,
            batch: 64,
            epochs: DEMO_EPOCHS,
            seconds: None,
            seed: 0,
            augment: Preset::ImagenetTrain,
            size: 224,
            dtype: Element::F32,
            layout: Order::Nchw,
            shuffle_block: None,
            partial: false,
            orientation: false,
            dct_scaling: false,
            depth: 32,
            slots: 3,
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
        let mut loader = self.loader()?;
        let steps = self.epochs.saturating_mul(loader.steps_per_epoch());
        let bar = ui::bar(steps.saturating_mul(self.batch), "images");
        let mut digest = self.digest.then(Digest::default);
        let classes = loader.source().classes().to_vec();
        let (started, cpu_started) = (Instant::now(), environment::cpu_time());
        for (number, batch) in loader.epochs(0..self.epochs).enumerate() {
            let batch = batch?;
            if number == 0 {
                self.preview(&batch, &classes)?;
            }
            if let Some(digest) = &mut digest {
                digest.update(&batch)?;
            }
            bar.inc(batch.len() as u64);
            if seconds.is_some_and(|seconds| started.elapsed() >= seconds) {
                break;
            }
        }
        bar.finish_and_clear();
        let cpu = environment::cpu_time().saturating_sub(cpu_started);
        let report = loader.report();
        let cpu_ms_per_image = cpu.as_secs_f64() * 1e3 / report.images.max(1) as f64;
        Ok(Outcome { report, digest: digest.map(|digest| digest.hex()), cpu_ms_per_image })
    }

    fn loader(&self) -> anyhow::Result<Loader> {
        let threads = ui::threads(self.threads)?;
        let shuffle = match self.shuffle_block {
            Some(samples_per_block) => Shuffle::Block { samples_per_block },
            None => Shuffle::Full,
        };
        let last_batch = if self.partial { LastBatch::Partial } else { LastBatch::Drop };
        // Parameters are judged before the data set is looked at.
        let augment = self.augment()?;
        if self.batch == 0 {
            return Err(Error::invalid_parameter("--batch", 0, "a batch has at least one sample").into());
        }
        let builder = Loader::open(&self.dataset)
            .augment(augment)
            .batch_size(self.batch)
            .last_batch(last_batch)
            .shuffle(shuffle)
            .seed(self.seed)
            .threads(threads)
            .depth(self.depth)
            .slots(self.slots)
            .orientation(self.orientation)
            .device(self.device)
            .decoder(self.decoder)
            .fewer_slots(self.fewer_slots)
            .engine(self.engine)
            .direct(self.direct)
            .require_path(self.require_path)
            .cufile_api(self.cufile_api)
            .index(self.index);
        let builder = match &self.index_dir {
            Some(dir) => builder.index_dir(dir),
            None => builder,
        };
        let builder = match self.raw_shape {
            Some(shape) => builder.raw_shape(shape),
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

    fn label_table(&self) -> Option<LabelTable> {
        let LabelColumns { key, label } = &self.label_columns;
        let table = LabelTable::new(self.labels.as_ref()?).columns(key, label);
        let mismatch = if self.labels_partial { Mismatch::Note } else { Mismatch::Fail };
        Some(table.repeated(mismatch).unmatched_rows(mismatch).unmatched_samples(mismatch))
    }

    fn augment(&self) -> forebay::Result<Augment> {
        if !(1..=OUTPUT_SIDE_MAX).contains(&self.size) {
            let allowed = format!("a side is 1 to {OUTPUT_SIDE_MAX} pixels");
            return Err(Error::invalid_parameter("--size", self.size, &allowed));
        }
        let builder = match self.augment {
            Preset::ImagenetTrain => Augment::imagenet_train(self.size),
            Preset::ImagenetVal => Augment::imagenet_val(self.size),
            // Pixels as decoded are bytes; --dtype and --layout speak of tensors.
            Preset::None => return Augment::builder(Geometry::None).dtype(DType::U8).layout(Layout::Nhwc).build(),
        };
        // Bytes hold pixels, not normalised values.
        let builder = if self.dtype == Element::U8 { builder.without_normalize() } else { builder };
        builder.dtype(self.dtype.into()).layout(self.layout.into()).dct_scaling(self.dct_scaling).build()
    }

    fn preview(&self, batch: &Batch, classes: &[String]) -> anyhow::Result<()> {
        match &self.preview {
            Some(path) => Ok(sheet::write_batch(batch, &self.augment()?, classes, path)?),
            None => Ok(()),
        }
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

impl Outcome {
    /// The result as JSON; `schema_version` changes when a field changes its meaning.
    pub fn json(&self) -> Value {
        let report = &self.report;
        let milliseconds = |us: u64| us as f64 / 1e3;
        let finite = |number: f64| if number.is_finite() { json!(number) } else { Value::Null };
        let stages = report.stages.iter().map(|stage| {
            json!({
                "stage": stage.stage.name(),
                "threads": stage.threads,
                "busy_s": stage.busy.as_secs_f64(),
                "starved_s": stage.starved.as_secs_f64(),
                "blocked_s": stage.blocked.as_secs_f64(),
                "capacity_images_per_second": finite(stage.capacity_images_per_second),
            })
        });
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
            "first_batch_ms": report.first_batch.map(|first| first.as_secs_f64() * 1e3),
            "batch_wait_p50_ms": milliseconds(report.batch_wait_p50_us),
            "batch_wait_p99_ms": milliseconds(report.batch_wait_p99_us),
            "peak_rss_bytes": environment::peak_rss_bytes(),
            "memory_bound_bytes": report.memory_bound_bytes,
            "device": report.device.to_string(),
            "device_bound_bytes": report.device_bound_bytes,
            "bytes_uploaded": report.bytes_uploaded,
            "digest": self.digest,
            "engine": report.engine,
            "receipts": crate::json::receipts(&report.receipts),
            "images_indexed": report.indexed,
            "images_not_indexed": report.images.saturating_sub(report.indexed),
            "index_fallbacks": report.index_fallbacks,
            "decoders": serde_json::Map::from_iter(routes),
            "stages": stages.collect::<Vec<_>>(),
            "bottleneck": report.bottleneck().name(),
            "verdict": report.verdict(),
            "fallbacks": fallbacks.collect::<Vec<_>>(),
            "notes": report.notes,
            "environment": Environment::new(),
            "command": std::env::args().collect::<Vec<_>>(),
        })
    }
}
