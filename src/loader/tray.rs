//! A batch on its way: the slot its tensors are written to, and what belongs to its samples.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::landed::Landed;
use crate::batch::{BadSample, Delivered, Replacement};
use crate::decode::kernels::Needs;
use crate::decode::nvjpeg;
use crate::error::{Error, Result};
use crate::memory::{FilledSlot, SampleOut, Slot};
use crate::order::{Mixture, Step};
use crate::pixels::Rect;
use crate::plan::{Layout, Plans, Size, Views};
use crate::report::lock;
use crate::source::{Source, UNLABELLED};

/// What belongs to the samples of a batch, shared by the feeding thread, the jobs of its unfinished
/// samples and at last its consumer.
pub(crate) struct Tray {
    /// Its place in the order of all batches of the run.
    pub(crate) sequence: u64,
    pub(crate) step: Step,
    pub(crate) views: Arc<Views>,
    /// The samples that it is to hold, whatever stands in for bad ones, and their labels.
    pub(crate) samples: Vec<u64>,
    pub(crate) labels: Vec<i64>,
    /// What tells the parts of a mixture.
    pub(super) mixture: Option<Mixture>,
    keys: String,
    key_ends: Vec<usize>,
    /// Rows and columns of every image, where they vary.
    sizes: Vec<AtomicU64>,
    /// What the device decodes, by index; empty on the host. A lock each, so that no two threads meet.
    kept: Vec<Mutex<Option<Kept>>>,
    /// The samples whose failure is the run's, by index. Empty in all but bad cases.
    failures: Mutex<Vec<(usize, Error)>>,
    /// The bad samples that the run goes on without, by ascending index. Empty in all but bad cases.
    bad: Mutex<Vec<Bad>>,
    /// Whether there are any, which is looked at for every sample.
    has_bad: AtomicBool,
    /// The places that are on their way to the device once more, ascending; none in the first round, which all are in.
    again: Mutex<Vec<usize>>,
}

/// A bad sample, and what stands in for it so far.
struct Bad {
    index: usize,
    sample: BadSample,
    /// Stand-ins that storage did not give.
    storage_errors: u32,
}

/// The sample that is made at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) sample: u64,
    /// Its own position in the order of the epoch.
    pub(super) position: u64,
    /// Whether it stands in for a bad one.
    pub(super) is_stand_in: bool,
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
            mixture: None,
            keys: String::new(),
            key_ends: Vec::new(),
            sizes: Vec::new(),
            kept: Vec::new(),
            failures: Mutex::new(Vec::new()),
            bad: Mutex::new(Vec::new()),
            has_bad: AtomicBool::new(false),
            again: Mutex::new(Vec::new()),
        }
    }

    /// Takes on the samples of the batch: their numbers, labels and keys. Those of which the source does not tell them, by
    /// index.
    pub(super) fn fill(&mut self, source: &dyn Source, samples: impl Iterator<Item = u64>) -> Vec<(usize, Error)> {
        let (mut key, mut unknown) = (String::new(), Vec::new());
        for sample in samples {
            let label = source.key(sample, &mut key).and_then(|()| source.label(sample)).unwrap_or_else(|error| {
                key.clear();
                unknown.push((self.samples.len(), error));
                UNLABELLED
            });
            self.samples.push(sample);
            self.labels.push(label);
            self.keys.push_str(&key);
            self.key_ends.push(self.keys.len());
        }
        if self.views.has_own_sizes() {
            self.sizes.resize_with(self.samples.len(), AtomicU64::default);
        }
        unknown
    }

    /// The sample that is made at a place: the batch's own, or what stands in for it.
    pub(super) fn sample(&self, index: usize) -> u64 {
        self.candidate(index).sample
    }

    /// The same with its position.
    pub(super) fn candidate(&self, index: usize) -> Candidate {
        // Relaxed: whoever works at a place was handed it after what stands in there was noted, and of other places only
        // the flag is seen.
        if self.has_bad.load(Ordering::Relaxed) {
            let bad = lock(&self.bad);
            let found = bad.binary_search_by_key(&index, |bad| bad.index).ok();
            if let Some(by) = found.and_then(|found| bad[found].sample.replacement.as_ref()) {
                return Candidate { sample: by.sample, position: by.position, is_stand_in: true };
            }
        }
        let position = self.step.position(index as u64);
        Candidate { sample: self.samples[index], position, is_stand_in: false }
    }

    /// The labels of what is made at all places.
    pub(super) fn made_labels(&self) -> Cow<'_, [i64]> {
        if !self.has_bad.load(Ordering::Relaxed) {
            return Cow::Borrowed(&self.labels);
        }
        let mut labels = self.labels.clone();
        for Bad { index, sample, .. } in &*lock(&self.bad) {
            if let Some(by) = &sample.replacement {
                labels[*index] = by.label;
            }
        }
        Cow::Owned(labels)
    }

    /// The part of a mixture that a sample is of, or 0.
    pub(crate) fn part_of(&self, sample: u64) -> usize {
        self.mixture.as_ref().map_or(0, |mixture| mixture.part_of(sample))
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
            let again = lock(&self.again);
            // What is not on its way again is there already.
            let is_there = |index: &usize| !again.is_empty() && again.binary_search(index).is_err();
            let is_kept = |index: &usize| is_there(index) || lock(&self.kept[*index]).is_some();
            let start = (next..self.kept.len()).find(|index| !is_kept(index))?;
            next = (start..self.kept.len()).find(is_kept).unwrap_or(self.kept.len());
            Some(start..next)
        })
    }

    /// Starts another round of some places to the device.
    pub(super) fn go_again(&self, places: &[usize]) {
        places.clone_into(&mut lock(&self.again));
    }

    /// Whether a sample has failed, and the batch and the run with it.
    pub(super) fn has_failed(&self) -> bool {
        !lock(&self.failures).is_empty()
    }

    /// Notes that a sample could not be delivered, and ends the run.
    pub(super) fn note_failure(&self, index: usize, error: Error) {
        lock(&self.failures).push((index, error));
    }

    /// Notes that a sample could not be delivered, and the run goes on. Of what stood in for another in vain, only that
    /// it did counts.
    pub(super) fn note_bad(&self, index: usize, describe: impl FnOnce() -> BadSample) {
        let mut bad = lock(&self.bad);
        if let Err(place) = bad.binary_search_by_key(&index, |bad| bad.index) {
            bad.insert(place, Bad { index, sample: describe(), storage_errors: 0 });
        }
        self.has_bad.store(true, Ordering::Relaxed);
    }

    /// Notes what stands in for the bad sample of a place.
    pub(super) fn stand_in(&self, index: usize, by: Replacement) {
        if let Some(bad) = lock(&self.bad).iter_mut().find(|bad| bad.index == index) {
            bad.sample.replacement = Some(by);
        }
    }

    /// Counts a stand-in that storage did not give: how many there were at this place.
    pub(super) fn count_storage_error(&self, index: usize) -> u32 {
        let mut bad = lock(&self.bad);
        let Some(bad) = bad.iter_mut().find(|bad| bad.index == index) else { return 0 };
        bad.storage_errors += 1;
        bad.storage_errors
    }

    /// What is wrong with the bad sample of a place, for which nothing stands in after all.
    pub(super) fn cause_without_stand_in(&self, index: usize) -> String {
        let mut bad = lock(&self.bad);
        let Some(Bad { sample, .. }) = bad.iter_mut().find(|bad| bad.index == index) else { return String::new() };
        sample.replacement = None;
        sample.error.cause()
    }

    /// What it holds, and what it does not, once all samples are done; `None` where it holds what it was to hold.
    pub(super) fn deliver(&self) -> Option<Box<Delivered>> {
        if !self.has_bad.load(Ordering::Relaxed) {
            return None;
        }
        let bad: Vec<_> =
            lock(&self.bad).drain(..).map(|Bad { index, sample, .. }| (index, Arc::new(sample))).collect();
        let mut delivered = Delivered { places: Vec::new(), samples: Vec::new(), labels: Vec::new(), bad };
        for (place, (&sample, &label)) in self.samples.iter().zip(&self.labels).enumerate() {
            let (sample, label) = match delivered.bad_at(place).map(|bad| &bad.replacement) {
                None => (sample, label),
                Some(Some(by)) => (by.sample, by.label),
                Some(None) => continue,
            };
            delivered.places.push(place);
            delivered.samples.push(sample);
            delivered.labels.push(label);
        }
        Some(Box::new(delivered))
    }

    /// Finishes the place of a sample that could not be delivered. `claimed` is what it had claimed before it failed.
    pub(super) fn finish_without(&self, slot: &Slot, index: usize, claimed: Option<SampleOut>) -> Option<FilledSlot> {
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
    /// What it holds, once that is settled and if it is not what it was to hold.
    pub(crate) delivered: Option<Box<Delivered>>,
}

impl Filled {
    /// Settles what it holds: samples that are skipped leave no gap in its slot.
    ///
    /// A copy of what lies behind the first of them, in bad cases alone. Where the samples go was settled when they were
    /// claimed, before any of them was known to be bad.
    pub(super) fn deliver(&mut self) {
        self.delivered = self.tray.deliver();
        if let Some(delivered) = self.delivered.as_ref().filter(|delivered| delivered.has_gaps()) {
            self.slot.retain(&delivered.places);
        }
    }
}
