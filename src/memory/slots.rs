//! The slots: output trays of whole batches that go round between workers and consumer.

use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::layout::ViewLayout;
use super::mapping::Part;
use crate::device::cuda::Output;
use crate::error::{Error, ErrorKind, Result};

/// Where samples of various sizes start within a slot: a cache line, enough for any element type.
const RAGGED_ALIGN_BYTES: usize = 64;

/// A fixed number of [`Slot`]s, allocated once. Cloning clones a handle.
#[derive(Clone)]
pub struct SlotPool {
    shared: Arc<Shared>,
}

struct Shared {
    slots: Box<[Tray]>,
    batch_size: usize,
    /// Where the views of samples lie; `None` where samples have various sizes.
    layout: Option<ViewLayout>,
    slot_bytes: usize,
    free: Mutex<Free>,
    returned: Condvar,
}

struct Free {
    indices: Vec<usize>,
    closed: bool,
    /// Whether somebody was to be woken and was not yet.
    woken: bool,
}

/// One slot's memory and the state of its current round.
struct Tray {
    bytes: Part,
    /// Handles on it: `Slot`, `SampleOut` and `FilledSlot`. At 0 it is free.
    holders: AtomicUsize,
    /// Samples of this round, and those not finished yet.
    samples: AtomicUsize,
    remaining: AtomicUsize,
    /// Bytes taken so far, where samples have various sizes.
    taken_bytes: AtomicUsize,
    seats: Box<[Seat]>,
    /// Its side on a device, where there is one. Out while a `FilledSlot` holds it.
    output: Mutex<Option<Output>>,
}

/// One sample's place in a tray.
#[derive(Default)]
struct Seat {
    claimed: AtomicBool,
    start: AtomicUsize,
    len_bytes: AtomicUsize,
}

impl SlotPool {
    /// Allocates `slots` slots of `batch_size` samples of `sample_bytes` each, samples back to back.
    ///
    /// # Errors
    /// `LimitExceeded` if the memory is not to be had.
    pub fn new(slots: usize, batch_size: usize, sample_bytes: usize) -> Result<Self> {
        Self::of_views(slots, batch_size, ViewLayout::of_one(sample_bytes))
    }

    /// The same of samples with these views.
    pub(crate) fn of_views(slots: usize, batch_size: usize, layout: ViewLayout) -> Result<Self> {
        let plan = super::MemoryPlan::of_views(0, slots, batch_size, &layout)?;
        Self::build((0..slots).map(|_| Part::new(plan.slot_bytes)), batch_size, Some(layout), plan.slot_bytes)
    }

    /// Allocates `slots` slots of `budget_bytes` each for `batch_size` samples whose sizes are learned when
    /// they are claimed.
    ///
    /// # Errors
    /// `LimitExceeded` if the memory is not to be had.
    pub fn ragged(slots: usize, batch_size: usize, budget_bytes: usize) -> Result<Self> {
        let plan = super::MemoryPlan::new(0, slots, 1, budget_bytes)?;
        Self::build((0..slots).map(|_| Part::new(plan.slot_bytes)), batch_size, None, plan.slot_bytes)
    }

    /// Slots of memory that nobody else uses, each of at least a whole batch.
    pub(super) fn of(parts: Vec<Part>, batch_size: usize, layout: ViewLayout) -> Result<Self> {
        let slot_bytes = super::MemoryPlan::of_views(0, parts.len(), batch_size, &layout)?.slot_bytes;
        Self::build(parts.into_iter().map(Ok), batch_size, Some(layout), slot_bytes)
    }

    fn build(
        parts: impl Iterator<Item = Result<Part>>,
        batch_size: usize,
        layout: Option<ViewLayout>,
        slot_bytes: usize,
    ) -> Result<Self> {
        let trays: Box<[_]> = parts
            .map(|part| {
                Ok(Tray {
                    bytes: part?,
                    holders: AtomicUsize::new(0),
                    samples: AtomicUsize::new(0),
                    remaining: AtomicUsize::new(0),
                    taken_bytes: AtomicUsize::new(0),
                    seats: (0..batch_size).map(|_| Seat::default()).collect(),
                    output: Mutex::default(),
                })
            })
            .collect::<Result<_>>()?;
        let free = Free { indices: (0..trays.len()).rev().collect(), closed: false, woken: false };
        Ok(Self {
            shared: Arc::new(Shared {
                slots: trays,
                batch_size,
                layout,
                slot_bytes,
                free: Mutex::new(free),
                returned: Condvar::new(),
            }),
        })
    }

    /// Gives every slot a side on a device, in order.
    pub(crate) fn set_outputs(&self, outputs: impl IntoIterator<Item = Output>) {
        for (tray, output) in self.shared.slots.iter().zip(outputs) {
            *tray.output() = Some(output);
        }
    }

    /// Takes a free slot for a batch of `samples`, or `None` if all are out or the pool is closed.
    ///
    /// # Panics
    /// If `samples` is 0 or more than the batch size.
    pub fn try_acquire(&self, samples: usize) -> Option<Slot> {
        let index = self.shared.lock().pop()?;
        Some(self.start_round(index, samples))
    }

    /// Takes a free slot for a batch of `samples`, sleeping up to `timeout` for one to be returned. `None` when
    /// the time has passed, the pool is closed, or somebody was to be woken.
    ///
    /// # Panics
    /// As [`try_acquire`](Self::try_acquire).
    pub fn acquire(&self, samples: usize, timeout: Duration) -> Option<Slot> {
        let deadline = Instant::now() + timeout;
        let mut free = self.shared.lock();
        loop {
            if let Some(index) = free.pop() {
                drop(free);
                return Some(self.start_round(index, samples));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if free.closed || std::mem::take(&mut free.woken) || left.is_zero() {
                return None;
            }
            free = self.shared.returned.wait_timeout(free, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Hands out no more slots and wakes whoever waits for one. Slots that are out stay valid.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.returned.notify_all();
    }

    /// Ends the wait of whoever sleeps for a slot, or of the next one to do so, without one: there is other work.
    pub(crate) fn wake(&self) {
        self.shared.lock().woken = true;
        self.shared.returned.notify_one();
    }

    /// Slots in all.
    pub fn slots(&self) -> usize {
        self.shared.slots.len()
    }

    /// Slots that nobody holds.
    pub fn free_slots(&self) -> usize {
        self.shared.lock().indices.len()
    }

    /// Bytes of one slot: what its batch may take.
    pub fn slot_bytes(&self) -> usize {
        self.shared.slot_bytes
    }

    fn start_round(&self, index: usize, samples: usize) -> Slot {
        let batch_size = self.shared.batch_size;
        assert!((1..=batch_size).contains(&samples), "a batch of {samples} in slots of {batch_size}");
        // Relaxed throughout: nobody else knows this slot until the handle is passed on.
        let tray = &self.shared.slots[index];
        tray.samples.store(samples, Ordering::Relaxed);
        tray.remaining.store(samples, Ordering::Relaxed);
        tray.taken_bytes.store(0, Ordering::Relaxed);
        for seat in &tray.seats {
            seat.claimed.store(false, Ordering::Relaxed);
            seat.len_bytes.store(0, Ordering::Relaxed);
        }
        tray.holders.store(1, Ordering::Relaxed);
        Slot(Holder { shared: Arc::clone(&self.shared), index })
    }
}

impl Tray {
    fn output(&self) -> MutexGuard<'_, Option<Output>> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    fn pop(&mut self) -> Option<usize> {
        if self.closed { None } else { self.indices.pop() }
    }
}

/// One of possibly several handles on a slot; the last one dropped returns it.
struct Holder {
    shared: Arc<Shared>,
    index: usize,
}

impl Holder {
    fn tray(&self) -> &Tray {
        &self.shared.slots[self.index]
    }

    /// Where each view of a sample lies whose first one lies at `first`.
    fn places(&self, index: usize, first: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (shared, samples) = (Arc::clone(&self.shared), self.tray().samples.load(Ordering::Relaxed));
        let views = shared.layout.as_ref().map_or(1, ViewLayout::views);
        (0..views).map(move |view| match &shared.layout {
            Some(layout) if view > 0 => layout.place(view, index, samples),
            _ => first.clone(),
        })
    }
}

impl Clone for Holder {
    fn clone(&self) -> Self {
        // Relaxed as in Arc: the count cannot reach 0 while we hold one.
        self.tray().holders.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared), index: self.index }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // As in Arc: every holder's accesses happen before the last one hands the slot back.
        if self.tray().holders.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            self.shared.lock().indices.push(self.index);
            self.shared.returned.notify_one();
        }
    }
}

/// A slot that is being filled. Cloned handles share it, so that several workers can claim samples of it
/// at once.
#[derive(Clone)]
pub struct Slot(Holder);

impl Slot {
    /// Its number within the pool.
    pub(crate) fn index(&self) -> usize {
        self.0.index
    }

    /// Samples of this round.
    pub fn samples(&self) -> usize {
        self.0.tray().samples.load(Ordering::Relaxed)
    }

    /// The memory of sample `index`, all its views, to be written by the caller alone; `None` if it was claimed before in
    /// this round. It holds what the slot's last round left there.
    ///
    /// # Panics
    /// If `index` is not below the round's samples, or in a pool of various sample sizes.
    pub fn claim(&self, index: usize) -> Option<SampleOut> {
        let Some(layout) = &self.0.shared.layout else { panic!("samples of this pool have various sizes") };
        self.take_seat(index).then(|| self.seated(index, layout.place(0, index, self.samples())))
    }

    /// `len_bytes` for sample `index`, in a pool of various sample sizes; `None` if it was claimed before in
    /// this round. Samples lie in the order of their claims, on multiples of 64 bytes.
    ///
    /// # Errors
    /// `LimitExceeded` if the slot's budget does not hold it beside the samples that were claimed before. The
    /// sample can then be claimed again, for fewer bytes.
    ///
    /// # Panics
    /// If `index` is not below the round's samples, or in a pool of one sample size.
    pub fn claim_bytes(&self, index: usize, len_bytes: usize) -> Result<Option<SampleOut>> {
        assert!(self.0.shared.layout.is_none(), "samples of this pool have one size");
        if !self.take_seat(index) {
            return Ok(None);
        }
        let tray = self.0.tray();
        // What was given up there before, if it is enough. The swap that took the seat acquired it.
        let given_up = &tray.seats[index];
        if given_up.len_bytes.load(Ordering::Relaxed) >= len_bytes.max(1) {
            let start = given_up.start.load(Ordering::Relaxed);
            return Ok(Some(self.seated(index, start..start + len_bytes)));
        }
        let budget_bytes = self.0.shared.slot_bytes;
        let bump = |taken: usize| {
            let end = len_bytes.checked_next_multiple_of(RAGGED_ALIGN_BYTES)?.checked_add(taken)?;
            // The padding of the last sample need not fit.
            (taken.checked_add(len_bytes)? <= budget_bytes).then_some(end.min(budget_bytes))
        };
        // Relaxed: the value alone keeps the ranges apart; `remaining` orders the bytes.
        match tray.taken_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, bump) {
            Ok(start) => Ok(Some(self.seated(index, start..start + len_bytes))),
            Err(taken) => {
                tray.seats[index].claimed.store(false, Ordering::Release);
                let error = Error::new(
                    ErrorKind::LimitExceeded,
                    format!(
                        "sample {index} of a batch takes {len_bytes} bytes, but {taken} of the slot's {budget_bytes} bytes are taken"
                    ),
                )
                .with_remedy("use a smaller batch, resize the samples, or raise the slot's byte budget");
                // Which sample of a batch comes last is chance, unless it would fit nowhere.
                Err(if len_bytes > budget_bytes { error } else { error.of_batch() })
            }
        }
    }

    fn take_seat(&self, index: usize) -> bool {
        let samples = self.samples();
        assert!(index < samples, "sample {index} of a batch of {samples}");
        // Acquire pairs with the release of a refused claim_bytes.
        !self.0.tray().seats[index].claimed.swap(true, Ordering::Acquire)
    }

    fn seated(&self, index: usize, range: Range<usize>) -> SampleOut {
        let seat = &self.0.tray().seats[index];
        seat.start.store(range.start, Ordering::Relaxed);
        seat.len_bytes.store(range.len(), Ordering::Relaxed);
        SampleOut { holder: self.0.clone(), index, range }
    }
}

/// The memory of one sample of a slot, to be written by its owner alone: as a slice of bytes, its first view.
///
/// [`finish`](Self::finish) it when the sample is complete. Dropping it unfinished (a worker that
/// panics) leaves the batch incomplete for good: it is never handed on, and the slot returns when its other
/// handles are dropped.
pub struct SampleOut {
    holder: Holder,
    index: usize,
    range: Range<usize>,
}

impl SampleOut {
    /// The sample's place in its batch.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The slot's number within the pool.
    pub(crate) fn slot(&self) -> usize {
        self.holder.index
    }

    /// Gives the place back unfinished, to be claimed again in this round.
    pub(crate) fn give_up(self) {
        // Release pairs with the next claim's acquire: our writes come before its own.
        self.holder.tray().seats[self.index].claimed.store(false, Ordering::Release);
    }

    /// Samples of its batch.
    pub(crate) fn samples(&self) -> usize {
        self.holder.tray().samples.load(Ordering::Relaxed)
    }

    /// Where each view of the sample lies in the slot, in order.
    pub(crate) fn places(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        self.holder.places(self.index, self.range.clone())
    }

    /// The memory of each view of the sample, in order.
    pub(crate) fn views_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let start = self.holder.tray().bytes.start();
        self.places().map(move |place| {
            // SAFETY: as in deref_mut; the views of a sample do not overlap either.
            unsafe { std::slice::from_raw_parts_mut(start.as_ptr().add(place.start), place.len()) }
        })
    }

    /// Counts the sample as complete. Whoever finishes the last one of the round gets the whole slot, to be
    /// read.
    pub fn finish(self) -> Option<FilledSlot> {
        // Release: our bytes are written before the count drops; Acquire: the last one sees all of them.
        let before = self.holder.tray().remaining.fetch_sub(1, Ordering::AcqRel);
        (before == 1).then(|| {
            let output = self.holder.tray().output().take();
            FilledSlot { output, holder: self.holder }
        })
    }
}

impl Deref for SampleOut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as in deref_mut, with shared access.
        unsafe {
            std::slice::from_raw_parts(
                self.holder.tray().bytes.start().as_ptr().add(self.range.start),
                self.range.len(),
            )
        }
    }
}

impl DerefMut for SampleOut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range lies inside the tray's mapping, which the holder keeps alive, of initialised
        // (kernel-zeroed) bytes. Nobody else reaches it: ranges of different samples do not overlap
        // (places of a layout, or one bump counter), a sample is claimed once a round, and a
        // FilledSlot, which reads them all, exists only when every sample of the round was finished, which consumes its
        // SampleOut. The next round starts when the last holder, this one included, is gone.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.holder.tray().bytes.start().as_ptr().add(self.range.start),
                self.range.len(),
            )
        }
    }
}

/// A slot whose samples are all complete, to be read from any thread. Dropping it returns the slot.
pub struct FilledSlot {
    output: Option<Output>,
    holder: Holder,
}

impl FilledSlot {
    /// Samples of the batch.
    pub fn samples(&self) -> usize {
        self.holder.tray().samples.load(Ordering::Relaxed)
    }

    /// The bytes of sample `index`: of its first view.
    ///
    /// # Panics
    /// If `index` is not below [`samples`](Self::samples).
    pub fn sample(&self, index: usize) -> &[u8] {
        &self.bytes()[self.range(index)]
    }

    fn range(&self, index: usize) -> Range<usize> {
        assert!(index < self.samples(), "sample {index} of a batch of {}", self.samples());
        let seat = &self.holder.tray().seats[index];
        let start = seat.start.load(Ordering::Relaxed);
        start..start + seat.len_bytes.load(Ordering::Relaxed)
    }

    /// All samples: back to back, or in a pool of various sizes as [`Slot::claim_bytes`] placed them.
    pub fn all(&self) -> &[u8] {
        &self.bytes()[..self.len_bytes()]
    }

    /// Views of each sample.
    pub(crate) fn views(&self) -> usize {
        self.holder.shared.layout.as_ref().map_or(1, ViewLayout::views)
    }

    /// Bytes of all samples.
    pub(crate) fn len_bytes(&self) -> usize {
        match &self.holder.shared.layout {
            // Some batch size was seen to be addressable, and this is no larger.
            Some(layout) => layout.len_bytes(self.samples()).unwrap_or(self.holder.shared.slot_bytes),
            None => self.holder.tray().taken_bytes.load(Ordering::Relaxed),
        }
    }

    /// Where a group of views lies; all samples in a pool of various sizes.
    ///
    /// # Panics
    /// If there is no such group.
    pub(crate) fn group(&self, group: usize) -> Range<usize> {
        match &self.holder.shared.layout {
            Some(layout) => layout.group(group, self.samples()),
            None => 0..self.len_bytes(),
        }
    }

    /// Where each view of sample `index` lies, in order.
    ///
    /// # Panics
    /// As [`sample`](Self::sample).
    pub(crate) fn places(&self, index: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        self.holder.places(index, self.range(index))
    }

    /// Its number within the pool.
    pub(crate) fn index(&self) -> usize {
        self.holder.index
    }

    /// The bytes of each view of sample `index`, in order, to be written.
    ///
    /// # Panics
    /// As [`sample`](Self::sample).
    pub(crate) fn views_mut(&mut self, index: usize) -> impl Iterator<Item = &mut [u8]> {
        let start = self.start();
        self.places(index).map(move |place| {
            // SAFETY: inside the mapping and initialised, as `bytes` is. Nobody else reaches these bytes: see SampleOut,
            // and `&mut self`; views do not overlap.
            unsafe { std::slice::from_raw_parts_mut(start.as_ptr().add(place.start), place.len()) }
        })
    }

    /// Where each view of some samples that follow each other lies, in order.
    pub(crate) fn runs(&self, samples: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let last = samples.end.saturating_sub(1);
        self.places(samples.start).zip(self.places(last)).map(|(first, last)| first.start..last.end)
    }

    /// Leaves out all samples but those of the places `kept`, which ascend: they follow each other from the first place
    /// on, in every view, in host memory too unless the batch lies on a device.
    pub(crate) fn retain(&mut self, kept: &[usize]) {
        let samples = self.samples();
        assert!(kept.is_sorted_by(|a, b| a < b) && kept.last().is_none_or(|&last| last < samples));
        let start = self.start();
        let seats = &self.holder.tray().seats;
        let layout = self.holder.shared.layout.as_ref();
        if self.output.is_none() {
            for (from, to) in self.moves(kept, samples) {
                // SAFETY: both ranges lie inside the mapping, which is initialised, as the layout of a batch of no more
                // samples than there are places says. Nobody else reaches it: see `views_mut`.
                unsafe { std::ptr::copy(start.as_ptr().add(from.start), start.as_ptr().add(to), from.len()) };
            }
        }
        for (to, &from) in kept.iter().enumerate() {
            // Samples of various sizes lie anywhere and stay there.
            let Range { start, end } = layout.map_or_else(|| self.range(from), |it| it.place(0, to, kept.len()));
            seats[to].start.store(start, Ordering::Relaxed);
            seats[to].len_bytes.store(end - start, Ordering::Relaxed);
        }
        self.holder.tray().samples.store(kept.len(), Ordering::Relaxed);
    }

    /// How the samples `kept` of a batch of `samples` come to follow each other in every view: see [`ViewLayout::moves`].
    /// Nothing in a pool of various sizes.
    pub(crate) fn moves(&self, kept: &[usize], samples: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
        self.holder.shared.layout.iter().flat_map(move |layout| layout.moves(kept, samples))
    }

    /// Opens some places again, to be claimed and finished once more before the slot is complete. The others are as they
    /// are.
    pub(crate) fn reopen(self, places: &[usize]) -> Slot {
        // Relaxed: nobody else knows the slot until the handle is passed on, when `self`, with its side on the device, has
        // gone back.
        let tray = self.holder.tray();
        tray.remaining.store(places.len(), Ordering::Relaxed);
        for &place in places {
            tray.seats[place].claimed.store(false, Ordering::Relaxed);
        }
        Slot(self.holder.clone())
    }

    /// The host memory of the whole batch, and its side on a device.
    pub(crate) fn sides(&mut self) -> (&[u8], Option<&mut Output>) {
        let Self { output, holder } = self;
        let len_bytes = holder.shared.slot_bytes;
        // SAFETY: as in `bytes`.
        let bytes = unsafe { std::slice::from_raw_parts(holder.tray().bytes.start().as_ptr(), len_bytes) };
        (bytes, output.as_mut())
    }

    /// Where [`all`](Self::all) starts, for its owner to write as well.
    pub(crate) fn start(&mut self) -> NonNull<u8> {
        self.holder.tray().bytes.start()
    }

    /// Its side on a device, where there is one.
    pub(crate) fn output(&self) -> Option<&Output> {
        self.output.as_ref()
    }

    /// As [`output`](Self::output), to be written.
    pub(crate) fn output_mut(&mut self) -> Option<&mut Output> {
        self.output.as_mut()
    }

    fn bytes(&self) -> &[u8] {
        let tray = self.holder.tray();
        // SAFETY: inside the mapping, initialised, and not written while this exists: see SampleOut. Slot
        // handles that are left can claim nothing, since every sample of the round was claimed.
        unsafe { std::slice::from_raw_parts(tray.bytes.start().as_ptr(), self.holder.shared.slot_bytes) }
    }
}

impl Drop for FilledSlot {
    fn drop(&mut self) {
        if let Some(mut output) = self.output.take() {
            output.release();
            // Before the holder goes, and with it the slot.
            *self.holder.tray().output() = Some(output);
        }
    }
}

#[cfg(test)]
mod tests;
