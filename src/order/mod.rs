//! WHICH sample comes next: permutations and positions.
//!
//! An [`Order`] says which sample stands at each position of each epoch; [`EpochSteps`] says which
//! positions make up each batch. Both are arithmetic on a few numbers: nothing is stored per sample (but by [`Weights`]), so
//! any position can be asked for at any time, which is what resuming needs. The order knows nothing of ranks: the
//! batch of a step is the global batch, of which each rank ([`Shard`]) takes its share. So a [`Cursor`], an epoch and a
//! position in it, says all about how far a run has come, on however many ranks.

mod mixed;
mod permutation;
mod shard;
mod steps;
mod weighted;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::permutation::{Permutation, key};
use crate::error::{Error, ErrorKind, Result};

pub use mixed::Mixture;
pub use shard::Shard;
pub use steps::{Cursor, EpochSteps, LastBatch, Step, Steps};
pub use weighted::Weights;

/// How the samples of an epoch are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    /// By number, the same in every epoch.
    Sequential,
    /// Anew in every epoch, any sample anywhere. The default.
    #[default]
    Full,
    /// For media that dislike random reads: blocks of neighbouring samples come in random order, the
    /// samples of a block one after the other in random order. Anew in every epoch.
    Block {
        /// Neighbouring samples that stay together. The last block may have fewer.
        samples_per_block: u64,
    },
    /// Drawn with replacement by weights, anew in every epoch. It names an order and cannot make one: that is done by
    /// [`Order::weighted`] and [`LoaderBuilder::weights`](crate::LoaderBuilder::weights).
    Weighted {
        /// Draws of an epoch.
        draws: u64,
        /// Of the weights.
        digest: u64,
    },
    /// A mixture of several data sets by weights. It names an order and cannot make one: that is done by
    /// [`Order::mixed`] and [`Loader::mixture`](crate::Loader::mixture).
    Mixed {
        /// Positions of an epoch.
        samples: u64,
        /// Of the parts, their weights and their order.
        digest: u64,
    },
}

impl fmt::Display for Shuffle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequential => f.write_str("sequential"),
            Self::Full => f.write_str("full"),
            Self::Block { samples_per_block } => write!(f, "in blocks of {samples_per_block}"),
            Self::Weighted { draws, .. } => write!(f, "{draws} drawn by weights"),
            Self::Mixed { samples, .. } => write!(f, "a mixture, {samples} an epoch"),
        }
    }
}

/// Which sample stands at which position of which epoch, as a function of the seed alone.
///
/// Takes some 50 bytes, no time to set up and tens of nanoseconds a look-up at any number of samples; [`Weights`] and a
/// [`Mixture`] have a table.
///
/// ```
/// use forebay::order::{Order, Shuffle};
///
/// let order = Order::new(1_000_000_000, 42, Shuffle::Full)?;
/// let first_of_epoch_3 = order.epoch(3).at(0);
/// assert_eq!(first_of_epoch_3, order.at(3, 0));
/// # Ok::<(), forebay::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Order {
    positions: u64,
    seed: u64,
    shuffle: Shuffle,
    /// Of [`Shuffle::Weighted`], and of no other.
    weights: Option<Weights>,
    /// Of [`Shuffle::Mixed`], and of no other.
    mixture: Option<Mixture>,
}

impl Order {
    /// An order of the samples 0..`samples`.
    ///
    /// # Errors
    /// `InvalidParameter` for blocks of 0 samples, and for [`Shuffle::Weighted`] and [`Shuffle::Mixed`], which need
    /// [`weighted`](Self::weighted) and [`mixed`](Self::mixed).
    pub fn new(samples: u64, seed: u64, shuffle: Shuffle) -> Result<Self> {
        if shuffle == (Shuffle::Block { samples_per_block: 0 }) {
            return Err(Error::invalid_parameter("samples_per_block", 0, "a block has at least one sample"));
        }
        if let Shuffle::Weighted { .. } = shuffle {
            let error = Error::new(ErrorKind::InvalidParameter, "shuffle is Weighted, and the weights are missing");
            return Err(error.with_remedy("give the weights themselves: Order::weighted, LoaderBuilder::weights"));
        }
        if let Shuffle::Mixed { .. } = shuffle {
            let error = Error::new(ErrorKind::InvalidParameter, "shuffle is Mixed, and the mixture is missing");
            return Err(error.with_remedy("give the mixture itself: Order::mixed, Loader::mixture"));
        }
        Ok(Self::unchecked(samples, seed, shuffle))
    }

    /// [`new`](Self::new) of a shuffle that it was found to take.
    fn unchecked(samples: u64, seed: u64, shuffle: Shuffle) -> Self {
        Self { positions: samples, seed, shuffle, weights: None, mixture: None }
    }

    /// An order that draws with replacement, by weights of the samples 0, 1, 2, ...
    pub fn weighted(weights: Weights, seed: u64) -> Self {
        let order = Self::unchecked(weights.draws(), seed, weights.shuffle());
        Self { weights: Some(weights), ..order }
    }

    /// An order that mixes several data sets, whose samples are numbered one after the other.
    pub fn mixed(mixture: Mixture, seed: u64) -> Self {
        let order = Self::unchecked(mixture.samples(), seed, mixture.shuffle());
        Self { mixture: Some(mixture), ..order }
    }

    /// Positions of an epoch: as many as there are samples, draws by weights, or as a mixture was told.
    pub fn samples(&self) -> u64 {
        self.positions
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How samples are ordered.
    pub fn shuffle(&self) -> Shuffle {
        self.shuffle
    }

    /// The data sets that are mixed, if that is how samples are ordered.
    pub fn mixture(&self) -> Option<&Mixture> {
        self.mixture.as_ref()
    }

    /// The sample at a position of an epoch. To look up many positions of one epoch, keep
    /// [`epoch`](Self::epoch).
    ///
    /// # Panics
    /// If `position` is not below [`samples`](Self::samples).
    pub fn at(&self, epoch: u64, position: u64) -> u64 {
        self.epoch(epoch).at(position)
    }

    /// The order of one epoch.
    pub fn epoch(&self, epoch: u64) -> EpochOrder<'_> {
        let key = key(self.seed, epoch);
        let samples = self.positions;
        EpochOrder(match (self.shuffle, &self.weights, &self.mixture) {
            (_, Some(weights), _) => Kind::Weighted { weights, key: weighted::epoch_key(self.seed, epoch) },
            (_, _, Some(mixture)) => Kind::Mixed { mixture, seed: self.seed, epoch },
            (Shuffle::Full, ..) => Kind::Full(Permutation::new(samples, key)),
            (Shuffle::Block { samples_per_block }, ..) => Kind::Block(Blocks::new(samples, samples_per_block, key)),
            (Shuffle::Sequential | Shuffle::Weighted { .. } | Shuffle::Mixed { .. }, ..) => {
                Kind::Sequential { samples }
            }
        })
    }

    /// Which view of its sample stands at a position of an epoch: 0 where a sample comes once an epoch. Where it can come
    /// again, it is another view each time, with random parameters of its own: of draws with replacement the number is the
    /// position, of a [`Mixture`] that of the pass through its part.
    ///
    /// # Panics
    /// As [`at`](Self::at).
    pub fn view(&self, epoch: u64, position: u64) -> u32 {
        match (&self.weights, &self.mixture) {
            // There are at most 2^32 draws.
            (Some(_), _) => position as u32,
            // They start again at 0 after 2^32, which no epoch has of one part.
            (_, Some(mixture)) => mixture.pass(self.seed, epoch, position) as u32,
            _ => 0,
        }
    }

    /// Which view the sample at a position is where it stands in for a bad one
    /// ([`OnError::Replace`](crate::OnError::Replace)): another than at its own place, so that it is augmented otherwise.
    ///
    /// # Panics
    /// As [`at`](Self::at).
    pub fn stand_in_view(&self, epoch: u64, position: u64) -> u32 {
        self.view(epoch, position) ^ (1 << 31)
    }
}

/// The order of one epoch: [`Order::epoch`].
#[derive(Clone, Copy, Debug)]
pub struct EpochOrder<'a>(Kind<'a>);

#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Sequential { samples: u64 },
    Full(Permutation),
    Block(Blocks),
    Weighted { weights: &'a Weights, key: u64 },
    Mixed { mixture: &'a Mixture, seed: u64, epoch: u64 },
}

impl EpochOrder<'_> {
    /// The sample at a position.
    ///
    /// # Panics
    /// If `position` is not below the number of positions.
    pub fn at(&self, position: u64) -> u64 {
        match &self.0 {
            Kind::Sequential { samples } => {
                assert!(position < *samples, "{position} is not below {samples}");
                position
            }
            Kind::Full(permutation) => permutation.apply(position),
            Kind::Block(blocks) => blocks.at(position),
            Kind::Weighted { weights, key } => {
                assert!(position < weights.draws(), "{position} is not below {}", weights.draws());
                weights.draw(*key, position)
            }
            Kind::Mixed { mixture, seed, epoch } => mixture.at(*seed, *epoch, position),
        }
    }
}

/// Blocks in random order, each in random order within.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    samples: u64,
    samples_per_block: u64,
    key: u64,
    order: Permutation,
    /// Where the last block, which may be shorter, comes in the order of blocks.
    last_at: u64,
    last_len: u64,
}

impl Blocks {
    fn new(samples: u64, samples_per_block: u64, key: u64) -> Self {
        let blocks = samples.div_ceil(samples_per_block);
        let order = Permutation::new(blocks, key);
        let last = blocks.saturating_sub(1);
        let last_at = if blocks == 0 { 0 } else { order.invert(last) };
        Self { samples, samples_per_block, key, order, last_at, last_len: samples - last * samples_per_block }
    }

    fn at(&self, position: u64) -> u64 {
        assert!(position < self.samples, "{position} is not below {}", self.samples);
        let (place, within, len) = self.place(position);
        let block = self.order.apply(place);
        // A key of its own for each block; that of the order of blocks is the epoch's itself.
        let order_within = Permutation::new(len, key(self.key, block));
        block * self.samples_per_block + order_within.apply(within)
    }

    /// The place in the order of blocks that a position falls on, the position within it, and the length of
    /// the block there.
    fn place(&self, position: u64) -> (u64, u64, u64) {
        // The last block comes in the end or all blocks before it are whole, so the product is in range.
        let last_begins = self.last_at * self.samples_per_block;
        if position < last_begins {
            return (position / self.samples_per_block, position % self.samples_per_block, self.samples_per_block);
        }
        let behind = position - last_begins;
        match behind.checked_sub(self.last_len) {
            None => (self.last_at, behind, self.last_len),
            Some(behind) => (
                self.last_at + 1 + behind / self.samples_per_block,
                behind % self.samples_per_block,
                self.samples_per_block,
            ),
        }
    }
}
