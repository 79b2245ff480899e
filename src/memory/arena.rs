//! The arena: one ring of memory that encoded samples are read into.

use std::ops::Range;
use std::ptr::NonNull;
use std::time::Duration;

use super::mapping::{Pages, Part};
use super::placement::Placement;
use super::poison::{poison, unpoison};
use super::ring::{Piece, Ring, Ticket};
use crate::error::Result;

/// A ring of memory, cut into [`Region`]s by one thread and given back by any.
///
/// Regions are taken from the head; the tail moves on when the oldest regions are dropped, so memory
/// comes back in the order in which it was handed out. Cloning clones a handle.
///
/// Dropping a region is one atomic exchange. Allocating takes a mutex that only another allocation or a
/// waiting thread can hold.
#[derive(Clone)]
pub struct Arena(Ring<Memory>);

struct Memory {
    /// The arena's own.
    own: Part,
    /// Everything that reads may land in, this arena and others beside it: what is registered with io_uring.
    reads: Part,
    /// Whether what is free is nobody's. That of a landing area is copied with the rest.
    is_free_poisoned: bool,
}

impl Arena {
    /// Maps an arena of at least `capacity_bytes`: in huge pages that were set aside, where enough of them are free, else
    /// in memory that is touched when it is first used or registered.
    ///
    /// # Errors
    /// `LimitExceeded` if the memory is not to be had.
    pub fn new(capacity_bytes: usize) -> Result<Self> {
        Self::on_node(capacity_bytes, None)
    }

    /// The same in the smallest pages, for measuring what huge ones are worth.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn in_small_pages(capacity_bytes: usize) -> Result<Self> {
        let memory = Part::in_small_pages(capacity_bytes)?;
        Ok(Self::of(memory.clone(), memory))
    }

    /// The same with memory of a NUMA node, while that has some.
    pub(crate) fn on_node(capacity_bytes: usize, node: Option<u32>) -> Result<Self> {
        let memory = Part::for_reads(capacity_bytes, node)?;
        Ok(Self::of(memory.clone(), memory))
    }

    /// An arena of memory that nobody else uses, a part of what reads may land in.
    pub(super) fn of(own: Part, reads: Part) -> Self {
        poison(own.start(), own.len_bytes());
        Self::ring(Memory { own, reads, is_free_poisoned: true })
    }

    /// The same of memory that is read as a whole, whatever of it is free.
    pub(super) fn of_landing(own: Part, reads: Part) -> Self {
        Self::ring(Memory { own, reads, is_free_poisoned: false })
    }

    fn ring(memory: Memory) -> Self {
        let capacity_bytes = memory.own.len_bytes();
        Self(Ring::new(memory, capacity_bytes))
    }

    /// Takes `len_bytes` (rounded up to [`REGION_ALIGN_BYTES`](super::REGION_ALIGN_BYTES)) from the ring, or `None` while
    /// there is no room. The bytes hold whatever they held before.
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
        self.0.alloc_all(lens_bytes, |piece| {
            let region = Region(piece);
            unpoison(region.start(), region.allocated_bytes());
            put(region);
        })
    }

    /// Sleeps until [`alloc_all`](Self::alloc_all) of `lens_bytes` would succeed; `false` if `timeout`
    /// passes first.
    ///
    /// # Errors
    /// As `alloc_all`.
    pub fn wait_for_space(&self, lens_bytes: impl Iterator<Item = usize> + Clone, timeout: Duration) -> Result<bool> {
        self.0.wait_for_space(lens_bytes, timeout)
    }

    /// Bytes in all.
    pub fn capacity_bytes(&self) -> usize {
        self.0.capacity_bytes()
    }

    /// The pages that it consists of.
    pub fn pages(&self) -> Pages {
        self.0.memory().own.pages()
    }

    /// Where its memory lies just now.
    pub fn placement(&self) -> Placement {
        let own = &self.0.memory().own;
        Placement::of(own.start(), own.len_bytes(), own.pages())
    }

    /// The most bytes that were ever out at once.
    pub fn high_water_bytes(&self) -> usize {
        self.0.high_water_bytes()
    }

    /// Bytes that are out now, regions dropped out of turn included.
    pub fn used_bytes(&self) -> usize {
        self.0.used_bytes()
    }

    /// Those of them that reads hold which have passed their deadline and not come back: the ring goes round without them.
    pub fn quarantined_bytes(&self) -> usize {
        self.0.passed_bytes()
    }

    /// Start and length of what reads may land in, for registering it with io_uring.
    pub(crate) fn reads(&self) -> (NonNull<u8>, usize) {
        let reads = &self.0.memory().reads;
        (reads.start(), reads.len_bytes())
    }
}

/// A piece of an [`Arena`], owned: nobody else can read or write its bytes until it is dropped.
///
/// It may be sent to and dropped on any thread. [`narrow`](Self::narrow) hides the bytes around the
/// ones that were asked for, so that what a completed read hands out is the sample and nothing else.
pub struct Region(Piece<Memory>);

impl Region {
    /// Its visible bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: see `pointer`; shared access to bytes that only this region can reach.
        unsafe { std::slice::from_raw_parts(self.pointer().as_ptr(), self.len()) }
    }

    /// Its visible bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: see `pointer`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer().as_ptr(), self.len()) }
    }

    /// Visible bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no byte is visible.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the arena that it holds until it is dropped, visible or not.
    pub fn allocated_bytes(&self) -> usize {
        self.0.allocated_bytes()
    }

    /// What names it to whoever does not own it.
    pub(crate) fn ticket(&self) -> RegionTicket {
        RegionTicket(self.0.ticket())
    }

    /// Where its visible bytes start, from the start of the arena.
    pub(crate) fn position(&self) -> usize {
        self.0.position()
    }

    /// Where the last byte that it holds ends, from the start of the arena.
    pub(crate) fn end(&self) -> usize {
        self.0.end()
    }

    /// Makes only `range` of the visible bytes visible.
    ///
    /// # Panics
    /// If the range does not lie within them.
    pub fn narrow(&mut self, range: Range<usize>) {
        self.0.narrow(range);
    }

    /// The first byte that it holds, visible or not.
    fn start(&self) -> NonNull<u8> {
        let start = self.0.end() - self.0.allocated_bytes();
        // SAFETY: as in `pointer`.
        unsafe { self.0.memory().own.start().add(start) }
    }

    /// The first visible byte. Inside the arena's memory, which the piece keeps mapped; initialised, since the
    /// kernel zeroes anonymous memory; and no other region overlaps it, as pieces of a ring do not.
    fn pointer(&self) -> NonNull<u8> {
        // SAFETY: the visible bytes lie within the ring's capacity, which is that of the memory.
        unsafe { self.0.memory().own.start().add(self.position()) }
    }
}

impl Drop for Region {
    /// Before the ring can give its bytes to another.
    fn drop(&mut self) {
        if self.0.memory().is_free_poisoned {
            poison(self.start(), self.allocated_bytes());
        }
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({:?})", self.0)
    }
}

/// Names a [`Region`].
pub(crate) struct RegionTicket(Ticket<Memory>);

impl RegionTicket {
    /// Puts the region into quarantine, if it is still out: the arena goes round without it, and hands out none of its
    /// bytes until it is dropped.
    pub(crate) fn quarantine(&self) {
        self.0.pass();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::REGION_ALIGN_BYTES;
    use super::super::ring::PIECES_MAX;
    use super::*;
    use crate::error::ErrorKind;

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
        let arena = Arena::new((PIECES_MAX + 10) * REGION_ALIGN_BYTES).unwrap();
        let regions: Vec<_> = std::iter::from_fn(|| alloc(&arena, 1)).collect();
        assert_eq!(regions.len(), PIECES_MAX);
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
        let many = std::iter::repeat_n(1, PIECES_MAX + 1);
        assert!(Arena::new(PIECES_MAX * 2 * REGION_ALIGN_BYTES).unwrap().alloc_all(many, |_| {}).is_err());
    }

    /// A read that never ends takes its bytes out of the ring, and nothing else.
    #[test]
    fn the_ring_goes_round_without_what_is_in_quarantine() {
        let arena = Arena::new(64 << 10).unwrap();
        let before = alloc(&arena, 8192).unwrap();
        let mut hung = alloc(&arena, 4096).unwrap();
        hung.as_mut_slice().fill(7);
        let ticket = hung.ticket();
        ticket.quarantine();
        ticket.quarantine();
        assert_eq!((arena.quarantined_bytes(), arena.used_bytes()), (4096, 12 << 10));
        drop(before);
        assert_eq!(arena.used_bytes(), 4096, "it is out, and the tail has moved over it");
        for round in 0..100 {
            let mut region = alloc(&arena, 12 << 10).unwrap();
            region.as_mut_slice().fill(round);
            assert!(hung.as_slice().iter().all(|byte| *byte == 7), "round {round}");
        }
        // 56 KiB are left, 8 before it and 52 behind it.
        let error = alloc_error(&arena, 56 << 10);
        assert!(error.contains("1 reads that have not completed hold 4096 of the arena's 65536 bytes"), "{error}");
        assert!(alloc(&arena, 52 << 10).is_some());
        drop(hung);
        assert_eq!((arena.quarantined_bytes(), arena.used_bytes()), (0, 0));
        assert!(alloc(&arena, 64 << 10).is_some(), "its bytes are the ring's again");
        ticket.quarantine();
        assert_eq!(arena.quarantined_bytes(), 0, "it is gone");
    }

    fn alloc_error(arena: &Arena, len: usize) -> String {
        let error = arena.alloc(len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(arena.wait_for_space([len].into_iter(), Duration::from_secs(60)).is_err(), "it does not wait for it");
        error.to_string()
    }

    /// What holds on to the bytes of a region that was dropped, or reaches beyond one, is ended by AddressSanitizer.
    #[cfg(forebay_asan)]
    #[test]
    fn bytes_that_nobody_has_cannot_be_touched() {
        let this = "memory::arena::tests::bytes_that_nobody_has_cannot_be_touched";
        let touch = |pointer: NonNull<u8>| {
            // SAFETY: none; the memory stays mapped, and the sanitizer ends the process.
            std::hint::black_box(unsafe { pointer.read_volatile() });
        };
        if let Ok(place) = std::env::var("FOREBAY_TOUCHES") {
            let arena = Arena::new(MIB).unwrap();
            let mut region = alloc(&arena, 8192);
            let start = region.as_ref().map_or(NonNull::dangling(), Region::pointer);
            match place.as_str() {
                "released" => drop(region.take()),
                // SAFETY: within the arena.
                "beyond" => return touch(unsafe { start.add(8192) }),
                _ => {}
            }
            return touch(start);
        }
        for (place, is_ended) in [("held", false), ("released", true), ("beyond", true)] {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let output = command.args(["--exact", this]).env("FOREBAY_TOUCHES", place).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(!output.status.success(), is_ended, "{place}: {text}");
            assert_eq!(text.contains("use-after-poison"), is_ended, "{place}: {text}");
        }
    }

    proptest! {
        /// Whatever is put into quarantine, when, and whenever it is dropped.
        #[test]
        fn any_sequence_keeps_regions_apart(
            steps in proptest::collection::vec((proptest::collection::vec(1_usize..40_000, 1..4), 0_usize..5), 1..200),
        ) {
            let arena = Arena::new(128 << 10).unwrap();
            let mut out: Vec<Region> = Vec::new();
            for (lens, action) in steps {
                if action < 2 && !out.is_empty() {
                    let index = lens[0] % out.len();
                    if action == 0 {
                        out.remove(index);
                    } else {
                        out[index].ticket().quarantine();
                    }
                    continue;
                }
                let before = out.len();
                // What quarantine leaves may be too little.
                let taken = arena.alloc_all(lens.iter().copied(), |region| out.push(region)).unwrap_or(false);
                prop_assert_eq!(out.len() - before, if taken { lens.len() } else { 0 });
                for (index, region) in out.iter().enumerate().skip(before) {
                    prop_assert!(region.len() >= lens[index - before] && region.position() % REGION_ALIGN_BYTES == 0);
                    prop_assert!(region.end() <= arena.capacity_bytes());
                    for other in &out[..index] {
                        let apart = region.end() <= other.position() || other.end() <= region.position();
                        prop_assert!(apart, "{:?} {:?}", region, other);
                    }
                }
            }
            prop_assert!(arena.used_bytes() >= out.iter().map(Region::allocated_bytes).sum());
            out.clear();
            prop_assert_eq!((arena.used_bytes(), arena.quarantined_bytes()), (0, 0));
        }
    }
}
