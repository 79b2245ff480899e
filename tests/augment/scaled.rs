//! DCT-domain scaling: the crop that was asked for, from fewer pixels, and the same bytes however it runs.

use crate::common;
use crate::support::{Image, floats, run};
use forebay::augment::{Isa, Resizer};
use forebay::batch::Digest;
use forebay::engine::EngineKind;
use forebay::jpeg::{Decoder, Header};
use forebay::order::Shuffle;
use forebay::plan::{Augment, AugmentBuilder, DType, Geometry, Layout, Orientation, SampleKey, SamplePlan, Size};
use forebay::{Loader, Scale};
use proptest::prelude::*;

fn key(sample: u64) -> SampleKey {
    SampleKey { seed: 3, epoch: 0, sample, view: 0 }
}

fn scaled(augment: &Augment, sample: u64, (width, height): (u32, u32), exif: u16) -> SamplePlan {
    augment.plan(key(sample), width, height, Orientation::from_exif(exif)).unwrap().scaled_down()
}

fn bytes(geometry: Geometry) -> AugmentBuilder {
    Augment::builder(geometry).dtype(DType::U8).layout(Layout::Nhwc)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn instruction_sets_agree_to_the_bit(width in 1u32..1500, height in 1u32..1500, size in 1u32..90, sample: u64, exif in 1u16..9) {
        let augment = Augment::imagenet_train(size).build().unwrap();
        let plan = scaled(&augment, sample, (width, height), exif);
        let image = Image::noise(plan.scale().len(width), plan.scale().len(height));
        let expected = run(&mut Resizer::with_isa(&augment, Isa::Scalar), &plan, &image);
        prop_assert!(floats(&expected).iter().all(|value| value.is_finite()));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            prop_assert!(run(&mut Resizer::with_isa(&augment, isa), &plan, &image) == expected, "{:?} differs", isa);
        }
    }

    /// On a ramp the filter yields the centre that it weighs around: an output pixel lies where it would
    /// lie without scaling, to a small part of a pixel, wherever the box begins within a decoded one.
    #[test]
    fn outputs_lie_where_they_lie_at_full_scale(side in 200u32..2000, size in 3u32..60, sample: u64, flip: bool) {
        let augment = Augment::builder(Geometry::random_resized_crop(size)).horizontal_flip(f64::from(flip));
        let augment = augment.build().unwrap();
        let plan = scaled(&augment, sample, (side, side), 1);
        let n = f64::from(plan.scale().denominator());
        let (columns, rows) = (plan.scale().len(side), plan.scale().len(side));
        let start = (plan.region().x, plan.region().y);
        prop_assume!(plan.scale() != Scale::Full && plan.region().width.max(plan.region().height) < 250);
        // In the region a pixel's value is how far in it lies.
        let ramp = Image::new(columns, rows, |x, y| [x.wrapping_sub(start.0) as u8, y.wrapping_sub(start.1) as u8, 0]);
        let values = floats(&run(&mut Resizer::new(&augment), &plan, &ramp));
        let plane = (size * size) as usize;
        for (axis, channel, first) in [(plan.x(), 0, start.0), (plan.y(), 1, start.1)] {
            for i in 1..size - 1 {
                let at = if channel == 0 { (plane / 2 / size as usize) * size as usize + i as usize } else { (i * size) as usize };
                let i = if axis.flip { size - 1 - i } else { i };
                let stored = f64::from(axis.box_start) + (f64::from(i) + 0.5) * f64::from(axis.box_len) / f64::from(size);
                let expected = stored / n - 0.5 - f64::from(first);
                let value = f64::from(values[channel * plane + at]) * 255.0;
                prop_assert!((value - expected).abs() < 0.3, "axis {channel}, output {i}: {value} for {expected}, {plan:?}");
            }
        }
    }
}

/// On a smooth picture the pixels are nearly those of resampling the full image.
#[test]
fn a_smooth_picture_looks_the_same() {
    let (width, height) = (640, 480);
    let mut jpeg = vec![];
    let rgb = common::pixels(5, width, height);
    jpeg_encoder::Encoder::new(&mut jpeg, 95)
        .encode(&rgb, width as u16, height as u16, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    for (size, scale, mean_max) in [(200, Scale::Half, 2.0), (110, Scale::Quarter, 4.0), (50, Scale::Eighth, 8.0)] {
        let augment = bytes(Geometry::Resize { size: Size::square(size) }).build().unwrap();
        let plan = augment.plan(key(0), width as u32, height as u32, Orientation::AS_STORED).unwrap();
        assert_eq!(plan.scaled_down().scale(), scale);
        let [full, scaled] = [plan, plan.scaled_down()].map(|plan| decode(&augment, &plan, &jpeg));
        let differences = full.iter().zip(&scaled).map(|(a, b)| u32::from(a.abs_diff(*b)));
        let mean = f64::from(differences.clone().sum::<u32>()) / full.len() as f64;
        let max = differences.max();
        assert!(mean > 0.0 && mean < mean_max && max < Some(20), "{scale:?}: mean {mean}, largest {max:?}");
    }
}

fn decode(augment: &Augment, plan: &SamplePlan, jpeg: &[u8]) -> Vec<u8> {
    let mut output = vec![0; plan.output_bytes()];
    let mut resizer = Resizer::new(augment);
    let mut rows = resizer.begin(plan, &mut output).unwrap();
    Decoder::new().decode(jpeg, &Header::parse(jpeg).unwrap(), plan.view(), &mut rows).unwrap();
    rows.finish().unwrap();
    output
}

fn loader(folder: &str, augment: AugmentBuilder) -> forebay::LoaderBuilder {
    let augment = augment.build().unwrap();
    Loader::open(folder).augment(augment).batch_size(8).threads(2).arena_bytes(1 << 20).seed(3)
}

fn digest(builder: forebay::LoaderBuilder) -> String {
    let mut digest = Digest::default();
    for batch in builder.build().unwrap().epochs(0..2) {
        digest.update(&batch.unwrap()).unwrap();
    }
    digest.hex()
}

#[test]
fn the_digest_depends_on_the_option_and_on_nothing_else_that_is_new() {
    let root = tempfile::tempdir().unwrap();
    let samples = common::samples(40, 2);
    let folder = common::folder(root.path(), &samples).display().to_string();
    let shards = common::shards(root.path(), &samples, 15);
    let augment = || Augment::imagenet_train(14);
    let full = digest(loader(&folder, augment()));
    assert_eq!(digest(loader(&folder, augment().dct_scaling(false))), full);
    let expected = digest(loader(&folder, augment().dct_scaling(true)));
    assert_ne!(expected, full);
    for threads in [1, 4] {
        assert_eq!(digest(loader(&folder, augment().dct_scaling(true)).threads(threads)), expected);
    }
    assert_eq!(digest(loader(&shards, augment().dct_scaling(true))), expected);
    assert_eq!(digest(loader(&shards, augment().dct_scaling(true)).engine(EngineKind::Pread)), expected);
    // No crop is twice as large as the output: nothing to scale.
    let large = || Augment::imagenet_train(80);
    assert_eq!(digest(loader(&folder, large().dct_scaling(true))), digest(loader(&folder, large())));
}

/// The loader delivers what the parts give by hand, and a PNG, which no decoder scales, as without the option.
#[test]
fn formats_that_do_not_scale_are_decoded_at_full_size() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("class");
    std::fs::create_dir(&folder).unwrap();
    let (width, height) = (200, 160);
    let rgb = common::pixels(1, width, height);
    let picture = image::RgbImage::from_raw(width as u32, height as u32, rgb.clone()).unwrap();
    picture.save(folder.join("b.png")).unwrap();
    let mut jpeg = vec![];
    jpeg_encoder::Encoder::new(&mut jpeg, 90)
        .encode(&rgb, width as u16, height as u16, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    std::fs::write(folder.join("a.jpg"), &jpeg).unwrap();

    let augment = bytes(Geometry::random_resized_crop(20)).dct_scaling(true);
    let builder =
        loader(&root.path().display().to_string(), augment.clone()).batch_size(2).shuffle(Shuffle::Sequential);
    let mut loader = builder.build().unwrap();
    let batch = loader.epoch(0).next().unwrap().unwrap();
    let images = batch.images().unwrap().as_u8().unwrap();
    let augment = augment.build().unwrap();
    let plans =
        [0, 1].map(|sample| augment.plan(key(sample), width as u32, height as u32, Orientation::AS_STORED).unwrap());
    assert!(plans.iter().all(|plan| plan.scaled_down().scale() != Scale::Full));
    assert_eq!(images[..1200], decode(&augment, &plans[0].scaled_down(), &jpeg));
    let picture = Image { width: width as u32, height: height as u32, pixels: rgb };
    assert_eq!(images[1200..], run(&mut Resizer::new(&augment), &plans[1], &picture));
}
