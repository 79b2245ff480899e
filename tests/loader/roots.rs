//! The promises of data sets on several file systems: read at once, counted apart, held to their limits; the batches the
//! same.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay::batch::Digest;
use forebay::engine::{
    Completion, Direct, Engine, EngineKind, EngineOptions, Outcome, SimFault, SimFaults, SimOptions,
};
use forebay::memory::Arena;
use forebay::report::{Report, Stage};
use forebay::source::IndexMode;
use forebay::storage::RateLimits;
use forebay::{Augment, ErrorKind, Loader, LoaderBuilder};

use crate::common;

/// Two folders with half of the samples each, on two file systems if this machine has as many.
struct Spread {
    _dirs: [tempfile::TempDir; 2],
    parts: [PathBuf; 2],
    is_spread: bool,
}

impl Spread {
    fn new(samples: usize) -> Self {
        let all = common::samples(samples, 2);
        Self::of([&all[..samples / 2], &all[samples / 2..]])
    }

    fn of(samples: [&[(String, usize, Vec<u8>)]; 2]) -> Self {
        use std::os::unix::fs::MetadataExt;
        let here = tempfile::tempdir().expect("folder");
        let device = |path: &Path| path.metadata().map(|file| file.dev()).ok();
        let elsewhere = ["/dev/shm", "/run", "/tmp"].into_iter().find_map(|place| {
            let is_other = device(Path::new(place)) != device(here.path());
            is_other.then(|| tempfile::tempdir_in(place).ok()).flatten()
        });
        let is_spread = elsewhere.is_some();
        let there = elsewhere.unwrap_or_else(|| tempfile::tempdir().expect("folder"));
        let parts = [common::folder(here.path(), samples[0]), common::folder(there.path(), samples[1])];
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
    let run = || {
        let mut loader = spread.open().limit_mbps(limits("0.5")).build().expect("loader");
        let started = Instant::now();
        for batch in loader.epochs(0..u64::MAX) {
            batch.expect("batch");
            if started.elapsed() > Duration::from_millis(2500) {
                break;
            }
        }
        let report = loader.report();
        assert!(report.roots.iter().all(|root| root.mbps <= 0.525), "{report}");
        report
    };
    let is_reached = |report: &Report| {
        // The slower half of a batch holds the other up where the halves are not of one size.
        let least = if report.roots.len() == 1 { 0.475 } else { 0.42 };
        let has_most = report.roots.iter().all(|root| root.mbps >= least && root.limited > root.busy);
        let storage = report.stages[0];
        has_most
            && report.roots.iter().any(|root| root.mbps >= 0.475)
            && storage.stage == Stage::Storage
            && storage.limited > storage.starved
    };
    // More than the limit it may never be. All of it takes processors that have the time.
    let mut report = run();
    for _ in 0..4 {
        if !is_reached(&report) {
            report = run();
        }
    }
    assert!(is_reached(&report), "{report}");
    assert_eq!(report.bottleneck(), Stage::Limit, "{report}");
    assert!(report.verdict().starts_with("rate limit is the bottleneck"), "{report}");
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

/// A storage whose opens and reads hang, half of them.
fn hanging() -> SimOptions {
    SimOptions { seed: 1, faults: SimFaults::NONE.with(SimFault::Hang), one_in: 2 }
}

/// Samples of which none can be opened there, and such that can be opened and read.
fn hung_and_sound(count: usize) -> [Vec<(String, usize, Vec<u8>)>; 2] {
    let images: Vec<_> = (0..8).map(common::jpeg).collect();
    let sample = |n: usize| (format!("class{}/{n:05}", n % 2), n % 2, images[n % images.len()].clone());
    let options = EngineOptions { sim: hanging(), read_timeout: Duration::from_secs(1), ..EngineOptions::default() };
    let arena = Arena::new(8 << 20).expect("memory");
    let (mut engine, _) = Engine::new(EngineKind::Sim, &arena, 4096, options).expect("an engine");
    let root = tempfile::tempdir().expect("folder");
    let mut found = [vec![], vec![]];
    for n in 0.. {
        let sample = sample(n);
        let path = common::folder(root.path(), std::slice::from_ref(&sample)).join(&sample.0).with_extension("jpg");
        let mut completed = |begin: &dyn Fn(&mut Engine)| {
            let mut completions = vec![];
            begin(&mut engine);
            engine.reap(1, Duration::from_secs(60), &mut completions).expect("an engine");
            completions.pop().map(|Completion { result, .. }| result.ok())
        };
        let kind = match completed(&|engine| engine.open(0, &path)) {
            Some(Some(Outcome::Opened(file))) => {
                let region = || arena.alloc(sample.2.len()).expect("small").expect("room");
                let read = completed(&|engine| engine.read(0, &file, 0, sample.2.len(), region()));
                if matches!(read, Some(Some(_))) { 1 } else { continue }
            }
            _ => 0,
        };
        if found[kind].len() < count {
            found[kind].push(sample);
        }
        if found.iter().all(|found| found.len() == count) {
            break;
        }
    }
    found
}

#[test]
fn a_root_that_hangs_leaves_the_others_all_that_pay_them() {
    let [hung, sound] = hung_and_sound(256);
    let spread = Spread::of([&hung, &sound]);
    if !spread.is_spread {
        return;
    }
    let begin = Instant::now();
    // Room for all of them, so that decoding, which takes real time, holds nothing up.
    let builder = spread.open().batch_size(32).slots(16).depth(64).arena_bytes(8 << 20);
    let mut loader = builder.engine(EngineKind::Sim).sim(hanging()).build().expect("loader");
    let error = loader.epoch(0).find_map(Result::err).expect("no batch is without a sample that hangs");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let report = loader.report();
    let of_part = |part: usize| report.roots.iter().find(|root| spread.parts[part].starts_with(&root.name));
    let (hung, root) = (of_part(0).expect("what hangs is told"), of_part(1).expect("the other was read"));
    assert_eq!(report.roots.len(), 2, "{report}");
    assert!(hung.reads == 0 && hung.failed > 0 && root.failed == 0, "{report}");
    // All that the slots have room for, and more in flight than it began with: so many for itself, not shared with what hangs.
    assert!(root.reads >= 240 && root.depth_max >= 16, "{report}");
    assert!(begin.elapsed() < Duration::from_secs(60), "no one sleeps");
}

#[test]
fn what_is_asked_again_is_held_to_the_limit_too() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(48, 2));
    let run = |faults| {
        let augment = Augment::imagenet_train(16).build().expect("augmentation");
        let sim = SimOptions { faults, one_in: 1, ..SimOptions::default() };
        let builder = Loader::open(&folder).augment(augment).batch_size(8).threads(2).direct(Direct::Off);
        let builder = builder.engine(EngineKind::Sim).sim(sim).limit_mbps(limits("0.3"));
        let mut loader = builder.build().expect("loader");
        let begin = Instant::now();
        assert_eq!(loader.epoch(0).filter(Result::is_ok).count(), 6);
        let seconds_at_the_limit = loader.report().bytes_read as f64 / 0.3e6;
        begin.elapsed().as_secs_f64() / seconds_at_the_limit
    };
    // Every answer ends anywhere: on average as much is asked again as was asked.
    let (once, again) = (run(SimFaults::NONE), run(SimFaults::NONE.with(SimFault::Short)));
    assert!(once > 0.85 && again > 1.5, "{once} and {again} of the time that the limit takes");
}

/// A shard that cannot be opened fails the samples that wait for it, all at once and not one after the other.
#[test]
fn a_shard_that_hangs_when_it_is_opened_is_waited_for_once() {
    let root = tempfile::tempdir().expect("folder");
    let shards = common::shards(root.path(), &common::samples(24, 2), 24);
    let augment = Augment::imagenet_train(16).build().expect("augmentation");
    let seeds = 0..64;
    let mut hung = 0;
    for seed in seeds {
        let sim = SimOptions { seed, faults: SimFaults::NONE.with(SimFault::Hang), one_in: 2 };
        let builder = Loader::open(&shards).augment(augment).batch_size(24).engine(EngineKind::Sim).sim(sim);
        let mut loader = builder.build().expect("loader");
        let error = loader.epoch(0).find_map(Result::err).expect("one of the reads hangs, if not the open");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        if error.to_string().contains("opening it") {
            hung += 1;
            // Eight samples at once begin.
            assert_eq!(loader.report().timeouts, 3, "{error}");
            assert!(error.sample().is_some_and(|name| name.contains("train-000.tar")), "{error}");
        }
    }
    assert!((16..48).contains(&hung), "{hung}");
}
