//! Vector clocks: what has certainly happened before what.

use std::sync::Arc;

/// For each actor, the last of its operations that is known to be over. Actors are streams, numbered as they are made;
/// the host has no number, since its own accesses are invisible. Copies are cheap: operations share what they are given.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Vec<u64>>);

impl Clock {
    /// The actor's time, 0 before its first operation.
    pub fn at(&self, actor: usize) -> u64 {
        self.0.get(actor).copied().unwrap_or(0)
    }

    /// Lets the actor's time pass, and returns the new one.
    pub fn tick(&mut self, actor: usize) -> u64 {
        let times = Arc::make_mut(&mut self.0);
        if times.len() <= actor {
            times.resize(actor + 1, 0);
        }
        times[actor] += 1;
        times[actor]
    }

    /// Learns all that the other knows.
    pub fn join(&mut self, other: &Self) {
        if Arc::ptr_eq(&self.0, &other.0) || other.0.iter().enumerate().all(|(actor, time)| self.at(actor) >= *time) {
            return;
        }
        let times = Arc::make_mut(&mut self.0);
        times.resize(times.len().max(other.0.len()), 0);
        times.iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
    }

    /// Forgets what the other does not know.
    pub fn meet(&mut self, other: &Self) {
        let times = Arc::make_mut(&mut self.0);
        times.iter_mut().enumerate().for_each(|(actor, mine)| *mine = (*mine).min(other.at(actor)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_known_and_what_is_not_is_not() {
        let (mut a, mut b) = (Clock::default(), Clock::default());
        assert_eq!((a.tick(0), a.tick(0), b.tick(3)), (1, 2, 1));
        let before = b.clone();
        b.join(&a);
        assert_eq!((b.at(0), b.at(3), before.at(0), a.at(3)), (2, 1, 0, 0));
        b.meet(&before);
        assert_eq!((b.at(0), b.at(3)), (0, 1));
    }
}
