//! Labels that stand in a table of their own.

mod assigned;
mod keys;
#[cfg(feature = "parquet")]
mod parquet;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use assigned::Assigned;
use keys::Keys;

use super::notes::Seen;
use super::{Columns, Extent, Record, Source, StoredShard, has_image_extension, without_extension};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

const ROWS_REPEATED: &str = "rows of labels whose key came before, left out";
const ROWS_UNMATCHED: &str = "rows of labels whose key no sample has";
const SAMPLES_UNMATCHED: &str = "samples whose key is in no row of labels, so without a label";

/// What becomes of a row or a sample that fits nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mismatch {
    /// Joining fails, and names the first.
    #[default]
    Fail,
    /// It is left out, and counted in [`notes`](Source::notes).
    Note,
}

/// A file that says which label each key has.
///
/// - `.csv` (commas) and `.tsv` (tabs): the first line names the columns; values may stand in double quotes.
/// - `.parquet`: labels are integers or strings, keys strings; uncompressed, or compressed with Snappy or gzip. With the
///   feature `parquet`, which the `forebay` binary has.
///
/// Keys are those of the source ([`Source::key`]), with or without the extension of an image. Labels are whole numbers, or
/// else names of classes: if the first row's is no number all are names, the classes are all names in the table, sorted as
/// bytes, and a label is the place of its name among them, as of a folder.
///
/// ```no_run
/// use forebay::source::{self, LabelTable, Mismatch};
///
/// # fn main() -> forebay::Result<()> {
/// let table = LabelTable::new("train.csv").columns("image_id", "diagnosis").unmatched_rows(Mismatch::Note);
/// let labelled = table.join(source::open("data/images")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LabelTable {
    path: PathBuf,
    key_column: String,
    label_column: String,
    repeated: Mismatch,
    unmatched_rows: Mismatch,
    unmatched_samples: Mismatch,
}

impl LabelTable {
    /// The table in a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            key_column: "key".to_owned(),
            label_column: "label".to_owned(),
            repeated: Mismatch::Fail,
            unmatched_rows: Mismatch::Fail,
            unmatched_samples: Mismatch::Fail,
        }
    }

    /// The names of its columns. Default `key` and `label`. Others are not looked at.
    #[must_use]
    pub fn columns(mut self, key: impl Into<String>, label: impl Into<String>) -> Self {
        (self.key_column, self.label_column) = (key.into(), label.into());
        self
    }

    /// What becomes of a row whose key came before: [`Mismatch::Note`] takes the first of them. Default: an error.
    #[must_use]
    pub fn repeated(mut self, mismatch: Mismatch) -> Self {
        self.repeated = mismatch;
        self
    }

    /// What becomes of a row whose key no sample has. Default: an error.
    #[must_use]
    pub fn unmatched_rows(mut self, mismatch: Mismatch) -> Self {
        self.unmatched_rows = mismatch;
        self
    }

    /// What becomes of a sample whose key no row has: with [`Mismatch::Note`] it has no label ([`UNLABELLED`](super::UNLABELLED)), whatever the
    /// source says. Default: an error.
    #[must_use]
    pub fn unmatched_samples(mut self, mismatch: Mismatch) -> Self {
        self.unmatched_samples = mismatch;
        self
    }

    /// The source with the labels of this table. Rows are read one after another and not kept: it takes 12 bytes a sample
    /// while joining, of which 4 stay (8 once a label is beyond 32 bits), and the names of the classes.
    ///
    /// # Errors
    /// `NotFound` or `Io` if the file cannot be read; `Unsupported` if it is of another kind; `Corrupt`, naming the row, for
    /// what is no table, a label that is no number where others are, or an empty one; `InvalidParameter` for columns that
    /// it does not have, naming those it has, and for rows and samples that fit nothing; `LimitExceeded` for more than a
    /// million names; those of the source's keys.
    pub fn join(&self, source: Arc<dyn Source>) -> Result<Joined> {
        let mut joining = Joining {
            table: self,
            keys: Keys::of(&*source)?,
            source: &*source,
            assigned: Assigned::new(source.len())?,
            seen: Seen::default(),
            key: String::new(),
        };
        let extension = self.path.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("csv") => table::read(self, b',', &mut joining)?,
            Some("tsv") => table::read(self, b'\t', &mut joining)?,
            #[cfg(feature = "parquet")]
            Some("parquet") => parquet::read(self, &mut joining)?,
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => {
                let message = format!("labels {}: this build reads no Parquet", self.path.display());
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .with_remedy("build forebay with its feature parquet, or write the labels as .csv"));
            }
            _ => {
                let message = format!("labels {}: a table is a .csv, .tsv or .parquet file", self.path.display());
                return Err(Error::new(ErrorKind::Unsupported, message).with_remedy("name it as what it is"));
            }
        }
        let Joining { assigned, mut seen, .. } = joining;
        self.check_samples(&*source, &assigned, &mut seen)?;
        let (labels, classes) = assigned.finish();
        let mut notes = source.notes().to_vec();
        notes.extend(seen.lines());
        Ok(Joined { source, labels, classes, notes })
    }

    /// Judges the samples that no row was of.
    fn check_samples(&self, source: &dyn Source, assigned: &Assigned, seen: &mut Seen) -> Result<()> {
        let mut key = String::new();
        for sample in assigned.missing() {
            source.key(sample, &mut key)?;
            if self.unmatched_samples == Mismatch::Fail {
                let error = self.mismatch(format!("no row is of the sample {key}"));
                return Err(error.with_remedy("add the row, or let samples without one be noted and have no label"));
            }
            seen.add(SAMPLES_UNMATCHED, key.as_bytes());
        }
        Ok(())
    }

    fn mismatch(&self, cause: String) -> Error {
        Error::new(ErrorKind::InvalidParameter, format!("labels {}: {cause}", self.path.display()))
    }

    /// The error of a row, by its number or line.
    fn bad_row(&self, row: u64, cause: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Corrupt, format!("labels {}, row {row}: {cause}", self.path.display()))
    }

    /// The error of a column that is not there, or not of a kind that is read.
    fn no_column(&self, name: &str, cause: &str, names: &[String]) -> Error {
        let error = self.mismatch(format!("{cause} \"{}\"", shortened(name)));
        let names: Vec<String> = names.iter().take(16).map(|name| shortened(name)).collect();
        error.with_remedy(format!("name two of its columns: {}", names.join(", ")))
    }
}

/// A table that is being read.
struct Joining<'a> {
    table: &'a LabelTable,
    source: &'a dyn Source,
    keys: Keys,
    assigned: Assigned,
    seen: Seen,
    /// Of the sample looked at.
    key: String,
}

/// A label as the table has it.
enum Cell<'a> {
    #[cfg_attr(not(feature = "parquet"), allow(dead_code, reason = "text has none"))]
    Number(i64),
    Text(&'a str),
}

impl Joining<'_> {
    /// Takes a row.
    fn take(&mut self, row: u64, key: &str, label: &Cell<'_>) -> Result<()> {
        let table = self.table;
        let value = self.assigned.value(label).map_err(|refused| match refused {
            assigned::Refused::Empty => table.bad_row(row, "the label is empty").with_remedy("write one in each row"),
            assigned::Refused::NoNumber => {
                let Cell::Text(text) = label else { return table.bad_row(row, "the label is of another kind") };
                let cause = format!("the label \"{}\" is no whole number, as those before it are", shortened(text));
                table.bad_row(row, cause).with_remedy("number all classes, or give all of them names")
            }
            assigned::Refused::TooMany => {
                let message = format!("labels {}, row {row}: more than a million classes", table.path.display());
                Error::new(ErrorKind::LimitExceeded, message).with_remedy("check that the column holds labels")
            }
        })?;
        let mut found = self.assign(key, value)?;
        if found == Found::Nothing && has_image_extension(key.as_bytes()) {
            let stem = without_extension(key.as_bytes()).len();
            found = self.assign(&key[..stem], value)?;
        }
        let (mismatch, reason, cause, remedy) = match found {
            Found::Sample => return Ok(()),
            Found::Nothing => (
                table.unmatched_rows,
                ROWS_UNMATCHED,
                "no sample has the key",
                "a key is the path below the data set's root; or let rows without a sample be noted and left out",
            ),
            Found::Labelled => (
                table.repeated,
                ROWS_REPEATED,
                "a row before it has the key too:",
                "keep one, or let others be noted and left out",
            ),
        };
        if mismatch == Mismatch::Fail {
            return Err(table.mismatch(format!("row {row}: {cause} {}", shortened(key))).with_remedy(remedy));
        }
        self.seen.add(reason, shortened(key).as_bytes());
        Ok(())
    }

    /// Gives a label to all samples of a key.
    fn assign(&mut self, key: &str, value: i64) -> Result<Found> {
        let mut found = Found::Nothing;
        for sample in self.keys.candidates(key) {
            // Its hash is that of the key; whether it has the key is to be seen.
            self.source.key(sample, &mut self.key)?;
            if self.key == key {
                let is_first = self.assigned.set(sample, value)?;
                found = if is_first { Found::Sample } else { Found::Labelled };
            }
        }
        Ok(found)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Sample,
    /// A sample that had a label by another row.
    Labelled,
}

/// The beginning of a text, for messages.
fn shortened(text: &str) -> String {
    let mut start: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        start.push_str("..");
    }
    start
}

/// A file that cannot be read.
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot read labels {}", path.display()), error)
        .with_remedy("check the name and that this user may read it")
}

/// A source whose labels are those of a table: made by [`LabelTable::join`].
pub struct Joined {
    source: Arc<dyn Source>,
    labels: assigned::Labels,
    classes: Vec<String>,
    notes: Vec<String>,
}

impl Joined {
    /// The source without these labels.
    pub fn inner(&self) -> &Arc<dyn Source> {
        &self.source
    }
}

impl Source for Joined {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        self.source.extent(sample)
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        self.source.object_path(object, path)
    }

    fn label(&self, sample: u64) -> Result<i64> {
        self.labels.at(sample).ok_or_else(|| super::names::out_of_range(sample, self.len()))
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        self.source.key(sample, key)
    }

    fn is_headerless(&self, sample: u64) -> Result<bool> {
        self.source.is_headerless(sample)
    }

    fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        self.source.record(sample)
    }

    fn columns(&self, sample: u64) -> Result<Option<Columns<'_>>> {
        self.source.columns(sample)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn shards(&self) -> Vec<StoredShard> {
        self.source.shards()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn index_fallbacks(&self) -> &[Fallback] {
        self.source.index_fallbacks()
    }
}
