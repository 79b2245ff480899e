//! HOW MUCH: every random parameter of a sample, fixed before a byte is read.
//!
//! [`Augment`] is what the user asks for. Together with the sample's key and the dimensions in its
//! header it gives a [`SamplePlan`]: which rectangle of the stored image must be decoded, and how its
//! two axes are resampled. A plan is a few integers, costs no allocation, and depends on nothing but
//! its arguments: not on threads, engines, devices, or on which samples came before.

mod augment;
mod axis;
mod crop;
mod math;
mod orientation;
pub(crate) mod ranges;
pub mod rng;
mod sample;
pub(crate) mod views;

pub use augment::{
    Augment, AugmentBuilder, DType, Geometry, IMAGENET_MEAN, IMAGENET_STD, Layout, Normalize, OUTPUT_SIDE_MAX, Size,
};
pub use axis::Axis;
pub use orientation::Orientation;
pub use rng::SampleKey;
pub use sample::SamplePlan;
pub use views::VIEWS_MAX;
pub(crate) use views::{Passes, Plans, Views};
