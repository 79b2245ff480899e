//! How far a run has come, to be continued from there.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::builder::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::order::{Cursor, Order, Shuffle};
use crate::source::Source;

/// The version of states that are written, and the only one that is read.
const VERSION: u32 = 2;

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
/// form (a folder, tar shards), and it may have [grown](super::Loader::refresh) since, where the samples that it had are its
/// first ones: the run goes on with those, and takes the others on when it is refreshed; the parts of a mixture may not.
/// Augmentation, engine, threads, device, index and decoder may be others; augmentation alone changes tensors.
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
    /// 0 for an order that is not shuffled in blocks. With the next three and `samples`, all of [`Shuffle`], in a form that
    /// every format of serde writes.
    samples_per_block: u64,
    is_shuffled: bool,
    is_mixed: bool,
    /// The digest of the weights that samples are drawn by, or of the mixture, or 0.
    weights: u64,
    samples: u64,
    data_set_samples: u64,
    data_set: u64,
    epoch: u64,
    position: u64,
}

impl State {
    pub(super) fn new(order: &Order, data_set: DataSetId, at: Cursor) -> Self {
        let (is_shuffled, samples_per_block, weights) = match order.shuffle() {
            Shuffle::Sequential => (false, 0, 0),
            Shuffle::Full => (true, 0, 0),
            Shuffle::Block { samples_per_block } => (true, samples_per_block, 0),
            Shuffle::Weighted { digest, .. } | Shuffle::Mixed { digest, .. } => (true, 0, digest),
        };
        Self {
            version: VERSION,
            seed: order.seed(),
            samples_per_block,
            is_shuffled,
            is_mixed: order.mixture().is_some(),
            weights,
            samples: order.samples(),
            data_set_samples: data_set.samples,
            data_set: data_set.digest,
            epoch: at.epoch,
            position: at.position,
        }
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

    /// Samples of an epoch: those of the data set, as many as are drawn by weights, or what an epoch of a mixture has.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples of the data set that the run had taken on.
    pub fn data_set_samples(&self) -> u64 {
        self.data_set_samples
    }

    /// How the run's samples are ordered.
    pub fn shuffle(&self) -> Shuffle {
        match (self.is_shuffled, self.samples_per_block, self.weights) {
            (false, ..) => Shuffle::Sequential,
            (_, _, digest) if self.is_mixed => Shuffle::Mixed { samples: self.samples, digest },
            (true, 0, 0) => Shuffle::Full,
            (true, 0, digest) => Shuffle::Weighted { draws: self.samples, digest },
            (true, samples_per_block, _) => Shuffle::Block { samples_per_block },
        }
    }

    /// How many samples of a data set its run goes on with: those that it had taken on, if there are more by now.
    pub(super) fn samples_of(&self, found: &Found) -> u64 {
        let len = found.source.len();
        if !found.can_be_cut() || self.data_set_samples >= len {
            return len;
        }
        log::info!(
            "the run that is resumed had {} samples, and the data set has {} more by now: refresh takes them on",
            self.data_set_samples,
            len - self.data_set_samples
        );
        self.data_set_samples
    }

    pub(super) fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.position }
    }

    /// Where to go on, if it is of a run in this order over this data set.
    pub(super) fn check(&self, order: &Order, data_set: DataSetId) -> Result<Cursor> {
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
        compare("the number of samples", self.data_set_samples.to_string(), data_set.samples.to_string());
        if self.data_set_samples == data_set.samples {
            compare("the number of samples of an epoch", self.samples.to_string(), order.samples().to_string());
        }
        compare("the seed", self.seed.to_string(), order.seed().to_string());
        compare("the shuffle", self.shuffle().to_string(), order.shuffle().to_string());
        if self.weights != 0 && order.shuffle() != self.shuffle() && differs.is_empty() {
            let what = if self.is_mixed { "mixed from other parts or by" } else { "drawn by" };
            differs.push(format!("the samples were {what} other weights"));
        }
        if self.data_set_samples == data_set.samples && self.data_set != data_set.digest {
            let (then, now) = (self.data_set, data_set.digest);
            differs.push(format!("the data set has other keys: their digest was {then:016x} and is {now:016x}"));
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

/// What tells a data set from others, whatever form it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataSetId {
    pub(super) samples: u64,
    /// Of keys from all over it.
    digest: u64,
}

impl DataSetId {
    pub(super) fn of(source: &dyn Source) -> Self {
        Self { samples: source.len(), digest: digest_of_keys(source) }
    }
}

fn digest_of_keys(source: &dyn Source) -> u64 {
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
    use crate::order::{Mixture, Weights};

    const AT: Cursor = Cursor { epoch: 3, position: 40 };

    fn order(samples: u64, seed: u64, shuffle: Shuffle) -> Order {
        Order::new(samples, seed, shuffle).unwrap()
    }

    fn set(digest: u64) -> DataSetId {
        DataSetId { samples: 100, digest }
    }

    fn full() -> Order {
        order(100, 7, Shuffle::Full)
    }

    #[test]
    fn it_comes_back_from_its_text_as_it_was() {
        for shuffle in [Shuffle::Sequential, Shuffle::Full, Shuffle::Block { samples_per_block: u64::MAX }] {
            let order = order(u64::MAX, u64::MAX, shuffle);
            let state = State::new(&order, DataSetId { samples: u64::MAX, digest: u64::MAX }, AT);
            let text = serde_json::to_string(&state).unwrap();
            let read: State = serde_json::from_str(&text).unwrap();
            assert_eq!(read, state);
            assert_eq!(
                (read.shuffle(), read.check(&order, DataSetId { samples: u64::MAX, digest: u64::MAX }).unwrap()),
                (shuffle, AT)
            );
        }
        assert!(size_of::<State>() <= 72, "a few bytes");
    }

    #[test]
    fn draws_by_weights_come_back_and_other_weights_are_named() {
        let order = |weight| Order::weighted(Weights::new(&[1.0, weight]).unwrap().with_draws(50).unwrap(), 7);
        let state = State::new(&order(2.0), set(1), AT);
        assert_eq!((state.shuffle(), state.check(&order(2.0), set(1)).unwrap()), (order(2.0).shuffle(), AT));
        let error = state.check(&order(3.0), set(1)).unwrap_err();
        assert!(error.to_string().contains("drawn by other weights"), "{error}");
    }

    #[test]
    fn mixtures_come_back_and_others_are_named() {
        let order = |weight| Order::mixed(Mixture::new(&[(40, 1.0), (60, weight)]).unwrap(), 7);
        let state = State::new(&order(2.0), set(1), AT);
        let text = serde_json::to_string(&state).unwrap();
        let state: State = serde_json::from_str(&text).unwrap();
        assert_eq!((state.shuffle(), state.check(&order(2.0), set(1)).unwrap()), (order(2.0).shuffle(), AT));
        let error = state.check(&order(3.0), set(1)).unwrap_err();
        assert!(error.to_string().contains("mixed from other parts or by other weights"), "{error}");
        let longer = Order::mixed(Mixture::new(&[(40, 1.0), (60, 2.0)]).unwrap().with_samples(50).unwrap(), 7);
        let error = state.check(&longer, set(1)).unwrap_err();
        assert!(error.to_string().contains("samples of an epoch was 100 and is 50"), "{error}");
        assert!(state.check(&full(), set(1)).unwrap_err().to_string().contains("the shuffle was a mixture"));
    }

    #[test]
    fn what_differs_is_named() {
        let state = State::new(&full(), set(1), AT);
        let refused = |order: &Order, digest| {
            let id = DataSetId { samples: order.samples(), digest };
            let error = state.check(order, id).unwrap_err();
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
        let state = State { version: 1, ..State::new(&full(), set(1), AT) };
        let error = state.check(&full(), set(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("version 1"), "{error}");
        let state = State { position: 101, ..State::new(&full(), set(1), AT) };
        assert_eq!(state.check(&full(), set(1)).unwrap_err().kind(), ErrorKind::Corrupt);
        let state = State { position: 100, ..state };
        assert!(state.check(&full(), set(1)).is_ok());
    }
}
