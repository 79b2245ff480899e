//! `forebay index`: builds the sidecars of a data set.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use forebay::Error;
use forebay::jpeg::Grain;
use forebay::source::index::{self, BuildOptions, Built, Part};
use serde_json::{Value, json};

use crate::environment::{self, Environment};
use crate::ui;

/// Builds what is missing of a data set's index, or out of date: where each image lies, what it is, and
/// the places in it where decoding can start.
///
/// A tar shard has an index of its own beside it; a folder has one in its hidden folder `.forebay`, a
/// list one beside it. They are Arrow files, which polars, pandas and DuckDB open. The data is not
/// changed.
#[derive(Args)]
pub struct Index {
    /// A folder, tar shards (`train-{000..146}.tar`) or a list file; or several.
    #[arg(required = true, value_name = "DATASET")]
    pub datasets: Vec<String>,
    /// Bits of a scan between entry points, or `rows` for one a row of blocks: a smaller index, and more to
    /// be read and decoded for a crop.
    #[arg(long, value_name = "N|rows", default_value = "4096", value_parser = parse_grain)]
    pub entry_bits: Grain,
    /// Build part I of N (from 0) of all shards, and of each folder or list, for job arrays; `auto` asks the variables of Slurm, torchrun, MPI and
    /// Kubernetes.
    #[arg(long, value_name = "I/N|auto", default_value = "auto")]
    pub part: String,
    /// The folder that indexes lie in [default: beside the data].
    #[arg(long, value_name = "DIR")]
    pub index_dir: Option<PathBuf>,
    /// Threads [default: one a processor].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Build what is up to date too.
    #[arg(long)]
    pub force: bool,
    /// Write the result here.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Index {
    /// Of all of a data set, with everything else as by default.
    pub fn of(dataset: &str) -> Self {
        Self { part: Part::WHOLE.to_string(), ..ui::defaults(dataset) }
    }

    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<()> {
        let options = BuildOptions {
            grain: self.entry_bits,
            part: self.part()?,
            dir: self.index_dir.clone(),
            threads: ui::threads(self.threads)?,
            force: self.force,
        };
        let bar = ui::bar(0, "images");
        let (started, cpu_started) = (Instant::now(), environment::cpu_time());
        let built = index::build_all(&self.datasets, &options, &|done, known| {
            bar.set_length(known);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let built = built?;
        let times = Times { elapsed: started.elapsed(), cpu: environment::cpu_time().saturating_sub(cpu_started) };
        ui::print(&summary(&built, &times))?;
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&result(&built, &times, &options))?;
            std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        failure(built.failed)
    }

    fn part(&self) -> anyhow::Result<Part> {
        if self.part != "auto" {
            return Ok(self.part.parse()?);
        }
        let Some((part, variable)) = Part::detect(|name| std::env::var(name).ok())? else { return Ok(Part::WHOLE) };
        if part.of() > 1 {
            ui::note(&format!("part {part} by {variable}; --part 0/1 builds all of it"));
        }
        Ok(part)
    }
}

/// What building took.
struct Times {
    elapsed: Duration,
    cpu: Duration,
}

impl Times {
    fn images_per_second(&self, samples: u64) -> f64 {
        samples as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn images_per_core_second(&self, samples: u64) -> f64 {
        samples as f64 / self.cpu.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

fn summary(built: &Built, times: &Times) -> String {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut text = format!(
        "index files   {} built, {} up to date, {} failed\n",
        built.files,
        built.up_to_date,
        built.failed.len()
    );
    if built.samples > 0 {
        text += &format!("images        {}, of which {} taken over unchanged\n", built.samples, built.taken_over);
        text += &format!(
            "speed         {:.0} images/s in {:.1} s, {:.0} a second of CPU\n",
            times.images_per_second(built.samples),
            times.elapsed.as_secs_f64(),
            times.images_per_core_second(built.samples),
        );
        text += &format!(
            "size          {:.1} MiB, {:.2} % of {:.1} MiB of images\n",
            mebibytes(built.index_bytes),
            percent(built),
            mebibytes(built.data_bytes),
        );
    }
    for (cause, count) in &built.without_entries {
        text += &format!("no entries    {count}: {cause}\n");
    }
    for (name, cause) in &built.unreadable {
        text += &format!("unreadable    {name}: {cause}\n");
    }
    text
}

fn percent(built: &Built) -> f64 {
    100.0 * built.index_bytes as f64 / built.data_bytes.max(1) as f64
}

/// The result as JSON; `schema_version` changes when a field changes its meaning.
fn result(built: &Built, times: &Times, options: &BuildOptions) -> Value {
    json!({
        "schema_version": 1,
        "command": std::env::args().collect::<Vec<_>>(),
        "environment": Environment::new(),
        "part": options.part.to_string(),
        "threads": options.threads,
        "files": { "built": built.files, "up_to_date": built.up_to_date },
        "failed": built.failed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "images": built.samples,
        "taken_over": built.taken_over,
        "data_bytes": built.data_bytes,
        "index_bytes": built.index_bytes,
        "index_percent": percent(built),
        "elapsed_s": times.elapsed.as_secs_f64(),
        "cpu_s": times.cpu.as_secs_f64(),
        "images_per_second": times.images_per_second(built.samples),
        "images_per_core_second": times.images_per_core_second(built.samples),
        "without_entries": built.without_entries,
        "unreadable": built.unreadable,
    })
}

/// Says all that failed, the first as the command's own error.
fn failure(failed: Vec<Error>) -> anyhow::Result<()> {
    let mut failed = failed.into_iter();
    let Some(first) = failed.next() else { return Ok(()) };
    for other in failed {
        ui::note(&format!("error: {other}"));
    }
    Err(first.into())
}

fn parse_grain(text: &str) -> Result<Grain, String> {
    match text {
        "rows" => Ok(Grain::Rows),
        bits => bits.parse().map(Grain::Bits).map_err(|_| "expected a number of bits, or rows".to_owned()),
    }
}
