//! `forebay datagen`: the same seed gives the same samples, whatever the threads and the layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::cli_support::{fails, forebay, runs};

/// Files by their path relative to `dir`, hidden ones left out.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                walk(root, &path, found);
            } else if !name.starts_with('.') {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

/// Entries of the shards in the order in which they lie there.
fn tar_entries(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut entries = vec![];
    for bytes in files(dir).into_values() {
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = vec![];
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            entries.push((name, content));
        }
    }
    entries
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let [one, four, other] = ["one", "four", "other"].map(|name| dir.path().join(name));
    runs(forebay().arg("datagen").arg(&one).args(["--count", "13", "--classes", "3", "--threads", "1"]));
    runs(forebay().arg("datagen").arg(&four).args(["--count", "13", "--classes", "3", "--threads", "4"]));
    runs(forebay().arg("datagen").arg(&other).args(["--count", "13", "--classes", "3", "--seed", "1"]));
    assert_eq!(files(&one).len(), 13);
    assert_eq!(files(&one), files(&four));
    assert!(files(&one).values().zip(files(&other).values()).all(|(a, b)| a != b), "another seed, other pictures");
}

#[test]
fn folder_and_tar_hold_the_same_samples_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, shards) = (dir.path().join("folder"), dir.path().join("shards"));
    let same = ["--count", "11", "--classes", "4", "--long-side", "120"];
    runs(forebay().arg("datagen").arg(&folder).args(same));
    runs(forebay().arg("datagen").arg(&shards).args(same).args(["--format", "tar", "--shard-samples", "5"]));

    let names: Vec<_> = files(&shards).into_keys().collect();
    assert_eq!(names, ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]);
    let entries = tar_entries(&shards);
    let from_tar: Vec<_> = entries.iter().filter(|(name, _)| name.ends_with(".jpg")).cloned().collect();
    let from_folder: Vec<_> = files(&folder).into_iter().collect();
    assert_eq!(from_tar, from_folder);

    // The label of a class folder is its place among the sorted names.
    let mut classes: Vec<_> = from_folder.iter().map(|(name, _)| name.split('/').next().unwrap()).collect();
    classes.dedup();
    assert_eq!(classes.len(), 4);
    for pair in entries.chunks_exact(2) {
        let (class, _) = pair[0].0.split_once('/').unwrap();
        let label: usize = str::from_utf8(&pair[1].1).unwrap().parse().unwrap();
        assert_eq!(pair[1].0, pair[0].0.replace(".jpg", ".cls"));
        assert_eq!(classes[label], class);
    }
}

#[test]
fn a_larger_set_contains_the_smaller_one() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (dir.path().join("small"), dir.path().join("large"));
    let same = ["--classes", "2", "--long-side", "64"];
    runs(forebay().arg("datagen").arg(&small).args(same).args(["--count", "4"]));
    runs(forebay().arg("datagen").arg(&large).args(same).args(["--count", "10"]));
    let large = files(&large);
    assert!(files(&small).iter().all(|(name, bytes)| large.get(name) == Some(bytes)));
}

#[test]
fn an_interrupted_run_is_continued_and_a_finished_one_left_alone() {
    for format in ["folder", "tar"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let again = || {
            let same = ["--count", "9", "--long-side", "64", "--shard-samples", "3", "--format", format];
            runs(forebay().arg("datagen").arg(&out).args(same))
        };
        again();
        let whole = files(&out);
        assert!(again().contains("already holds"), "{format}");

        // As an interruption leaves it: some files missing, and the record says that it is not complete.
        let (lost, _) = whole.iter().nth(1).unwrap();
        fs::remove_file(out.join(lost)).unwrap();
        let manifest = out.join(".forebay-datagen.json");
        let text = fs::read_to_string(&manifest).unwrap();
        let interrupted = text.replace("\"complete\": true", "\"complete\": false");
        assert_ne!(text, interrupted);
        fs::write(&manifest, interrupted).unwrap();
        again();
        assert_eq!(files(&out), whole, "{format}");
    }
}

#[test]
fn a_directory_with_other_content_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let stderr = fails(forebay().arg("datagen").arg(dir.path()), 2);
    assert!(stderr.contains("is not empty") && stderr.contains("help: "), "{stderr}");
    assert_eq!(files(dir.path()).len(), 1);

    let made = dir.path().join("made");
    runs(forebay().arg("datagen").arg(&made).args(["--count", "2", "--long-side", "32"]));
    let stderr = fails(forebay().arg("datagen").arg(&made).args(["--count", "3", "--long-side", "32"]), 2);
    assert!(stderr.contains("other options"), "{stderr}");
}

#[test]
fn the_bytes_follow_the_law_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for (bits, name) in [("2", "two"), ("6", "six")] {
        let out = dir.path().join(name);
        let args = ["--count", "40", "--size", "320x240", "--bits-per-pixel", bits];
        runs(forebay().arg("datagen").arg(&out).args(args));
        let files = files(&out);
        let mean_bytes = files.values().map(Vec::len).sum::<usize>() as f64 / files.len() as f64;
        let mean_bits = mean_bytes * 8.0 / (320.0 * 240.0);
        let asked: f64 = bits.parse().unwrap();
        assert!((0.7..1.3).contains(&(mean_bits / asked)), "asked for {bits}, got {mean_bits:.2} bits per pixel");
    }
}

#[test]
fn pictures_of_every_kind_are_decoded_whole() {
    let dir = tempfile::tempdir().unwrap();
    for (number, args) in [
        vec!["--sampling", "420", "--size", "1x1"],
        vec!["--sampling", "444", "--size", "9x17", "--restart-interval", "1"],
        vec!["--sampling", "420", "--size", "33x31", "--restart-interval", "2"],
        vec!["--sampling", "420", "--size", "2000x1500", "--bits-per-pixel", "2"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = dir.path().join(number.to_string());
        runs(forebay().arg("datagen").arg(&out).args(["--count", "2", "--classes", "1"]).args(&args));
        for name in files(&out).keys() {
            let report = runs(forebay().arg("decode").arg(out.join(name)));
            assert!(report.contains("decoded by the baseline JPEG decoder"), "{args:?}: {report}");
            assert!(report.contains(args[3]), "{args:?}: {report}");
        }
    }
}

#[test]
fn the_preview_shows_the_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let sheet = dir.path().join("sheet.png");
    let out = dir.path().join("out");
    runs(forebay().arg("datagen").arg(&out).args(["--count", "5", "--long-side", "300", "--preview"]).arg(&sheet));
    let image = image::open(&sheet).unwrap().into_rgb8();
    assert!(image.width() > 600 && image.height() > 200, "{:?}", image.dimensions());
    let first = image.get_pixel(0, 0);
    assert!(image.pixels().filter(|pixel| *pixel != first).count() > 100_000);
}
