//! Two hundred storages that were made up by a seed, an epoch each: the digest that every other engine gives, or the promised
//! error of the sample that was struck, and nothing left behind. A binary of its own, since it counts threads and
//! descriptors.

mod common;
mod loader_index_support;

use std::sync::Arc;
use std::time::Duration;

use forebay::batch::Digest;
use forebay::engine::{Direct, EngineKind, SimFault, SimFaults, SimOptions};
use forebay::jpeg::Grain;
use forebay::{Augment, ErrorKind, Loader, LoaderBuilder};
use loader_index_support::{Indexed, photos};

const SEEDS: u64 = 200;
const SAMPLES: usize = 24;
const BATCH: u64 = 4;

/// What an epoch came to: the digest after each batch, and the error that ended it.
#[derive(Debug, PartialEq)]
struct Epoch {
    digests: Vec<String>,
    error: Option<(ErrorKind, String)>,
}

fn epoch(loader: &mut Loader) -> Epoch {
    let (mut digest, mut digests) = (Digest::default(), vec![]);
    for batch in loader.epoch(1) {
        match batch {
            Ok(batch) => digest.update(&batch).expect("on the host"),
            Err(error) => return Epoch { digests, error: Some((error.kind(), error.to_string())) },
        }
        digests.push(digest.hex());
    }
    Epoch { digests, error: None }
}

/// Small memory, so that it goes round, and more reads at once than samples of a batch.
fn set_up(builder: LoaderBuilder) -> LoaderBuilder {
    let augment = Augment::imagenet_train(24).build().expect("augmentation");
    builder.augment(augment).batch_size(BATCH).threads(2).depth(9).arena_bytes(96 << 10)
}

struct DataSet {
    name: &'static str,
    open: Box<dyn Fn() -> LoaderBuilder>,
    expected: Epoch,
    is_indexed: bool,
}

impl DataSet {
    fn new(name: &'static str, is_indexed: bool, open: impl Fn() -> LoaderBuilder + 'static) -> Self {
        let expected = epoch(&mut set_up(open()).engine(EngineKind::Pread).build().expect("loader"));
        assert_eq!((expected.digests.len(), &expected.error), (SAMPLES / BATCH as usize, &None), "{name}");
        Self { name, open: Box::new(open), expected, is_indexed }
    }

    fn run(&self, sim: SimOptions) -> Epoch {
        let (threads, descriptors) = (common::thread_count(), common::descriptor_count());
        let direct = if sim.seed.is_multiple_of(3) { Direct::Off } else { Direct::Preferred };
        let builder = set_up((self.open)()).engine(EngineKind::Sim).sim(sim).direct(direct);
        let mut loader = builder.read_timeout(Duration::from_secs(3)).build().expect("loader");
        let outcome = epoch(&mut loader);
        let what = format!("{}, seed {} of {}", self.name, sim.seed, sim.faults);
        assert_eq!(loader.bytes_in_flight(), 0, "{what}");
        let report = loader.report();
        let timed_out = matches!(outcome.error, Some((ErrorKind::TimedOut, _)));
        assert!(!timed_out || report.timeouts > 0, "{what}");
        assert!(report.notes.iter().any(|note| note.contains("simulated")), "{what}");
        drop(loader);
        // A thread that was joined may show for a moment.
        for _ in 0..200 {
            if common::thread_count() <= threads {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // One of the run before may have shown when they were counted.
        assert!(common::thread_count() <= threads, "{what}");
        assert_eq!(common::descriptor_count(), descriptors, "{what}");
        outcome
    }

    /// Holds an outcome to what is promised.
    fn check(&self, sim: SimOptions, outcome: &Epoch) {
        let what = format!("{}, seed {} of {}: {:?}", self.name, sim.seed, sim.faults, outcome.error);
        assert!(self.expected.digests.starts_with(&outcome.digests), "{what}: other bytes");
        let Some((kind, text)) = &outcome.error else {
            assert_eq!(outcome.digests.len(), self.expected.digests.len(), "{what}");
            return;
        };
        let has = |fault| sim.faults.has(fault);
        let is_promised = match kind {
            ErrorKind::Io => has(SimFault::EioSticky) || has(SimFault::Open),
            ErrorKind::NotFound => has(SimFault::Open),
            ErrorKind::Truncated => has(SimFault::Truncated),
            ErrorKind::TimedOut | ErrorKind::LimitExceeded => has(SimFault::Hang),
            ErrorKind::Changed => has(SimFault::Replaced) && self.is_indexed,
            _ => false,
        };
        assert!(is_promised, "{what}");
        // Only where all that storage was ever asked for hangs there is no one sample to blame.
        let names_sample = text.contains("sample ") && text.contains("train-0");
        let names_file = text.contains("sample class") && text.contains(".jpg");
        assert!(names_sample || names_file || text.contains("storage hangs"), "{what}");
    }
}

fn data_sets(root: &std::path::Path) -> Vec<DataSet> {
    let samples = common::samples(SAMPLES, 3);
    let folder = common::folder(root, &samples).display().to_string();
    let shards = common::shards(root, &samples, 10);
    let indexed_root = root.join("indexed");
    std::fs::create_dir(&indexed_root).expect("folder");
    let indexed = common::shards(&indexed_root, &photos(SAMPLES, (200, 170), true), 10);
    let indexed = Arc::new(Indexed::open(indexed, Grain::Bits(512)));
    vec![
        DataSet::new("folder", false, move || Loader::open(&folder)),
        DataSet::new("shards", false, move || Loader::open(&shards)),
        DataSet::new("indexed shards", true, move || Loader::of(indexed.clone())),
    ]
}

/// Even seeds have faults that an engine gets over; odd ones any.
fn options(seed: u64) -> SimOptions {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed >> 3;
    let survived = seed.is_multiple_of(2);
    let faults: SimFaults = SimFault::ALL
        .into_iter()
        .filter(|fault| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (!survived || fault.is_survived()) && random >> 33 & 1 == 0
        })
        .collect();
    SimOptions { seed, faults, one_in: if survived { 1 + (seed / 2 % 4) as u32 } else { 4 + (seed / 2 % 40) as u32 } }
}

#[test]
fn two_hundred_seeds_give_the_digest_or_the_promised_error() {
    let root = tempfile::tempdir().expect("folder");
    let data_sets = data_sets(root.path());
    // What every later loader finds there already.
    data_sets.iter().for_each(|data_set| drop(data_set.run(SimOptions::default())));
    let mut errors = std::collections::BTreeMap::new();
    let mut whole = 0;
    for seed in 0..SEEDS {
        let sim = options(seed);
        for data_set in &data_sets {
            let outcome = data_set.run(sim);
            data_set.check(sim, &outcome);
            let is_survived = sim.faults.iter().all(SimFault::is_survived);
            let is_changed = data_set.is_indexed && sim.faults.has(SimFault::Replaced);
            assert!(!is_survived || is_changed || outcome.error.is_none(), "{seed}: {:?}", outcome.error);
            if seed % 10 == 1 {
                assert_eq!(
                    data_set.run(sim).error.map(|(kind, _)| kind),
                    outcome.error.as_ref().map(|(kind, _)| *kind)
                );
            }
            match outcome.error {
                Some((kind, _)) => *errors.entry(kind.name()).or_insert(0) += 1,
                None => whole += 1,
            }
        }
    }
    println!("{whole} whole epochs, errors: {errors:?}");
    for kind in ["Io", "NotFound", "Truncated", "TimedOut", "Changed"] {
        assert!(errors.contains_key(kind), "no seed has met {kind}: {errors:?}");
    }
    assert!(whole > SEEDS as usize, "{whole} of {}", 3 * SEEDS);
}
