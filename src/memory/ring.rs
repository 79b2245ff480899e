//! The ring of addresses under an arena: pieces are taken at its head and come back in about that order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// The alignment of every region's start and length: a page, which is at least what any device that
/// reports STATX_DIOALIGN has been seen to ask for, and what cuFile asks for.
pub const REGION_ALIGN_BYTES: usize = 4096;

/// Pieces that can be out at once. Far above any queue depth; bounds the ring of descriptors.
pub(super) const PIECES_MAX: usize = 8192;

/// Addresses of some memory `M`, which it keeps alive, cut into [`Piece`]s by one thread and given back by any.
///
/// Dropping a piece is one atomic exchange. Allocating takes a mutex that only another allocation or a
/// waiting thread can hold. Nothing here touches the memory itself.
///
/// A piece that may not come back for a long time can be [passed](Ticket::pass): the ring goes round without it, and
/// places nothing on its bytes until it is dropped.
pub(super) struct Ring<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Clone for Ring<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<M> {
    memory: M,
    capacity_bytes: usize,
    state: Mutex<State>,
    /// `marks[sequence % PIECES_MAX]`: which piece has the place, and whether the tail may move over it. Set to
    /// [`DROPPED`] by whoever drops it, and the rest under the mutex.
    marks: Box<[AtomicU64]>,
    /// A thread sleeps in `wait_for_space`, so a drop has to wake it.
    waiting: AtomicBool,
    space: Condvar,
}

struct State {
    head: Head,
    high_water_bytes: usize,
    /// The bytes that each piece out (oldest first) takes, with what was skipped to place it.
    out: VecDeque<usize>,
    /// The number of the oldest of them. Numbers are never used again.
    oldest: u64,
    /// The pieces that were passed and are not dropped yet. Empty in all but bad cases.
    passed: Vec<Passed>,
}

/// A piece that the ring goes round without.
struct Passed {
    sequence: u64,
    /// Its bytes, from the start of the ring.
    range: Range<usize>,
}

/// What a mark says of its piece, below the piece's number.
const OUT: u64 = 0;
const DROPPED: u64 = 1;
const PASSED: u64 = 2;

fn mark(sequence: u64, says: u64) -> u64 {
    sequence << 2 | says
}

/// Where the next piece goes.
#[derive(Clone, Copy)]
struct Head {
    /// In bytes from the start of the ring.
    at: usize,
    used_bytes: usize,
    /// Pieces that are out.
    pieces: usize,
}

impl<M> Ring<M> {
    /// A ring over `capacity_bytes` of memory that nobody else uses.
    pub(super) fn new(memory: M, capacity_bytes: usize) -> Self {
        let head = Head { at: 0, used_bytes: 0, pieces: 0 };
        let out = VecDeque::with_capacity(PIECES_MAX);
        let state = State { head, high_water_bytes: 0, out, oldest: 0, passed: Vec::new() };
        Self {
            shared: Arc::new(Shared {
                memory,
                capacity_bytes,
                state: Mutex::new(state),
                marks: (0..PIECES_MAX).map(|_| AtomicU64::new(0)).collect(),
                waiting: AtomicBool::new(false),
                space: Condvar::new(),
            }),
        }
    }

    /// As [`Arena::alloc_all`](super::Arena::alloc_all).
    pub(super) fn alloc_all(
        &self,
        lens_bytes: impl Iterator<Item = usize> + Clone,
        mut put: impl FnMut(Piece<M>),
    ) -> Result<bool> {
        let mut state = self.shared.lock();
        self.check(lens_bytes.clone(), &state.passed)?;
        self.shared.reclaim(&mut state);
        if !state.has_room(lens_bytes.clone(), self.capacity_bytes()) {
            return Ok(false);
        }
        for len_bytes in lens_bytes {
            let len_bytes = round_up(len_bytes);
            let sequence = state.oldest + state.out.len() as u64;
            let Some(start) = state.take(len_bytes, self.capacity_bytes()) else {
                unreachable!("there is room for all of them")
            };
            // Relaxed: the piece reaches another thread only through something that synchronises.
            self.shared.mark_of(sequence).store(mark(sequence, OUT), Ordering::Relaxed);
            put(Piece { shared: Arc::clone(&self.shared), sequence, start, window: 0..len_bytes, len_bytes });
        }
        Ok(true)
    }

    /// As [`Arena::wait_for_space`](super::Arena::wait_for_space).
    pub(super) fn wait_for_space(
        &self,
        lens_bytes: impl Iterator<Item = usize> + Clone,
        timeout: Duration,
    ) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        // Only the thread that allocates, which this is, has pieces passed.
        self.check(lens_bytes.clone(), &state.passed)?;
        loop {
            self.shared.waiting.store(true, Ordering::Relaxed);
            // Pairs with the fence in Piece::drop: either we see its mark, or it sees `waiting`.
            fence(Ordering::SeqCst);
            self.shared.reclaim(&mut state);
            let found = state.has_room(lens_bytes.clone(), self.capacity_bytes());
            let left = deadline.saturating_duration_since(Instant::now());
            if found || left.is_zero() {
                self.shared.waiting.store(false, Ordering::Relaxed);
                return Ok(found);
            }
            state = self.shared.space.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn memory(&self) -> &M {
        &self.shared.memory
    }

    /// Bytes in all.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.shared.capacity_bytes
    }

    /// The most bytes that were ever out at once.
    pub(super) fn high_water_bytes(&self) -> usize {
        self.shared.lock().high_water_bytes
    }

    /// Bytes that are out now, pieces dropped out of turn included.
    pub(super) fn used_bytes(&self) -> usize {
        let mut state = self.shared.lock();
        self.shared.reclaim(&mut state);
        let tail = state.oldest;
        let behind = state.passed.iter().filter(|passed| passed.sequence < tail);
        state.head.used_bytes + behind.map(|passed| passed.range.len()).sum::<usize>()
    }

    /// Bytes of pieces that were passed and are not dropped yet.
    pub(super) fn passed_bytes(&self) -> usize {
        self.shared.lock().passed.iter().map(|passed| passed.range.len()).sum()
    }

    /// Refuses what would not fit even if nothing were out but what was passed.
    fn check(&self, lens_bytes: impl Iterator<Item = usize> + Clone, passed: &[Passed]) -> Result<()> {
        let capacity_bytes = self.capacity_bytes();
        let fits = |passed| {
            let mut empty = Head { at: 0, used_bytes: 0, pieces: 0 };
            lens_bytes.clone().all(|len_bytes| empty.place(round_up(len_bytes), capacity_bytes, passed).is_some())
        };
        if fits(passed) {
            return Ok(());
        }
        let (reads, len_bytes) =
            lens_bytes.clone().fold((0_usize, 0_usize), |(n, sum), len| (n + 1, sum.saturating_add(len)));
        let what = if reads == 1 { "a read".to_owned() } else { format!("{reads} reads of one sample") };
        if fits(&[]) {
            let (hanging, held) = (passed.len(), passed.iter().map(|passed| passed.range.len()).sum::<usize>());
            let message = format!(
                "{what} of {len_bytes} bytes does not fit: {hanging} reads that have not completed hold {held} of the \
                 arena's {capacity_bytes} bytes"
            );
            return Err(Error::new(ErrorKind::LimitExceeded, message)
                .with_remedy("see what the storage hangs on (dmesg), or enlarge the arena"));
        }
        let message = format!("{what} of {len_bytes} bytes is larger than the arena of {capacity_bytes} bytes");
        Err(Error::new(ErrorKind::LimitExceeded, message)
            .with_remedy("enlarge the arena, or lower Limits::max_bytes if no sample should be that large"))
    }
}

/// The bytes that a piece of `len_bytes` takes; saturates at what no ring holds.
fn round_up(len_bytes: usize) -> usize {
    len_bytes.max(1).checked_next_multiple_of(REGION_ALIGN_BYTES).unwrap_or(usize::MAX)
}

impl<M> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that can panic: there are none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark_of(&self, sequence: u64) -> &AtomicU64 {
        &self.marks[(sequence % PIECES_MAX as u64) as usize]
    }

    /// Moves the tail over the oldest pieces that have been dropped or passed.
    fn reclaim(&self, state: &mut State) {
        while let Some(taken) = state.out.front() {
            // Acquire: what the dropping thread read or wrote happened before the bytes are handed out
            // again.
            if self.mark_of(state.oldest).load(Ordering::Acquire) == mark(state.oldest, OUT) {
                return;
            }
            state.head.used_bytes -= taken;
            state.head.pieces -= 1;
            state.oldest += 1;
            state.out.pop_front();
        }
        // Nothing is out: starting at the front again lets the largest piece fit without a skip.
        state.head.at = 0;
    }
}

impl State {
    /// Whether all of them would find a place, one after another.
    fn has_room(&self, mut lens_bytes: impl Iterator<Item = usize>, capacity_bytes: usize) -> bool {
        let mut trial = self.head;
        lens_bytes.all(|len_bytes| trial.place(round_up(len_bytes), capacity_bytes, &self.passed).is_some())
    }

    /// Hands out `len_bytes` in one piece: where they start.
    fn take(&mut self, len_bytes: usize, capacity_bytes: usize) -> Option<usize> {
        let taken = self.head.place(len_bytes, capacity_bytes, &self.passed)?;
        self.high_water_bytes = self.high_water_bytes.max(self.head.used_bytes);
        self.out.push_back(taken);
        Some(self.head.at - len_bytes)
    }
}

impl Head {
    /// Moves over the place of `len_bytes` in one piece that touches none of `passed`: the bytes this takes from the
    /// ring, what is skipped to get there included.
    fn place(&mut self, len_bytes: usize, capacity_bytes: usize, passed: &[Passed]) -> Option<usize> {
        if len_bytes > capacity_bytes {
            return None;
        }
        let (mut start, mut skipped, mut has_wrapped) = (self.at, 0, false);
        loop {
            let to_end = capacity_bytes - start;
            if len_bytes > to_end {
                if has_wrapped {
                    return None;
                }
                (start, skipped, has_wrapped) = (0, skipped + to_end, true);
            }
            let touches = |hole: &&Passed| start < hole.range.end && hole.range.start < start + len_bytes;
            let Some(hole) = passed.iter().find(touches) else { break };
            (start, skipped) = (hole.range.end, skipped + hole.range.end - start);
        }
        let taken = skipped + len_bytes;
        let used_bytes = self.used_bytes.checked_add(taken)?;
        if self.pieces == PIECES_MAX || used_bytes > capacity_bytes {
            return None;
        }
        *self = Self { at: start + len_bytes, used_bytes, pieces: self.pieces + 1 };
        Some(taken)
    }
}

/// A piece of a [`Ring`], owned: no other piece overlaps it until it is dropped. Before that the ring never hands out its
/// bytes, since they lie between its tail and its head, and the tail goes over it only after its drop, or after it was
/// passed: then its bytes are kept free until its drop.
///
/// It may be sent to and dropped on any thread. [`narrow`](Self::narrow) hides the bytes around the
/// ones that were asked for.
pub(super) struct Piece<M> {
    shared: Arc<Shared<M>>,
    sequence: u64,
    start: usize,
    len_bytes: usize,
    /// The visible part, from `start`.
    window: Range<usize>,
}

impl<M> Piece<M> {
    pub(super) fn memory(&self) -> &M {
        &self.shared.memory
    }

    /// Visible bytes.
    pub(super) fn len(&self) -> usize {
        self.window.len()
    }

    /// Bytes of the ring that it holds until it is dropped, visible or not.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Where its visible bytes start, from the start of the ring. They end within its capacity: `place` keeps
    /// `start + len_bytes` there, and `narrow` keeps the window within `len_bytes`.
    pub(super) fn position(&self) -> usize {
        self.start + self.window.start
    }

    /// Where the last byte that it holds ends, from the start of the ring.
    pub(super) fn end(&self) -> usize {
        self.start + self.len_bytes
    }

    /// What names it to others.
    pub(super) fn ticket(&self) -> Ticket<M> {
        Ticket { shared: Arc::clone(&self.shared), sequence: self.sequence, range: self.start..self.end() }
    }

    /// Makes only `range` of the visible bytes visible.
    ///
    /// # Panics
    /// If the range does not lie within them.
    pub(super) fn narrow(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} is outside of {} bytes", self.len());
        self.window = self.window.start + range.start..self.window.start + range.end;
    }
}

impl<M> Drop for Piece<M> {
    fn drop(&mut self) {
        let (out, dropped) = (mark(self.sequence, OUT), mark(self.sequence, DROPPED));
        // Release: our accesses to the bytes happen before their next owner's.
        let was_out = self
            .shared
            .mark_of(self.sequence)
            .compare_exchange(out, dropped, Ordering::Release, Ordering::Relaxed)
            .is_ok();
        if !was_out {
            // It was passed, and its place may be another's by now.
            let mut state = self.shared.lock();
            state.passed.retain(|passed| passed.sequence != self.sequence);
            self.shared.space.notify_all();
            return;
        }
        // Pairs with the fence in wait_for_space.
        fence(Ordering::SeqCst);
        if self.shared.waiting.load(Ordering::Relaxed) {
            // Under the mutex the waiter is either asleep, and wakes, or has not looked at the mark yet.
            let _state = self.shared.lock();
            self.shared.space.notify_all();
        }
    }
}

/// Names a piece to whoever does not own it.
pub(super) struct Ticket<M> {
    shared: Arc<Shared<M>>,
    sequence: u64,
    range: Range<usize>,
}

impl<M> Ticket<M> {
    /// Lets the ring go round without the piece, whose bytes stay its own until it is dropped: whether it still was out.
    pub(super) fn pass(&self) -> bool {
        let mut state = self.shared.lock();
        let (out, passed) = (mark(self.sequence, OUT), mark(self.sequence, PASSED));
        let mark = self.shared.mark_of(self.sequence);
        // Relaxed: the bytes are handed out again only after the piece's drop, which takes the mutex.
        let is_out = mark.compare_exchange(out, passed, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_out {
            state.passed.push(Passed { sequence: self.sequence, range: self.range.clone() });
            self.shared.space.notify_all();
        }
        is_out
    }
}

impl<M> std::fmt::Debug for Piece<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes at {}", self.len(), self.len_bytes, self.start)
    }
}
