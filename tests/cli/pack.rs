//! `forebay pack`: shards that every reader takes, images where they should begin, and the same samples as before.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli_support::{fails, forebay, runs};
use crate::common;
use crate::raw_support::{self, Stored};
use forebay::order::Shuffle;
use forebay::plan::Size;
use forebay::raw::{Shape, npy};
use forebay::source::{Extent, Source, open};
use forebay::{Augment, DType, Geometry, Layout, Loader};
use serde_json::Value;
use tempfile::tempdir;

fn pack(dataset: impl AsRef<Path>, out: impl AsRef<Path>) -> Command {
    let mut command = forebay();
    command.arg("pack").arg(dataset.as_ref()).arg(out.as_ref());
    command
}

/// Key, label, where its bytes begin in their shard, and the bytes.
fn samples(source: &dyn Source) -> Vec<(String, i64, u64, Vec<u8>)> {
    let sample = |sample| {
        let (mut key, mut path) = (String::new(), PathBuf::new());
        source.key(sample, &mut key).unwrap();
        let extent = source.extent(sample).unwrap();
        let (Extent::Object(object) | Extent::Range { object, .. }) = extent;
        source.object_path(object, &mut path).unwrap();
        let bytes = fs::read(path).unwrap();
        let (offset, len) = match extent {
            Extent::Object(_) => (0, bytes.len()),
            Extent::Range { offset, len_bytes, .. } => (offset, len_bytes as usize),
        };
        (key, source.label(sample).unwrap(), offset, bytes[offset as usize..][..len].to_vec())
    };
    (0..source.len()).map(sample).collect()
}

fn but_for_places(samples: Vec<(String, i64, u64, Vec<u8>)>) -> Vec<(String, i64, Vec<u8>)> {
    samples.into_iter().map(|(key, label, _, bytes)| (key, label, bytes)).collect()
}

/// Every file of a folder, by its name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn digest(dataset: &Path, more: &[&str]) -> String {
    let mut command = forebay();
    command.args(["bench", "load", "--size", "32", "--batch", "8", "--partial", "--digest", "--threads", "2"]);
    let text = runs(command.arg(dataset).args(more));
    text.lines().find(|line| line.starts_with("digest")).unwrap().to_owned()
}

#[test]
fn originals_are_packed_as_they_are_and_begin_at_whole_pages() {
    let dir = tempdir().unwrap();
    let folder = common::folder(dir.path(), &common::samples(40, 3));
    fs::create_dir(folder.join("class7")).unwrap();
    let expected = but_for_places(samples(&*open(&folder).unwrap()));
    let mut written = Vec::new();
    for threads in ["1", "3"] {
        let out = dir.path().join(format!("out-{threads}"));
        let json = dir.path().join("result.json");
        let more = ["--jpeg", "--shard-samples", "15", "--threads", threads, "--json"];
        let text = runs(pack(&folder, &out).args(more).arg(&json));
        assert!(text.contains("40 images in 3 shards") && text.contains("forebay index"), "{text}");
        let source = open(&out).unwrap();
        let found = samples(&*source);
        assert!(found.iter().all(|(.., offset, _)| offset.is_multiple_of(4096)));
        assert_eq!(but_for_places(found), expected);
        assert_eq!(source.notes(), &[] as &[String]);
        assert_eq!(fs::read_to_string(out.join("classes.txt")).unwrap(), "class0\nclass1\nclass2\nclass7\n");
        let result: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        let number = |name: &str| result[name].as_u64().unwrap();
        let bytes: u64 = expected.iter().map(|(.., bytes)| bytes.len() as u64).sum();
        assert_eq!((number("images"), number("shards"), number("image_bytes")), (40, 3, bytes));
        let shards = files(&out).into_iter().filter(|(name, _)| name.ends_with(".tar"));
        assert_eq!(number("shard_bytes"), shards.map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
        // What is no padding is a block for each header, the labels, and the ends.
        let rounded: u64 = expected.iter().map(|(.., bytes)| (bytes.len() as u64).next_multiple_of(512)).sum();
        assert_eq!(number("shard_bytes") - number("padding_bytes"), rounded + 40 * (512 + 1024) + 3 * 1024);
        written.push(files(&out));
    }
    assert!(written[0] == written[1], "the number of threads shows");
    assert_eq!(
        written[0].keys().collect::<Vec<_>>(),
        ["classes.txt", "shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    );
    let packed = dir.path().join("out-1");
    assert_eq!(digest(&packed, &[]), digest(&folder, &[]));
    // Another reader: every name once, an image and its label side by side.
    let mut names = Vec::new();
    for shard in ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"] {
        let mut archive = tar::Archive::new(fs::File::open(packed.join(shard)).unwrap());
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert!(entry.header().entry_type().is_file());
            names.push(entry.path().unwrap().display().to_string());
        }
    }
    for (pair, (key, ..)) in names.chunks(2).zip(&expected) {
        let mut pair = pair.to_vec();
        pair.sort_unstable();
        assert_eq!(pair, [format!("{key}.cls"), format!("{key}.jpg")]);
    }
    assert_eq!(names.len(), 80);
    // In some samples the label comes first, or there would be nothing to choose.
    let first = names.chunks(2).filter(|pair| pair[0].ends_with(".cls")).count();
    assert!((1..40).contains(&first), "{first}");
}

#[test]
fn pixels_are_packed_as_a_loader_resizes_them_and_begin_at_whole_pages() {
    let dir = tempdir().unwrap();
    let mut pictures = common::samples(12, 3);
    pictures.push(("class2/grey".into(), 2, raw_support::pictures(3, None)[2].bytes(Stored::Png)));
    let folder = common::folder(dir.path(), &pictures);
    let (square, exact, short) = (dir.path().join("square"), dir.path().join("exact"), dir.path().join("short"));
    runs(pack(&folder, &square).args(["--raw", "24", "--square"]));
    runs(pack(&folder, &exact).args(["--raw", "40x24", "--align", "16384", "--threads", "1", "--index"]));
    runs(pack(&folder, &short).args(["--raw", "24"]));
    for (out, size, align) in [
        (&square, Some(Size::square(24)), 4096),
        (&exact, Some(Size { height: 40, width: 24 }), 16384),
        (&short, None, 4096),
    ] {
        let source = open(out).unwrap();
        assert_eq!(source.len(), 13);
        let resized = size.map(|size| tensors(&folder, Geometry::Resize { size }));
        let packed = tensors(out, Geometry::None);
        for (number, (key, label, offset, bytes)) in samples(&*source).into_iter().enumerate() {
            let facts = npy::parse(&bytes).unwrap();
            assert_eq!((offset + facts.offset) % align, 0, "{key}");
            let Shape { height, width, channels } = facts.shape;
            assert_eq!((channels, label), (3, pictures[number].1 as i64), "{key}");
            match size {
                Some(size) => assert_eq!((height, width), (size.height, size.width)),
                None => assert!(height.min(width) == 24 && height.max(width) < 48, "{height}x{width}"),
            }
            assert_eq!(packed[number], bytes[facts.offset as usize..], "{key}");
            assert!(resized.as_ref().is_none_or(|resized| resized[number] == packed[number]), "{key}");
        }
    }
    let more = ["--size", "16", "--augment", "imagenet-train"];
    let required = digest(&exact, &[&more[..], &["--index", "required"]].concat());
    assert_eq!(required, digest(&exact, &[&more[..], &["--index", "off"]].concat()));
    runs(forebay().arg("verify").arg(&exact));
}

/// The pixels of every image of a data set, in order.
fn tensors(dataset: &Path, geometry: Geometry) -> Vec<Vec<u8>> {
    let augment = Augment::builder(geometry).dtype(DType::U8).layout(Layout::Nhwc).build().unwrap();
    let builder = Loader::open(dataset).augment(augment).batch_size(1).threads(1);
    let mut loader = builder.shuffle(Shuffle::Sequential).build().unwrap();
    loader.epoch(0).map(|batch| batch.unwrap().image(0).unwrap().bytes.to_vec()).collect()
}

#[test]
fn a_bad_sample_ends_it_without_a_trace_or_is_left_out_by_name() {
    let dir = tempdir().unwrap();
    let folder = common::folder(dir.path(), &common::samples(10, 2));
    fs::write(folder.join("class1/00007.jpg"), b"no image at all").unwrap();
    for form in [&["--jpeg"][..], &["--raw", "16"]] {
        let out = dir.path().join(form.concat());
        let stderr = fails(pack(&folder, &out).args(form).args(["--shard-samples", "2"]), 1);
        assert!(stderr.contains("class1/00007 (") && stderr.contains("00007.jpg"), "{stderr}");
        assert!(files(&out).is_empty(), "{:?}", files(&out).keys());
        let text = runs(pack(&folder, &out).args(form).arg("--skip-bad"));
        assert!(text.contains("9 images in 1 shard,"), "{text}");
        let skipped: Vec<_> = text.lines().filter(|line| line.starts_with("skipped")).collect();
        assert!(skipped.len() == 1 && skipped[0].contains("class1/00007"), "{text}");
        assert_eq!(open(&out).unwrap().len(), 9);
    }
    let all_bad = dir.path().join("bad");
    fs::create_dir(&all_bad).unwrap();
    fs::write(all_bad.join("a.jpg"), b"no image").unwrap();
    let out = dir.path().join("none");
    assert!(fails(pack(&all_bad, &out).args(["--jpeg", "--skip-bad"]), 1).contains("none of the 1"));
    assert!(files(&out).is_empty());
}

#[test]
fn shards_keep_their_bounds() {
    let dir = tempdir().unwrap();
    let folder = common::folder(dir.path(), &common::samples(30, 2));
    let largest = samples(&*open(&folder).unwrap()).iter().map(|(.., bytes)| bytes.len()).max().unwrap();
    let bound = 3 * largest as u64 + 20_000;
    let out = dir.path().join("out");
    runs(pack(&folder, &out).args(["--jpeg", "--shard-bytes", &bound.to_string()]));
    let sizes: Vec<_> = files(&out).into_iter().filter(|(name, _)| name.ends_with(".tar")).collect();
    assert!((8..=15).contains(&sizes.len()), "{}", sizes.len());
    assert!(sizes.iter().all(|(_, bytes)| bytes.len() as u64 <= bound));
    assert_eq!(open(&out).unwrap().len(), 30);
    let single = dir.path().join("single");
    runs(pack(&folder, &single).args(["--jpeg", "--shard-bytes", "1"]));
    assert_eq!(open(&single).unwrap().len(), 30);
    assert_eq!(files(&single).len(), 31);
}

#[test]
fn every_form_of_data_set_and_of_image_is_packed() {
    let dir = tempdir().unwrap();
    let shape = Shape { height: 30, width: 40, channels: 3 };
    let pictures = raw_support::pictures(7, Some(shape));
    for stored in [Stored::Png, Stored::Npy, Stored::Raw] {
        let shards = raw_support::shards(dir.path(), &pictures, stored);
        let out = dir.path().join(format!("packed-{}", stored.extension()));
        runs(pack(&shards, &out).args(["--jpeg", "--raw-shape", "30x40x3"]));
        assert_eq!(but_for_places(samples(&*open(&out).unwrap())), but_for_places(samples(&*open(&shards).unwrap())));
        let more = ["--raw-shape", "30x40x3"];
        let expected = digest(&raw_support::folder(dir.path(), &pictures, Stored::Png), &[]);
        assert_eq!(digest(&out, &more), expected, "{stored:?}");
        let pixels = dir.path().join(format!("pixels-{}", stored.extension()));
        runs(pack(&shards, &pixels).args(["--raw", "30x40", "--raw-shape", "30x40x3"]));
        // Of the size that they have, pixels stay what they are.
        assert_eq!(digest(&pixels, &[]), expected, "{stored:?}");
    }
    let list = dir.path().join("list.txt");
    fs::write(&list, "folder-png/class0/00000.png 5\nfolder-png/class0/00001.png\n").unwrap();
    let out = dir.path().join("listed");
    runs(pack(&list, &out).arg("--jpeg"));
    let labels: Vec<_> = samples(&*open(&out).unwrap()).into_iter().map(|(_, label, ..)| label).collect();
    assert_eq!(labels, [5, -1]);
    assert!(!out.join("classes.txt").exists());
}

#[test]
fn names_that_an_archive_cannot_have_are_changed_and_never_two_made_one() {
    let dir = tempdir().unwrap();
    let long = "x".repeat(120);
    let names = ["v1.0/photo.final", "v1.0/photo", &format!("{long}/{long}/a")];
    let pictures: Vec<_> = (0..3).map(|number| (names[number].to_owned(), 0, common::jpeg(number))).collect();
    let folder = dir.path().join("folder");
    for (name, _, bytes) in &pictures {
        let path = folder.join(format!("{name}.jpg"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let out = dir.path().join("out");
    let text = runs(pack(&folder, &out).arg("--jpeg"));
    assert!(text.contains("renamed       1"), "{text}");
    let found = samples(&*open(&out).unwrap());
    let keys: Vec<_> = found.iter().map(|(key, ..)| key.as_str()).collect();
    assert_eq!(keys, ["v1.0/photo_final", "v1.0/photo", names[2]]);
    assert!(found.iter().all(|(.., offset, _)| offset.is_multiple_of(4096)));
    let mut archive = tar::Archive::new(fs::File::open(out.join("shard-000000.tar")).unwrap());
    let mut read = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        read.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    assert_eq!(read[&format!("{}.jpg", names[2])], pictures[2].2);
    assert_eq!(read[&format!("{}.cls", names[2])], b"1");
    fs::write(folder.join("v1.0/photo_final.jpg"), common::jpeg(4)).unwrap();
    let again = dir.path().join("again");
    let stderr = fails(pack(&folder, &again).arg("--jpeg"), 1);
    assert!(stderr.contains("photo_final") && stderr.contains("help: "), "{stderr}");
}

#[test]
fn wrong_commands_exit_with_2() {
    let dir = tempdir().unwrap();
    let folder = common::folder(dir.path(), &common::samples(2, 1));
    let out = dir.path().join("out");
    for arguments in [
        &[][..],
        &["--jpeg", "--raw", "5"],
        &["--raw", "0"],
        &["--raw", "5x"],
        &["--raw", "99999"],
        &["--raw", "5x5", "--square"],
        &["--jpeg", "--square"],
        &["--jpeg", "--align", "1000"],
        &["--jpeg", "--align", "256"],
        &["--jpeg", "--shard-bytes", "0"],
        &["--jpeg", "--shard-samples", "0"],
        &["--jpeg", "--threads", "0"],
    ] {
        fails(pack(&folder, &out).args(arguments), 2);
        assert!(!out.exists(), "{arguments:?}");
    }
    let stderr = fails(pack(&folder, &folder).arg("--jpeg"), 2);
    assert!(stderr.contains("not empty") && stderr.contains("help: "), "{stderr}");
    assert!(fails(pack(dir.path().join("none"), &out).arg("--jpeg"), 1).contains("none"));
}
