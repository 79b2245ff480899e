//! The ring of addresses under an arena: pieces are taken at its head and come back in about that order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering, fence};
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
/// Dropping a piece is one atomic store. Allocating takes a mutex that only another allocation or a
/// waiting thread can hold. Nothing here touches the memory itself.
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
    /// `done[sequence % PIECES_MAX]`: the piece has been dropped. Set by whoever drops it, cleared under
    /// the mutex when its number is handed out again.
    done: Box<[AtomicBool]>,
    /// A thread sleeps in `wait_for_space`, so a drop has to wake it.
    waiting: AtomicBool,
    space: Condvar,
}

struct State {
    head: Head,
    high_water_bytes: usize,
    /// The bytes that each piece out (oldest first) takes, with what was skipped to place it.
    out: VecDeque<usize>,
    oldest: usize,
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
        let state = State { head, high_water_bytes: 0, out: VecDeque::with_capacity(PIECES_MAX), oldest: 0 };
        Self {
            shared: Arc::new(Shared {
                memory,
                capacity_bytes,
                state: Mutex::new(state),
                done: (0..PIECES_MAX).map(|_| AtomicBool::new(false)).collect(),
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
        self.check(lens_bytes.clone())?;
        let mut state = self.shared.lock();
        self.shared.reclaim(&mut state);
        if !state.has_room(lens_bytes.clone(), self.capacity_bytes()) {
            return Ok(false);
        }
        for len_bytes in lens_bytes {
            let len_bytes = round_up(len_bytes);
            let sequence = (state.oldest + state.out.len()) % PIECES_MAX;
            let Some(start) = state.take(len_bytes, self.capacity_bytes()) else {
                unreachable!("there is room for all of them")
            };
            // Relaxed: the piece reaches another thread only through something that synchronises.
            self.shared.done[sequence].store(false, Ordering::Relaxed);
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
        self.check(lens_bytes.clone())?;
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            self.shared.waiting.store(true, Ordering::Relaxed);
            // Pairs with the fence in Piece::drop: either we see its `done`, or it sees `waiting`.
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
        state.head.used_bytes
    }

    /// Refuses what would not fit even if nothing were out.
    fn check(&self, lens_bytes: impl Iterator<Item = usize> + Clone) -> Result<()> {
        let capacity_bytes = self.capacity_bytes();
        let mut empty = Head { at: 0, used_bytes: 0, pieces: 0 };
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

/// The bytes that a piece of `len_bytes` takes; saturates at what no ring holds.
fn round_up(len_bytes: usize) -> usize {
    len_bytes.max(1).checked_next_multiple_of(REGION_ALIGN_BYTES).unwrap_or(usize::MAX)
}

impl<M> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that can panic: there are none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the tail over the oldest pieces that have been dropped.
    fn reclaim(&self, state: &mut State) {
        while let Some(taken) = state.out.front() {
            // Acquire: what the dropping thread read or wrote happened before the bytes are handed out
            // again.
            if !self.done[state.oldest].load(Ordering::Acquire) {
                return;
            }
            state.head.used_bytes -= taken;
            state.head.pieces -= 1;
            state.oldest = (state.oldest + 1) % PIECES_MAX;
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
        if self.pieces == PIECES_MAX || used_bytes > capacity_bytes {
            return None;
        }
        *self = Self { at: start + len_bytes, used_bytes, pieces: self.pieces + 1 };
        Some(taken)
    }
}

/// A piece of a [`Ring`], owned: no other piece overlaps it until it is dropped. Before that the ring never hands out its
/// bytes, since they lie between its tail and its head, and the tail passes it only after `done` is set by its drop.
///
/// It may be sent to and dropped on any thread. [`narrow`](Self::narrow) hides the bytes around the
/// ones that were asked for.
pub(super) struct Piece<M> {
    shared: Arc<Shared<M>>,
    sequence: usize,
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
        // Release: our accesses to the bytes happen before their next owner's.
        self.shared.done[self.sequence].store(true, Ordering::Release);
        // Pairs with the fence in wait_for_space.
        fence(Ordering::SeqCst);
        if self.shared.waiting.load(Ordering::Relaxed) {
            // Under the mutex the waiter is either asleep, and wakes, or has not looked at `done` yet.
            let _state = self.shared.lock();
            self.shared.space.notify_all();
        }
    }
}

impl<M> std::fmt::Debug for Piece<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes at {}", self.len(), self.len_bytes, self.start)
    }
}
