//! What a batch sends to the device: one piece of page-locked memory a slot, copied at once.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::REGION_ALIGN_BYTES;
use super::arena::Arena;
use super::device::DeviceArena;
use super::layout::ViewLayout;
use super::mapping::Part;
use super::slots::{FilledSlot, SampleOut};
use crate::decode::kernels::abi::{Image, Segment};
use crate::decode::kernels::{Description, Needs};
use crate::device::cuda::DeviceMemory;

/// Where segments and tables start.
const ALIGN_BYTES: usize = 16;
/// Tables of a sample at most: three of 128 bytes and six of 272, rounded up.
const TABLES_BYTES: usize = 2048;
/// Landed bytes for which there is room for one segment: a fourth of what lies between entry points of the default
/// grain, so that crops of few rows and short rows have theirs.
const LANDED_BYTES_PER_SEGMENT: usize = 128;

/// The upload of a slot, as kernels/abi.cuh lays it out; offsets count from its start, here and on the device:
///
/// ```text
/// | .. free .. segments and tables | images, one a view  | landing area: encoded bytes |
///              ^ taken downward                            ^ taken upward
/// ```
///
/// Reads land in it and decode threads write descriptions into it, until the batch is complete; then it is read by
/// one copy, and nobody writes it until that is done.
pub(crate) struct Upload {
    /// The slot's number.
    slot: usize,
    memory: Part,
    /// Images: one a view of each sample, view behind view.
    places: usize,
    images_at: usize,
    landing_at: usize,
    landing: Arena,
    /// Where the segments and tables of this round start.
    bottom: AtomicUsize,
    /// Words that the data of its segments takes on the device.
    words: AtomicUsize,
    words_max: usize,
}

/// The sizes of an [`Upload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UploadLayout {
    samples: usize,
    views: usize,
    images_at: usize,
    landing_at: usize,
    landing_bytes: usize,
    /// The host's part of the landing area: all of it, or next to nothing where cuFile reads to the device's.
    host_landing_bytes: usize,
}

impl UploadLayout {
    /// For batches of `samples` with so many views each, whose encoded bytes take up to `landing_bytes`; `None` where
    /// offsets into it would not fit the kernels' 32 bits. Every view has segments of its own.
    pub(crate) fn new(samples: usize, views: usize, landing_bytes: usize) -> Option<Self> {
        let landing_bytes = landing_bytes.checked_next_multiple_of(REGION_ALIGN_BYTES)?;
        let places = samples.checked_mul(views)?;
        let segments =
            (landing_bytes / LANDED_BYTES_PER_SEGMENT).checked_mul(views)?.checked_mul(size_of::<Segment>())?;
        let images_bytes = places.checked_mul(size_of::<Image>())?;
        let tables_bytes = places.checked_mul(TABLES_BYTES)?;
        let landing_at = tables_bytes.checked_add(segments)?.checked_add(images_bytes)?;
        let landing_at = landing_at.checked_next_multiple_of(REGION_ALIGN_BYTES)?;
        let images_at = landing_at - images_bytes;
        let layout = Self { samples, views, images_at, landing_at, landing_bytes, host_landing_bytes: landing_bytes };
        let fits = landing_at.checked_add(landing_bytes).is_some_and(|len| len <= i32::MAX as usize);
        fits.then_some(layout)
    }

    /// The same where nothing lands on the host.
    pub(crate) fn without_host_landing(self) -> Self {
        Self { host_landing_bytes: REGION_ALIGN_BYTES, ..self }
    }

    /// Bytes of the device's copy.
    pub(crate) fn len_bytes(&self) -> usize {
        self.landing_at + self.landing_bytes
    }

    /// Bytes on the host.
    pub(crate) fn host_len_bytes(&self) -> usize {
        self.landing_at + self.host_landing_bytes
    }

    /// The landing area of the device's copy, of which `memory` is all.
    pub(crate) fn arena(&self, memory: &Arc<DeviceMemory>) -> DeviceArena {
        DeviceArena::of(Arc::clone(memory), self.landing_at, self.landing_bytes)
    }

    /// Words that the data of all segments takes on the device at most: their bytes, and three words each.
    pub(crate) fn words(&self) -> usize {
        self.views * (self.landing_bytes / 4) + 4 * (self.images_at / size_of::<Segment>())
    }

    /// Images.
    pub(crate) fn places(&self) -> usize {
        self.samples * self.views
    }
}

impl Upload {
    fn new(slot: usize, mut memory: Part, reads: Part, layout: UploadLayout) -> Self {
        let whole = memory.clone();
        memory.split_off(layout.landing_at);
        let landing = Arena::of_landing(memory, reads);
        let (places, UploadLayout { images_at, landing_at, .. }) = (layout.places(), layout);
        let (bottom, words) = (AtomicUsize::new(images_at), AtomicUsize::new(0));
        Self { slot, memory: whole, places, images_at, landing_at, landing, bottom, words, words_max: layout.words() }
    }

    /// Where samples of this slot land.
    pub(crate) fn landing(&self) -> &Arena {
        &self.landing
    }

    /// Where bytes lie that landed here, from the start of the upload.
    pub(crate) fn offset(&self, landed: usize) -> usize {
        self.landing_at + landed
    }

    /// Empties it for the next batch, which its slot was just taken for: nobody else knows that yet.
    pub(crate) fn start_round(&self) {
        self.bottom.store(self.images_at, Relaxed);
        self.words.store(0, Relaxed);
        // SAFETY: the images lie inside the memory, start at a multiple of 16 (`landing_at` is one of 4096 and an image
        // one of 16), and zeros are images. The slot is free, so no one reads or writes them.
        unsafe { std::ptr::write_bytes(self.images_start(), 0, self.places) };
    }

    /// Puts a description at the place of a view of a sample that is being made: whether there was room for it.
    ///
    /// # Panics
    /// If the sample is one of another slot.
    pub(crate) fn put(&self, claimed: &mut SampleOut, view: usize, description: &Description<'_>) -> bool {
        let place = self.place(claimed, view);
        let output = claimed.places().nth(view).map_or(0, |place| place.start as u64);
        let Description { image, segments, tables, needs } = description;
        let segments_bytes = size_of_val(*segments);
        debug_assert!(segments_bytes.is_multiple_of(ALIGN_BYTES));
        let Some((at, words)) = self.take(segments_bytes + tables.len().next_multiple_of(ALIGN_BYTES), needs) else {
            return false;
        };
        // SAFETY: `at` and as many bytes behind it were taken for this sample alone, below the images. Both are
        // multiples of 16, as the memory's start is.
        let (to, tables_to) = unsafe {
            let start = self.memory.start().as_ptr().add(at);
            (start.cast::<Segment>(), start.add(segments_bytes))
        };
        for (i, segment) in segments.iter().enumerate() {
            // SAFETY: as above; `i` is below the number of segments.
            unsafe { to.add(i).write(Segment { words: segment.words + words as u32, ..*segment }) };
        }
        let image = Image { segments: at as u32, tables: (at + segments_bytes) as u32, output, ..*image };
        // SAFETY: as above for the tables. Who claimed the sample has its images' places alone, until it is finished.
        unsafe {
            std::ptr::copy_nonoverlapping(tables.as_ptr(), tables_to, tables.len());
            self.images_start().add(place).write(image);
        }
        true
    }

    /// Takes back the descriptions of a sample's first `views` views, for which no kernel is to work after all.
    pub(crate) fn take_back(&self, claimed: &mut SampleOut, views: usize) {
        for view in 0..views {
            let place = self.place(claimed, view);
            // SAFETY: as in `put`.
            unsafe { self.images_start().add(place).write(Image::default()) };
        }
    }

    /// Where the image of a view lies among all.
    fn place(&self, claimed: &SampleOut, view: usize) -> usize {
        let place = view * claimed.samples() + claimed.index();
        assert!(claimed.slot() == self.slot && place < self.places, "place {place} of {}", self.places);
        place
    }

    /// Takes bytes for segments and tables, and words: where each starts.
    fn take(&self, bytes: usize, needs: &Needs) -> Option<(usize, usize)> {
        // Relaxed: the values alone keep the ranges apart; finishing the sample publishes what is written there.
        let words = needs.words as usize;
        let add = |taken: usize| taken.checked_add(words).filter(|taken| *taken <= self.words_max);
        let words = self.words.fetch_update(Relaxed, Relaxed, add).ok()?;
        let bottom = self.bottom.fetch_update(Relaxed, Relaxed, |bottom| bottom.checked_sub(bytes)).ok()?;
        Some((bottom - bytes, words))
    }

    /// The images of a complete batch: of each view those of all samples, view behind view.
    pub(crate) fn images_mut<'a>(&'a self, filled: &'a mut FilledSlot) -> &'a mut [Image] {
        let places = (filled.samples() * filled.views()).min(self.places);
        // SAFETY: inside the memory, aligned and zeroed or written as images; every place of the slot was finished, so no
        // one writes them any more, and `&mut FilledSlot` keeps this the only reference to them.
        unsafe { std::slice::from_raw_parts_mut(self.images_start(), places) }
    }

    /// The bytes that a complete batch has to send, of which those that landed take up `landed` from the start of the
    /// landing area, and where they start. Rounded to what kernels read at a time.
    pub(crate) fn used(&self, _filled: &FilledSlot, landed: usize) -> (usize, &[u8]) {
        let start = self.bottom.load(Relaxed);
        let end = (self.landing_at + landed).next_multiple_of(ALIGN_BYTES).min(self.memory.len_bytes());
        // SAFETY: inside the memory, zeroed or written; the batch is complete, so no one of it writes any more. A read of an
        // earlier one that was given up may, to bytes that no sample of this one has: they are only copied.
        (start, unsafe { std::slice::from_raw_parts(self.memory.start().as_ptr().add(start), end - start) })
    }

    /// Where the images start, from the start of the upload.
    pub(crate) fn images_at(&self) -> usize {
        self.images_at
    }

    fn images_start(&self) -> *mut Image {
        // SAFETY: the images lie inside the memory.
        unsafe { self.memory.start().as_ptr().add(self.images_at).cast() }
    }
}

/// Host memory that the device's copies know: what reads land in, and the outputs of slots.
pub(crate) struct Pinned {
    pub(crate) arena: Arena,
    pub(crate) uploads: Vec<Upload>,
    /// A word for each view of each sample of each slot.
    pub(crate) statuses: Vec<Statuses>,
    pub(crate) slots: super::SlotPool,
    whole: Part,
}

impl Pinned {
    /// Maps a ring of `arena_bytes`, on a NUMA node if one is named, and for each slot an upload and the output of a whole batch.
    ///
    /// # Errors
    /// `LimitExceeded` if the memory is not to be had.
    pub(crate) fn new(
        arena_bytes: usize,
        slots: usize,
        upload: UploadLayout,
        views: &ViewLayout,
        node: Option<u32>,
    ) -> crate::Result<Self> {
        let page = |len: usize| len.next_multiple_of(REGION_ALIGN_BYTES);
        let output_bytes = super::MemoryPlan::of_views(0, slots, upload.samples, views)?.slot_bytes;
        let (arena_bytes, output_bytes) = (page(arena_bytes), page(output_bytes));
        let (upload_bytes, status_bytes) = (upload.host_len_bytes(), page(upload.places() * size_of::<u32>()));
        let reads_bytes = arena_bytes + slots * upload_bytes;
        let whole = Part::for_reads(reads_bytes + slots * (output_bytes + status_bytes), node)?;
        let mut outputs = whole.clone();
        let mut reads = outputs.split_off(reads_bytes);
        let readable = reads.clone();
        let arena = Arena::of(reads.split_off(arena_bytes), readable.clone());
        let uploads =
            (0..slots).map(|slot| Upload::new(slot, reads.split_off(upload_bytes), readable.clone(), upload)).collect();
        let statuses =
            (0..slots).map(|_| Statuses { memory: outputs.split_off(status_bytes), places: upload.places() });
        let statuses = statuses.collect();
        let parts = (0..slots).map(|_| outputs.split_off(output_bytes)).collect();
        let slots = super::SlotPool::of(parts, upload.samples, views.clone())?;
        Ok(Self { arena, uploads, statuses, slots, whole })
    }

    /// Start and length of all of it, for registering it with CUDA.
    pub(crate) fn range(&self) -> (NonNull<u8>, usize) {
        (self.whole.start(), self.whole.len_bytes())
    }
}

/// What the kernels say of each view of each sample of a batch, as it comes back from the device.
pub(crate) struct Statuses {
    memory: Part,
    places: usize,
}

impl Statuses {
    /// Where the device's copy goes.
    pub(crate) fn start(&self) -> *mut u8 {
        self.memory.start().as_ptr()
    }

    /// The words of the first `places`.
    ///
    /// # Safety
    /// No copy to them is under way.
    pub(crate) unsafe fn read(&self, places: Range<usize>) -> &[u32] {
        assert!(places.end <= self.places);
        // SAFETY: inside the memory, a page's multiple, zeroed or copied there; not being written, as the caller says.
        let all = unsafe { std::slice::from_raw_parts(self.start().cast::<u32>(), self.places) };
        &all[places]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_lie_where_copies_and_reads_know_them() {
        let layout = UploadLayout::new(5, 1, 10_000).unwrap();
        let mut pinned = Pinned::new(9000, 3, layout, &ViewLayout::of_one(1001), None).unwrap();
        let (start, len_bytes) = pinned.range();
        let whole = start.as_ptr().addr()..start.as_ptr().addr() + len_bytes;
        let (reads, reads_bytes) = pinned.arena.reads();
        assert_eq!((reads, pinned.uploads[2].landing().reads()), (start, (reads, reads_bytes)));
        let mut ranges = vec![];
        let mut ring = pinned.arena.alloc(9000).unwrap().unwrap();
        ranges.push((ring.as_mut_slice().as_ptr().addr(), ring.len(), true));
        for upload in &mut pinned.uploads {
            let mut landed = upload.landing().alloc(10_000).unwrap().unwrap();
            ranges.push((landed.as_mut_slice().as_ptr().addr(), landed.len(), true));
            ranges.push((upload.memory.start().as_ptr().addr(), layout.landing_at, true));
        }
        for statuses in &pinned.statuses {
            ranges.push((statuses.start().addr(), 20, false));
        }
        for _ in 0..3 {
            let slot = pinned.slots.try_acquire(5).unwrap();
            for place in 0..5 {
                let out = slot.claim(place).unwrap();
                ranges.push((out.as_ptr().addr(), 1001, false));
                std::mem::forget(out);
            }
            std::mem::forget(slot);
        }
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{ranges:?}");
        for (at, len, is_read) in ranges {
            assert!(whole.contains(&at) && whole.contains(&(at + len - 1)));
            assert_eq!(at + len <= reads.as_ptr().addr() + reads_bytes, is_read);
        }
    }

    #[test]
    fn descriptions_are_put_downward_until_there_is_no_room() {
        let layout = UploadLayout::new(4, 1, 4096).unwrap();
        let pinned = Pinned::new(4096, 1, layout, &ViewLayout::of_one(8), None).unwrap();
        let upload = &pinned.uploads[0];
        let segments = [Segment { words: 0, ..Segment::default() }, Segment { words: 7, ..Segment::default() }];
        let tables = [3; 400];
        let needs = Needs { words: 10, ..Needs::default() };
        let description = Description { image: Image::default(), segments: &segments, tables: &tables, needs };
        for round in 0..2 {
            let slot = pinned.slots.try_acquire(4).unwrap();
            upload.start_round();
            let mut filled = None;
            let mut put = 0;
            for place in 0..4 {
                let mut out = slot.claim(place).unwrap();
                put += usize::from(upload.put(&mut out, 0, &description));
                filled = out.finish();
            }
            let mut filled = filled.unwrap();
            assert_eq!(put, 4, "round {round}");
            let (start, used) = upload.used(&filled, 100);
            let (start, used) = (start, used.to_vec());
            assert_eq!((start, used.len()), (upload.images_at - 4 * 464, 4 * 464 + 4 * 320 + 112));
            for (place, image) in upload.images_mut(&mut filled).iter().enumerate() {
                assert_eq!((image.output, image.tables - image.segments), (place as u64 * 8, 64));
                let at = image.segments as usize - start;
                let segments: [Segment; 2] = bytemuck::pod_read_unaligned(&used[at..at + 64]);
                assert_eq!(segments.map(|segment| segment.words), [10 * place as u32, 10 * place as u32 + 7]);
                assert_eq!(used[at + 64..at + 464], tables);
            }
        }
        let mut out = pinned.slots.try_acquire(4).unwrap().claim(0).unwrap();
        let more = (0..1000).take_while(|_| upload.put(&mut out, 0, &description)).count();
        assert!(more > 0 && more < 1000, "{more} more");
    }
}
