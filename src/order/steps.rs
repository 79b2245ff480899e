//! Positions put together to batches.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// What becomes of the samples at the end of an epoch that do not fill a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastBatch {
    /// They are left out of this epoch; with shuffling, others are in the next. The default, as in
    /// training every batch has the same shape.
    #[default]
    Drop,
    /// They make a shorter batch, as in validation, where every sample counts once.
    Partial,
}

/// The batches of an epoch as ranges of positions.
///
/// Step k takes the positions from k x batch size. It is the global batch: with several ranks each takes
/// a part of the range, so that the order does not depend on how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSteps {
    samples: u64,
    batch_size: u64,
    steps: u64,
}

impl EpochSteps {
    /// Batches of `batch_size` of an epoch of `samples`.
    ///
    /// A batch larger than the data set is one shorter batch under [`LastBatch::Partial`].
    ///
    /// # Errors
    /// - `InvalidParameter` for batches of 0, and for batches larger than the data set under
    ///   [`LastBatch::Drop`], where no step would be left.
    /// - `EmptyDataset` for 0 samples.
    pub fn new(samples: u64, batch_size: u64, last: LastBatch) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::invalid_parameter("batch_size", 0, "a batch has at least one sample"));
        }
        if samples == 0 {
            return Err(Error::new(ErrorKind::EmptyDataset, "the data set has 0 samples, so no batch")
                .with_remedy("check the path or the filter that the samples come from"));
        }
        let steps = match last {
            LastBatch::Drop => samples / batch_size,
            LastBatch::Partial => samples.div_ceil(batch_size),
        };
        if steps == 0 {
            let allowed = format!("at most the {samples} samples of the data set if the last batch is dropped");
            return Err(Error::invalid_parameter("batch_size", batch_size, &allowed)
                .with_remedy("make batches smaller, or keep the partial last batch"));
        }
        Ok(Self { samples, batch_size, steps })
    }

    /// Batches in an epoch: at least 1.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Samples of a batch, but for a partial last one.
    pub fn batch_size(&self) -> u64 {
        self.batch_size
    }

    /// The positions of the epoch that a step takes: as many as the batch has samples.
    ///
    /// # Panics
    /// If `step` is not below [`steps`](Self::steps).
    pub fn positions(&self, step: u64) -> Range<u64> {
        assert!(step < self.steps, "step {step} is not below {}", self.steps);
        let begin = step * self.batch_size;
        begin..begin.saturating_add(self.batch_size).min(self.samples)
    }

    /// Epoch, and step within it, of a step counted from the start of the run.
    pub fn locate(&self, global_step: u64) -> (u64, u64) {
        (global_step / self.steps, global_step % self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_batch_is_dropped_or_partial() {
        let dropped = EpochSteps::new(10, 4, LastBatch::Drop).unwrap();
        assert_eq!((dropped.steps(), dropped.positions(1)), (2, 4..8));
        let partial = EpochSteps::new(10, 4, LastBatch::Partial).unwrap();
        assert_eq!((partial.steps(), partial.positions(2)), (3, 8..10));
        for last in [LastBatch::Drop, LastBatch::Partial] {
            let exact = EpochSteps::new(8, 4, last).unwrap();
            assert_eq!((exact.steps(), exact.positions(1)), (2, 4..8));
        }
        assert_eq!(partial.locate(7), (2, 1));
    }

    #[test]
    fn a_batch_larger_than_the_set_is_partial_or_an_error_naming_both() {
        let partial = EpochSteps::new(3, 256, LastBatch::Partial).unwrap();
        assert_eq!((partial.steps(), partial.positions(0)), (1, 0..3));
        let error = EpochSteps::new(3, 256, LastBatch::Drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.to_string().contains("256") && error.to_string().contains("3 samples"), "{error}");
    }

    #[test]
    fn empty_sets_and_empty_batches_are_errors() {
        for last in [LastBatch::Drop, LastBatch::Partial] {
            assert_eq!(EpochSteps::new(0, 4, last).unwrap_err().kind(), ErrorKind::EmptyDataset);
            assert_eq!(EpochSteps::new(4, 0, last).unwrap_err().kind(), ErrorKind::InvalidParameter);
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let steps = EpochSteps::new(u64::MAX, u64::MAX - 1, LastBatch::Partial).unwrap();
        assert_eq!(steps.positions(1), u64::MAX - 1..u64::MAX);
    }
}
