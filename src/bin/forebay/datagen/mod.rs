//! `forebay datagen`: valid, photo-like JPEGs by a size law, for trying and measuring without a data set.

mod encode;
mod huffman;
mod preview;
mod random;
mod recipe;
mod scene;
mod shape;
mod texture;
mod write;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use forebay::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::ordered::in_order;
use crate::{picture, ui};
pub use recipe::Recipe;
pub use write::write_whole;
use write::{Sample, Sink};

/// Makes photo-like JPEGs: overlapping shaded shapes with natural textures, 1/f spectrum, sizes and bytes
/// as in ImageNet (about 500x375 and 110 KB), Huffman tables of their own, 4:4:4 and 4:2:0.
///
/// The same seed gives the same files on every machine and with every number of threads, and the same
/// samples, keys and labels as folder and as tar.
///
/// DIR must be new or empty. Where an earlier run of the very same command was interrupted, it continues;
/// where it was completed, nothing is done. Any other content is left alone and refused.
#[derive(Args, Clone, Debug)]
pub struct Datagen {
    /// Directory to fill; made if it does not exist
    pub dir: PathBuf,
    #[command(flatten)]
    pub options: Options,
    /// Threads that draw and encode [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Write a contact sheet of samples spread over the data set, as .png or .ppm
    #[arg(long, value_name = "OUT")]
    pub preview: Option<PathBuf>,
}

/// What decides the bytes of a data set.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Pictures
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub count: u64,
    /// Classes, each with its own colour and form of subject
    #[arg(long, value_name = "K", default_value_t = 10)]
    pub classes: u32,
    /// Another seed gives other pictures
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// folder: DIR/class/name.jpg; tar: WebDataset shards DIR/shard-000000.tar
    #[arg(long, value_enum, default_value_t = Format::Folder)]
    pub format: Format,
    /// Samples in one tar shard
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub shard_samples: u64,
    /// Colour sampling; mixed is three quarters 4:4:4 and one quarter 4:2:0, as measured on ImageNet photos
    #[arg(long, value_enum, default_value_t = Sampling::Mixed)]
    pub sampling: Sampling,
    /// Median of the longer side in pixels; most pictures have it, 4:3 or 3:2, two thirds of them landscape
    #[arg(long, value_name = "PIXELS", default_value_t = 500, conflicts_with = "size")]
    pub long_side: u32,
    /// All pictures of exactly this size instead of by the law
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub size: Option<(u32, u32)>,
    /// Mean encoded bits per pixel; they vary normally with a deviation of 45 %. 4.7 gives 110 KB at 500x375
    #[arg(long, value_name = "BITS", default_value_t = 4.7)]
    pub bits_per_pixel: f32,
    /// MCUs between restart markers; 0 writes none, as photos have none
    #[arg(long, value_name = "MCUS", default_value_t = 0)]
    pub restart_interval: u16,
}

/// How the samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One file a sample.
    Folder,
    /// Many samples a file.
    Tar,
}

/// Colour sampling of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// 4:4:4 and 4:2:0 as 3 to 1.
    Mixed,
    /// 4:2:0.
    #[value(name = "420")]
    Half,
    /// 4:4:4.
    #[value(name = "444")]
    Full,
}

/// What a run did.
pub struct Summary {
    /// Pictures in the data set.
    pub samples: u64,
    /// Of these, those made now; the others were there.
    pub made: u64,
    /// Encoded bytes made now.
    pub len_bytes: u64,
}

impl Datagen {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        let threads = ui::threads(self.threads)?;
        if let Some(preview) = &self.preview {
            picture::check_extension(preview)?;
        }
        let started = Instant::now();
        let summary = generate(&self.dir, &self.options, threads)?;
        ui::print(&self.describe(&summary, started.elapsed()))?;
        if let Some(preview) = &self.preview {
            preview::write(preview, &Recipe::new(self.options))?;
            ui::print(&format!("preview: {}\n", preview.display()))?;
        }
        Ok(())
    }

    fn describe(&self, summary: &Summary, time: Duration) -> String {
        let Summary { samples, made, len_bytes } = *summary;
        let dir = self.dir.display();
        if made == 0 {
            return format!("{dir} already holds these {samples} samples\n");
        }
        let (seconds, classes) = (time.as_secs_f64(), self.options.classes);
        format!(
            "{dir}: {samples} samples in {classes} classes, {made} made in {seconds:.1} s ({:.0} images/s), \
             {:.1} MB, {:.1} KB each\n",
            made as f64 / seconds,
            len_bytes as f64 / 1e6,
            len_bytes as f64 / 1e3 / made as f64,
        )
    }
}

impl Default for Options {
    /// What the command line gives without options.
    fn default() -> Self {
        Self {
            count: 1000,
            classes: 10,
            seed: 0,
            format: Format::Folder,
            shard_samples: 1000,
            sampling: Sampling::Mixed,
            long_side: 500,
            size: None,
            bits_per_pixel: 4.7,
            restart_interval: 0,
        }
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        let in_range = |name: &str, value: u64, low: u64, high: u64| {
            let fits = (low..=high).contains(&value);
            if fits {
                Ok(())
            } else {
                Err(Error::invalid_parameter(name, value, &format!("allowed are {low} to {high}")))
            }
        };
        in_range("--count", self.count, 1, 99_999_999)?;
        in_range("--classes", self.classes.into(), 1, 10_000)?;
        in_range("--shard-samples", self.shard_samples, 1, u64::MAX)?;
        in_range("--long-side", self.long_side.into(), 16, 16_384)?;
        if let Some((width, height)) = self.size {
            in_range("--size (width)", width.into(), 1, 16_384)?;
            in_range("--size (height)", height.into(), 1, 16_384)?;
        }
        if !(0.1..=24.0).contains(&self.bits_per_pixel) {
            let (name, value) = ("--bits-per-pixel", self.bits_per_pixel);
            return Err(Error::invalid_parameter(name, value, "allowed are 0.1 to 24"));
        }
        Ok(())
    }
}

/// Fills `dir`. See [`Datagen`] for what it promises.
pub fn generate(dir: &Path, options: &Options, threads: usize) -> Result<Summary> {
    options.check()?;
    let mut manifest = Manifest { schema_version: 1, options: options.clone(), complete: false };
    if manifest.claim(dir)? {
        return Ok(Summary { samples: options.count, made: 0, len_bytes: 0 });
    }
    let mut sink = match options.format {
        Format::Folder => Sink::Folder(dir.to_owned()),
        Format::Tar => Sink::shards(dir, options.shard_samples),
    };
    let summary = produce(&Recipe::new(options.clone()), &mut sink, threads)?;
    manifest.complete = true;
    manifest.write(dir)?;
    Ok(summary)
}

/// Workers draw and encode; this thread writes in order, so that the same code fills folders and tars.
fn produce(recipe: &Recipe, sink: &mut Sink, threads: usize) -> Result<Summary> {
    let missing: Vec<u64> = (0..recipe.len()).filter(|&n| !sink.has(n, &recipe.key(n))).collect();
    let bar = ui::bar(missing.len() as u64, "images");
    let mut summary = Summary { samples: recipe.len(), made: 0, len_bytes: 0 };
    let make = |_: &mut (), number| Ok(recipe.make(number));
    in_order(
        missing.iter().copied(),
        threads,
        || (),
        make,
        |number, sample: Result<Sample>| {
            let sample = sample?;
            sink.write(number, &sample)?;
            summary.made += 1;
            summary.len_bytes += sample.jpeg.len() as u64;
            bar.inc(1);
            Ok(())
        },
    )?;
    sink.finish()?;
    bar.finish_and_clear();
    Ok(summary)
}

/// Says what a directory was made from and whether all of it is there.
#[derive(Serialize, Deserialize)]
struct Manifest {
    schema_version: u32,
    options: Options,
    complete: bool,
}

impl Manifest {
    const NAME: &str = ".forebay-datagen.json";

    /// Makes the directory this data set's own. True if it already holds all of it.
    fn claim(&self, dir: &Path) -> Result<bool> {
        let cannot = |error| Error::io(format_args!("cannot use {}", dir.display()), error);
        std::fs::create_dir_all(dir).map_err(cannot)?;
        let earlier = std::fs::read(dir.join(Self::NAME)).ok();
        if let Some(earlier) = earlier.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok()) {
            if earlier.schema_version == self.schema_version && earlier.options == self.options {
                return Ok(earlier.complete);
            }
            return Err(occupied(dir, "holds a data set made with other options"));
        }
        if std::fs::read_dir(dir).map_err(cannot)?.next().is_some() {
            return Err(occupied(dir, "is not empty"));
        }
        self.write(dir)?;
        Ok(false)
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot describe the data set: {e}")))?;
        write_whole(&dir.join(Self::NAME), &text)
    }
}

fn occupied(dir: &Path, why: &str) -> Error {
    Error::new(ErrorKind::InvalidParameter, format!("cannot fill {}: it {why}", dir.display()))
        .with_remedy("name a new directory, or remove this one first")
}

fn parse_size(text: &str) -> std::result::Result<(u32, u32), String> {
    let parsed = text.split_once(['x', 'X']).and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parsed.ok_or_else(|| "expected WIDTHxHEIGHT, such as 4000x3000".into())
}
