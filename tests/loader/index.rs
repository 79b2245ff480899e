//! The promises of an index: fewer bytes are read, the tensors stay the same, and a wrong index is noticed.

use std::sync::Arc;
use std::time::Duration;

use crate::common;
use crate::loader_index_support::{Indexed, photos};
use crate::{engines, first_error};
use forebay::batch::Digest;
use forebay::engine::Direct;
use forebay::jpeg::Grain;
use forebay::order::LastBatch;
use forebay::source::{IndexMode, Source};
use forebay::{Augment, ErrorKind, Geometry, Limits, Loader, LoaderBuilder, Report};

const SIDE: (usize, usize) = (320, 240);

fn load(source: impl Source + 'static) -> LoaderBuilder {
    let augment = Augment::imagenet_train(32).build().expect("augmentation");
    Loader::of(Arc::new(source)).augment(augment).batch_size(4).last_batch(LastBatch::Partial).threads(2)
}

/// The digest of an epoch, and what it cost. Ends the test where the loader hangs.
fn run(builder: LoaderBuilder) -> (String, Report) {
    let (sender, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut loader = builder.build().expect("loader");
        let mut digest = Digest::default();
        for batch in loader.epoch(1) {
            digest.update(&batch.expect("batch")).expect("on the host");
        }
        let _ = sender.send((digest.hex(), loader.report()));
    });
    result.recv_timeout(Duration::from_secs(120)).expect("the epoch ends")
}

/// Feeding and decoding threads plan alike, each from what it knows: the same scale, the same bytes.
#[test]
fn scaled_decoding_is_the_same_with_an_index() {
    let root = tempfile::tempdir().expect("folder");
    let mut samples = photos(9, SIDE, false);
    samples.push(("class0/png".into(), 0, png()));
    let folder = common::folder(root.path(), &samples).display().to_string();
    let scaled = |index| {
        let augment = Augment::imagenet_train(32).dct_scaling(true).build().expect("augmentation");
        run(load(Indexed::open(&folder, Grain::Bits(1024))).augment(augment).index(index))
    };
    let (expected, without) = scaled(IndexMode::Off);
    let (digest, with) = scaled(IndexMode::Auto);
    assert_eq!(digest, expected);
    assert!(with.bytes_read < without.bytes_read, "{} of {}", with.bytes_read, without.bytes_read);
    assert_eq!((with.indexed, with.index_fallbacks), (9, 0));
    assert_ne!(expected, run(load(Indexed::open(&folder, Grain::Rows)).index(IndexMode::Off)).0, "nothing was scaled");
}

#[test]
fn an_index_changes_what_is_read_and_nothing_else() {
    let root = tempfile::tempdir().expect("folder");
    let mut samples = photos(9, SIDE, false);
    samples.push(("class0/png".into(), 0, png()));
    let folder = common::folder(root.path(), &samples).display().to_string();
    let shards = common::shards(root.path(), &samples, 4);
    let (expected, without) = run(load(Indexed::open(&folder, Grain::Rows)).index(IndexMode::Off));
    assert_eq!((without.indexed, without.bytes_skipped), (0, 0));
    assert_eq!(without.bytes_needed, without.bytes_data);
    for data_set in [&folder, &shards] {
        for (engine, threads, direct, mode, grain) in engines().into_iter().flat_map(|engine| {
            [
                (engine, 1, Direct::Off, IndexMode::Auto, Grain::Rows),
                (engine, 2, Direct::Off, IndexMode::Required, Grain::default()),
                (engine, 4, Direct::Preferred, IndexMode::Auto, Grain::Bits(512)),
            ]
        }) {
            let builder = load(Indexed::open(data_set, grain)).engine(engine).threads(threads).direct(direct);
            let (digest, report) = run(builder.index(mode));
            let what = format!("{data_set}, {engine}, {threads} threads, direct {direct}, index {mode}, {grain:?}");
            assert_eq!(digest, expected, "{what}");
            assert_eq!((report.images, report.indexed, report.index_fallbacks), (10, 9, 0), "{what}");
            assert_eq!(report.bytes_data, without.bytes_data, "{what}");
            assert!(report.bytes_needed < report.bytes_data * 8 / 10, "{what}: {report}");
            assert!(report.bytes_needed + report.bytes_skipped <= report.bytes_data, "{what}: {report}");
            assert!(report.bytes_read >= report.bytes_data - report.bytes_skipped, "{what}: {report}");
            if direct == Direct::Off {
                assert_eq!(report.bytes_read + report.bytes_skipped, report.bytes_data, "{what}: {report}");
            }
            assert!(report.to_string().contains("skipped"), "{report}");
        }
    }
}

fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(vec![]);
    let image = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8, y as u8, 7]));
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("encoding");
    bytes.into_inner()
}

/// Small crops of large photos take many reads each. Neither memory for two of them nor room for one is there.
#[test]
fn crops_of_many_pieces_never_wait_for_each_other() {
    let root = tempfile::tempdir().expect("folder");
    let samples = photos(4, (2400, 1600), true);
    let folder = common::folder(root.path(), &samples).display().to_string();
    let shards = common::shards(root.path(), &samples, 2);
    let geometry = Geometry::RandomResizedCrop {
        size: forebay::plan::Size { height: 64, width: 64 },
        scale: [0.01, 0.08],
        ratio: [0.75, 4.0 / 3.0],
    };
    let augment = Augment::builder(geometry).build().expect("augmentation");
    let small = |source| load(source).augment(augment).batch_size(2);
    let (expected, without) = run(small(Indexed::open(&folder, Grain::Rows)).index(IndexMode::Off));
    let largest = samples.iter().map(|(_, _, bytes)| bytes.len()).max().unwrap_or(0);
    for data_set in [&folder, &shards] {
        for engine in engines() {
            for depth in [1, 4, 32] {
                let builder = small(Indexed::open(data_set, Grain::default())).engine(engine).depth(depth);
                let (digest, report) = run(builder.arena_bytes(largest / 2));
                assert_eq!(digest, expected, "{data_set}, {engine}, depth {depth}");
                assert_eq!((report.indexed, report.index_fallbacks), (4, 0), "{report}");
                assert!(report.bytes_read < without.bytes_read / 4, "{report}");
            }
        }
    }
}

#[test]
fn a_run_can_be_dropped_while_samples_are_partly_here() {
    let root = tempfile::tempdir().expect("folder");
    let shards = common::shards(root.path(), &photos(6, (1600, 800), true), 3);
    let (expected, _) = run(load(Indexed::open(&shards, Grain::default())));
    let threads = common::thread_count();
    for engine in engines() {
        let builder = load(Indexed::open(&shards, Grain::default())).engine(engine).depth(3).batch_size(1);
        let mut loader = builder.arena_bytes(3 << 20).build().expect("loader");
        for taken in 0..5 {
            loader.epochs(0..2).take(taken).for_each(|batch| drop(batch.expect("batch")));
        }
        assert_eq!(loader.epoch(1).map(|batch| batch.expect("batch").len()).sum::<usize>(), 6, "{engine}");
    }
    // Other tests of this binary run beside this one.
    assert!(common::thread_count() < threads + 64);
    assert_eq!(run(load(Indexed::open(&shards, Grain::default()))).0, expected);
}

#[test]
fn a_file_that_is_not_the_indexed_one_is_read_whole_or_refused() {
    let root = tempfile::tempdir().expect("folder");
    let samples = photos(8, SIDE, false);
    let folder = common::folder(root.path(), &samples);
    let path = |number: usize| folder.join(format!("class0/{number:05}.jpg"));
    let open = || {
        for (number, (_, _, bytes)) in samples.iter().enumerate() {
            std::fs::write(path(number), bytes).expect("sample");
        }
        Indexed::open(&folder, Grain::default())
    };
    let appended = || {
        std::fs::write(path(2), [&samples[2].2[..], b"more"].concat()).expect("longer sample");
    };
    let edited = || {
        // As long as the one before, with another quantisation table: what the index says of it would be other pixels.
        let mut other = samples[2].2.clone();
        let table = other.windows(2).position(|marker| marker == [0xFF, 0xDB]).expect("a quantisation table");
        other[table + 6] ^= 0x10;
        std::fs::write(path(2), other).expect("other sample");
        let file = std::fs::File::options().write(true).open(path(2)).expect("other sample");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("time");
    };
    for change in [&appended as &dyn Fn(), &edited] {
        let source = open();
        change();
        let (digest, report) = run(load(source));
        assert_eq!((report.indexed, report.index_fallbacks), (7, 1), "{report}");
        let fallback = report.fallbacks.iter().find(|fallback| fallback.what == "index").expect("a fallback");
        assert!(fallback.cause.contains("class0/00002") && fallback.remedy.contains("forebay index"), "{fallback}");
        let source = open();
        change();
        assert_eq!(run(load(source).index(IndexMode::Off)).0, digest);
        let source = open();
        change();
        let error = first_error(load(source).index(IndexMode::Required));
        assert_eq!(error.kind(), ErrorKind::IndexStale, "{error}");
        assert!(error.sample().is_some_and(|sample| sample.contains("00002.jpg")), "{error}");
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("forebay index")), "{error}");
    }
}

/// Its samples need not lie where they did, so that reading them whole would not help either.
#[test]
fn a_shard_that_is_not_the_indexed_one_is_refused() {
    let root = tempfile::tempdir().expect("folder");
    let shards = common::shards(root.path(), &photos(4, SIDE, false), 4);
    let shard = root.path().join("train-000.tar");
    for index in [IndexMode::Auto, IndexMode::Required] {
        let source = Indexed::open(&shards, Grain::default());
        let file = std::fs::File::options().write(true).open(&shard).expect("shard");
        let then = file.metadata().and_then(|metadata| metadata.modified()).expect("time");
        file.set_modified(then - std::time::Duration::from_secs(1)).expect("time");
        let error = first_error(load(source).index(index));
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        assert!(error.to_string().contains(".tar") && error.remedy().is_some(), "{error}");
    }
}

#[test]
fn a_record_that_lies_costs_a_second_look_and_no_pixel() {
    let root = tempfile::tempdir().expect("folder");
    let shards = common::shards(root.path(), &photos(4, SIDE, false), 4);
    let (expected, _) = run(load(Indexed::open(&shards, Grain::default())));
    type Lie = fn(&mut Indexed);
    let lies: [(&str, Lie); 9] = [
        ("bytes", |source| source.row(1).len_bytes += 1),
        ("scan offset", |source| source.row(1).facts.scan_offset += 1 << 40),
        ("a little behind", |source| source.row(1).facts.scan_offset += 1),
        ("dimensions", |source| source.row(1).facts.height = 65_000),
        ("a bomb", |source| (source.row(1).facts.width, source.row(1).facts.height) = (65_535, 65_535)),
        ("sampling", |source| source.row(1).facts.sampling[0] = (4, 1)),
        ("no tables", |source| source.row(1).quant.clear()),
        ("no entry points", |source| source.row(1).entries.clear()),
        ("damaged", |source| source.damaged = Some(1)),
    ];
    for (name, lie) in lies {
        let source = || {
            let mut source = Indexed::open(&shards, Grain::default());
            lie(&mut source);
            source
        };
        let (digest, report) = run(load(source()));
        assert_eq!(digest, expected, "{name}");
        assert_eq!((report.indexed, report.index_fallbacks), (3, 1), "{name}: {report}");
        let error = first_error(load(source()).index(IndexMode::Required));
        assert!(error.sample().is_some_and(|sample| sample.contains("class0/00001")), "{name}: {error}");
        assert!(error.remedy().is_some(), "{name}: {error}");
    }
}

/// Every number that says where an entry point lies, changed one at a time.
#[test]
fn an_entry_point_in_the_wrong_place_is_noticed() {
    let root = tempfile::tempdir().expect("folder");
    let shards = common::shards(root.path(), &photos(1, (96, 64), false), 1);
    let augment = Augment::imagenet_train(16).build().expect("augmentation");
    let run = |source: Indexed| run(load(source).augment(augment).batch_size(1));
    let mut source = Indexed::open(&shards, Grain::Bits(256));
    let places = places(&source.row(0).entries);
    let (expected, _) = run(source);
    let mut noticed = 0;
    for &place in &places {
        let mut source = Indexed::open(&shards, Grain::Bits(256));
        source.row(0).entries[place] ^= 1;
        let (digest, report) = run(source);
        assert_eq!(digest, expected, "{place}: {report}");
        noticed += report.index_fallbacks;
    }
    assert!(noticed * 4 > places.len() as u64, "only {noticed} of {} lies were noticed", places.len());
}

/// The first bytes of the numbers that say where an entry point of three components lies: a row's length, steps and
/// bits, not predictions. Those are differences: a lie about one moves all that follow alike.
fn places(entries: &[u8]) -> Vec<usize> {
    let (mut places, mut at) = (vec![], 0);
    while at < entries.len() {
        let is_first = at == 0;
        places.push(at);
        let len = pass_number(entries, &mut at);
        if !is_first {
            places.push(at);
            (0..4).for_each(|_| _ = pass_number(entries, &mut at));
        }
        let end = at + len;
        while at < end {
            places.push(at);
            pass_number(entries, &mut at);
            places.push(at);
            (0..4).for_each(|_| _ = pass_number(entries, &mut at));
        }
    }
    places
}

/// Reads a LEB128 number.
fn pass_number(bytes: &[u8], at: &mut usize) -> usize {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        number |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte < 0x80 {
            return number;
        }
    }
}

/// What is wrong with a sample is said in the same words with and without an index.
#[test]
fn a_corrupt_sample_is_the_samples_error_not_the_indexes() {
    let root = tempfile::tempdir().expect("folder");
    let shards = common::shards(root.path(), &photos(4, SIDE, false), 4);
    let augment = Augment::imagenet_val(32).build().expect("augmentation");
    let open = || load(Indexed::open(&shards, Grain::default())).augment(augment);
    let (builders, shard) = ([open(), open()], root.path().join("train-000.tar"));
    let mut bytes = std::fs::read(&shard).expect("shard");
    let end = bytes.windows(2).position(|marker| marker == [0xFF, 0xD9]).expect("an end of image");
    // A marker in the middle of the first sample's scan.
    bytes[end / 2..end / 2 + 2].copy_from_slice(&[0xFF, 0xD9]);
    let then = std::fs::metadata(&shard).and_then(|metadata| metadata.modified()).expect("time");
    std::fs::write(&shard, bytes).expect("shard");
    // Damage that no time betrays, as a disk does it.
    std::fs::File::options().write(true).open(&shard).and_then(|file| file.set_modified(then)).expect("time");
    let [with, without] = builders;
    let (with, without) = (first_error(with), first_error(without.index(IndexMode::Off)));
    assert_eq!(with.kind(), ErrorKind::Truncated, "{with}");
    assert_eq!(with.to_string(), without.to_string());
}

#[test]
fn limits_hold_for_records_too() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &photos(4, SIDE, false)).display().to_string();
    let limits = |max_pixels| Limits { max_pixels, ..Limits::default() };
    for mode in [IndexMode::Auto, IndexMode::Required, IndexMode::Off] {
        let source = || Indexed::open(&folder, Grain::default());
        let error = first_error(load(source()).index(mode).limits(limits(SIDE.0 as u64 * SIDE.1 as u64 - 1)));
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{mode}: {error}");
        run(load(source()).index(mode).limits(limits(SIDE.0 as u64 * SIDE.1 as u64)));
    }
}

#[test]
fn a_read_that_fails_among_others_of_its_sample_is_the_samples_error() {
    let root = tempfile::tempdir().expect("folder");
    let shards = common::shards(root.path(), &photos(2, (1600, 800), true), 2);
    let shard = root.path().join("train-000.tar");
    let bytes = std::fs::read(&shard).expect("shard");
    let augment = Augment::builder(Geometry::RandomResizedCrop {
        size: forebay::plan::Size { height: 32, width: 32 },
        scale: [0.3, 0.3],
        ratio: [0.25, 0.25],
    });
    let augment = augment.build().expect("augmentation");
    for engine in engines() {
        for depth in [1, 4] {
            let mut source = Indexed::open(&shards, Grain::default());
            // The second photo loses its lower half, and the index lies about it: else the shard would be refused.
            let cut = &bytes[..bytes.len() * 3 / 4];
            std::fs::write(&shard, cut).expect("cut");
            for sample in 0..2 {
                (source.row(sample).object_bytes, source.row(sample).modified) = (cut.len() as u64, None);
            }
            let builder = load(source).augment(augment).engine(engine).depth(depth).arena_bytes(1 << 20);
            let mut loader = builder.build().expect("loader");
            // Were memory left behind, the arena would be full before long.
            for _ in 0..20 {
                let error = loader.epoch(1).find_map(Result::err).expect("an error");
                assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
                assert!(error.sample().is_some_and(|sample| sample.contains("class0/00001")), "{error}");
            }
            std::fs::write(&shard, &bytes).expect("shard");
        }
    }
}

#[test]
fn an_index_beside_the_data_is_built_by_the_first_epoch_and_used_by_the_next_loader() {
    let root = tempfile::tempdir().expect("folder");
    let mut samples = photos(9, SIDE, false);
    samples.push(("class0/png".into(), 0, png()));
    let folder = common::folder(root.path(), &samples).display().to_string();
    let shards = common::shards(root.path(), &samples, 4);
    let augment = Augment::imagenet_train(32).build().expect("augmentation");
    let open = |data_set: &str, mode| Loader::open(data_set).augment(augment).batch_size(4).threads(2).index(mode);
    for data_set in [&folder, &shards] {
        let refused = open(data_set, IndexMode::Required).build().err().expect("no index is there");
        assert!(refused.remedy().is_some_and(|remedy| remedy.contains("forebay index")), "{refused}");
        let (expected, off) = run(open(data_set, IndexMode::Off));
        // Two of the ten samples fill no batch: they are read for the index alone.
        let (digest, first) = run(open(data_set, IndexMode::Build));
        assert_eq!((digest, first.images, first.indexed), (expected.clone(), 8, 0), "{first}");
        assert!(first.fallbacks.is_empty(), "{first}");
        for (mode, direct) in [(IndexMode::Required, Direct::Off), (IndexMode::Build, Direct::Preferred)] {
            for engine in engines() {
                let (digest, report) = run(open(data_set, mode).direct(direct).engine(engine));
                assert_eq!(digest, expected, "{data_set} {mode} {engine}");
                assert!(report.indexed >= 7 && report.bytes_needed < off.bytes_needed * 8 / 10, "{report}");
                assert_eq!(report.index_fallbacks, 0, "{report}");
            }
        }
    }
    let hidden = std::fs::read_dir(root.path().join("folder/.forebay")).expect("the index's folder");
    let names: Vec<_> = hidden.map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names, ["index-00000-of-00001.arrow"], "nothing else is left behind");
}
