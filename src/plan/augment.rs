//! What the user asks for.

use std::fmt::Display;

use crate::error::{Error, Result};

/// The mean of ImageNet's red, green and blue, as torchvision's models were trained with.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// The standard deviation that goes with [`IMAGENET_MEAN`].
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// The longest side that an output may have, in pixels.
pub const OUTPUT_SIDE_MAX: u32 = 16_384;

/// Height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Size {
    /// As high as wide.
    pub const fn square(side: u32) -> Self {
        Self { height: side, width: side }
    }
}

impl From<u32> for Size {
    fn from(side: u32) -> Self {
        Self::square(side)
    }
}

/// Which part of the image becomes the output, and how large.
///
/// All resampling is antialiased bilinear, see [`Axis`](super::Axis).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Geometry {
    /// A random box of the image, resized: torchvision's `RandomResizedCrop`.
    RandomResizedCrop {
        /// The output.
        size: Size,
        /// Bounds of the box's area as a part of the image's; within (0, 1]. Default 0.08 to 1.
        scale: [f64; 2],
        /// Bounds of the box's width over its height. Default 3/4 to 4/3.
        ratio: [f64; 2],
    },
    /// The short side resized, then a central window: torchvision's `Resize(int)` and `CenterCrop`.
    /// Only the window is evaluated, and only what it needs is decoded.
    ResizeCenterCrop {
        /// What the short side is resized to.
        resize: u32,
        /// The window, which is the output; no side over `resize`.
        crop: Size,
    },
    /// The whole image resized to the output whatever its ratio: torchvision's `Resize((h, w))`.
    Resize {
        /// The output.
        size: Size,
    },
    /// Each image at its own size: the outputs of a batch differ in shape.
    None,
}

impl Geometry {
    /// [`Geometry::RandomResizedCrop`] with the bounds that ImageNet training uses.
    pub fn random_resized_crop(size: impl Into<Size>) -> Self {
        Self::RandomResizedCrop { size: size.into(), scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }

    fn output_size(&self) -> Option<Size> {
        match *self {
            Self::RandomResizedCrop { size, .. } | Self::Resize { size } => Some(size),
            Self::ResizeCenterCrop { crop, .. } => Some(crop),
            Self::None => None,
        }
    }
}

/// Subtracts a mean and divides by a deviation, both in units where 1 is white: torchvision's
/// `Normalize` after `ToTensor`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    /// Of red, green and blue.
    pub mean: [f32; 3],
    /// Of red, green and blue; above 0.
    pub std: [f32; 3],
}

/// The type of an output element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 0 to 255: the resampled value rounded to the nearest integer, halves to even, and clamped.
    U8,
    /// IEEE half precision, rounded to nearest even.
    F16,
    /// The upper half of an `f32`, rounded to nearest even.
    BF16,
    /// IEEE single precision.
    F32,
}

impl DType {
    /// Bytes of an element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
        }
    }

    /// The name used on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

/// The order of an output's axes in memory, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Channels, height, width: a plane each for red, green and blue.
    Nchw,
    /// Height, width, channels: red, green and blue of a pixel side by side.
    Nhwc,
}

impl Layout {
    /// The name used on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nchw => "nchw",
            Self::Nhwc => "nhwc",
        }
    }
}

/// How an image becomes a tensor: geometry, flip, normalisation, type and layout.
///
/// Made by [`Augment::builder`] or one of the presets; every value is checked by
/// [`build`](AugmentBuilder::build), so one that exists is valid.
///
/// Elements, where `v` in 0 to 255 is a resampled value:
///
/// | | without normalisation | with |
/// |---|---|---|
/// | `U8` | `v`, rounded | refused: nothing of a normalised image would survive |
/// | floats | `v / 255` | `(v / 255 - mean) / std` |
///
/// ```
/// # fn main() -> forebay::Result<()> {
/// use forebay::plan::{Augment, DType, Layout};
/// let augment = Augment::imagenet_train(224).dtype(DType::F16).layout(Layout::Nhwc).build()?;
/// assert_eq!(augment.output_shape(), Some([224, 224, 3]));
/// assert_eq!(augment.output_bytes(), Some(224 * 224 * 3 * 2));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    geometry: Geometry,
    flip_probability: f64,
    normalize: Option<Normalize>,
    dtype: DType,
    layout: Layout,
    dct_scaling: bool,
}

impl Augment {
    /// Starts from a geometry, no flip, no normalisation, `F32` and `Nchw`.
    pub fn builder(geometry: Geometry) -> AugmentBuilder {
        AugmentBuilder(Self {
            geometry,
            flip_probability: 0.0,
            normalize: None,
            dtype: DType::F32,
            layout: Layout::Nchw,
            dct_scaling: false,
        })
    }

    /// What ImageNet classifiers are trained with: a random resized crop, a flip in half of the cases,
    /// ImageNet's mean and deviation, `F32`, `Nchw`.
    pub fn imagenet_train(size: u32) -> AugmentBuilder {
        Self::builder(Geometry::random_resized_crop(size))
            .horizontal_flip(0.5)
            .normalize(Normalize { mean: IMAGENET_MEAN, std: IMAGENET_STD })
    }

    /// What they are validated with: the short side resized to `round(size * 256 / 224)`, a central
    /// window, ImageNet's mean and deviation, `F32`, `Nchw`.
    pub fn imagenet_val(size: u32) -> AugmentBuilder {
        // Rounded half up in integers; saturating, so that an absurd size meets the validation.
        let resize = u32::try_from((u64::from(size) * 256 + 112) / 224).unwrap_or(u32::MAX);
        Self::builder(Geometry::ResizeCenterCrop { resize, crop: Size::square(size) })
            .normalize(Normalize { mean: IMAGENET_MEAN, std: IMAGENET_STD })
    }

    /// Which part of the image becomes the output.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How likely an image is mirrored left to right.
    pub fn flip_probability(&self) -> f64 {
        self.flip_probability
    }

    /// The normalisation, if there is one.
    pub fn normalization(&self) -> Option<Normalize> {
        self.normalize
    }

    /// The type of the output's elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The order of the output's axes.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether large JPEG may be scaled down while they are decoded.
    pub fn dct_scaling(&self) -> bool {
        self.dct_scaling
    }

    /// The shape of one sample's output in the order of the layout, or `None` where each image keeps
    /// its own size ([`Geometry::None`]).
    pub fn output_shape(&self) -> Option<[usize; 3]> {
        self.geometry.output_size().map(|size| self.layout.shape(size))
    }

    /// Bytes of one sample's output, or `None` where each image keeps its own size.
    pub fn output_bytes(&self) -> Option<usize> {
        self.output_shape().map(|shape| shape.iter().product::<usize>() * self.dtype.size_bytes())
    }

    /// The factor and the addend per channel that make an element of a resampled value, as
    /// `fma(value, factor, addend)`. Computed in `f64`, rounded to `f32`.
    pub(crate) fn affine(&self) -> [(f32, f32); 3] {
        match (self.normalize, self.dtype) {
            (None, DType::U8) => [(1.0, 0.0); 3],
            (None, _) => [((1.0 / 255.0) as f32, 0.0); 3],
            (Some(Normalize { mean, std }), _) => std::array::from_fn(|channel| {
                let (mean, std) = (f64::from(mean[channel]), f64::from(std[channel]));
                ((1.0 / (255.0 * std)) as f32, (0.0 - mean / std) as f32)
            }),
        }
    }
}

impl Layout {
    pub(crate) fn shape(self, size: Size) -> [usize; 3] {
        let (height, width) = (size.height as usize, size.width as usize);
        match self {
            Self::Nchw => [3, height, width],
            Self::Nhwc => [height, width, 3],
        }
    }
}

/// Collects the parts of an [`Augment`].
#[derive(Clone, Debug)]
#[must_use = "call build"]
pub struct AugmentBuilder(Augment);

impl AugmentBuilder {
    /// Mirrors left to right with this probability, 0 to 1. Default 0.
    pub fn horizontal_flip(mut self, probability: f64) -> Self {
        self.0.flip_probability = probability;
        self
    }

    /// Another geometry than that of a preset, such as smaller crops.
    pub fn geometry(mut self, geometry: Geometry) -> Self {
        self.0.geometry = geometry;
        self
    }

    /// Normalises. Default not.
    pub fn normalize(mut self, normalize: Normalize) -> Self {
        self.0.normalize = Some(normalize);
        self
    }

    /// Drops the normalisation of a preset.
    pub fn without_normalize(mut self) -> Self {
        self.0.normalize = None;
        self
    }

    /// The type of the output's elements. Default [`DType::F32`].
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.0.dtype = dtype;
        self
    }

    /// The order of the output's axes. Default [`Layout::Nchw`].
    pub fn layout(mut self, layout: Layout) -> Self {
        self.0.layout = layout;
        self
    }

    /// Lets JPEG whose crop is at least twice as large as the output on both axes be decoded at 1/2, 1/4 or
    /// 1/8 of their size, from the lower frequencies of each block, and resampled from there: faster on
    /// large photos, with slightly other pixels. Default false: the full image is resampled, to the bit as
    /// without this option.
    ///
    /// Crops and all other random parameters stay the same, and so do the tensors of every engine and
    /// number of threads. Formats other than baseline JPEG are always decoded at full size.
    ///
    /// On 4000x3000 photos of 2 to 4.5 bits a pixel and `imagenet_train(224)`, decoding and resampling on one
    /// thread took 0.43 to 0.61 of the time with an index, 0.54 to 0.69 without, and the tensors differed from
    /// those of the full image by 0.6 to 0.7 of 255 on average and 48 at most.
    pub fn dct_scaling(mut self, allowed: bool) -> Self {
        self.0.dct_scaling = allowed;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// [`InvalidParameter`](crate::ErrorKind::InvalidParameter) names the first that is not a number,
    /// out of its range, or contradicts another.
    pub fn build(self) -> Result<Augment> {
        let augment = self.0;
        check_geometry(&augment.geometry)?;
        let flip = augment.flip_probability;
        check(flip, (0.0..=1.0).contains(&flip), "horizontal_flip", "a probability is between 0 and 1")?;
        if let Some(normalize) = augment.normalize {
            check_normalize(&normalize, augment.dtype)?;
        }
        Ok(augment)
    }
}

fn check_geometry(geometry: &Geometry) -> Result<()> {
    if let Some(size) = geometry.output_size() {
        check_side(size.height, "height")?;
        check_side(size.width, "width")?;
    }
    match *geometry {
        Geometry::RandomResizedCrop { scale, ratio, .. } => {
            let in_range = scale[0] > 0.0 && scale[0] <= scale[1] && scale[1] <= 1.0;
            check(pair(scale), in_range, "scale", "bounds of an area satisfy 0 < low <= high <= 1")?;
            // Beyond a million to one no box fits an image, and the logarithms stay tame.
            let in_range = ratio[0] >= 1e-6 && ratio[0] <= ratio[1] && ratio[1] <= 1e6;
            check(pair(ratio), in_range, "ratio", "bounds of width over height satisfy 1e-6 <= low <= high <= 1e6")
        }
        Geometry::ResizeCenterCrop { resize, crop } => {
            check_side(resize, "resize")?;
            let largest = crop.height.max(crop.width);
            check(
                largest,
                largest <= resize,
                "crop",
                &format!("the window must lie within the resized short side, {resize}"),
            )
        }
        Geometry::Resize { .. } | Geometry::None => Ok(()),
    }
}

fn check_side(side: u32, name: &str) -> Result<()> {
    check(side, (1..=OUTPUT_SIDE_MAX).contains(&side), name, &format!("a side is 1 to {OUTPUT_SIDE_MAX} pixels"))
}

fn check_normalize(normalize: &Normalize, dtype: DType) -> Result<()> {
    if dtype == DType::U8 {
        return Err(Error::invalid_parameter("normalize", "set", "u8 cannot hold normalised values")
            .with_remedy("choose a floating-point type, or drop the normalisation"));
    }
    for (mean, std) in normalize.mean.into_iter().zip(normalize.std) {
        check(mean, mean.is_finite(), "mean", "a mean is a finite number")?;
        check(std, std.is_finite() && std > 0.0, "std", "a deviation is a finite number above 0")?;
        // Black and white, whose size bounds that of every other value; an overflow makes them infinite.
        let black = 0.0 - f64::from(mean) / f64::from(std);
        let white = (1.0 - f64::from(mean)) / f64::from(std);
        let largest = black.abs().max(white.abs()).max(1.0 / (255.0 * f64::from(std)));
        check(std, largest <= 1e38, "std", "so small a deviation makes values that no float holds")?;
    }
    Ok(())
}

fn check(value: impl Display, valid: bool, name: &str, allowed: &str) -> Result<()> {
    if valid { Ok(()) } else { Err(Error::invalid_parameter(name, value, allowed)) }
}

fn pair(range: [f64; 2]) -> String {
    format!("{} to {}", range[0], range[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    /// Asserts that it is refused, and that the message names the parameter.
    fn refused(builder: AugmentBuilder, name: &str) {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.to_string().starts_with(&format!("{name} is ")), "{error}");
    }

    fn crop(scale: [f64; 2], ratio: [f64; 2]) -> AugmentBuilder {
        Augment::builder(Geometry::RandomResizedCrop { size: Size::square(8), scale, ratio })
    }

    #[test]
    fn presets_are_valid() {
        let train = Augment::imagenet_train(224).build().unwrap();
        assert_eq!((train.output_shape(), train.output_bytes()), (Some([3, 224, 224]), Some(602_112)));
        let val = Augment::imagenet_val(224).build().unwrap();
        assert_eq!(val.geometry(), Geometry::ResizeCenterCrop { resize: 256, crop: Size::square(224) });
        for size in 1..600 {
            Augment::imagenet_val(size).build().unwrap();
        }
        assert_eq!(Augment::builder(Geometry::None).build().unwrap().output_bytes(), None);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for size in [0, OUTPUT_SIDE_MAX + 1, u32::MAX] {
            refused(Augment::imagenet_train(size), "height");
            refused(Augment::imagenet_val(size), "height");
            refused(Augment::builder(Geometry::Resize { size: Size { height: 5, width: size } }), "width");
            refused(Augment::builder(Geometry::ResizeCenterCrop { resize: size, crop: 4.into() }), "resize");
        }
        refused(Augment::builder(Geometry::ResizeCenterCrop { resize: 223, crop: 224.into() }), "crop");
        refused(Augment::imagenet_train(224).dtype(DType::U8), "normalize");
        Augment::imagenet_train(224).dtype(DType::U8).without_normalize().build().unwrap();
        refused(crop([0.5, 0.4], [1.0, 1.0]), "scale");
        refused(crop([0.5, 1.0], [1.1, 1.0]), "ratio");
    }

    /// Any bits, the special values as often as all others together.
    fn any_bits() -> impl Strategy<Value = u32> {
        let special = [0.0, f32::INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-45, f32::MAX, 1.0, 0.5];
        let signed = special.into_iter().flat_map(|value: f32| [value.to_bits(), (-value).to_bits()]);
        prop_oneof![any::<u32>(), prop::sample::select(signed.collect::<Vec<_>>())]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Any float at all in any place: either it is refused by name, or every element that the
        /// result can produce is finite.
        #[test]
        fn any_float_is_refused_or_harmless(bits in prop::array::uniform3(any_bits())) {
            let [a, b, c] = bits.map(f32::from_bits);
            let built = Augment::imagenet_train(8).normalize(Normalize { mean: [a, b, c], std: [b, c, a] }).build();
            let sensible = |std: f32| std.is_finite() && std > 0.0;
            match built {
                Ok(augment) => for (factor, addend) in augment.affine() {
                    prop_assert!(factor.is_finite() && factor >= 0.0 && addend.is_finite());
                    prop_assert!((0.0f32).mul_add(factor, addend).is_finite() && 255f32.mul_add(factor, addend).is_finite());
                },
                Err(error) => prop_assert!(error.to_string().starts_with("mean is ") || error.to_string().starts_with("std is ")),
            }
            if !a.is_finite() {
                refused(Augment::imagenet_train(8).normalize(Normalize { mean: [0.5, a, 0.5], std: [0.5; 3] }), "mean");
            }
            if !sensible(a) {
                refused(Augment::imagenet_train(8).normalize(Normalize { mean: [0.5; 3], std: [0.5, 0.5, a] }), "std");
            }
            let (a, b) = (f64::from(a), f64::from(b));
            prop_assert_eq!(crop([a, b], [1.0, 1.0]).build().is_ok(), a > 0.0 && a <= b && b <= 1.0);
            prop_assert_eq!(crop([0.1, 1.0], [a, b]).build().is_ok(), a >= 1e-6 && a <= b && b <= 1e6);
            prop_assert_eq!(Augment::imagenet_train(8).horizontal_flip(a).build().is_ok(), (0.0..=1.0).contains(&a));
        }

        #[test]
        fn sensible_normalisation_is_accepted(mean in -2f32..2.0, std in 1e-3f32..10.0) {
            let normalize = Normalize { mean: [mean; 3], std: [std; 3] };
            prop_assert!(Augment::imagenet_train(8).normalize(normalize).build().is_ok());
        }
    }
}
