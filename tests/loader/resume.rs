//! Promises of ranks and of resuming, of whole loaders: the samples and tensors of one undisturbed process, however many
//! ranks share them, wherever a run is ended, and on whatever it goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay::batch::Digest;
use forebay::engine::EngineKind;
use forebay::jpeg::Grain;
use forebay::order::{LastBatch, Shuffle};
use forebay::source::IndexMode;
use forebay::source::index::{BuildOptions, Part, build};
use forebay::source::{Extent, Source};
use forebay::{Augment, Batch, ErrorKind, Loader, LoaderBuilder, Shard, State};
use proptest::prelude::*;

use crate::common;

const SAMPLES: usize = 57;
const GLOBAL: u64 = 12;
const EPOCHS: u64 = 2;

fn open(data_set: impl AsRef<Path>) -> LoaderBuilder {
    let augment = Augment::imagenet_train(16).build().expect("augmentation");
    Loader::open(data_set).augment(augment).global_batch_size(GLOBAL).seed(5).threads(2).arena_bytes(1 << 20)
}

fn folder(root: &Path) -> PathBuf {
    common::folder(root, &common::samples(SAMPLES, 3))
}

fn shard(rank: u64, ranks: u64) -> Shard {
    Shard::new(rank, ranks).expect("a rank")
}

/// A sample that was delivered: epoch, position, number and digest of its tensor.
type Delivered = (u64, u64, u64, u128);

fn delivered(batch: &Batch) -> impl Iterator<Item = Delivered> + '_ {
    (0..batch.len()).zip(batch.position()..).map(|(index, position)| {
        let tensor = xxhash_rust::xxh3::xxh3_128(batch.image(index).expect("on the host").bytes);
        (batch.epoch(), position, batch.samples()[index], tensor)
    })
}

/// The first `steps` batches of a loader, and where it then is.
fn take(builder: LoaderBuilder, steps: usize) -> (Vec<Delivered>, State) {
    let mut loader = builder.build().expect("loader");
    let mut taken = vec![];
    for batch in loader.epochs(0..EPOCHS).take(steps) {
        taken.extend(delivered(&batch.expect("batch")));
    }
    (taken, loader.state())
}

/// The same of all ranks, in the order of the run. After as many steps their states are one.
fn take_all(builder: impl Fn() -> LoaderBuilder, ranks: u64, steps: usize) -> (Vec<Delivered>, State) {
    let runs: Vec<_> = (0..ranks).map(|rank| take(builder().shard(shard(rank, ranks)), steps)).collect();
    let state = runs[0].1;
    assert!(runs.iter().all(|run| run.1 == state), "all ranks are at the same place");
    let mut taken = runs.into_iter().flat_map(|run| run.0).collect::<Vec<_>>();
    taken.sort_by_key(|sample| (sample.0, sample.1));
    (taken, state)
}

fn digest(builder: LoaderBuilder) -> Digest {
    let mut digest = Digest::default();
    for batch in builder.build().expect("loader").epochs(0..EPOCHS) {
        digest.update(&batch.expect("batch")).expect("on the host");
    }
    digest
}

#[test]
fn the_digests_of_ranks_add_up_however_they_load() {
    let root = tempfile::tempdir().expect("folder");
    let folder = folder(root.path());
    let shards = PathBuf::from(common::shards(root.path(), &common::samples(SAMPLES, 3), 20));
    let options = BuildOptions { grain: Grain::Bits(400), part: Part::WHOLE, dir: None, threads: 2, force: false };
    for data_set in [&folder, &shards] {
        build(data_set, &options, &|_, _| {}).expect("index");
    }
    for last in [LastBatch::Drop, LastBatch::Pad, LastBatch::Partial] {
        let expected = digest(open(&folder).last_batch(last).index(IndexMode::Off));
        let mut ways = vec![];
        for ranks in [1, 2, 3, 4, 12] {
            for engine in [EngineKind::Auto, EngineKind::Pread] {
                for index in [IndexMode::Off, IndexMode::Required] {
                    ways.push((ranks, engine, index));
                }
            }
        }
        for (number, (ranks, engine, index)) in ways.into_iter().enumerate() {
            let data_set = if number % 3 == 0 { &shards } else { &folder };
            let threads = number % 4 + 1;
            let of_rank = |rank| {
                let builder = open(data_set).last_batch(last).shard(shard(rank, ranks)).threads(threads);
                digest(builder.engine(engine).index(index))
            };
            let sum = (0..ranks).map(of_rank).fold(Digest::default(), |sum, digest| sum + digest);
            assert_eq!(
                sum.hex(),
                expected.hex(),
                "{last:?}, {ranks} ranks, {engine}, index {index}, {threads} threads"
            );
        }
    }
    let in_blocks =
        |rank, ranks| digest(open(&folder).shuffle(Shuffle::Block { samples_per_block: 10 }).shard(shard(rank, ranks)));
    assert_eq!(in_blocks(0, 2) + in_blocks(1, 2), in_blocks(0, 1), "shuffled in blocks");
    assert_ne!(in_blocks(0, 2), in_blocks(0, 1), "half is not the whole");
}

/// A sum over samples knows their order only by what is hashed of each.
#[test]
fn the_digest_tells_the_same_samples_in_another_order_or_epoch() {
    let root = tempfile::tempdir().expect("folder");
    let folder = folder(root.path());
    let of = |shuffle, epoch| {
        let augment = Augment::imagenet_val(16).build().expect("augmentation");
        let builder = open(&folder).augment(augment).last_batch(LastBatch::Partial).shuffle(shuffle);
        let mut digest = Digest::default();
        for batch in builder.build().expect("loader").epoch(epoch) {
            digest.update(&batch.expect("batch")).expect("on the host");
        }
        digest
    };
    assert_eq!(of(Shuffle::Sequential, 0), of(Shuffle::Sequential, 0));
    assert_ne!(of(Shuffle::Sequential, 0), of(Shuffle::Sequential, 1), "another epoch");
    assert_ne!(of(Shuffle::Sequential, 0), of(Shuffle::Full, 0), "another order");
}

#[test]
fn a_run_that_ends_after_any_step_is_resumed_on_any_number_of_ranks() {
    let root = tempfile::tempdir().expect("folder");
    let folder = folder(root.path());
    for last in [LastBatch::Drop, LastBatch::Pad] {
        let run = || open(&folder).last_batch(last);
        let (undisturbed, end) = take(run(), usize::MAX);
        assert_eq!((end.epoch(), end.position()), (EPOCHS, 0));
        let steps = undisturbed.len() / GLOBAL as usize;
        for stop in 0..=steps {
            let (before, after) = [(1, 2), (2, 1), (3, 4), (4, 3), (2, 6), (12, 1)][stop % 6];
            let (mut taken, state) = take_all(run, before, stop);
            assert_eq!(taken.len(), stop * GLOBAL as usize);
            let other = if stop % 2 == 0 { EngineKind::Pread } else { EngineKind::Auto };
            let resumed = || run().resume(state).engine(other).threads(stop % 3 + 1).slots(2 + stop % 3);
            let (rest, end_too) = take_all(resumed, after, usize::MAX);
            taken.extend(rest);
            assert!(taken == undisturbed, "{last:?}: {before} ranks for {stop} steps, then {after}");
            assert_eq!(end_too, end);
        }
    }
}

/// The first samples of a data set.
struct First {
    of: Arc<dyn Source>,
    len: u64,
}

impl Source for First {
    fn len(&self) -> u64 {
        self.len
    }

    fn extent(&self, sample: u64) -> forebay::Result<Extent> {
        self.of.extent(sample)
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> forebay::Result<()> {
        self.of.object_path(object, path)
    }

    fn label(&self, sample: u64) -> forebay::Result<i64> {
        self.of.label(sample)
    }

    fn key(&self, sample: u64, key: &mut String) -> forebay::Result<()> {
        self.of.key(sample, key)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    /// The same by chance: how many samples there are, how they are ordered and shared, where it ends and goes on.
    #[test]
    fn a_run_is_its_parts_whatever_they_are(
        len in 12..=SAMPLES as u64, seed: u64, share in 1u64..3, stop in 0usize..12, first_epoch in 0u64..1 << 40,
        pad: bool, block in 0u64..9, before in 1u64..5, after in 1u64..5, threads in 1usize..4, pread: bool,
    ) {
        static DATA: OnceLock<(tempfile::TempDir, Arc<dyn Source>)> = OnceLock::new();
        let (_, source) = DATA.get_or_init(|| {
            let root = tempfile::tempdir().expect("folder");
            let folder = folder(root.path());
            (root, forebay::source::open(folder).expect("data set"))
        });
        // What 1 to 4 ranks can share evenly, and no more than there is.
        let global = if len < 24 { 12 } else { 12 * share };
        let open = || {
            let augment = Augment::imagenet_train(8).build().expect("augmentation");
            let shuffle = match block {
                0 => Shuffle::Sequential,
                1..=4 => Shuffle::Full,
                samples_per_block => Shuffle::Block { samples_per_block },
            };
            Loader::of(Arc::new(First { of: Arc::clone(source), len }))
                .augment(augment)
                .global_batch_size(global)
                .shuffle(shuffle)
                .seed(seed)
                .arena_bytes(1 << 20)
                .last_batch(if pad { LastBatch::Pad } else { LastBatch::Drop })
        };
        let epochs = first_epoch..first_epoch + 2;
        let engine = if pread { EngineKind::Pread } else { EngineKind::Auto };
        // The first steps of all ranks from a state on: how many each took, what, and the state behind them.
        let take = |from: Option<State>, ranks: u64, steps: usize| {
            let (mut taken, mut ends) = (vec![], vec![]);
            for rank in 0..ranks {
                let builder = open().shard(shard(rank, ranks)).threads(threads).engine(engine);
                let builder = from.into_iter().fold(builder, LoaderBuilder::resume);
                let mut loader = builder.build().expect("loader");
                let mut count = 0;
                for batch in loader.epochs(epochs.clone()).take(steps) {
                    taken.extend(delivered(&batch.expect("batch")));
                    count += 1;
                }
                ends.push((count, loader.state()));
            }
            taken.sort_by_key(|sample| (sample.0, sample.1));
            assert!(ends.iter().all(|end| *end == ends[0]), "equal steps, one state: {ends:?}");
            (taken, ends[0].1)
        };
        let (undisturbed, end) = take(None, 1, usize::MAX);
        let mut positions = undisturbed.iter().map(|sample| (sample.0, sample.1));
        let of_epoch = if pad { len.next_multiple_of(global) } else { len / global * global };
        let expected = epochs.clone().flat_map(|epoch| (0..of_epoch).map(move |position| (epoch, position)));
        prop_assert!(positions.by_ref().eq(expected), "nothing twice, no gap");
        let (mut taken, state) = take(None, before, stop);
        let (rest, end_too) = take(Some(state), after, usize::MAX);
        taken.extend(rest);
        prop_assert!(taken == undisturbed);
        prop_assert_eq!(end_too, end);
    }
}

/// Every sample once, in the same order, where batches are of another size from there on.
#[test]
fn another_world_size_goes_on_with_the_next_sample() {
    let root = tempfile::tempdir().expect("folder");
    let folder = folder(root.path());
    let run = || open(&folder).last_batch(LastBatch::Partial);
    let (undisturbed, _) = take(run(), usize::MAX);
    assert_eq!(undisturbed.len(), EPOCHS as usize * SAMPLES);
    for (before, batch, stop, after, batch_after) in [(2, 5, 3, 3, 5), (3, 4, 1, 2, 4), (1, 7, 10, 4, 2)] {
        let (mut taken, state) = take_all(|| run().batch_size(batch), before, stop);
        let rest = (0..after)
            .flat_map(|rank| take(run().batch_size(batch_after).shard(shard(rank, after)).resume(state), usize::MAX).0);
        let mut rest: Vec<_> = rest.collect();
        rest.sort_by_key(|sample| (sample.0, sample.1));
        taken.extend(rest);
        assert!(taken == undisturbed, "{before} ranks of {batch}, after {stop} steps {after} of {batch_after}");
    }
}

#[test]
fn the_state_is_of_what_was_taken_whatever_was_read_ahead() {
    let root = tempfile::tempdir().expect("folder");
    let folder = folder(root.path());
    let mut loader = open(&folder).slots(4).build().expect("loader");
    assert_eq!((loader.state().epoch(), loader.state().position()), (0, 0));
    let mut epochs = loader.epochs(0..EPOCHS);
    assert_eq!(epochs.state().position(), 0);
    let first = epochs.next().expect("a batch").expect("batch");
    // Three more are filled meanwhile.
    std::thread::sleep(Duration::from_millis(200));
    let states = [epochs.state(), first.state()];
    let second = epochs.next().expect("a batch").expect("batch");
    assert_eq!(second.state().position(), 2 * GLOBAL);
    let expected: Vec<_> = delivered(&second).collect();
    drop((second, first, epochs));
    assert_eq!(loader.state().position(), 2 * GLOBAL);
    for state in states {
        assert_eq!((state.epoch(), state.position(), state.seed()), (0, GLOBAL, 5));
        loader.resume(state).expect("the same run");
        assert_eq!(loader.state(), state);
        let again = loader.epochs(0..EPOCHS).next().expect("a batch").expect("batch");
        assert!(delivered(&again).eq(expected.iter().copied()));
        assert_eq!(again.step(), 1);
    }
}

#[test]
fn the_loop_that_started_a_run_resumes_it() {
    let root = tempfile::tempdir().expect("folder");
    let folder = folder(root.path());
    let steps = SAMPLES as u64 / GLOBAL;
    let (_, state) = take(open(&folder), steps as usize + 1);
    assert_eq!((state.epoch(), state.position()), (1, GLOBAL));
    let mut loader = open(&folder).resume(state).build().expect("loader");
    let counts: Vec<_> = (0..4).map(|epoch| loader.epoch(epoch).filter(Result::is_ok).count() as u64).collect();
    assert_eq!(counts, [0, steps - 1, steps, steps], "epoch by epoch");
    assert_eq!(loader.epoch(0).count() as u64, steps, "it goes back where that is asked for");
    let mut loader = open(&folder).resume(state).build().expect("loader");
    assert_eq!(loader.epochs(3..4).count() as u64, steps, "a later epoch is whole");
    let mut loader = open(&folder).resume(state).build().expect("loader");
    assert_eq!(loader.epochs(0..3).count() as u64, 2 * steps - 1, "all at once");
    assert_eq!((loader.state().epoch(), loader.state().position()), (3, 0));
}

#[test]
fn what_is_another_run_is_refused_by_what_differs() {
    let root = tempfile::tempdir().expect("folder");
    let samples = common::samples(SAMPLES, 3);
    let folder = folder(root.path());
    let (_, state) = take(open(&folder), 2);
    let refused = |builder: LoaderBuilder, words: &[&str]| {
        let error = builder.resume(state).build().err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    };
    refused(open(&folder).seed(6), &["seed was 5 and is 6"]);
    refused(open(&folder).shuffle(Shuffle::Sequential), &["shuffle was full and is sequential"]);
    let fewer = common::folder(&root.path().join("fewer"), &samples[1..]);
    refused(open(&fewer), &["number of samples was 57 and is 56"]);
    let renamed: Vec<_> =
        samples.iter().map(|(name, label, bytes)| (format!("{name}x"), *label, bytes.clone())).collect();
    let renamed = common::folder(&root.path().join("renamed"), &renamed);
    refused(open(&renamed), &["the data set has other keys"]);
    let mut loader = open(&renamed).build().expect("loader");
    assert_eq!(loader.resume(state).expect_err("refused").kind(), ErrorKind::InvalidParameter);
    assert_eq!(loader.state().position(), 0, "it is left as it was");
    // The same data in another form is the same data.
    let shards = common::shards(root.path(), &samples, 20);
    assert!(open(&shards).resume(state).build().is_ok());
}

#[test]
fn a_run_that_failed_is_resumed_with_the_batch_that_failed() {
    let root = tempfile::tempdir().expect("folder");
    let folder = folder(root.path());
    let run = || open(&folder).shuffle(Shuffle::Sequential);
    let (undisturbed, _) = take(run(), usize::MAX);
    let bad = folder.join("class1/00030.jpg");
    let good = std::fs::read(&bad).expect("sample");
    std::fs::write(&bad, "text").expect("bad sample");
    let mut loader = run().build().expect("loader");
    let mut epochs = loader.epochs(0..EPOCHS);
    assert_eq!(epochs.by_ref().take_while(Result::is_ok).count(), 2);
    drop(epochs);
    assert_eq!(loader.state().position(), 2 * GLOBAL);
    std::fs::write(&bad, good).expect("sample");
    let (rest, _) = take(run().resume(loader.state()), usize::MAX);
    assert!(rest == undisturbed[2 * GLOBAL as usize..]);
}

#[test]
fn what_fills_up_the_last_batch_is_counted_and_is_the_same_sample_again() {
    let root = tempfile::tempdir().expect("folder");
    let folder = folder(root.path());
    let mut fresh = 0;
    for rank in 0..4 {
        let mut loader = open(&folder).last_batch(LastBatch::Pad).shard(shard(rank, 4)).build().expect("loader");
        assert_eq!((loader.steps_per_epoch(), loader.shard().rank(), loader.global_batch_size()), (5, rank, GLOBAL));
        let batches: Vec<_> = loader
            .epoch(1)
            .map(|batch| batch.expect("batch"))
            .map(|batch| {
                assert_eq!(batch.len(), 3);
                fresh += batch.len() - batch.repeats();
                (batch.repeats(), delivered(&batch).collect::<Vec<_>>())
            })
            .collect();
        // 57 = 4 x 12 + 9: the last rank's batch is filled up with the first three of the first.
        assert_eq!(batches[4].0, if rank == 3 { 3 } else { 0 });
        if rank == 3 {
            let mut first = open(&folder).shard(shard(0, 4)).build().expect("loader");
            let first: Vec<_> = delivered(&first.epoch(1).next().expect("a batch").expect("batch")).collect();
            let same = |a: &Delivered, b: &Delivered| (a.2, a.3) == (b.2, b.3);
            assert!(first.iter().zip(&batches[4].1).all(|(a, b)| same(a, b)));
        }
    }
    assert_eq!(fresh, SAMPLES);
}

#[test]
fn what_ranks_cannot_have_is_refused() {
    let root = tempfile::tempdir().expect("folder");
    let folder = folder(root.path());
    let refused = |builder: LoaderBuilder, words: &[&str]| {
        let error = builder.build().err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    };
    refused(open(&folder).shard(shard(0, 5)), &["global_batch_size is 12", "multiple of the 5 ranks", "use 15"]);
    refused(open(&folder).batch_size(20).shard(shard(0, 3)), &["batch_size is 20", "57 samples", "each of 3 ranks"]);
    refused(open(&folder).index(IndexMode::Build).shard(shard(0, 2)), &["index is build", "forebay index"]);
    let many = open(&folder).batch_size(1).last_batch(LastBatch::Partial).shard(shard(57, 58));
    refused(many, &["world_size is 58", "57 samples"]);
}
