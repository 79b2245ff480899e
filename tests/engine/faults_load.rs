//! What can go wrong with storage, by the rows of the fault table, as whoever iterates batches meets it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::engine::{Direct, EngineKind, SimFault, SimFaults, SimOptions};
use forebay::order::Shuffle;
use forebay::source::{self, Extent, Source};
use forebay::{Augment, Batch, Error, ErrorKind, Loader, LoaderBuilder, Result};

use crate::common;

const SAMPLES: usize = 32;
const BATCH: u64 = 4;

fn set_up(builder: LoaderBuilder) -> LoaderBuilder {
    let augment = Augment::imagenet_train(24).build().expect("augmentation");
    builder.augment(augment).batch_size(BATCH).threads(2).arena_bytes(1 << 20).shuffle(Shuffle::Sequential)
}

/// A loader from a storage with one fault.
fn simulated(data_set: &str, seed: u64, fault: SimFault, one_in: u32) -> LoaderBuilder {
    let sim = SimOptions { seed, faults: SimFaults::NONE.with(fault), one_in };
    set_up(Loader::open(data_set)).engine(EngineKind::Sim).sim(sim).direct(Direct::Off)
}

fn shards(root: &Path) -> String {
    common::shards(root, &common::samples(SAMPLES, 2), 10)
}

/// The tensors of the batches before the first error, and that.
fn run(loader: &mut Loader) -> (Vec<Vec<u8>>, Option<Error>) {
    let mut batches = vec![];
    for batch in loader.epoch(0) {
        match batch {
            Ok(batch) => batches.push(tensor(&batch)),
            Err(error) => return (batches, Some(error)),
        }
    }
    (batches, None)
}

fn tensor(batch: &Batch) -> Vec<u8> {
    batch.images().expect("one size").bytes.to_vec()
}

/// Runs seeds until one fails in a batch after the first: what came before is right, and it fails again likewise.
fn fails_in_the_middle(fault: SimFault) -> Error {
    let root = tempfile::tempdir().expect("folder");
    let data_set = shards(root.path());
    let expected = run(&mut set_up(Loader::open(&data_set)).build().expect("loader")).0;
    assert_eq!(expected.len(), SAMPLES / BATCH as usize);
    for seed in 0..1000 {
        let mut loader = simulated(&data_set, seed, fault, 20).build().expect("loader");
        let (batches, error) = run(&mut loader);
        assert!(expected.starts_with(&batches), "{fault:?}, seed {seed}");
        assert_eq!(loader.bytes_in_flight(), 0, "{fault:?}, seed {seed}");
        let Some(error) = error.filter(|_| !batches.is_empty()) else { continue };
        let (again, same) = run(&mut loader);
        assert_eq!((again.len(), same.map(|same| same.to_string())), (batches.len(), Some(error.to_string())));
        let report = loader.report();
        assert_eq!(report.timeouts > 0, fault == SimFault::Hang, "{report}");
        assert!(report.timeouts + report.retries == 0 || report.to_string().contains("retried"), "{report}");
        return error;
    }
    panic!("no seed fails in the middle by {fault:?}");
}

#[test]
fn fault_01_a_sample_that_cannot_be_read_is_named_with_path_offset_and_errno() {
    let error = fails_in_the_middle(SimFault::EioSticky);
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = error.to_string();
    for part in ["class", "train-0", "bytes at offset", "os error 5"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(error.sample().is_some() && std::error::Error::source(&error).is_some());
}

#[test]
fn fault_04_a_shard_that_is_cut_under_a_loader_is_an_error_with_numbers() {
    let error = fails_in_the_middle(SimFault::Truncated);
    assert_eq!(error.kind(), ErrorKind::Truncated);
    // The same with every engine, really cut.
    for engine in [EngineKind::Auto, EngineKind::Pread, EngineKind::Sim] {
        for direct in [Direct::Off, Direct::Preferred] {
            let root = tempfile::tempdir().expect("folder");
            let data_set = shards(root.path());
            let mut loader = set_up(Loader::open(&data_set)).engine(engine).direct(direct).build().expect("loader");
            let shard = root.path().join("train-000.tar");
            let half = fs::metadata(&shard).expect("a shard").len() / 2;
            fs::OpenOptions::new().write(true).open(&shard).expect("a shard").set_len(half).expect("cut");
            let (batches, error) = run(&mut loader);
            let error = error.expect("an error");
            assert!(!batches.is_empty() && error.kind() == ErrorKind::Truncated, "{engine}: {error:?}");
            let text = error.to_string();
            assert!(text.contains("train-000.tar") && text.contains("expected") && text.contains("got"), "{text}");
        }
    }
}

#[test]
fn fault_10_a_sample_that_never_comes_is_named_and_what_was_before_it_is_delivered() {
    let error = fails_in_the_middle(SimFault::Hang);
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let text = error.to_string();
    for part in ["class", "train-0", "bytes at offset", "within 120s", "read_timeout"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Files that cannot be opened in time, one after the other.
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(SAMPLES, 2)).display().to_string();
    let begin = Instant::now();
    let mut loader = simulated(&folder, 1, SimFault::Hang, 1).depth(4).build().expect("loader");
    let (batches, error) = run(&mut loader);
    let error = error.expect("an error");
    assert!(batches.is_empty() && error.kind() == ErrorKind::TimedOut, "{error:?}");
    assert!(error.to_string().contains("storage hangs") || error.to_string().contains("class0/00000"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(30), "no one sleeps");
}

#[test]
fn fault_10_a_timeout_of_nothing_is_refused() {
    let root = tempfile::tempdir().expect("folder");
    let refused = set_up(Loader::open(shards(root.path()))).read_timeout(Duration::ZERO).build();
    let error = refused.err().expect("refused");
    assert!(error.kind() == ErrorKind::InvalidParameter && error.to_string().contains("read_timeout"), "{error}");
}

#[test]
fn fault_24_dropped_after_any_batch_of_a_storage_that_fails() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = shards(root.path());
    for fault in [SimFault::Short, SimFault::Hang, SimFault::EioSticky] {
        let mut loader = simulated(&data_set, 3, fault, 12).build().expect("loader");
        for batches in 0..=SAMPLES / BATCH as usize {
            let begin = Instant::now();
            let held = loader.epochs(0..2).take(batches).last();
            assert!(begin.elapsed() < Duration::from_secs(20), "{fault:?} after {batches}: {:?}", begin.elapsed());
            assert_eq!(loader.bytes_in_flight(), 0, "{fault:?} after {batches}");
            drop(held);
        }
    }
}

/// Who panics when asked for something about one sample.
struct Panics {
    inner: Arc<dyn Source>,
    sample: u64,
    /// On the thread that feeds, or on one that decodes.
    feeding: bool,
}

impl Source for Panics {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn extent(&self, sample: u64) -> Result<Extent> {
        let feeds = std::thread::current().name() == Some("forebay-feed");
        assert!(!self.feeding || !feeds || sample != self.sample, "a defect in the source");
        self.inner.extent(sample)
    }
    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        self.inner.object_path(object, path)
    }
    fn label(&self, sample: u64) -> Result<i64> {
        self.inner.label(sample)
    }
    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        self.inner.key(sample, key)
    }
    fn is_headerless(&self, sample: u64) -> Result<bool> {
        let decodes = std::thread::current().name().is_some_and(|name| name.starts_with("forebay-decode"));
        assert!(self.feeding || !decodes || sample != self.sample, "a defect in the source");
        self.inner.is_headerless(sample)
    }
}

#[test]
fn fault_24_a_panic_on_any_thread_ends_the_run_and_leaves_nothing_behind() {
    let root = tempfile::tempdir().expect("folder");
    let inner: Arc<dyn Source> = source::open(shards(root.path())).expect("data set");
    for feeding in [false, true] {
        for sample in [0, 9, SAMPLES as u64 - 1] {
            let source = Panics { inner: Arc::clone(&inner), sample, feeding };
            let mut loader = set_up(Loader::of(Arc::new(source))).build().expect("loader");
            let begin = Instant::now();
            let (batches, error) = run(&mut loader);
            let error = error.expect("an error");
            assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
            assert!(error.to_string().contains("panicked"), "{error}");
            if !feeding {
                assert_eq!(batches.len() as u64, sample / BATCH, "the batches before its own are delivered");
                assert!(error.sample().is_some_and(|name| name.contains(&format!("{sample:05}"))), "{error}");
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
            assert_eq!(loader.bytes_in_flight(), 0, "feeding: {feeding}, sample {sample}");
        }
    }
}

#[test]
fn fault_24_a_consumer_that_panics_leaves_nothing_behind() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = shards(root.path());
    let mut loader = simulated(&data_set, 0, SimFault::Short, 1).build().expect("loader");
    for after in 0..3 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held: Vec<_> = loader.epoch(0).take(after).collect();
            let mut epoch = loader.epoch(1);
            let _batch = epoch.next();
            panic!("the training step failed");
        }));
        assert!(panicked.is_err());
        assert_eq!(loader.bytes_in_flight(), 0);
    }
    assert!(run(&mut loader).1.is_none(), "it is usable");
}
