//! The roots of a data set, and which of them a sample lies on.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Machine, Mount};
use crate::source::{Extent, Source};

/// Roots that are told apart. A data set on more shares the last among what is beyond.
const ROOTS_MAX: usize = 64;

/// Directories, and shards, whose root is remembered; all are forgotten when there are more.
const REMEMBERED_MAX: usize = 1 << 16;

/// The roots seen so far, by the order in which they were.
#[derive(Default)]
pub(crate) struct Roots {
    roots: Vec<Root>,
    by_directory: HashMap<Box<[u8]>, usize>,
    by_shard: HashMap<u64, usize>,
    path: PathBuf,
}

/// A file system that samples lie on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Its device number (st_dev).
    pub(crate) device: u64,
    /// Where it is mounted.
    pub(crate) name: String,
}

impl Roots {
    /// The root of a sample: that of the shard, or of the directory in which its file lies. It is asked of the file system
    /// once for each of these; what cannot be told is taken for the first root's, until the file is open.
    pub(crate) fn of_sample(&mut self, source: &dyn Source, sample: u64) -> usize {
        let Ok(extent) = source.extent(sample) else { return self.unknown() };
        if let Extent::Range { object, .. } = extent
            && let Some(&root) = self.by_shard.get(&object)
        {
            return root;
        }
        let (Extent::Object(object) | Extent::Range { object, .. }) = extent;
        let mut path = std::mem::take(&mut self.path);
        let root = source.object_path(object, &mut path).ok().and_then(|()| match extent {
            Extent::Object(_) => self.of_directory(path.parent()?),
            Extent::Range { object, .. } => {
                let root = self.of_path(&path)?;
                forget_if_full(&mut self.by_shard);
                self.by_shard.insert(object, root);
                Some(root)
            }
        });
        self.path = path;
        root.unwrap_or_else(|| self.unknown())
    }

    /// The root of what cannot be reached.
    fn unknown(&mut self) -> usize {
        if self.roots.is_empty() { self.of_device(0, Path::new("unknown")) } else { 0 }
    }

    /// The root of a file that is open.
    pub(crate) fn of_device(&mut self, device: u64, path: &Path) -> usize {
        if let Some(known) = self.roots.iter().position(|root| root.device == device) {
            return known;
        }
        if self.roots.len() < ROOTS_MAX {
            self.roots.push(Root { device, name: name_of(path) });
        }
        self.roots.len() - 1
    }

    /// All of them, by number.
    pub(crate) fn all(&self) -> &[Root] {
        &self.roots
    }

    fn of_directory(&mut self, directory: &Path) -> Option<usize> {
        if let Some(&root) = self.by_directory.get(directory.as_os_str().as_bytes()) {
            return Some(root);
        }
        let root = self.of_path(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })?;
        forget_if_full(&mut self.by_directory);
        self.by_directory.insert(directory.as_os_str().as_bytes().into(), root);
        Some(root)
    }

    fn of_path(&mut self, path: &Path) -> Option<usize> {
        let device = path.metadata().ok()?.dev();
        Some(self.of_device(device, path))
    }
}

/// What a root is called: the directory that it is mounted at, or where it was first seen.
fn name_of(path: &Path) -> String {
    let seen = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mount = Mount::of(&Machine::this(), &seen).map(|mount| mount.directory);
    mount.unwrap_or(seen).display().to_string()
}

fn forget_if_full<K, V>(remembered: &mut HashMap<K, V>) {
    if remembered.len() >= REMEMBERED_MAX {
        remembered.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    /// Files at these paths, or shards.
    struct Paths(Vec<PathBuf>, bool);

    impl Source for Paths {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn extent(&self, sample: u64) -> Result<Extent> {
            Ok(match self.1 {
                true => Extent::Range { object: sample, offset: 0, len_bytes: 1 },
                false => Extent::Object(sample),
            })
        }

        fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
            path.clone_from(&self.0[object as usize]);
            Ok(())
        }

        fn label(&self, _: u64) -> Result<i64> {
            Ok(0)
        }

        fn key(&self, _: u64, key: &mut String) -> Result<()> {
            key.clear();
            Ok(())
        }
    }

    #[test]
    fn samples_are_told_apart_by_the_file_system_of_their_directory_or_shard() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shard");
        std::fs::write(&file, "x").unwrap();
        // The kernel's process table is another file system everywhere.
        let paths = vec![file.clone(), "/proc/cmdline".into(), "/proc/version".into(), "/no/such/place/file".into()];
        for is_shard in [false, true] {
            let mut roots = Roots::default();
            let source = Paths(paths.clone(), is_shard);
            let of: Vec<_> = (0..4).map(|sample| roots.of_sample(&source, sample)).collect();
            assert_eq!(of, [0, 1, 1, 0], "shards: {is_shard}");
            assert_eq!((roots.all().len(), roots.all()[1].name.as_str()), (2, "/proc"));
            let device = dir.path().metadata().unwrap().dev();
            assert_eq!((roots.all()[0].device, roots.of_device(device, &file)), (device, 0));
            assert_eq!(Roots::default().of_sample(&source, 3), 0, "an unknown one may be the first");
            // Only the missing one is asked for again.
            let known = (roots.by_directory.len(), roots.by_shard.len());
            assert_eq!(known, if is_shard { (0, 3) } else { (2, 0) });
        }
    }

    #[test]
    fn roots_beyond_the_most_share_one() {
        let mut roots = Roots::default();
        let of: Vec<_> = (0..ROOTS_MAX as u64 + 9).map(|device| roots.of_device(device, Path::new("/"))).collect();
        assert!(of[..ROOTS_MAX].iter().copied().eq(0..ROOTS_MAX));
        assert!(of[ROOTS_MAX..].iter().all(|root| *root == ROOTS_MAX - 1));
    }
}
