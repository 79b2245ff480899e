//! Which sample of an epoch stands in for a bad one: the next of the order, past those that are known to be bad.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Where storage fails for so many samples at one place, it is no matter of single samples any more.
pub(super) const STORAGE_ERRORS_MAX: u32 = 16;

/// What is known of samples that stand in for others, by epoch and position in its order: a sound sample may have a view that
/// its bytes are too corrupt for, and what is known of that view holds in that epoch alone. `W` is what waits for one.
///
/// A run of n bad samples, each of which has to find its way to the same good one behind them, would cost n * n / 2 reads, and
/// as many steps along what is known of them. So nobody tries what another tries already, each bad one leads to the first
/// behind it that is not known to be bad, and ways that were gone are made shorter, as in a union-find structure.
pub(super) struct StandIns<W> {
    epochs: BTreeMap<u64, Epoch<W>>,
}

struct Epoch<W> {
    /// Where bad ones lead.
    bad: HashMap<u64, u64>,
    good: HashSet<u64>,
    /// Those of which nothing is known yet, with who waits for that.
    trying: HashMap<u64, Vec<W>>,
}

impl<W> Default for StandIns<W> {
    fn default() -> Self {
        Self { epochs: BTreeMap::new() }
    }
}

impl<W> Default for Epoch<W> {
    fn default() -> Self {
        Self { bad: HashMap::new(), good: HashSet::new(), trying: HashMap::new() }
    }
}

impl<W> StandIns<W> {
    /// Notes that the sample at a position is bad in its view as a stand-in, in an epoch of so many positions.
    pub(super) fn note_bad(&mut self, epoch: u64, position: u64, positions: u64) {
        let behind = if position + 1 < positions { position + 1 } else { 0 };
        let epoch = self.epochs.entry(epoch).or_default();
        epoch.bad.entry(position).or_insert(behind);
        epoch.good.remove(&position);
    }

    /// Notes that it is good, or can be taken for that until a device finds out otherwise.
    pub(super) fn note_good(&mut self, epoch: u64, position: u64) {
        let epoch = self.epochs.entry(epoch).or_default();
        if !epoch.bad.contains_key(&position) {
            epoch.good.insert(position);
        }
    }

    /// Whether a sample may be tried: it is known to be good, or nobody else tries it. If not, `waiting` is given back by
    /// [`tried`](Self::tried).
    pub(super) fn may_try(&mut self, epoch: u64, position: u64, waiting: W) -> Option<W> {
        let epoch = self.epochs.entry(epoch).or_default();
        if epoch.good.contains(&position) {
            return Some(waiting);
        }
        match epoch.trying.entry(position) {
            Entry::Vacant(vacant) => {
                vacant.insert(Vec::new());
                Some(waiting)
            }
            Entry::Occupied(mut trying) => {
                trying.get_mut().push(waiting);
                None
            }
        }
    }

    /// Ends the trial of a sample, whatever came of it: who waited for that.
    pub(super) fn tried(&mut self, epoch: u64, position: u64) -> Vec<W> {
        self.epochs.get_mut(&epoch).and_then(|epoch| epoch.trying.remove(&position)).unwrap_or_default()
    }

    /// The position of the sample that stands in for the one at `position`, of those behind the one at `last`, which was
    /// tried last; at first that is `position` itself. `None` once all have been tried.
    pub(super) fn next(&mut self, epoch: u64, position: u64, last: u64, positions: u64) -> Option<u64> {
        let distance = |to: u64| if to >= position { to - position } else { positions - position + to };
        let start = if last + 1 < positions { last + 1 } else { 0 };
        let found = match self.epochs.get_mut(&epoch) {
            None => start,
            // The way would lead round for ever.
            Some(epoch) if epoch.bad.len() as u64 >= positions => return None,
            Some(epoch) => follow(&mut epoch.bad, start),
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
    fn find(known: &mut StandIns<()>, bad: &[bool], position: usize) -> (Option<usize>, usize) {
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
            let mut known = StandIns::<()>::default();
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
            let mut known = StandIns::<()>::default();
            let tried: usize = order.into_iter().map(|position| find(&mut known, &bad, position).1).sum();
            assert!(tried <= 2 * BAD, "{tried}");
        }
    }

    #[test]
    fn nobody_tries_what_another_tries() {
        let mut known = StandIns::default();
        assert_eq!(known.may_try(0, 5, "a"), Some("a"));
        assert_eq!((known.may_try(0, 5, "b"), known.may_try(0, 5, "c")), (None, None));
        assert_eq!((known.may_try(0, 6, "d"), known.may_try(1, 5, "e")), (Some("d"), Some("e")));
        assert_eq!(known.tried(0, 5), ["b", "c"]);
        // Nothing is known yet: it is tried once more, by one.
        assert_eq!((known.may_try(0, 5, "b"), known.may_try(0, 5, "c")), (Some("b"), None));
        known.note_good(0, 5);
        assert_eq!(known.tried(0, 5), ["c"]);
        assert_eq!((known.may_try(0, 5, "c"), known.may_try(0, 5, "f")), (Some("c"), Some("f")));
        // Until a device finds out that it is bad, whatever others say.
        known.note_bad(0, 5, 9);
        known.note_good(0, 5);
        assert_eq!((known.may_try(0, 5, "g"), known.may_try(0, 5, "h")), (Some("g"), None));
    }

    #[test]
    fn storage_that_failed_is_not_remembered_and_does_not_come_twice() {
        let mut known = StandIns::<()>::default();
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
