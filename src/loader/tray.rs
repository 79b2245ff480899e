//! A batch on its way: the slot its tensors are written to, and what belongs to its samples.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::ready::Ready;
use crate::error::{Error, Result};
use crate::memory::{FilledSlot, SampleOut, Slot};
use crate::plan::{Augment, Layout, Size};
use crate::report::lock;
use crate::source::Source;

/// What belongs to the samples of a batch, shared by the feeding thread, the jobs of its unfinished
/// samples and at last its consumer.
pub(crate) struct Tray {
    /// Its place in the order of all batches of the run.
    pub(crate) sequence: u64,
    pub(crate) epoch: u64,
    pub(crate) step: u64,
    pub(crate) augment: Augment,
    pub(crate) samples: Vec<u64>,
    pub(crate) labels: Vec<i64>,
    keys: String,
    key_ends: Vec<usize>,
    /// Rows and columns of every image, where they vary.
    sizes: Vec<AtomicU64>,
    /// The samples that failed, by index. Empty in all but bad cases.
    failures: Mutex<Vec<(usize, Error)>>,
}

impl Tray {
    pub(super) fn new(sequence: u64, (epoch, step): (u64, u64), augment: Augment) -> Self {
        Self {
            sequence,
            epoch,
            step,
            augment,
            samples: Vec::new(),
            labels: Vec::new(),
            keys: String::new(),
            key_ends: Vec::new(),
            sizes: Vec::new(),
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
        if self.augment.output_shape().is_none() {
            self.sizes.resize_with(self.samples.len(), AtomicU64::default);
        }
        Ok(())
    }

    pub(crate) fn key(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.key_ends[before]);
        &self.keys[start..self.key_ends[index]]
    }

    /// The memory of a sample whose output is of this size.
    pub(super) fn claim(&self, slot: &Slot, index: usize, size: Size, len_bytes: usize) -> Result<Option<SampleOut>> {
        match self.sizes.get(index) {
            None => Ok(slot.claim(index)),
            Some(known) => {
                // Relaxed: `SampleOut::finish` publishes it with the bytes.
                known.store(u64::from(size.height) << 32 | u64::from(size.width), Ordering::Relaxed);
                slot.claim_bytes(index, len_bytes)
            }
        }
    }

    /// Rows and columns of an image.
    pub(crate) fn size(&self, index: usize) -> Size {
        match (self.augment.output_shape(), self.augment.layout()) {
            (Some([_, height, width]), Layout::Nchw) | (Some([height, width, _]), Layout::Nhwc) => {
                Size { height: height as u32, width: width as u32 }
            }
            (None, _) => {
                let size = self.sizes[index].load(Ordering::Relaxed);
                Size { height: (size >> 32) as u32, width: size as u32 }
            }
        }
    }

    /// Notes that a sample could not be delivered, and gives up its place in the slot. `claimed` is
    /// what it had claimed before it failed.
    pub(super) fn fail(
        &self,
        slot: &Slot,
        index: usize,
        claimed: Option<SampleOut>,
        error: Error,
    ) -> Option<FilledSlot> {
        lock(&self.failures).push((index, error));
        let empty = Size { height: 0, width: 0 };
        let out = claimed.or_else(|| self.claim(slot, index, empty, 0).ok().flatten());
        out.and_then(SampleOut::finish)
    }

    /// The failure of the first sample that failed, whatever the order in which they did.
    pub(super) fn take_failure(&self) -> Option<Error> {
        let mut failures = lock(&self.failures);
        failures.sort_by_key(|(index, _)| *index);
        failures.drain(..).next().map(|(_, error)| error)
    }
}

/// A tray whose last sample is done.
pub(crate) struct Filled {
    pub(crate) tray: Arc<Tray>,
    pub(crate) slot: FilledSlot,
}

impl Ready {
    /// Hands the tray on if the sample just finished was its last.
    pub(super) fn put_if_filled(&self, tray: &Arc<Tray>, slot: Option<FilledSlot>) {
        if let Some(slot) = slot {
            self.put(tray.sequence, Filled { tray: Arc::clone(tray), slot });
        }
    }
}
