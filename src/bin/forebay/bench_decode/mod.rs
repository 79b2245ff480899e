//! `forebay bench decode`: JPEG decoders beside each other, from memory to memory.

mod contenders;
mod outcome;
mod samples;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use forebay::{Augment, Error, Geometry, Rect};
use nix::time::{ClockId, clock_gettime};

use crate::ui;
use contenders::{Contender, Decode};
use outcome::{Outcome, Score};
use samples::{Sample, Samples};

/// Decodes the same photos with this decoder and with others, in turn, and compares their speed and pixels.
///
/// Whole images, and random crops as training draws them, with and without entry points. Files lie in memory
/// before the clock starts; every decoder writes all its pixels to memory that it is given, where it takes any.
/// MB/s counts the bytes of the files, MP/s the pixels that came out; ms is CPU time.
#[derive(Args)]
pub struct BenchDecode {
    /// JPEG files, or a data set as `bench load` takes it [default: photos made for the purpose].
    pub inputs: Vec<String>,
    /// Photos to take, spread evenly over a data set.
    #[arg(long, default_value_t = 256)]
    pub samples: u64,
    /// Threads that decode at once, each a decoder of its own.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Times that every decoder has its turn.
    #[arg(long, default_value_t = 5)]
    pub rounds: u64,
    /// Share of an image's area that a random crop takes.
    #[arg(long, value_name = "LOW,HIGH", default_value = "0.08,1", value_parser = parse_scale)]
    pub scale: [f64; 2],
    /// Rows and columns that crops are resized to, which widens them by what the filter touches.
    #[arg(long, default_value_t = 224)]
    pub size: u32,
    /// Seed of the crops.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write the result here.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A contender in the ring: a decoder a thread, and what it has shown so far.
struct Entrant {
    contender: Contender,
    threads: Vec<Box<dyn Decode>>,
    score: Score,
}

impl BenchDecode {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<()> {
        let threads = ui::threads(Some(self.threads))?;
        if self.rounds == 0 || self.samples == 0 {
            let name = if self.rounds == 0 { "--rounds" } else { "--samples" };
            return Err(Error::invalid_parameter(name, 0, "at least 1 is needed").into());
        }
        let geometry =
            Geometry::RandomResizedCrop { size: self.size.into(), scale: self.scale, ratio: [0.75, 4.0 / 3.0] };
        let augment = Augment::builder(geometry).build()?;
        let samples = Samples::load(&self.inputs, self.samples)?;
        let mut outcome = Outcome::new(&samples, threads, self.rounds);
        let regions = samples.regions(&augment, self.seed, 0)?;
        let bar = ui::bar((1 + self.rounds) * contenders::ALL.len() as u64, "turns");
        let mut entrants = Vec::new();
        for &contender in contenders::ALL {
            match Entrant::enter(contender, threads, &samples, &regions) {
                Ok(entrant) => entrants.push(entrant),
                Err(error) => outcome.withdrawn(contender, &error),
            }
            bar.inc(1);
        }
        for round in 1..=self.rounds {
            let regions = samples.regions(&augment, self.seed, round)?;
            for entrant in &mut entrants {
                entrant.turn(&samples, &regions)?;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        outcome.rank(entrants.into_iter().map(|entrant| (entrant.contender, entrant.score)));
        ui::print(&outcome.text())?;
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&outcome.json())?;
            std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

impl Entrant {
    /// Warms up with one pass over the samples, during which the pixels are compared.
    fn enter(contender: Contender, threads: usize, samples: &Samples, regions: &[Rect]) -> anyhow::Result<Self> {
        let mut reference = contenders::ALL[0].start();
        let mut own = contender.start();
        let mut score = Score::default();
        for (sample, &region) in samples.list.iter().zip(regions) {
            let region = contender.region(sample, region);
            own.decode(sample, region).with_context(|| sample.name.clone())?;
            if let Some(pixels) = own.pixels() {
                reference.decode(sample, sample.whole())?;
                score.compare(&pixels, &reference.pixels().context("the reference has pixels")?);
            }
        }
        let mut all = vec![own];
        all.resize_with(threads, || contender.start());
        Ok(Self { contender, threads: all, score })
    }

    /// One pass over the samples, each thread taking the next that is left.
    fn turn(&mut self, samples: &Samples, regions: &[Rect]) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let times = Mutex::new(Vec::with_capacity(samples.list.len()));
        let contender = self.contender;
        let work = |decoder: &mut Box<dyn Decode>| -> anyhow::Result<()> {
            let mut own = Vec::with_capacity(samples.list.len());
            while let Some(sample) = samples.list.get(next.fetch_add(1, Ordering::Relaxed)) {
                let region = contender.region(sample, regions[sample.number]);
                let began = thread_time()?;
                decoder.decode(sample, region)?;
                own.push(thread_time()? - began);
            }
            times.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).append(&mut own);
            Ok(())
        };
        let started = Instant::now();
        std::thread::scope(|scope| {
            let running: Vec<_> = self.threads.iter_mut().map(|decoder| scope.spawn(|| work(decoder))).collect();
            running.into_iter().try_for_each(|thread| match thread.join() {
                Ok(done) => done,
                Err(_) => anyhow::bail!("{} panicked", contender.decoder),
            })
        })?;
        let wall = started.elapsed();
        let pixels = samples.list.iter().map(|sample| contender.pixels(sample, regions[sample.number])).sum();
        let times = times.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.score.add(wall, times, samples.len_bytes, pixels);
        Ok(())
    }
}

/// CPU time of the calling thread: on a machine that others use too, what a decoder took is still its own.
fn thread_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn parse_scale(text: &str) -> Result<[f64; 2], String> {
    let parsed = text.split_once(',').and_then(|(low, high)| Some([low.parse().ok()?, high.parse().ok()?]));
    parsed.ok_or_else(|| "expected LOW,HIGH: two shares of the area, such as 0.08,1".into())
}
