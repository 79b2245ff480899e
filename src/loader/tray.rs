//! A batch on its way: the slot its tensors are written to, and what belongs to its samples.

use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::memory::Slot;
use crate::plan::Augment;
use crate::report::lock;
use crate::source::Source;

/// A batch while it is being filled and, when it is full, what a [`Batch`](crate::batch::Batch) owns.
///
/// While it is filled, the feeding thread and one job per unfinished sample share it; whoever lets go
/// of it last hands it over, so no count is kept beside the reference count.
pub(crate) struct Tray {
    /// Its place in the order of all batches of the run.
    pub(crate) sequence: u64,
    pub(crate) epoch: u64,
    pub(crate) step: u64,
    pub(crate) slot: Slot,
    pub(crate) augment: Augment,
    pub(crate) samples: Vec<u64>,
    pub(crate) labels: Vec<i64>,
    keys: String,
    key_ends: Vec<usize>,
    /// The samples that failed, by index. Empty in all but bad cases.
    failures: Mutex<Vec<(usize, Error)>>,
}

impl Tray {
    pub(super) fn new(sequence: u64, epoch: u64, step: u64, slot: Slot, augment: Augment) -> Self {
        Self {
            sequence,
            epoch,
            step,
            slot,
            augment,
            samples: Vec::new(),
            labels: Vec::new(),
            keys: String::new(),
            key_ends: Vec::new(),
            failures: Mutex::new(Vec::new()),
        }
    }

    /// Takes on the samples of the batch: their numbers, labels and keys.
    pub(super) fn fill(&mut self, source: &dyn Source, samples: impl Iterator<Item = u64>) -> Result<()> {
        let mut key = String::new();
        for sample in samples {
            source.key(sample, &mut key)?;
            self.samples.push(sample);
            self.labels.push(source.label(sample)?);
            self.keys.push_str(&key);
            self.key_ends.push(self.keys.len());
        }
        Ok(())
    }

    pub(crate) fn key(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.key_ends[before]);
        &self.keys[start..self.key_ends[index]]
    }

    /// Notes that a sample could not be delivered.
    pub(super) fn fail(&self, index: usize, error: Error) {
        lock(&self.failures).push((index, error));
    }

    /// The failure of the first sample that failed, whatever the order in which they did.
    pub(super) fn take_failure(&self) -> Option<Error> {
        let mut failures = lock(&self.failures);
        failures.sort_by_key(|(index, _)| *index);
        failures.drain(..).next().map(|(_, error)| error)
    }
}
