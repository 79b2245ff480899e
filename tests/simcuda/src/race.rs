//! Finds accesses to the same bytes that nothing orders.

use std::sync::Arc;

use crate::clock::Clock;
use crate::memory::Allocation;
use crate::ranges::Ranges;

/// What an operation did to bytes of an allocation.
#[derive(Clone, Debug)]
pub struct Access {
    /// The stream's number among actors.
    pub actor: usize,
    /// The stream's time.
    pub time: u64,
    /// Whether the bytes were written, or came to be or to an end.
    pub write: bool,
    /// Offsets into the allocation.
    pub ranges: Ranges,
    /// The operation, for reports.
    pub by: Arc<str>,
}

/// Adds an access, and describes the first earlier one that is unordered with it and touches a byte that either writes.
pub fn note(allocation: &mut Allocation, access: Access, clock: &Clock) -> Option<String> {
    let mut race = None;
    let before = |earlier: &Access| clock.at(earlier.actor) >= earlier.time;
    for earlier in allocation.accesses.iter().filter(|earlier| earlier.write || access.write) {
        if let (false, Some(offset)) = (before(earlier), earlier.ranges.overlap(&access.ranges)) {
            race = Some(format!(
                "{} {} byte {offset} of {} and nothing orders it with {}, which {} it",
                access.by,
                if access.write { "writes" } else { "reads" },
                allocation.describe(),
                earlier.by,
                if earlier.write { "wrote" } else { "read" },
            ));
            break;
        }
    }
    // What races with an access that this one covers, and comes after it, races with this one too.
    allocation.accesses.retain(|earlier| {
        !(before(earlier) && (access.write || !earlier.write) && access.ranges.covers(&earlier.ranges))
    });
    allocation.accesses.push(access);
    race
}

/// Forgets accesses that come before everything that can still happen.
pub fn forget(allocation: &mut Allocation, horizon: &Clock) {
    allocation.accesses.retain(|access| horizon.at(access.actor) < access.time);
}

/// Accesses to these bytes that the holder of this clock does not know to be over.
pub fn unfinished<'a>(
    allocation: &'a Allocation,
    clock: &'a Clock,
    bytes: &'a Ranges,
) -> impl Iterator<Item = &'a Access> {
    let unknown = allocation.accesses.iter().filter(|access| clock.at(access.actor) < access.time);
    unknown.filter(|access| access.ranges.overlap(bytes).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Kind, Memory, Owner, State};

    /// An allocation of 100 bytes, and two streams' clocks.
    struct Two {
        memory: Memory,
        clocks: [Clock; 2],
    }

    impl Two {
        fn new() -> Self {
            let mut memory = Memory::new().unwrap();
            let owner = Owner { device: 0, context: 1, flags: 0, origin: "test".into() };
            memory.allocate(100, owner, Kind::Device { ordered: false }, State::Live).unwrap();
            Self { memory, clocks: Default::default() }
        }

        /// A stream touches bytes; whether that is a race.
        fn touches(&mut self, actor: usize, write: bool, start: u64, end: u64) -> bool {
            let time = self.clocks[actor].tick(actor);
            let by = format!("stream {actor}").into();
            let access = Access { actor, time, write, ranges: Ranges::all(start, end), by };
            note(self.memory.get_mut(0), access, &self.clocks[actor]).is_some()
        }

        /// Stream 1 waits for stream 0.
        fn wait(&mut self) {
            let [first, second] = &mut self.clocks;
            second.join(first);
        }

        fn kept(&self) -> usize {
            self.memory.get(0).accesses.len()
        }
    }

    #[test]
    fn whichever_comes_first_is_found_by_the_other() {
        for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut two = Two::new();
            assert!(!two.touches(0, first, 0, 50));
            assert_eq!(two.touches(1, second, 49, 100), first || second, "{first} {second}");
            let mut two = Two::new();
            assert!(!two.touches(0, first, 0, 50) && !two.touches(1, second, 50, 100));
            let mut two = Two::new();
            assert!(!two.touches(0, first, 0, 50));
            two.wait();
            assert!(!two.touches(1, second, 0, 50));
        }
    }

    #[test]
    fn an_access_stays_until_a_later_one_says_as_much() {
        let mut two = Two::new();
        two.touches(0, true, 0, 50);
        // A read of the same bytes says less than the write, a part of them too.
        two.touches(0, false, 0, 50);
        two.touches(0, true, 0, 49);
        assert!(two.touches(1, false, 49, 50));
        let mut two = Two::new();
        two.touches(0, false, 10, 20);
        two.touches(0, true, 0, 50);
        assert_eq!(two.kept(), 1);
        // What is unordered is kept, whatever covers it.
        two.touches(1, true, 0, 100);
        assert_eq!(two.kept(), 2);
    }

    #[test]
    fn what_everything_comes_after_is_forgotten() {
        let mut two = Two::new();
        two.touches(0, true, 0, 50);
        let known = two.clocks[0].clone();
        two.touches(0, true, 60, 70);
        assert_eq!(unfinished(two.memory.get(0), &known, &Ranges::all(0, 100)).count(), 1);
        assert_eq!(unfinished(two.memory.get(0), &known, &Ranges::all(0, 60)).count(), 0);
        forget(two.memory.get_mut(0), &known);
        assert_eq!(two.kept(), 1);
    }
}
