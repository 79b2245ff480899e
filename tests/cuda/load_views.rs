//! Several views made on a device are those of the host, to the bit, from one upload of their bytes.

use std::path::Path;

use crate::common;
use crate::cuda_load_support::{
    self, FIXTURES, fallbacks, indexed_folder, load, on_device, routed, run, small, within,
};
use crate::cuda_support;
use crate::loader_index_support;
use cudarc::driver::CudaContext;
use forebay::batch::dlpack::DLManagedTensorVersioned;
use forebay::decode::{DecoderKind, Route};
use forebay::jpeg::Grain;
use forebay::plan::Size;
use forebay::report::Fallback;
use forebay::{Augment, DType, ErrorKind, Geometry, Layout, Loader, LoaderBuilder, Report};

/// Groups that agree in nothing: sizes, types, layouts, and what of the image they show.
fn groups() -> [(Augment, usize); 3] {
    let of = |size, scale, dtype, layout| {
        let geometry = Geometry::RandomResizedCrop { size, scale, ratio: [0.75, 1.4] };
        let builder = Augment::builder(geometry).horizontal_flip(0.5).dtype(dtype).layout(layout);
        builder.build().expect("augmentation")
    };
    [
        (of(Size { height: 20, width: 28 }, [0.4, 1.0], DType::F32, Layout::Nchw), 2),
        (of(Size::square(9), [0.05, 0.3], DType::U8, Layout::Nhwc), 3),
        (of(Size::square(12), [0.1, 1.0], DType::BF16, Layout::Nchw), 1),
    ]
}

fn views(folder: &Path) -> LoaderBuilder {
    load(folder).views(groups())
}

/// Runs a loader on the host and on a device, and expects the same of both. What the device's run cost.
#[track_caller]
fn same(decoder: DecoderKind, builder: impl Fn() -> LoaderBuilder) -> Report {
    let (expected, _) = run(builder()).expect("on the host");
    let session = cuda_support::session(1);
    let (found, report) = run(on_device(builder()).decoder(decoder)).expect("on the device");
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
    assert_eq!(found, expected);
    report
}

#[test]
fn views_of_the_kernels_are_the_hosts() {
    let root = tempfile::tempdir().expect("folder");
    let folder = indexed_folder(root.path(), &FIXTURES);
    let report = same(DecoderKind::Kernels, || views(&folder));
    assert_eq!(
        (report.images, routed(&report, Route::Kernels)),
        (2 * FIXTURES.len() as u64, 2 * FIXTURES.len() as u64)
    );
    assert!(fallbacks(&report).is_empty(), "{report}");
    // The encoded bytes go up once, not once a view.
    let one = same(DecoderKind::Kernels, || load(&folder).views([groups()[0]]));
    assert!(report.bytes_uploaded < 3 * one.bytes_uploaded, "{} and {}", report.bytes_uploaded, one.bytes_uploaded);
}

#[test]
fn waves_end_anywhere_among_the_views() {
    let root = tempfile::tempdir().expect("folder");
    let folder = indexed_folder(root.path(), &FIXTURES[..10]);
    for blocks in [300, 700] {
        let report = same(DecoderKind::Kernels, || views(&folder).scratch_bytes(blocks * 192).batch_size(5));
        assert!(routed(&report, Route::Kernels) > 0, "{report}");
    }
}

/// Of a sample one view of which finds no room, no view is the kernels': pictures of so little in so many restart intervals
/// that what describes them takes far more than their bytes.
#[test]
fn a_sample_is_the_kernels_with_all_of_its_views_or_none() {
    let root = tempfile::tempdir().expect("folder");
    let picture = |grey: usize| {
        let mut bytes = vec![];
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 50);
        encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
        encoder.set_restart_interval(1);
        let rgb = vec![40 * grey as u8 + 9; 256 * 192 * 3];
        encoder.encode(&rgb, 256, 192, jpeg_encoder::ColorType::Rgb).expect("encoding");
        bytes
    };
    let samples: Vec<_> = (0..5).map(|number| (format!("class0/{number}"), 0, picture(number))).collect();
    let folder = common::folder(root.path(), &samples);
    cuda_load_support::index(&folder);
    let two = || [groups()[0], groups()[1]];
    let report = same(DecoderKind::Kernels, || load(&folder).views(two()).landing_bytes(5 * 4096).batch_size(5));
    let kernels = routed(&report, Route::Kernels);
    assert!(kernels > 0 && kernels < report.images, "{report}");
    assert!(report.fallbacks.iter().any(|fallback| fallback.cause.contains("segments")), "{report}");
}

#[test]
fn what_no_index_describes_joins_from_the_host() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &cuda_load_support::samples(&FIXTURES[..9]));
    let report = same(DecoderKind::Auto, || small(Loader::open(&folder)).views(groups()));
    assert_eq!((report.images, routed(&report, Route::Kernels), routed(&report, Route::NvJpeg)), (18, 0, 0));
    assert!(fallbacks(&report).iter().any(|fallback| fallback.cause.contains("nvJPEG")), "{report}");
    let _session = cuda_support::session(1);
    for decoder in [DecoderKind::NvJpeg, DecoderKind::NvJpegDevice] {
        let error = on_device(views(&folder)).decoder(decoder).build().err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
    }
}

/// The device finds several views of a sample bad; the host makes all of them again, from one more reading.
#[test]
fn what_the_kernels_find_is_mended_in_every_view() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &cuda_load_support::samples(&FIXTURES[..7]));
    // All of each picture, so that every view comes across what is wrong.
    let whole = groups().map(|(augment, count)| {
        let [a, b, c] = augment.output_shape().expect("one size").map(|side| side as u32);
        let size =
            if augment.layout() == Layout::Nchw { Size { height: b, width: c } } else { Size { height: a, width: b } };
        let builder = Augment::builder(Geometry::Resize { size }).horizontal_flip(0.5);
        (builder.dtype(augment.dtype()).layout(augment.layout()).build().expect("augmentation"), count)
    });
    let report = same(DecoderKind::Kernels, || {
        let mut source = loader_index_support::Indexed::open(&folder, Grain::Bits(400));
        // As in tests/cuda/load.rs: a lie that only decoding finds.
        let row = source.row(4);
        let head = 1 + usize::from(row.entries[0]);
        row.entries[head + 4] ^= 2;
        small(Loader::of(std::sync::Arc::new(source))).views(whole)
    });
    let mended =
        report.fallbacks.iter().find(|fallback| fallback.what == Fallback::KERNELS).map(|fallback| fallback.count);
    assert_eq!((mended, routed(&report, Route::Kernels)), (Some(2), 2 * 6), "{report}");
}

/// A group is read on a stream, by its pointer, and by DLPack where it lies.
#[test]
fn every_group_is_handed_over_where_it_lies() {
    let root = tempfile::tempdir().expect("folder");
    let folder = indexed_folder(root.path(), &FIXTURES[..7]);
    let session = cuda_support::session(2);
    within(std::time::Duration::from_secs(60), move || {
        let mut loader = on_device(views(&folder)).batch_size(5).build().expect("loader");
        let stream = CudaContext::new(0).expect("context").new_stream().expect("stream");
        for batch in loader.epoch(0) {
            let batch = batch.expect("batch");
            let mut pointers = vec![];
            for (group, (augment, count)) in groups().into_iter().enumerate() {
                let expected = batch.to_host().expect("a copy").group(group).expect("one size").bytes.to_vec();
                let tensor = batch.group_on(group, &stream).expect("a tensor");
                assert_eq!((tensor.shape[0], tensor.dtype), (count * batch.len(), augment.dtype()));
                assert!(tensor.pointer.is_multiple_of(256));
                let found = stream.clone_dtoh(&tensor.bytes()).expect("copy");
                stream.synchronize().expect("an end");
                assert!(found == expected, "group {group}");
                let raw = batch.raw_group(group).expect("a tensor");
                assert_eq!((raw.pointer, raw.shape, raw.len_bytes), (tensor.pointer, tensor.shape, expected.len()));
                pointers.push(tensor.pointer);
            }
            let tensors = batch.into_dlpack_groups(Some(&stream)).expect("tensors");
            assert_eq!(tensors.len(), pointers.len());
            for (tensor, pointer) in tensors.into_iter().zip(pointers) {
                let managed: std::ptr::NonNull<DLManagedTensorVersioned> = tensor.into_versioned();
                // SAFETY: it is ours until its deleter is called, once.
                unsafe {
                    assert_eq!((*managed.as_ptr()).dl_tensor.data.addr() as u64, pointer);
                    let deleter = (*managed.as_ptr()).deleter.expect("a deleter");
                    deleter(managed.as_ptr());
                }
            }
        }
    });
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
}
