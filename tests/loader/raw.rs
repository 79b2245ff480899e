//! The promises of raw pixels: the tensors of the same pixels in a PNG, from the rows of the crop alone.

use std::path::Path;

use crate::raw_support::{self, Picture, Stored, folder, pictures, shards};
use crate::{engines, first_error};
use forebay::batch::Digest;
use forebay::decode::Route;
use forebay::engine::Direct;
use forebay::jpeg::Grain;
use forebay::order::LastBatch;
use forebay::plan::{AugmentBuilder, Size};
use forebay::raw::Shape;
use forebay::source::index::{BuildOptions, Part, VerifyOptions, build, verify};
use forebay::source::{IndexMode, IndexOptions, RecordedImage, open, open_with};
use forebay::{Augment, DType, ErrorKind, Geometry, Layout, Limits, Loader, LoaderBuilder, Report};

const SHAPE: Shape = Shape { height: 96, width: 128, channels: 3 };

fn load(data_set: impl AsRef<Path>) -> LoaderBuilder {
    let augment = Augment::imagenet_train(32).build().expect("augmentation");
    Loader::open(data_set).augment(augment).batch_size(4).last_batch(LastBatch::Partial).threads(2)
}

fn run(builder: LoaderBuilder) -> (String, Report) {
    let mut loader = builder.build().expect("loader");
    let mut digest = Digest::default();
    for batch in loader.epoch(1) {
        digest.update(&batch.expect("batch")).expect("on the host");
    }
    (digest.hex(), loader.report())
}

fn index(data_set: impl AsRef<Path>) {
    let options = BuildOptions { grain: Grain::default(), part: Part::WHOLE, dir: None, threads: 2, force: false };
    let built = build(data_set, &options, &|_, _| {}).expect("an index");
    assert!(built.failed.is_empty() && built.unreadable.is_empty(), "{built:?}");
}

fn by_raw(report: &Report) -> u64 {
    report.routes.iter().find(|(route, _)| *route == Route::Raw).expect("counted").1
}

#[test]
fn arrays_give_the_tensors_of_the_same_pixels_in_a_png() {
    let root = tempfile::tempdir().expect("folder");
    let pictures = pictures(14, None);
    let png = folder(root.path(), &pictures, Stored::Png);
    let npy = [folder(root.path(), &pictures, Stored::Npy), shards(root.path(), &pictures, Stored::Npy)];
    let resize = Geometry::Resize { size: Size { height: 40, width: 25 } };
    let augments: [fn() -> AugmentBuilder; 5] = [
        || Augment::imagenet_train(32),
        || Augment::imagenet_train(24).dtype(DType::BF16).layout(Layout::Nhwc),
        || Augment::imagenet_val(48).dtype(DType::F16),
        || Augment::imagenet_train(20).without_normalize().dtype(DType::U8),
        || Augment::builder(Geometry::None).dtype(DType::U8).layout(Layout::Nhwc),
    ];
    let augments = augments.map(|augment| augment().build().expect("augmentation"));
    let resized = Augment::builder(resize).without_normalize().dtype(DType::U8).build().expect("augmentation");
    let expected: Vec<_> =
        augments.iter().chain([&resized]).map(|augment| run(load(&png).augment(*augment)).0).collect();
    for is_indexed in [false, true] {
        for data_set in &npy {
            if is_indexed {
                index(data_set);
            }
            for (augment, expected) in augments.iter().chain([&resized]).zip(&expected) {
                let (digest, report) = run(load(data_set).augment(*augment).orientation(true));
                assert_eq!((&digest, by_raw(&report)), (expected, 14), "{data_set:?}, {is_indexed}, {augment:?}");
            }
        }
    }
}

#[test]
fn an_index_reads_the_rows_of_a_crop_and_nothing_else() {
    let root = tempfile::tempdir().expect("folder");
    let pictures = pictures(14, None);
    let expected = run(load(folder(root.path(), &pictures, Stored::Png))).0;
    for data_set in [folder(root.path(), &pictures, Stored::Npy), shards(root.path(), &pictures, Stored::Npy)] {
        let (digest, whole) = run(load(&data_set));
        assert_eq!((&digest, whole.indexed, whole.bytes_skipped), (&expected, 0, 0));
        index(&data_set);
        let source = open_with(&data_set, &IndexOptions { mode: IndexMode::Required, dir: None }).expect("data set");
        for (sample, Picture { shape, .. }) in (0..).zip(&pictures) {
            let record = source.record(sample).expect("sound").expect("a record");
            let RecordedImage::Raw(facts) = record.image else { panic!("{record:?}") };
            assert_eq!((facts.shape, facts.offset), (*shape, 128));
        }
        for engine in engines() {
            for (mode, direct) in [
                (IndexMode::Off, Direct::Off),
                (IndexMode::Auto, Direct::Off),
                (IndexMode::Required, Direct::Preferred),
            ] {
                let (digest, report) = run(load(&data_set).engine(engine).index(mode).direct(direct));
                let what = format!("{data_set:?}, {engine}, {mode}, {direct}: {report}");
                assert_eq!(digest, expected, "{what}");
                assert_eq!(report.reads, 14, "{what}");
                let is_used = mode != IndexMode::Off;
                assert_eq!((by_raw(&report), report.indexed), (14, if is_used { 14 } else { 0 }), "{what}");
                assert_eq!(report.bytes_needed < report.bytes_data * 9 / 10, is_used, "{what}");
                assert_eq!(report.bytes_skipped > 0, is_used, "{what}");
            }
        }
        let options = VerifyOptions { dir: None, threads: 2, raw_shape: None };
        let verified = verify(&data_set, &options, &|_, _| {}).expect("verified");
        assert_eq!((verified.samples, verified.indexed, verified.problems), (14, 14, 0), "{verified:?}");
    }
}

#[test]
fn an_index_of_arrays_is_built_by_the_first_epoch_and_used_by_the_next_loader() {
    let root = tempfile::tempdir().expect("folder");
    let pictures = pictures(9, None);
    for data_set in [folder(root.path(), &pictures, Stored::Npy), shards(root.path(), &pictures, Stored::Npy)] {
        let (expected, _) = run(load(&data_set).index(IndexMode::Build));
        let (digest, report) = run(load(&data_set).index(IndexMode::Required));
        assert_eq!((digest, report.indexed), (expected, 9));
        let options = VerifyOptions { dir: None, threads: 1, raw_shape: None };
        assert_eq!(verify(&data_set, &options, &|_, _| {}).expect("verified").problems, 0);
    }
}

#[test]
fn pixels_without_a_header_are_read_by_the_shape_that_is_told() {
    let root = tempfile::tempdir().expect("folder");
    for channels in [3, 1] {
        let root = root.path().join(channels.to_string());
        std::fs::create_dir(&root).expect("folder");
        let shape = Shape { channels, ..SHAPE };
        let mut pictures = pictures(14, Some(shape));
        // What begins as another format is pixels all the same.
        for (picture, start) in pictures.iter_mut().zip([&b"\xff\xd8\xff"[..], b"\x93NUMPY", b"\x89PNG"]) {
            picture.pixels[..start.len()].copy_from_slice(start);
        }
        let (expected, whole) = run(load(folder(&root, &pictures, Stored::Png)));
        for data_set in [folder(&root, &pictures, Stored::Raw), shards(&root, &pictures, Stored::Raw)] {
            for is_indexed in [false, true] {
                if is_indexed {
                    index(&data_set);
                }
                for (engine, mode) in engines().into_iter().flat_map(|engine| {
                    [
                        (engine, IndexMode::Off),
                        (engine, if is_indexed { IndexMode::Required } else { IndexMode::Build }),
                    ]
                }) {
                    let (digest, report) = run(load(&data_set).raw_shape(shape).engine(engine).index(mode));
                    let what = format!("{data_set:?}, {engine}, {mode}: {report}");
                    assert_eq!((&digest, by_raw(&report), report.indexed), (&expected, whole.images, 0), "{what}");
                    assert!(report.bytes_needed < report.bytes_data * 9 / 10, "{what}");
                }
            }
            let own = Augment::builder(Geometry::None).dtype(DType::U8).layout(Layout::Nhwc).build().expect("whole");
            assert_eq!(
                run(load(&data_set).raw_shape(shape).augment(own)).0,
                run(load(folder(&root, &pictures, Stored::Png)).augment(own)).0
            );
            let problems = |raw_shape| {
                let options = VerifyOptions { dir: None, threads: 2, raw_shape };
                verify(&data_set, &options, &|_, _| {}).expect("verified").problems
            };
            assert_eq!((problems(Some(shape)), problems(None)), (0, 14));
        }
    }
}

#[test]
fn pixels_without_a_header_are_refused_by_name_where_the_shape_is_not_theirs() {
    let root = tempfile::tempdir().expect("folder");
    let pictures = pictures(6, Some(SHAPE));
    for data_set in [folder(root.path(), &pictures, Stored::Raw), shards(root.path(), &pictures, Stored::Raw)] {
        let own = Augment::builder(Geometry::None).dtype(DType::U8).layout(Layout::Nhwc).build().expect("whole");
        for builder in [load(&data_set), load(&data_set).augment(own), load(&data_set).index(IndexMode::Off)] {
            let without = first_error(builder);
            assert_eq!(without.kind(), ErrorKind::Unsupported, "{without}");
            assert!(without.sample().expect("named").contains("class"), "{without}");
            assert!(without.remedy().expect("a remedy").contains("--raw-shape"), "{without}");
        }
        for (shape, kind) in [
            (Shape { height: 97, ..SHAPE }, ErrorKind::Truncated),
            (Shape { channels: 1, ..SHAPE }, ErrorKind::Corrupt),
        ] {
            let other = first_error(load(&data_set).raw_shape(shape));
            let text = other.to_string();
            assert_eq!(other.kind(), kind, "{other}");
            assert!(text.contains("36864") && text.contains(&shape.len_bytes().to_string()), "{text}");
        }
    }
}

#[test]
fn a_shape_beyond_what_is_allowed_is_refused_before_anything_is_read() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = folder(root.path(), &pictures(2, Some(SHAPE)), Stored::Raw);
    let limits = Limits { max_side: 100, ..Limits::default() };
    let refused = |builder: LoaderBuilder| builder.build().err().expect("refused").kind();
    assert_eq!(refused(load(&data_set).raw_shape(SHAPE).limits(limits)), ErrorKind::LimitExceeded);
    assert_eq!(refused(load(&data_set).raw_shape(Shape { channels: 4, ..SHAPE })), ErrorKind::InvalidParameter);
    // What a header declares is held against the limits too, with an index and without.
    let arrays = folder(root.path(), &pictures(2, Some(SHAPE)), Stored::Npy);
    assert_eq!(first_error(load(&arrays).limits(limits)).kind(), ErrorKind::LimitExceeded);
    index(&arrays);
    assert_eq!(first_error(load(&arrays).limits(limits).index(IndexMode::Required)).kind(), ErrorKind::LimitExceeded);
}

#[test]
fn arrays_that_are_no_image_are_refused_by_name_and_described_with_their_cause() {
    let root = tempfile::tempdir().expect("folder");
    let folder = root.path().join("set");
    std::fs::create_dir(&folder).expect("folder");
    let mut bytes = pictures(1, Some(SHAPE))[0].bytes(Stored::Npy);
    let at = bytes.windows(3).position(|text| text == b"|u1").expect("the type");
    bytes[at..at + 3].copy_from_slice(b"<f4");
    std::fs::write(folder.join("features.npy"), bytes).expect("array");
    let refused = first_error(load(&folder));
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert!(refused.to_string().contains("<f4 of shape (96, 128, 3)"), "{refused}");
    assert!(refused.sample().expect("named").contains("features"), "{refused}");
    let options = BuildOptions { grain: Grain::default(), part: Part::WHOLE, dir: None, threads: 1, force: false };
    let built = build(&folder, &options, &|_, _| {}).expect("an index");
    assert!(built.unreadable[0].1.contains("<f4"), "{built:?}");
}

/// Features and masks lie beside images under their names in many data sets.
#[test]
fn an_array_beside_an_image_is_none() {
    let root = tempfile::tempdir().expect("folder");
    let pictures = pictures(6, Some(SHAPE));
    let png = folder(root.path(), &pictures, Stored::Png);
    let expected = run(load(&png)).0;
    for picture in &pictures {
        for extension in ["npy", "mask.npy", "bin"] {
            std::fs::write(png.join(&picture.name).with_extension(extension), b"something else").expect("companion");
        }
    }
    std::fs::write(png.join("class0/zz.npy"), pictures[0].bytes(Stored::Npy)).expect("an image");
    let source = open(&png).expect("data set");
    assert_eq!(source.len(), 7);
    let note = source.notes().iter().find(|note| note.contains("belong to an image")).expect("noted");
    assert!(note.contains(": 18, such as class0/00000.bin"), "{note}");
    std::fs::remove_file(png.join("class0/zz.npy")).expect("gone");
    assert_eq!(run(load(&png)).0, expected);

    let shard = root.path().join("shard.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&shard).expect("shard"));
    for (picture, order) in pictures.iter().zip([["npy", "png", "mask.npy"], ["raw", "mask.npy", "png"]].iter().cycle())
    {
        raw_support::append(&mut tar, &format!("{}.cls", picture.name), picture.class.to_string().as_bytes());
        for extension in order {
            let bytes = if *extension == "png" { picture.bytes(Stored::Png) } else { b"something else".to_vec() };
            raw_support::append(&mut tar, &format!("{}.{extension}", picture.name), &bytes);
        }
    }
    raw_support::append(&mut tar, "only.mask.npy", b"of nothing");
    tar.into_inner().expect("shard's end");
    let source = open(&shard).expect("data set");
    assert_eq!(source.notes().len(), 1, "{:?}", source.notes());
    assert!(source.notes()[0].starts_with("keys without a "), "{:?}", source.notes());
    assert_eq!(run(load(&shard)).0, expected);
}
