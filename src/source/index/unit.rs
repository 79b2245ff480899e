//! The samples of one sidecar, listed anew, and their bytes, read in large pieces.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::identity::{Modified, modified, wait_out_tick};
use super::recorder::Origin;
use super::row::{Listed, refuse_flags};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::source::folder::Walked;
use crate::source::list;
use crate::source::open::FileSet;
use crate::source::tar::Shard;

/// Bytes of a shard that are read at once, unless one sample is larger.
const PIECE_BYTES: u64 = 4 << 20;

/// Samples of a chunk at most: enough that handing it on costs nothing, few enough that threads end together.
const CHUNK_SAMPLES: u64 = 64;

/// Where samples come from.
#[allow(clippy::large_enum_variant, reason = "there is one a shard")]
pub(super) enum Unit {
    Shard {
        shard: Shard,
        file: File,
        size_bytes: u64,
        modified: Modified,
    },
    /// A range of the samples of a folder or list.
    Files {
        files: Arc<Files>,
        samples: Range<u64>,
    },
}

/// A folder or list as listed anew.
pub(super) struct Files {
    root: PathBuf,
    pub listing: Listing,
}

pub(super) enum Listing {
    Folder(Walked),
    /// And length and time of the list file.
    List(list::Listing, u64, Modified),
}

impl Files {
    /// Lists them.
    ///
    /// # Errors
    /// As for opening the data set.
    pub(super) fn list(set: &FileSet) -> Result<Self> {
        Ok(match set {
            FileSet::Folder(root) => Self { root: root.clone(), listing: Listing::Folder(Walked::walk(root)?) },
            FileSet::List(path) => {
                let failed = |error| Error::io(format!("cannot read list {}", path.display()), error);
                let metadata = fs::metadata(path).map_err(failed)?;
                wait_out_tick(modified(&metadata));
                let listing = Listing::List(list::Listing::read(path)?, metadata.len(), modified(&metadata));
                Self { root: path.parent().unwrap_or(Path::new("")).to_owned(), listing }
            }
        })
    }

    /// A sample, with what the system says of its file now.
    pub(super) fn look_at(&self, sample: u64) -> Result<Listed<'static>> {
        let mut listed = self.listed(sample)?;
        look_at(&self.path(&listed), &mut listed)?;
        Ok(listed)
    }

    pub(super) fn len(&self) -> u64 {
        match &self.listing {
            Listing::Folder(walked) => walked.len(),
            Listing::List(listing, ..) => listing.len(),
        }
    }

    fn listed(&self, sample: u64) -> Result<Listed<'static>> {
        match &self.listing {
            Listing::Folder(walked) => walked.listed(sample),
            Listing::List(listing, ..) => listing.listed(sample),
        }
    }

    /// Where a file lies.
    fn path(&self, listed: &Listed<'_>) -> PathBuf {
        // An absolute path, which a list may hold, stays as it is.
        self.root.join(OsStr::from_bytes(&listed.path))
    }
}

impl Unit {
    /// Lists a shard.
    ///
    /// # Errors
    /// As for opening a data set of this shard.
    pub(super) fn of_shard(path: &Path) -> Result<Self> {
        let failed = |error| {
            let error = Error::io(format!("cannot open shard {}", path.display()), error);
            error.with_remedy("check the shard's name, that it is there, and that this user may read it")
        };
        let metadata = fs::metadata(path).map_err(failed)?;
        let identity = modified(&metadata);
        // So that what is written from here on shows in that time.
        wait_out_tick(identity);
        let shard = Shard::scan(path)?;
        let file = File::open(path).map_err(failed)?;
        let unit = Self::Shard { shard, file, size_bytes: metadata.len(), modified: identity };
        unit.check_unchanged()?;
        Ok(unit)
    }

    /// Refuses a shard that was written to since it was listed.
    ///
    /// # Errors
    /// `Changed`.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let Self::Shard { shard, file, size_bytes, modified: then } = self else { return Ok(()) };
        // The path and the open file: another one may have taken the name meanwhile.
        let is_same = |metadata: io::Result<Metadata>| {
            metadata.is_ok_and(|metadata| (metadata.len(), modified(&metadata)) == (*size_bytes, *then))
        };
        if is_same(file.metadata()) && is_same(fs::metadata(&shard.path)) {
            return Ok(());
        }
        let message = format!("shard {} was written to while it was read", shard.path.display());
        Err(Error::new(ErrorKind::Changed, message).with_remedy("wait until it is complete and start again"))
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Shard { shard, .. } => shard.keys.len(),
            Self::Files { samples, .. } => samples.end - samples.start,
        }
    }

    /// What the listing says of a sample; of a file, without what is learned when it is opened.
    pub(super) fn listed(&self, sample: u64) -> Result<Listed<'static>> {
        match self {
            Self::Shard { shard, .. } => shard.listed(sample),
            Self::Files { files, samples } => files.listed(samples.start + sample),
        }
    }

    /// Completes the listing of a file, if it can be had; reading it will tell why not.
    pub(super) fn complete(&self, listed: &mut Listed<'_>) {
        if let Self::Files { files, .. } = self {
            let _ = look_at(&files.path(listed), listed);
        }
    }

    /// Calls `find` with what tells a sample's bytes from others.
    pub(super) fn with_origin<T>(&self, listed: &Listed<'_>, find: impl FnOnce(&Origin<'_>) -> T) -> T {
        let Listed { offset, length: len_bytes, modified, .. } = *listed;
        match self {
            Self::Shard { shard, modified, .. } => {
                find(&Origin { path: &shard.path, offset, len_bytes, modified: *modified })
            }
            Self::Files { files, .. } => find(&Origin { path: &files.path(listed), offset, len_bytes, modified }),
        }
    }

    /// The name of a sample, for people: its key and where it lies.
    pub(super) fn name(&self, listed: &Listed<'_>) -> String {
        match self {
            Self::Shard { shard, .. } => format!("{} in {} at {}", listed.key, shard.path.display(), listed.offset),
            Self::Files { files, .. } => files.path(listed).display().to_string(),
        }
    }

    /// The end of a chunk from a sample on.
    pub(super) fn chunk_end(&self, from: u64) -> u64 {
        let end = self.len().min(from + CHUNK_SAMPLES);
        let Self::Shard { shard, .. } = self else { return end };
        let Some((start, _)) = shard.place(from) else { return from + 1 };
        let is_near = |sample: &u64| {
            shard.place(*sample).is_some_and(|(offset, len)| offset >= start && offset + len <= start + PIECE_BYTES)
        };
        (from + 1..end).take_while(is_near).last().map_or(from + 1, |last| last + 1)
    }
}

/// Reads samples; one a thread.
#[derive(Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    /// Where in the shard the buffer begins.
    start: u64,
}

impl Reader {
    /// Makes ready to read the samples of a chunk: of a shard, reads all that it covers.
    ///
    /// # Errors
    /// Those of a shard that cannot be read.
    pub(super) fn begin(&mut self, unit: &Unit, chunk: &Range<u64>) -> Result<()> {
        let Unit::Shard { shard, file, .. } = unit else { return Ok(()) };
        let fits = |(_, len): &(u64, u64)| *len <= Limits::default().max_bytes;
        let start = shard.place(chunk.start).map_or(0, |(offset, _)| offset);
        let end = shard.place(chunk.end - 1).filter(fits).map_or(start, |(offset, len)| offset + len);
        let len = (end - start) as usize;
        // Only grown: what was read before is overwritten, not cleared first.
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        // The piece behind it is fetched while this one is decoded. Advice: a refusal changes nothing.
        let _ = posix_fadvise(file, end as i64, PIECE_BYTES as i64, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        let failed = |error| Error::io(format!("cannot read shard {} at byte {start}", shard.path.display()), error);
        file.read_exact_at(&mut self.buffer[..len], start).map_err(failed)?;
        self.start = start;
        Ok(())
    }

    /// The bytes of a sample of the chunk that was begun. The listing of a file is completed.
    ///
    /// # Errors
    /// Of this sample.
    pub(super) fn bytes(&mut self, unit: &Unit, listed: &mut Listed<'_>) -> Result<&[u8]> {
        match unit {
            Unit::Shard { .. } => {
                if let Some(error) = refuse(listed) {
                    return Err(error);
                }
                Ok(&self.buffer[(listed.offset - self.start) as usize..][..listed.length as usize])
            }
            Unit::Files { files, .. } => {
                let path = files.path(listed);
                look_at(&path, listed)?;
                self.read_file(&path, listed)?;
                Ok(&self.buffer)
            }
        }
    }

    fn read_file(&mut self, path: &Path, listed: &Listed<'_>) -> Result<()> {
        let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
        Limits::default().check_bytes(listed.length)?;
        let file = File::open(path).map_err(failed)?;
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
        self.buffer.clear();
        // One byte more than it should have shows whether it grew.
        io::Read::read_to_end(&mut io::Read::take(&file, listed.length + 1), &mut self.buffer).map_err(failed)?;
        let now = file.metadata().map_err(failed)?;
        if self.buffer.len() as u64 != listed.length || (now.len(), modified(&now)) != (listed.length, listed.modified)
        {
            let error = Error::new(ErrorKind::Changed, format!("{} was written to while it was read", path.display()));
            return Err(error.with_remedy("wait until it is complete and start again"));
        }
        Ok(())
    }
}

/// Completes the listing of a file by what the system says of it.
fn look_at(path: &Path, listed: &mut Listed<'_>) -> Result<()> {
    let metadata = fs::metadata(path).map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::Unsupported, format!("{} is no file", path.display())));
    }
    listed.length = metadata.len();
    listed.modified = modified(&metadata);
    Ok(())
}

/// Why the bytes of a sample of a shard are not looked at.
fn refuse(listed: &Listed<'_>) -> Option<Error> {
    let unsupported = |(cause, remedy)| Error::new(ErrorKind::Unsupported, cause).with_remedy(remedy);
    refuse_flags(listed.flags).map(unsupported).or_else(|| Limits::default().check_bytes(listed.length).err())
}
