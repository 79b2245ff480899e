//! A tree of folders, listed by several threads.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use super::index::{Modified, modified, wait_out_tick};
use super::notes::Seen;
use super::parallel::{LISTING_THREADS, in_parallel};
use super::{Form, has_image_extension};
use crate::error::{Error, ErrorKind, Result};

/// Links to folders followed on one path. A tree of links to each other ends here at the latest.
const LINKED_FOLDERS_MAX: u32 = 8;

pub(super) const OTHER_FILES: &str = "files that are no .jpg, .jpeg, .png, .webp, .npy, .raw or .bin left out";
const BESIDE_IMAGES: &str =
    ".npy, .raw or .bin files left out because they belong to an image (the same name up to the first dot)";
const BROKEN_LINKS: &str = "links that lead nowhere left out";
const LOOPING_LINKS: &str = "links to folders left out because they lead back up or too far";

/// The images and subfolders of one folder, sorted by name as bytes.
#[derive(Default)]
pub(super) struct Listing {
    names: Vec<u8>,
    entries: Vec<Entry>,
    pub seen: Seen,
    /// When the folder last changed, as it was before it was listed.
    pub modified: Modified,
}

/// 12 bytes for each image while listing.
struct Entry {
    offset: u32,
    len: u16,
    /// The number of the subfolder's listing, or [`IMAGE`]. Until the number is known, the links to
    /// folders on the subfolder's path.
    listing: u32,
}

const IMAGE: u32 = u32::MAX;

/// One image or subfolder.
pub(super) enum Found<'a> {
    /// The image's file name.
    Image(&'a [u8]),
    /// The folder's name with a slash at its end, and the number of its listing.
    Folder(&'a [u8], usize),
}

impl Listing {
    pub fn get(&self, index: usize) -> Option<Found<'_>> {
        self.entries.get(index).map(|entry| {
            let name = self.name(entry);
            if entry.listing == IMAGE { Found::Image(name) } else { Found::Folder(name, entry.listing as usize) }
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = Found<'_>> {
        (0..).map_while(|index| self.get(index))
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.offset as usize..][..usize::from(entry.len)]
    }

    fn push(&mut self, name: &[u8], is_folder: bool, listing: u32) -> io::Result<()> {
        let offset = u32::try_from(self.names.len())
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "over 4 GiB of names in one folder"))?;
        let len = u16::try_from(name.len() + usize::from(is_folder))
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidFilename, "a name over 64 KiB"))?;
        self.names.extend_from_slice(name);
        if is_folder {
            // The slash makes the order within the folder that of whole paths.
            self.names.push(b'/');
        }
        self.entries.push(Entry { offset, len, listing });
        Ok(())
    }

    fn sort(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable_by(|a, b| self.name(a).cmp(self.name(b)));
        self.entries = entries;
    }

    /// Drops arrays beside an image of their name, such as its features or its mask: only one that stands alone is an
    /// image itself.
    fn drop_companions(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        let form = |entry: &Entry| if entry.listing == IMAGE { Form::of(self.name(entry)) } else { None };
        // Sorted, those of one name and a dot are neighbours.
        let mut dropped = Vec::new();
        for same in entries.chunk_by(|a, b| stem(self.name(a)) == stem(self.name(b))) {
            let has_image = same.iter().any(|entry| form(entry) == Some(Form::Encoded));
            let is_companion = |entry: &&Entry| matches!(form(entry), Some(Form::Array | Form::Headerless));
            dropped.extend(same.iter().filter(is_companion).filter(|_| has_image).map(|entry| entry.offset));
        }
        if !dropped.is_empty() {
            dropped.sort_unstable();
            entries.retain(|entry| {
                let is_dropped = dropped.binary_search(&entry.offset).is_ok();
                if is_dropped {
                    let name = &self.names[entry.offset as usize..][..usize::from(entry.len)];
                    self.seen.add(BESIDE_IMAGES, name);
                }
                !is_dropped
            });
        }
        self.entries = entries;
    }
}

/// A name up to its first dot, with it.
fn stem(name: &[u8]) -> &[u8] {
    memchr::memchr(b'.', name).map_or(name, |dot| &name[..=dot])
}

/// Lists `root` and everything below it. The first listing is that of `root`.
pub(super) fn walk(root: &Path) -> Result<Vec<Listing>> {
    let walk = Walk { root, state: Mutex::default(), changed: Condvar::new() };
    walk.state().enqueue(Folder { path: root.to_owned(), linked: 0, listing: 0 });
    in_parallel(LISTING_THREADS, || walk.work());
    let State { listings, error, .. } = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match error {
        Some(error) => Err(error),
        None => Ok(listings.into_iter().flatten().collect()),
    }
}

struct Walk<'a> {
    root: &'a Path,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Folder>,
    /// Folders being listed at the moment.
    active: usize,
    /// By number; `None` until it is listed.
    listings: Vec<Option<Listing>>,
    error: Option<Error>,
}

struct Folder {
    path: PathBuf,
    /// Links to folders on its path.
    linked: u32,
    listing: u32,
}

impl State {
    fn enqueue(&mut self, folder: Folder) {
        self.listings.push(None);
        self.waiting.push(folder);
    }
}

impl Walk<'_> {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if state.error.is_some() {
                return;
            }
            if let Some(folder) = state.waiting.pop() {
                state.active += 1;
                drop(state);
                let listed = self.list(&folder);
                state = self.state();
                state.active -= 1;
                self.finish(&mut state, &folder, listed);
            } else if state.active == 0 {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Numbers the subfolders and hands them out.
    fn finish(&self, state: &mut State, folder: &Folder, listed: io::Result<Listing>) {
        match listed {
            Ok(mut listing) => {
                for entry in listing.entries.iter_mut().filter(|entry| entry.listing != IMAGE) {
                    let linked = entry.listing;
                    entry.listing = state.listings.len() as u32;
                    let name = &listing.names[entry.offset as usize..][..usize::from(entry.len) - 1];
                    let path = folder.path.join(std::ffi::OsStr::from_bytes(name));
                    state.enqueue(Folder { path, linked, listing: entry.listing });
                }
                state.listings[folder.listing as usize] = Some(listing);
            }
            Err(error) => state.error = Some(unreadable(&folder.path, error)),
        }
        self.changed.notify_all();
    }

    fn list(&self, folder: &Folder) -> io::Result<Listing> {
        let modified = modified(&fs::metadata(&folder.path)?);
        // So that what comes or goes from here on shows in that time.
        wait_out_tick(modified);
        let mut listing = Listing { modified, ..Listing::default() };
        for entry in fs::read_dir(&folder.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.as_bytes();
            if name.starts_with(b".") {
                continue;
            }
            // Answered from the directory itself where the file system says it there.
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                self.follow(folder, &entry.path(), name, &mut listing)?;
            } else if kind.is_dir() {
                listing.push(name, true, folder.linked)?;
            } else if kind.is_file() && has_image_extension(name) {
                listing.push(name, false, IMAGE)?;
            } else {
                listing.seen.add(OTHER_FILES, name);
            }
        }
        listing.sort();
        listing.drop_companions();
        Ok(listing)
    }

    fn follow(&self, folder: &Folder, path: &Path, name: &[u8], listing: &mut Listing) -> io::Result<()> {
        match fs::metadata(path) {
            Ok(target) if target.is_dir() => {
                if folder.linked >= LINKED_FOLDERS_MAX || self.leads_up(&target, &folder.path)? {
                    listing.seen.add(LOOPING_LINKS, name);
                } else {
                    listing.push(name, true, folder.linked + 1)?;
                }
            }
            Ok(target) if target.is_file() && has_image_extension(name) => listing.push(name, false, IMAGE)?,
            Ok(_) => listing.seen.add(OTHER_FILES, name),
            Err(_) => listing.seen.add(BROKEN_LINKS, name),
        }
        Ok(())
    }

    /// Whether a folder is `path` or one of those it lies in, up to the root.
    fn leads_up(&self, target: &fs::Metadata, path: &Path) -> io::Result<bool> {
        for ancestor in path.ancestors() {
            let ancestor_is = fs::metadata(ancestor)?;
            if (ancestor_is.dev(), ancestor_is.ino()) == (target.dev(), target.ino()) {
                return Ok(true);
            }
            if ancestor == self.root {
                break;
            }
        }
        Ok(false)
    }
}

fn unreadable(folder: &Path, error: io::Error) -> Error {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give this user the rights to read and enter it, or move it out of the data set"
        }
        _ => "check that the storage is reachable and nothing changes the folder while it is listed",
    };
    if error.kind() == io::ErrorKind::OutOfMemory {
        return Error::new(ErrorKind::LimitExceeded, format!("folder {}: {error}", folder.display()))
            .with_remedy("spread the files over subfolders");
    }
    Error::io(format!("cannot list folder {}", folder.display()), error).with_remedy(remedy)
}
