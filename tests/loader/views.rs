//! The promises of several views: each is what its key says, they are read once, and they change nothing else.

use std::path::Path;
use std::sync::Arc;

use crate::common;
use crate::loader_index_support::{Indexed, photos};
use forebay::augment::Resizer;
use forebay::batch::{Digest, Verdict};
use forebay::decode::Decoder;
use forebay::engine::{Direct, EngineKind};
use forebay::jpeg::Grain;
use forebay::order::{LastBatch, Weights};
use forebay::plan::{Orientation, SampleKey, Size, VIEWS_MAX};
use forebay::source::{IndexMode, Source};
use forebay::{
    Augment, Batch, DType, ErrorBudget, ErrorKind, Geometry, Layout, Limits, Loader, LoaderBuilder, OnError, Report,
    Shard,
};

/// A number of samples that leaves a partial batch.
const SAMPLES: usize = 9;
const BATCH: u64 = 4;

/// Two groups that agree in nothing.
fn groups() -> [(Augment, usize); 2] {
    let large = Augment::imagenet_train(33).build().expect("augmentation");
    [(large, 2), (local(16, [0.02, 0.3], DType::U8, Layout::Nhwc), 3)]
}

fn local(size: u32, scale: [f64; 2], dtype: DType, layout: Layout) -> Augment {
    let geometry = Geometry::RandomResizedCrop { size: Size::square(size), scale, ratio: [0.75, 4.0 / 3.0] };
    let builder = Augment::builder(geometry).horizontal_flip(0.5).dtype(dtype).layout(layout);
    builder.dct_scaling(true).build().expect("augmentation")
}

/// JPEGs that an index describes, and what none does: a PNG, and a JPEG whose components come in scans of their own.
fn samples() -> Vec<(String, usize, Vec<u8>)> {
    let mut samples = photos(SAMPLES - 2, (320, 240), false);
    let mut png = std::io::Cursor::new(vec![]);
    let image = image::RgbImage::from_fn(90, 70, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    image.write_to(&mut png, image::ImageFormat::Png).expect("encoding");
    samples.push(("class0/png".into(), 0, png.into_inner()));
    let mut progressive = vec![];
    let mut encoder = jpeg_encoder::Encoder::new(&mut progressive, 80);
    encoder.set_progressive(true);
    encoder.encode(&common::pixels(5, 120, 100), 120, 100, jpeg_encoder::ColorType::Rgb).expect("encoding");
    samples.push(("class0/progressive".into(), 0, progressive));
    samples
}

fn load(folder: &Path) -> LoaderBuilder {
    small(Loader::of(Arc::new(Indexed::open(folder, Grain::Bits(1024)))))
}

fn small(builder: LoaderBuilder) -> LoaderBuilder {
    builder.views(groups()).batch_size(BATCH).last_batch(LastBatch::Partial).threads(2).seed(3)
}

/// The digest of an epoch, and what it cost.
fn run(builder: LoaderBuilder) -> (Digest, Report) {
    let mut loader = builder.build().expect("loader");
    let mut digest = Digest::default();
    for batch in loader.epoch(1) {
        digest.update(&batch.expect("batch")).expect("on the host");
    }
    (digest, loader.report())
}

/// A view made step by step: header, plan, all of the pixels, resampling.
fn reference(bytes: &[u8], augment: &Augment, key: SampleKey) -> Vec<u8> {
    let mut decoder = Decoder::new(Limits::default());
    let info = decoder.inspect(bytes).expect("header");
    let mut plan = augment.plan(key, info.width, info.height, Orientation::AS_STORED).expect("plan");
    if augment.dct_scaling() && info.route.scales() {
        plan = plan.scaled_down();
    }
    // Words, so that any element may start there.
    let mut output = vec![0_u32; plan.output_bytes().div_ceil(4)];
    let output_bytes = &mut bytemuck::cast_slice_mut::<u32, u8>(&mut output)[..plan.output_bytes()];
    let mut resizer = Resizer::new(augment);
    let mut rows = resizer.begin(&plan, output_bytes).expect("output");
    decoder.decode(bytes, &info, plan.view(), &mut rows).expect("pixels");
    rows.finish().expect("all rows");
    output_bytes.to_vec()
}

/// Compares every view of a batch with its reference, whose key has this draw.
fn check(batch: &Batch, samples: &[(String, usize, Vec<u8>)], draw: impl Fn(usize) -> u32) {
    let mut number = 0;
    assert_eq!((batch.groups(), batch.labels().len()), (groups().len(), batch.len()));
    for (group, (augment, count)) in groups().into_iter().enumerate() {
        let tensor = batch.group(group).expect("one size");
        let [a, b, c] = augment.output_shape().expect("one size");
        assert_eq!((tensor.shape, batch.views(group)), ([count * batch.len(), a, b, c], count));
        assert_eq!((tensor.dtype, tensor.layout), (augment.dtype(), augment.layout()));
        for view in 0..count {
            let part = batch.view(group, view).expect("one size");
            assert_eq!(part.shape, [batch.len(), a, b, c]);
            for index in 0..batch.len() {
                let sample = batch.samples()[index];
                let view_number = SampleKey::numbered(draw(index), number);
                let key = SampleKey { seed: 3, epoch: batch.epoch(), sample, view: view_number };
                let expected = reference(
                    &samples.iter().find(|(name, ..)| name == batch.key(index)).expect("name").2,
                    &augment,
                    key,
                );
                let what = format!("{}, group {group}, view {view}", batch.key(index));
                assert!(part.image(index) == expected, "{what}");
                assert!(tensor.image(view * batch.len() + index) == expected, "{what} of its group");
            }
            number += 1;
        }
    }
}

#[test]
fn every_view_is_what_its_key_says() {
    let root = tempfile::tempdir().expect("folder");
    let samples = samples();
    let folder = common::folder(root.path(), &samples);
    for index in [IndexMode::Off, IndexMode::Auto] {
        let mut loader = load(&folder).index(index).build().expect("loader");
        let mut seen = 0;
        for batch in loader.epochs(0..2) {
            let batch = batch.expect("batch");
            check(&batch, &samples, |_| 0);
            seen += batch.len();
        }
        let report = loader.report();
        assert_eq!((seen, report.images as usize), (2 * SAMPLES, 2 * SAMPLES));
        let indexed = if index == IndexMode::Off { 0 } else { 2 * (SAMPLES - 2) };
        assert_eq!((report.indexed as usize, report.index_fallbacks), (indexed, 0));
        assert_eq!(report.routes.iter().map(|(_, count)| *count as usize).sum::<usize>(), 2 * SAMPLES, "once each");
    }
}

/// A sample that is drawn twice has other views each time, none of which is one of the other draw.
#[test]
fn views_of_every_draw_are_its_own() {
    let root = tempfile::tempdir().expect("folder");
    let samples = samples();
    let folder = common::folder(root.path(), &samples);
    let weights = Weights::new(&[1.0; SAMPLES]).expect("weights");
    let mut loader = load(&folder).weights(weights).build().expect("loader");
    for batch in loader.epoch(0) {
        let batch = batch.expect("batch");
        check(&batch, &samples, |index| (batch.position() + index as u64) as u32);
    }
}

#[test]
fn the_digest_is_that_of_every_way_to_it() {
    let root = tempfile::tempdir().expect("folder");
    let samples = samples();
    let folder = common::folder(root.path(), &samples);
    let (expected, whole) = run(load(&folder).index(IndexMode::Off));
    for (threads, engine, direct) in [
        (1, EngineKind::Auto, Direct::Auto),
        (4, EngineKind::Pread, Direct::Off),
        (3, EngineKind::Auto, Direct::Preferred),
    ] {
        for index in [IndexMode::Off, IndexMode::Auto] {
            let (digest, report) = run(load(&folder).threads(threads).engine(engine).direct(direct).index(index));
            assert_eq!(digest, expected, "{threads} threads, {engine}, direct {direct}, index {index}");
            assert_eq!(report.bytes_data, whole.bytes_data);
            assert!(report.bytes_read <= whole.bytes_read || direct == Direct::Preferred);
        }
    }
    let of_rank = |rank| run(load(&folder).batch_size(BATCH / 2).shard(Shard::new(rank, 2).expect("rank"))).0;
    assert_eq!(of_rank(0) + of_rank(1), expected, "two ranks");
    let (one_view_less, _) = run(load(&folder).views([groups()[0], (groups()[1].0, 2)]));
    assert_ne!(one_view_less, expected, "every view counts");
}

#[test]
fn the_first_view_is_that_of_a_loader_with_one() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples());
    let (large, small) = (groups()[0].0, groups()[1].0);
    assert_eq!(run(load(&folder).augment(large)).0, run(load(&folder).views([(large, 1)])).0);
    let tensors = |builder: LoaderBuilder, group: usize, view: usize| -> Vec<Vec<u8>> {
        let mut loader = builder.build().expect("loader");
        let batches = loader.epoch(0).map(|batch| batch.expect("batch"));
        batches.map(|batch| batch.view(group, view).expect("one size").bytes.to_vec()).collect()
    };
    let all = |group, view| tensors(load(&folder), group, view);
    assert_eq!(tensors(load(&folder).augment(large), 0, 0), all(0, 0));
    // A group that is added at the end leaves those before it as they were, and a view's number is all that counts.
    assert_eq!(tensors(load(&folder).views([(large, 2)]), 0, 1), all(0, 1));
    assert_eq!(tensors(load(&folder).views([(small, 5)]), 0, 3), all(1, 1));
    assert_ne!(all(0, 0), all(0, 1));
    assert_ne!(all(1, 0), all(1, 2));
}

#[test]
fn views_that_make_no_batch_are_refused() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples());
    let large = groups()[0].0;
    let own_size = Augment::builder(Geometry::None).build().expect("augmentation");
    let nonsense: [Vec<(Augment, usize)>; 6] = [
        vec![],
        vec![(large, 1), (large, 0)],
        vec![(large, VIEWS_MAX), (large, 1)],
        vec![(large, usize::MAX), (large, 2)],
        vec![(own_size, 2)],
        vec![(large, 1), (own_size, 1)],
    ];
    for groups in nonsense {
        let error = load(&folder).views(groups).build().err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.to_string().contains("views"), "{error}");
    }
    load(&folder).views([(large, VIEWS_MAX)]).build().expect("as many as there may be");
    let batch = load(&folder).views([(own_size, 1)]).build().expect("loader").epoch(0).next();
    assert!(batch.expect("a batch").expect("batch").group(0).is_none());
}

#[test]
fn one_bad_sample_is_one_error() {
    let root = tempfile::tempdir().expect("folder");
    let mut samples = samples();
    let half = samples[4].2.len() / 2;
    samples[4].2.truncate(half);
    let folder = common::folder(root.path(), &samples);
    let mut loader = load(&folder).build().expect("loader");
    let errors: Vec<_> = loader.epoch(0).filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains(&samples[4].0), "{}", errors[0]);
}

/// What is wrong with a sample takes all its views along: none is left behind, and none of another moves out of its tensor.
#[test]
fn a_bad_sample_is_replaced_or_skipped_with_all_its_views() {
    const BAD: [usize; 4] = [0, 2, 5, 7];
    let root = tempfile::tempdir().expect("folder");
    let samples = samples();
    let folder = common::folder(root.path(), &samples);
    let source = Arc::new(Indexed::open(&folder, Grain::Bits(1024)));
    for number in BAD {
        std::fs::write(folder.join(&samples[number].0).with_extension("jpg"), "no picture").expect("bad sample");
    }
    for policy in [OnError::Replace, OnError::Skip] {
        let mut digests = vec![];
        for (threads, index) in [(1, IndexMode::Off), (3, IndexMode::Auto), (1, IndexMode::Auto)] {
            let builder = small(Loader::of(Arc::clone(&source) as Arc<dyn Source>)).threads(threads).index(index);
            let mut loader = builder.on_error(policy).error_budget(ErrorBudget::count(99)).build().expect("loader");
            let (mut digest, mut replaced, mut skipped) = (Digest::default(), 0, 0);
            for batch in loader.epochs(0..2) {
                let batch = batch.expect("batch");
                let mut draws = vec![];
                for verdict in batch.verdicts() {
                    match verdict {
                        Verdict::Delivered { .. } => draws.push(0),
                        // Another view than where it stands itself.
                        Verdict::Replaced { .. } => draws.push(1 << 31),
                        Verdict::Skipped { .. } => skipped += 1,
                    }
                }
                replaced += draws.iter().filter(|draw| **draw != 0).count();
                assert_eq!(draws.len(), batch.len());
                check(&batch, &samples, |index| draws[index]);
                digest.update(&batch).expect("on the host");
            }
            let expected = if policy == OnError::Skip { (0, 2 * BAD.len()) } else { (2 * BAD.len(), 0) };
            assert_eq!((replaced, skipped), expected, "{policy}, {threads} threads, index {index}");
            digests.push(digest);
        }
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{policy}");
    }
}

#[test]
fn the_memory_of_all_views_is_planned() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples());
    let loader = load(&folder).build().expect("loader");
    let first = 2 * BATCH as usize * 3 * 33 * 33 * 4;
    let second = 3 * BATCH as usize * 16 * 16 * 3;
    assert_eq!(loader.memory().slot_bytes, first.next_multiple_of(256) + second);
    let (digest, report) = run(load(&folder).memory_mib(64));
    assert_eq!((digest, report.memory.slot_bytes), (run(load(&folder)).0, loader.memory().slot_bytes));
    assert!(report.memory.total_bytes() <= 64 << 20, "{}", report.memory);
    // What is planned of each view is held while its batch is on its way.
    let of_views = |count| {
        let builder = load(&folder).views([(groups()[0].0, count)]).batch_size(1024);
        builder.build().expect("loader").memory().other_bytes
    };
    assert!(of_views(3) - of_views(2) > 3 * 1024 * 100);
    let error = load(&folder).batch_size(1 << 58).build().err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
}

/// What four random crops cost against one, in bytes of storage and in reads.
#[test]
fn views_are_read_together() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &photos(40, (320, 240), false));
    let augment = Augment::imagenet_train(32).build().expect("augmentation");
    let cost = |builder: LoaderBuilder, count| {
        let mut loader = builder.views([(augment, count)]).direct(Direct::Off).build().expect("loader");
        loader.epochs(0..4).for_each(|batch| drop(batch.expect("batch")));
        loader.report()
    };
    let (one, four) = (cost(load(&folder), 1), cost(load(&folder), 4));
    assert_eq!((one.reads, four.reads), (four.images, four.images), "a read for each sample");
    let ratio = four.bytes_read as f64 / one.bytes_read as f64;
    println!("4 crops read {ratio:.2} of the bytes of one; of all bytes {} of {}", four.bytes_read, four.bytes_data);
    assert!(ratio > 1.0 && ratio < 1.6 && four.bytes_read <= four.bytes_data, "{ratio}");
}

/// The same of photos of ImageNet's kind, for crops of its kind, and for the small ones of multi-crop.
#[test]
fn photos_are_read_once_for_all_views() {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/photos");
    if !photos.exists() {
        println!("skipped: no photos at {}", photos.display());
        return;
    }
    let source = Arc::new(Indexed::open(&photos, Grain::default()));
    for (scale, bound) in [([0.08, 1.0], 1.5), ([0.05, 0.4], 2.5)] {
        let augment = local(64, scale, DType::U8, Layout::Nhwc);
        let cost = |count| {
            let builder = Loader::of(Arc::clone(&source) as Arc<dyn forebay::source::Source>).views([(augment, count)]);
            run(builder.batch_size(16).direct(Direct::Off)).1
        };
        let (one, four) = (cost(1), cost(4));
        let ratio = four.bytes_read as f64 / one.bytes_read as f64;
        let reads = four.reads as f64 / four.images as f64;
        let [part_of_one, part] = [&one, &four].map(|report| report.bytes_read as f64 / report.bytes_data as f64);
        println!(
            "{scale:?}: 4 crops read {ratio:.2} of the bytes of one, {part:.2} of all and not {part_of_one:.2}, in {reads:.2} reads"
        );
        assert!(ratio < bound && part < 1.0, "{ratio}");
        assert!(reads <= 1.05 * one.reads as f64 / one.images as f64, "{reads} reads an image");
    }
}
