//! From a sample of a data set to what is packed of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use forebay::augment::Resizer;
use forebay::decode::{Decoder, ImageInfo, Route};
use forebay::plan::{OUTPUT_SIDE_MAX, Orientation, SampleKey, Size};
use forebay::raw::Shape;
use forebay::source::{Extent, Source, UNLABELLED};
use forebay::{Augment, DType, Error, Geometry, Layout, Limits, Result};

/// What is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The bytes of the samples.
    Originals,
    /// Their pixels, resized.
    Pixels { size: Target, orientation: bool },
}

/// The size that images are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The short side has so many pixels, and the long one as many as keep the proportion, rounded down.
    ShortSide(u32),
    /// Rows and columns, whatever becomes of the proportion.
    Exactly(Size),
}

/// A sample as it is packed.
pub struct Packed {
    pub key: String,
    pub label: Option<i64>,
    /// What storage held of it.
    pub source_bytes: u64,
    pub extension: &'static str,
    pub data: Vec<u8>,
    /// Of pixels, before which an array's header is to stand.
    pub shape: Option<Shape>,
}

/// Makes them, one thread's.
pub struct Packer<'a> {
    source: &'a dyn Source,
    form: Form,
    raw_shape: Option<Shape>,
    decoder: Decoder,
    resizer: Option<Resizer>,
    /// The object read last, which many samples may share.
    open: Option<(u64, File)>,
}

impl<'a> Packer<'a> {
    pub fn new(source: &'a dyn Source, form: Form, raw_shape: Option<Shape>) -> Self {
        Self { source, form, raw_shape, decoder: Decoder::new(Limits::default()), resizer: None, open: None }
    }

    /// Reads a sample and makes of it what is packed.
    ///
    /// # Errors
    /// Those of reading and decoding it, with its name.
    pub fn pack(&mut self, sample: u64) -> Result<Packed> {
        let mut key = String::new();
        self.source.key(sample, &mut key)?;
        let packed = self.pack_named(sample, &key);
        packed.map_err(|error| if error.sample().is_some() { error } else { error.with_sample(key) })
    }

    fn pack_named(&mut self, sample: u64, key: &str) -> Result<Packed> {
        let label = Some(self.source.label(sample)?).filter(|label| *label != UNLABELLED);
        let bytes = self.read(sample)?;
        let is_headerless = self.source.is_headerless(sample)?;
        let packed = |extension, source_bytes, data, shape| Packed {
            key: key.to_owned(),
            label,
            source_bytes,
            extension,
            data,
            shape,
        };
        let source_bytes = bytes.len() as u64;
        if self.form == Form::Originals && is_headerless {
            return Ok(packed("raw", source_bytes, bytes, None));
        }
        let info = match is_headerless {
            true => self.decoder.inspect_headerless(&bytes, self.raw_shape)?,
            false => self.decoder.inspect(&bytes)?,
        };
        Ok(match self.form {
            Form::Originals => packed(extension(info.route), source_bytes, bytes, None),
            Form::Pixels { size, orientation } => {
                let orientation = if orientation { info.orientation } else { Orientation::AS_STORED };
                let (shape, pixels) = self.pixels(&bytes, &info, size, orientation)?;
                packed("npy", source_bytes, pixels, Some(shape))
            }
        })
    }

    /// All of an image, resized as a loader would.
    fn pixels(
        &mut self,
        bytes: &[u8],
        info: &ImageInfo,
        size: Target,
        orientation: Orientation,
    ) -> Result<(Shape, Vec<u8>)> {
        let size = size.of(info, orientation)?;
        let augment = Augment::builder(Geometry::Resize { size }).dtype(DType::U8).layout(Layout::Nhwc).build()?;
        let plan = augment.plan(SampleKey::default(), info.width, info.height, orientation)?;
        let mut pixels = vec![0; plan.output_bytes()];
        // One for every size: all that it takes of an augmentation is how values are normalised, and these are not.
        let resizer = self.resizer.get_or_insert_with(|| Resizer::new(&augment));
        let mut rows = resizer.begin(&plan, &mut pixels)?;
        self.decoder.decode(bytes, info, plan.view(), &mut rows)?;
        rows.finish()?;
        Ok((Shape { height: size.height, width: size.width, channels: 3 }, pixels))
    }

    fn read(&mut self, sample: u64) -> Result<Vec<u8>> {
        let extent = self.source.extent(sample)?;
        let (Extent::Object(object) | Extent::Range { object, .. }) = extent;
        let mut path = PathBuf::new();
        self.source.object_path(object, &mut path)?;
        let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
        let file = match self.open.take() {
            Some((open, file)) if open == object => file,
            _ => File::open(&path).map_err(failed)?,
        };
        let (offset, len_bytes) = match extent {
            Extent::Object(_) => (0, file.metadata().map_err(failed)?.len()),
            Extent::Range { offset, len_bytes, .. } => (offset, len_bytes),
        };
        Limits::default().check_bytes(len_bytes)?;
        let mut bytes = vec![0; len_bytes as usize];
        file.read_exact_at(&mut bytes, offset).map_err(failed)?;
        self.open = Some((object, file));
        Ok(bytes)
    }
}

impl Target {
    /// What an image is resized to: torchvision's `Resize(size)` for a short side.
    fn of(self, info: &ImageInfo, orientation: Orientation) -> Result<Size> {
        let side = match self {
            Self::Exactly(size) => return Ok(size),
            Self::ShortSide(side) => side,
        };
        let (mut width, mut height) = (info.width, info.height);
        if orientation.transposes() {
            (width, height) = (height, width);
        }
        let (short, long) = (width.min(height).max(1), width.max(height));
        let long_side = (u64::from(side) * u64::from(long) / u64::from(short)).max(1);
        if long_side > u64::from(OUTPUT_SIDE_MAX) {
            let message = format!("image of {width}x{height} resized to a short side of {side} is {long_side} long");
            return Err(Error::new(forebay::ErrorKind::LimitExceeded, message)
                .with_remedy(format!("a side has up to {OUTPUT_SIDE_MAX} pixels: leave it out, or give both sides")));
        }
        let long_side = long_side as u32;
        Ok(match width < height {
            true => Size { height: long_side, width: side },
            false => Size { height: side, width: long_side },
        })
    }
}

/// The extension of an image as it is.
fn extension(route: Route) -> &'static str {
    match route {
        Route::Jpeg | Route::OtherJpeg | Route::Kernels | Route::NvJpeg => "jpg",
        Route::Png => "png",
        Route::WebP => "webp",
        Route::Raw => "npy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_side_is_what_was_asked_for_and_the_proportion_stays() {
        let size = |width, height, exif, side| {
            let orientation = Orientation::from_exif(exif);
            let info = ImageInfo { width, height, orientation, route: Route::Jpeg };
            Target::ShortSide(side).of(&info, orientation).map(|size| (size.width, size.height))
        };
        assert_eq!(size(500, 375, 1, 256).unwrap(), (341, 256));
        assert_eq!(size(375, 500, 1, 256).unwrap(), (256, 341));
        assert_eq!(size(500, 375, 6, 256).unwrap(), (256, 341));
        assert_eq!(size(100, 100, 1, 256).unwrap(), (256, 256));
        assert_eq!(size(65_535, 1, 1, 256).unwrap_err().kind(), forebay::ErrorKind::LimitExceeded);
    }
}
