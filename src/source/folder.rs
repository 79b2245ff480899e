//! A folder of images.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::index::{Listed, Modified, Set, fallback, settle};
use super::names::{Names, out_of_range};
use super::notes::Seen;
use super::walk::{Found, Listing, walk};
use super::{
    Columns, Extent, Form, IndexMode, IndexOptions, Record, Source, UNLABELLED, refill_key, refill_path,
    without_extension,
};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

const BESIDE_CLASSES: &str = "images beside the class folders, so of no class, left out";
const EMPTY_CLASSES: &str = "class folders without images, which keep their label";

/// Images in a folder and all folders below it, at any depth.
///
/// The class of an image is the folder at the top level that it lies in, as in torchvision's
/// `ImageFolder`, and its label is the place of that folder's name among all of them, sorted as bytes.
/// Class folders without an image keep their label, so that a part of a data set has the labels of
/// the whole. If no image lies in a subfolder, the folder is flat and has no labels.
///
/// - Images are files named `.jpg`, `.jpeg`, `.png` or `.webp` in any case, and those named `.npy`, `.raw` or `.bin`
///   beside which no such image has the same name up to the first dot: raw pixels ([`raw`](crate::raw)). Others are
///   counted in [`notes`](Source::notes); names that begin with a dot are skipped.
/// - Samples are in the order of their paths as bytes.
/// - Links are followed, those to folders unless they lead back up.
/// - Names need not be UTF-8. Their keys then show U+FFFD; their paths keep every byte.
///
/// Memory is about 12 bytes a sample for names such as ImageNet's.
pub struct Folder {
    /// With a slash at its end.
    root: Vec<u8>,
    files: Files,
    classes: Vec<String>,
    notes: Vec<String>,
    fallbacks: Vec<Fallback>,
}

/// Where paths and labels come from.
enum Files {
    Walked(Walked),
    Indexed(Set),
}

/// What a walk found.
#[derive(Default)]
pub(super) struct Walked {
    /// Paths below the root.
    paths: Names,
    pub classes: Vec<String>,
    /// The first sample of each class that has any, and its label.
    starts: Vec<(u64, u32)>,
    /// Every folder, by its path below the root, and when it last changed before it was listed.
    pub folders: Vec<(Vec<u8>, Modified)>,
    pub seen: Seen,
}

impl Folder {
    /// Lists a folder, on several threads.
    ///
    /// # Errors
    /// `NotFound` or `Io` for a folder that cannot be listed, `EmptyDataset` if there is no image.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(root, &IndexOptions { mode: IndexMode::Off, dir: None })
    }

    /// Takes what an index says, if there is one that fits, and lists nothing; else as [`open`](Self::open).
    ///
    /// # Errors
    /// As `open`; `IndexStale` or `NotFound` where an index is [required](IndexMode::Required).
    pub fn open_with(root: impl AsRef<Path>, options: &IndexOptions) -> Result<Self> {
        let root = root.as_ref();
        let (indexed, unfit) = settle(options, root, |dir| Set::of_folder(root, dir))?;
        let root_bytes = root.join("").as_os_str().as_bytes().to_vec();
        if let Some(set) = indexed {
            let (classes, notes) = (set.classes(), set.notes());
            return Ok(Self { root: root_bytes, files: Files::Indexed(set), classes, notes, fallbacks: Vec::new() });
        }
        let mut walked = Walked::walk(root)?;
        let (classes, notes) = (std::mem::take(&mut walked.classes), walked.seen.lines());
        walked.folders = Vec::new();
        let fallbacks = fallback(unfit.into_iter().collect(), walked.len());
        Ok(Self { root: root_bytes, files: Files::Walked(walked), classes, notes, fallbacks })
    }

    fn path(&self, sample: u64, bytes: &mut Vec<u8>) -> Result<()> {
        match &self.files {
            Files::Walked(walked) => walked.paths.append(sample, bytes),
            Files::Indexed(set) => set.path(sample, bytes),
        }
    }
}

impl Walked {
    /// Lists a folder, on several threads.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn walk(root: &Path) -> Result<Self> {
        let mut listings = walk(root)?;
        let mut walked = Self::default();
        let class_names = class_names(&listings);
        walked.take(&mut listings, &class_names);
        walked.classes = class_names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        walked.paths.shrink();
        if walked.len() == 0 {
            return Err(empty(root, &walked.seen.lines()));
        }
        Ok(walked)
    }

    pub fn len(&self) -> u64 {
        self.paths.len()
    }

    /// A sample, but for what is learned when its file is opened.
    pub fn listed(&self, sample: u64) -> Result<Listed<'static>> {
        let mut path = Vec::new();
        self.paths.append(sample, &mut path)?;
        Ok(Listed::of_file(path, self.label(sample)))
    }

    fn label(&self, sample: u64) -> i64 {
        let classes_begun = self.starts.partition_point(|(start, _)| *start <= sample);
        classes_begun.checked_sub(1).map_or(UNLABELLED, |class| i64::from(self.starts[class].1))
    }

    /// Takes over all images, depth first, which is the order of their paths.
    fn take(&mut self, listings: &mut [Listing], classes: &[Vec<u8>]) {
        let mut path = Vec::new();
        // For each folder from the root to the current one: its listing, the next entry, and how long the
        // path is up to it. A stack of our own, since the depth is the data set's to choose.
        let mut stack = vec![(0, 0, 0)];
        while let Some((listing, next, path_len)) = stack.pop() {
            path.truncate(path_len);
            match listings[listing].get(next) {
                Some(Found::Image(name)) => {
                    stack.push((listing, next + 1, path_len));
                    if path_len == 0 && !classes.is_empty() {
                        self.seen.add(BESIDE_CLASSES, name);
                    } else {
                        path.extend_from_slice(name);
                        self.paths.push(&path);
                    }
                }
                Some(Found::Folder(name, subfolder)) => {
                    stack.push((listing, next + 1, path_len));
                    path.extend_from_slice(name);
                    if path_len == 0 {
                        self.begin_class(classes, &name[..name.len() - 1]);
                    }
                    stack.push((subfolder, 0, path.len()));
                }
                // Its memory goes back before the next is taken over.
                None => {
                    let Listing { seen, modified, .. } = std::mem::take(&mut listings[listing]);
                    self.seen.merge(seen, &path);
                    self.folders.push((path.clone(), modified));
                }
            }
        }
        self.drop_empty_class(classes);
    }

    fn begin_class(&mut self, classes: &[Vec<u8>], name: &[u8]) {
        self.drop_empty_class(classes);
        if let Ok(label) = classes.binary_search_by(|class| class.as_slice().cmp(name)) {
            self.starts.push((self.paths.len(), label as u32));
        }
    }

    fn drop_empty_class(&mut self, classes: &[Vec<u8>]) {
        if let Some((_, label)) = self.starts.pop_if(|(start, _)| *start == self.paths.len()) {
            self.seen.add(EMPTY_CLASSES, &classes[label as usize]);
        }
    }
}

impl Source for Folder {
    fn len(&self) -> u64 {
        match &self.files {
            Files::Walked(walked) => walked.len(),
            Files::Indexed(set) => set.len(),
        }
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        if sample < self.len() { Ok(Extent::Object(sample)) } else { Err(out_of_range(sample, self.len())) }
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        refill_path(path, |bytes| {
            bytes.extend_from_slice(&self.root);
            self.path(object, bytes)
        })
    }

    fn label(&self, sample: u64) -> Result<i64> {
        if sample >= self.len() {
            return Err(out_of_range(sample, self.len()));
        }
        match &self.files {
            Files::Walked(walked) => Ok(walked.label(sample)),
            Files::Indexed(set) => set.label(sample),
        }
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        refill_key(key, |bytes| {
            self.path(sample, bytes)?;
            bytes.truncate(without_extension(bytes).len());
            Ok(())
        })
    }

    fn is_headerless(&self, sample: u64) -> Result<bool> {
        let mut path = Vec::new();
        self.path(sample, &mut path)?;
        Ok(Form::of(&path) == Some(Form::Headerless))
    }

    fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        match &self.files {
            Files::Walked(_) => Ok(None),
            Files::Indexed(set) => set.record(sample),
        }
    }

    fn columns(&self, sample: u64) -> Result<Option<Columns<'_>>> {
        match &self.files {
            Files::Walked(_) => Ok(None),
            Files::Indexed(set) => set.columns(sample),
        }
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn index_fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }
}

/// The names of the folders at the top level, sorted, or none if no image lies below them.
fn class_names(listings: &[Listing]) -> Vec<Vec<u8>> {
    let has_image = |listing: &Listing| listing.iter().any(|found| matches!(found, Found::Image(_)));
    if !listings.iter().skip(1).any(has_image) {
        return Vec::new();
    }
    let folder = |found| match found {
        Found::Folder(name, _) => Some(name[..name.len() - 1].to_vec()),
        Found::Image(_) => None,
    };
    let mut names: Vec<_> = listings[0].iter().filter_map(folder).collect();
    // Not the order of the listing, which compares slashes too.
    names.sort_unstable();
    names
}

fn empty(root: &Path, notes: &[String]) -> Error {
    let seen = if notes.is_empty() { String::new() } else { format!("; seen: {}", notes.join("; ")) };
    Error::new(ErrorKind::EmptyDataset, format!("folder {} holds no image at any depth{seen}", root.display()))
        .with_remedy("name the folder that the class folders, images or .tar shards lie in; images end in .jpg, .jpeg, .png, .webp or .npy")
}
