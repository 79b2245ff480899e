//! Equalities that hold to the bit: between instruction sets, between ways to the same tensor, and
//! between types, layouts and orientations.

use crate::support::{Image, floats, run};
use forebay::ErrorKind;
use forebay::augment::{Isa, Resizer};
use forebay::pixels::RowSink;
use forebay::plan::{
    Augment, AugmentBuilder, DType, Geometry, IMAGENET_MEAN, IMAGENET_STD, Layout, Normalize, OUTPUT_SIDE_MAX,
    Orientation, SampleKey, SamplePlan, Size,
};
use proptest::prelude::*;

const DTYPES: [DType; 4] = [DType::U8, DType::F16, DType::BF16, DType::F32];
const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Nhwc];

fn key(sample: u64) -> SampleKey {
    SampleKey { seed: 5, epoch: 0, sample, view: 0 }
}

fn plan(augment: &Augment, sample: u64, image: &Image, exif: u16) -> SamplePlan {
    augment.plan(key(sample), image.width, image.height, Orientation::from_exif(exif)).unwrap()
}

fn resize(height: u32, width: u32) -> AugmentBuilder {
    Augment::builder(Geometry::Resize { size: Size { height, width } })
}

fn with_normalize(builder: AugmentBuilder, dtype: DType) -> AugmentBuilder {
    let builder = builder.dtype(dtype);
    let normalize = Normalize { mean: IMAGENET_MEAN, std: IMAGENET_STD };
    if dtype == DType::U8 { builder.without_normalize() } else { builder.normalize(normalize) }
}

fn any_geometry() -> impl Strategy<Value = Geometry> {
    let size = || (1u32..90, 1u32..90).prop_map(|(height, width)| Size { height, width });
    prop_oneof![
        size().prop_map(Geometry::random_resized_crop),
        size().prop_map(|size| Geometry::Resize { size }),
        (size(), 0u32..40)
            .prop_map(|(crop, more)| Geometry::ResizeCenterCrop { resize: crop.height.max(crop.width) + more, crop }),
        Just(Geometry::None),
    ]
}

/// Sides from one pixel to many times the output, so that taps are few, many, and beyond every reach of
/// a permutation.
fn any_side() -> impl Strategy<Value = u32> {
    prop_oneof![1u32..20, 1u32..150, 100u32..900]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn instruction_sets_agree_to_the_bit(
        geometry in any_geometry(), width in any_side(), height in any_side(), exif in 1u16..9, sample: u64,
        dtype in prop::sample::select(&DTYPES[..]), layout in prop::sample::select(&LAYOUTS[..]),
    ) {
        let image = Image::noise(width, height);
        let builder = with_normalize(Augment::builder(geometry).horizontal_flip(0.5), dtype).layout(layout);
        let augment = builder.build().unwrap();
        let plan = plan(&augment, sample, &image, exif);
        let expected = run(&mut Resizer::with_isa(&augment, Isa::Scalar), &plan, &image);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut resizer = Resizer::with_isa(&augment, isa);
            // The second time in memory that holds the first's remains.
            for _ in 0..2 {
                prop_assert!(run(&mut resizer, &plan, &image) == expected, "{:?} differs", isa);
            }
        }
    }

    #[test]
    fn a_window_is_a_part_of_the_whole(width in 1u32..300, height in 1u32..300, crop in 1u32..40, more in 0u32..20) {
        let image = Image::noise(width, height);
        let augment = Augment::builder(Geometry::ResizeCenterCrop { resize: crop + more, crop: crop.into() }).build().unwrap();
        let window = plan(&augment, 0, &image, 1);
        let (x, y) = (*window.x(), *window.y());
        // A window may be one of more than an output can hold.
        prop_assume!(x.resized_len.max(y.resized_len) <= OUTPUT_SIDE_MAX.into());
        let whole = resize(y.resized_len as u32, x.resized_len as u32).build().unwrap();
        let small = floats(&run(&mut Resizer::new(&augment), &window, &image));
        let large = floats(&run(&mut Resizer::new(&whole), &plan(&whole, 0, &image, 1), &image));
        for (i, value) in small.iter().enumerate() {
            let (channel, row, column) = (i / (crop * crop) as usize, i as u32 / crop % crop, i as u32 % crop);
            let (row, column) = (row as u64 + y.window_start, column as u64 + x.window_start);
            let at = (channel as u64 * y.resized_len + row) * x.resized_len + column;
            prop_assert_eq!(value.to_bits(), large[at as usize].to_bits());
        }
    }

    #[test]
    fn a_crop_is_cut_out_before_it_is_resized(width in 1u32..300, height in 1u32..300, sample: u64) {
        let image = Image::noise(width, height);
        let augment = Augment::builder(Geometry::random_resized_crop(24)).build().unwrap();
        let crop = plan(&augment, sample, &image, 1);
        let (x, y) = (*crop.x(), *crop.y());
        let cut = Image::new(x.box_len, y.box_len, |column, row| image.pixel(x.box_start + column, y.box_start + row));
        let whole = resize(24, 24).build().unwrap();
        let expected = run(&mut Resizer::new(&whole), &plan(&whole, 0, &cut, 1), &cut);
        prop_assert!(run(&mut Resizer::new(&augment), &crop, &image) == expected);
    }

    #[test]
    fn a_flip_is_the_mirror_image(width in 1u32..300, height in 1u32..100, size in 1u32..70) {
        let image = Image::noise(width, height);
        let mirrored = |flip| {
            let augment = resize(3, size).horizontal_flip(flip).build().unwrap();
            floats(&run(&mut Resizer::new(&augment), &plan(&augment, 0, &image, 1), &image))
        };
        let (straight, flipped) = (mirrored(0.0), mirrored(1.0));
        for (straight, flipped) in straight.chunks(size as usize).zip(flipped.chunks(size as usize)) {
            prop_assert!(straight.iter().eq(flipped.iter().rev()));
        }
    }

    #[test]
    fn types_and_layouts_hold_the_same_values(width in 1u32..200, height in 1u32..200, exif in 1u16..9) {
        let image = Image::noise(width, height);
        let values = |dtype, layout| {
            let augment = with_normalize(resize(19, 35), dtype).layout(layout).build().unwrap();
            run(&mut Resizer::new(&augment), &plan(&augment, 0, &image, exif), &image)
        };
        let single = floats(&values(DType::F32, Layout::Nchw));
        let halves: Vec<u8> = single.iter().flat_map(|v| half::f16::from_f32(*v).to_ne_bytes()).collect();
        prop_assert!(values(DType::F16, Layout::Nchw) == halves);
        let brains: Vec<u8> = single.iter().flat_map(|v| half::bf16::from_f32(*v).to_ne_bytes()).collect();
        prop_assert!(values(DType::BF16, Layout::Nchw) == brains);
        for dtype in DTYPES {
            let (planar, interleaved) = (values(dtype, Layout::Nchw), values(dtype, Layout::Nhwc));
            let size = dtype.size_bytes();
            for i in 0..19 * 35 {
                for channel in 0..3 {
                    prop_assert_eq!(&planar[(channel * 19 * 35 + i) * size..][..size], &interleaved[(i * 3 + channel) * size..][..size]);
                }
            }
        }
    }

    #[test]
    fn bytes_are_the_floats_rounded(width in 1u32..200, height in 1u32..200) {
        let image = Image::noise(width, height);
        let [bytes, singles] = [DType::U8, DType::F32].map(|dtype| {
            let augment = resize(13, 31).dtype(dtype).build().unwrap();
            run(&mut Resizer::new(&augment), &plan(&augment, 0, &image, 1), &image)
        });
        for (byte, single) in bytes.iter().zip(floats(&singles)) {
            prop_assert!((f32::from(*byte) - single * 255.0).abs() <= 0.5001);
        }
    }

    #[test]
    fn none_is_the_decoded_image_upright(width in 1u32..90, height in 1u32..90, exif in 1u16..9) {
        let image = Image::noise(width, height);
        let augment = Augment::builder(Geometry::None).dtype(DType::U8).layout(Layout::Nhwc).build().unwrap();
        let plan = plan(&augment, 0, &image, exif);
        let upright = upright(&image, exif);
        prop_assert_eq!(plan.output_shape(), [upright.height as usize, upright.width as usize, 3]);
        prop_assert!(run(&mut Resizer::new(&augment), &plan, &image) == upright.pixels);
    }

    /// Resampling is done in stored orientation, so this holds but for rounding.
    #[test]
    fn orientation_commutes_with_resampling(width in 1u32..90, height in 1u32..90, exif in 1u16..9, sample: u64) {
        let image = Image::noise(width, height);
        let upright = upright(&image, exif);
        for builder in [Augment::imagenet_train(20), Augment::imagenet_val(20)] {
            let augment = builder.build().unwrap();
            let turned = floats(&run(&mut Resizer::new(&augment), &plan(&augment, sample, &image, exif), &image));
            let straight = floats(&run(&mut Resizer::new(&augment), &plan(&augment, sample, &upright, 1), &upright));
            prop_assert!(turned.iter().zip(&straight).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }
}

/// The upright image by the standard's table of which stored row and column is the visual top and left.
fn upright(image: &Image, exif: u16) -> Image {
    let (w, h) = (image.width, image.height);
    let (width, height) = if exif >= 5 { (h, w) } else { (w, h) };
    Image::new(width, height, |x, y| match exif {
        2 => image.pixel(w - 1 - x, y),
        3 => image.pixel(w - 1 - x, h - 1 - y),
        4 => image.pixel(x, h - 1 - y),
        5 => image.pixel(y, x),
        6 => image.pixel(y, h - 1 - x),
        7 => image.pixel(w - 1 - y, h - 1 - x),
        8 => image.pixel(w - 1 - y, x),
        _ => image.pixel(x, y),
    })
}

/// A constant image stays constant at any scale, and normalisation is torchvision's formula.
#[test]
fn normalisation_is_the_formula() {
    let image = Image::new(61, 47, |_, _| [200, 100, 50]);
    let augment = with_normalize(resize(20, 30), DType::F32).build().unwrap();
    let output = floats(&run(&mut Resizer::new(&augment), &plan(&augment, 0, &image, 1), &image));
    for (i, value) in output.into_iter().enumerate() {
        let channel = i / 600;
        let expected = ([200.0, 100.0, 50.0][channel] / 255.0 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel];
        assert!((value - expected).abs() < 1e-5, "{value} {expected}");
    }
}

/// The longest image that a header can declare, a pixel high, resized to sixteen million columns of which
/// a window is looked at.
#[test]
fn extreme_shapes_cost_no_more_than_their_window() {
    for (width, height) in [(65_535, 1), (1, 65_535), (65_535, 2), (3, 40_000)] {
        let image = Image::noise(width, height);
        for builder in [Augment::imagenet_val(224), Augment::imagenet_train(224), resize(1, 1), resize(300, 2)] {
            let augment = builder.build().unwrap();
            let plan = plan(&augment, 3, &image, 1);
            let output = floats(&run(&mut Resizer::new(&augment), &plan, &image));
            assert!(output.iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn outputs_of_the_wrong_size_and_missing_rows_are_errors() {
    let augment = resize(4, 4).build().unwrap();
    let image = Image::noise(9, 9);
    let plan = plan(&augment, 0, &image, 1);
    let mut resizer = Resizer::new(&augment);
    let mut memory = [0f32; 49];
    let memory = bytemuck::cast_slice_mut::<f32, u8>(&mut memory);
    for range in [0..0, 0..191, 0..193, 1..193] {
        let error = resizer.begin(&plan, &mut memory[range]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    }
    for delivered in 0..9 {
        let mut rows = resizer.begin(&plan, &mut memory[..192]).unwrap();
        for _ in 0..delivered {
            rows.row();
            rows.commit();
        }
        assert_eq!(rows.finish().unwrap_err().kind(), ErrorKind::Internal);
    }
}
