//! `forebay bench load`: the whole path over a data set, measured.

mod beside;
mod build;
mod crops;
mod options;
mod outcome;

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use forebay::batch::Digest;
use forebay::{Batch, Error, Loader, State};

use crate::{environment, sheet, ui};
use beside::Running;
pub use options::Load;
pub use outcome::Outcome;

impl Load {
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
