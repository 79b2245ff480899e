//! A batch on its way: the slot its tensors are written to, and what belongs to its samples.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_channel::Sender;

use super::landed::Landed;
use super::ready::Ready;
use crate::decode::kernels::Needs;
use crate::decode::nvjpeg;
use crate::error::{Error, Result};
use crate::memory::{FilledSlot, SampleOut, Slot};
use crate::order::Step;
use crate::pixels::Rect;
use crate::plan::{Layout, Plans, Size, Views};
use crate::report::lock;
use crate::source::Source;

/// What belongs to the samples of a batch, shared by the feeding thread, the jobs of its unfinished
/// samples and at last its consumer.
pub(crate) struct Tray {
    /// Its place in the order of all batches of the run.
    pub(crate) sequence: u64,
    pub(crate) step: Step,
    pub(crate) views: Arc<Views>,
    pub(crate) samples: Vec<u64>,
    pub(crate) labels: Vec<i64>,
    keys: String,
    key_ends: Vec<usize>,
    /// Rows and columns of every image, where they vary.
    sizes: Vec<AtomicU64>,
    /// What the device decodes, by index; empty on the host. A lock each, so that no two threads meet.
    kept: Vec<Mutex<Option<Kept>>>,
    /// The samples that failed, by index. Empty in all but bad cases.
    failures: Mutex<Vec<(usize, Error)>>,
}

/// A sample that the device decodes: its bytes stay where they landed until they were copied there and decoded.
pub(super) struct Kept {
    pub(super) way: Way,
    /// What its further views need.
    pub(super) more_needs: Vec<Needs>,
    /// What it was read for; none where all of it was read.
    pub(super) plans: Option<Plans>,
    pub(super) first: Landed,
    pub(super) more: Vec<Landed>,
}

/// How the device decodes a sample, and what its first view needs for that.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) needs: Needs,
    pub(super) by: By,
}

/// Who decodes it.
#[derive(Clone, Copy)]
pub(super) enum By {
    Kernels,
    /// nvJPEG, from host memory.
    NvJpeg(WholeJpeg),
    /// nvJPEG, from the memory of the device.
    NvJpegDevice(DeviceJpeg),
}

/// What nvJPEG is told of a file beside its bytes.
#[derive(Clone, Copy)]
pub(super) struct WholeJpeg {
    pub(super) len_bytes: usize,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) area: Rect,
}

/// What nvJPEG is told of a file that lies on the device.
#[derive(Clone, Copy)]
pub(super) struct DeviceJpeg {
    pub(super) kind: nvjpeg::Kind,
    /// Where it starts in the upload.
    pub(super) at: u32,
    pub(super) len_bytes: usize,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl By {
    /// Whether the bytes are read where they landed on the host.
    pub(super) fn reads_host(self) -> bool {
        matches!(self, Self::NvJpeg(_))
    }

    /// Whether nvJPEG decodes.
    pub(super) fn is_nvjpeg(self) -> bool {
        !matches!(self, Self::Kernels)
    }
}

impl Tray {
    pub(super) fn new(sequence: u64, step: Step, views: Arc<Views>) -> Self {
        Self {
            sequence,
            step,
            views,
            samples: Vec::new(),
            labels: Vec::new(),
            keys: String::new(),
            key_ends: Vec::new(),
            sizes: Vec::new(),
            kept: Vec::new(),
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
        if self.views.has_own_sizes() {
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

    /// Rows and columns of a sample's view in a group.
    pub(crate) fn size(&self, group: usize, index: usize) -> Size {
        let augment = &self.views.groups()[group].augment;
        match (augment.output_shape(), augment.layout()) {
            (Some([_, height, width]), Layout::Nchw) | (Some([height, width, _]), Layout::Nhwc) => {
                Size { height: height as u32, width: width as u32 }
            }
            (None, _) => {
                let size = self.sizes[index].load(Ordering::Relaxed);
                Size { height: (size >> 32) as u32, width: size as u32 }
            }
        }
    }

    /// Makes room for what a device decodes.
    pub(super) fn expect_device(&mut self) {
        self.kept.resize_with(self.samples.len(), Mutex::default);
    }

    /// Keeps a sample for the device.
    pub(super) fn keep(&self, index: usize, kept: Kept) {
        *lock(&self.kept[index]) = Some(kept);
    }

    /// What a view of a sample needs there that was kept.
    pub(super) fn needs(&self, view: usize, index: usize) -> Option<Needs> {
        let kept = lock(&self.kept[index]);
        let kept = kept.as_ref()?;
        view.checked_sub(1).map_or(Some(kept.way.needs), |more| kept.more_needs.get(more).copied())
    }

    /// What was kept of each sample, in order.
    pub(super) fn kept(&self) -> impl Iterator<Item = MutexGuard<'_, Option<Kept>>> {
        self.kept.iter().map(lock)
    }

    /// Takes out what was kept of a sample.
    pub(super) fn take_kept(&self, index: usize) -> Option<Kept> {
        lock(&self.kept[index]).take()
    }

    /// Frees the memory of all that was kept.
    pub(super) fn let_go(&self) {
        self.kept.iter().for_each(|kept| drop(lock(kept).take()));
    }

    /// Where the bytes that are to be copied end in the landing area on the host.
    pub(super) fn landed_bytes(&self) -> usize {
        let end_of = |kept: MutexGuard<'_, Option<Kept>>| {
            let copied = kept.iter().filter(|kept| !kept.way.by.reads_host());
            let landed = copied.flat_map(|kept| std::iter::once(&kept.first).chain(&kept.more));
            landed.map(Landed::uploaded_end).max().unwrap_or(0)
        };
        self.kept().map(end_of).max().unwrap_or(0)
    }

    /// The runs of places whose tensors decode threads have made.
    pub(super) fn made_on_host(&self) -> impl Iterator<Item = Range<usize>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let is_kept = |index: &usize| lock(&self.kept[*index]).is_some();
            let start = (next..self.kept.len()).find(|index| !is_kept(index))?;
            next = (start..self.kept.len()).find(is_kept).unwrap_or(self.kept.len());
            Some(start..next)
        })
    }

    /// Whether a sample has failed, and the batch with it.
    pub(super) fn has_failed(&self) -> bool {
        !lock(&self.failures).is_empty()
    }

    /// Notes that a sample could not be delivered.
    pub(super) fn note_failure(&self, index: usize, error: Error) {
        lock(&self.failures).push((index, error));
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
        self.note_failure(index, error);
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

/// Where complete trays go: to the consumer, or to a device first.
pub(super) enum Exit {
    Ready(Arc<Ready>),
    Device(Sender<Filled>),
}

impl Exit {
    /// Hands the tray on if the sample just finished was its last.
    pub(super) fn put_if_filled(&self, tray: &Arc<Tray>, slot: Option<FilledSlot>) {
        let Some(slot) = slot else { return };
        let filled = Filled { tray: Arc::clone(tray), slot };
        match self {
            Self::Ready(ready) => ready.put(tray.sequence, filled),
            // It has a place for every slot, and is closed only when the run has ended.
            Self::Device(launch) => drop(launch.send(filled)),
        }
    }
}
