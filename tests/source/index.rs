//! Promises of sidecar indexes: the same samples with and without, nothing listed that an index knows, and
//! an index that does not fit is never used in silence.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::common::{folder, shards};
use crate::index_support::*;
use forebay::jpeg::{Decodability, Decoder, Grain, Header};
use forebay::source::index::{BuildOptions, Part, VerifyOptions, verify};
use forebay::source::{IndexMode, IndexOptions, Source, open, open_with};
use forebay::{ErrorKind, Result};
use tempfile::tempdir;

/// Every record must be what the image's own header says, and only those that cannot have one have none.
fn check_records(source: &dyn Source) {
    let mut with_record = 0;
    for sample in 0..source.len() {
        let bytes = bytes(source, sample);
        let header = Header::parse(&bytes).unwrap();
        let record = source.record(sample).unwrap();
        assert_eq!(record.is_some(), header.support() == Decodability::Streamed, "sample {sample}");
        let Some(record) = record else { continue };
        with_record += 1;
        let mut entries = Vec::new();
        let facts = Decoder::new().index(&bytes, &header, Grain::default(), &mut entries).unwrap();
        let jpeg = record.jpeg().unwrap();
        assert_eq!(jpeg.facts, facts);
        assert_eq!(jpeg.entries.as_bytes(), entries);
        assert_eq!(record.len_bytes, bytes.len() as u64);
        let (mut quant, mut huffman) = (vec![], vec![]);
        header.tables.write_used(&facts.slots, &mut quant, &mut huffman);
        assert_eq!((jpeg.quant, jpeg.huffman), (&quant[..], &huffman[..]));
        assert!(!quant.is_empty());
    }
    assert!(with_record > source.len() / 2);
}

#[test]
fn shards_are_the_same_with_and_without() {
    let dir = tempdir().unwrap();
    // More rows than one record batch holds.
    let pattern = shards(dir.path(), &samples(1100, 7), 600);
    let without = said(&*open(&pattern).unwrap());
    let built = index(&pattern);
    assert_eq!((built.files, built.samples, built.up_to_date), (2, 1100, 0));
    assert_eq!(built.without_entries["baseline in several scans"], 220);
    let source = required(&pattern);
    assert_eq!(said(&*source), without);
    check_records(&*source);
    assert!(source.record(1100).is_err() && source.extent(1100).is_err());
    let again = index(&pattern);
    assert_eq!((again.files, again.up_to_date), (0, 2));
    let off = with(IndexMode::Off, &pattern).unwrap();
    assert!(off.record(0).unwrap().is_none());
}

#[test]
fn a_folder_is_the_same_with_and_without_and_is_not_walked() {
    let dir = tempdir().unwrap();
    let root = folder(dir.path(), &samples(90, 4));
    fs::write(root.join("class1/notes.txt"), "no image").unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    let odd = root.join(OsStr::from_bytes(b"cl\xe4ss%"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join(OsStr::from_bytes(b"\xff.JPG")), jpeg(1)).unwrap();
    let without = said(&*open(&root).unwrap());
    assert_eq!(index(&root).samples, 91);
    let source = required(&root);
    assert_eq!(said(&*source), without);
    check_records(&*source);
    let modified = fs::metadata(root.join("class0/00000.jpg")).unwrap().modified().unwrap();
    let (seconds, nanoseconds) = source.record(0).unwrap().unwrap().modified.unwrap();
    assert_eq!(SystemTime::UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds), modified);
    // What a walk would have to read is not there to be read: a name in a file that no time betrays.
    let class = File::open(root.join("class0")).unwrap();
    let before = class.metadata().unwrap().modified().unwrap();
    fs::remove_file(root.join("class0/00000.jpg")).unwrap();
    class.set_modified(before).unwrap();
    assert_eq!(required(&root).len(), 91);
    assert_eq!(index(&root).samples, 90);
}

#[test]
fn a_list_is_the_same_with_and_without() {
    let dir = tempdir().unwrap();
    let root = folder(dir.path(), &samples(20, 2));
    let list = dir.path().join("train.csv");
    let absolute = root.join("class1/00010.jpg");
    let lines = format!(
        "path,label\nfolder/class0/00001.jpg,7\nfolder/class0/00003.jpg\n{},-3\nfolder/class0/00001.jpg,7\nfolder/gone.jpg,1\n",
        absolute.display()
    );
    fs::write(&list, lines).unwrap();
    let without = said(&*open(&list).unwrap());
    let built = index(&list);
    assert_eq!((built.samples, built.unreadable.len()), (5, 1));
    assert!(built.unreadable[0].0.contains("gone.jpg") && built.unreadable[0].1.contains("No such file"), "{built:?}");
    let source = required(&list);
    assert_eq!(said(&*source), without);
    assert_eq!(records(&*source).iter().filter(|record| *record != "none").count(), 4);
    fs::write(&list, "folder/class0/00001.jpg,7\n").unwrap();
    assert_eq!(with(IndexMode::Required, &list).err().unwrap().kind(), ErrorKind::IndexStale);
    assert_eq!(index(&list).taken_over, 1);
}

#[test]
fn odd_samples_have_rows_too() {
    let dir = tempdir().unwrap();
    let shard = dir.path().join("odd.tar");
    let mut tar = tar::Builder::new(File::create(&shard).unwrap());
    let mut append = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    append("a.jpg", &jpeg(0));
    append("b.jpg", b"");
    append("c.jpg", b"dear diary");
    append("d.jpg", &jpeg(1)[..700]);
    append("d.cls", b"dog");
    append("e.txt", b"no image");
    append("f.jpg", &[0xFF, 0xD8]);
    append("f.cls", b"-1");
    tar.finish().unwrap();
    let without = said(&*open(&shard).unwrap());
    let built = index(&shard);
    assert_eq!((built.samples, built.without_entries["unreadable"], built.unreadable.len()), (5, 4, 4));
    let source = required(&shard);
    assert_eq!(said(&*source), without);
    assert!(source.label(3).is_err() && source.notes().iter().any(|note| note.contains("e")));
    let have: Vec<bool> = (0..5).map(|sample| source.record(sample).unwrap().is_some()).collect();
    assert_eq!(have, [true, false, false, false, false]);
}

/// Row 15 of the fault table.
#[test]
fn a_stale_index_is_not_used_and_said_to_be_stale() {
    let dir = tempdir().unwrap();
    let pattern = shards(dir.path(), &samples(30, 3), 10);
    index(&pattern);
    // An archive goes on behind its end marker: drop it and append.
    let second = dir.path().join("train-001.tar");
    let mut bytes = fs::read(&second).unwrap();
    bytes.truncate(bytes.len() - 1024);
    let mut tar = tar::Builder::new(bytes);
    let more = jpeg(77);
    let mut header = tar::Header::new_ustar();
    header.set_size(more.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "class1/99999.jpg", &more[..]).unwrap();
    fs::write(&second, tar.into_inner().unwrap()).unwrap();

    let error = with(IndexMode::Required, &pattern).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::IndexStale);
    let text = error.to_string();
    assert!(text.contains("train-001.tar.index.arrow") && text.contains("bytes"), "{text}");
    assert!(error.remedy().unwrap().contains("forebay index"));

    let auto = with(IndexMode::Auto, &pattern).unwrap();
    assert_eq!(said(&*auto), said(&*open(&pattern).unwrap()));
    let [fallback] = auto.index_fallbacks() else { panic!("one fallback: {:?}", auto.index_fallbacks()) };
    assert_eq!((fallback.what, fallback.count), ("index", 11));
    assert!(fallback.cause.contains("train-001.tar"), "{fallback}");
    let has_record: Vec<bool> = [0, 10, 21].map(|sample| auto.record(sample).unwrap().is_some()).to_vec();
    assert_eq!(has_record, [true, false, true]);

    let built = index(&pattern);
    assert_eq!((built.files, built.up_to_date), (1, 2));
    assert_eq!(required(&pattern).len(), 31);
}

#[test]
fn the_same_size_and_another_time_is_stale() {
    let dir = tempdir().unwrap();
    let pattern = shards(dir.path(), &samples(5, 1), 5);
    index(&pattern);
    let shard = File::options().write(true).open(dir.path().join("train-000.tar")).unwrap();
    shard.set_modified(SystemTime::now() - Duration::from_secs(100)).unwrap();
    let error = with(IndexMode::Required, &pattern).err().unwrap();
    assert!(error.kind() == ErrorKind::IndexStale && error.to_string().contains("modified"), "{error}");
}

#[test]
fn a_new_shard_needs_a_new_sidecar_alone() {
    let dir = tempdir().unwrap();
    let all = samples(30, 3);
    shards(dir.path(), &all[..20], 10);
    index(dir.path());
    let of = |number: usize| fs::metadata(dir.path().join(format!("train-00{number}.tar.index.arrow"))).ok();
    let before = of(0).unwrap().modified().unwrap();
    let other = tempdir().unwrap();
    shards(other.path(), &all, 10);
    fs::copy(other.path().join("train-002.tar"), dir.path().join("train-002.tar")).unwrap();
    let error = with(IndexMode::Required, dir.path()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("train-002.tar") && error.remedy().is_some(), "{error}");
    let auto = with(IndexMode::Auto, dir.path()).unwrap();
    assert!(auto.index_fallbacks().is_empty());
    assert!(auto.notes().iter().any(|note| note.contains("without an index") && note.contains("train-002.tar")));
    let built = index(dir.path());
    assert_eq!((built.files, built.up_to_date, built.samples), (1, 2, 10));
    assert!(of(2).is_some() && of(0).unwrap().modified().unwrap() == before);
}

#[test]
fn a_changed_folder_is_stale_and_only_what_changed_is_decoded() {
    let dir = tempdir().unwrap();
    let root = folder(dir.path(), &samples(40, 2));
    index(&root);
    assert_eq!(index(&root).up_to_date, 1);
    fs::write(root.join("class1/zzz.jpg"), jpeg(3)).unwrap();
    assert_eq!(with(IndexMode::Required, &root).err().unwrap().kind(), ErrorKind::IndexStale);
    let auto = with(IndexMode::Auto, &root).unwrap();
    assert_eq!((auto.len(), auto.index_fallbacks().len()), (41, 1));
    let built = index(&root);
    assert_eq!((built.samples, built.taken_over), (41, 40));
    // Written in place: no folder changes its time, and the file's own shows it.
    let path = root.join("class0/00000.jpg");
    fs::write(&path, jpeg(8)).unwrap();
    let before = records(&*required(&root));
    let built = index(&root);
    assert_eq!((built.samples, built.taken_over), (41, 40));
    let source = required(&root);
    assert!(records(&*source)[0] != before[0] && records(&*source)[1..] == before[1..]);
    check_records(&*source);
}

#[test]
fn parts_make_the_whole() {
    let dir = tempdir().unwrap();
    let root = folder(dir.path(), &samples(50, 3));
    let without = said(&*open(&root).unwrap());
    let part = |number, of| BuildOptions { part: Part::new(number, of).unwrap(), ..options() };
    for number in [2, 0] {
        index_as(&root, &part(number, 3));
        let error = with(IndexMode::Required, &root).err().unwrap();
        assert!(error.kind() == ErrorKind::IndexStale && error.to_string().contains("part"), "{error}");
    }
    index_as(&root, &part(1, 3));
    let source = required(&root);
    assert_eq!(said(&*source), without);
    check_records(&*source);
    let in_parts = records(&*source);
    // Complete parts are as good as a whole, whatever their number.
    assert_eq!(index(&root).up_to_date, 1);
    index_as(&root, &BuildOptions { force: true, ..options() });
    let names: Vec<_> = fs::read_dir(root.join(".forebay")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["index-00000-of-00001.arrow"]);
    assert_eq!(records(&*required(&root)), in_parts);

    let pattern = shards(dir.path(), &samples(50, 3), 10);
    let files: Vec<u64> = (0..3).map(|number| index_as(&pattern, &part(number, 3)).files).collect();
    assert_eq!(files.iter().sum::<u64>(), 5);
    check_records(&*required(&pattern));
}

#[test]
fn indexes_of_read_only_data_lie_in_a_folder_of_their_own() -> Result<()> {
    let dir = tempdir().unwrap();
    let pattern = shards(dir.path(), &samples(12, 2), 6);
    let root = folder(dir.path(), &samples(12, 2));
    let indexes = dir.path().join("in/dexes");
    let before = names(&root);
    for dataset in [Path::new(&pattern), &root] {
        index_as(dataset, &BuildOptions { dir: Some(indexes.clone()), ..options() });
        let index = IndexOptions { mode: IndexMode::Required, dir: Some(indexes.clone()) };
        assert_eq!(said(&*open_with(dataset, &index)?), said(&*open(dataset)?));
        assert_eq!(with(IndexMode::Required, dataset).err().unwrap().kind(), ErrorKind::NotFound);
        let verified =
            verify(dataset, &VerifyOptions { dir: Some(indexes.clone()), threads: 2, raw_shape: None }, &|_, _| {})?;
        assert_eq!((verified.problems, verified.indexed), (0, 12));
    }
    assert_eq!(names(&root), before);
    assert_eq!(names(&indexes).len(), 3);
    Ok(())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn another_grain_is_another_index() {
    let dir = tempdir().unwrap();
    let pattern = shards(dir.path(), &samples(10, 2), 10);
    let fine = index_as(&pattern, &BuildOptions { grain: Grain::Bits(128), ..options() });
    let rows = BuildOptions { grain: Grain::Rows, ..options() };
    let coarse = index_as(&pattern, &rows);
    assert!(coarse.files == 1 && coarse.index_bytes < fine.index_bytes, "{coarse:?} {fine:?}");
    assert_eq!(index_as(&pattern, &rows).up_to_date, 1);
    let verified = verify(&pattern, &VerifyOptions { dir: None, threads: 2, raw_shape: None }, &|_, _| {}).unwrap();
    assert_eq!((verified.problems, verified.indexed), (0, 10));
}

#[test]
fn a_bad_shard_keeps_no_other_from_its_index() {
    let dir = tempdir().unwrap();
    let pattern = shards(dir.path(), &samples(30, 3), 10);
    let bad = dir.path().join("train-001.tar");
    let bytes = fs::read(&bad).unwrap();
    fs::write(&bad, &bytes[..bytes.len() / 2]).unwrap();
    let built = forebay::source::index::build(&pattern, &options(), &|_, _| {}).unwrap();
    assert_eq!((built.files, built.failed.len()), (2, 1));
    assert!(built.failed[0].to_string().contains("train-001.tar"), "{:?}", built.failed);
}
