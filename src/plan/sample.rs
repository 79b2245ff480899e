//! The plan of one sample.

use super::rng::{Generator, SampleKey, Stream, unit};
use super::{Augment, Axis, DType, Geometry, Layout, Orientation, Size, crop};
use crate::error::{Error, ErrorKind, Result};
use crate::pixels::{Rect, Scale, View};

/// Everything that decides one sample's output, but for its pixels.
///
/// Resampling is described, and done, along the axes of the stored image; the orientation's mirrorings
/// are folded into the axes' flips, and its transposition into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SamplePlan {
    x: Axis,
    y: Axis,
    transposed: bool,
    dtype: DType,
    layout: Layout,
}

impl Augment {
    /// Plans a sample from its key and the dimensions of its stored image. The random parameters are
    /// those of the upright image, so that turning a file losslessly does not change its crops.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](ErrorKind::Corrupt) if the image has no pixels, [`Unsupported`](ErrorKind::Unsupported)
    /// if a side is longer than 2^30. Whether it is too large for the user is for
    /// [`Limits`](crate::Limits) to say.
    pub fn plan(&self, key: SampleKey, width: u32, height: u32, orientation: Orientation) -> Result<SamplePlan> {
        if width == 0 || height == 0 {
            return Err(Error::new(ErrorKind::Corrupt, format!("image is {width}x{height}, without a pixel")));
        }
        // Vector code keeps columns in signed 32-bit integers.
        if width.max(height) > 1 << 30 {
            return Err(Error::new(ErrorKind::Unsupported, format!("image is {width}x{height}, a side over 2^30")));
        }
        let generator = Generator::new(key);
        let transposed = orientation.transposes();
        let (upright_width, upright_height) = if transposed { (height, width) } else { (width, height) };
        let (mut across, down) = self.boxes(&generator, upright_width, upright_height);
        across.flip = unit(generator.block(Stream::Flip, 0)[0]) < self.flip_probability();
        let (mut x, mut y) = if transposed { (down, across) } else { (across, down) };
        if orientation.mirrors_x() {
            x = x.mirrored(width);
        }
        if orientation.mirrors_y() {
            y = y.mirrored(height);
        }
        Ok(SamplePlan { x, y, transposed, dtype: self.dtype(), layout: self.layout() })
    }

    /// The axes across and down the upright image.
    fn boxes(&self, generator: &Generator, width: u32, height: u32) -> (Axis, Axis) {
        match self.geometry() {
            Geometry::RandomResizedCrop { size, scale, ratio } => {
                crop::random_resized(generator, width, height, size, scale, ratio)
            }
            Geometry::ResizeCenterCrop { resize, crop } => crop::short_side_center(width, height, resize, crop),
            Geometry::Resize { size } => (Axis::resized(0, width, size.width), Axis::resized(0, height, size.height)),
            Geometry::None => (Axis::whole(width), Axis::whole(height)),
        }
    }
}

impl SamplePlan {
    /// The same crop and parameters for a decoder that scales while it decodes
    /// ([`Route::scales`](crate::decode::Route::scales)): of the image at the smallest [`Scale`] that leaves
    /// the box at least as large as what it is resized to, on both axes. What
    /// [`AugmentBuilder::dct_scaling`](super::AugmentBuilder::dct_scaling) turns on.
    pub fn scaled_down(mut self) -> Self {
        let allowed = |scale: &Scale| self.x.allows(*scale) && self.y.allows(*scale);
        let scale = Scale::ALL.into_iter().rev().find(allowed).unwrap_or_default();
        (self.x.scale, self.y.scale) = (scale, scale);
        self
    }

    /// How much smaller than it is stored the image must be decoded; full scale unless the plan was
    /// [`scaled_down`](Self::scaled_down).
    pub fn scale(&self) -> Scale {
        self.x.scale
    }

    /// What must be decoded of the image, in pixels of the image at [`scale`](Self::scale): every pixel
    /// that a tap touches, and no other row or column.
    pub fn region(&self) -> Rect {
        let (x, width) = self.x.source_range();
        let (y, height) = self.y.source_range();
        Rect { x, y, width, height }
    }

    /// The region and its scale: what the decoder is asked for.
    pub fn view(&self) -> View {
        View { scale: self.scale(), region: self.region() }
    }

    /// The resampling along the stored rows.
    pub fn x(&self) -> &Axis {
        &self.x
    }

    /// The resampling down the stored columns.
    pub fn y(&self) -> &Axis {
        &self.y
    }

    /// Whether stored rows become columns of the output.
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// The output's height and width.
    pub fn output_size(&self) -> Size {
        let (across, down) = if self.transposed { (self.y, self.x) } else { (self.x, self.y) };
        Size { height: down.output_len, width: across.output_len }
    }

    /// The output's shape, in the order of the layout.
    pub fn output_shape(&self) -> [usize; 3] {
        self.layout.shape(self.output_size())
    }

    /// The output's bytes.
    pub fn output_bytes(&self) -> usize {
        self.output_shape().iter().product::<usize>() * self.dtype.size_bytes()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(sample: u64) -> SampleKey {
        SampleKey { seed: 7, epoch: 1, sample, view: 0 }
    }

    #[test]
    fn half_of_the_samples_are_flipped() {
        let augment = Augment::imagenet_train(224).build().unwrap();
        let flipped = |sample| augment.plan(key(sample), 500, 375, Orientation::AS_STORED).unwrap().x().flip;
        let count = (0..10_000).filter(|&sample| flipped(sample)).count();
        assert!((4750..5250).contains(&count), "{count}");
    }

    /// The parameters of a seed are part of what a user may rely on between versions.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let augment = Augment::imagenet_train(224).build().unwrap();
        let plan = augment.plan(key(42), 500, 375, Orientation::AS_STORED).unwrap();
        let (x, y) = (plan.x(), plan.y());
        assert_eq!((x.box_start, x.box_len, y.box_start, y.box_len, x.flip), (283, 210, 122, 234, true));
    }

    #[test]
    fn an_empty_or_endless_image_is_an_error() {
        let augment = Augment::imagenet_train(224).build().unwrap();
        assert_eq!(augment.plan(key(0), 0, 5, Orientation::AS_STORED).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(augment.plan(key(0), 5, 0, Orientation::AS_STORED).unwrap_err().kind(), ErrorKind::Corrupt);
        let endless = augment.plan(key(0), u32::MAX, 5, Orientation::AS_STORED);
        assert_eq!(endless.unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn the_scale_leaves_as_many_pixels_as_the_output_has() {
        let augment = Augment::builder(Geometry::Resize { size: Size { height: 100, width: 200 } }).build().unwrap();
        let scale = |width, height| {
            let plan = augment.plan(key(0), width, height, Orientation::AS_STORED).unwrap();
            assert_eq!(plan.scale(), Scale::Full);
            plan.scaled_down().scale()
        };
        assert_eq!((scale(399, 9999), scale(400, 200), scale(400, 199)), (Scale::Full, Scale::Half, Scale::Full));
        assert_eq!((scale(799, 400), scale(800, 400)), (Scale::Half, Scale::Quarter));
        assert_eq!(
            (scale(1600, 799), scale(1600, 800), scale(9999, 9999)),
            (Scale::Quarter, Scale::Eighth, Scale::Eighth)
        );
        let turned = augment.plan(key(0), 200, 400, Orientation::from_exif(6)).unwrap();
        assert_eq!(turned.scaled_down().scale(), Scale::Half);
        let none = Augment::builder(Geometry::None).build().unwrap();
        assert_eq!(none.plan(key(0), 999, 999, Orientation::AS_STORED).unwrap().scaled_down().scale(), Scale::Full);
    }

    /// Scaling changes from which pixels the crop is made, never which crop it is.
    #[test]
    fn a_seed_means_the_same_crop_at_every_scale() {
        let augment = Augment::imagenet_train(64).build().unwrap();
        let mut seen = std::collections::HashSet::new();
        for sample in 0..200 {
            let plan = augment.plan(key(sample), 900, 700, Orientation::from_exif(sample as u16 % 9)).unwrap();
            let mut scaled = plan.scaled_down();
            seen.insert(scaled.scale());
            // The box lies in the region, whose edges are less than a decoded pixel and a tap further out.
            let (n, region) = (scaled.scale().denominator(), scaled.region());
            for (start, len, axis) in [(region.x, region.width, plan.x()), (region.y, region.height, plan.y())] {
                assert_eq!(start, axis.box_start / n);
                assert_eq!(start + len, (axis.box_start + axis.box_len).div_ceil(n));
            }
            (scaled.x.scale, scaled.y.scale) = (Scale::Full, Scale::Full);
            assert_eq!(scaled, plan);
        }
        assert!(seen.len() > 2, "{seen:?}");
    }

    #[test]
    fn a_centre_crop_decodes_only_its_window() {
        let augment = Augment::imagenet_val(224).build().unwrap();
        let region = augment.plan(key(0), 512, 1024, Orientation::AS_STORED).unwrap().region();
        // Resized by 1/2 to 256x512; the window is 16..240 by 144..368, and one tap more each side.
        assert_eq!(region, Rect { x: 31, y: 287, width: 450, height: 450 });
    }

    proptest! {
        #[test]
        fn regions_fit(sample: u64, width in 1u32..70_000, height in 1u32..70_000, exif in 0u16..10, size in 1u32..300) {
            for builder in [Augment::imagenet_train(size), Augment::imagenet_val(size), Augment::builder(Geometry::None)] {
                let augment = builder.build().unwrap();
                let plan = augment.plan(key(sample), width, height, Orientation::from_exif(exif)).unwrap();
                prop_assert!(plan.view().fits(width, height));
                let scaled = plan.scaled_down();
                prop_assert!(scaled.view().fits(width, height));
                prop_assert_eq!(scaled.output_shape(), plan.output_shape());
                if let Some(shape) = augment.output_shape() {
                    prop_assert_eq!(plan.output_shape(), shape);
                }
            }
        }
    }
}
