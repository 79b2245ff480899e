//! Where the samples of a batch leave the threads that work on it: to the consumer, to the device, or, those that could not
//! be made, to where the policy sends them.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Shared;
use super::policy::OnError;
use super::ready::Ready;
use super::seat::Waiting;
use super::tray::{Candidate, Filled, Tray};
use crate::error::{Error, ErrorKind};
use crate::memory::{FilledSlot, SampleOut, Slot, SlotPool};

/// What comes back to the feeding thread while it replaces bad samples.
pub(super) enum Back {
    /// A sample could not be made: another one is wanted in its place.
    Failed {
        waiting: Waiting,
        /// Whether the same may go well another time, so that nothing is learned of the sample.
        is_retryable: bool,
    },
    /// A sample that stands in for a bad one was tried: others may be waiting for it.
    Tried { epoch: u64, position: u64, is_good: bool },
    /// A tray was filled, and wants no more samples.
    Filled,
}

/// Where complete trays end: with the consumer.
#[derive(Clone)]
pub(super) struct End {
    ready: Arc<Ready>,
    /// To the feeding thread, where it has to know.
    back: Option<Sender<Back>>,
    slots: SlotPool,
}

/// Where complete trays go: to the consumer, or to a device first.
pub(super) struct Exit {
    pub(super) end: End,
    pub(super) device: Option<Sender<Filled>>,
}

impl End {
    pub(super) fn new(ready: &Arc<Ready>, back: Option<Sender<Back>>, slots: &SlotPool) -> Self {
        Self { ready: Arc::clone(ready), back, slots: slots.clone() }
    }

    /// Hands a tray to the consumer, and says so to the feeding thread.
    pub(super) fn put(&self, filled: Filled) {
        self.ready.put(filled.tray.sequence, filled);
        self.send(Back::Filled);
    }

    /// Ends the run for reasons of no single sample.
    pub(super) fn fail(&self, error: Error) {
        self.ready.fail(error);
    }

    /// Gives a place back to the feeding thread, to be filled by another sample.
    pub(super) fn hand_back(&self, waiting: Waiting, is_retryable: bool) {
        self.send(Back::Failed { waiting, is_retryable });
    }

    /// Says what came of a sample, if it stands in for another.
    fn tell_tried(&self, tray: &Tray, index: usize, is_good: bool) {
        if self.back.is_some()
            && let Candidate { position, is_stand_in: true, .. } = tray.candidate(index)
        {
            self.send(Back::Tried { epoch: tray.step.epoch(), position, is_good });
        }
    }

    fn send(&self, back: Back) {
        if let Some(sender) = &self.back {
            // It has a place for every sample and every tray, and is closed only when the run has ended.
            let _ = sender.send(back);
            self.slots.wake();
        }
    }
}

impl Exit {
    /// Hands the tray on if the sample just finished was its last.
    pub(super) fn put_if_filled(&self, tray: &Arc<Tray>, slot: Option<FilledSlot>) {
        let Some(slot) = slot else { return };
        let mut filled = Filled { tray: Arc::clone(tray), slot, delivered: None };
        match &self.device {
            None => {
                filled.deliver();
                self.end.put(filled);
            }
            // It has a place for every slot, and is closed only when the run has ended.
            Some(launch) => drop(launch.send(filled)),
        }
    }

    /// Hands on the tray of a sample that was made, or is left to the device.
    pub(super) fn succeed(&self, tray: &Arc<Tray>, index: usize, claimed: Option<SampleOut>) {
        self.end.tell_tried(tray, index, true);
        self.put_if_filled(tray, claimed.and_then(SampleOut::finish));
    }

    /// Does with a sample that could not be made what the policy says. `claimed` is what it had claimed before it failed.
    pub(super) fn fail(&self, shared: &Shared, waiting: Waiting, claimed: Option<SampleOut>, error: Error) {
        let is_retryable = error.is_retryable();
        match shared.note(&waiting.tray, waiting.index, error) {
            OnError::Replace => {
                claimed.into_iter().for_each(SampleOut::give_up);
                self.end.hand_back(waiting, is_retryable);
            }
            OnError::Fail | OnError::Skip => {
                self.end.tell_tried(&waiting.tray, waiting.index, false);
                self.go_without(&waiting.tray, &waiting.slot, waiting.index, claimed);
            }
        }
    }

    /// Finishes the place of a sample that is not delivered.
    pub(super) fn go_without(&self, tray: &Arc<Tray>, slot: &Slot, index: usize, claimed: Option<SampleOut>) {
        self.put_if_filled(tray, tray.finish_without(slot, index, claimed));
    }
}

impl Shared {
    /// Notes that a sample could not be made: what is to be done about it.
    pub(super) fn note(&self, tray: &Tray, index: usize, error: Error) -> OnError {
        if self.on_error == OnError::Fail || !error.is_of_sample() {
            tray.note_failure(index, self.name_sample(tray, index, error));
            return OnError::Fail;
        }
        tray.note_bad(index, || self.bad_sample(tray, index, error));
        self.on_error
    }

    /// Why nothing stands in for the bad sample of a place.
    pub(super) fn cannot_replace(&self, tray: &Tray, index: usize, kind: ErrorKind, why: &str) -> Error {
        let cause = tray.cause_without_stand_in(index);
        Error::new(kind, format!("nothing can stand in for a bad sample: {why}; {cause}"))
            .with_remedy("mend the data set, or see what its storage has")
    }

    /// The same where all that may be tried is bad.
    pub(super) fn none_is_left(&self, tray: &Tray, index: usize) -> Error {
        let (most, others) = (self.bad_in_a_row_max(), self.order.samples() - 1);
        let why = if others <= most {
            "no other sample of the epoch is sound".to_owned()
        } else {
            format!("more than {most} samples behind it are bad too, and the error budget is {}", self.budget)
        };
        self.cannot_replace(tray, index, ErrorKind::BudgetExceeded, &why)
    }

    /// Samples of all ranks that may be bad one after another before a stand-in: as many as their budgets allow of an
    /// epoch.
    pub(super) fn bad_in_a_row_max(&self) -> u64 {
        let ranks = self.steps.shard().world_size();
        self.budget.allows(self.order.samples().div_ceil(ranks)).saturating_mul(ranks)
    }
}
