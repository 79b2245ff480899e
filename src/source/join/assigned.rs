//! The labels that rows have given so far.

use std::collections::HashMap;

use super::Cell;
use crate::error::{Error, ErrorKind, Result};
use crate::source::UNLABELLED;

/// The most names of classes.
const CLASSES_MAX: usize = 1_000_000;

/// Labels by sample.
pub(super) struct Assigned {
    labels: Labels,
    /// A bit for each sample that has one.
    has: Vec<u64>,
    len: u64,
    kind: Kind,
}

/// A label for each sample.
pub(super) enum Labels {
    Narrow(Vec<i32>),
    Wide(Vec<i64>),
}

/// What labels are in this table.
enum Kind {
    /// No row was read yet.
    Unknown,
    Numbers,
    /// Names, and the numbers by which they are kept until all are known.
    Names(HashMap<String, i64>),
}

/// Why a label is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Empty,
    NoNumber,
    TooMany,
}

impl Assigned {
    /// # Errors
    /// `LimitExceeded` if there is no memory for them.
    pub fn new(len: u64) -> Result<Self> {
        let count = usize::try_from(len).unwrap_or(usize::MAX);
        let (mut narrow, mut has) = (Vec::new(), Vec::new());
        narrow.try_reserve_exact(count).map_err(|_| no_memory(len))?;
        has.try_reserve_exact(count.div_ceil(64)).map_err(|_| no_memory(len))?;
        narrow.resize(count, UNLABELLED as i32);
        has.resize(count.div_ceil(64), 0);
        Ok(Self { labels: Labels::Narrow(narrow), has, len, kind: Kind::Unknown })
    }

    /// The number that stands for a label.
    pub fn value(&mut self, label: &Cell<'_>) -> Result<i64, Refused> {
        let text = match label {
            Cell::Number(number) => {
                if let Kind::Names(_) = self.kind {
                    return Err(Refused::NoNumber);
                }
                self.kind = Kind::Numbers;
                return Ok(*number);
            }
            Cell::Text(text) => text.trim(),
        };
        if text.is_empty() {
            return Err(Refused::Empty);
        }
        if let Kind::Unknown = self.kind {
            self.kind = if text.parse::<i64>().is_ok() { Kind::Numbers } else { Kind::Names(HashMap::new()) };
        }
        let Kind::Names(names) = &mut self.kind else { return text.parse().map_err(|_| Refused::NoNumber) };
        if let Some(&number) = names.get(text) {
            return Ok(number);
        }
        if names.len() == CLASSES_MAX {
            return Err(Refused::TooMany);
        }
        let number = names.len() as i64;
        names.insert(text.to_owned(), number);
        Ok(number)
    }

    /// Gives a sample its label, unless it has one: whether it had none.
    ///
    /// # Errors
    /// `LimitExceeded` if there is no memory for labels beyond 32 bits.
    pub fn set(&mut self, sample: u64, label: i64) -> Result<bool> {
        let (word, bit) = ((sample / 64) as usize, 1 << (sample % 64));
        if self.has[word] & bit != 0 {
            return Ok(false);
        }
        self.has[word] |= bit;
        if let (Labels::Narrow(narrow), Err(_)) = (&mut self.labels, i32::try_from(label)) {
            let mut wide = Vec::new();
            wide.try_reserve_exact(narrow.len()).map_err(|_| no_memory(self.len))?;
            wide.extend(narrow.iter().copied().map(i64::from));
            self.labels = Labels::Wide(wide);
        }
        match &mut self.labels {
            Labels::Narrow(narrow) => narrow[sample as usize] = label as i32,
            Labels::Wide(wide) => wide[sample as usize] = label,
        }
        Ok(true)
    }

    /// The samples that have no label.
    pub fn missing(&self) -> impl Iterator<Item = u64> {
        (0..self.len).filter(|sample| self.has[(sample / 64) as usize] & 1 << (sample % 64) == 0)
    }

    /// Labels by sample, and the names of the classes if labels were names.
    pub fn finish(mut self) -> (Labels, Vec<String>) {
        let Kind::Names(names) = self.kind else { return (self.labels, Vec::new()) };
        let mut sorted: Vec<(String, i64)> = names.into_iter().collect();
        sorted.sort_unstable();
        let mut places = vec![0; sorted.len()];
        (0..).zip(&sorted).for_each(|(place, (_, number))| places[*number as usize] = place);
        if let Labels::Narrow(labels) = &mut self.labels {
            // Samples without one keep having none.
            let named = labels.iter_mut().filter(|label| **label >= 0);
            named.for_each(|label| *label = places[*label as usize]);
        }
        (self.labels, sorted.into_iter().map(|(name, _)| name).collect())
    }
}

impl Labels {
    /// That of a sample; none of one that there is not.
    pub fn at(&self, sample: u64) -> Option<i64> {
        let sample = usize::try_from(sample).ok()?;
        match self {
            Self::Narrow(labels) => labels.get(sample).copied().map(i64::from),
            Self::Wide(labels) => labels.get(sample).copied(),
        }
    }
}

fn no_memory(len: u64) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("there is no memory for the labels of {len} samples"))
        .with_remedy("join parts of the data set, or give the process more memory")
}
