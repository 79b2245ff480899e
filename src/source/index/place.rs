//! Where the sidecars of a data set lie.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::source::open::FileSet;

/// The folder inside a data set of files that holds its sidecars. Hidden, so that the walk passes it over;
/// a folder of its own, so that writing there does not change the time of the data set's folder.
const HIDDEN_FOLDER: &str = ".forebay";

/// The sidecar of a tar shard: its name and `.index.arrow`, beside it or in `dir`.
pub(super) fn of_shard(shard: &Path, dir: Option<&Path>) -> PathBuf {
    with_name(shard, dir, b".index.arrow")
}

/// The names that all parts of the index of a folder or list begin with.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    folder: PathBuf,
    stem: OsString,
}

impl Parts {
    /// Of a folder or list.
    pub(super) fn of(files: &FileSet, dir: Option<&Path>) -> Self {
        match files {
            FileSet::Folder(root) => Self::of_folder(root, dir),
            FileSet::List(path) => Self::of_list(path, dir),
        }
    }

    /// Of a folder: `.forebay/index-00000-of-00001.arrow` inside it, or `NAME.index-00000-of-00001.arrow` in
    /// `dir`.
    pub(super) fn of_folder(root: &Path, dir: Option<&Path>) -> Self {
        match dir {
            None => Self { folder: root.join(HIDDEN_FOLDER), stem: "index".into() },
            Some(dir) => {
                // A root such as "." has no name of its own.
                let whole = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
                Self::of_name(dir, whole.file_name().unwrap_or_default())
            }
        }
    }

    /// Of a list file: `LIST.index-00000-of-00001.arrow`, beside it or in `dir`.
    pub(super) fn of_list(list: &Path, dir: Option<&Path>) -> Self {
        let beside = list.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::of_name(dir.unwrap_or(beside), list.file_name().unwrap_or_default())
    }

    fn of_name(folder: &Path, name: &OsStr) -> Self {
        Self { folder: folder.to_owned(), stem: OsStr::from_bytes(&[name.as_bytes(), b".index"].concat()).to_owned() }
    }

    /// The folder that they lie in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of one part.
    pub(super) fn path(&self, part: u64, parts: u64) -> PathBuf {
        let mut name = self.stem.clone();
        name.push(format!("-{part:05}-of-{parts:05}.arrow"));
        self.folder.join(name)
    }

    /// The parts that are there, as pairs of how many they are parts of and which; sorted.
    ///
    /// # Errors
    /// `Io` if the folder cannot be listed; one that does not exist holds none.
    pub(super) fn list(&self) -> Result<Vec<(u64, u64)>> {
        let failed = |error| {
            let error = Error::io(format!("cannot list folder {}", self.folder.display()), error);
            error.with_remedy("give this user the rights to read it, or use no index")
        };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            listed => listed.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            found.extend(self.parse(name.as_bytes()));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn parse(&self, name: &[u8]) -> Option<(u64, u64)> {
        let numbers = name.strip_prefix(self.stem.as_bytes())?.strip_prefix(b"-")?.strip_suffix(b".arrow")?;
        let (part, parts) = std::str::from_utf8(numbers).ok()?.split_once("-of-")?;
        let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
        // Only what `path` writes: no "+1", no other number of zeros.
        (self.path(part, parts).file_name()?.as_bytes() == name && part < parts).then_some((parts, part))
    }
}

fn with_name(data: &Path, dir: Option<&Path>, suffix: &[u8]) -> PathBuf {
    let path = match dir {
        None => data.to_owned(),
        Some(dir) => dir.join(data.file_name().unwrap_or_default()),
    };
    OsStr::from_bytes(&[path.as_os_str().as_bytes(), suffix].concat()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_beside_the_data_or_in_the_folder_of_indexes() {
        let dir = Some(Path::new("/idx"));
        assert_eq!(of_shard(Path::new("a/t-0.tar"), None), Path::new("a/t-0.tar.index.arrow"));
        assert_eq!(of_shard(Path::new("a/t-0.tar"), dir), Path::new("/idx/t-0.tar.index.arrow"));
        let list = |dir| Parts::of_list(Path::new("a/train.csv"), dir).path(2, 3);
        assert_eq!(list(None), Path::new("a/train.csv.index-00002-of-00003.arrow"));
        assert_eq!(list(dir), Path::new("/idx/train.csv.index-00002-of-00003.arrow"));
        let folder = |dir| Parts::of_folder(Path::new("/data/train"), dir).path(0, 1);
        assert_eq!(folder(None), Path::new("/data/train/.forebay/index-00000-of-00001.arrow"));
        assert_eq!(folder(dir), Path::new("/idx/train.index-00000-of-00001.arrow"));
    }

    #[test]
    fn parts_are_found_by_their_names_alone() {
        let dir = tempfile::tempdir().unwrap();
        let parts = Parts::of_list(&dir.path().join("l.txt"), None);
        assert!(parts.list().unwrap().is_empty());
        for name in ["-00001-of-00002.arrow", "-00000-of-00001.arrow", "-0-of-1.arrow", "-00002-of-00002.arrow", ".txt"]
        {
            fs::write(dir.path().join(format!("l.txt.index{name}")), "").unwrap();
        }
        assert_eq!(parts.list().unwrap(), [(1, 0), (2, 1)]);
        assert!(Parts::of_folder(Path::new("/no/such"), None).list().unwrap().is_empty());
    }
}
