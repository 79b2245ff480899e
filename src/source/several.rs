//! Several data sets as one: spread over drives or mounts, or in different forms.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::names::out_of_range;
use super::{Columns, Extent, Record, Source, StoredShard};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

/// Bits of an object's number that are its part's; the others number the part.
const OBJECT_BITS: u32 = 40;

const OWN_LABELS: &str =
    "labels of data sets without class folders are taken as they are, beside those of class folders";

/// Data sets one after another, in the order given.
///
/// Classes of folders are told by their names: a class that is in several folders has one label, its place among the
/// names of all. Labels of shards and lists are numbers already, and are taken as they are.
pub(super) struct Several {
    parts: Vec<Part>,
    /// The number of the first sample of each part, and at the end that of all samples.
    starts: Vec<u64>,
    classes: Vec<String>,
    notes: Vec<String>,
    fallbacks: Vec<Fallback>,
}

struct Part {
    source: Arc<dyn Source>,
    /// The label of each class of its own; none where labels are taken as they are.
    labels: Vec<i64>,
}

impl Several {
    pub(super) fn new(sources: Vec<Arc<dyn Source>>) -> Result<Self> {
        let names: BTreeSet<&String> = sources.iter().flat_map(|source| source.classes()).collect();
        let classes: Vec<String> = names.into_iter().cloned().collect();
        let mut starts = vec![0_u64];
        let mut notes: Vec<String> = sources.iter().flat_map(|source| source.notes().to_vec()).collect();
        let fallbacks = sources.iter().flat_map(|source| source.index_fallbacks().to_vec()).collect();
        let with_classes = sources.iter().filter(|source| !source.classes().is_empty()).count();
        if with_classes > 0 && with_classes < sources.len() {
            notes.push(OWN_LABELS.to_owned());
        }
        let mut parts = Vec::with_capacity(sources.len());
        for source in sources {
            let before = starts.last().copied().unwrap_or(0);
            let Some(end) = before.checked_add(source.len()) else {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    "the data sets have more samples than can be counted",
                ));
            };
            starts.push(end);
            let label = |name: &String| classes.binary_search(name).map_or(super::UNLABELLED, |label| label as i64);
            let labels = source.classes().iter().map(label).collect();
            parts.push(Part { source, labels });
        }
        Ok(Self { parts, starts, classes, notes, fallbacks })
    }

    /// The part of a sample, its number, and the sample's number within it.
    fn find(&self, sample: u64) -> Result<(u64, &Part, u64)> {
        let number = self.starts.partition_point(|start| *start <= sample) - 1;
        match self.parts.get(number) {
            Some(part) => Ok((number as u64, part, sample - self.starts[number])),
            None => Err(out_of_range(sample, self.len())),
        }
    }
}

impl Source for Several {
    fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        let (number, part, sample) = self.find(sample)?;
        let numbered = |object: u64| {
            let fits = object >> OBJECT_BITS == 0 && number >> (64 - OBJECT_BITS) == 0;
            let cause = "more files in a data set than can be numbered";
            if fits { Ok(number << OBJECT_BITS | object) } else { Err(Error::new(ErrorKind::LimitExceeded, cause)) }
        };
        Ok(match part.source.extent(sample)? {
            Extent::Object(object) => Extent::Object(numbered(object)?),
            Extent::Range { object, offset, len_bytes } => {
                Extent::Range { object: numbered(object)?, offset, len_bytes }
            }
        })
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        let part = usize::try_from(object >> OBJECT_BITS).ok().and_then(|number| self.parts.get(number));
        match part {
            Some(part) => part.source.object_path(object & ((1 << OBJECT_BITS) - 1), path),
            None => Err(Error::new(ErrorKind::InvalidParameter, format!("file {object} does not exist"))),
        }
    }

    fn label(&self, sample: u64) -> Result<i64> {
        let (_, part, sample) = self.find(sample)?;
        let label = part.source.label(sample)?;
        let known = usize::try_from(label).ok().and_then(|label| part.labels.get(label));
        Ok(known.copied().unwrap_or(label))
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        let (_, part, sample) = self.find(sample)?;
        part.source.key(sample, key)
    }

    fn is_headerless(&self, sample: u64) -> Result<bool> {
        let (_, part, sample) = self.find(sample)?;
        part.source.is_headerless(sample)
    }

    fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        let (_, part, sample) = self.find(sample)?;
        part.source.record(sample)
    }

    fn columns(&self, sample: u64) -> Result<Option<Columns<'_>>> {
        let (_, part, sample) = self.find(sample)?;
        part.source.columns(sample)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn shards(&self) -> Vec<StoredShard> {
        let shards: Vec<_> = self.parts.iter().map(|part| part.source.shards()).collect();
        // One part without any makes the whole one of keys.
        if shards.iter().any(Vec::is_empty) { Vec::new() } else { shards.concat() }
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn index_fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }
}
