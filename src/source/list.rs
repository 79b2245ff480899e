//! A text file that lists images.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::index::{Listed, Set, fallback, settle};
use super::labels::{Label, Labels};
use super::names::{Names, out_of_range};
use super::notes::Seen;
use super::{
    Columns, Extent, Form, IndexMode, IndexOptions, Record, Source, UNLABELLED, has_image_extension, refill_key,
    refill_path, without_current_folder, without_extension,
};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

/// The longest line that is read, beyond any path that a system takes.
const LINE_MAX_BYTES: u64 = 64 << 10;

const COLUMN_NAMES: &str = "lines of column names skipped";

/// Images listed in a text file, one a line, in the order of the lines.
///
/// A line is a path, and behind it a label if there is one: an integer behind a tab, a comma, or the
/// last blank. Paths are relative to the list's folder, or absolute. Empty lines and lines that begin
/// with `#` are skipped; so is the first line of a `.csv` or `.tsv` if it names the columns. A path may
/// stand in double quotes, and may come more than once.
///
/// The files are not looked at: one that does not exist is an error of its sample.
pub struct List {
    /// The list's folder, with a slash at its end.
    root: Vec<u8>,
    lines: Lines,
    notes: Vec<String>,
    fallbacks: Vec<Fallback>,
}

/// Where paths and labels come from.
enum Lines {
    Listed(Listing),
    Indexed(Set),
}

/// What the lines of a list say.
#[derive(Default)]
pub(super) struct Listing {
    /// Paths as listed.
    paths: Names,
    labels: Labels,
    pub seen: Seen,
}

impl List {
    /// Reads a list.
    ///
    /// # Errors
    /// `NotFound` or `Io` if it cannot be read, `Corrupt` with the number of a line that makes no sense,
    /// `EmptyDataset` if it lists nothing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &IndexOptions { mode: IndexMode::Off, dir: None })
    }

    /// Takes what an index says, if there is one that fits, and does not read the list; else as
    /// [`open`](Self::open).
    ///
    /// # Errors
    /// As `open`; `IndexStale` or `NotFound` where an index is [required](IndexMode::Required).
    pub fn open_with(path: impl AsRef<Path>, options: &IndexOptions) -> Result<Self> {
        let path = path.as_ref();
        let (indexed, unfit) = settle(options, path, |dir| Set::of_list(path, dir))?;
        let root = root_of(path);
        if let Some(set) = indexed {
            let notes = set.notes();
            return Ok(Self { root, lines: Lines::Indexed(set), notes, fallbacks: Vec::new() });
        }
        let listing = Listing::read(path)?;
        let fallbacks = fallback(unfit.into_iter().collect(), listing.len());
        let notes = listing.seen.lines();
        Ok(Self { root, lines: Lines::Listed(listing), notes, fallbacks })
    }

    fn path(&self, sample: u64, bytes: &mut Vec<u8>) -> Result<()> {
        match &self.lines {
            Lines::Listed(listing) => listing.paths.append(sample, bytes),
            Lines::Indexed(set) => set.path(sample, bytes),
        }
    }
}

/// The folder that the paths of a list are relative to, with a slash at its end.
fn root_of(list: &Path) -> Vec<u8> {
    let root = list.parent().unwrap_or(Path::new(""));
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    root.join("").as_os_str().as_bytes().to_vec()
}

impl Listing {
    /// Reads a list.
    ///
    /// # Errors
    /// As [`List::open`].
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |error| {
            let error = Error::io(format!("cannot read list {}", path.display()), error);
            error.with_remedy("check the name and that this user may read it")
        };
        let mut reader = BufReader::new(File::open(path).map_err(failed)?);
        let mut list = Self::default();
        let mut line = Vec::new();
        for number in 1u64.. {
            line.clear();
            let read = reader.by_ref().take(LINE_MAX_BYTES + 1).read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                break;
            }
            if number == 1 && line.starts_with(b"\xef\xbb\xbf") {
                line.drain(..3);
            }
            if number == 1 && is_table(path) && names_columns(&line) {
                list.seen.add(COLUMN_NAMES, line.trim_ascii());
                continue;
            }
            let sample = parse(&line).map_err(|malformed| bad_line(path, number, &line, malformed))?;
            if let Some((path, label)) = sample {
                list.paths.push(without_current_folder(path));
                list.labels.push(label);
            }
        }
        list.paths.shrink();
        list.labels.shrink();
        if list.paths.len() == 0 {
            let message = format!("list {} names no image", path.display());
            return Err(Error::new(ErrorKind::EmptyDataset, message).with_remedy("write one path and label a line"));
        }
        Ok(list)
    }

    pub fn len(&self) -> u64 {
        self.paths.len()
    }

    /// A sample, but for what is learned when its file is opened.
    pub fn listed(&self, sample: u64) -> Result<Listed<'static>> {
        let mut path = Vec::new();
        self.paths.append(sample, &mut path)?;
        Ok(Listed::of_file(path, self.label(sample)))
    }

    fn label(&self, sample: u64) -> i64 {
        self.labels.label(sample).unwrap_or(UNLABELLED)
    }
}

impl Source for List {
    fn len(&self) -> u64 {
        match &self.lines {
            Lines::Listed(listing) => listing.len(),
            Lines::Indexed(set) => set.len(),
        }
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        if sample < self.len() { Ok(Extent::Object(sample)) } else { Err(out_of_range(sample, self.len())) }
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        refill_path(path, |bytes| {
            bytes.extend_from_slice(&self.root);
            self.path(object, bytes)?;
            if bytes.get(self.root.len()) == Some(&b'/') {
                bytes.drain(..self.root.len());
            }
            Ok(())
        })
    }

    fn label(&self, sample: u64) -> Result<i64> {
        if sample >= self.len() {
            return Err(out_of_range(sample, self.len()));
        }
        match &self.lines {
            Lines::Listed(listing) => Ok(listing.label(sample)),
            Lines::Indexed(set) => set.label(sample),
        }
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        refill_key(key, |bytes| {
            self.path(sample, bytes)?;
            bytes.truncate(without_extension(bytes).len());
            Ok(())
        })
    }

    fn is_headerless(&self, sample: u64) -> Result<bool> {
        let mut path = Vec::new();
        self.path(sample, &mut path)?;
        Ok(Form::of(&path) == Some(Form::Headerless))
    }

    fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        match &self.lines {
            Lines::Listed(_) => Ok(None),
            Lines::Indexed(set) => set.record(sample),
        }
    }

    fn columns(&self, sample: u64) -> Result<Option<Columns<'_>>> {
        match &self.lines {
            Lines::Listed(_) => Ok(None),
            Lines::Indexed(set) => set.columns(sample),
        }
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn index_fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
enum Malformed {
    Label,
    Columns,
    Nul,
    TooLong,
}

/// The path and label of a line, if it has any.
fn parse(line: &[u8]) -> Result<Option<(&[u8], Label)>, Malformed> {
    if line.len() as u64 > LINE_MAX_BYTES {
        return Err(Malformed::TooLong);
    }
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    if line.contains(&0) {
        return Err(Malformed::Nul);
    }
    if line.iter().filter(|&&byte| byte == b'\t').count() > 1 {
        return Err(Malformed::Columns);
    }
    let splits = || b"\t, ".iter().filter_map(|&separator| split_last(line, separator));
    if let Some((before, label)) = splits().find_map(|(before, behind)| Some((before, integer(behind)?))) {
        return Ok(Some((unquoted(before), Label::Is(label))));
    }
    // What follows an image or a tab was meant to be a label.
    let is_image = |path| has_image_extension(unquoted(path));
    if line.contains(&b'\t') || !is_image(line) && splits().any(|(before, _)| is_image(before)) {
        return Err(Malformed::Label);
    }
    Ok(Some((unquoted(line), Label::Missing)))
}

fn split_last(line: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(separator, line)?;
    let (before, behind) = (line[..at].trim_ascii(), line[at + 1..].trim_ascii());
    (!before.is_empty()).then_some((before, behind))
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn unquoted(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"\"").and_then(|path| path.strip_suffix(b"\"")).unwrap_or(path)
}

/// Whether the first line of a table names its columns: no field is an image, the last no label.
fn names_columns(line: &[u8]) -> bool {
    let mut fields = line.trim_ascii().split(|byte| b"\t,".contains(byte)).map(|field| unquoted(field.trim_ascii()));
    let is_label = fields.next_back().is_some_and(|field| field.is_empty() || integer(field).is_some());
    let has_image =
        line.split(|byte| b"\t,".contains(byte)).any(|field| has_image_extension(unquoted(field.trim_ascii())));
    !is_label && !has_image && !line.starts_with(b"#")
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["csv", "tsv"].iter().any(|table| extension.eq_ignore_ascii_case(table)))
}

fn bad_line(list: &Path, number: u64, line: &[u8], malformed: Malformed) -> Error {
    let start = String::from_utf8_lossy(&line[..line.len().min(80)]);
    let (cause, remedy) = match malformed {
        Malformed::Label => ("the label is no integer", "number the classes from 0"),
        Malformed::Columns => ("more than two columns", "keep the path and the label, with one tab between them"),
        Malformed::Nul => ("a NUL byte", "check that the file is a text file"),
        Malformed::TooLong => ("over 64 KiB", "check that the file is a text file"),
    };
    let message = format!("list {}, line {number}: {cause}: \"{}\"", list.display(), start.trim_end());
    Error::new(ErrorKind::Corrupt, message).with_remedy(format!("{remedy}; a line is a path, then a label or none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_a_path_and_perhaps_a_label() {
        let cases: [(&str, &str, Label); 12] = [
            ("a.jpg\t3", "a.jpg", Label::Is(3)),
            ("a.jpg,3\r\n", "a.jpg", Label::Is(3)),
            ("a.jpg 3", "a.jpg", Label::Is(3)),
            ("  a b.jpg   -1  ", "a b.jpg", Label::Is(-1)),
            ("a, b.jpg", "a, b.jpg", Label::Missing),
            ("a b.jpg", "a b.jpg", Label::Missing),
            ("a,b c.jpg\t7", "a,b c.jpg", Label::Is(7)),
            ("\"a,b.jpg\",7", "a,b.jpg", Label::Is(7)),
            ("\"a 1\"", "a 1", Label::Missing),
            ("noextension 12", "noextension", Label::Is(12)),
            ("12", "12", Label::Missing),
            ("/abs/a.png, 0", "/abs/a.png", Label::Is(0)),
        ];
        for (line, path, label) in cases {
            assert_eq!(parse(line.as_bytes()), Ok(Some((path.as_bytes(), label))), "{line:?}");
        }
        for line in ["", "  \r\n", "# a.jpg 3"] {
            assert_eq!(parse(line.as_bytes()), Ok(None), "{line:?}");
        }
        for (line, malformed) in [
            ("a.jpg dog", Malformed::Label),
            ("a.jpg,1.5", Malformed::Label),
            ("a\tb", Malformed::Label),
            ("0\t5\ta.jpg", Malformed::Columns),
            ("a\0.jpg", Malformed::Nul),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(malformed), "{line:?}");
        }
    }

    #[test]
    fn column_names_are_told_from_samples() {
        for (line, expected) in
            [("path,label", true), ("image", true), ("a.jpg,3", false), ("x,3", false), ("a.jpg", false), ("", false)]
        {
            assert_eq!(names_columns(line.as_bytes()), expected, "{line}");
        }
    }
}
