//! `forebay verify`: every byte of a data set against its index, every image by decoding it.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use forebay::raw::Shape;
use forebay::source::index::{self, Verified, VerifyOptions};
use serde_json::json;

use crate::environment::Environment;
use crate::ui;

/// Reads and decodes every image of a data set, and compares all that its index says: bytes, places, labels,
/// facts and entry points.
///
/// Without an index, or with one that does not fit, it decodes only, and says so. Nothing is changed.
#[derive(Args)]
pub struct Verify {
    /// A folder, tar shards (`train-{000..146}.tar`) or a list file; or several.
    #[arg(required = true, value_name = "DATASET")]
    pub datasets: Vec<String>,
    /// The folder that indexes lie in [default: beside the data].
    #[arg(long, value_name = "DIR")]
    pub index_dir: Option<PathBuf>,
    /// Threads [default: one a processor].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Dimensions of samples that are pixels without a header (.raw, .bin).
    #[arg(long, value_name = "HEIGHTxWIDTHx3")]
    pub raw_shape: Option<Shape>,
    /// Write the result here.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Verify {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<()> {
        let threads = ui::threads(self.threads)?;
        let options = VerifyOptions { dir: self.index_dir.clone(), threads, raw_shape: self.raw_shape };
        let bar = ui::bar(0, "images");
        let started = Instant::now();
        let verified = index::verify_all(&self.datasets, &options, &|done, known| {
            bar.set_length(known);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let verified = verified?;
        let elapsed_s = started.elapsed().as_secs_f64();
        ui::print(&summary(&verified, elapsed_s))?;
        if let Some(path) = &self.json {
            let result = json!({
                "schema_version": 1,
                "command": std::env::args().collect::<Vec<_>>(),
                "environment": Environment::new(),
                "images": verified.samples,
                "indexed": verified.indexed,
                "data_bytes": verified.data_bytes,
                "without_index": verified.without_index,
                "problems": verified.problems,
                "named": verified.named.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "elapsed_s": elapsed_s,
            });
            let text = serde_json::to_string_pretty(&result)?;
            std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        match verified.problems {
            0 => Ok(()),
            1 => Err(anyhow::anyhow!("1 problem")),
            problems => Err(anyhow::anyhow!("{problems} problems")),
        }
    }
}

fn summary(verified: &Verified, elapsed_s: f64) -> String {
    let mut text = format!(
        "images        {} read and decoded, {} compared with an index\nspeed         {:.0} images/s in {elapsed_s:.1} s\n",
        verified.samples,
        verified.indexed,
        verified.samples as f64 / elapsed_s.max(f64::MIN_POSITIVE),
    );
    if verified.without_index > 0 {
        text += "no index      images were decoded only; `forebay index DATASET` builds one\n";
    }
    for error in &verified.named {
        text += &format!("problem       {error}\n");
    }
    let unnamed = verified.problems - verified.named.len() as u64;
    if unnamed > 0 {
        text += &format!("problem       and {unnamed} more\n");
    }
    if verified.problems == 0 {
        text += "verdict       all well\n";
    }
    text
}
