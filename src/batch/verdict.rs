//! What became of each sample that a batch was to hold.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::Error;
use crate::loader::OnError;

/// What became of one sample that a batch was to hold: [`Batch::verdicts`](super::Batch::verdicts).
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// It is there.
    Delivered {
        /// Its number within the source.
        sample: u64,
    },
    /// Another one is there in its place.
    Replaced {
        /// What is wrong with it.
        bad: &'a BadSample,
        /// What is there.
        by: &'a Replacement,
    },
    /// The batch goes without it.
    Skipped {
        /// What is wrong with it.
        bad: &'a BadSample,
    },
}

/// A sample that could not be delivered.
#[derive(Debug)]
pub struct BadSample {
    /// The epoch.
    pub epoch: u64,
    /// Its place in the epoch's order, as [`Batch::positions`](super::Batch::positions) counts: beyond the epoch's end where
    /// it fills the last batch up.
    pub position: u64,
    /// Its number within the source.
    pub sample: u64,
    /// Its name within the data set; empty if that could not be learned.
    pub key: String,
    /// The file that it lies in, if that is known.
    pub path: Option<PathBuf>,
    /// Where it starts in a file that holds others too, such as a shard.
    pub offset: Option<u64>,
    /// Why: kind, cause and remedy.
    pub error: Error,
    /// What is done about bad samples.
    pub on_error: OnError,
    /// What stands in for it; none if it is skipped, or if nothing can and the run ends.
    pub replacement: Option<Replacement>,
}

/// A sample that stands in for a bad one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Its own place in the epoch's order.
    pub position: u64,
    /// Its number within the source.
    pub sample: u64,
    /// Its label.
    pub label: i64,
    /// Its name within the data set.
    pub key: String,
}

impl BadSample {
    /// What was done about it: `replaced`, `skipped`, or `failed` where nothing could stand in for it and the run ends.
    pub fn action(&self) -> &'static str {
        match (self.on_error, &self.replacement) {
            (_, Some(_)) => "replaced",
            (OnError::Skip, None) => "skipped",
            (OnError::Fail | OnError::Replace, None) => "failed",
        }
    }

    /// It as an object of JSON, such as [`bad_samples_file`](crate::LoaderBuilder::bad_samples_file) holds, one a line:
    /// `epoch`, `position`, `sample`, `key`, `path`, `offset`, `kind`, `cause`, `remedy`, `action`, and `replacement` with
    /// `position`, `sample` and `key`. What is not known or not there is null.
    pub fn json(&self) -> Value {
        let Self { epoch, position, sample, key, path, offset, error, replacement, on_error: _ } = self;
        json!({
            "epoch": epoch,
            "position": position,
            "sample": sample,
            "key": key,
            "path": path.as_ref().map(|path| path.to_string_lossy()),
            "offset": offset,
            "kind": error.kind().name(),
            "cause": error.message(),
            "remedy": error.remedy(),
            "action": self.action(),
            "replacement": replacement.as_ref().map(|by| json!({
                "position": by.position,
                "sample": by.sample,
                "key": by.key,
            })),
        })
    }
}

/// What a batch holds, where that is not what it was to hold.
pub(crate) struct Delivered {
    /// Which of the batch's places its samples are of, ascending.
    pub(crate) places: Vec<usize>,
    pub(crate) samples: Vec<u64>,
    pub(crate) labels: Vec<i64>,
    /// The bad samples with their places, ascending.
    pub(crate) bad: Vec<(usize, Arc<BadSample>)>,
}

impl Delivered {
    /// Whether places were left out.
    pub(crate) fn has_gaps(&self) -> bool {
        self.bad.iter().any(|(_, bad)| bad.replacement.is_none())
    }

    /// The bad sample of a place.
    pub(crate) fn bad_at(&self, place: usize) -> Option<&BadSample> {
        let found = self.bad.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        Some(&self.bad[found].1)
    }
}
