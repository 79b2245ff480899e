//! The augmentation means what Pillow and torchvision mean: compared with tensors that Pillow made
//! (tests/fixtures/augment/make.py).

use crate::support::{Image, floats, run};
use forebay::augment::{Isa, Resizer};
use forebay::plan::{Augment, AugmentBuilder, DType, Geometry, Layout, Orientation, SampleKey, Size};

const WIDTH: u32 = 37;
const HEIGHT: u32 = 29;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../fixtures/augment/", $name))
    };
}

fn source() -> Image {
    Image { width: WIDTH, height: HEIGHT, pixels: fixture!("source.rgb").to_vec() }
}

fn resize(width: u32, height: u32) -> AugmentBuilder {
    Augment::builder(Geometry::Resize { size: Size { height, width } })
}

/// The output in every instruction set that is here, which are all the same.
fn output(augment: &Augment) -> Vec<u8> {
    let plan = augment.plan(SampleKey::default(), WIDTH, HEIGHT, Orientation::AS_STORED).unwrap();
    let outputs: Vec<_> = (Isa::ALL.into_iter().filter(|isa| isa.is_available()))
        .map(|isa| run(&mut Resizer::with_isa(augment, isa), &plan, &source()))
        .collect();
    assert!(outputs.iter().all(|output| *output == outputs[0]));
    outputs[0].clone()
}

/// Pillow keeps weights in `f64`; ours are `f32`: seven digits of 255 remain.
fn assert_close(augment: AugmentBuilder, expected: &[u8]) {
    let own = floats(&output(&augment.build().unwrap()));
    let expected: Vec<f32> = expected.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(own.len(), expected.len());
    let difference = own.iter().zip(&expected).map(|(own, other)| (own * 255.0 - other).abs()).fold(0.0, f32::max);
    assert!(difference < 2e-4, "differs from Pillow by {difference} of 255");
}

#[test]
fn resizing_is_pillows() {
    assert_close(resize(16, 16), fixture!("smaller_16x16.f32"));
    assert_close(resize(50, 41), fixture!("larger_50x41.f32"));
    assert_close(resize(3, 2), fixture!("tiny_3x2.f32"));
    assert_close(resize(60, 7), fixture!("mixed_60x7.f32"));
}

#[test]
fn resize_and_center_crop_are_torchvisions() {
    assert_close(
        Augment::builder(Geometry::ResizeCenterCrop { resize: 20, crop: Size::square(16) }),
        fixture!("validation_16.f32"),
    );
}

/// Pillow rounds to bytes between its passes and we do not: one unit of difference at most.
#[test]
fn bytes_are_pillows_within_one() {
    let own = output(&resize(16, 16).dtype(DType::U8).layout(Layout::Nhwc).build().unwrap());
    let expected = fixture!("smaller_16x16.rgb");
    assert_eq!(own.len(), expected.len());
    assert!(own.iter().zip(expected).all(|(own, other)| own.abs_diff(*other) <= 1));
    let equal = own.iter().zip(expected).filter(|(own, other)| own == other).count();
    assert!(equal * 10 >= own.len() * 8, "only {equal} of {} are equal", own.len());
}
