//! What a row says: its numbers put together and checked against its checksums.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::describe::{COLOURS, Described, Format};
use super::head::DataKind;
use super::identity::Modified;
use super::map::{Row, Sidecar};
use super::schema::Column;
use super::{Record, RecordedImage, RecordedJpeg, is_as_written};
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::{ColourModel, EntryPoints, Facts};
use crate::raw;
use crate::source::labels::Label;
use crate::source::{Form, UNLABELLED, without_extension};

/// Bits of the column `flags`.
const NO_LABEL: u8 = 1;
const UNREADABLE_LABEL: u8 = 2;
/// The image is stored sparsely in its shard, so that its bytes do not lie in one piece.
pub(crate) const SPARSE: u8 = 4;
/// The image has 4 GiB or more.
pub(crate) const TOO_LONG: u8 = 8;

/// The sample is raw pixels without a header, whose shape no index knows.
pub(crate) const HEADERLESS: u8 = 16;

/// The flags of listing that are no label's.
const LISTING_FLAGS: u8 = SPARSE | TOO_LONG | HEADERLESS;

/// The numbers of a row from `label` to `flags`, and from `format` to `data_checksum`.
pub(super) type ListingNumbers = [u64; 6];
pub(super) type RecordNumbers = [u64; 14];

/// What listing the data says of a sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed<'a> {
    pub key: Cow<'a, str>,
    /// Below the root and with its extension; empty in tar shards.
    pub path: Cow<'a, [u8]>,
    pub label: Label,
    /// Where the sample begins in its object, and its bytes.
    pub offset: u64,
    pub length: u64,
    /// Of the sample's own file; zeros in tar shards.
    pub modified: Modified,
    /// [`SPARSE`] or [`TOO_LONG`], and [`HEADERLESS`].
    pub flags: u8,
}

impl Listed<'_> {
    /// A sample that is a file of its own, but for what is learned when it is opened.
    pub(crate) fn of_file(path: Vec<u8>, label: i64) -> Self {
        let key = String::from_utf8_lossy(without_extension(&path)).into_owned();
        let label = if label == UNLABELLED { Label::Missing } else { Label::Is(label) };
        let flags = if Form::of(&path) == Some(Form::Headerless) { HEADERLESS } else { 0 };
        Self { key: key.into(), path: path.into(), label, offset: 0, length: 0, modified: (0, 0), flags }
    }

    /// Whether it is raw pixels without a header.
    pub(super) fn is_headerless(&self) -> bool {
        self.flags & HEADERLESS != 0
    }

    pub(super) fn numbers(&self) -> ListingNumbers {
        let (label, flag) = match self.label {
            Label::Is(label) => (label, 0),
            Label::Missing => (0, NO_LABEL),
            Label::Unreadable => (0, UNREADABLE_LABEL),
        };
        let (seconds, nanoseconds) = self.modified;
        let flags = self.flags | flag;
        [label as u64, self.offset, self.length, seconds as u64, nanoseconds.into(), flags.into()]
    }

    pub(super) fn checksum(&self, seed: u64) -> u64 {
        checksum(seed, &self.numbers(), [self.key.as_bytes(), &self.path])
    }
}

impl Described {
    /// The numbers of the record, given the rows of the file that hold the tables.
    pub(super) fn numbers(&self, quant_row: u64, huffman_row: u64) -> RecordNumbers {
        let colour = COLOURS.iter().position(|(colour, _)| Some(*colour) == self.colour).unwrap_or(0);
        let facts = self.facts.as_ref();
        let fact = |of: fn(&Facts) -> u64| facts.map_or(0, of);
        let sampling = |facts: &Facts| facts.sampling.iter().fold(0, |all, (h, v)| with_digit(with_digit(all, *h), *v));
        let slots = |facts: &Facts| facts.slots.iter().flatten().fold(0, |all, slot| with_digit(all, *slot));
        [
            self.format as u64,
            self.width.into(),
            self.height.into(),
            self.orientation.into(),
            self.components.into(),
            colour as u64,
            fact(sampling),
            fact(slots),
            fact(|facts| facts.restart_interval.into()),
            self.raw.map_or(fact(|facts| facts.scan_offset), |raw| raw.offset),
            self.raw.map_or(fact(|facts| facts.scan_bytes), |raw| raw.shape.len_bytes()),
            quant_row,
            huffman_row,
            self.data_checksum,
        ]
    }
}

/// Chains XXH3-64 over the strings and the numbers of a row.
pub(super) fn checksum<const STRINGS: usize>(seed: u64, numbers: &[u64], strings: [&[u8]; STRINGS]) -> u64 {
    let numbers_hash = numbers.iter().fold(seed, |hash, number| xxh3_64_with_seed(&number.to_le_bytes(), hash));
    strings.iter().fold(numbers_hash, |hash, string| xxh3_64_with_seed(string, hash))
}

/// Small numbers, up to 9, as the digits of one that people can read.
fn with_digit(digits: u64, next: u8) -> u64 {
    10 * digits + u64::from(next)
}

/// A digit by its place from the right.
fn digit(digits: u64, place: u32) -> u8 {
    (digits / 10u64.pow(place) % 10) as u8
}

impl Sidecar {
    /// What the listing said of a sample.
    ///
    /// # Errors
    /// `IndexStale` if the row is not as it was written.
    pub(in crate::source) fn listed(&self, row: u64) -> Result<Listed<'_>> {
        self.row(row)?.listed().map(|(listed, _)| listed)
    }

    /// What the index says of a sample, where it is a baseline JPEG or raw pixels without a fault.
    ///
    /// # Errors
    /// `IndexStale` if the row is not as it was written.
    pub(in crate::source) fn record(&self, row: u64) -> Result<Option<Record<'_>>> {
        let row = self.row(row)?;
        let (listed, listing_checksum) = row.listed()?;
        let stored = row.stored(listing_checksum)?;
        let image = stored.image(listed.length).map_err(|error| row.damaged_by(&error))?;
        let Some(image) = image else { return Ok(None) };
        let (object_bytes, modified) = match self.head.kind {
            DataKind::Tar => (self.head.size_bytes, self.head.modified),
            _ => (listed.length, listed.modified),
        };
        Ok(Some(Record { image, len_bytes: listed.length, object_bytes, modified: Some(modified) }))
    }

    /// The whole of a row, to be written again or compared.
    ///
    /// # Errors
    /// `IndexStale` if the row is not as it was written.
    pub(super) fn described(&self, row: u64) -> Result<Described> {
        let row = self.row(row)?;
        let (_, listing_checksum) = row.listed()?;
        row.stored(listing_checksum)?.described().map_err(|error| row.damaged_by(&error))
    }
}

/// The columns of a row's record.
pub(super) struct Stored<'a> {
    pub numbers: RecordNumbers,
    pub cause: &'a [u8],
    pub quant: &'a [u8],
    pub huffman: &'a [u8],
    pub entries: &'a [u8],
}

impl<'a> Row<'a> {
    /// What the listing said, and its checksum.
    pub(super) fn listed(&self) -> Result<(Listed<'a>, u64)> {
        let (key, path) = (self.bytes(Column::Key)?, self.bytes(Column::Path)?);
        let numbers: ListingNumbers = self.numbers(Column::Label);
        let checksum = checksum(self.seed(), &numbers, [key, path]);
        if !is_as_written(checksum, self.number(Column::ListingChecksum)) {
            return Err(self.file.damaged(self.number, "what it says of the sample's place has another checksum"));
        }
        let [label, offset, length, seconds, nanoseconds, flags] = numbers;
        let flags = flags as u8;
        let (is_refused, head) = (flags & (SPARSE | TOO_LONG) != 0, &self.file.head);
        let is_inside = offset.checked_add(length).is_some_and(|end| end <= head.size_bytes);
        if head.kind == DataKind::Tar && !is_refused && !is_inside {
            return Err(self.file.damaged(self.number, "the sample lies outside of its shard"));
        }
        let label = match flags & (NO_LABEL | UNREADABLE_LABEL) {
            0 => Label::Is(label as i64),
            NO_LABEL => Label::Missing,
            _ => Label::Unreadable,
        };
        let listed = Listed {
            key: String::from_utf8_lossy(key),
            path: Cow::Borrowed(path),
            label,
            offset,
            length,
            modified: (seconds as i64, nanoseconds as u32),
            flags: flags & LISTING_FLAGS,
        };
        Ok((listed, checksum))
    }

    /// Binds a row to its place in its file.
    fn seed(&self) -> u64 {
        row_seed(self.file.seed, self.number)
    }

    /// What it says of the image.
    pub(super) fn stored(&self, listing_checksum: u64) -> Result<Stored<'a>> {
        let numbers: RecordNumbers = self.numbers(Column::Format);
        let cause = self.bytes(Column::Cause)?;
        let [.., quant_row, huffman_row, _] = numbers;
        let quant = self.file.row(quant_row)?.bytes(Column::Quant)?;
        let huffman = self.file.row(huffman_row)?.bytes(Column::Huffman)?;
        let entries = self.bytes(Column::Entries)?;
        let checksum = checksum(listing_checksum, &numbers, [cause, quant, huffman, entries]);
        if !is_as_written(checksum, self.number(Column::RecordChecksum)) {
            return Err(self.file.damaged(self.number, "what it says of the image has another checksum"));
        }
        Ok(Stored { numbers, cause, quant, huffman, entries })
    }

    /// The error of a row whose checksums are right and whose numbers are not.
    fn damaged_by(&self, error: &Error) -> Error {
        self.file.damaged(self.number, &error.to_string())
    }

    fn numbers<const N: usize>(&self, first: Column) -> [u64; N] {
        std::array::from_fn(|index| self.number_of(first as usize + index))
    }
}

/// The seed of a row's checksums.
pub(super) fn row_seed(file_seed: u64, row: u64) -> u64 {
    file_seed ^ row
}

impl<'a> Stored<'a> {
    /// What can be decoded in part of a sample of `len_bytes`, checked.
    fn image(&self, len_bytes: u64) -> Result<Option<RecordedImage<'a>>> {
        if let Some(facts) = self.raw() {
            facts.check(len_bytes)?;
            return Ok(Some(RecordedImage::Raw(facts)));
        }
        let Some(facts) = self.facts()? else { return Ok(None) };
        // In a shard, what lies behind a sample is another one's bytes.
        if facts.scan_offset + facts.scan_bytes > len_bytes {
            return Err(Error::new(ErrorKind::IndexStale, "the scan ends behind its sample"));
        }
        let Self { quant, huffman, entries, .. } = *self;
        Ok(Some(RecordedImage::Jpeg(RecordedJpeg { facts, entries: EntryPoints::new(entries), quant, huffman })))
    }

    /// All of it, to be written again or compared.
    ///
    /// # Errors
    /// As for its facts.
    pub(super) fn described(&self) -> Result<Described> {
        let [format, width, height, orientation, components, colour, .., data_checksum] = self.numbers;
        let has_colour = components > 0 && format != Format::Raw as u64;
        Ok(Described {
            format: Format::ALL.get(format as usize).copied().unwrap_or_default(),
            cause: String::from_utf8_lossy(self.cause).into_owned(),
            width: width as u32,
            height: height as u32,
            orientation: orientation as u8,
            components: components as u8,
            colour: COLOURS.get(colour as usize).filter(|_| has_colour).map(|(colour, _)| *colour),
            facts: self.facts()?,
            raw: self.raw(),
            quant: self.quant.to_vec(),
            huffman: self.huffman.to_vec(),
            entries: self.entries.to_vec(),
            data_checksum,
        })
    }

    /// The facts of an image that has entry points, checked.
    fn facts(&self) -> Result<Option<Facts>> {
        let [format, width, height, orientation, _, colour, sampling, slots, restart, scan_offset, scan_bytes, ..] =
            self.numbers;
        if format != Format::Baseline as u64 || !self.cause.is_empty() {
            return Ok(None);
        }
        let facts = Facts {
            width: width as u32,
            height: height as u32,
            colour: COLOURS.get(colour as usize).map_or(ColourModel::Unknown, |(colour, _)| *colour),
            sampling: [0, 1, 2].map(|i| (digit(sampling, 5 - 2 * i), digit(sampling, 4 - 2 * i))),
            slots: [0, 1, 2].map(|i| [0, 1, 2].map(|j| digit(slots, 8 - 3 * i - j))),
            restart_interval: restart as u16,
            orientation: orientation as u8,
            scan_offset,
            scan_bytes,
        };
        facts.check()?;
        Ok(Some(facts))
    }

    /// Where raw pixels lie, not checked; none of an image whose shape its bytes do not tell.
    fn raw(&self) -> Option<raw::Facts> {
        let [format, width, height, _, channels, .., scan_offset, _, _, _, _] = self.numbers;
        let is_known = format == Format::Raw as u64 && self.cause.is_empty() && channels > 0;
        let shape = raw::Shape { height: height as u32, width: width as u32, channels: channels as u8 };
        is_known.then_some(raw::Facts { shape, offset: scan_offset })
    }
}

/// The error of a sample whose extent makes no sense, as the listing found it.
pub(in crate::source) fn refuse_flags(flags: u8) -> Option<(&'static str, &'static str)> {
    match flags & !HEADERLESS {
        0 => None,
        SPARSE => Some(("the image is stored sparsely", "pack the shard without --sparse")),
        _ => Some(("the image has 4 GiB or more", "images of under 4 GiB can be read")),
    }
}
