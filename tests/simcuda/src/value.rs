//! Values in memory by which streams and the host wait for one another. Whoever waits for one takes what came before it
//! as done; the place itself is no race, however many look and write at once.

use std::ffi::c_uint;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::driver::Driver;
use crate::memory::Allocation;
use crate::result::{Code, Outcome};
use crate::stream::Work;

/// `CU_STREAM_WAIT_VALUE_FLUSH`: also what came over the bus by other ways is there. Here it always is.
const FLUSH: c_uint = 1 << 30;

/// What a stream waits for.
#[derive(Clone, Copy, Debug)]
pub struct ValueWait {
    /// Device address.
    pub at: u64,
    /// 4 or 8.
    pub bytes: u64,
    value: u64,
    condition: Condition,
}

/// `CUstreamWaitValue_flags`, in their order.
#[derive(Clone, Copy, Debug)]
enum Condition {
    /// The value or one of the half of all numbers that follow it.
    AtLeast,
    Equal,
    /// A bit that the value has too.
    And,
    /// A bit that is not set here and not in the value.
    Nor,
}

impl ValueWait {
    /// A wait with the driver's flags.
    ///
    /// # Errors
    /// `INVALID_VALUE` for flags that do not exist, and for a place that is not aligned.
    pub fn new(at: u64, bytes: u64, value: u64, flags: c_uint) -> Outcome<Self> {
        let conditions = [Condition::AtLeast, Condition::Equal, Condition::And, Condition::Nor];
        let condition = *conditions.get((flags & !FLUSH) as usize).ok_or(Code::INVALID_VALUE)?;
        if at == 0 || !at.is_multiple_of(bytes) {
            return Err(Code::INVALID_VALUE);
        }
        Ok(Self { at, bytes, value, condition })
    }

    fn holds(&self, found: u64) -> bool {
        let width = self.bytes * 8;
        let all = u64::MAX >> (64 - width);
        match self.condition {
            Condition::AtLeast => (found.wrapping_sub(self.value) >> (width - 1)) & 1 == 0,
            Condition::Equal => found == self.value,
            Condition::And => found & self.value != 0,
            Condition::Nor => !(found | self.value) & all != 0,
        }
    }
}

impl Driver {
    /// Whether the stream is to wait for a value that is not there. What cannot be waited for is found out by going on.
    pub fn held_by_value(&self, handle: u64) -> bool {
        let Some(stream) = self.streams.get(&handle) else { return false };
        match stream.queue.front().map(|op| &op.work) {
            Some(Work::WaitValue(wait)) => {
                self.usable(stream.context).is_ok() && self.value(wait).is_some_and(|found| !wait.holds(found))
            }
            _ => false,
        }
    }

    fn value(&self, wait: &ValueWait) -> Option<u64> {
        let memory = self.memory().ok()?;
        let allocation = memory.get(memory.find(wait.at, wait.bytes).ok()?);
        Some(load(allocation, wait.at - allocation.base, wait.bytes))
    }
}

fn load(allocation: &Allocation, offset: u64, bytes: u64) -> u64 {
    let place = allocation.bytes(offset);
    match bytes {
        // SAFETY: the place is within live memory and aligned; the host may write to it meanwhile, as to an atomic.
        4 => unsafe { AtomicU32::from_ptr(place.cast()) }.load(Ordering::Acquire).into(),
        // SAFETY: likewise.
        _ => unsafe { AtomicU64::from_ptr(place.cast()) }.load(Ordering::Acquire),
    }
}

/// Writes 4 or 8 bytes of a value.
pub fn store(allocation: &Allocation, offset: u64, bytes: u64, value: u64) {
    let place = allocation.bytes(offset);
    match bytes {
        // SAFETY: the place is within live memory and aligned; the host may read it meanwhile, as an atomic.
        4 => unsafe { AtomicU32::from_ptr(place.cast()) }.store(value as u32, Ordering::Release),
        // SAFETY: likewise.
        _ => unsafe { AtomicU64::from_ptr(place.cast()) }.store(value, Ordering::Release),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_those_of_the_driver_api() {
        let holds = |flags, bytes, value, found| ValueWait::new(64, bytes, value, flags).unwrap().holds(found);
        assert!(holds(0, 4, 5, 5) && holds(0, 4, 5, 6) && !holds(0, 4, 5, 4));
        assert!(holds(0, 4, u32::MAX.into(), 0) && !holds(0, 4, 0, u32::MAX.into()));
        assert!(holds(0, 8, 5, 1 << 62) && !holds(0, 8, 5, u64::MAX));
        assert!(holds(1, 4, 5, 5) && !holds(1, 4, 5, 6));
        assert!(holds(2, 4, 6, 3) && !holds(2, 4, 6, 1));
        assert!(holds(3, 4, 1, 2) && !holds(3, 4, 1, 0xffff_fffe));
        assert!(holds(1 | FLUSH, 4, 5, 5));
    }

    #[test]
    fn what_is_no_place_or_no_condition_is_refused() {
        assert_eq!(ValueWait::new(64, 4, 0, 4).err(), Some(Code::INVALID_VALUE));
        assert_eq!(ValueWait::new(66, 4, 0, 0).err(), Some(Code::INVALID_VALUE));
        assert_eq!(ValueWait::new(68, 8, 0, 0).err(), Some(Code::INVALID_VALUE));
        assert_eq!(ValueWait::new(0, 4, 0, 0).err(), Some(Code::INVALID_VALUE));
    }
}
