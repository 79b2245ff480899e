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
