//! `forebay bench io`: how fast storage is read, by the engine that loaders use.

mod blocks;
mod cache;
mod measure;
mod outcome;
mod pace;
mod pieces;
mod queue;
mod reads;
mod to_gpu;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use forebay::device::Device;
use forebay::device::cuda::{self, CudaDevice};
use forebay::engine::{CuFileApi, Depth, Direct, EngineKind, EngineOptions, Polling, RequirePath};
use forebay::storage::RateLimits;
use forebay::{Error, ErrorKind};

use crate::ui;
use blocks::Blocks;
use cache::Cached;
use measure::Run;
use outcome::{Outcome, Row};
use pace::Pace;
use pieces::Pieces;
use reads::Setup;

/// Reads a file or a data set with many reads in flight, and says how fast that is and what it costs.
///
/// One thread, one engine, as in a loader. Around the page cache unless told otherwise, so that the figure is that of
/// the storage. Reads random blocks of a file, each once before any comes again, or the samples of a data set. Bytes go to the
/// host, through the host to a GPU, or to a GPU directly.
#[derive(Args)]
pub struct BenchIo {
    /// A file, or data sets as `bench load` takes them.
    #[arg(required = true, value_name = "PATH|DATASET")]
    pub paths: Vec<PathBuf>,
    /// Bytes of a read, or several sizes to try: 4KiB,128KiB.
    #[arg(long, value_name = "SIZE,..", value_delimiter = ',', value_parser = parse_size)]
    pub block: Vec<u64>,
    /// Reads in flight, or several numbers to try.
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    pub depth: Vec<usize>,
    /// Try sizes from 4 KiB to 1 MiB and depths from 1 to 128, as far as they are not given.
    #[arg(long)]
    pub sweep: bool,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// How storage is read: auto, uring, pread, or cufile for --to gpu.
    #[arg(long, default_value_t = EngineKind::Auto)]
    pub engine: EngineKind,
    /// Megabytes a second that may be asked of each file system the data lies on; of one alone with the path of something
    /// on it. Reads begin in their order, but that others overtake those of one that has to wait. What fails and is asked
    /// again counts too.
    #[arg(long, value_name = "N[,PATH=N]..")]
    pub limit_mbps: Option<RateLimits>,
    /// Whether reads go around the page cache: auto, preferred, required or off.
    #[arg(long, default_value_t = Direct::Preferred)]
    pub direct: Direct,
    /// What bytes must have come to a GPU by: any, or direct for DMA from storage alone.
    #[arg(long, value_name = "PATH", default_value_t = RequirePath::Any)]
    pub require_path: RequirePath,
    /// Which of cuFile's interfaces reads go through: auto, batch, stream or threads.
    #[arg(long, value_name = "API", default_value_t = CuFileApi::Auto)]
    pub cufile_api: CuFileApi,
    /// Begin with a few reads in flight and have as many as make the storage faster, up to --depth.
    #[arg(long)]
    pub adapt_depth: bool,
    /// Reads that io_uring gathers before the kernel is told of them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub submit_batch: usize,
    /// Whether a thread of the kernel takes reads without system calls: off, preferred or required.
    #[arg(long, value_name = "POLLING", num_args = 0..=1, default_value_t = Polling::Off, default_missing_value = "required")]
    pub sqpoll: Polling,
    /// Whether completions of direct reads are polled for: off, preferred or required.
    #[arg(long, value_name = "POLLING", num_args = 0..=1, default_value_t = Polling::Off, default_missing_value = "required")]
    pub iopoll: Polling,
    /// Threads of the pread engine [default: one for each read in flight, at most 32].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Reads to the host land in pages of the smallest size, to compare with what has no others.
    #[arg(long)]
    pub small_pages: bool,
    /// What is read [default: random of a file, dataset of anything else].
    #[arg(long, value_enum)]
    pub pattern: Option<Pattern>,
    /// Where the bytes go [default: host, or gpu by the engine cufile].
    #[arg(long, value_enum)]
    pub to: Option<Destination>,
    /// Measure every destination that this machine has, and say why it has not the others.
    #[arg(long, conflicts_with = "to")]
    pub compare: bool,
    /// The device that bytes go to.
    #[arg(long, value_name = "cuda:N", default_value = "cuda:0")]
    pub device: Device,
    /// Make the file if it is not there, or is smaller: of blocks that say where they belong.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub create: Option<u64>,
    /// Check every byte that is read of a file that --create has made. The CPU time includes it.
    #[arg(long)]
    pub verify: bool,
    /// Drop what the page cache holds of the data before each measurement, as far as the kernel does.
    #[arg(long)]
    pub cold: bool,
    /// Seed of the order, and of what --create writes.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write the result here.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What is read.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// Blocks of a file in random order.
    Random,
    /// Blocks of a file one after the other.
    Sequential,
    /// The samples of a data set in random order, each as a whole.
    Dataset,
}

/// Where bytes go.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Destination {
    /// Host memory.
    Host,
    /// Host memory that is page-locked, and on to a GPU.
    GpuViaHost,
    /// The memory of a GPU, by cuFile.
    Gpu,
}

/// What is tried unless asked for otherwise: alone, and by --sweep.
const BLOCK: u64 = 128 << 10;
const BLOCKS_SWEPT: [u64; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const DEPTH: usize = 32;
const DEPTHS_SWEPT: [usize; 5] = [1, 4, 16, 64, 128];
/// The largest read.
const BLOCK_MAX: u64 = 1 << 30;

impl BenchIo {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<()> {
        let seconds = self.seconds()?;
        let limits = self.limit_mbps.clone().unwrap_or_default();
        let path = self.path()?;
        if let Some(len_bytes) = self.create {
            blocks::create(path, len_bytes, self.seed)?;
        }
        Pace::new(&limits)?;
        let pattern = self.pattern();
        let blocks = self.blocks(path, pattern)?;
        let cases = self.cases(pattern)?;
        let mut outcome = Outcome::new(&self.paths, &limits);
        let destinations = self.destinations()?;
        if let (Device::Cuda(ordinal), true) = (self.device, destinations != [Destination::Host]) {
            let probe = cuda::probe();
            outcome.is_simulated = probe.devices().get(ordinal as usize).is_some_and(CudaDevice::is_simulated);
        }
        for to in destinations {
            for &(block, depth) in &cases {
                let setup = Setup { depth, ..self.setup()? };
                match self.measure(pattern, to, block, setup, seconds, blocks.as_ref()) {
                    Ok(row) => outcome.rows.push(row),
                    // What was asked for by name is an error; what is one of several is told.
                    Err(error) if self.compare && to != Destination::Host && is_of_machine(&error) => {
                        outcome.not_run.push((to, error));
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        ui::print(&outcome.text())?;
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&outcome.json())?;
            std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn measure(
        &self,
        pattern: Pattern,
        to: Destination,
        block: u64,
        setup: Setup,
        seconds: Duration,
        blocks: Option<&Blocks>,
    ) -> forebay::Result<Row> {
        let mut pieces = Pieces::new(&self.paths, pattern, block, self.seed)?;
        let setup = Setup {
            data_bytes: pieces.data_bytes(),
            piece_bytes: pieces.piece_bytes_max(),
            is_uniform: pattern != Pattern::Dataset,
            ..setup
        };
        let mut reads = reads::to(to, &setup, self.device)?;
        let cached = Cached::before(&pieces, self.cold)?;
        let pace = Pace::new(&self.limit_mbps.clone().unwrap_or_default())?;
        let run = Run { reads: reads.as_mut(), pieces: &mut pieces, depth: setup.depth, seconds, pace, blocks };
        let measured = run.measure()?;
        let block = if pattern == Pattern::Dataset { None } else { Some(block) };
        Ok(Row { to, pattern, block, depth: setup.depth, cached: cached.after(&pieces)?, measured })
    }

    /// The file, or the first data set.
    ///
    /// # Errors
    /// `InvalidParameter` for several of which one is to be read as a file.
    fn path(&self) -> forebay::Result<&Path> {
        let may_be_several = self.create.is_none() && matches!(self.pattern, None | Some(Pattern::Dataset));
        match &self.paths[..] {
            [first, rest @ ..] if rest.is_empty() || may_be_several => Ok(first),
            several => {
                let allowed = "one file is read at a time; several data sets with --pattern dataset";
                Err(Error::invalid_parameter("PATH", format!("{} paths", several.len()), allowed))
            }
        }
    }

    /// What is read, where that is left to us.
    fn pattern(&self) -> Pattern {
        let is_file = matches!(&self.paths[..], [only] if only.is_file());
        self.pattern.unwrap_or(if is_file { Pattern::Random } else { Pattern::Dataset })
    }

    fn seconds(&self) -> forebay::Result<Duration> {
        let seconds = Duration::try_from_secs_f64(self.seconds).ok().filter(|seconds| !seconds.is_zero());
        seconds.ok_or_else(|| Error::invalid_parameter("--seconds", self.seconds, "a positive number is needed"))
    }

    fn setup(&self) -> forebay::Result<Setup> {
        Ok(Setup {
            engine: self.engine,
            direct: self.direct,
            require_path: self.require_path,
            cufile_api: self.cufile_api,
            threads: self.threads.map(|threads| ui::threads(Some(threads))).transpose()?.unwrap_or(0),
            depth: DEPTH,
            small_pages: self.small_pages,
            options: EngineOptions {
                depth: if self.adapt_depth { Depth::default() } else { Depth::Fixed },
                sqpoll: self.sqpoll,
                iopoll: self.iopoll,
                submit_batch: self.submit_batch,
                ..EngineOptions::default()
            },
            data_bytes: None,
            piece_bytes: 0,
            is_uniform: false,
        })
    }

    /// Of what the data consists, where it is to be checked.
    fn blocks(&self, path: &Path, pattern: Pattern) -> forebay::Result<Option<Blocks>> {
        match (self.verify, pattern) {
            (false, _) => Ok(None),
            (true, Pattern::Dataset) => {
                let allowed = "only a file that --create has made can be checked: --pattern random or sequential";
                Err(Error::invalid_parameter("--verify", "given with a data set", allowed))
            }
            (true, _) => Ok(Some(Blocks::of(path, self.seed)?)),
        }
    }

    fn destinations(&self) -> forebay::Result<Vec<Destination>> {
        if self.compare && self.engine != EngineKind::Sim {
            return Ok(vec![Destination::Host, Destination::GpuViaHost, Destination::Gpu]);
        }
        match (self.to, self.engine) {
            (_, EngineKind::Sim) => {
                let allowed = "it makes up a storage for tests, and its times say nothing: use another engine";
                Err(Error::invalid_parameter("--engine", self.engine, allowed))
            }
            (None, EngineKind::CuFile) => Ok(vec![Destination::Gpu]),
            (Some(Destination::Host | Destination::GpuViaHost), EngineKind::CuFile) => {
                let allowed = "cuFile reads to a GPU: use --to gpu, or another engine";
                Err(Error::invalid_parameter("--to", "the host's memory", allowed))
            }
            (Some(Destination::Gpu), EngineKind::Uring | EngineKind::Pread) => {
                let allowed = "cuFile alone reads to a GPU: use auto or cufile, or --to gpu-via-host";
                Err(Error::invalid_parameter("--engine", self.engine, allowed))
            }
            (to, _) => Ok(vec![to.unwrap_or(Destination::Host)]),
        }
    }

    /// Every size with every depth; a data set has its own sizes.
    fn cases(&self, pattern: Pattern) -> forebay::Result<Vec<(u64, usize)>> {
        let blocks: &[u64] = match (&self.block[..], self.sweep) {
            (_, _) if pattern == Pattern::Dataset => &[0],
            ([], true) => &BLOCKS_SWEPT,
            ([], false) => &[BLOCK],
            (given, _) => given,
        };
        let depths: &[usize] = match (&self.depth[..], self.sweep) {
            ([], true) => &DEPTHS_SWEPT,
            ([], false) => &[DEPTH],
            (given, _) => given,
        };
        if pattern == Pattern::Dataset && !self.block.is_empty() {
            let allowed = "the samples of a data set have their own sizes; name a file, or --pattern random";
            return Err(Error::invalid_parameter("--block", "given with a data set", allowed));
        }
        if pattern != Pattern::Dataset
            && let Some(block) = blocks.iter().find(|block| !(1..=BLOCK_MAX).contains(*block))
        {
            return Err(Error::invalid_parameter("--block", block, "1 byte to 1 GiB are possible"));
        }
        Ok(blocks.iter().flat_map(|block| depths.iter().map(move |depth| (*block, *depth))).collect())
    }
}

/// Whether an error is about what this machine has, and not about the data.
fn is_of_machine(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutOfMemory | ErrorKind::DeviceLost)
}

impl Destination {
    /// The name on the command line and in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::GpuViaHost => "gpu-via-host",
            Self::Gpu => "gpu",
        }
    }
}

impl Pattern {
    /// The name on the command line and in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Sequential => "sequential",
            Self::Dataset => "dataset",
        }
    }
}

/// A number of bytes: 4096, 128KiB, 128k, 4GiB.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kib" => Some(10),
        "m" | "mib" => Some(20),
        "g" | "gib" => Some(30),
        "t" | "tib" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|shift| number.parse::<u64>().ok()?.checked_mul(1 << shift));
    bytes.ok_or_else(|| "expected a number of bytes, such as 4096, 128KiB or 4GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let sizes = [("4096", 4096), ("128KiB", 128 << 10), ("4k", 4096), ("1M", 1 << 20), ("2GiB", 2 << 30)];
        assert!(sizes.iter().all(|(text, bytes)| parse_size(text) == Ok(*bytes)));
        for none in ["", "KiB", "-1", "1.5M", "1kB2", "99999999999999999999", "99999999999T", "4 KiB"] {
            assert!(parse_size(none).is_err(), "{none:?}");
        }
    }
}
