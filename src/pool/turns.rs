//! Whose threads are at work: turns, by start-time fair queueing.
//!
//! So many threads may be at work as the pool has turns. A thread that has one keeps it from sample to sample, without any
//! lock, until its loader has nothing to decode or its [`QUANTUM`] is over and another is due; then the turn goes to the
//! waiting loader that has worked least, by its weight, so that loaders with large images and with small ones get the same
//! time. Of one loader's threads the one goes first that has waited longest: it has a sample in its hands.
//!
//! The rule is that of P. Goyal, H. M. Vin and H. Cheng, "Start-time fair queueing" (SIGCOMM 1996), for several servers as
//! by W. Jin, J. S. Chase and J. Kaur (SIGMETRICS 2004): a loader that begins to wait is taken to have worked at least as long
//! as the one that got a turn last. So time in which it wanted no more than it had is no claim on later, and neither a loader
//! that was idle nor one with few threads holds up the others; and none gets less than its share but for a sample or a
//! quantum of every turn. One that runs out of samples for a moment waits as long as a sample of the others takes: more slots
//! keep it from that.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Share;
use crate::report::{StageClock, lock};

/// How long a turn lasts where others wait, at least: some samples, so that the caches that a change of threads costs are a
/// small part, and far less than a batch takes.
const QUANTUM: Duration = Duration::from_millis(5);

/// Of a waiter that has no turn yet.
const NO_TURN: u64 = u64::MAX;

/// The turns of a pool.
pub(super) struct Turns {
    threads: usize,
    /// What time is counted from.
    start: Instant,
    /// Threads that wait, for those that work to see without the lock.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// How long the loader had worked that got a turn last, by its weight.
    clock_ns: u64,
    members: Vec<Option<Member>>,
}

/// A loader.
struct Member {
    weight: u64,
    /// How long its threads have worked in the turns that have ended, by its weight.
    worked_ns: u64,
    /// Those that have a turn, and when those began, summed.
    working: u64,
    begun_ns: u64,
    waiting: VecDeque<Arc<Waiter>>,
}

/// A thread that may wait.
struct Waiter {
    /// Since when it has a turn. Changed with the lock held.
    since_ns: AtomicU64,
    changed: Condvar,
}

impl Turns {
    pub(super) fn new(threads: usize) -> Self {
        let state = State { free: threads, clock_ns: 0, members: Vec::new() };
        Self { threads, start: Instant::now(), waiting: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Threads that have a turn, and that wait for one.
    pub(super) fn in_use(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (self.threads - state.free, state.waiting())
    }

    /// Takes in a loader: its number.
    pub(super) fn join(&self, weight: u32) -> usize {
        lock(&self.state).join(weight)
    }

    /// Lets a loader go whose threads have ended.
    pub(super) fn leave(&self, member: usize) {
        lock(&self.state).members[member] = None;
    }

    /// Wakes the threads of a loader that wait.
    pub(super) fn wake(&self, member: usize) {
        if let Some(member) = &lock(&self.state).members[member] {
            member.waiting.iter().for_each(|waiter| waiter.changed.notify_one());
        }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Gives away the turns that are free.
    fn grant(&self, state: &mut State, now_ns: u64) {
        while let Some(waiter) = state.grant(now_ns) {
            waiter.since_ns.store(now_ns, Relaxed);
            waiter.changed.notify_one();
        }
        self.waiting.store(state.waiting(), Relaxed);
    }

    /// Waits for a turn: since when there is one; none once the run is over.
    fn begin(&self, member: usize, waiter: &Arc<Waiter>, is_over: &AtomicBool) -> Option<u64> {
        let mut state = lock(&self.state);
        waiter.since_ns.store(NO_TURN, Relaxed);
        let now_ns = self.now_ns();
        state.enqueue(member, Arc::clone(waiter), now_ns);
        self.grant(&mut state, now_ns);
        loop {
            match waiter.since_ns.load(Relaxed) {
                NO_TURN if is_over.load(Relaxed) => {
                    state.dequeue(member, waiter);
                    self.waiting.store(state.waiting(), Relaxed);
                    return None;
                }
                NO_TURN => state = waiter.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                since_ns => return Some(since_ns),
            }
        }
    }

    fn end(&self, member: usize, since_ns: u64) {
        let mut state = lock(&self.state);
        let now_ns = self.now_ns();
        state.end(member, since_ns, now_ns);
        self.grant(&mut state, now_ns);
    }

    /// Ends a turn if another thread is due for it.
    fn end_if_due(&self, member: usize, since_ns: u64) -> bool {
        let mut state = lock(&self.state);
        let now_ns = self.now_ns();
        let goes_on = state.goes_on(member, now_ns);
        if !goes_on {
            state.end(member, since_ns, now_ns);
            self.grant(&mut state, now_ns);
        }
        !goes_on
    }
}

impl State {
    fn join(&mut self, weight: u32) -> usize {
        let (weight, waiting) = (u64::from(weight), VecDeque::new());
        let member = Some(Member { weight, worked_ns: self.clock_ns, working: 0, begun_ns: 0, waiting });
        match self.members.iter().position(Option::is_none) {
            Some(number) => {
                self.members[number] = member;
                number
            }
            None => {
                self.members.push(member);
                self.members.len() - 1
            }
        }
    }

    fn waiting(&self) -> usize {
        self.members.iter().flatten().map(|member| member.waiting.len()).sum()
    }

    fn enqueue(&mut self, number: usize, waiter: Arc<Waiter>, now_ns: u64) {
        if self.waiting() == 0 {
            // Turns have gone on without a word, as if each quantum had been given away anew.
            let working = self.members.iter().flatten().filter(|member| member.working > 0);
            self.clock_ns = working.map(|member| member.worked_ns(now_ns)).fold(self.clock_ns, u64::max);
        }
        let Some(member) = &mut self.members[number] else { return };
        if member.waiting.is_empty() {
            member.worked_ns += self.clock_ns.saturating_sub(member.worked_ns(now_ns));
        }
        member.waiting.push_back(waiter);
    }

    fn dequeue(&mut self, number: usize, waiter: &Arc<Waiter>) {
        if let Some(member) = &mut self.members[number] {
            member.waiting.retain(|waiting| !Arc::ptr_eq(waiting, waiter));
        }
    }

    /// The waiting loader whose turn is next: its number, and how long it has worked.
    fn next(&self, now_ns: u64) -> Option<(usize, u64)> {
        let members = self.members.iter().enumerate();
        let waiting = members.filter_map(|(number, member)| Some((number, member.as_ref()?)));
        let waiting = waiting.filter(|(_, member)| !member.waiting.is_empty());
        let next = waiting.min_by_key(|(_, member)| (member.worked_ns(now_ns), member.working / member.weight));
        next.map(|(number, member)| (number, member.worked_ns(now_ns)))
    }

    /// Gives away a turn, if one is free: the thread that has it.
    fn grant(&mut self, now_ns: u64) -> Option<Arc<Waiter>> {
        if self.free == 0 {
            return None;
        }
        let (number, worked_ns) = self.next(now_ns)?;
        let member = self.members[number].as_mut()?;
        let waiter = member.waiting.pop_front()?;
        self.free -= 1;
        self.clock_ns = self.clock_ns.max(worked_ns);
        member.working += 1;
        member.begun_ns = member.begun_ns.wrapping_add(now_ns);
        Some(waiter)
    }

    fn end(&mut self, number: usize, since_ns: u64, now_ns: u64) {
        self.free += 1;
        let Some(member) = &mut self.members[number] else { return };
        member.worked_ns += now_ns.saturating_sub(since_ns) / member.weight;
        member.working -= 1;
        member.begun_ns = member.begun_ns.wrapping_sub(since_ns);
    }

    /// Whether a turn whose quantum is over goes on with another: not where a waiting thread has a better claim, since its
    /// loader has worked less, or as good a one, since it is of the same loader.
    fn goes_on(&mut self, number: usize, now_ns: u64) -> bool {
        let Some(member) = &self.members[number] else { return true };
        let own_ns = member.worked_ns(now_ns);
        let goes_on = self.next(now_ns).is_none_or(|(_, worked_ns)| worked_ns > own_ns);
        if goes_on {
            self.clock_ns = self.clock_ns.max(own_ns);
        }
        goes_on
    }
}

impl Member {
    /// How long it has worked, turns that have not ended included.
    fn worked_ns(&self, now_ns: u64) -> u64 {
        // What wraps in the terms does not in their difference.
        let at_work = self.working.wrapping_mul(now_ns).wrapping_sub(self.begun_ns);
        self.worked_ns + at_work / self.weight
    }
}

/// A decode thread's turns; of a loader without a pool it is always its turn.
pub(crate) struct Turn<'a>(Option<Seat<'a>>);

struct Seat<'a> {
    share: &'a Share,
    is_over: &'a AtomicBool,
    clock: &'a StageClock,
    waiter: Arc<Waiter>,
    /// Since when it has a turn, if it has one.
    since_ns: Cell<Option<u64>>,
    /// When the turn may be another's.
    until_ns: Cell<u64>,
}

impl<'a> Turn<'a> {
    /// For a thread of a run that is over once `is_over` is set and the share [woken](Share::wake). What it waits is counted by
    /// `clock`.
    pub(crate) fn new(share: Option<&'a Share>, is_over: &'a AtomicBool, clock: &'a StageClock) -> Self {
        Self(share.map(|share| {
            let waiter = Arc::new(Waiter { since_ns: AtomicU64::new(NO_TURN), changed: Condvar::new() });
            Seat { share, is_over, clock, waiter, since_ns: Cell::new(None), until_ns: Cell::new(0) }
        }))
    }

    /// Waits for a turn. Without one the run is over.
    pub(crate) fn begin(&self) {
        let Some(seat) = &self.0 else { return };
        if seat.since_ns.get().is_some() {
            return;
        }
        let turns = &seat.share.pool.turns;
        let asked = Instant::now();
        seat.since_ns.set(turns.begin(seat.share.member, &seat.waiter, seat.is_over));
        seat.until_ns.set(turns.now_ns() + QUANTUM.as_nanos() as u64);
        seat.clock.add_shared(asked);
    }

    /// Whether the turn goes on with another sample. If not, it has ended.
    pub(crate) fn goes_on(&self) -> bool {
        let Some(seat) = &self.0 else { return false };
        let Some(since_ns) = seat.since_ns.get() else { return false };
        let turns = &seat.share.pool.turns;
        if turns.waiting.load(Relaxed) == 0 {
            return true;
        }
        let now_ns = turns.now_ns();
        if now_ns < seat.until_ns.get() {
            return true;
        }
        if turns.end_if_due(seat.share.member, since_ns) {
            seat.since_ns.set(None);
            return false;
        }
        seat.until_ns.set(now_ns + QUANTUM.as_nanos() as u64);
        true
    }

    /// Ends the turn, if there is one.
    pub(crate) fn end(&self) {
        if let Some(seat) = &self.0
            && let Some(since_ns) = seat.since_ns.take()
        {
            seat.share.pool.turns.end(seat.share.member, since_ns);
        }
    }

    /// Does what may take for ever, and is no work of the processor, without a turn.
    pub(crate) fn pause<T>(&self, wait: impl FnOnce() -> T) -> T {
        let has_turn = self.0.as_ref().is_some_and(|seat| seat.since_ns.get().is_some());
        self.end();
        let done = wait();
        if has_turn {
            self.begin();
        }
        done
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
