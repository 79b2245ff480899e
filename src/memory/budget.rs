//! Memory that threads share: whoever needs some waits for its turn.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// An amount of memory that is nobody's until a thread takes a [`Share`] of it. It is counted here, and allocated by whoever
/// has taken it.
///
/// Shares are handed out in the order in which they were asked for, so that small ones cannot starve a large one. A thread
/// takes one share at a time and waits for nothing else while it has it: so there is always one that goes on.
pub(crate) struct Budget {
    total_bytes: usize,
    line: Mutex<Line>,
    moved: Condvar,
    /// The most that was ever out.
    high_water_bytes: AtomicUsize,
}

struct Line {
    free_bytes: usize,
    /// The number of the next that asks, and of the one whose turn it is.
    last: u64,
    first: u64,
}

/// Some of a budget, until it is dropped.
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(total_bytes: usize) -> Self {
        let line = Mutex::new(Line { free_bytes: total_bytes, last: 0, first: 0 });
        Self { total_bytes, line, moved: Condvar::new(), high_water_bytes: AtomicUsize::new(0) }
    }

    pub(crate) fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    pub(crate) fn high_water_bytes(&self) -> usize {
        self.high_water_bytes.load(Relaxed)
    }

    /// Waits until `bytes` are free and everyone who asked before has theirs; `None` if there never are as many.
    pub(crate) fn take(&self, bytes: usize) -> Option<Share<'_>> {
        if bytes > self.total_bytes {
            return None;
        }
        let mut line = self.line();
        let number = line.last;
        line.last += 1;
        while line.first != number || line.free_bytes < bytes {
            line = self.moved.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
        line.first += 1;
        line.free_bytes -= bytes;
        self.high_water_bytes.fetch_max(self.total_bytes - line.free_bytes, Relaxed);
        drop(line);
        // Perhaps there is enough for the next as well.
        self.moved.notify_all();
        Some(Share { budget: self, bytes })
    }

    /// Its state is whole between any two of its steps, so a panic elsewhere is of no matter.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.line().free_bytes += self.bytes;
        self.budget.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_is_out_than_there_is() {
        let (budget, out) = (Budget::new(100), AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..8 {
                let (budget, out) = (&budget, &out);
                scope.spawn(move || {
                    for round in 0..300 {
                        let bytes = 1 + (thread * 31 + round * 17) % 100;
                        let share = budget.take(bytes).unwrap();
                        assert!(out.fetch_add(bytes, Relaxed) + bytes <= 100);
                        thread::yield_now();
                        out.fetch_sub(bytes, Relaxed);
                        drop(share);
                    }
                });
            }
        });
        assert!(budget.high_water_bytes() <= 100 && budget.line().free_bytes == 100);
        assert!(budget.take(101).is_none());
        assert!(budget.take(100).is_some());
    }

    /// With the one who asked first still waiting, nobody who asked later is served, though there is enough.
    #[test]
    fn a_large_one_is_not_starved_by_small_ones() {
        let budget = Budget::new(100);
        let (served, order) = channel();
        thread::scope(|scope| {
            let held = budget.take(50).unwrap();
            let waiting = |count: u64| {
                while budget.line().last != count {
                    thread::sleep(Duration::from_millis(1));
                }
            };
            for (place, bytes) in [(1, 80), (2, 10), (3, 10)] {
                let (budget, served) = (&budget, served.clone());
                scope.spawn(move || {
                    let share = budget.take(bytes).unwrap();
                    served.send(bytes).unwrap();
                    drop(share);
                });
                waiting(place + 1);
            }
            assert!(order.recv_timeout(Duration::from_millis(50)).is_err(), "a small one went first");
            drop(held);
            assert_eq!(order.recv().unwrap(), 80);
        });
        assert_eq!(order.try_iter().count(), 2);
    }
}
