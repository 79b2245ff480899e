//! The promises of the whole path: the same bytes however it runs, clean ends, errors that name things.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use forebay::batch::Digest;
use forebay::engine::{Direct, EngineKind};
use forebay::order::{LastBatch, Shuffle};
use forebay::{Augment, DType, ErrorKind, Geometry, Layout, Loader, LoaderBuilder};

const SAMPLES: usize = 60;

fn open(data_set: &str) -> LoaderBuilder {
    let augment = Augment::imagenet_train(32).build().expect("augmentation");
    Loader::open(data_set).augment(augment).batch_size(8).threads(2).arena_bytes(1 << 20)
}

fn digest(builder: LoaderBuilder) -> String {
    let mut loader = builder.build().expect("loader");
    let mut digest = Digest::default();
    for batch in loader.epochs(0..2) {
        digest.update(&batch.expect("batch")).expect("on the host");
    }
    digest.hex()
}

#[test]
fn the_digest_depends_on_the_samples_and_the_seed_alone() {
    let root = tempfile::tempdir().expect("folder");
    let samples = common::samples(SAMPLES, 3);
    let folder = common::folder(root.path(), &samples).display().to_string();
    let shards = common::shards(root.path(), &samples, 25);
    let expected = digest(open(&folder));
    assert_eq!(digest(open(&folder)), expected, "twice in a row");
    for threads in [1, 4] {
        assert_eq!(digest(open(&folder).threads(threads)), expected, "{threads} threads");
    }
    assert_eq!(digest(open(&folder).engine(EngineKind::Pread)), expected, "pread");
    assert_eq!(digest(open(&shards)), expected, "tar shards");
    assert_eq!(digest(open(&shards).engine(EngineKind::Pread).depth(1).slots(2)), expected, "one read at a time");
    for direct in [Direct::Preferred, Direct::Off] {
        assert_eq!(digest(open(&folder).direct(direct)), expected, "direct {direct}");
        assert_eq!(digest(open(&shards).direct(direct)), expected, "shards, direct {direct}");
    }
    if forebay::engine::Engine::new(
        EngineKind::Uring,
        &forebay::memory::Arena::new(1 << 20).expect("arena"),
        4,
        Default::default(),
    )
    .is_ok()
    {
        assert_eq!(digest(open(&folder).engine(EngineKind::Uring)), expected, "uring");
    } else {
        println!("skipped: io_uring is refused here");
    }
    assert_ne!(digest(open(&folder).seed(1)), expected, "another seed");
    assert_ne!(digest(open(&folder).shuffle(Shuffle::Sequential)), expected, "another order");
}

#[test]
fn an_epoch_is_every_sample_once() {
    let root = tempfile::tempdir().expect("folder");
    let samples = common::samples(SAMPLES, 3);
    let folder = common::folder(root.path(), &samples).display().to_string();
    let mut loader = open(&folder).last_batch(LastBatch::Partial).build().expect("loader");
    assert_eq!(loader.steps_per_epoch(), 8);
    for epoch in 0..2 {
        let mut seen = vec![];
        for (step, batch) in loader.epoch(epoch).enumerate() {
            let batch = batch.expect("batch");
            assert_eq!((batch.epoch(), batch.step()), (epoch, step as u64));
            let images = batch.images().expect("one size");
            assert_eq!(images.shape, [batch.len(), 3, 32, 32]);
            assert_eq!(images.as_f32().map(<[f32]>::len), Some(batch.len() * 3 * 32 * 32));
            assert!(images.as_u8().is_none());
            for index in 0..batch.len() {
                let (name, label, _) = &samples[batch.samples()[index] as usize];
                assert_eq!((batch.key(index), batch.labels()[index]), (name.as_str(), *label as i64));
            }
            seen.extend_from_slice(batch.samples());
        }
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..SAMPLES as u64), "{seen:?}");
    }
    let report = loader.report();
    assert_eq!((report.images, report.batches), (2 * SAMPLES as u64, 16));
    assert!(report.bytes_read >= report.bytes_needed && report.bytes_needed > 0);
    assert!(report.to_string().contains("verdict"));
}

#[test]
fn every_type_and_layout_has_its_shape() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(8, 1)).display().to_string();
    for dtype in [DType::U8, DType::F16, DType::BF16, DType::F32] {
        for (layout, shape) in [(Layout::Nchw, [8, 3, 20, 20]), (Layout::Nhwc, [8, 20, 20, 3])] {
            let augment = Augment::imagenet_val(20).without_normalize().dtype(dtype).layout(layout).build();
            let mut loader = open(&folder).augment(augment.expect("augmentation")).build().expect("loader");
            let batch = loader.epoch(0).next().expect("a batch").expect("batch");
            let images = batch.images().expect("one size");
            assert_eq!((images.shape, images.dtype), (shape, dtype));
            assert_eq!(images.bytes.len(), 8 * 3 * 20 * 20 * dtype.size_bytes());
        }
    }
}

#[test]
fn images_of_their_own_size_keep_it() {
    let root = tempfile::tempdir().expect("folder");
    let samples = common::samples(8, 1);
    let folder = common::folder(root.path(), &samples).display().to_string();
    let augment = Augment::builder(Geometry::None).dtype(DType::U8).layout(Layout::Nhwc).build();
    let builder = open(&folder).augment(augment.expect("augmentation")).ragged_slot_bytes(1 << 20);
    let mut loader = builder.build().expect("loader");
    let batch = loader.epoch(0).next().expect("a batch").expect("batch");
    assert!(batch.images().is_none());
    for index in 0..batch.len() {
        let number = batch.samples()[index] as usize;
        let image = batch.image(index).expect("on the host");
        assert_eq!((image.width as usize, image.height as usize), (90 + number % 40, 70 + number % 23));
        let original = common::pixels(number, image.width as usize, image.height as usize);
        let difference: u64 = image.bytes.iter().zip(&original).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = difference as f64 / original.len() as f64;
        assert!(mean < 12.0, "sample {number} is {mean} away from what was encoded");
    }
}

#[test]
fn fault_24_dropping_the_iterator_after_any_batch_joins_every_thread() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(SAMPLES, 3)).display().to_string();
    let mut loader = open(&folder).build().expect("loader");
    for engine in [EngineKind::Auto, EngineKind::Pread] {
        let mut other = open(&folder).engine(engine).build().expect("loader");
        for batches in 0..9 {
            let held: Vec<_> = other.epochs(0..2).take(batches.min(2)).collect();
            assert_eq!(other.epochs(0..2).take(batches).filter(Result::is_ok).count(), batches);
            drop(held);
        }
    }
    drop(loader.epoch(0).next());
    // Other tests of this binary run loaders beside this one.
    for _ in 0..200 {
        if common::loader_threads().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("left behind: {:?}", common::loader_threads());
}

#[test]
fn fault_24_a_panic_in_the_consumer_leaves_the_loader_usable() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(SAMPLES, 3)).display().to_string();
    let mut loader = open(&folder).build().expect("loader");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut epoch = loader.epoch(0);
        let _batch = epoch.next().expect("a batch").expect("batch");
        panic!("the training step failed");
    }));
    assert!(panicked.is_err());
    assert_eq!(loader.epoch(0).filter(Result::is_ok).count(), SAMPLES / 8);
}

#[test]
fn fault_25_holding_every_batch_is_an_error_that_passes() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(SAMPLES, 3)).display().to_string();
    let mut loader = open(&folder).held_timeout(Duration::from_millis(100)).build().expect("loader");
    let mut epoch = loader.epoch(0);
    let mut held: Vec<_> = epoch.by_ref().take(3).map(|batch| batch.expect("batch")).collect();
    let error = epoch.next().expect("an error").err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::BatchesHeld);
    assert!(error.to_string().contains("all 3 batches"), "{error}");
    held.pop();
    assert!(epoch.next().expect("a batch").is_ok(), "the run goes on");
}

#[test]
fn a_bad_sample_is_named_with_its_cause_and_ends_the_run() {
    let root = tempfile::tempdir().expect("folder");
    let samples = common::samples(16, 1);
    let whole = &samples[5].2;
    let cases: [(&str, Vec<u8>, ErrorKind); 4] = [
        ("empty", vec![], ErrorKind::NotAnImage),
        ("text", b"hello, I am no picture".to_vec(), ErrorKind::NotAnImage),
        ("cut", whole[..whole.len() * 2 / 3].to_vec(), ErrorKind::Truncated),
        ("bomb", bomb(whole), ErrorKind::LimitExceeded),
    ];
    for (name, bytes, kind) in cases {
        let folder = common::folder(&root.path().join(name), &samples);
        std::fs::write(folder.join("class0/00005.jpg"), bytes).expect("bad sample");
        let augment = Augment::imagenet_val(32).build().expect("augmentation");
        let mut loader = open(&folder.display().to_string()).augment(augment).batch_size(16).build().expect("loader");
        let mut epoch = loader.epochs(0..3);
        let error = epoch.next().expect("an error").err().expect("an error");
        assert_eq!(error.kind(), kind, "{name}: {error}");
        let sample = error.sample().unwrap_or_default();
        assert!(sample.contains("class0/00005") && sample.contains("00005.jpg"), "{name}: {error}");
        assert!(epoch.next().is_none(), "{name}: the run is over");
    }
}

/// The same JPEG, said to be 65,500 pixels a side.
fn bomb(jpeg: &[u8]) -> Vec<u8> {
    let mut bytes = jpeg.to_vec();
    let frame = bytes.windows(2).position(|marker| marker == [0xFF, 0xC0]).expect("a frame header");
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
    bytes
}

#[test]
fn what_cannot_be_built_is_refused_by_name() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(4, 1)).display().to_string();
    let refused = |builder: LoaderBuilder| builder.build().err().expect("refused");
    assert_eq!(refused(open(&folder).batch_size(0)).kind(), ErrorKind::InvalidParameter);
    let error = refused(open(&folder).batch_size(5));
    assert_eq!(error.kind(), ErrorKind::InvalidParameter, "a batch larger than the set");
    assert!(error.to_string().contains('5') && error.to_string().contains('4'), "{error}");
    assert_eq!(refused(open(&folder).slots(1).batch_size(2)).kind(), ErrorKind::InvalidParameter);
    assert_eq!(
        refused(open(&folder).depth(0).engine(EngineKind::Pread).batch_size(2)).kind(),
        ErrorKind::InvalidParameter
    );
}

#[test]
fn memory_does_not_grow_with_epochs() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(24, 1)).display().to_string();
    let mut loader = open(&folder).build().expect("loader");
    let descriptors = common::descriptor_count();
    let mut run = |epochs| loader.epochs(epochs).for_each(|batch| drop(batch.expect("batch")));
    run(0..5);
    let resident = resident_kibibytes();
    run(5..55);
    let grown = resident_kibibytes().saturating_sub(resident);
    assert!(grown < 8 << 10, "50 epochs grew it by {grown} KiB");
    // Other tests of this binary open files too; fifty epochs of 24 files each would stand out.
    assert!(common::descriptor_count() < descriptors + 200);
}

fn resident_kibibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn the_next_epoch_crops_the_same_sample_anew() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(8, 1)).display().to_string();
    let mut loader = open(&folder).shuffle(Shuffle::Sequential).build().expect("loader");
    let first: Vec<_> = loader
        .epochs(0..2)
        .map(|batch| {
            let batch = batch.expect("batch");
            assert_eq!(batch.samples()[0], 0, "the order is the data set's");
            batch.image(0).expect("on the host").bytes.to_vec()
        })
        .collect();
    assert!(first.len() == 2 && first[0] != first[1]);
}

#[test]
fn of_several_bad_samples_the_first_is_named_however_many_threads_there_are() {
    let root = tempfile::tempdir().expect("folder");
    let samples = common::samples(8, 1);
    let folder = common::folder(root.path(), &samples);
    // The first fails late in its decoding, the others at once.
    std::fs::write(folder.join("class0/00002.jpg"), &samples[2].2[..samples[2].2.len() - 200]).expect("bad sample");
    for number in 3..8 {
        std::fs::write(folder.join(format!("class0/{number:05}.jpg")), "text").expect("bad sample");
    }
    let augment = Augment::imagenet_val(32).build().expect("augmentation");
    for threads in [1, 4] {
        let builder = open(&folder.display().to_string()).shuffle(Shuffle::Sequential).threads(threads);
        let mut loader = builder.augment(augment).build().expect("loader");
        let error = loader.epoch(0).next().expect("an error").err().expect("an error");
        assert!(error.sample().is_some_and(|sample| sample.contains("00002")), "{threads} threads: {error}");
    }
}

#[test]
fn a_sample_is_the_same_in_every_batch_it_may_fall_into() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(24, 1)).display().to_string();
    let tensors = |batch_size, shuffle| {
        let mut loader = open(&folder).batch_size(batch_size).shuffle(shuffle).build().expect("loader");
        let mut tensors = vec![];
        for batch in loader.epoch(3) {
            let batch = batch.expect("batch");
            tensors.extend(
                (0..batch.len())
                    .map(|index| (batch.samples()[index], batch.image(index).expect("on the host").bytes.to_vec())),
            );
        }
        tensors.sort_by_key(|(sample, _)| *sample);
        tensors
    };
    let expected = tensors(8, Shuffle::Full);
    assert_eq!(expected.len(), 24);
    assert!(tensors(3, Shuffle::Full) == expected, "another batch size");
    assert!(tensors(8, Shuffle::Sequential) == expected, "another order");
}
