//! The entries of one archive, read through their headers alone.
//!
//! Our own reader rather than a library's: opening reads some 4 KiB an entry and skips the data; nothing
//! is allocated from a size that the archive declares beyond [`EXTENSION_MAX_BYTES`]; and every way in
//! which an archive can end too early is told from its proper end, with the byte where it happened.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::header::{BLOCK_LEN_BYTES, Header, until_nul};
use crate::error::{Error, ErrorKind, Result};

/// The longest name or set of PAX records that is read.
pub(super) const EXTENSION_MAX_BYTES: u64 = 1 << 20;

/// Bytes read at once. Images of 100 KB put a header with a label and the next header behind each; that
/// fits, with PAX headers too.
const WINDOW_LEN_BYTES: usize = 4096;

/// How far behind the end marker is looked for an archive that goes on.
const TAIL_MAX_BYTES: u64 = 1 << 20;

/// An open shard, and how far it has been read.
pub(super) struct Archive<'a> {
    path: &'a Path,
    file: File,
    len_bytes: u64,
    /// Where the next header is.
    at: u64,
    window: Vec<u8>,
    window_at: u64,
    end: Option<End>,
}

/// One entry.
pub(super) struct Entry {
    /// Its name as stored, however strange: it is a name for the sample and is never opened.
    pub name: Vec<u8>,
    pub kind: Kind,
    /// Where the header is.
    pub header_at: u64,
    /// Where the data is.
    pub offset: u64,
    /// Bytes of the data as stored.
    pub len_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// A file stored without its holes, so that its bytes do not lie in one piece.
    Sparse,
    Folder,
    Link,
    /// A device, a pipe, or something that only one program knows.
    Special,
}

/// How an archive ended, all its entries being whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With two blocks of zeros, as it should.
    Marked,
    /// The file ended behind an entry.
    Unmarked,
    /// With a marker, and more zeros behind it than are looked at.
    LongTail,
}

/// What extension headers say of the entry that follows them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    size_bytes: Option<u64>,
    is_sparse: bool,
    /// Where the first of them is.
    header_at: Option<u64>,
}

impl<'a> Archive<'a> {
    pub fn open(path: &'a Path) -> Result<Self> {
        let shard = || format!("shard {}", path.display());
        let failed = |error| {
            let error = Error::io(format!("cannot open {}", shard()), error);
            error.with_remedy("check the shard's name, that it is there, and that this user may read it")
        };
        // Before opening, which would wait for ever at a pipe.
        let metadata = fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            let message = format!("{} is not a file", shard());
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_remedy("shards are read at many places at once: store a pipe's or device's content in a file"));
        }
        let file = File::open(path).map_err(failed)?;
        let window = Vec::with_capacity(WINDOW_LEN_BYTES);
        let archive = Self { path, file, len_bytes: metadata.len(), at: 0, window, window_at: 0, end: None };
        if archive.len_bytes == 0 {
            return Err(archive.truncated(0, "the file is empty"));
        }
        Ok(archive)
    }

    /// How it ended, once [`next_entry`](Self::next_entry) has returned `None`.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The next entry, all of whose bytes are there, or `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extension = Extension::default();
        while self.end.is_none() {
            let header_at = self.at;
            let Some(header) = self.header()? else { break };
            match header.kind {
                b'x' | b'X' | b'g' | b'L' | b'K' => self.extend(header, header_at, &mut extension)?,
                _ => return self.entry(header, header_at, extension).map(Some),
            }
        }
        match extension.header_at {
            Some(at) => Err(self.truncated(at, "the archive ends between an extension header and its entry")),
            None => Ok(None),
        }
    }

    /// Reads data of an entry into `data`, whose length the caller has limited.
    pub fn read(&mut self, offset: u64, len_bytes: u64, data: &mut Vec<u8>) -> Result<()> {
        data.clear();
        while (data.len() as u64) < len_bytes {
            let wanted = (len_bytes - data.len() as u64).min(WINDOW_LEN_BYTES as u64) as usize;
            let piece = self.window(offset + data.len() as u64, wanted)?;
            if piece.is_empty() {
                return Err(self.truncated(offset, "the file became shorter while it was read"));
            }
            data.extend_from_slice(piece);
        }
        Ok(())
    }

    /// An error about what is at a byte of this shard.
    pub fn error(&self, kind: ErrorKind, at: u64, cause: &str) -> Error {
        Error::new(kind, format!("shard {}, at byte {at}: {cause}", self.path.display()))
    }

    /// The header at the current place, which is moved behind it; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        let at = self.at;
        if at == self.len_bytes {
            self.end = Some(End::Unmarked);
            return Ok(None);
        }
        let block: [u8; BLOCK_LEN_BYTES as usize] = match self.window(at, BLOCK_LEN_BYTES as usize)?.try_into() {
            Ok(block) => block,
            Err(_) => return Err(self.truncated(at, "the file ends inside a header")),
        };
        if is_zero(&block) {
            self.end = Some(self.check_end(at)?);
            return Ok(None);
        }
        self.at += BLOCK_LEN_BYTES;
        Header::parse(&block).map(Some).map_err(|cause| self.no_header(at, &block, cause))
    }

    /// Takes in an extension header for the entry to come.
    fn extend(&mut self, header: Header, header_at: u64, extension: &mut Extension) -> Result<()> {
        extension.header_at.get_or_insert(header_at);
        if header.size_bytes > EXTENSION_MAX_BYTES {
            let cause = format!("an extension header of {} bytes", header.size_bytes);
            return Err(self.error(ErrorKind::LimitExceeded, header_at, &cause).with_remedy(format!(
                "names and PAX records of over {EXTENSION_MAX_BYTES} bytes are not read: repack the shard"
            )));
        }
        let offset = self.at;
        self.skip(&header, header_at, header.size_bytes)?;
        let mut data = Vec::new();
        self.read(offset, header.size_bytes, &mut data)?;
        match header.kind {
            b'L' => extension.name = Some(until_nul(&data).to_vec()),
            // The target of a link, which is never followed.
            b'K' => {}
            kind => {
                let refused = extension.take_records(&data, kind == b'g');
                refused.map_err(|cause| self.error(ErrorKind::Corrupt, header_at, cause).with_remedy(REPACK))?;
            }
        }
        Ok(())
    }

    /// The entry of a header that is no extension; the current place is moved behind its data.
    fn entry(&mut self, header: Header, header_at: u64, extension: Extension) -> Result<Entry> {
        let mut kind = match header.kind {
            // A name that ends in a slash was a folder before folders had a kind.
            b'\0' if header.name.ends_with(b"/") => Kind::Folder,
            b'\0' | b'0' | b'7' => Kind::File,
            b'S' => Kind::Sparse,
            b'1' | b'2' => Kind::Link,
            b'5' => Kind::Folder,
            _ => Kind::Special,
        };
        if kind == Kind::File && extension.is_sparse {
            kind = Kind::Sparse;
        }
        if header.kind == b'S' && header.is_extended {
            self.skip_sparse_map(header_at)?;
        }
        // Links, folders and devices may declare a size and have no data; what only one program knows has.
        let has_data = kind != Kind::Folder && !matches!(header.kind, b'1'..=b'6');
        let len_bytes = if has_data { extension.size_bytes.unwrap_or(header.size_bytes) } else { 0 };
        let offset = self.at;
        self.skip(&header, header_at, len_bytes)?;
        Ok(Entry { name: extension.name.unwrap_or(header.name), kind, header_at, offset, len_bytes })
    }

    /// Moves behind data and its padding, which must be there.
    fn skip(&mut self, header: &Header, header_at: u64, len_bytes: u64) -> Result<()> {
        let end = len_bytes.checked_next_multiple_of(BLOCK_LEN_BYTES).and_then(|padded| self.at.checked_add(padded));
        match end {
            Some(end) if end <= self.len_bytes => {
                self.at = end;
                Ok(())
            }
            _ => {
                let name = String::from_utf8_lossy(&header.name);
                let left = self.len_bytes - self.at;
                let cause =
                    format!("entry \"{name}\" has {len_bytes} bytes, of which the file holds {left} with padding");
                Err(self.truncated(header_at, &cause))
            }
        }
    }

    /// Skips the blocks that continue an old GNU sparse header.
    fn skip_sparse_map(&mut self, header_at: u64) -> Result<()> {
        loop {
            let block = self.window(self.at, BLOCK_LEN_BYTES as usize)?;
            if block.len() < BLOCK_LEN_BYTES as usize {
                return Err(self.truncated(header_at, "the file ends inside a sparse entry's map"));
            }
            let goes_on = block[504] != 0;
            self.at += BLOCK_LEN_BYTES;
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// What follows a block of zeros at `at` must be zeros, or entries would be passed over in silence:
    /// a header was overwritten, or archives were joined.
    fn check_end(&mut self, at: u64) -> Result<End> {
        let second = at + BLOCK_LEN_BYTES;
        if second >= self.len_bytes {
            return Ok(End::Unmarked);
        }
        let looked_at = self.len_bytes.min(second + TAIL_MAX_BYTES);
        let mut from = second;
        while from < looked_at {
            let piece = self.window(from, WINDOW_LEN_BYTES.min((looked_at - from) as usize))?;
            if piece.is_empty() {
                break;
            }
            if let Some(other) = piece.iter().position(|&byte| byte != 0) {
                let cause = format!("the archive's end is marked, and more follows at byte {}", from + other as u64);
                return Err(self.error(ErrorKind::Corrupt, at, &cause).with_remedy(
                    "if archives were joined, repack them (`tar -A`, or unpack with `--ignore-zeros`); else copy the shard again",
                ));
            }
            from += piece.len() as u64;
        }
        Ok(if looked_at < self.len_bytes { End::LongTail } else { End::Marked })
    }

    /// Up to `len` bytes from `at`: fewer at the end of the file only.
    fn window(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        debug_assert!(len <= WINDOW_LEN_BYTES);
        let is_there = at >= self.window_at && at + len as u64 <= self.window_at + self.window.len() as u64;
        if !is_there {
            self.window.resize(WINDOW_LEN_BYTES, 0);
            let read = read_at(&self.file, &mut self.window, at);
            self.window.truncate(*read.as_ref().unwrap_or(&0));
            self.window_at = at;
            if let Err(error) = read {
                return Err(Error::io(format!("cannot read shard {} at byte {at}", self.path.display()), error));
            }
        }
        let start = (at - self.window_at) as usize;
        Ok(&self.window[start..self.window.len().min(start + len)])
    }

    fn truncated(&self, at: u64, cause: &str) -> Error {
        let cause = format!("{cause} (file length {})", self.len_bytes);
        self.error(ErrorKind::Truncated, at, &cause).with_remedy("copy or pack the shard again: its end is missing")
    }

    fn no_header(&self, at: u64, block: &[u8], cause: &str) -> Error {
        const COMPRESSED: [(&[u8], &str); 4] =
            [(b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ", "xz"), (b"BZh", "bzip2")];
        if at == 0 {
            if let Some((_, format)) = COMPRESSED.iter().find(|(magic, _)| block.starts_with(magic)) {
                let cause = format!("the shard is compressed with {format}");
                return self
                    .error(ErrorKind::Unsupported, at, &cause)
                    .with_remedy("decompress it: images hardly shrink, and samples could not be reached one by one");
            }
            return self
                .error(ErrorKind::Corrupt, at, &format!("no tar header: {cause}"))
                .with_remedy("check that the file is a tar archive");
        }
        self.error(ErrorKind::Corrupt, at, &format!("damaged header: {cause}")).with_remedy(REPACK)
    }
}

const REPACK: &str = "copy or pack the shard again: it is damaged there or at the entry before";

impl Extension {
    /// Takes in PAX records, each "LENGTH KEY=VALUE\n".
    fn take_records(&mut self, mut records: &[u8], is_global: bool) -> Result<(), &'static str> {
        const MALFORMED: &str = "a malformed PAX record";
        // Writers may pad with NULs.
        while !until_nul(records).is_empty() {
            let space = memchr::memchr(b' ', records).ok_or(MALFORMED)?;
            let len = parse_decimal(&records[..space]).ok_or(MALFORMED)?;
            let len = usize::try_from(len).map_err(|_| MALFORMED)?;
            let record = records.get(space + 1..len).and_then(|record| record.strip_suffix(b"\n")).ok_or(MALFORMED)?;
            let equals = memchr::memchr(b'=', record).ok_or(MALFORMED)?;
            self.take_record(&record[..equals], &record[equals + 1..], is_global)?;
            records = &records[len..];
        }
        Ok(())
    }

    fn take_record(&mut self, key: &[u8], value: &[u8], is_global: bool) -> Result<(), &'static str> {
        let is_sparse_name = key == b"GNU.sparse.name";
        if is_global {
            // All later entries would have to be of that one name or size.
            return if matches!(key, b"path" | b"size") {
                Err("a global PAX record of a name or size")
            } else {
                Ok(())
            };
        }
        if is_sparse_name || (key == b"path" && !self.is_sparse) {
            self.name = Some(value.to_vec());
        }
        if key == b"size" {
            self.size_bytes = Some(parse_decimal(value).ok_or("a PAX size that is no number")?);
        }
        self.is_sparse |= key.starts_with(b"GNU.sparse.");
        Ok(())
    }
}

fn parse_decimal(digits: &[u8]) -> Option<u64> {
    // The standard parser takes a sign, which neither field may have.
    if digits.first()?.is_ascii_digit() { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
