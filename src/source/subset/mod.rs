//! Some of the samples of a source.

mod filter;
mod kept;
mod parse;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub use filter::Filter;
pub(super) use filter::unknown_classes;
use kept::{Kept, fallible};

use super::names::out_of_range;
use super::notes::Seen;
use super::parallel::in_parallel;
use super::{Columns, Extent, Record, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

/// Samples that a thread judges at a time; a multiple of the 64 of a word.
const PIECE_SAMPLES: u64 = 8192;

/// Some of the samples of another source, numbered anew from 0. What is said of a sample is what the other says of it,
/// labels and classes too: a class of which nothing is left keeps its label. To number classes anew, or to merge some, see
/// [`ClassMap`](super::ClassMap).
///
/// Every sample is judged once, when the subset is made, on as many threads as there are processors. It takes at most 4
/// bytes a kept sample (8 if the other source has more than 2^32), and at most a seventh of a byte for each of the other's;
/// a look-up is a few memory accesses. Numbers are the same each time if the other source's are: they follow its order.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use forebay::source::{self, Subset};
/// use forebay::{Loader, Result};
///
/// # fn main() -> Result<()> {
/// // What a filter can say, can be said in words too.
/// let large = Subset::matching(source::open("data/train")?, &"width >= 256".parse()?)?;
/// // Anything else is a function of the sample.
/// let odd = Subset::new(Arc::new(large), |sample| Ok(sample.label()? % 2 == 1))?;
/// let loader = Loader::of(Arc::new(odd)).build()?;
/// # Ok(())
/// # }
/// ```
pub struct Subset {
    source: Arc<dyn Source>,
    kept: Kept,
    notes: Vec<String>,
}

/// A sample that is kept or not: what the source says of it.
pub struct Candidate<'a> {
    source: &'a dyn Source,
    number: u64,
    key: RefCell<Key>,
}

#[derive(Default)]
struct Key {
    text: String,
    is_known: bool,
}

impl Candidate<'_> {
    /// Its number in the source that is filtered.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The source that is filtered.
    pub fn source(&self) -> &dyn Source {
        self.source
    }

    /// Its label.
    ///
    /// # Errors
    /// Those of the source, as for the methods below.
    pub fn label(&self) -> Result<i64> {
        self.source.label(self.number)
    }

    /// What `judge` makes of its key.
    pub fn with_key<T>(&self, judge: impl FnOnce(&str) -> T) -> Result<T> {
        let mut key = self.key.borrow_mut();
        if !key.is_known {
            self.source.key(self.number, &mut key.text)?;
            key.is_known = true;
        }
        Ok(judge(&key.text))
    }

    /// What an index says of it, if there is one.
    pub fn columns(&self) -> Result<Option<Columns<'_>>> {
        self.source.columns(self.number)
    }

    /// Goes on to another sample.
    fn move_to(&mut self, number: u64) {
        self.number = number;
        self.key.get_mut().is_known = false;
    }
}

/// What was found out about a sample.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Kept,
    LeftOut,
    /// What would decide it is not known of this sample.
    Unknown,
}

impl Subset {
    /// The samples for which `keeps` says so. It is called from several threads at once, once for each sample, in no
    /// particular order.
    ///
    /// # Errors
    /// The error of the first sample, by number, that `keeps` returns one for; `EmptyDataset` if nothing is kept.
    pub fn new(source: Arc<dyn Source>, keeps: impl Fn(&Candidate<'_>) -> Result<bool> + Sync) -> Result<Self> {
        let judge = |sample: &Candidate<'_>| Ok(if keeps(sample)? { Verdict::Kept } else { Verdict::LeftOut });
        Self::judged(source, "a function", "", judge)
    }

    /// The samples that a filter matches. Of a sample of which the index does not know what the filter asks for (the
    /// width of what is no image) it cannot say, and it is left out; [`notes`](Source::notes) say how many are.
    ///
    /// # Errors
    /// `InvalidParameter` for a class that the source does not have, naming those it has; `NotFound` where the filter asks
    /// for a column and a sample has no index; those of the source; `EmptyDataset` if nothing matches.
    pub fn matching(source: Arc<dyn Source>, filter: &Filter) -> Result<Self> {
        let rule = filter.bind(&*source)?;
        let judge = |sample: &Candidate<'_>| {
            Ok(match rule.holds(sample)? {
                Some(true) => Verdict::Kept,
                Some(false) => Verdict::LeftOut,
                None => Verdict::Unknown,
            })
        };
        let remedy = "check the filter against the labels, keys and index of the data set; a `*` of a key stands for \
                      slashes too";
        Self::judged(source, &format!("`{filter}`"), remedy, judge)
    }

    /// The samples of these numbers, in this order. The same may come again, and then counts as often.
    ///
    /// # Errors
    /// `InvalidParameter` for a number that the source does not have; `EmptyDataset` for none.
    pub fn of_numbers(source: Arc<dyn Source>, numbers: impl IntoIterator<Item = u64>) -> Result<Self> {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        if let Some(&number) = numbers.iter().find(|&&number| number >= source.len()) {
            return Err(out_of_range(number, source.len()));
        }
        Self::with(source, Kept::listed(numbers), "a list of numbers", "", &Seen::default())
    }

    /// The other source's number of one of its samples.
    ///
    /// # Errors
    /// `InvalidParameter` for a number that it does not have.
    pub fn number(&self, sample: u64) -> Result<u64> {
        self.kept.at(sample).ok_or_else(|| out_of_range(sample, self.kept.len()))
    }

    /// The source that it is a part of.
    pub fn inner(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The memory of its list of samples, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.kept.memory_bytes()
    }

    /// Judges all samples, several pieces of them at once.
    fn judged(
        source: Arc<dyn Source>,
        by: &str,
        remedy: &str,
        judge: impl Fn(&Candidate<'_>) -> Result<Verdict> + Sync,
    ) -> Result<Self> {
        let len = source.len();
        let mut words = fallible::<AtomicU64>(len.div_ceil(64))?;
        words.extend((0..len.div_ceil(64)).map(|_| AtomicU64::new(0)));
        let next = AtomicU64::new(0);
        let first_bad = AtomicU64::new(u64::MAX);
        let found: Mutex<(Option<(u64, Error)>, Seen)> = Mutex::default();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        in_parallel(threads.min(usize::try_from(len.div_ceil(PIECE_SAMPLES)).unwrap_or(usize::MAX)), || {
            let mut candidate = Candidate { source: &*source, number: 0, key: RefCell::default() };
            let mut seen = Seen::default();
            loop {
                // Pieces are begun in order, so that no error of an earlier sample can be missed.
                let first = next.fetch_add(PIECE_SAMPLES, Relaxed);
                if first >= len.min(first_bad.load(Relaxed)) {
                    break;
                }
                let piece = first..len.min(first + PIECE_SAMPLES);
                if let Err((sample, error)) = judge_piece(&mut candidate, piece, &judge, &words, &mut seen) {
                    first_bad.fetch_min(sample, Relaxed);
                    let (bad, _) = &mut *found.lock().unwrap_or_else(PoisonError::into_inner);
                    if bad.as_ref().is_none_or(|(earlier, _)| sample < *earlier) {
                        *bad = Some((sample, error));
                    }
                }
            }
            found.lock().unwrap_or_else(PoisonError::into_inner).1.merge(seen, b"");
        });
        let (bad, seen) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = bad {
            return Err(error);
        }
        let kept = Kept::of_bits(words.into_iter().map(AtomicU64::into_inner).collect())?;
        Self::with(source, kept, by, remedy, &seen)
    }

    fn with(source: Arc<dyn Source>, kept: Kept, by: &str, remedy: &str, seen: &Seen) -> Result<Self> {
        let mut notes = source.notes().to_vec();
        notes.extend(seen.lines());
        if kept.len() == 0 {
            let remedy = if remedy.is_empty() { "choose at least one sample" } else { remedy };
            let seen = if notes.is_empty() { String::new() } else { format!("; seen: {}", notes.join("; ")) };
            let message = format!("of the {} samples none is chosen by {by}{seen}", source.len());
            return Err(Error::new(ErrorKind::EmptyDataset, message).with_remedy(remedy));
        }
        notes.push(format!("samples chosen by {by}: {} of {}", kept.len(), source.len()));
        Ok(Self { source, kept, notes })
    }
}

const UNKNOWN: &str = "samples left out since the index does not know what the filter asks for";

/// Sets the bits of the samples of a piece that are kept.
fn judge_piece(
    candidate: &mut Candidate<'_>,
    piece: std::ops::Range<u64>,
    judge: &(impl Fn(&Candidate<'_>) -> Result<Verdict> + Sync),
    words: &[AtomicU64],
    seen: &mut Seen,
) -> Result<(), (u64, Error)> {
    for number in piece {
        candidate.move_to(number);
        let failed = |error| (number, error);
        match judge(candidate).map_err(failed)? {
            Verdict::LeftOut => {}
            // No other thread has a piece that this word is of.
            Verdict::Kept => {
                words[(number / 64) as usize].fetch_or(1 << (number % 64), Relaxed);
            }
            Verdict::Unknown => candidate.with_key(|key| seen.add(UNKNOWN, key.as_bytes())).map_err(failed)?,
        }
    }
    Ok(())
}

impl Source for Subset {
    fn len(&self) -> u64 {
        self.kept.len()
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        self.source.extent(self.number(sample)?)
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        self.source.object_path(object, path)
    }

    fn label(&self, sample: u64) -> Result<i64> {
        self.source.label(self.number(sample)?)
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        self.source.key(self.number(sample)?, key)
    }

    fn is_headerless(&self, sample: u64) -> Result<bool> {
        self.source.is_headerless(self.number(sample)?)
    }

    fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        self.source.record(self.number(sample)?)
    }

    fn columns(&self, sample: u64) -> Result<Option<Columns<'_>>> {
        self.source.columns(self.number(sample)?)
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn index_fallbacks(&self) -> &[Fallback] {
        self.source.index_fallbacks()
    }
}
