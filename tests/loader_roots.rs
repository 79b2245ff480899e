//! The promises of data sets on several file systems: read at once, counted apart, held to their limits; the batches the
//! same.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay::batch::Digest;
use forebay::engine::{Direct, EngineKind};
use forebay::report::Stage;
use forebay::source::IndexMode;
use forebay::storage::RateLimits;
use forebay::{Augment, Loader, LoaderBuilder};

/// Two folders with half of the samples each, on two file systems if this machine has as many.
struct Spread {
    _dirs: [tempfile::TempDir; 2],
    parts: [PathBuf; 2],
    is_spread: bool,
}

impl Spread {
    fn new(samples: usize) -> Self {
        use std::os::unix::fs::MetadataExt;
        let here = tempfile::tempdir().expect("folder");
        let device = |path: &Path| path.metadata().map(|file| file.dev()).ok();
        let elsewhere = ["/dev/shm", "/run", "/tmp"].into_iter().find_map(|place| {
            let is_other = device(Path::new(place)) != device(here.path());
            is_other.then(|| tempfile::tempdir_in(place).ok()).flatten()
        });
        let is_spread = elsewhere.is_some();
        let there = elsewhere.unwrap_or_else(|| tempfile::tempdir().expect("folder"));
        let all = common::samples(samples, 2);
        let parts = [&here, &there].map(|dir| dir.path().to_owned());
        let parts = [common::folder(&parts[0], &all[..samples / 2]), common::folder(&parts[1], &all[samples / 2..])];
        if !is_spread {
            println!("one file system only: what tells roots apart is skipped");
        }
        Self { _dirs: [here, there], parts, is_spread }
    }

    fn open(&self) -> LoaderBuilder {
        let augment = Augment::imagenet_train(16).build().expect("augmentation");
        Loader::open_all(&self.parts).augment(augment).batch_size(8).threads(2).arena_bytes(1 << 20).direct(Direct::Off)
    }
}

fn limits(text: &str) -> RateLimits {
    text.parse().expect("limits")
}

fn digest(builder: LoaderBuilder) -> (String, forebay::Report) {
    let mut loader = builder.build().expect("loader");
    let mut digest = Digest::default();
    for batch in loader.epochs(0..2) {
        digest.update(&batch.expect("batch")).expect("on the host");
    }
    (digest.hex(), loader.report())
}

#[test]
fn neither_roots_nor_limits_nor_depth_change_a_batch() {
    let spread = Spread::new(48);
    // The same samples in one folder.
    let whole = tempfile::tempdir().expect("folder");
    let folder = common::folder(whole.path(), &common::samples(48, 2));
    let augment = Augment::imagenet_train(16).build().expect("augmentation");
    let (expected, _) = digest(Loader::open(&folder).augment(augment).batch_size(8).threads(2));
    let (got, report) = digest(spread.open());
    assert_eq!(got, expected, "two folders, one of each class, are the folder of both classes");
    assert_eq!(report.roots.iter().map(|root| root.reads).sum::<u64>(), 96);
    assert_eq!(report.roots.iter().map(|root| root.bytes).sum::<u64>(), report.bytes_read);
    if spread.is_spread {
        assert_eq!(report.roots.len(), 2);
        assert!(report.roots.iter().all(|root| root.reads == 48 && root.depth_max >= 1 && root.latency_p99_us > 0));
        assert!(report.skew().is_some_and(|skew| skew < 2.0), "{report}");
        assert!(report.to_string().contains(&format!("root          {}", report.roots[1].name)), "{report}");
    }
    for depth in [1, 2, 3, 7] {
        for engine in [EngineKind::Auto, EngineKind::Pread] {
            assert_eq!(digest(spread.open().depth(depth).engine(engine)).0, expected, "{depth} by {engine}");
        }
    }
    let slow = format!("50,{}=0.8", spread.parts[1].display());
    assert_eq!(digest(spread.open().limit_mbps(limits(&slow))).0, expected, "limited");
    assert_eq!(digest(spread.open().slots(5).limit_mbps(limits("2")).depth(3)).0, expected, "limited, few reads");
}

#[test]
fn a_class_that_several_folders_have_is_one_class() {
    let (one, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    for (root, classes) in [(&one, ["cat", "eel"]), (&other, ["bee", "cat"])] {
        for class in classes {
            std::fs::create_dir_all(root.path().join(class)).expect("class");
            std::fs::write(root.path().join(class).join("x.jpg"), common::jpeg(class.len())).expect("sample");
        }
    }
    let loader = Loader::open_all([one.path(), other.path()]).batch_size(4).build().expect("loader");
    let source = loader.source();
    assert_eq!(source.classes(), ["bee", "cat", "eel"]);
    let labels: Vec<_> = (0..4).map(|sample| source.label(sample).expect("label")).collect();
    assert_eq!(labels, [1, 2, 0, 1]);
    let mut key = String::new();
    source.key(2, &mut key).expect("key");
    assert_eq!(key, "bee/x");
    assert!(source.extent(4).is_err() && source.label(4).is_err());
    // Shards have numbers, which stay as they are.
    let dir = tempfile::tempdir().expect("folder");
    let shards = common::shards(dir.path(), &common::samples(4, 2), 2);
    let loader = Loader::open_all([one.path().as_os_str(), shards.as_ref()]).batch_size(4).build().expect("loader");
    let labels: Vec<_> = (0..6).map(|sample| loader.source().label(sample).expect("label")).collect();
    assert_eq!(labels, [0, 1, 0, 0, 1, 1]);
    assert!(loader.source().notes().iter().any(|note| note.contains("taken as they are")));
    assert!(Loader::open_all(Vec::<PathBuf>::new()).build().is_err());
}

#[test]
fn an_index_is_built_of_each_data_set_and_used() {
    let spread = Spread::new(32);
    let (expected, _) = digest(spread.open().index(IndexMode::Off));
    let (built, _) = digest(spread.open().index(IndexMode::Build));
    let (used, report) = digest(spread.open().index(IndexMode::Required));
    assert_eq!((&built, &used), (&expected, &expected));
    assert!(report.fallbacks.is_empty() && spread.parts.iter().all(|part| part.join(".forebay").is_dir()), "{report}");
}

#[test]
fn a_limit_is_held_within_five_percent_and_called_by_its_name() {
    let spread = Spread::new(48);
    let mut loader = spread.open().limit_mbps(limits("0.5")).build().expect("loader");
    let started = Instant::now();
    for batch in loader.epochs(0..u64::MAX) {
        batch.expect("batch");
        if started.elapsed() > Duration::from_millis(2500) {
            break;
        }
    }
    let report = loader.report();
    for root in &report.roots {
        // The slower half of a batch holds the other up where the halves are not of one size.
        let least = if report.roots.len() == 1 { 0.475 } else { 0.42 };
        assert!((least..=0.525).contains(&root.mbps), "{report}");
        assert!(root.limited > root.busy, "{report}");
    }
    let fastest = report.roots.iter().map(|root| root.mbps).fold(0.0, f64::max);
    assert!(fastest >= 0.475, "{report}");
    assert_eq!(report.bottleneck(), Stage::Limit, "{report}");
    assert!(report.verdict().starts_with("rate limit is the bottleneck"), "{report}");
    let storage = report.stages[0];
    assert!(storage.limited > storage.starved && storage.stage == Stage::Storage, "{report}");
    assert!(report.held_up_by().is_none(), "{report}");
}

#[test]
fn a_slow_root_keeps_no_other_from_reading_ahead() {
    let spread = Spread::new(128);
    if !spread.is_spread {
        return;
    }
    // Some 20 reads a second of one root; the other is as fast as it can be.
    let slow = format!("{}=0.1", spread.parts[0].display());
    let mut loader = spread.open().slots(8).depth(4).limit_mbps(limits(&slow)).build().expect("loader");
    let mut epochs = loader.epoch(0);
    epochs.next().expect("a batch").expect("batch");
    drop(epochs);
    let report = loader.report();
    let reads = |name: &Path| {
        let root = report.roots.iter().find(|root| name.starts_with(&root.name) && root.name != "/");
        root.or_else(|| report.roots.iter().find(|root| root.name == "/")).map_or(0, |root| root.reads)
    };
    let (held, free) = (reads(&spread.parts[0]), reads(&spread.parts[1]));
    assert!(free >= held + 10, "{held} of the slow root, {free} of the other\n{report}");
}
