//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Ends the name of a file that is being written.
const SUFFIX: &str = ".writing";

/// A file that takes its name when it is complete.
///
/// Until then it is a hidden file beside that name, locked by its writer. One that nobody has locked was
/// left behind by a writer that was killed; the next writer of the same name removes it.
pub(super) struct AtomicFile {
    temporary: PathBuf,
    target: PathBuf,
    file: File,
    is_complete: bool,
}

impl AtomicFile {
    /// Begins a file.
    ///
    /// # Errors
    /// `Io` or `NotFound` where the folder cannot be written to.
    pub(super) fn create(target: &Path) -> Result<Self> {
        let begun = remove_leftovers(target).and_then(|()| create_locked(target));
        let (temporary, file) = begun.map_err(|error| cannot_write(target, error))?;
        Ok(Self { temporary, target: target.to_owned(), file, is_complete: false })
    }

    /// Where to write.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The name that it will have.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file its name, in place of the one that had it: on the disk too, before this returns.
    ///
    /// # Errors
    /// `Io`; the old file is then still there, or the new one is and may not outlast a power failure.
    pub(super) fn complete(mut self) -> Result<()> {
        let renamed = self.file.sync_all().and_then(|()| fs::rename(&self.temporary, &self.target));
        renamed.map_err(|error| cannot_write(&self.target, error))?;
        self.is_complete = true;
        File::open(folder_of(&self.target))
            .and_then(|folder| folder.sync_all())
            .map_err(|error| cannot_write(&self.target, error))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.is_complete {
            // What is left behind is removed by the next writer.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The start of the names of unfinished files of a target.
fn prefix(target: &Path) -> Vec<u8> {
    let name = target.file_name().unwrap_or_default().as_bytes();
    [b".", name, b"."].concat()
}

fn create_locked(target: &Path) -> io::Result<(PathBuf, File)> {
    for number in 0.. {
        let mut name = prefix(target);
        name.extend_from_slice(format!("{}-{number}{SUFFIX}", std::process::id()).as_bytes());
        let temporary = folder_of(target).join(std::ffi::OsStr::from_bytes(&name));
        let file = match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        // Between creating and locking, another writer may have taken it for a leftover.
        if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && file.metadata()?.nlink() > 0 {
            return Ok((temporary, file));
        }
    }
    unreachable!("a number is free")
}

fn remove_leftovers(target: &Path) -> io::Result<()> {
    let prefix = prefix(target);
    for entry in fs::read_dir(folder_of(target))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_bytes().starts_with(&prefix) && name.as_bytes().ends_with(SUFFIX.as_bytes()) {
            // Where locks do not work nothing is removed, and nothing is harmed by a leftover.
            let is_left = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
            if is_left {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

fn cannot_write(target: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot write index {}", target.display()), error).with_remedy(
        "give this user the rights to write there and check the free space, or name another folder with --index-dir",
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.arrow");
        fs::write(&target, "old").unwrap();
        let dropped = AtomicFile::create(&target).unwrap();
        dropped.file().write_all(b"half").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        drop(dropped);
        assert_eq!(names(dir.path()), ["a.arrow"]);
        let complete = AtomicFile::create(&target).unwrap();
        complete.file().write_all(b"new").unwrap();
        complete.complete().unwrap();
        assert_eq!((fs::read(&target).unwrap(), names(dir.path()).len()), (b"new".to_vec(), 1));
    }

    #[test]
    fn leftovers_go_and_living_writers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.arrow");
        fs::write(dir.path().join(".a.arrow.1-0.writing"), "left").unwrap();
        fs::write(dir.path().join(".b.arrow.1-0.writing"), "of another").unwrap();
        let first = AtomicFile::create(&target).unwrap();
        let second = AtomicFile::create(&target).unwrap();
        first.file().write_all(b"first").unwrap();
        second.file().write_all(b"second").unwrap();
        second.complete().unwrap();
        first.complete().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"first");
        assert_eq!(names(dir.path()), [".b.arrow.1-0.writing", "a.arrow"]);
    }
}
