//! How far a run has come, to be continued from there.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, ErrorKind, Result};
use crate::order::{Cursor, Order, Shuffle};
use crate::source::Source;

/// The version of states that are written, and the only one that is read.
const VERSION: u32 = 1;

/// Keys of a large data set that tell it from another.
const KEY_PROBES: u64 = 4096;

/// How far a run has come: a few numbers, to be kept with a model's weights in whatever form serde writes.
///
/// It counts samples of all ranks and only those that the consumer has taken; what was read ahead is read again. So of one
/// run every rank has the same state after the same step, and any one of them is enough. A loader that is resumed there
/// ([`LoaderBuilder::resume`](super::LoaderBuilder::resume)) goes on with exactly the samples and tensors that would have
/// come:
///
/// - with the same global batch ([`global_batch_size`](super::LoaderBuilder::global_batch_size), or the same batches on as
///   many ranks): in the same batches, divided among however many ranks there are now;
/// - with another: with the same next sample of the same order, in batches of the new size from there on. Which samples
///   are left over at the end of that epoch may differ, where [they are dropped](crate::order::LastBatch::Drop).
///
/// Data set, seed and shuffle have to be those of the run that it was taken of, since they decide the order: anything else is
/// an error, `InvalidParameter`, that says what differs. A data set is known by the number of its samples and by their
/// keys, of which those of 4096 samples from all over it count, so that nothing has to be read through. It may be in another
/// form (a folder, tar shards). Augmentation, engine, threads, device, index and decoder may be others; augmentation
/// alone changes tensors.
///
/// ```
/// use forebay::{Loader, State};
///
/// # fn load(loader: &mut Loader) -> Result<(), Box<dyn std::error::Error>> {
/// for batch in loader.epochs(0..90) {
///     let batch = batch?;
///     // .. a step of training; then, now and then, beside the weights:
///     std::fs::write("state.json", serde_json::to_vec(&batch.state())?)?;
/// }
/// // In another process:
/// let state: State = serde_json::from_slice(&std::fs::read("state.json")?)?;
/// let mut loader = Loader::open("data/train").seed(7).resume(state).build()?;
/// for batch in loader.epochs(0..90) {} // it begins with the batch after
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    version: u32,
    seed: u64,
    /// 0 for an order that is not shuffled in blocks. With the next two and `samples`, all of [`Shuffle`], in a form that
    /// every format of serde writes.
    samples_per_block: u64,
    is_shuffled: bool,
    /// The digest of the weights that samples are drawn by, or 0.
    weights: u64,
    samples: u64,
    data_set: u64,
    epoch: u64,
    position: u64,
}

impl State {
    pub(super) fn new(order: &Order, data_set: u64, at: Cursor) -> Self {
        let (is_shuffled, samples_per_block, weights) = match order.shuffle() {
            Shuffle::Sequential => (false, 0, 0),
            Shuffle::Full => (true, 0, 0),
            Shuffle::Block { samples_per_block } => (true, samples_per_block, 0),
            Shuffle::Weighted { digest, .. } => (true, 0, digest),
        };
        let Cursor { epoch, position } = at;
        let (seed, samples) = (order.seed(), order.samples());
        Self { version: VERSION, seed, samples_per_block, is_shuffled, weights, samples, data_set, epoch, position }
    }

    /// The epoch of the next sample.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many samples of that epoch were taken, by all ranks together.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Samples of an epoch: those of the data set, or as many as are drawn by weights.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// How the run's samples are ordered.
    pub fn shuffle(&self) -> Shuffle {
        match (self.is_shuffled, self.samples_per_block, self.weights) {
            (false, ..) => Shuffle::Sequential,
            (true, 0, 0) => Shuffle::Full,
            (true, 0, digest) => Shuffle::Weighted { draws: self.samples, digest },
            (true, samples_per_block, _) => Shuffle::Block { samples_per_block },
        }
    }

    pub(super) fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.position }
    }

    /// Where to go on, if it is of a run in this order over this data set.
    pub(super) fn check(&self, order: &Order, data_set: u64) -> Result<Cursor> {
        if self.version != VERSION {
            let message = format!("the state is of version {}, and version {VERSION} is read here", self.version);
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_remedy("resume with the release of forebay that wrote it"));
        }
        let mut differs = Vec::new();
        let mut compare = |what: &str, then: String, now: String| {
            if then != now {
                differs.push(format!("{what} was {then} and is {now}"));
            }
        };
        compare("the number of samples", self.samples.to_string(), order.samples().to_string());
        compare("the seed", self.seed.to_string(), order.seed().to_string());
        compare("the shuffle", self.shuffle().to_string(), order.shuffle().to_string());
        if self.weights != 0 && order.shuffle() != self.shuffle() && differs.is_empty() {
            differs.push("the samples were drawn by other weights".to_string());
        }
        if self.samples == order.samples() && self.data_set != data_set {
            differs.push(format!(
                "the data set has other keys: their digest was {:016x} and is {data_set:016x}",
                self.data_set
            ));
        }
        if !differs.is_empty() {
            let message = format!("the state to resume from is of another run: {}", differs.join("; "));
            return Err(Error::new(ErrorKind::InvalidParameter, message)
                .with_remedy("give what that run had, or start anew without a state"));
        }
        if self.position > self.samples {
            let message =
                format!("the state is damaged: position {} of an epoch of {} samples", self.position, self.samples);
            return Err(Error::new(ErrorKind::Corrupt, message).with_remedy("resume from another copy of it"));
        }
        Ok(self.cursor())
    }
}

/// A number that tells a data set from others with as many samples, whatever form it is in: a digest of keys from all
/// over it.
pub(super) fn data_set(source: &dyn Source) -> u64 {
    let (len, probes) = (source.len(), source.len().min(KEY_PROBES));
    let (mut digest, mut key) = (Xxh3::new(), String::new());
    for probe in 0..probes {
        let sample = (u128::from(probe) * u128::from(len) / u128::from(probes)) as u64;
        // A key that cannot be had is an error of the sample's batch, and no other key here.
        match source.key(sample, &mut key) {
            Ok(()) => digest.update(key.as_bytes()),
            Err(_) => digest.update(&[0xFF]),
        }
        digest.update(&[0]);
    }
    digest.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Weights;

    const AT: Cursor = Cursor { epoch: 3, position: 40 };

    fn order(samples: u64, seed: u64, shuffle: Shuffle) -> Order {
        Order::new(samples, seed, shuffle).unwrap()
    }

    fn full() -> Order {
        order(100, 7, Shuffle::Full)
    }

    #[test]
    fn it_comes_back_from_its_text_as_it_was() {
        for shuffle in [Shuffle::Sequential, Shuffle::Full, Shuffle::Block { samples_per_block: u64::MAX }] {
            let order = order(u64::MAX, u64::MAX, shuffle);
            let state = State::new(&order, u64::MAX, AT);
            let text = serde_json::to_string(&state).unwrap();
            let read: State = serde_json::from_str(&text).unwrap();
            assert_eq!(read, state);
            assert_eq!((read.shuffle(), read.check(&order, u64::MAX).unwrap()), (shuffle, AT));
        }
        assert!(size_of::<State>() <= 64, "a few bytes");
    }

    #[test]
    fn draws_by_weights_come_back_and_other_weights_are_named() {
        let order = |weight| Order::weighted(Weights::new(&[1.0, weight]).unwrap().with_draws(50).unwrap(), 7);
        let state = State::new(&order(2.0), 1, AT);
        assert_eq!((state.shuffle(), state.check(&order(2.0), 1).unwrap()), (order(2.0).shuffle(), AT));
        let error = state.check(&order(3.0), 1).unwrap_err();
        assert!(error.to_string().contains("drawn by other weights"), "{error}");
    }

    #[test]
    fn what_differs_is_named() {
        let state = State::new(&full(), 1, AT);
        let refused = |order: &Order, data_set| {
            let error = state.check(order, data_set).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
            assert!(error.remedy().is_some());
            error.cause()
        };
        let error = refused(&order(100, 8, Shuffle::Full), 1);
        assert!(error.ends_with("another run: the seed was 7 and is 8"), "{error}");
        let error = refused(&order(101, 7, Shuffle::Full), 2);
        assert!(error.ends_with("another run: the number of samples was 100 and is 101"), "{error}");
        let error = refused(&order(100, 7, Shuffle::Block { samples_per_block: 9 }), 1);
        assert!(error.ends_with("the shuffle was full and is in blocks of 9"), "{error}");
        let error = refused(&full(), 2);
        assert!(error.contains("the data set has other keys"), "{error}");
        let error = refused(&order(100, 8, Shuffle::Sequential), 2);
        assert!(error.contains("seed") && error.contains("shuffle") && error.contains("keys"), "{error}");
    }

    #[test]
    fn another_version_and_a_place_outside_the_epoch_are_refused() {
        let state = State { version: 2, ..State::new(&full(), 1, AT) };
        let error = state.check(&full(), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("version 2"), "{error}");
        let state = State { position: 101, ..State::new(&full(), 1, AT) };
        assert_eq!(state.check(&full(), 1).unwrap_err().kind(), ErrorKind::Corrupt);
        let state = State { position: 100, ..state };
        assert!(state.check(&full(), 1).is_ok());
    }
}
