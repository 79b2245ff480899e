//! The samples of one shard: entries put together by WebDataset's rule.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::archive::{Archive, EXTENSION_MAX_BYTES, End, Entry, Kind};
use super::header::BLOCK_LEN_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::source::index::{self, Listed};
use crate::source::labels::{Label, Labels};
use crate::source::names::Names;
use crate::source::notes::Seen;
use crate::source::{Form, UNLABELLED, without_current_folder};

const LINKS: &str = "links left out (an archive's links are never followed)";
const SPECIALS: &str = "entries that are no files left out";
const NO_SAMPLE: &str = "files without a name before the extension left out";
const NO_IMAGE: &str = "keys without a .jpg, .jpeg, .png, .webp, .npy, .raw or .bin left out";
const MORE_IMAGES: &str = "further images of a key left out (a key ends at the first dot of the file name)";
const REPEATED_KEYS: &str = "samples that repeat a key of their shard, kept";
const SPARSE: &str = "images stored sparsely, an error when they are read";
const BAD_LABELS: &str = "labels that are no integer, an error when they are read";
const OTHER_JSON: &str = "labels in .json that are no integer, taken as no label";
const UNMARKED: &str = "shards without an end marker, so that a cut between entries would not show";
const LONG_TAIL: &str = "shards with over 1 MiB behind their end marker, not looked at";

/// The longest `.cls`: an i64 and blanks.
const CLS_MAX_BYTES: u64 = 64;

/// The samples of one shard in the order of the archive.
pub(in crate::source) struct Shard {
    pub path: PathBuf,
    pub keys: Names,
    pub labels: Labels,
    places: Vec<Place>,
    /// A bit a sample, up to the last that is raw pixels without a header: whether it is.
    headerless: Vec<u64>,
    pub seen: Seen,
}

/// Where an image lies, in 8 bytes.
#[derive(Clone, Copy)]
struct Place {
    /// Data always begins at a whole block, so that 32 bits reach 2 TiB.
    block: u32,
    /// Or one of the two values below.
    len_bytes: u32,
}

const LEN_SPARSE: u32 = u32::MAX;
const LEN_TOO_LONG: u32 = u32::MAX - 1;

/// The entries of one key that have come so far.
#[derive(Default)]
struct Group {
    key: Vec<u8>,
    is_open: bool,
    image: Option<Image>,
    cls: Option<Label>,
    json: Option<Label>,
    /// Hashes of the extensions.
    extensions: HashSet<u64>,
}

/// What may be the image of a key.
#[derive(Clone, Copy)]
struct Image {
    place: Place,
    form: Form,
    /// The extension has no dot in it: `a.jpg`, not `a.mask.jpg`.
    is_plain: bool,
}

impl Image {
    /// Of several, the first of the highest rank is the sample's.
    fn rank(self) -> (bool, bool) {
        (self.form == Form::Encoded, self.is_plain)
    }
}

impl Shard {
    /// Reads the headers and labels of a shard.
    pub fn scan(path: &Path) -> Result<Self> {
        let mut archive = Archive::open(path)?;
        let mut scan = Scan {
            shard: Self {
                path: path.to_owned(),
                keys: Names::default(),
                labels: Labels::default(),
                places: Vec::new(),
                headerless: Vec::new(),
                seen: Seen::default(),
            },
            group: Group::default(),
            key_hashes: Vec::new(),
            data: Vec::new(),
        };
        while let Some(entry) = archive.next_entry()? {
            scan.take(&mut archive, &entry)?;
        }
        let end = archive.end();
        Ok(scan.finish(end))
    }

    /// What the shard says of a sample.
    pub fn listed(&self, sample: u64) -> Result<Listed<'static>> {
        let mut key = Vec::new();
        self.keys.append(sample, &mut key)?;
        let place = self.places[sample as usize];
        let headerless = if self.is_headerless(sample) { index::HEADERLESS } else { 0 };
        let (length, flags) = match place.len_bytes {
            LEN_SPARSE => (0, index::SPARSE),
            LEN_TOO_LONG => (0, index::TOO_LONG),
            len_bytes => (u64::from(len_bytes), 0),
        };
        Ok(Listed {
            key: String::from_utf8_lossy(&key).into_owned().into(),
            path: Cow::Borrowed(&[]),
            label: self.label(sample),
            offset: u64::from(place.block) * BLOCK_LEN_BYTES,
            length,
            modified: (0, 0),
            flags: flags | headerless,
        })
    }

    /// Whether a sample is raw pixels without a header.
    pub fn is_headerless(&self, sample: u64) -> bool {
        self.headerless.get((sample / 64) as usize).is_some_and(|bits| bits >> (sample % 64) & 1 != 0)
    }

    /// Offset and length in bytes of a sample whose [flags](Listed::flags) do not refuse it.
    pub fn place(&self, sample: u64) -> Option<(u64, u64)> {
        let place = self.places[sample as usize];
        let offset = u64::from(place.block) * BLOCK_LEN_BYTES;
        (place.len_bytes < LEN_TOO_LONG).then_some((offset, place.len_bytes.into()))
    }

    pub fn label(&self, sample: u64) -> Label {
        match self.labels.label(sample) {
            Some(UNLABELLED) => Label::Missing,
            label => label.map_or(Label::Unreadable, Label::Is),
        }
    }
}

struct Scan {
    shard: Shard,
    group: Group,
    /// To find keys that come again, if the samples are not in an order that shows them.
    key_hashes: Vec<u64>,
    data: Vec<u8>,
}

impl Scan {
    fn take(&mut self, archive: &mut Archive<'_>, entry: &Entry) -> Result<()> {
        let (key, extension) = match (entry.kind, split_name(&entry.name)) {
            (Kind::File | Kind::Sparse, Some(parts)) => parts,
            (kind, _) => {
                match kind {
                    Kind::Folder => {}
                    Kind::Link => self.shard.seen.add(LINKS, &entry.name),
                    Kind::Special => self.shard.seen.add(SPECIALS, &entry.name),
                    Kind::File | Kind::Sparse => self.shard.seen.add(NO_SAMPLE, &entry.name),
                }
                return Ok(());
            }
        };
        if !self.group.is_open || self.group.key != key {
            self.close_group();
            self.group.is_open = true;
            self.group.key.clear();
            self.group.key.extend_from_slice(key);
        }
        let extension = extension.to_ascii_lowercase();
        if !self.group.extensions.insert(xxh3_64(&extension)) {
            return Err(twice(archive, entry));
        }
        match extension.as_slice() {
            b"cls" if entry.kind == Kind::File => self.group.cls = Some(self.read_cls(archive, entry)?),
            b"json" if entry.kind == Kind::File => self.group.json = Some(self.read_json(archive, entry)?),
            _ => match (Form::of(&entry.name), extension.contains(&b'.')) {
                // Features, masks and the like of something else.
                (None, _) | (Some(Form::Array | Form::Headerless), true) => {}
                (Some(form), has_dot) => self.take_image(archive, entry, form, !has_dot)?,
            },
        }
        Ok(())
    }

    /// Of several encoded images, the first with a plain extension is the sample's, else the first; then come arrays.
    fn take_image(&mut self, archive: &Archive<'_>, entry: &Entry, form: Form, is_plain: bool) -> Result<()> {
        let image = Image { place: self.place(archive, entry)?, form, is_plain };
        let known = self.group.image;
        // An array beside an image is none.
        if known.is_some_and(|known| known.rank().0 == image.rank().0) {
            self.shard.seen.add(MORE_IMAGES, &entry.name);
        }
        if known.is_none_or(|known| known.rank() < image.rank()) {
            self.group.image = Some(image);
        }
        Ok(())
    }

    fn place(&mut self, archive: &Archive<'_>, entry: &Entry) -> Result<Place> {
        let block = u32::try_from(entry.offset / BLOCK_LEN_BYTES).map_err(|_| {
            let error = archive.error(ErrorKind::Unsupported, entry.header_at, "a shard of over 2 TiB");
            error.with_remedy("split it: shards of 100 MB to 10 GB are usual")
        })?;
        let len_bytes = match u32::try_from(entry.len_bytes) {
            _ if entry.kind == Kind::Sparse => {
                self.shard.seen.add(SPARSE, &entry.name);
                LEN_SPARSE
            }
            Ok(len_bytes) if len_bytes < LEN_TOO_LONG => len_bytes,
            _ => LEN_TOO_LONG,
        };
        Ok(Place { block, len_bytes })
    }

    fn read_cls(&mut self, archive: &mut Archive<'_>, entry: &Entry) -> Result<Label> {
        if entry.len_bytes > CLS_MAX_BYTES {
            return Ok(Label::Unreadable);
        }
        archive.read(entry.offset, entry.len_bytes, &mut self.data)?;
        let number = std::str::from_utf8(&self.data).ok().and_then(|text| text.trim().parse().ok());
        Ok(number.map_or(Label::Unreadable, Label::Is))
    }

    fn read_json(&mut self, archive: &mut Archive<'_>, entry: &Entry) -> Result<Label> {
        if entry.len_bytes > EXTENSION_MAX_BYTES {
            return Ok(Label::Unreadable);
        }
        archive.read(entry.offset, entry.len_bytes, &mut self.data)?;
        let (label, is_other) = json_label(&self.data);
        if is_other {
            self.shard.seen.add(OTHER_JSON, &entry.name);
        }
        Ok(label)
    }

    /// The group becomes a sample if it has an image.
    fn close_group(&mut self) {
        let Group { key, is_open, image, cls, json, extensions } = &mut self.group;
        let (image, cls, json) = (image.take(), cls.take(), json.take());
        extensions.clear();
        if !std::mem::take(is_open) {
            return;
        }
        let Some(Image { place, form, .. }) = image else { return self.shard.seen.add(NO_IMAGE, key) };
        let label = cls.or(json).unwrap_or(Label::Missing);
        if label == Label::Unreadable {
            self.shard.seen.add(BAD_LABELS, key);
        }
        self.shard.keys.push(key);
        self.shard.labels.push(label);
        if form == Form::Headerless {
            let sample = self.shard.places.len();
            self.shard.headerless.resize(sample / 64 + 1, 0);
            self.shard.headerless[sample / 64] |= 1 << (sample % 64);
        }
        self.shard.places.push(place);
        self.key_hashes.push(xxh3_64(key));
    }

    fn finish(mut self, end: Option<End>) -> Shard {
        self.close_group();
        let shard = &mut self.shard;
        let path = shard.path.as_os_str().as_encoded_bytes().to_vec();
        match end {
            Some(End::Marked) => {}
            Some(End::LongTail) => shard.seen.add(LONG_TAIL, &path),
            _ => shard.seen.add(UNMARKED, &path),
        }
        self.key_hashes.sort_unstable();
        for _ in self.key_hashes.windows(2).filter(|pair| pair[0] == pair[1]) {
            shard.seen.add(REPEATED_KEYS, &path);
        }
        shard.keys.shrink();
        shard.labels.shrink();
        shard.places.shrink_to_fit();
        shard.headerless.shrink_to_fit();
        self.shard
    }
}

/// Key and extension of an entry: the name up to the first dot of its last part, and what follows that
/// dot. `None` for hidden files, names without a dot, and WebDataset's own `__names__`.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let name = without_current_folder(name);
    if name.starts_with(b"__") && name.ends_with(b"__") && !name.contains(&b'/') {
        return None;
    }
    let base = memchr::memrchr(b'/', name).map_or(0, |slash| slash + 1);
    match memchr::memchr(b'.', &name[base..])? {
        0 => None,
        dot => Some((&name[..base + dot], &name[base + dot + 1..])),
    }
}

/// The integer under `label`, `cls` or `class_id` of a JSON object, and whether one of them is there
/// that is no integer.
fn json_label(text: &[u8]) -> (Label, bool) {
    #[derive(serde::Deserialize)]
    struct Labels {
        label: Option<serde_json::Value>,
        cls: Option<serde_json::Value>,
        class_id: Option<serde_json::Value>,
    }
    // The struct would be filled from a list too.
    if !text.trim_ascii_start().starts_with(b"{") {
        return (Label::Missing, false);
    }
    let Ok(Labels { label, cls, class_id }) = serde_json::from_slice(text) else { return (Label::Unreadable, false) };
    let mut is_other = false;
    for value in [label, cls, class_id].into_iter().flatten() {
        match value.as_i64() {
            Some(label) => return (Label::Is(label), false),
            None => is_other = true,
        }
    }
    (Label::Missing, is_other)
}

/// A file that comes twice in one sample: no rule says which of the two is meant, and WebDataset refuses
/// them too.
fn twice(archive: &Archive<'_>, entry: &Entry) -> Error {
    let cause = format!("entry \"{}\" comes twice in its sample", String::from_utf8_lossy(&entry.name));
    let error = archive.error(ErrorKind::Corrupt, entry.header_at, &cause);
    error.with_remedy("pack the shard again, without `tar -r` or `-u`, which keep the old version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_at_the_first_dot_of_their_last_part() {
        let split = |name: &'static str| {
            split_name(name.as_bytes())
                .map(|(key, extension)| [key, extension].map(|part| str::from_utf8(part).unwrap()))
        };
        assert_eq!(split("a/b.c/d.left.jpg"), Some(["a/b.c/d", "left.jpg"]));
        assert_eq!(split("././a.jpg"), Some(["a", "jpg"]));
        assert_eq!(split("../../etc/passwd.jpg"), Some(["../../etc/passwd", "jpg"]));
        for none in ["a/.hidden.jpg", "a.b/c", "__meta.x__", "", "./", "a/"] {
            assert_eq!(split(none), None, "{none}");
        }
    }

    #[test]
    fn json_labels_are_integers_in_an_object() {
        let cases = [
            (r#"{"label": 7}"#, Label::Is(7), false),
            (r#" {"cls": 3, "label": "dog"}"#, Label::Is(3), false),
            (r#"{"class_id": -2, "x": [{}]}"#, Label::Is(-2), false),
            (r#"{"label": "dog"}"#, Label::Missing, true),
            (r#"{"label": 1.5}"#, Label::Missing, true),
            (r#"{"caption": "a dog"}"#, Label::Missing, false),
            ("[1, 2, 3]", Label::Missing, false),
            (r#"{"label": 7"#, Label::Unreadable, false),
        ];
        for (text, label, is_other) in cases {
            assert_eq!(json_label(text.as_bytes()), (label, is_other), "{text}");
        }
        assert_eq!(json_label(format!("{{\"label\": {}", "[".repeat(100_000)).as_bytes()), (Label::Unreadable, false));
    }
}
