//! Which samples a loader takes, in which order and how many at once.

use std::path::PathBuf;
use std::sync::Arc;

use super::LoaderBuilder;
use crate::error::{Error, Result};
use crate::jpeg::Grain;
use crate::order::{Order, Shard, Weights};
use crate::source::index::{BuildOptions, Part, Recorders};
use crate::source::{self, IndexMode, IndexOptions, Source};

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

/// Makes another source of the one that is opened.
pub(super) type MapSource = Box<dyn FnOnce(Arc<dyn Source>) -> Result<Arc<dyn Source>> + Send>;

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
}

impl Origin {
    /// The samples, and what builds their index if that is wanted.
    pub(super) fn open(&self, index: &IndexOptions) -> Result<(Arc<dyn Source>, Option<Recorders>)> {
        let wants_index = index.mode == IndexMode::Build;
        match self {
            Self::Paths(paths) if wants_index => {
                let options = BuildOptions {
                    grain: Grain::default(),
                    part: Part::WHOLE,
                    dir: index.dir.clone(),
                    // It works beside the decode threads.
                    threads: 1,
                    force: false,
                };
                let opened = source::open_each(paths, index)?;
                let recorders = Recorders::new(&opened, &options);
                let source = source::join(opened.into_iter().map(|opened| opened.source).collect())?;
                Ok((source, Some(recorders)))
            }
            Self::Paths(paths) => Ok((source::open_all(paths, index)?, None)),
            Self::Source(_) if wants_index => {
                let allowed = "of a source of your own no index can be built";
                Err(Error::invalid_parameter("index", index.mode, allowed))
            }
            Self::Source(source) => Ok((Arc::clone(source), None)),
        }
    }
}

impl LoaderBuilder {
    pub(super) fn order(&self, source: &dyn Source) -> Result<Order> {
        let weights = match &self.draws {
            None => return Order::new(source.len(), self.seed, self.shuffle),
            Some(Draws::By(weights)) => weights.clone(),
            Some(Draws::Balanced) => Weights::balanced(source)?,
        };
        if weights.samples() != source.len() {
            let error =
                Error::invalid_parameter("weights", format!("of {} samples", weights.samples()), "one a sample");
            return Err(error.with_remedy(format!("the data set has {} samples", source.len())));
        }
        Ok(Order::weighted(weights, self.seed))
    }
}
