//! The hand-over from the decode threads to the consumer: finished batches, in order.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::tray::Filled;
use crate::error::Error;
use crate::report::lock;

/// Finished trays by sequence number. Workers finish them in any order; the consumer takes them in
/// theirs. At most as many wait here as there are slots, so it never grows after the first round.
#[derive(Default)]
pub(super) struct Ready {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The sequence number of the front of `waiting`.
    next: u64,
    waiting: VecDeque<Option<Filled>>,
    /// The number of trays there will ever be, once that is known.
    end: Option<u64>,
    /// What ended the run for reasons of no single sample.
    failure: Option<Error>,
}

/// What [`Ready::take`] found.
pub(super) enum Next {
    Filled(Filled),
    Failed(Error),
    End,
    TimedOut,
}

impl Ready {
    /// Adds the tray of a sequence number.
    pub(super) fn put(&self, sequence: u64, filled: Filled) {
        let mut state = lock(&self.state);
        let place = (sequence - state.next) as usize;
        if state.waiting.len() <= place {
            state.waiting.resize_with(place + 1, || None);
        }
        state.waiting[place] = Some(filled);
        if place == 0 {
            self.changed.notify_one();
        }
    }

    /// Says that no tray from this sequence number on will come.
    pub(super) fn end_at(&self, sequence: u64) {
        lock(&self.state).end.get_or_insert(sequence);
        self.changed.notify_one();
    }

    /// Says that the run has failed.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.state).failure.get_or_insert(error);
        self.changed.notify_one();
    }

    /// Waits for the next tray in order, at most `timeout`.
    pub(super) fn take(&self, timeout: Duration) -> Next {
        let mut state = lock(&self.state);
        let deadline = std::time::Instant::now() + timeout;
        loop {
            if matches!(state.waiting.front(), Some(Some(_))) {
                state.next += 1;
                return match state.waiting.pop_front().flatten() {
                    Some(filled) => Next::Filled(filled),
                    None => Next::End,
                };
            }
            if let Some(error) = state.failure.take() {
                return Next::Failed(error);
            }
            if state.end.is_some_and(|end| end <= state.next) {
                return Next::End;
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Next::TimedOut;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(guard, _)| guard);
        }
    }
}
