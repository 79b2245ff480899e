//! The roots of a data set, and which of them a sample lies on.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Machine, Mount};
use crate::source::{Extent, Source};

/// Roots that are told apart. A data set on more shares the last among what is beyond.
const ROOTS_MAX: usize = 64;

/// Directories, and shards, whose root is remembered; all are forgotten when there are more.
const REMEMBERED_MAX: usize = 1 << 16;

/// The roots met so far, by the order in which they were.
///
/// A file system that hangs must not be asked anything by whoever feeds all of them, so where a sample lies is taken from
/// the mount table and the text of its path. Links may lead elsewhere: that shows when the file is open, and is remembered.
pub(crate) struct Roots {
    roots: Vec<Root>,
    /// The mount table as it was when a device was last met.
    mounts: Vec<Mount>,
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
    pub(crate) name: PathBuf,
    /// Whether a file on it was open: before, its device is the mount table's, which of some file systems is another.
    is_met: bool,
}

impl Roots {
    pub(crate) fn new() -> Self {
        Self {
            roots: Vec::new(),
            mounts: Mount::all(&Machine::this()),
            by_directory: HashMap::new(),
            by_shard: HashMap::new(),
            path: PathBuf::new(),
        }
    }

    /// The root of a sample, as far as its path tells: that of the shard, or of the directory in which its file lies.
    pub(crate) fn of_sample(&mut self, source: &dyn Source, sample: u64) -> usize {
        let Ok(extent) = source.extent(sample) else { return self.unknown() };
        if let Extent::Range { object, .. } = extent
            && let Some(&root) = self.by_shard.get(&object)
        {
            return root;
        }
        let (Extent::Object(object) | Extent::Range { object, .. }) = extent;
        let mut path = std::mem::take(&mut self.path);
        let root = match (source.object_path(object, &mut path), extent) {
            (Err(_), _) => self.unknown(),
            (Ok(()), Extent::Object(_)) => self.of_directory(path.parent().unwrap_or(Path::new(""))),
            (Ok(()), Extent::Range { object, .. }) => {
                let root = self.of_path(&path);
                remember(&mut self.by_shard, object, root);
                root
            }
        };
        self.path = path;
        root
    }

    /// Remembers the root of a sample whose file was open, at `path`, for those beside it.
    pub(crate) fn learn(&mut self, source: &dyn Source, sample: u64, path: &Path, root: usize) {
        match source.extent(sample) {
            Ok(Extent::Range { object, .. }) => remember(&mut self.by_shard, object, root),
            Ok(Extent::Object(_)) => {
                if let Some(directory) = path.parent() {
                    remember(&mut self.by_directory, directory.as_os_str().as_bytes().into(), root);
                }
            }
            Err(_) => {}
        }
    }

    /// The root of what cannot be told.
    fn unknown(&mut self) -> usize {
        if self.roots.is_empty() { self.push(0, Path::new("unknown")) } else { 0 }
    }

    /// The root of a file that is open.
    pub(crate) fn of_device(&mut self, device: u64, path: &Path) -> usize {
        if let Some(known) = self.roots.iter().position(|root| root.device == device) {
            self.roots[known].is_met = true;
            return known;
        }
        // It may have been mounted when it was first reached.
        self.mounts = Mount::all(&Machine::this());
        let of_device = self.mounts.iter().filter(|mount| mount.device_number() == Some(device));
        let absolute = absolute(path);
        let found = match Mount::above(of_device.clone(), &absolute).or_else(|| of_device.clone().next_back()) {
            Some(mount) => {
                let directory = mount.directory.clone();
                self.push(device, &directory)
            }
            // Its files have other device numbers than its mount, as those of Btrfs and overlayfs.
            None => {
                let guess = self.of_path(path);
                if self.roots[guess].is_met {
                    let directory = self.roots[guess].name.clone();
                    self.push(device, &directory)
                } else {
                    self.roots[guess].device = device;
                    guess
                }
            }
        };
        self.roots[found].is_met = true;
        found
    }

    /// All of them, by number.
    pub(crate) fn all(&self) -> &[Root] {
        &self.roots
    }

    fn of_directory(&mut self, directory: &Path) -> usize {
        if let Some(&root) = self.by_directory.get(directory.as_os_str().as_bytes()) {
            return root;
        }
        let root = self.of_path(directory);
        remember(&mut self.by_directory, directory.as_os_str().as_bytes().into(), root);
        root
    }

    /// By the mount table alone.
    fn of_path(&mut self, path: &Path) -> usize {
        let Some(mount) = Mount::above(&self.mounts, &absolute(path)) else { return self.unknown() };
        let device = mount.device_number();
        let known = self.roots.iter().position(|root| root.name == mount.directory);
        let known = known.or_else(|| self.roots.iter().position(|root| Some(root.device) == device));
        match (known, device) {
            (Some(known), _) => known,
            (None, Some(device)) => {
                let directory = mount.directory.clone();
                self.push(device, &directory)
            }
            (None, None) => self.unknown(),
        }
    }

    fn push(&mut self, device: u64, name: &Path) -> usize {
        if self.roots.len() < ROOTS_MAX {
            self.roots.push(Root { device, name: name.to_owned(), is_met: false });
        }
        self.roots.len() - 1
    }
}

/// By its text alone. What that cannot be said of lies nowhere.
fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path).unwrap_or_default()
}

fn remember<K: Eq + std::hash::Hash>(remembered: &mut HashMap<K, usize>, key: K, root: usize) {
    if remembered.len() >= REMEMBERED_MAX {
        remembered.clear();
    }
    remembered.insert(key, root);
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

    fn device(path: &str) -> u64 {
        use std::os::unix::fs::MetadataExt;
        Path::new(path).metadata().unwrap().dev()
    }

    /// None of the files is there, and so no file system can have been asked.
    #[test]
    fn samples_are_told_apart_by_the_mount_table_without_asking_their_file_system() {
        // The kernel's own are mounted everywhere, and are other file systems.
        let paths = ["/proc/no/such/file", "/sys/none", "/proc/nor/this", "/proc/no/such/other"];
        let paths = Vec::from(paths.map(PathBuf::from));
        for is_shard in [false, true] {
            let mut roots = Roots::new();
            let source = Paths(paths.clone(), is_shard);
            let of: Vec<_> = (0..4).map(|sample| roots.of_sample(&source, sample)).collect();
            assert_eq!(of, [0, 1, 0, 0], "shards: {is_shard}");
            let all: Vec<_> = roots.all().iter().map(|root| (root.device, root.name.to_str().unwrap())).collect();
            assert_eq!(all, [(device("/proc"), "/proc"), (device("/sys"), "/sys")]);
            let known = (roots.by_directory.len(), roots.by_shard.len());
            assert_eq!(known, if is_shard { (0, 4) } else { (3, 0) });
            assert_eq!(roots.of_device(device("/sys"), Path::new("/anywhere")), 1);
        }
    }

    #[test]
    fn where_a_link_leads_is_learned_when_a_file_is_open() {
        for is_shard in [false, true] {
            let mut roots = Roots::new();
            let source = Paths(vec!["/proc/link/a".into(), "/proc/link/b".into(), "/proc/c".into()], is_shard);
            assert_eq!(roots.of_sample(&source, 0), 0);
            let found = roots.of_device(device("/sys"), Path::new("/proc/link/a"));
            assert_eq!((found, roots.all()[1].name.to_str()), (1, Some("/sys")), "the table knows the device");
            roots.learn(&source, 0, Path::new("/proc/link/a"), found);
            let of: Vec<_> = (0..3).map(|sample| roots.of_sample(&source, sample)).collect();
            assert_eq!(of, if is_shard { [1, 0, 0] } else { [1, 1, 0] });
        }
    }

    /// As of Btrfs, whose files have numbers that no mount has.
    #[test]
    fn a_device_that_no_mount_has_is_that_of_the_mount_above() {
        let (odd, other) = (libc::makedev(4000, 1), libc::makedev(4000, 2));
        let mut roots = Roots::new();
        let source = Paths(vec!["/proc/a".into(), "/proc/b/c".into()], false);
        assert_eq!((roots.of_sample(&source, 0), roots.all()[0].device), (0, device("/proc")));
        assert_eq!((roots.of_device(odd, Path::new("/proc/a")), roots.all()[0].device), (0, odd));
        assert_eq!((roots.of_sample(&source, 1), roots.all().len()), (0, 1));
        // Another one of it is a root beside it.
        assert_eq!(roots.of_device(other, Path::new("/proc/b/c")), 1);
        assert_eq!((roots.all()[1].device, roots.all()[1].name.to_str()), (other, Some("/proc")));
    }

    #[test]
    fn roots_beyond_the_most_share_one() {
        let mut roots = Roots::new();
        let of: Vec<_> =
            (0..ROOTS_MAX as u64 + 9).map(|n| roots.of_device(libc::makedev(4000, n as u32), Path::new("/"))).collect();
        assert!(of[..ROOTS_MAX].iter().copied().eq(0..ROOTS_MAX));
        assert!(of[ROOTS_MAX..].iter().all(|root| *root == ROOTS_MAX - 1));
    }
}
