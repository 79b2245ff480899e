//! Tensors made on a device by the kernels are the host's, to the bit, however the samples get there.

use std::path::Path;

use crate::common;
use crate::cuda_load_support::{
    FIXTURES, fallbacks, fixture, index, indexed_folder, load, on_device, routed, run, samples, small, turned,
};
use crate::cuda_support;
use crate::loader_index_support::Indexed;
use forebay::decode::{DecoderKind, Route};
use forebay::engine::EngineKind;
use forebay::jpeg::Grain;
use forebay::plan::{Normalize, Size};
use forebay::report::Fallback;
use forebay::source::IndexMode;
use forebay::{Augment, DType, ErrorKind, Geometry, Layout, Loader, LoaderBuilder, Report};

/// Runs a loader on the host and on a device, and expects the same of both. What the device's run cost.
#[track_caller]
fn same(what: &str, builder: impl Fn() -> LoaderBuilder) -> Report {
    let (expected, _) = run(builder()).expect("on the host");
    let session = cuda_support::session(1);
    let (found, report) = run(on_device(builder()).decoder(DecoderKind::Kernels)).expect("on the device");
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new(), "{what}");
    assert_eq!(found, expected, "{what}");
    report
}

fn kernels_alone(report: &Report) -> bool {
    let [kernels, others] = [true, false].map(|of_kernels| {
        report.routes.iter().filter(|(route, _)| (*route == Route::Kernels) == of_kernels).map(|(_, count)| count).sum()
    });
    let (kernels, others): (u64, u64) = (kernels, others);
    kernels == report.images && others == 0 && fallbacks(report).is_empty()
}

#[test]
fn every_sampling_type_and_layout_is_the_hosts() {
    let root = tempfile::tempdir().expect("folder");
    let folder = indexed_folder(root.path(), &FIXTURES);
    let size = Size { height: 20, width: 28 };
    let geometries = [
        Geometry::RandomResizedCrop { size, scale: [0.08, 1.0], ratio: [0.75, 1.4] },
        Geometry::ResizeCenterCrop { resize: 24, crop: Size { height: 18, width: 22 } },
        Geometry::Resize { size: Size { height: 50, width: 9 } },
    ];
    let forms = [
        (DType::F32, Layout::Nchw),
        (DType::U8, Layout::Nhwc),
        (DType::F16, Layout::Nchw),
        (DType::BF16, Layout::Nhwc),
        (DType::U8, Layout::Nchw),
        (DType::F32, Layout::Nhwc),
    ];
    for (number, (dtype, layout)) in forms.into_iter().enumerate() {
        let augment = Augment::builder(geometries[number % 3]).dtype(dtype).layout(layout);
        let augment = if number % 2 == 0 && dtype != DType::U8 {
            augment.normalize(Normalize { mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3] })
        } else {
            augment
        };
        let augment = augment.build().expect("augmentation");
        let report = same(&format!("{dtype:?} {layout:?}"), || load(&folder).augment(augment));
        assert!(kernels_alone(&report), "{report}");
        assert_eq!(report.images, 2 * FIXTURES.len() as u64);
    }
}

#[test]
fn ranks_and_resuming_on_a_device_make_no_difference() {
    let root = tempfile::tempdir().expect("folder");
    let folder = indexed_folder(root.path(), &FIXTURES[..10]);
    let part = |builder: LoaderBuilder, steps: usize| {
        let mut loader = builder.build().expect("loader");
        let mut digest = forebay::batch::Digest::default();
        for batch in loader.epochs(0..2).take(steps) {
            digest.update(&batch.expect("batch")).expect("a copy");
        }
        (digest, loader.state())
    };
    let run = || load(&folder).global_batch_size(4);
    let (expected, end) = part(run(), usize::MAX);
    let session = cuda_support::session(1);
    let of_rank = |rank| {
        let shard = forebay::Shard::new(rank, 2).expect("a rank");
        part(on_device(run()).decoder(DecoderKind::Kernels).shard(shard), 4)
    };
    let ((first, state), (second, state_too)) = (of_rank(0), of_rank(1));
    assert_eq!(state, state_too);
    // The rest on one device, and on the host.
    let (rest, end_too) = part(on_device(run()).decoder(DecoderKind::Kernels).resume(state), usize::MAX);
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
    assert_eq!(end_too, end);
    assert_eq!(first + second + rest, expected);
    assert_eq!(part(run().resume(state), usize::MAX).0, rest);
}

#[test]
fn shards_engines_and_orientation_make_no_difference() {
    let root = tempfile::tempdir().expect("folder");
    let mut turned_samples = samples(&FIXTURES[..8]);
    for (number, (_, _, bytes)) in turned_samples.iter_mut().enumerate() {
        *bytes = turned(bytes, number as u8 + 1);
    }
    let folder = common::folder(root.path(), &turned_samples);
    let shards = common::shards(root.path(), &turned_samples, 3);
    index(&folder);
    index(&shards);
    for (data_set, engine) in [
        (folder.to_str().expect("a path"), EngineKind::Pread),
        (&shards, EngineKind::Pread),
        (&shards, EngineKind::Auto),
    ] {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let augment = Augment::imagenet_train(21).layout(layout).build().expect("augmentation");
            let report = same(data_set, || load(data_set).engine(engine).augment(augment).orientation(true));
            assert!(kernels_alone(&report), "{report}");
        }
    }
}

#[test]
fn waves_and_a_full_landing_area_change_nothing_but_the_counts() {
    let root = tempfile::tempdir().expect("folder");
    let folder = indexed_folder(root.path(), &FIXTURES);
    // 250 blocks: a picture of 131x97 at 4:2:0 alone has up to 360.
    let report = same("waves", || load(&folder).scratch_bytes(250 * 192));
    let (kernels, host) = (routed(&report, Route::Kernels), routed(&report, Route::Jpeg));
    assert!(kernels > 20 && host > 0 && kernels + host == report.images, "{report}");

    let report = same("a small landing area", || load(&folder).landing_bytes(16 << 10));
    let (kernels, host) = (routed(&report, Route::Kernels), routed(&report, Route::Jpeg));
    assert!(kernels > 0 && host > 0 && kernels + host == report.images, "{report}");
    let fallback = report.fallbacks.iter().find(|fallback| fallback.what == Fallback::UPLOAD);
    let fallback = fallback.expect("the report says that there was no room");
    assert!(fallback.count == host && fallback.remedy.contains("landing_bytes"), "{fallback}");
}

#[test]
fn what_the_kernels_do_not_take_comes_from_the_host_in_the_same_batch() {
    let root = tempfile::tempdir().expect("folder");
    let mut mixed = samples(&FIXTURES[..7]);
    mixed.push(("class0/picture".into(), 0, png()));
    mixed.push(("class1/progressive".into(), 1, progressive()));
    mixed.push(("class1/scans".into(), 1, fixture("scans_single_420")));
    mixed.push(("class0/unindexed".into(), 0, fixture("422_33x31")));
    let folder = common::folder(root.path(), &mixed);
    let open = || {
        let mut source = Indexed::open(&folder, Grain::Bits(300));
        let last = source.records.iter().rposition(Option::is_some).expect("a record");
        source.records[last] = None;
        small(Loader::of(std::sync::Arc::new(source)))
    };
    let report = same("mixed", open);
    assert_eq!(report.images, 2 * 11);
    assert_eq!(routed(&report, Route::Png), 2);
    assert_eq!(routed(&report, Route::OtherJpeg), 2);
    assert_eq!(routed(&report, Route::Jpeg), 4);
    assert_eq!(routed(&report, Route::Kernels), 14);

    let (expected, _) = run(open()).expect("on the host");
    let session = cuda_support::session(3);
    let (found, report) = run(on_device(open()).decoder(DecoderKind::Host)).expect("on the device");
    assert_eq!((found, routed(&report, Route::Kernels)), (expected, 0));
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
}

/// The device finds out what only decoding can, as the host does, and that sample alone is read again. What no decoder
/// can find out, a lie above a crop that all below it agrees with, is for the checksums of an index.
#[test]
fn an_index_that_lies_costs_a_second_reading_of_that_sample() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(&FIXTURES[..7]));
    let lying = || {
        let mut source = Indexed::open(&folder, Grain::Bits(400));
        for sample in [1, 4] {
            // The position of the second row's first bit, or the DC prediction there: no check of the host's sees it.
            let row = source.row(sample);
            let head = 1 + usize::from(row.entries[0]);
            row.entries[head + 2 + sample / 2] ^= 2;
        }
        small(Loader::of(std::sync::Arc::new(source)))
    };
    let (expected, _) = run(lying()).expect("on the host");
    let session = cuda_support::session(1);
    let (found, report) = run(on_device(lying()).decoder(DecoderKind::Kernels)).expect("on the device");
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
    assert_eq!(found, expected);
    let fallback = report.fallbacks.iter().find(|fallback| fallback.what == Fallback::KERNELS);
    assert!(fallback.is_some_and(|fallback| fallback.cause.contains("sample class")), "{report}");
    let error = run(on_device(lying()).index(IndexMode::Required)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IndexStale, "{error}");
}

#[test]
fn what_a_device_cannot_do_is_refused_when_the_loader_is_built() {
    let _session = cuda_support::session(1);
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(&FIXTURES[..3]));
    let error = |builder: LoaderBuilder| builder.build().err().expect("an error");

    let without_index = error(on_device(load(&folder)).decoder(DecoderKind::Kernels));
    assert_eq!(without_index.kind(), ErrorKind::Unavailable);
    assert!(without_index.remedy().is_some_and(|remedy| remedy.contains("forebay index")), "{without_index}");

    let own_sizes = Augment::builder(Geometry::None).dtype(DType::U8).build().expect("augmentation");
    for refused in [
        on_device(load(&folder)).augment(own_sizes),
        on_device(load(&folder)).decoder(DecoderKind::Kernels).index(IndexMode::Off),
        on_device(load(&folder)).landing_bytes(4 << 30),
        load(&folder).decoder(DecoderKind::Kernels),
        load(&folder).decoder(DecoderKind::NvJpeg),
        load(&folder).decoder(DecoderKind::NvJpegDevice),
    ] {
        let error = error(refused);
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
    }
}

#[test]
fn photos_are_the_hosts() {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/photos");
    let Ok(listed) = std::fs::read_dir(&photos) else {
        println!("skipped: {} is not there", photos.display());
        return;
    };
    let root = tempfile::tempdir().expect("folder");
    let folder = root.path().join("set/class0");
    std::fs::create_dir_all(&folder).expect("folder");
    let mut files: Vec<_> = listed.map(|file| file.expect("file").path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "JPEG")).take(12) {
        std::fs::copy(file, folder.join(file.file_name().expect("a name"))).expect("copy");
    }
    let set = root.path().join("set");
    index(&set);
    let augment = Augment::imagenet_train(64).build().expect("augmentation");
    let (expected, _) = one_epoch(load(&set).augment(augment).batch_size(6));
    let session = cuda_support::session(1);
    let (found, report) =
        one_epoch(on_device(load(&set)).augment(augment).batch_size(6).landing_bytes(0).scratch_bytes(64 << 20));
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
    assert_eq!(found, expected);
    assert_eq!(routed(&report, Route::Kernels), report.indexed, "{report}");
}

fn one_epoch(builder: LoaderBuilder) -> (String, Report) {
    let mut loader = builder.build().expect("loader");
    let mut digest = forebay::batch::Digest::default();
    for batch in loader.epoch(0) {
        digest.update(&batch.expect("batch")).expect("a copy");
    }
    (digest.hex(), loader.report())
}

fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(vec![]);
    let image = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8, y as u8, 7]));
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("encoding");
    bytes.into_inner()
}

fn progressive() -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 85);
    encoder.set_progressive(true);
    encoder.encode(&common::pixels(3, 50, 40), 50, 40, jpeg_encoder::ColorType::Rgb).expect("encoding");
    bytes
}
