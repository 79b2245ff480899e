//! The contract on memory: whatever the images are, the process takes no more than was allowed.

mod common;
mod memory_support;

use std::path::Path;
use std::process::Command;

use forebay::batch::Digest;
use forebay::order::{LastBatch, Shuffle};
use forebay::{Augment, ErrorKind, Loader};
use memory_support::{flat_planes, flat_png, flat_progressive, flat_webp};

/// What the child is told: the data set and the limit in MiB, if there is one.
const DATA_SET: &str = "FOREBAY_TEST_MEMORY_DATA_SET";
const LIMIT: &str = "FOREBAY_TEST_MEMORY_MIB";

const THREADS: usize = 6;

/// Images of 5 megapixels in a row.
const LARGE: usize = 24;

/// For one image of 100 megapixels, and no more than one.
const LIMIT_MIB: usize = 740;

/// Thousands of small images with large ones between; then large ones alone, one after another, of every kind that is decoded
/// as a whole; then small ones again.
fn adversarial(root: &Path) -> String {
    let small: Vec<_> = (0..20).map(common::jpeg).collect();
    let middle = [
        ("jpg", flat_progressive(1500, 1400, 3)),
        ("webp", flat_webp(1800, 1200)),
        ("png", flat_png(1900, 1300)),
        ("jpg", flat_planes(2600, 1900)),
    ];
    let giants = [
        ("jpg", flat_planes(9_000, 9_000)),
        ("jpg", flat_progressive(10_000, 9_900, 1)),
        ("png", flat_png(10_000, 9_900)),
        ("webp", flat_webp(8_000, 8_000)),
    ];
    let large = flat_webp(2_300, 2_200);
    let path = root.join("mix.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).expect("shard"));
    let mut count = 0;
    let mut append = |extension: &str, bytes: &[u8]| {
        for (extension, bytes) in [(extension, bytes), ("cls", &b"3"[..])] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{count:06}.{extension}"), bytes).expect("entry");
        }
        count += 1;
    };
    for number in 0..1500 {
        append("jpg", &small[number % small.len()]);
        if number % 25 == 0 {
            let (extension, bytes) = &middle[number / 25 % middle.len()];
            append(extension, bytes);
        }
    }
    // An allocator that keeps what was freed keeps most of it in pieces of this size.
    for _ in 0..LARGE {
        append("webp", &large);
    }
    // Scratch of our own decoder, in every thread; then what libraries take beside it.
    for number in 0..2 * THREADS {
        let (extension, bytes) = if number < THREADS { &giants[0] } else { &giants[1 + number % 3] };
        append(extension, bytes);
    }
    for number in 0..1500 {
        append("jpg", &small[number % small.len()]);
    }
    tar.finish().expect("shard's end");
    path.display().to_string()
}

fn status_kib(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Loads the data set in a process of its own, and prints its digest and by how much it grew at most.
#[test]
#[ignore = "the test below runs it, in a process of its own"]
fn child() {
    let Ok(data_set) = std::env::var(DATA_SET) else { return };
    let before = status_kib("VmRSS:");
    let mut builder = Loader::open(data_set)
        .augment(Augment::imagenet_train(64).build().expect("augment"))
        .shuffle(Shuffle::Sequential)
        .last_batch(LastBatch::Partial)
        .threads(THREADS)
        .batch_size(32);
    if let Some(mib) = std::env::var(LIMIT).ok().and_then(|text| text.parse().ok()) {
        builder = builder.memory_mib(mib);
    }
    let mut loader = builder.build().expect("loader");
    let mut digest = Digest::default();
    for batch in loader.epoch(0) {
        digest.update(&batch.expect("batch")).expect("digest");
    }
    println!("{}", loader.report());
    let grown = status_kib("VmHWM:") - before;
    println!("result {} {} {grown}", digest.hex(), loader.report().images);
}

/// Digest, images and MiB of a run in another process.
fn run(data_set: &str, limit_mib: Option<usize>) -> (String, u64, usize) {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "child", "--ignored", "--nocapture"]).env(DATA_SET, data_set);
    if let Some(mib) = limit_mib {
        command.env(LIMIT, mib.to_string());
    }
    let output = command.output().expect("a child");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("result ")).expect("a result");
    let mut words = line.split(' ');
    let digest = words.next().expect("a digest").to_owned();
    let mut number = || words.next().expect("a number").parse::<u64>().expect("a number");
    let (images, grown_kib) = (number(), number());
    (digest, images, (grown_kib as usize).div_ceil(1024))
}

#[test]
fn an_adversarial_mix_stays_within_the_limit_and_is_the_same() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = adversarial(root.path());
    let (digest, images, grown_mib) = run(&data_set, Some(LIMIT_MIB));
    assert_eq!(images as usize, 3000 + 60 + LARGE + 2 * THREADS);
    assert!(grown_mib <= LIMIT_MIB, "grew by {grown_mib} MiB, and {LIMIT_MIB} were allowed");
    let (free_digest, free_images, free_mib) = run(&data_set, None);
    println!("{grown_mib} MiB of {LIMIT_MIB}; {free_mib} MiB without a limit");
    assert_eq!((free_digest, free_images), (digest, images));
}

#[test]
fn an_image_that_never_fits_is_an_error_with_numbers() {
    let root = tempfile::tempdir().expect("folder");
    let folder = root.path().join("data");
    std::fs::create_dir(&folder).expect("folder");
    std::fs::write(folder.join("a.jpg"), common::jpeg(1)).expect("sample");
    std::fs::write(folder.join("b.webp"), flat_webp(10_000, 10_000)).expect("sample");
    let load = |limit_mib: u64| {
        let mut loader = Loader::open(&folder)
            .augment(Augment::imagenet_train(32).build().expect("augment"))
            .shuffle(Shuffle::Sequential)
            .threads(2)
            .batch_size(1)
            .memory_mib(limit_mib)
            .build()
            .expect("loader");
        loader.epoch(0).map(|batch| batch.map(|batch| batch.len())).collect::<Vec<_>>()
    };
    let results = load(64);
    assert_eq!(*results[0].as_ref().expect("the small one"), 1);
    let error = results[1].as_ref().expect_err("the large one");
    assert_eq!((error.kind(), results.len()), (ErrorKind::LimitExceeded, 2));
    let (text, remedy) = (error.to_string(), error.remedy().expect("a remedy"));
    for words in ["b.webp", "10000x10000", "WebP library", "MiB for one image"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(remedy.contains("--memory-mib"), "{remedy}");
    // What it says is enough, beside what the rest takes.
    let needed: u64 =
        text.split("takes up to ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    assert!(load(needed + 128).iter().all(Result::is_ok));
}
