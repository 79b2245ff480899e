//! Which samples a loader takes, in which order and how many at once.

use std::path::PathBuf;
use std::sync::Arc;

use super::LoaderBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::Grain;
use crate::loader::state::DataSetId;
use crate::order::{EpochSteps, LastBatch, Mixture, Order, Shard, Shuffle, Weights};
use crate::source::index::{BuildOptions, Recorders};
use crate::source::{self, First, IndexMode, IndexOptions, Source};

/// Samples of a batch, as they were asked for.
#[derive(Clone, Copy)]
pub(super) enum BatchSize {
    OfRank(u64),
    OfAll(u64),
}

impl BatchSize {
    /// The samples of one rank's batch.
    pub(super) fn of_rank(self, shard: Shard) -> Result<u64> {
        let ranks = shard.world_size();
        match self {
            Self::OfRank(samples) => Ok(samples),
            Self::OfAll(samples) if samples.is_multiple_of(ranks) => Ok(samples / ranks),
            Self::OfAll(samples) => {
                let allowed = format!("every rank gets the same: it must be a multiple of the {ranks} ranks");
                let near = samples.checked_next_multiple_of(ranks).unwrap_or(ranks);
                Err(Error::invalid_parameter("global_batch_size", samples, &allowed)
                    .with_remedy(format!("use {near}, for example")))
            }
        }
    }
}

/// Makes another source of one that was opened; again when the data has grown.
pub(super) type MapSource = Box<dyn Fn(Arc<dyn Source>) -> Result<Arc<dyn Source>> + Send + Sync>;

/// What samples are drawn by, with replacement.
pub(super) enum Draws {
    By(Weights),
    Balanced,
}

/// Where the samples come from.
pub(in crate::loader) enum Origin {
    /// Data sets that are not opened yet.
    Paths(Vec<PathBuf>),
    Source(Arc<dyn Source>),
    /// Data sets that are mixed, with their weights.
    Mixture(Vec<(Part, f64)>),
}

/// One of several data sets that are mixed.
pub(in crate::loader) enum Part {
    Path(PathBuf),
    Source(Arc<dyn Source>),
}

/// Which samples a loader takes and in which order, as it was told: to be found out anew when the data has grown.
pub(in crate::loader) struct Choice {
    origin: Origin,
    index: IndexOptions,
    map_source: Option<MapSource>,
    /// In the place of `shuffle`.
    draws: Option<Draws>,
    shuffle: Shuffle,
    /// Samples of an epoch of a mixture; none for those of its parts.
    mixture_epoch: Option<u64>,
    seed: u64,
    batch_size: u64,
    last_batch: LastBatch,
    shard: Shard,
}

/// A data set as it was found.
pub(in crate::loader) struct Found {
    pub(in crate::loader) source: Arc<dyn Source>,
    /// What builds its index, if that is wanted.
    pub(in crate::loader) recorder: Option<Recorders>,
    /// The parts of a mixture: their names, samples and weights.
    parts: Vec<(String, u64, f64)>,
}

/// The samples that a loader takes, and how.
pub(in crate::loader) struct Taken {
    pub(in crate::loader) source: Arc<dyn Source>,
    pub(in crate::loader) data_set: DataSetId,
    pub(in crate::loader) order: Order,
    pub(in crate::loader) steps: EpochSteps,
}

impl Choice {
    /// Opens the data set, and makes of it what is to be made of it.
    pub(in crate::loader) fn find(&self) -> Result<Found> {
        let wants_index = self.index.mode == IndexMode::Build;
        let (source, recorder) = match &self.origin {
            Origin::Paths(paths) if wants_index => {
                let options = BuildOptions {
                    grain: Grain::default(),
                    part: source::index::Part::WHOLE,
                    dir: self.index.dir.clone(),
                    // It works beside the decode threads.
                    threads: 1,
                    force: false,
                };
                let opened = source::open_each(paths, &self.index)?;
                let recorders = Recorders::new(&opened, &options);
                (source::join(opened.into_iter().map(|opened| opened.source).collect())?, Some(recorders))
            }
            Origin::Paths(paths) => (source::open_all(paths, &self.index)?, None),
            Origin::Source(_) | Origin::Mixture(_) if wants_index => {
                let allowed = "of a source of your own, or a mixture, no index is built: use `forebay index`";
                return Err(Error::invalid_parameter("index", self.index.mode, allowed));
            }
            Origin::Source(source) => (Arc::clone(source), None),
            Origin::Mixture(parts) => return self.find_parts(parts),
        };
        Ok(Found { source: self.map(source)?, recorder, parts: Vec::new() })
    }

    fn find_parts(&self, parts: &[(Part, f64)]) -> Result<Found> {
        let (mut sources, mut found) = (Vec::with_capacity(parts.len()), Vec::with_capacity(parts.len()));
        for (number, (part, weight)) in parts.iter().enumerate() {
            let (name, source) = match part {
                Part::Path(path) => (path.display().to_string(), source::open_with(path, &self.index)?),
                Part::Source(source) => (format!("part {number}"), Arc::clone(source)),
            };
            let source = self.map(source)?;
            found.push((name, source.len(), *weight));
            sources.push(source);
        }
        Ok(Found { source: source::join(sources)?, recorder: None, parts: found })
    }

    fn map(&self, source: Arc<dyn Source>) -> Result<Arc<dyn Source>> {
        match &self.map_source {
            Some(map) => map(source),
            None => Ok(source),
        }
    }

    /// Takes on the first samples of what was found, so many or all there are.
    pub(in crate::loader) fn take(&self, found: &Found, samples: u64) -> Result<Taken> {
        let source = First::of(Arc::clone(&found.source), samples);
        let order = self.order(&*source, &found.parts)?;
        let steps = EpochSteps::of_rank(order.samples(), self.batch_size, self.last_batch, self.shard)?;
        Ok(Taken { data_set: DataSetId::of(&*source), source, order, steps })
    }

    fn order(&self, source: &dyn Source, parts: &[(String, u64, f64)]) -> Result<Order> {
        if !parts.is_empty() {
            return self.mixed(parts);
        }
        if let Some(samples) = self.mixture_epoch {
            let allowed = "only a mixture has epochs of any length: Loader::mixture";
            return Err(Error::invalid_parameter("mixture_epoch", samples, allowed));
        }
        let weights = match &self.draws {
            None => return Order::new(source.len(), self.seed, self.shuffle),
            Some(Draws::By(weights)) => weights.clone(),
            Some(Draws::Balanced) => Weights::balanced(source)?,
        };
        if weights.samples() != source.len() {
            let error =
                Error::invalid_parameter("weights", format!("of {} samples", weights.samples()), "one a sample");
            return Err(error.with_remedy(format!(
                "the data set has {} samples; weights do not grow with it: balance classes, or build another loader",
                source.len()
            )));
        }
        Ok(Order::weighted(weights, self.seed))
    }

    fn mixed(&self, parts: &[(String, u64, f64)]) -> Result<Order> {
        if self.draws.is_some() {
            let message = "a mixture has weights of its parts, and was given others for samples or classes";
            return Err(Error::new(ErrorKind::InvalidParameter, message)
                .with_remedy("use one of the two; a part can be a source of your own that has samples several times"));
        }
        let weights: Vec<_> = parts.iter().map(|(_, samples, weight)| (*samples, *weight)).collect();
        let mixture = Mixture::new(&weights)?.with_shuffle(self.shuffle)?;
        let mixture = match self.mixture_epoch {
            Some(samples) => mixture.with_samples(samples)?,
            None => mixture,
        };
        Ok(Order::mixed(mixture, self.seed))
    }

    /// Whether the paths can be opened again, and what is new be told from what was there.
    ///
    /// # Errors
    /// `Unsupported` where not.
    pub(in crate::loader) fn check_can_grow(&self) -> Result<()> {
        let (cause, remedy) = match &self.origin {
            Origin::Paths(_) => return Ok(()),
            Origin::Source(_) => {
                ("a source of your own is not opened again", "give what it has become: Loader::refresh_with")
            }
            Origin::Mixture(_) => (
                "a mixture does not grow: how often its parts were gone through would be another number",
                "build another loader of what is there now",
            ),
        };
        Err(Error::new(ErrorKind::Unsupported, cause).with_remedy(remedy))
    }

    /// Whether its paths still name the very shards that were found. What a map makes of them may be another thing.
    pub(in crate::loader) fn is_as_found(&self, found: &Found) -> Result<bool> {
        match &self.origin {
            Origin::Paths(paths) if self.map_source.is_none() => source::has_same_shards(paths, &found.source.shards()),
            _ => Ok(false),
        }
    }

    /// What is made of a source that takes the place of one's own.
    ///
    /// # Errors
    /// `Unsupported` where there was none.
    pub(in crate::loader) fn found(&self, source: Arc<dyn Source>) -> Result<Found> {
        if !matches!(self.origin, Origin::Source(_)) {
            let message = "the loader opens its data itself, and was given a source for it";
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy("use Loader::refresh"));
        }
        Ok(Found { source: self.map(source)?, recorder: None, parts: Vec::new() })
    }
}

impl Found {
    /// The names of the parts of a mixture.
    pub(in crate::loader) fn part_names(&self) -> Vec<String> {
        self.parts.iter().map(|(name, ..)| name.clone()).collect()
    }

    /// Whether it is one data set, of which the first samples can be taken on alone.
    pub(in crate::loader) fn can_be_cut(&self) -> bool {
        self.parts.is_empty()
    }
}

impl LoaderBuilder {
    /// What it was told of samples and order, with the batch size of one rank. It is taken out.
    pub(super) fn choice(&mut self, batch_size: u64) -> Choice {
        Choice {
            origin: std::mem::replace(&mut self.origin, Origin::Paths(Vec::new())),
            index: self.index.clone(),
            map_source: self.map_source.take(),
            draws: self.draws.take(),
            shuffle: self.shuffle,
            mixture_epoch: self.mixture_epoch,
            seed: self.seed,
            batch_size,
            last_batch: self.last_batch,
            shard: self.shard,
        }
    }
}
