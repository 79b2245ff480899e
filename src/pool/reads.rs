//! The budget of operations in flight.
//!
//! A running loader may always have its share, by weight, of the budget, and at least one operation; beyond that it may
//! have what is left of the budget. So nobody ever waits for another's reads to end, be they slow, hung or given up, and
//! nobody needs to be woken: who has as many as it may have is woken by the end of one of its own. What a loader has borrowed
//! is not taken back when another begins to run, so that for the time of a read there can be more in flight than the budget
//! says; and since the counts are looked at without a lock, one a loader more.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::Shared;

/// The counts of all loaders.
pub(super) struct Reads {
    depth: usize,
    in_flight: AtomicUsize,
    /// The weights of those that run, summed.
    weights: AtomicUsize,
}

impl Reads {
    pub(super) fn new(depth: usize) -> Self {
        Self { depth, in_flight: AtomicUsize::new(0), weights: AtomicUsize::new(0) }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }
}

/// A running loader's share, on its feeding thread.
pub(crate) struct ReadShare {
    pool: Arc<Shared>,
    weight: usize,
    /// What it has said to have in flight.
    own: Cell<usize>,
}

impl ReadShare {
    pub(super) fn new(pool: Arc<Shared>, weight: u32) -> Self {
        let weight = weight as usize;
        pool.reads.weights.fetch_add(weight, Relaxed);
        Self { pool, weight, own: Cell::new(0) }
    }

    /// How many operations it may have in flight, of which it has `in_flight` by now.
    pub(crate) fn most(&self, in_flight: usize) -> usize {
        let Reads { depth, in_flight: all, weights } = &self.pool.reads;
        let before = self.own.replace(in_flight);
        let all = match in_flight.checked_sub(before) {
            Some(0) => all.load(Relaxed),
            Some(more) => all.fetch_add(more, Relaxed) + more,
            None => all.fetch_sub(before - in_flight, Relaxed) - (before - in_flight),
        };
        let due = depth * self.weight / weights.load(Relaxed).max(self.weight);
        due.max(1).max(in_flight + depth.saturating_sub(all))
    }
}

impl Drop for ReadShare {
    fn drop(&mut self) {
        self.most(0);
        self.pool.reads.weights.fetch_sub(self.weight, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Pool, PoolOptions};
    use super::*;

    /// Begins as many operations as it may.
    fn fill(share: &ReadShare, mut in_flight: usize) -> usize {
        while share.most(in_flight) > in_flight {
            in_flight += 1;
        }
        in_flight
    }

    #[test]
    fn who_reads_alone_has_everything_and_who_comes_has_its_share_at_once() {
        let pool = Pool::new(PoolOptions { threads: 1, depth: 32 }).unwrap();
        let shares = [1, 1, 2].map(|weight| pool.join(weight).unwrap());
        let first = shares[0].reads();
        assert_eq!(fill(&first, 0), 32, "alone");
        // The first has borrowed what the second is due, and answers nothing any more.
        let second = shares[1].reads();
        assert_eq!(fill(&second, 0), 16);
        assert_eq!(pool.in_use().reads, 48);
        let third = shares[2].reads();
        assert_eq!((fill(&third, 0), second.most(16)), (16, 16), "by weight");
        // It begins no more before it is below its share.
        assert_eq!((first.most(31), first.most(8)), (31, 8));
        assert_eq!((first.most(7), fill(&second, 7)), (8, 9), "of what is left, 2 of 32, one takes 2 beyond its 7");
        drop(third);
        assert_eq!(fill(&second, 9), 25, "what nobody has is for those that read");
        drop(second);
        drop(first);
        assert_eq!(pool.in_use().reads, 0);
    }

    #[test]
    fn many_loaders_have_one_operation_each_at_least() {
        let pool = Pool::new(PoolOptions { threads: 1, depth: 2 }).unwrap();
        let shares: Vec<_> = (0..5).map(|_| pool.join(1).unwrap()).collect();
        let reads: Vec<_> = shares.iter().map(|share| share.reads()).collect();
        let filled: Vec<_> = reads.iter().map(|reads| fill(reads, 0)).collect();
        assert_eq!(filled, [2, 1, 1, 1, 1], "the first was alone to read when it began");
    }
}
