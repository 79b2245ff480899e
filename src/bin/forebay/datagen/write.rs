//! Where the pictures go: a folder of class folders, or tar shards as WebDataset reads them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use forebay::{Error, Result};

/// One finished picture.
pub struct Sample {
    /// `class/name`, the same in both layouts.
    pub key: String,
    /// The class number.
    pub label: u32,
    /// The JPEG.
    pub jpeg: Vec<u8>,
}

/// Takes the samples in order. Every file appears under its name only when it is whole.
pub enum Sink {
    /// `DIR/class/name.jpg`
    Folder(PathBuf),
    /// `DIR/shard-000000.tar` and so on
    Shards(Shards),
}

/// The tar shards of a data set, one open at a time.
pub struct Shards {
    dir: PathBuf,
    samples_per_shard: u64,
    open: Option<OpenShard>,
}

struct OpenShard {
    tar: tar::Builder<BufWriter<File>>,
    partial: PathBuf,
    path: PathBuf,
}

impl Sink {
    /// Tar shards of so many samples.
    pub fn shards(dir: &Path, samples_per_shard: u64) -> Self {
        Self::Shards(Shards { dir: dir.to_owned(), samples_per_shard, open: None })
    }

    /// Whether sample `number` lies there whole from an earlier run.
    pub fn has(&self, number: u64, key: &str) -> bool {
        match self {
            Self::Folder(dir) => jpeg_path(dir, key).exists(),
            Self::Shards(shards) => shards.path_of(number).exists(),
        }
    }

    /// Writes sample `number`. Numbers rise; a shard that is begun is begun with its first sample.
    pub fn write(&mut self, number: u64, sample: &Sample) -> Result<()> {
        match self {
            Self::Folder(dir) => write_whole(&jpeg_path(dir, &sample.key), &sample.jpeg),
            Self::Shards(shards) => shards.write(number, sample),
        }
    }

    /// Completes the last shard.
    pub fn finish(&mut self) -> Result<()> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Shards(shards) => shards.close(),
        }
    }
}

impl Shards {
    fn path_of(&self, number: u64) -> PathBuf {
        self.dir.join(format!("shard-{:06}.tar", number / self.samples_per_shard))
    }

    fn write(&mut self, number: u64, sample: &Sample) -> Result<()> {
        let path = self.path_of(number);
        if self.open.as_ref().is_some_and(|shard| shard.path != path) {
            self.close()?;
        }
        if self.open.is_none() {
            let partial = partial_of(&path);
            let file = File::create(&partial).map_err(|e| cannot_write(&partial, e))?;
            let tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
            self.open = Some(OpenShard { tar, partial, path });
        }
        let Some(shard) = &mut self.open else { return Ok(()) };
        let mut append = |extension: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // No time and no owner, so that the same seed gives the same bytes.
            header.set_mtime(0);
            shard.tar.append_data(&mut header, format!("{}.{extension}", sample.key), bytes)
        };
        append("jpg", &sample.jpeg)
            .and_then(|()| append("cls", sample.label.to_string().as_bytes()))
            .map_err(|e| cannot_write(&shard.partial, e))
    }

    fn close(&mut self) -> Result<()> {
        let Some(OpenShard { tar, partial, path }) = self.open.take() else { return Ok(()) };
        tar.into_inner()
            .and_then(|mut file| file.flush())
            .and_then(|()| std::fs::rename(&partial, &path))
            .map_err(|e| cannot_write(&path, e))
    }
}

/// Writes a file under another name and renames it, creating its directory where it is missing.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial_of(path);
    let mut written = std::fs::write(&partial, bytes);
    if written.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        let parent = path.parent().unwrap_or(Path::new("."));
        written = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&partial, bytes));
    }
    written.and_then(|()| std::fs::rename(&partial, path)).map_err(|e| cannot_write(path, e))
}

fn jpeg_path(dir: &Path, key: &str) -> PathBuf {
    dir.join(format!("{key}.jpg"))
}

fn partial_of(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}

fn cannot_write(path: &Path, error: std::io::Error) -> Error {
    Error::io(format_args!("cannot write {}", path.display()), error)
        .with_remedy("check free space and permissions, then run the same command again: it continues where it stopped")
}
