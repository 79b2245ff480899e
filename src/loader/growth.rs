//! Other samples than a loader was built with: those that its data set has got since, and those of another state.

use std::sync::Arc;

use super::builder::{Found, Taken};
use super::{Loader, Shared, State};
use crate::error::{Error, ErrorKind, Result};
use crate::order::Cursor;
use crate::source::{Source, check_grown};

/// What [`Loader::refresh`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// Samples that the loader had.
    pub before: u64,
    /// Samples that it has: as many or more.
    pub now: u64,
}

impl Loader {
    /// Looks whether the data set has grown, and takes on what is new: its paths are opened again, with the indexes that lie
    /// beside them by now. To be called between epochs; the order of the next one depends on the seed, its number, and
    /// how many samples there are.
    ///
    /// What was there has to be there still, in front: new samples are new shards behind the others by name, lines at the
    /// end of a list, or files behind the others in the order of a folder. Shards are compared by path, size, time
    /// and number of samples; anything else, and what [`map_source`](super::LoaderBuilder::map_source) makes of shards by
    /// choosing samples, by all keys. Where all shards are as they were, none is opened. Weights are made anew where classes are [balanced](super::LoaderBuilder::balanced).
    ///
    /// Ranks have to take on the same number: see [`refresh_to`](Self::refresh_to). Of an epoch that was begun and not ended
    /// the rest is given up: [`state`](Self::state) is at the beginning of the next. But a loader that was resumed within an
    /// epoch leaves everything as it is until that epoch has been loaded, so that the line that started a run resumes it.
    ///
    /// Memory, engine, device and decoder stay; batches that were taken stay valid. Where there is an error, the loader
    /// is as it was.
    ///
    /// ```no_run
    /// # fn main() -> forebay::Result<()> {
    /// let mut loader = forebay::Loader::open("data/train-*.tar").build()?;
    /// for epoch in 0..90 {
    ///     let found = loader.refresh()?;
    ///     if found.now > found.before {
    ///         println!("{} more samples", found.now - found.before);
    ///     }
    ///     for batch in loader.epoch(epoch) {
    ///         let batch = batch?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Changed`, with the first difference, where it did not only grow; `Unsupported` of a mixture and of a source of your
    /// own; `InvalidParameter` where samples are drawn by weights that were given one by one; those of
    /// [`build`](super::LoaderBuilder::build) about the data set.
    pub fn refresh(&mut self) -> Result<Refreshed> {
        self.grow(None)
    }

    /// As [`refresh`](Self::refresh), and takes on just so many samples: how all ranks come to the same, however
    /// their file systems show them what is new. One calls `refresh` and tells the others how many samples that gave.
    ///
    /// # Errors
    /// Those of `refresh`; `NotFound` where fewer samples are to be seen here; `InvalidParameter` for fewer than the loader
    /// has already.
    pub fn refresh_to(&mut self, samples: u64) -> Result<Refreshed> {
        self.grow(Some(samples))
    }

    /// As [`refresh`](Self::refresh), of a source of your own: what it has become.
    ///
    /// # Errors
    /// Those of `refresh`; `Unsupported` where the loader has opened its data itself.
    pub fn refresh_with(&mut self, source: Arc<dyn Source>) -> Result<Refreshed> {
        let found = self.choice.found(source)?;
        if self.waits_for_epoch() {
            return Ok(self.unchanged());
        }
        self.take_on(found, None)
    }

    /// Goes to where another run had come to, as [`LoaderBuilder::resume`](super::LoaderBuilder::resume) does.
    ///
    /// # Errors
    /// Those of [`State`]: the loader is left as it was.
    pub fn resume(&mut self, state: State) -> Result<()> {
        let samples = state.samples_of(&self.found);
        if samples == self.shared.source.len() {
            let resumed = state.check(&self.shared.order, self.shared.data_set)?;
            (self.resumed, self.taken) = (Some(resumed), resumed);
            return Ok(());
        }
        let taken = self.choice.take(&self.found, samples)?;
        let resumed = state.check(&taken.order, taken.data_set)?;
        alone(&mut self.shared)?.replace(taken);
        (self.resumed, self.taken) = (Some(resumed), resumed);
        Ok(())
    }

    fn grow(&mut self, samples: Option<u64>) -> Result<Refreshed> {
        self.choice.check_can_grow()?;
        let before = self.shared.source.len();
        if let Some(samples) = samples.filter(|samples| *samples < before) {
            let allowed = format!("the loader has {before} samples already, and gives none of them up");
            return Err(Error::invalid_parameter("the number of samples to refresh to", samples, &allowed));
        }
        if samples == Some(before) || self.waits_for_epoch() {
            return Ok(self.unchanged());
        }
        let has_all = samples.unwrap_or(self.found.source.len()) == before;
        if has_all && self.choice.is_as_found(&self.found)? {
            return Ok(self.unchanged());
        }
        let found = self.choice.find()?;
        self.take_on(found, samples)
    }

    fn take_on(&mut self, mut found: Found, samples: Option<u64>) -> Result<Refreshed> {
        let before = self.shared.source.len();
        check_grown(&*self.shared.source, &*found.source)?;
        let len = found.source.len();
        let now = samples.unwrap_or(len);
        if now > len {
            let message = format!("the data set was to have {now} samples, and {len} are to be seen here");
            return Err(Error::new(ErrorKind::NotFound, message).with_remedy(
                "wait until this machine sees what is new (caches of a network file system), and try again",
            ));
        }
        let taken = self.choice.take(&found, now)?;
        let shared = alone(&mut self.shared)?;
        shared.recorder = found.recorder.take();
        shared.replace(taken);
        self.found = found;
        if now > before {
            log::info!("took on {} new samples: {now} now", now - before);
            if self.taken.position > 0 {
                self.taken = Cursor::start_of(self.taken.epoch.saturating_add(1));
            }
        }
        Ok(Refreshed { before, now })
    }

    /// Whether an epoch that the loader was resumed in is still to be loaded, with the samples that it was begun with.
    fn waits_for_epoch(&self) -> bool {
        let waits = self.resumed.is_some_and(|resumed| resumed.position > 0);
        if waits {
            log::info!("new samples are looked for once the epoch has ended that the run was resumed in");
        }
        waits
    }

    fn unchanged(&self) -> Refreshed {
        let samples = self.shared.source.len();
        Refreshed { before: samples, now: samples }
    }
}

impl Shared {
    fn replace(&mut self, taken: Taken) {
        let Taken { source, data_set, order, steps } = taken;
        (self.source, self.data_set, self.order, self.steps) = (source, data_set, order, steps);
    }
}

/// What threads share, while there are none.
///
/// # Errors
/// `Unsupported` where an iterator over epochs was forgotten, whose threads go on.
fn alone(shared: &mut Arc<Shared>) -> Result<&mut Shared> {
    Arc::get_mut(shared).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "a run of this loader still goes on, whose iterator was forgotten")
            .with_remedy("drop every iterator over epochs, or build another loader")
    })
}
