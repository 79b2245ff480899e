//! Row 16 of the fault table, from outside: no damage to an index makes a reader panic, hang, or tell
//! anything that the index did not say.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::common::{folder, shards};
use crate::index_support::{self, *};
use forebay::ErrorKind;
use forebay::source::{IndexMode, Source};
use tempfile::{TempDir, tempdir};

/// A data set, its index, and what it says.
struct Indexed {
    _dir: TempDir,
    dataset: PathBuf,
    sidecar: PathBuf,
    bytes: Vec<u8>,
    said: Vec<String>,
    records: Vec<String>,
}

impl Indexed {
    fn shard(samples: usize) -> Self {
        let dir = tempdir().unwrap();
        shards(dir.path(), &index_support::samples(samples, 2), samples);
        let sidecar = dir.path().join("train-000.tar.index.arrow");
        let dataset = dir.path().join("train-000.tar");
        Self::of(dir, dataset, sidecar)
    }

    fn folder(samples: usize) -> Self {
        let dir = tempdir().unwrap();
        let dataset = folder(dir.path(), &index_support::samples(samples, 2));
        let sidecar = dataset.join(".forebay/index-00000-of-00001.arrow");
        Self::of(dir, dataset, sidecar)
    }

    fn of(dir: TempDir, dataset: PathBuf, sidecar: PathBuf) -> Self {
        index(&dataset);
        let source = required(&dataset);
        let (said, records) = (said(&*source), records(&*source));
        let bytes = fs::read(&sidecar).unwrap();
        Self { _dir: dir, dataset, sidecar, bytes, said, records }
    }

    /// Whether a damaged index is refused as a whole, or every sample is what it was or an error. The index is
    /// put in place as indexers do: by renaming.
    fn withstands(&self, damaged: &[u8]) -> Result<(), String> {
        let temporary = self.sidecar.with_extension("new");
        fs::write(&temporary, damaged).unwrap();
        fs::rename(&temporary, &self.sidecar).unwrap();
        let checked = catch_unwind(|| match with(IndexMode::Required, &self.dataset) {
            Err(error) if error.kind() == ErrorKind::IndexStale && error.remedy().is_some() => Ok(()),
            Err(error) => Err(format!("refused with {error:?}")),
            Ok(source) => self.compare(&*source),
        });
        checked.map_err(|_| "panicked".to_owned())?
    }

    fn compare(&self, source: &dyn Source) -> Result<(), String> {
        if source.len() != self.records.len() as u64 {
            return Err(format!("{} samples", source.len()));
        }
        if format!("{:?} {:?}", source.classes(), source.notes()) != self.said[0] {
            return Err("other classes or notes".into());
        }
        for sample in 0..source.len() {
            let said = said_of(source, sample);
            if said != self.said[sample as usize + 1] && !said.contains("damaged") {
                return Err(format!("sample {sample} became {said}"));
            }
            match record(source, sample) {
                Ok(record) if record == self.records[sample as usize] => {}
                Err(error) if error.kind() == ErrorKind::IndexStale => {}
                other => return Err(format!("record {sample} became {other:?}")),
            }
        }
        Ok(())
    }
}

#[test]
fn an_index_cut_anywhere_is_refused() {
    let indexed = Indexed::shard(6);
    let len = indexed.bytes.len();
    for cut in (0..len).step_by(37).chain(len - 40..len) {
        fs::write(indexed.sidecar.with_extension("new"), &indexed.bytes[..cut]).unwrap();
        fs::rename(indexed.sidecar.with_extension("new"), &indexed.sidecar).unwrap();
        let error = with(IndexMode::Required, &indexed.dataset).err().expect("it is cut");
        assert_eq!(error.kind(), ErrorKind::IndexStale, "cut at {cut}: {error}");
        let auto = with(IndexMode::Auto, &indexed.dataset).unwrap();
        assert_eq!((auto.index_fallbacks().len(), auto.len()), (1, 6));
    }
}

#[test]
fn no_flipped_bit_of_a_shards_index_is_believed() {
    flip_everywhere(&Indexed::shard(3), 1);
}

#[test]
fn no_flipped_bit_of_a_folders_index_is_believed() {
    flip_everywhere(&Indexed::folder(3), 3);
}

fn flip_everywhere(indexed: &Indexed, step: usize) {
    indexed.withstands(&indexed.bytes).unwrap();
    for at in (0..indexed.bytes.len()).step_by(step) {
        for flip in [1 << (at % 8), 0xFF] {
            let mut damaged = indexed.bytes.clone();
            damaged[at] ^= flip;
            indexed.withstands(&damaged).unwrap_or_else(|what| panic!("byte {at} ^ {flip:#x}: {what}"));
        }
    }
}

#[test]
fn overwritten_stretches_are_not_believed() {
    let indexed = Indexed::shard(5);
    let len = indexed.bytes.len();
    for (at, size) in (0..len).step_by(61).zip([4, 8, 16, 64, 300].into_iter().cycle()) {
        for fill in [0, 0xFF, 0x7F] {
            let mut damaged = indexed.bytes.clone();
            damaged[at..len.min(at + size)].fill(fill);
            indexed.withstands(&damaged).unwrap_or_else(|what| panic!("{size} bytes from {at} = {fill:#x}: {what}"));
        }
        // And a stretch from elsewhere, each of whose rows was right where it was.
        let mut damaged = indexed.bytes.clone();
        let size = size.min(len - at);
        damaged.copy_within(at..at + size, (at * 7) % (len - size));
        indexed.withstands(&damaged).unwrap_or_else(|what| panic!("{size} bytes from {at} moved: {what}"));
    }
}

#[test]
fn other_files_in_its_place_are_refused() {
    let indexed = Indexed::shard(4);
    let image = jpeg(0);
    let arrow = b"ARROW1\0\0ARROW1".to_vec();
    let mut twice = indexed.bytes.clone();
    twice.extend_from_slice(&indexed.bytes[100..]);
    for other in [&b""[..], b"ARROW1", &arrow, &image, &twice[..indexed.bytes.len() + 200]] {
        fs::write(&indexed.sidecar, other).unwrap();
        let error = with(IndexMode::Required, &indexed.dataset).err().expect("it is no index");
        assert_eq!(error.kind(), ErrorKind::IndexStale, "{error}");
    }
    fs::remove_file(&indexed.sidecar).unwrap();
    fs::create_dir(&indexed.sidecar).unwrap();
    assert_eq!(with(IndexMode::Required, &indexed.dataset).err().unwrap().kind(), ErrorKind::IndexStale);
}

#[test]
fn the_index_of_another_shard_or_another_version_is_refused_by_name() {
    let [first, second] = [4, 5].map(Indexed::shard);
    fs::copy(&first.sidecar, &second.sidecar).unwrap();
    assert_eq!(with(IndexMode::Required, &second.dataset).err().unwrap().kind(), ErrorKind::IndexStale);
    let other = replace_all(&first.bytes, b"{\"format\":1,", b"{\"format\":9,");
    fs::write(&first.sidecar, other).unwrap();
    let error = with(IndexMode::Required, &first.dataset).err().unwrap();
    assert!(error.to_string().contains("format 9") && error.kind() == ErrorKind::IndexStale, "{error}");
    assert_eq!(index(&first.dataset).files, 1);
    assert_eq!(records(&*required(&first.dataset)), first.records);
}

fn replace_all(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<_> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
    bytes
}

/// A mapped index that is replaced stays what it was for those who have it open.
#[test]
fn a_replaced_index_does_not_change_under_its_reader() {
    let indexed = Indexed::shard(6);
    let source = required(&indexed.dataset);
    fs::write(indexed.sidecar.with_extension("new"), b"short").unwrap();
    fs::rename(indexed.sidecar.with_extension("new"), &indexed.sidecar).unwrap();
    assert_eq!((said(&*source), records(&*source)), (indexed.said.clone(), indexed.records.clone()));
    assert!(Path::new(&indexed.sidecar).exists());
}
