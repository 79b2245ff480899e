//! Promises of mixtures, of whole loaders: the same batches on any engine, threads and ranks, resumed anywhere; every sample
//! with the class and part that it is of, and another view each time.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::batch::Digest;
use forebay::engine::EngineKind;
use forebay::order::{LastBatch, Shuffle, Weights};
use forebay::source::{self, IndexMode, Subset};
use forebay::{Augment, ErrorKind, Loader, LoaderBuilder, Shard, State};

use crate::common;

const GLOBAL: u64 = 12;
const EPOCHS: u64 = 3;

/// A folder of 30 samples in 3 classes, and shards of 7 with the labels 0 and 1.
struct Parts {
    _dir: tempfile::TempDir,
    folder: PathBuf,
    shards: PathBuf,
}

impl Parts {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let folder = common::folder(dir.path(), &common::samples(30, 3));
        let shards = PathBuf::from(common::shards(dir.path(), &common::samples(7, 2), 4));
        Self { _dir: dir, folder, shards }
    }

    fn open(&self) -> LoaderBuilder {
        asked(Loader::mixture([(&self.folder, 0.6), (&self.shards, 0.4)]))
    }
}

fn asked(builder: LoaderBuilder) -> LoaderBuilder {
    let augment = Augment::imagenet_train(16).build().expect("augmentation");
    builder.augment(augment).global_batch_size(GLOBAL).seed(5).threads(2).arena_bytes(1 << 20)
}

fn digest(builder: LoaderBuilder) -> Digest {
    let mut digest = Digest::default();
    for batch in builder.build().expect("loader").epochs(0..EPOCHS) {
        digest.update(&batch.expect("batch")).expect("on the host");
    }
    digest
}

/// Epoch, position, number and digest of the tensor of each sample of some steps, and where the loader then is.
fn take(builder: LoaderBuilder, steps: usize) -> (Vec<(u64, u64, u64, u128)>, State) {
    let mut loader = builder.build().expect("loader");
    let mut taken = vec![];
    for batch in loader.epochs(0..EPOCHS).take(steps) {
        let batch = batch.expect("batch");
        taken.extend((0..batch.len()).zip(batch.position()..).map(|(index, position)| {
            let tensor = xxhash_rust::xxh3::xxh3_128(batch.image(index).expect("on the host").bytes);
            (batch.epoch(), position, batch.samples()[index], tensor)
        }));
    }
    (taken, loader.state())
}

#[test]
fn the_digests_of_ranks_add_up_however_they_load() {
    let parts = Parts::new();
    for last in [LastBatch::Drop, LastBatch::Pad, LastBatch::Partial] {
        for shuffle in [Shuffle::Full, Shuffle::Sequential, Shuffle::Block { samples_per_block: 4 }] {
            let open = || parts.open().last_batch(last).shuffle(shuffle).mixture_epoch(50);
            let expected = digest(open());
            for (ranks, engine, threads) in
                [(1, EngineKind::Pread, 1), (2, EngineKind::Auto, 3), (3, EngineKind::Pread, 2)]
            {
                let of_rank = |rank| {
                    digest(open().shard(Shard::new(rank, ranks).expect("a rank")).engine(engine).threads(threads))
                };
                let sum = (0..ranks).map(of_rank).fold(Digest::default(), |sum, digest| sum + digest);
                assert_eq!(sum, expected, "{last:?}, {shuffle}, {ranks} ranks, {engine}, {threads} threads");
            }
        }
    }
    assert_ne!(digest(parts.open()), digest(parts.open().seed(6)));
}

#[test]
fn a_run_that_ends_after_any_step_is_resumed_on_any_number_of_ranks() {
    let parts = Parts::new();
    let (undisturbed, end) = take(parts.open(), usize::MAX);
    let steps = undisturbed.len() / GLOBAL as usize;
    assert_eq!(steps, 9, "37 samples an epoch");
    for stop in 0..=steps {
        let (before, after) = [(1, 2), (2, 3), (3, 1)][stop % 3];
        let ranks_of = |ranks: u64, from: Option<State>, steps| {
            let runs = (0..ranks).map(|rank| {
                let builder = parts.open().shard(Shard::new(rank, ranks).expect("a rank"));
                take(from.into_iter().fold(builder, LoaderBuilder::resume), steps)
            });
            let runs: Vec<_> = runs.collect();
            assert!(runs.iter().all(|run| run.1 == runs[0].1), "all ranks are at the same place");
            let mut taken: Vec<_> = runs.iter().flat_map(|run| run.0.clone()).collect();
            taken.sort_unstable();
            (taken, runs[0].1)
        };
        let (mut taken, state) = ranks_of(before, None, stop);
        let (rest, end_too) = ranks_of(after, Some(state), usize::MAX);
        taken.extend(rest);
        assert!(taken == undisturbed, "{before} ranks for {stop} steps, then {after}");
        assert_eq!(end_too, end);
    }
}

#[test]
fn what_is_mixed_keeps_its_part_its_class_and_its_number() {
    let parts = Parts::new();
    let mut loader = parts.open().mixture_epoch(320).batch_size(64).build().expect("loader");
    assert_eq!((loader.source().len(), loader.steps_per_epoch()), (37, 5));
    let folder = source::open(&parts.folder).expect("folder");
    let shards = source::open(&parts.shards).expect("shards");
    let (mut of_parts, mut tensors) = ([0; 2], HashMap::<u64, Vec<u128>>::new());
    let mut key = String::new();
    for batch in loader.epoch(4) {
        let batch = batch.expect("batch");
        for (index, &sample) in batch.samples().iter().enumerate() {
            let (part, source, number) = if sample < 30 { (0, &folder, sample) } else { (1, &shards, sample - 30) };
            assert_eq!(batch.part(index), part);
            assert_eq!(batch.labels()[index], source.label(number).expect("label"));
            source.key(number, &mut key).expect("key");
            assert_eq!(batch.key(index), key);
            of_parts[part] += 1;
            let tensor = xxhash_rust::xxh3::xxh3_128(batch.image(index).expect("on the host").bytes);
            tensors.entry(sample).or_default().push(tensor);
        }
    }
    // 5 whole strata of 64 at 0.6.
    assert_eq!(of_parts, [192, 128]);
    for (sample, tensors) in tensors {
        let times = if sample < 30 { 6..=8 } else { 18..=19 };
        assert!(times.contains(&tensors.len()), "sample {sample} came {} times", tensors.len());
        let different: HashSet<_> = tensors.iter().collect();
        assert_eq!(different.len(), tensors.len(), "sample {sample} is augmented anew each time");
    }
    let report = loader.report();
    assert_eq!(report.parts.iter().map(|part| part.images).collect::<Vec<_>>(), [192, 128]);
    assert_eq!(report.parts[0].name, parts.folder.display().to_string());
    assert!(report.to_string().contains("part          192, 60.0 %, of "), "{report}");
    let mut plain = asked(Loader::open(&parts.folder)).build().expect("loader");
    assert_eq!(plain.epoch(0).next().expect("a batch").expect("batch").part(3), 0);
    assert!(plain.report().parts.is_empty());
}

#[test]
fn classes_of_folders_are_united_by_name() {
    let dirs = [tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder")];
    for (root, classes) in dirs.iter().zip([["cat", "eel"], ["bee", "cat"]]) {
        for class in classes {
            std::fs::create_dir_all(root.path().join(class)).expect("class");
            std::fs::write(root.path().join(class).join("x.jpg"), common::jpeg(class.len())).expect("sample");
        }
    }
    let weighted = dirs.iter().map(|dir| (dir.path(), 1.0));
    let loader = asked(Loader::mixture(weighted)).batch_size(2).build().expect("loader");
    assert_eq!(loader.source().classes(), ["bee", "cat", "eel"]);
    let labels: Vec<_> = (0..4).map(|sample| loader.source().label(sample).expect("label")).collect();
    assert_eq!(labels, [1, 2, 0, 1]);
}

#[test]
fn a_map_of_the_source_is_of_each_part() {
    let parts = Parts::new();
    let firsts = |builder: LoaderBuilder| {
        builder.map_source(|source| Ok(Arc::new(Subset::new(source, |sample| Ok(sample.label()? == 0))?)))
    };
    let loader = firsts(parts.open()).build().expect("loader");
    // 10 of the folder, 4 of the shards.
    assert_eq!(loader.source().len(), 14);
    let opened = |path: &Path| source::open(path).expect("data set");
    let own = Loader::mixture_of([(opened(&parts.folder), 0.6), (opened(&parts.shards), 0.4)]);
    assert_eq!(digest(firsts(asked(own))), digest(firsts(parts.open())), "sources of one's own");
    let own = asked(Loader::mixture_of([(opened(&parts.folder), 1.0)])).build().expect("loader");
    assert_eq!(own.report().parts[0].name, "part 0");
}

#[test]
fn what_a_mixture_cannot_have_is_refused() {
    let parts = Parts::new();
    let refused = |builder: LoaderBuilder, kind: ErrorKind, words: &[&str]| {
        let error = builder.build().err().expect("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    };
    use ErrorKind::InvalidParameter;
    let weights = Weights::new(&[1.0; 37]).expect("weights");
    refused(parts.open().balanced(), InvalidParameter, &["weights of its parts"]);
    refused(parts.open().weights(weights), InvalidParameter, &["weights of its parts"]);
    refused(parts.open().index(IndexMode::Build), InvalidParameter, &["index is build", "forebay index"]);
    refused(parts.open().mixture_epoch(0), InvalidParameter, &["samples of an epoch is 0"]);
    refused(asked(Loader::open(&parts.folder)).mixture_epoch(9), InvalidParameter, &["mixture_epoch is 9"]);
    let weighted = |a, b| asked(Loader::mixture([(&parts.folder, a), (&parts.shards, b)]));
    refused(weighted(1.0, 1e-4), InvalidParameter, &["7 of 65536 places", "6.8 % off"]);
    refused(weighted(1.0, 0.0), InvalidParameter, &["the weight of part 1 is 0"]);
    refused(asked(Loader::mixture(Vec::<(PathBuf, f64)>::new())), InvalidParameter, &["data sets is 0"]);
    refused(asked(Loader::mixture([("/nowhere", 1.0)])), ErrorKind::NotFound, &["/nowhere"]);
    let (_, state) = take(parts.open(), 2);
    refused(weighted(0.5, 0.5).resume(state), InvalidParameter, &["mixed from other parts or by other weights"]);
    refused(parts.open().mixture_epoch(50).resume(state), InvalidParameter, &["of an epoch was 37 and is 50"]);
    assert!(weighted(6.0, 4.0).resume(state).build().is_ok());
    let mut loader = parts.open().build().expect("loader");
    assert_eq!(loader.refresh().expect_err("refused").kind(), ErrorKind::Unsupported);
    // A part that has grown makes another mixture.
    std::fs::write(parts.folder.join("class2/99999.jpg"), common::jpeg(3)).expect("sample");
    refused(parts.open().resume(state), InvalidParameter, &["number of samples was 37 and is 38"]);
}
