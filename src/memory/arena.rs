//! The arena: one ring of memory that encoded samples are read into.

use std::collections::VecDeque;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::mapping::Part;
use crate::error::{Error, ErrorKind, Result};

/// The alignment of every region's start and length: a page, which is at least what any device that
/// reports STATX_DIOALIGN has been seen to ask for.
pub const REGION_ALIGN_BYTES: usize = 4096;

/// Regions that can be out at once. Far above any queue depth; bounds the ring of descriptors.
const REGIONS_MAX: usize = 8192;

/// A ring of memory, cut into [`Region`]s by one thread and given back by any.
///
/// Regions are taken from the head; the tail moves on when the oldest regions are dropped, so memory
/// comes back in the order in which it was handed out. Cloning clones a handle.
///
/// Dropping a region is one atomic store. Allocating takes a mutex that only another allocation or a
/// waiting thread can hold.
#[derive(Clone)]
pub struct Arena {
    shared: Arc<Shared>,
}

struct Shared {
    memory: Part,
    /// Everything that reads may land in, this arena and others beside it: what is registered with io_uring.
    reads: Part,
    ring: Mutex<Ring>,
    /// `done[sequence % REGIONS_MAX]`: the region has been dropped. Set by whoever drops it, cleared under
    /// the mutex when its number is handed out again.
    done: Box<[AtomicBool]>,
    /// A thread sleeps in `wait_for_space`, so a drop has to wake it.
    waiting: AtomicBool,
    space: Condvar,
}

struct Ring {
    head: Head,
    high_water_bytes: usize,
    /// The bytes that each region out (oldest first) takes, with what was skipped to place it.
    out: VecDeque<usize>,
    oldest: usize,
}

/// Where the next region goes.
#[derive(Clone, Copy)]
struct Head {
    /// In bytes from the start of the arena.
    at: usize,
    used_bytes: usize,
    /// Regions that are out.
    regions: usize,
}

impl Arena {
    /// Maps an arena of at least `capacity_bytes`. Memory is touched when it is first used or
    /// registered.
    ///
    /// # Errors
    /// `LimitExceeded` if the memory is not to be had.
    pub fn new(capacity_bytes: usize) -> Result<Self> {
        let memory = Part::new(capacity_bytes)?;
        Ok(Self::of(memory.clone(), memory))
    }

    /// An arena of memory that nobody else uses, a part of what reads may land in.
    pub(super) fn of(memory: Part, reads: Part) -> Self {
        let head = Head { at: 0, used_bytes: 0, regions: 0 };
        let ring = Ring { head, high_water_bytes: 0, out: VecDeque::with_capacity(REGIONS_MAX), oldest: 0 };
        Self {
            shared: Arc::new(Shared {
                memory,
                reads,
                ring: Mutex::new(ring),
                done: (0..REGIONS_MAX).map(|_| AtomicBool::new(false)).collect(),
                waiting: AtomicBool::new(false),
                space: Condvar::new(),
            }),
        }
    }

    /// Takes `len_bytes` (rounded up to [`REGION_ALIGN_BYTES`]) from the ring, or `None` while there is no
    /// room. The bytes hold whatever they held before.
    ///
    /// # Errors
    /// `LimitExceeded` if the arena could not hold it even when empty.
    pub fn alloc(&self, len_bytes: usize) -> Result<Option<Region>> {
        let mut region = None;
        self.alloc_all([len_bytes].into_iter(), |taken| region = Some(taken))?;
        Ok(region)
    }

    /// Takes a region for each of `lens_bytes` and hands them to `put` in that order, or takes none while
    /// there is no room for all of them: whether it did.
    ///
    /// Whoever needs several regions before any of them can be freed has to ask for them together. One by
    /// one, two that each hold a part of the ring could wait for the other's part for ever.
    ///
    /// # Errors
    /// `LimitExceeded` if the arena could not hold them all even when empty.
    pub fn alloc_all(
        &self,
        lens_bytes: impl Iterator<Item = usize> + Clone,
        mut put: impl FnMut(Region),
    ) -> Result<bool> {
        self.check(lens_bytes.clone())?;
        let mut ring = self.shared.lock();
        self.shared.reclaim(&mut ring);
        if !ring.has_room(lens_bytes.clone(), self.capacity_bytes()) {
            return Ok(false);
        }
        for len_bytes in lens_bytes {
            let len_bytes = round_up(len_bytes);
            let sequence = (ring.oldest + ring.out.len()) % REGIONS_MAX;
            let Some(start) = ring.take(len_bytes, self.capacity_bytes()) else {
                unreachable!("there is room for all of them")
            };
            // Relaxed: the region reaches another thread only through something that synchronises.
            self.shared.done[sequence].store(false, Ordering::Relaxed);
            put(Region { shared: Arc::clone(&self.shared), sequence, start, window: 0..len_bytes, len_bytes });
        }
        Ok(true)
    }

    /// Sleeps until [`alloc_all`](Self::alloc_all) of `lens_bytes` would succeed; `false` if `timeout`
    /// passes first.
    ///
    /// # Errors
    /// As `alloc_all`.
    pub fn wait_for_space(&self, lens_bytes: impl Iterator<Item = usize> + Clone, timeout: Duration) -> Result<bool> {
        self.check(lens_bytes.clone())?;
        let deadline = Instant::now() + timeout;
        let mut ring = self.shared.lock();
        loop {
            self.shared.waiting.store(true, Ordering::Relaxed);
            // Pairs with the fence in Region::drop: either we see its `done`, or it sees `waiting`.
            fence(Ordering::SeqCst);
            self.shared.reclaim(&mut ring);
            let found = ring.has_room(lens_bytes.clone(), self.capacity_bytes());
            let left = deadline.saturating_duration_since(Instant::now());
            if found || left.is_zero() {
                self.shared.waiting.store(false, Ordering::Relaxed);
                return Ok(found);
            }
            ring = self.shared.space.wait_timeout(ring, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Bytes in all.
    pub fn capacity_bytes(&self) -> usize {
        self.shared.memory.len_bytes()
    }

    /// The most bytes that were ever out at once.
    pub fn high_water_bytes(&self) -> usize {
        self.shared.lock().high_water_bytes
    }

    /// Bytes that are out now, regions dropped out of turn included.
    pub fn used_bytes(&self) -> usize {
        let mut ring = self.shared.lock();
        self.shared.reclaim(&mut ring);
        ring.head.used_bytes
    }

    /// Start and length of what reads may land in, for registering it with io_uring.
    pub(crate) fn reads(&self) -> (NonNull<u8>, usize) {
        (self.shared.reads.start(), self.shared.reads.len_bytes())
    }

    /// Refuses what would not fit even if nothing were out.
    fn check(&self, lens_bytes: impl Iterator<Item = usize> + Clone) -> Result<()> {
        let capacity_bytes = self.capacity_bytes();
        let mut empty = Head { at: 0, used_bytes: 0, regions: 0 };
        if lens_bytes.clone().all(|len_bytes| empty.place(round_up(len_bytes), capacity_bytes).is_some()) {
            return Ok(());
        }
        let (reads, len_bytes) = lens_bytes.fold((0_usize, 0_usize), |(n, sum), len| (n + 1, sum.saturating_add(len)));
        let what = if reads == 1 { "a read".to_owned() } else { format!("{reads} reads of one sample") };
        let message = format!("{what} of {len_bytes} bytes is larger than the arena of {capacity_bytes} bytes");
        Err(Error::new(ErrorKind::LimitExceeded, message)
            .with_remedy("enlarge the arena, or lower Limits::max_bytes if no sample should be that large"))
    }
}

/// The bytes that a region of `len_bytes` takes; saturates at what no arena holds.
fn round_up(len_bytes: usize) -> usize {
    len_bytes.max(1).checked_next_multiple_of(REGION_ALIGN_BYTES).unwrap_or(usize::MAX)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        // The ring is consistent between any two statements that can panic: there are none.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the tail over the oldest regions that have been dropped.
    fn reclaim(&self, ring: &mut Ring) {
        while let Some(taken) = ring.out.front() {
            // Acquire: what the dropping thread read or wrote happened before the bytes are handed out
            // again.
            if !self.done[ring.oldest].load(Ordering::Acquire) {
                return;
            }
            ring.head.used_bytes -= taken;
            ring.head.regions -= 1;
            ring.oldest = (ring.oldest + 1) % REGIONS_MAX;
            ring.out.pop_front();
        }
        // Nothing is out: starting at the front again lets the largest region fit without a skip.
        ring.head.at = 0;
    }
}

impl Ring {
    /// Whether all of them would find a place, one after another.
    fn has_room(&self, mut lens_bytes: impl Iterator<Item = usize>, capacity_bytes: usize) -> bool {
        let mut trial = self.head;
        lens_bytes.all(|len_bytes| trial.place(round_up(len_bytes), capacity_bytes).is_some())
    }

    /// Hands out `len_bytes` in one piece: where they start.
    fn take(&mut self, len_bytes: usize, capacity_bytes: usize) -> Option<usize> {
        let taken = self.head.place(len_bytes, capacity_bytes)?;
        self.high_water_bytes = self.high_water_bytes.max(self.head.used_bytes);
        self.out.push_back(taken);
        Some(self.head.at - len_bytes)
    }
}

impl Head {
    /// Moves over the place of `len_bytes` in one piece: the bytes this takes from the ring, what is skipped
    /// at its end included.
    fn place(&mut self, len_bytes: usize, capacity_bytes: usize) -> Option<usize> {
        let to_end = capacity_bytes - self.at;
        let (start, taken) =
            if len_bytes <= to_end { (self.at, len_bytes) } else { (0, to_end.checked_add(len_bytes)?) };
        let used_bytes = self.used_bytes.checked_add(taken)?;
        if self.regions == REGIONS_MAX || used_bytes > capacity_bytes {
            return None;
        }
        *self = Self { at: start + len_bytes, used_bytes, regions: self.regions + 1 };
        Some(taken)
    }
}

/// A piece of an [`Arena`], owned: nobody else can read or write its bytes until it is dropped.
///
/// It may be sent to and dropped on any thread. [`narrow`](Self::narrow) hides the bytes around the
/// ones that were asked for, so that what a completed read hands out is the sample and nothing else.
pub struct Region {
    shared: Arc<Shared>,
    sequence: usize,
    start: usize,
    len_bytes: usize,
    /// The visible part, from `start`.
    window: Range<usize>,
}

impl Region {
    /// Its visible bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: see `pointer`; shared access to bytes that only this region can reach.
        unsafe { std::slice::from_raw_parts(self.pointer().as_ptr(), self.window.len()) }
    }

    /// Its visible bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: see `pointer`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer().as_ptr(), self.window.len()) }
    }

    /// Visible bytes.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether no byte is visible.
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Bytes of the arena that it holds until it is dropped, visible or not.
    pub fn allocated_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Where its visible bytes start, from the start of the arena.
    pub(crate) fn position(&self) -> usize {
        self.start + self.window.start
    }

    /// Where the last byte that it holds ends, from the start of the arena.
    pub(crate) fn end(&self) -> usize {
        self.start + self.len_bytes
    }

    /// Makes only `range` of the visible bytes visible.
    ///
    /// # Panics
    /// If the range does not lie within them.
    pub fn narrow(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} is outside of {} bytes", self.len());
        self.window = self.window.start + range.start..self.window.start + range.end;
    }

    /// The first visible byte. Inside the arena's memory, which `self.shared` keeps mapped; initialised, since the
    /// kernel zeroes anonymous memory; and no other region overlaps it: the ring never hands out bytes between
    /// its tail and its head, and the tail passes this region only after `done` is set by its drop.
    fn pointer(&self) -> NonNull<u8> {
        // SAFETY: `start + window` lies within the memory: `place` keeps `start + len_bytes` within the
        // capacity, and `narrow` keeps the window within `len_bytes`.
        unsafe { self.shared.memory.start().add(self.position()) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // Release: our accesses to the bytes happen before their next owner's.
        self.shared.done[self.sequence].store(true, Ordering::Release);
        // Pairs with the fence in wait_for_space.
        fence(Ordering::SeqCst);
        if self.shared.waiting.load(Ordering::Relaxed) {
            // Under the mutex the waiter is either asleep, and wakes, or has not looked at `done` yet.
            let _ring = self.shared.lock();
            self.shared.space.notify_all();
        }
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({} of {} bytes at {})", self.len(), self.len_bytes, self.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    fn alloc(arena: &Arena, len: usize) -> Option<Region> {
        arena.alloc(len).unwrap()
    }

    #[test]
    fn memory_comes_back_in_order() {
        let arena = Arena::new(2 * MIB).unwrap();
        let first = alloc(&arena, MIB).unwrap();
        let second = alloc(&arena, MIB).unwrap();
        assert!(alloc(&arena, 1).is_none());
        drop(second);
        assert!(alloc(&arena, 1).is_none(), "the oldest region is still out");
        drop(first);
        assert_eq!(arena.used_bytes(), 0);
        assert_eq!(alloc(&arena, 2 * MIB).unwrap().len(), 2 * MIB);
        assert_eq!(arena.high_water_bytes(), 2 * MIB);
    }

    #[test]
    fn what_can_never_fit_is_an_error_with_numbers_and_remedy() {
        let arena = Arena::new(2 * MIB).unwrap();
        let error = arena.alloc(2 * MIB + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.to_string().contains("2097153") && error.to_string().contains("2097152"), "{error}");
        assert!(error.remedy().is_some());
        assert!(arena.alloc(usize::MAX).is_err());
    }

    #[test]
    fn a_region_outlives_every_handle_of_the_arena() {
        let arena = Arena::new(1).unwrap();
        let mut region = alloc(&arena, 1).unwrap();
        drop(arena);
        region.as_mut_slice().fill(9);
        assert!(region.as_slice().iter().all(|byte| *byte == 9));
    }

    #[test]
    fn narrowing_hides_and_keeps() {
        let arena = Arena::new(8192).unwrap();
        let mut region = alloc(&arena, 8192).unwrap();
        region.as_mut_slice()[100..103].copy_from_slice(b"abc");
        region.narrow(100..104);
        region.narrow(0..3);
        assert_eq!(region.as_slice(), b"abc");
        assert_eq!(region.allocated_bytes(), 8192);
    }

    #[test]
    fn more_regions_than_descriptors_wait() {
        let arena = Arena::new((REGIONS_MAX + 10) * REGION_ALIGN_BYTES).unwrap();
        let regions: Vec<_> = std::iter::from_fn(|| alloc(&arena, 1)).collect();
        assert_eq!(regions.len(), REGIONS_MAX);
        drop(regions);
        assert!(alloc(&arena, 1).is_some());
    }

    #[test]
    fn waiting_ends_with_space_or_with_the_timeout() {
        let arena = Arena::new(4096).unwrap();
        let region = alloc(&arena, 4096).unwrap();
        assert!(!arena.wait_for_space([1].into_iter(), Duration::from_millis(5)).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                drop(region);
            });
            assert!(arena.wait_for_space([1].into_iter(), Duration::from_secs(60)).unwrap());
        });
        assert!(alloc(&arena, 4096).is_some());
    }

    /// Eight threads check and drop what one thread fills: a byte of another region would show.
    #[test]
    fn regions_never_overlap_under_many_threads() {
        let arena = Arena::new(MIB).unwrap();
        let (sender, receiver) = crossbeam_channel::bounded::<(u8, Region)>(64);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let receiver = receiver.clone();
                scope.spawn(move || {
                    for (tag, region) in receiver {
                        assert!(region.as_slice().iter().all(|byte| *byte == tag));
                    }
                });
            }
            drop(receiver);
            for round in 0..20_000_usize {
                let len = round * 7919 % 40_000;
                let mut region = loop {
                    match alloc(&arena, len) {
                        Some(region) => break region,
                        None => assert!(arena.wait_for_space([len].into_iter(), Duration::from_secs(60)).unwrap()),
                    }
                };
                region.as_mut_slice().fill(round as u8);
                sender.send((round as u8, region)).unwrap();
            }
            drop(sender);
        });
        assert_eq!(arena.used_bytes(), 0);
    }

    #[test]
    fn regions_are_taken_together_or_not_at_all() {
        let arena = Arena::new(2 * MIB).unwrap();
        let first = alloc(&arena, MIB).unwrap();
        let mut regions = vec![];
        assert!(!arena.alloc_all([MIB / 2, MIB / 2, 1].into_iter(), |region| regions.push(region)).unwrap());
        assert!(regions.is_empty());
        assert_eq!(arena.used_bytes(), MIB, "nothing was taken");
        assert!(arena.alloc_all([MIB / 2, MIB / 2].into_iter(), |region| regions.push(region)).unwrap());
        assert_eq!(regions.iter().map(Region::len).collect::<Vec<_>>(), [MIB / 2, MIB / 2]);
        assert!(!arena.wait_for_space([1, MIB].into_iter(), Duration::from_millis(5)).unwrap());
        drop(first);
        assert!(!arena.wait_for_space([1, MIB].into_iter(), Duration::from_millis(5)).unwrap());
        assert!(arena.wait_for_space([MIB].into_iter(), Duration::from_millis(5)).unwrap());
        let error = arena.alloc_all([MIB, MIB, 1].into_iter(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("3 reads") && error.to_string().contains("2097153"), "{error}");
        let many = std::iter::repeat_n(1, REGIONS_MAX + 1);
        assert!(Arena::new(REGIONS_MAX * 2 * REGION_ALIGN_BYTES).unwrap().alloc_all(many, |_| {}).is_err());
    }

    proptest! {
        #[test]
        fn any_sequence_keeps_regions_apart(
            steps in proptest::collection::vec((proptest::collection::vec(1_usize..40_000, 1..4), 0_usize..4), 1..200),
        ) {
            let arena = Arena::new(128 << 10).unwrap();
            let mut out: Vec<Region> = Vec::new();
            for (lens, action) in steps {
                if action == 0 && !out.is_empty() {
                    out.remove(lens[0] % out.len());
                    continue;
                }
                let before = out.len();
                let taken = arena.alloc_all(lens.iter().copied(), |region| out.push(region)).unwrap();
                prop_assert_eq!(out.len() - before, if taken { lens.len() } else { 0 });
                for (index, region) in out.iter().enumerate().skip(before) {
                    prop_assert!(region.len() >= lens[index - before] && region.start % REGION_ALIGN_BYTES == 0);
                    prop_assert!(region.start + region.len_bytes <= arena.capacity_bytes());
                    for other in &out[..index] {
                        let apart = region.start + region.len_bytes <= other.start
                            || other.start + other.len_bytes <= region.start;
                        prop_assert!(apart, "{:?} {:?}", region, other);
                    }
                }
            }
            out.clear();
            prop_assert_eq!(arena.used_bytes(), 0);
        }
    }
}
