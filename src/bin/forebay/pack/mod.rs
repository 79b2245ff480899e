//! `forebay pack`: a data set as tar shards that are made for direct reads.

mod archive;
mod layout;
mod names;
mod sample;
mod shards;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use forebay::plan::{OUTPUT_SIDE_MAX, Size};
use forebay::raw::Shape;
use forebay::source::{IndexOptions, Source, open_with};
use forebay::{Error, ErrorKind, Result};
use serde_json::json;

use crate::environment::Environment;
use crate::index::Index;
use crate::ordered::in_order;
use crate::ui;
use layout::BLOCK_BYTES;
use names::Names;
use sample::{Form, Packer, Target};
use shards::{Limits, Shards, Totals};

/// Bad samples that are named.
const NAMED_MAX: u64 = 20;

/// Packs a data set into WebDataset tar shards, every image of which begins at a multiple of 4 KiB.
///
/// Reads that go around the page cache, as O_DIRECT and GPUDirect Storage do, move whole pages: an aligned image takes no
/// page that is another's too. With --jpeg the images are packed as they are; with --raw they are decoded, resized and
/// packed as NumPy arrays, whose pixels are then read where a crop lies and decoded by nobody.
///
/// A sample is KEY.jpg (.png, .webp, or .npy with --raw) and, where it has a label, KEY.cls; samples come in the order of
/// the data set. Every tar reader takes the shards: what aligns is the comment of a PAX header, and spaces in that of an
/// array. The same data set gives the same bytes with every number of threads. Shards appear under their names when all
/// of them are complete. The names of classes, where the data set is a folder, are in classes.txt, in the order of labels.
///
/// With --jpeg an image's header is read and its pixels are not decoded: `forebay verify` does that.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("form").required(true).args(["raw", "jpeg"]))]
pub struct Pack {
    /// A folder, tar shards (`train-{000..146}.tar`) or a list file
    pub dataset: String,
    /// Folder for the shards, new or empty; made if it does not exist
    pub out: PathBuf,
    /// Pack pixels, resized (antialiased, bilinear): N for a short side of N pixels, larger or smaller than it was, or
    /// HEIGHTxWIDTH for all images of one shape
    #[arg(long, value_name = "SIZE", value_parser = parse_target)]
    pub raw: Option<Target>,
    /// Pack the images as they are
    #[arg(long)]
    pub jpeg: bool,
    /// With --raw N: N rows and N columns, whatever becomes of the proportion
    #[arg(long, conflicts_with = "jpeg")]
    pub square: bool,
    /// With --raw: turn images as their EXIF orientation says, which pixels cannot say any more
    #[arg(long, conflicts_with = "jpeg")]
    pub orientation: bool,
    /// Dimensions of samples that are pixels without a header (.raw, .bin)
    #[arg(long, value_name = "HEIGHTxWIDTHx3")]
    pub raw_shape: Option<Shape>,
    /// Bytes of a shard at most; a larger sample has one of its own
    #[arg(long, value_name = "N", default_value_t = 1 << 30)]
    pub shard_bytes: u64,
    /// Samples of a shard at most [default: as many as its bytes allow]
    #[arg(long, value_name = "N")]
    pub shard_samples: Option<u64>,
    /// Bytes that images begin at multiples of: a power of two, 512 for no padding
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    pub align: u64,
    /// Leave samples out that cannot be read or decoded, and name them, instead of ending at the first
    #[arg(long)]
    pub skip_bad: bool,
    /// Build the index of the shards too
    #[arg(long)]
    pub index: bool,
    /// Threads that read and decode [default: one a processor]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Write the result here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What came of it.
struct Outcome {
    packed: Totals,
    renamed: u64,
    skipped: Vec<String>,
    skipped_count: u64,
    elapsed_s: f64,
}

impl Pack {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<()> {
        let form = self.form()?;
        let limits = self.limits()?;
        let threads = ui::threads(self.threads)?;
        let source = open_with(&self.dataset, &IndexOptions::default())?;
        claim(&self.out)?;
        let outcome = self.pack(&*source, form, limits, threads)?;
        ui::print(&self.summary(&outcome, source.notes()))?;
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&self.result(&outcome))?;
            std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        if self.index {
            Index { threads: self.threads, ..Index::of(&self.out.display().to_string()) }.run()?;
        }
        Ok(())
    }

    fn pack(&self, source: &dyn Source, form: Form, limits: Limits, threads: usize) -> Result<Outcome> {
        let started = Instant::now();
        let bar = ui::bar(source.len(), "images");
        let mut shards = Shards::new(&self.out, limits);
        let mut names = Names::default();
        let (mut skipped, mut skipped_count) = (Vec::new(), 0);
        let worker = || Packer::new(source, form, self.raw_shape);
        in_order(0..source.len(), threads, worker, Packer::pack, |number, packed| {
            bar.inc(1);
            let named = packed.and_then(|packed| {
                let name = names.give(&packed.key).map_err(|error| error.with_sample(&packed.key))?;
                Ok((name, packed))
            });
            match named {
                Ok((name, packed)) => shards.push(&name, &packed),
                Err(error) if self.skip_bad => {
                    skipped_count += 1;
                    if skipped_count <= NAMED_MAX {
                        skipped.push(error.to_string());
                    }
                    Ok(())
                }
                Err(error) => Err(name_of(source, number, error)),
            }
        })?;
        bar.finish_and_clear();
        if shards.packed.samples == 0 {
            let message = format!("none of the {} samples could be packed", source.len());
            let first = skipped.first().map_or(String::new(), |first| format!("; the first: {first}"));
            return Err(
                Error::new(ErrorKind::EmptyDataset, message + &first).with_remedy("see what is wrong with them")
            );
        }
        shards.finish(source.classes())?;
        let (packed, renamed) = (shards.packed, names.renamed);
        Ok(Outcome { packed, renamed, skipped, skipped_count, elapsed_s: started.elapsed().as_secs_f64() })
    }

    fn form(&self) -> Result<Form> {
        let size = match self.raw {
            None => return Ok(Form::Originals),
            Some(Target::ShortSide(side)) if self.square => Target::Exactly(Size::square(side)),
            Some(Target::Exactly(_)) if self.square => {
                return Err(Error::invalid_parameter("--square", true, "--raw has both sides already"));
            }
            Some(size) => size,
        };
        Ok(Form::Pixels { size, orientation: self.orientation })
    }

    fn limits(&self) -> Result<Limits> {
        let Self { shard_bytes, align: align_bytes, .. } = *self;
        if !align_bytes.is_power_of_two() || !(BLOCK_BYTES..=1 << 20).contains(&align_bytes) {
            return Err(Error::invalid_parameter(
                "--align",
                align_bytes,
                "a power of two from 512 to 1048576 is allowed",
            ));
        }
        if shard_bytes == 0 {
            return Err(Error::invalid_parameter("--shard-bytes", 0, "at least 1 is needed; every shard has a sample"));
        }
        let shard_samples = self.shard_samples.unwrap_or(u64::MAX);
        if shard_samples == 0 {
            return Err(Error::invalid_parameter("--shard-samples", 0, "at least 1 is needed"));
        }
        Ok(Limits { shard_bytes, shard_samples, align_bytes })
    }

    fn summary(&self, outcome: &Outcome, notes: &[String]) -> String {
        let Totals { samples, shards, source_bytes, image_bytes, shard_bytes, padding_bytes } = outcome.packed;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let percent = |bytes: u64| 100.0 * bytes as f64 / shard_bytes as f64;
        let mut text = format!(
            "packed        {samples} images in {shards} shard{}, {:.1} s, {:.0} images/s\n\
             bytes         {:.1} MiB in, {:.1} MiB out: {:.1} MiB of images, {:.2} % padding, {:.2} % headers and labels\n",
            if shards == 1 { "" } else { "s" },
            outcome.elapsed_s,
            samples as f64 / outcome.elapsed_s.max(f64::MIN_POSITIVE),
            mebibytes(source_bytes),
            mebibytes(shard_bytes),
            mebibytes(image_bytes),
            percent(padding_bytes),
            percent(shard_bytes - image_bytes - padding_bytes),
        );
        if outcome.renamed > 0 {
            text += &format!("renamed       {}: dots and ways up became underscores\n", outcome.renamed);
        }
        for error in &outcome.skipped {
            text += &format!("skipped       {error}\n");
        }
        let unnamed = outcome.skipped_count - outcome.skipped.len() as u64;
        if unnamed > 0 {
            text += &format!("skipped       and {unnamed} more\n");
        }
        for note in notes {
            text += &format!("note          {note}\n");
        }
        let out = self.out.display();
        text += &format!("data set      {out}\n");
        if !self.index {
            text += &format!("next          forebay index {out}\n");
        }
        text
    }

    /// The result as JSON; `schema_version` changes when a field changes its meaning.
    fn result(&self, outcome: &Outcome) -> serde_json::Value {
        let Totals { samples, shards, source_bytes, image_bytes, shard_bytes, padding_bytes } = outcome.packed;
        json!({
            "schema_version": 1,
            "command": std::env::args().collect::<Vec<_>>(),
            "environment": Environment::new(),
            "images": samples,
            "shards": shards,
            "source_bytes": source_bytes,
            "image_bytes": image_bytes,
            "shard_bytes": shard_bytes,
            "padding_bytes": padding_bytes,
            "align_bytes": self.align,
            "renamed": outcome.renamed,
            "skipped": outcome.skipped_count,
            "named": outcome.skipped,
            "elapsed_s": outcome.elapsed_s,
        })
    }
}

/// Makes the folder, and refuses one in which something is.
fn claim(dir: &Path) -> Result<()> {
    let cannot = |error| {
        Error::io(format_args!("cannot use {}", dir.display()), error)
            .with_remedy("name a folder that can be made, or is empty, and that this user may write to")
    };
    std::fs::create_dir_all(dir).map_err(cannot)?;
    if std::fs::read_dir(dir).map_err(cannot)?.next().is_some() {
        let message = format!("cannot fill {}: it is not empty", dir.display());
        return Err(
            Error::new(ErrorKind::InvalidParameter, message).with_remedy("name a new folder, or remove this one first")
        );
    }
    Ok(())
}

/// Where a sample that ended the run lies, too.
fn name_of(source: &dyn Source, sample: u64, error: Error) -> Error {
    let mut path = PathBuf::new();
    let object = match source.extent(sample) {
        Ok(forebay::source::Extent::Object(object) | forebay::source::Extent::Range { object, .. }) => object,
        Err(_) => return error,
    };
    match (source.object_path(object, &mut path), error.sample()) {
        (Ok(()), Some(key)) => {
            let name = format!("{key} ({})", path.display());
            error.with_sample(name)
        }
        _ => error,
    }
}

fn parse_target(text: &str) -> Result<Target, String> {
    let side = |text: &str| text.parse::<u32>().ok().filter(|side| (1..=OUTPUT_SIDE_MAX).contains(side));
    let target = match text.split_once('x') {
        None => side(text).map(Target::ShortSide),
        Some((height, width)) => {
            side(height).zip(side(width)).map(|(height, width)| Target::Exactly(Size { height, width }))
        }
    };
    target.ok_or_else(|| format!("expected N or HEIGHTxWIDTH, such as 256 or 256x256, of up to {OUTPUT_SIDE_MAX}"))
}
