//! The archives of a data set, which appear under their names once all of them are whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use forebay::raw::npy;
use forebay::{Error, Result};

use super::archive::{Archive, name_blocks};
use super::layout::{Aligned, BLOCK_BYTES, Front, label_first};
use super::sample::Packed;

/// Where pixels start behind the header of their array: the rest of its block is filled, or of two where one block is
/// what is missing before them.
const ARRAY_LEADS_BYTES: &[u64] = &[512, 1024];

/// When a shard is full, and where in it images lie.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub shard_bytes: u64,
    pub shard_samples: u64,
    pub align_bytes: u64,
}

/// Takes samples in order and writes them to shards in a folder. Dropped before it is finished, it leaves nothing there.
pub struct Shards {
    dir: PathBuf,
    limits: Limits,
    open: Option<Open>,
    /// Files under their temporary names, and the names that they are to have.
    whole: Vec<(PathBuf, PathBuf)>,
    pub packed: Totals,
}

struct Open {
    archive: Archive<BufWriter<File>>,
    samples: u64,
}

/// What was packed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub samples: u64,
    pub shards: u64,
    /// Bytes of the samples as storage held them, of the images as they are packed, and of the shards.
    pub source_bytes: u64,
    pub image_bytes: u64,
    pub shard_bytes: u64,
    /// Bytes of the shards that only align images.
    pub padding_bytes: u64,
}

impl Shards {
    pub fn new(dir: &Path, limits: Limits) -> Self {
        Self { dir: dir.to_owned(), limits, open: None, whole: Vec::new(), packed: Totals::default() }
    }

    /// Writes a sample under a name.
    ///
    /// # Errors
    /// `Io` if it cannot be written.
    pub fn push(&mut self, name: &str, sample: &Packed) -> Result<()> {
        let image_name = format!("{name}.{}", sample.extension);
        let image = Aligned {
            record_blocks: name_blocks(&image_name),
            leads_bytes: if sample.shape.is_some() { ARRAY_LEADS_BYTES } else { &[0] },
            align_bytes: self.limits.align_bytes,
        };
        let label = sample.label.map(|label| (format!("{name}.cls"), label.to_string()));
        let label_blocks = label.as_ref().map_or(0, |(name, _)| name_blocks(name));
        let label_bytes = Front { record_blocks: label_blocks, lead_bytes: 0 }.header_bytes() + BLOCK_BYTES;
        let least = Front { record_blocks: image.record_blocks, lead_bytes: image.leads_bytes[0] };
        let image_bytes = sample.data.len() as u64;
        let padding_bytes_max = self.limits.align_bytes + BLOCK_BYTES;
        let unpadded_bytes = label_bytes + least.header_bytes() + least.lead_bytes + image_bytes;
        self.close_if_full((unpadded_bytes + padding_bytes_max).next_multiple_of(BLOCK_BYTES))?;
        let number = self.whole.len();
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let path = self.dir.join(format!("shard-{number:06}.tar"));
                let partial = partial_of(&path);
                let file = File::create_new(&partial).map_err(|error| cannot_write(&partial, error))?;
                self.whole.push((partial, path));
                let archive = Archive::new(BufWriter::with_capacity(1 << 20, file));
                self.open.insert(Open { archive, samples: 0 })
            }
        };
        let mut append = || {
            let archive = &mut open.archive;
            let is_first = label.is_some() && label_first(archive.len_bytes(), &image, image_bytes, label_bytes);
            let append_label = |archive: &mut Archive<_>| match &label {
                Some((name, text)) => archive.append(name, label_blocks, &[text.as_bytes()]),
                None => Ok(()),
            };
            if is_first {
                append_label(archive)?;
            }
            let front = image.front(archive.len_bytes());
            let header = match sample.shape {
                Some(shape) => npy::header(shape, front.lead_bytes as usize).map_err(io::Error::other)?,
                None => Vec::new(),
            };
            archive.append(&image_name, front.record_blocks, &[&header, &sample.data])?;
            if !is_first {
                append_label(archive)?;
            }
            let len_bytes = |front: Front| front.header_bytes() + front.lead_bytes;
            Ok(len_bytes(front) - len_bytes(least))
        };
        let padding_bytes = append().map_err(|error| cannot_write(&self.dir, error))?;
        open.samples += 1;
        self.packed.samples += 1;
        self.packed.source_bytes += sample.source_bytes;
        self.packed.image_bytes += image_bytes;
        self.packed.padding_bytes += padding_bytes;
        Ok(())
    }

    /// Completes the last shard, and gives all files their names.
    ///
    /// # Errors
    /// `Io` if that cannot be done.
    pub fn finish(&mut self, classes: &[String]) -> Result<()> {
        self.close()?;
        if !classes.is_empty() {
            let path = self.dir.join("classes.txt");
            let partial = partial_of(&path);
            let text: String = classes.iter().map(|class| format!("{class}\n")).collect();
            self.whole.push((partial.clone(), path));
            fs::write(&partial, text).map_err(|error| cannot_write(&partial, error))?;
        }
        for (partial, path) in &self.whole {
            fs::rename(partial, path).map_err(|error| cannot_write(path, error))?;
        }
        self.whole.clear();
        Ok(())
    }

    fn close_if_full(&mut self, next_bytes: u64) -> Result<()> {
        let is_full = self.open.as_ref().is_some_and(|open| {
            open.samples >= self.limits.shard_samples
                || open.archive.len_bytes() + next_bytes + 2 * BLOCK_BYTES > self.limits.shard_bytes
        });
        if is_full { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        let Some(Open { archive, .. }) = self.open.take() else { return Ok(()) };
        self.packed.shards += 1;
        self.packed.shard_bytes += archive.len_bytes() + 2 * BLOCK_BYTES;
        // On the disk before it has its name, so that no crash leaves a name with less.
        let file = archive.finish().and_then(|out| Ok(out.into_inner()?));
        file.and_then(|file| file.sync_all()).map_err(|error| cannot_write(&self.dir, error))
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        for (partial, _) in &self.whole {
            // Nothing more can be done about one that stays; it has no name that a data set is read by.
            let _ = fs::remove_file(partial);
        }
    }
}

fn partial_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

fn cannot_write(path: &Path, error: io::Error) -> Error {
    Error::io(format_args!("cannot write {}", path.display()), error)
        .with_remedy("check free space and permissions, and start again: nothing of it is left there")
}
