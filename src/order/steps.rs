//! Positions put together to batches, and batches divided among ranks.

use super::Shard;
use crate::error::{Error, ErrorKind, Result};

/// What becomes of the samples at the end of an epoch that do not fill a batch of every rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastBatch {
    /// They are left out of this epoch; with shuffling, others are in the next. The default, as in
    /// training every batch has the same shape and every rank the same number of steps.
    #[default]
    Drop,
    /// The epoch's first samples fill the batch up, once more: every batch has the same shape, every rank the same number
    /// of steps, and every sample comes at least once. [`Batch::repeats`](crate::Batch::repeats) says how many of a batch
    /// are there for that, so that a metric can leave them out.
    Pad,
    /// They make a shorter batch, as in validation, where every sample counts once. They are divided evenly: the batches
    /// of two ranks differ by one sample at most. Where there are fewer of them than ranks, the ranks behind them get none,
    /// and have **one step fewer** than the others; never rank 0.
    Partial,
}

/// A place in a run: the next sample of all ranks together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The epoch.
    pub epoch: u64,
    /// How many samples of the epoch's order come before it.
    pub position: u64,
}

impl Cursor {
    /// The first sample of an epoch.
    pub fn start_of(epoch: u64) -> Self {
        Self { epoch, position: 0 }
    }
}

/// The batches of an epoch as positions in its order.
///
/// A step takes the next samples of the order, the global batch. Rank r takes the r-th part of it, a run of neighbours.
/// So which samples a step takes depends on the size of the global batch alone and not on how many ranks share it, the
/// ranks' parts are disjoint, and together they are the order without a gap. A step can begin at any position: a run that
/// is continued with other batches or another world size goes on with the next sample of the order.
///
/// ```
/// use forebay::order::{Cursor, EpochSteps, LastBatch, Shard};
///
/// // 100 samples in batches of 8 on each of 4 ranks.
/// let rank = |rank| EpochSteps::of_rank(100, 8, LastBatch::Drop, Shard::new(rank, 4)?);
/// assert_eq!((rank(0)?.steps(), rank(3)?.steps()), (3, 3));
/// let step = rank(2)?.step(Cursor { epoch: 0, position: 32 }).expect("a second step");
/// assert!(step.positions().eq(48..56));
/// assert_eq!(step.next(), Cursor { epoch: 0, position: 64 });
/// # Ok::<(), forebay::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSteps {
    samples: u64,
    batch_size: u64,
    last: LastBatch,
    shard: Shard,
}

impl EpochSteps {
    /// Batches of `batch_size` of an epoch of `samples`, for a single process.
    ///
    /// A batch larger than the data set is one shorter batch under [`LastBatch::Partial`].
    ///
    /// # Errors
    /// - `InvalidParameter` for batches of 0, and for batches larger than the data set under
    ///   [`LastBatch::Drop`], where no step would be left.
    /// - `EmptyDataset` for 0 samples.
    pub fn new(samples: u64, batch_size: u64, last: LastBatch) -> Result<Self> {
        Self::of_rank(samples, batch_size, last, Shard::WHOLE)
    }

    /// Those of one rank, `batch_size` samples each, of global batches as many times larger as there are ranks.
    ///
    /// # Errors
    /// As of [`new`](Self::new), where the global batch is the one that has to fit; and `InvalidParameter` under
    /// [`LastBatch::Partial`] for a rank that would get no sample at all, as there are fewer samples than ranks.
    pub fn of_rank(samples: u64, batch_size: u64, last: LastBatch, shard: Shard) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::invalid_parameter("batch_size", 0, "a batch has at least one sample"));
        }
        if samples == 0 {
            return Err(Error::new(ErrorKind::EmptyDataset, "the data set has 0 samples, so no batch")
                .with_remedy("check the path or the filter that the samples come from"));
        }
        let ranks = shard.world_size();
        let global = batch_size.checked_mul(ranks);
        if global.is_none_or(|global| last == LastBatch::Pad && global.checked_add(samples).is_none()) {
            let allowed = format!("what {ranks} ranks take at once must be countable in 64 bits");
            return Err(Error::invalid_parameter("batch_size", batch_size, &allowed));
        }
        let steps = Self { samples, batch_size, last, shard };
        if steps.steps() > 0 {
            return Ok(steps);
        }
        if last == LastBatch::Partial {
            let allowed = format!("the {samples} samples of the data set are shared by at most as many ranks");
            return Err(Error::invalid_parameter("world_size", ranks, &allowed)
                .with_remedy("start fewer ranks, or pad the last batch"));
        }
        let of_all = if ranks == 1 { String::new() } else { format!(", on each of {ranks} ranks,") };
        let allowed = format!("at most the {samples} samples of the data set{of_all} if the last batch is dropped");
        Err(Error::invalid_parameter("batch_size", batch_size, &allowed)
            .with_remedy("make batches smaller, or keep the partial last batch"))
    }

    /// Batches of this rank in an epoch: at least 1.
    pub fn steps(&self) -> u64 {
        self.steps_from(0)
    }

    /// Batches of this rank in what is left of an epoch from a position.
    pub fn steps_from(&self, position: u64) -> u64 {
        let left = self.samples.saturating_sub(position);
        let (whole, rest) = (left / self.global_batch_size(), left % self.global_batch_size());
        whole
            + match self.last {
                LastBatch::Drop => 0,
                LastBatch::Pad => u64::from(rest > 0),
                LastBatch::Partial => u64::from(self.shard.rank() < rest),
            }
    }

    /// Samples of a batch of this rank, but for a partial last one.
    pub fn batch_size(&self) -> u64 {
        self.batch_size
    }

    /// Samples that all ranks take in one step.
    pub fn global_batch_size(&self) -> u64 {
        self.batch_size * self.shard.world_size()
    }

    /// Whose batches they are.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// What this rank takes of the global batch that begins at a place: `None` where no batch begins, as the epoch is
    /// over there, and where all of a partial last batch goes to other ranks.
    pub fn step(&self, at: Cursor) -> Option<Step> {
        (self.settle(at) == at).then(|| self.share(at)).filter(|step| step.len > 0)
    }

    /// The batches of this rank from a place on, through all epochs before `end`.
    pub fn run(self, from: Cursor, end: u64) -> Steps {
        Steps { steps: self, at: self.settle(from), end }
    }

    /// Where the next global batch begins: at a place, or in the next epoch if too little of this one is left there.
    pub fn settle(&self, at: Cursor) -> Cursor {
        let left = self.samples.saturating_sub(at.position);
        let enough = if self.last == LastBatch::Drop { self.global_batch_size() } else { 1 };
        if left >= enough { at } else { Cursor::start_of(at.epoch.saturating_add(1)) }
    }

    /// The share of this rank, which may be nothing, of the global batch that begins at a place.
    fn share(&self, at: Cursor) -> Step {
        let Self { samples, batch_size, last, shard } = *self;
        let (global, left) = (self.global_batch_size(), samples - at.position);
        let (offset, len) = if last == LastBatch::Partial && left < global {
            let (each, more) = (left / shard.world_size(), left % shard.world_size());
            (shard.rank() * each + shard.rank().min(more), each + u64::from(shard.rank() < more))
        } else {
            (shard.rank() * batch_size, batch_size)
        };
        let next = self.settle(Cursor { epoch: at.epoch, position: at.position + global.min(left) });
        let number = at.position / global;
        Step { epoch: at.epoch, number, first: at.position + offset, len, samples, next }
    }
}

/// The batches of a run, in order: [`EpochSteps::run`].
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    steps: EpochSteps,
    at: Cursor,
    end: u64,
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        while self.at.epoch < self.end {
            let step = self.steps.share(self.at);
            self.at = step.next;
            // A rank without a share of an epoch's last batch has some of its first: one round more at most.
            if step.len > 0 {
                return Some(step);
            }
        }
        None
    }
}

/// What one rank takes at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    epoch: u64,
    number: u64,
    first: u64,
    len: u64,
    samples: u64,
    next: Cursor,
}

impl Step {
    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its number within the epoch, from 0: how many global batches of this size lie before it. Where batches had
    /// another size before the run was continued, rounded down.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Samples of the batch.
    #[expect(clippy::len_without_is_empty, reason = "a step takes at least one sample")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Where the first of its samples stands in the epoch's order; the others follow. What lies beyond the last sample,
    /// under [`LastBatch::Pad`], is the order from its beginning once more.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The positions of the epoch that it takes.
    pub fn positions(&self) -> impl Iterator<Item = u64> + use<> {
        let step = *self;
        (0..self.len).map(move |index| step.position(index))
    }

    /// The position of the epoch that its sample of a number is of.
    pub fn position(&self, index: u64) -> u64 {
        let place = self.first + index;
        // Nearly all of them are in range, where the remainder costs a comparison.
        if place < self.samples { place } else { place % self.samples }
    }

    /// How many of its samples, at its end, fill the batch up under [`LastBatch::Pad`] and came in this epoch before.
    pub fn repeats(&self) -> u64 {
        (self.first + self.len).saturating_sub(self.samples).min(self.len)
    }

    /// Where the global batch after this one begins.
    pub fn next(&self) -> Cursor {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(steps: EpochSteps) -> Vec<Vec<u64>> {
        steps.run(Cursor::default(), 1).map(|step| step.positions().collect()).collect()
    }

    #[test]
    fn the_last_batch_is_dropped_padded_or_partial() {
        let of = |samples, last| EpochSteps::new(samples, 4, last).unwrap();
        assert_eq!(positions(of(10, LastBatch::Drop)), [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
        assert_eq!(positions(of(10, LastBatch::Partial)), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        assert_eq!(positions(of(10, LastBatch::Pad)), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9, 0, 1]]);
        for last in [LastBatch::Drop, LastBatch::Pad, LastBatch::Partial] {
            assert_eq!(positions(of(8, last)), [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
        }
        assert_eq!(positions(of(3, LastBatch::Pad)), [vec![0, 1, 2, 0]]);
    }

    #[test]
    fn what_is_left_over_is_divided_evenly_among_ranks() {
        let of = |rank, last| positions(EpochSteps::of_rank(19, 4, last, Shard::new(rank, 4).unwrap()).unwrap());
        let last = |rank, last| of(rank, last).get(1).cloned().unwrap_or_default();
        assert_eq!([0, 1, 2, 3].map(|rank| last(rank, LastBatch::Partial)), [vec![16], vec![17], vec![18], vec![]]);
        assert_eq!(last(0, LastBatch::Pad), [16, 17, 18, 0]);
        assert_eq!(last(3, LastBatch::Pad), [9, 10, 11, 12]);
        assert_eq!(of(3, LastBatch::Drop), [vec![12, 13, 14, 15]]);
    }

    #[test]
    fn repeats_are_counted_at_the_end() {
        let repeats = |rank| {
            let steps = EpochSteps::of_rank(19, 4, LastBatch::Pad, Shard::new(rank, 4).unwrap()).unwrap();
            steps.run(Cursor::default(), 1).map(|step| step.repeats()).collect::<Vec<_>>()
        };
        assert_eq!([0, 1, 3].map(repeats), [[0, 1], [0, 4], [0, 4]]);
    }

    #[test]
    fn a_batch_larger_than_the_set_is_partial_padded_or_an_error_naming_both() {
        let partial = EpochSteps::new(3, 256, LastBatch::Partial).unwrap();
        assert_eq!(positions(partial), [[0, 1, 2]]);
        let error = EpochSteps::new(3, 256, LastBatch::Drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.to_string().contains("256") && error.to_string().contains("3 samples"), "{error}");
        let error = EpochSteps::of_rank(31, 8, LastBatch::Drop, Shard::new(0, 4).unwrap()).unwrap_err();
        assert!(error.to_string().contains("31 samples of the data set, on each of 4 ranks"), "{error}");
    }

    #[test]
    fn a_rank_without_any_sample_is_an_error() {
        let of = |rank, last| EpochSteps::of_rank(3, 8, last, Shard::new(rank, 4).unwrap());
        let error = of(3, LastBatch::Partial).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.to_string().contains("world_size is 4") && error.to_string().contains("pad"), "{error}");
        assert_eq!(positions(of(2, LastBatch::Partial).unwrap()), [[2]]);
        assert_eq!(positions(of(3, LastBatch::Pad).unwrap()), [[0, 1, 2, 0, 1, 2, 0, 1]]);
    }

    #[test]
    fn empty_sets_and_empty_batches_are_errors() {
        for last in [LastBatch::Drop, LastBatch::Pad, LastBatch::Partial] {
            assert_eq!(EpochSteps::new(0, 4, last).unwrap_err().kind(), ErrorKind::EmptyDataset);
            assert_eq!(EpochSteps::new(4, 0, last).unwrap_err().kind(), ErrorKind::InvalidParameter);
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let steps = EpochSteps::new(u64::MAX, u64::MAX - 1, LastBatch::Partial).unwrap();
        let step = steps.step(Cursor { epoch: u64::MAX, position: u64::MAX - 1 }).unwrap();
        assert!(step.positions().eq(u64::MAX - 1..u64::MAX));
        assert_eq!((step.next(), step.repeats()), (Cursor::start_of(u64::MAX), 0));
        let pad = EpochSteps::new(u64::MAX, 2, LastBatch::Pad);
        assert_eq!(pad.unwrap_err().kind(), ErrorKind::InvalidParameter);
        let many = EpochSteps::of_rank(9, u64::MAX / 2, LastBatch::Partial, Shard::new(0, 3).unwrap());
        assert_eq!(many.unwrap_err().kind(), ErrorKind::InvalidParameter);
    }

    #[test]
    fn no_step_begins_where_the_epoch_is_over() {
        let steps = EpochSteps::new(10, 4, LastBatch::Drop).unwrap();
        for position in [7, 8, 10, u64::MAX] {
            assert_eq!(steps.step(Cursor { epoch: 3, position }), None);
            assert_eq!(steps.settle(Cursor { epoch: 3, position }), Cursor::start_of(4));
        }
        let step = steps.step(Cursor { epoch: 3, position: 6 }).unwrap();
        assert_eq!((step.epoch(), step.number(), step.first(), step.next()), (3, 1, 6, Cursor::start_of(4)));
    }
}
