//! What a sidecar says of itself and of its data set: JSON in the metadata of the Arrow schema.

use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::describe::Format;
use super::identity::Modified;
use super::schema::{FORMAT_VERSION, ROWS_PER_BATCH};
use super::{is_as_written, stale};
use crate::error::{Error, Result};
use crate::jpeg::Grain;
use crate::source::notes::Seen;

/// The keys of the schema's metadata: the head, and its XXH3-64 in hexadecimal.
const KEYS: [&str; 2] = ["forebay", "forebay.checksum"];

/// How versions that knew no raw pixels said that they had passed over what was no image.
const BEFORE_RAW: [&str; 2] =
    ["files that are no .jpg, .jpeg, .png or .webp left out", "keys without a .jpg, .jpeg, .png or .webp left out"];

/// What the data set is that a sidecar lies beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DataKind {
    /// A tar shard.
    Tar,
    /// A folder, or a part of its samples.
    Folder,
    /// A list file, or a part of its samples.
    List,
}

/// Everything that holds for all rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// The version of this crate that wrote it.
    pub forebay: String,
    pub kind: DataKind,
    /// Bits between entry points, or "rows".
    pub grain: String,
    /// Which part of the data set this is, and of how many.
    pub part: u64,
    pub parts: u64,
    /// The number of the first row's sample, and samples of all parts.
    pub first: u64,
    pub total: u64,
    /// Rows of this file, and of each record batch but the last.
    pub rows: u64,
    pub rows_per_batch: u64,
    /// Of the tar shard or list file.
    pub size_bytes: u64,
    pub modified: Modified,
    /// Every folder of a data set of kind folder, relative to it and escaped, and when it last changed. As
    /// long as none did, no file came or went.
    pub folders: Vec<(String, Modified)>,
    /// Class names by label.
    pub classes: Vec<String>,
    /// What listing saw and left out.
    pub seen: Seen,
    /// What the numbers in the columns `format` and `colour` mean.
    pub formats: Vec<String>,
    pub colours: Vec<String>,
}

impl Head {
    /// The schema's metadata, and the seed of every checksum in the file.
    pub(super) fn write(&self) -> Result<([(String, String); 2], u64)> {
        let text = serde_json::to_string(self)
            .map_err(|error| Error::new(crate::ErrorKind::Internal, format!("writing an index's head: {error}")))?;
        let checksum = xxh3_64(text.as_bytes());
        Ok(([(KEYS[0].into(), text), (KEYS[1].into(), format!("{checksum:016x}"))], checksum))
    }

    /// Reads it from the metadata of a file's schema.
    pub(super) fn read(path: &Path, schema: &arrow_ipc::Schema<'_>) -> Result<(Self, u64)> {
        let pairs = schema.custom_metadata();
        let value = |key| pairs.iter().flatten().find(|pair| pair.key() == Some(key)).and_then(|pair| pair.value());
        let (Some(text), Some(written)) = (value(KEYS[0]), value(KEYS[1])) else {
            return Err(stale(path, "it is an Arrow file without the metadata of an index"));
        };
        // The version is looked at first: another one may have written other fields.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
            forebay: String,
        }
        let version: Version =
            serde_json::from_str(text).map_err(|error| stale(path, &format!("its head is damaged: {error}")))?;
        if version.format != FORMAT_VERSION {
            let cause = format!(
                "it was written by forebay {} in format {}, and this is forebay {}, which reads format {FORMAT_VERSION}",
                version.forebay,
                version.format,
                env!("CARGO_PKG_VERSION"),
            );
            return Err(stale(path, &cause));
        }
        let checksum = xxh3_64(text.as_bytes());
        if !u64::from_str_radix(written, 16).is_ok_and(|written| is_as_written(checksum, written)) {
            return Err(stale(path, "its head is damaged: the checksum is another"));
        }
        let head: Self =
            serde_json::from_str(text).map_err(|error| stale(path, &format!("its head is damaged: {error}")))?;
        head.check(path)?;
        Ok((head, checksum))
    }

    fn check(&self, path: &Path) -> Result<()> {
        // Which is all that a version has to have changed that lists files which others passed over.
        if self.formats.len() <= Format::Unknown as usize + 1 && BEFORE_RAW.iter().any(|reason| self.seen.has(reason)) {
            return Err(stale(
                path,
                "it is older than .npy, .raw and .bin as images, and passed files over that may be such",
            ));
        }
        let is_sound = self.part < self.parts
            && self.first.checked_add(self.rows).is_some_and(|end| end <= self.total)
            && (1..=ROWS_PER_BATCH).contains(&self.rows_per_batch);
        if is_sound { Ok(()) } else { Err(stale(path, "its head contradicts itself")) }
    }
}

/// The grain that a head names.
pub(super) fn parse_grain(name: &str) -> Option<Grain> {
    if name == "rows" { Some(Grain::Rows) } else { name.parse().ok().map(Grain::Bits) }
}

/// Bytes as text from which they can be had back: what is no UTF-8, and "%", as `%` and two digits.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02x}")));
    }
    text
}

/// The bytes that [`escape`] made a text of.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        if byte == b'%' {
            let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &behind[2..];
        } else {
            bytes.push(byte);
            rest = behind;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_being_text() {
        for name in [&b"cl\xe4ss/\xff\xfe"[..], b"100%", b"%41", "bär".as_bytes(), b""] {
            assert_eq!(unescape(&escape(name)).as_deref(), Some(name));
        }
        for bad in ["%", "%4", "%zz", "a%\u{e4}"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
