//! Which sample of an epoch stands in for a bad one: the next of the order, past those that are known to be bad.

use std::collections::{BTreeMap, HashMap};

/// Where storage fails for so many samples at one place, it is no matter of single samples any more.
pub(super) const STORAGE_ERRORS_MAX: u32 = 16;

/// The samples that have turned out to be bad where they stood in for others, by epoch and position in its order: a sound
/// sample may have a view that its bytes are too corrupt for, and what is known of that view holds in that epoch alone.
///
/// A run of n bad samples, each of which has to find its way to the same good one behind them, would cost n * n / 2 reads, and
/// as many steps along what is known of them. So each leads to the first behind it that is not known to be bad, and ways that
/// were gone are made shorter, as in a union-find structure.
#[derive(Default)]
pub(super) struct StandIns {
    epochs: BTreeMap<u64, HashMap<u64, u64>>,
}

impl StandIns {
    /// Notes that the sample at a position is bad in its view as a stand-in, in an epoch of so many positions.
    pub(super) fn note_bad(&mut self, epoch: u64, position: u64, positions: u64) {
        let behind = if position + 1 < positions { position + 1 } else { 0 };
        self.epochs.entry(epoch).or_default().entry(position).or_insert(behind);
    }

    /// The position of the sample that stands in for the one at `position`, of those behind the one at `last`, which was
    /// tried last; at first that is `position` itself. `None` once all have been tried.
    pub(super) fn next(&mut self, epoch: u64, position: u64, last: u64, positions: u64) -> Option<u64> {
        let distance = |to: u64| if to >= position { to - position } else { positions - position + to };
        let start = if last + 1 < positions { last + 1 } else { 0 };
        let found = match self.epochs.get_mut(&epoch) {
            None => start,
            // The way would lead round for ever.
            Some(bad) if bad.len() as u64 >= positions => return None,
            Some(bad) => follow(bad, start),
        };
        (distance(found) > distance(last)).then_some(found)
    }

    /// Forgets the epochs before one.
    pub(super) fn forget_before(&mut self, epoch: u64) {
        if self.epochs.first_key_value().is_some_and(|(&first, _)| first < epoch) {
            self.epochs = self.epochs.split_off(&epoch);
        }
    }
}

/// The end of the way from a position on, which is made a single step for all that lie on it.
fn follow(bad: &mut HashMap<u64, u64>, start: u64) -> u64 {
    let mut end = start;
    while let Some(&next) = bad.get(&end) {
        end = next;
    }
    let mut at = start;
    while let Some(next) = bad.get_mut(&at) {
        at = std::mem::replace(next, end);
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same without memory.
    fn tried_one_by_one(bad: &[bool], position: usize) -> Option<usize> {
        (1..bad.len()).map(|distance| (position + distance) % bad.len()).find(|&candidate| !bad[candidate])
    }

    /// Finds the stand-in of a position by trying; how often something was tried.
    fn find(known: &mut StandIns, bad: &[bool], position: usize) -> (Option<usize>, usize) {
        let (mut last, mut tried, positions) = (position as u64, 0, bad.len() as u64);
        while let Some(next) = known.next(5, position as u64, last, positions) {
            tried += 1;
            if !bad[next as usize] {
                return (Some(next as usize), tried);
            }
            known.note_bad(5, next, positions);
            last = next;
        }
        (None, tried)
    }

    proptest! {
        #[test]
        fn it_is_the_next_good_one_in_whatever_order_they_are_found(
            bad in prop::collection::vec(prop::bool::weighted(0.7), 1..40),
            order in prop::collection::vec(0..40_usize, 1..60),
        ) {
            let mut known = StandIns::default();
            for position in order.into_iter().map(|number| number % bad.len()) {
                prop_assert_eq!(find(&mut known, &bad, position).0, tried_one_by_one(&bad, position));
            }
        }
    }

    #[test]
    fn a_long_run_of_bad_samples_is_tried_once() {
        const BAD: usize = 100_000;
        let mut bad = vec![true; BAD];
        bad.push(false);
        for order in [(0..BAD).collect::<Vec<_>>(), (0..BAD).rev().collect()] {
            let mut known = StandIns::default();
            let tried: usize = order.into_iter().map(|position| find(&mut known, &bad, position).1).sum();
            assert!(tried <= 2 * BAD, "{tried}");
        }
    }

    #[test]
    fn storage_that_failed_is_not_remembered_and_does_not_come_twice() {
        let mut known = StandIns::default();
        assert_eq!(known.next(0, 1, 1, 3), Some(2));
        assert_eq!(known.next(0, 1, 2, 3), Some(0));
        assert_eq!(known.next(0, 1, 0, 3), None);
        assert_eq!(known.next(0, 0, 0, 1), None);
        // Bad in one epoch is not bad in another, and is forgotten with it.
        known.note_bad(0, 2, 3);
        assert_eq!((known.next(0, 1, 1, 3), known.next(1, 1, 1, 3)), (Some(0), Some(2)));
        known.forget_before(1);
        assert_eq!(known.next(0, 1, 1, 3), Some(2));
    }
}
