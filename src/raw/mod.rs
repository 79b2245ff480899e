//! Raw pixels: images that are stored decoded. No I/O.
//!
//! A raw image is an array of bytes `[height, width, channels]` in C order, of one channel (grey) or three (red,
//! green, blue), or `[height, width]`, which is grey. It has two forms: a NumPy file (`.npy`, [`npy`]), which is
//! known by its first bytes, and bare pixels (`.raw`, `.bin`), whose [`Shape`] must be told.
//!
//! Nothing has to be decoded, so the rows of a crop are a range of bytes: [`Facts::range`] says which, and
//! [`Facts::copy_rows`] makes rows of it. The pixels are the stored ones; grey is repeated three times, as of a grey
//! JPEG.

pub mod npy;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::Piece;
use crate::pixels::{Rect, RowSink};

/// The longest side that an array may have here, beyond any image: what arithmetic relies on.
const SIDE_MAX: u32 = 1 << 30;

/// The dimensions of a raw image. As text: `256x256x3`, or `256x256` for grey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Samples of a pixel: 1 (grey) or 3 (red, green, blue).
    pub channels: u8,
}

impl Shape {
    /// Whether images can have it: 1 or 3 channels and sides of 1 to 2^30 pixels.
    ///
    /// # Errors
    /// `InvalidParameter`.
    pub fn check(self) -> Result<()> {
        let sides = 1..=SIDE_MAX;
        let is_sound = sides.contains(&self.height) && sides.contains(&self.width) && matches!(self.channels, 1 | 3);
        if is_sound { Ok(()) } else { Err(Error::invalid_parameter("raw shape", self, ALLOWED)) }
    }

    /// The bytes of an image: one a sample. Of a shape that passes no [`check`](Self::check), `u64::MAX` at most.
    pub fn len_bytes(self) -> u64 {
        u64::from(self.height).saturating_mul(self.row_bytes())
    }

    fn row_bytes(self) -> u64 {
        u64::from(self.width) * u64::from(self.channels)
    }
}

const ALLOWED: &str = "HEIGHTxWIDTHx3, or x1 or nothing for grey, with sides of 1 to 2^30 pixels, is allowed";

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid_parameter("raw shape", format_args!("{text:?}"), ALLOWED);
        // The standard parser takes a sign.
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| !text.starts_with('+'));
        let mut parts = text.split('x').map(number);
        let mut next = || parts.next().map(|number| number.ok_or_else(wrong)).transpose();
        let (Some(height), Some(width), channels) = (next()?, next()?, next()?) else { return Err(wrong()) };
        let channels = u8::try_from(channels.unwrap_or(1)).map_err(|_| wrong())?;
        let shape = Self { height, width, channels };
        if next()?.is_some() || shape.check().is_err() { Err(wrong()) } else { Ok(shape) }
    }
}

/// All that is to be known of a raw image in a file.
///
/// The fields are as hostile as the bytes that they were read from until [`check`](Self::check) has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its dimensions.
    pub shape: Shape,
    /// Where its pixels start, in bytes from the start of the file.
    pub offset: u64,
}

impl Facts {
    /// Whether there can be such an image in a file of `len_bytes`.
    ///
    /// # Errors
    /// `IndexStale`.
    pub fn check(&self, len_bytes: u64) -> Result<()> {
        let end = self.offset.checked_add(self.shape.len_bytes());
        if self.shape.check().is_ok() && end.is_some_and(|end| end <= len_bytes) {
            return Ok(());
        }
        let message =
            format!("index is stale: it has {} raw pixels at {} of {len_bytes} bytes", self.shape, self.offset);
        Err(Error::new(ErrorKind::IndexStale, message).with_remedy("build the index again: forebay index"))
    }

    /// Of a file of `len_bytes` that holds pixels alone, whose shape must be known.
    ///
    /// # Errors
    /// `Unsupported` if it is not; `Truncated` or `Corrupt` if the file has another length.
    pub fn headerless(len_bytes: u64, shape: Option<Shape>) -> Result<Self> {
        let Some(shape) = shape else {
            let message = "the sample's extension says that it is raw pixels, and their shape is not known";
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy(
                "give the shape (LoaderBuilder::raw_shape, --raw-shape HEIGHTxWIDTHx3), or give the file its own extension",
            ));
        };
        shape.check()?;
        let declared = shape.len_bytes();
        if len_bytes == declared {
            return Ok(Self { shape, offset: 0 });
        }
        let kind = if len_bytes < declared { ErrorKind::Truncated } else { ErrorKind::Corrupt };
        let message = format!("the sample has {len_bytes} bytes, and raw pixels of shape {shape} have {declared}");
        Err(Error::new(kind, message).with_remedy("give the shape that the samples have, or write the sample again"))
    }

    /// The bytes of the file that a region needs: its rows, whole, so that they are one range.
    ///
    /// # Errors
    /// `InvalidParameter` for a region outside the image.
    pub fn range(&self, region: Rect) -> Result<Range<u64>> {
        self.check_region(region)?;
        let row = self.shape.row_bytes();
        let start = self.offset + u64::from(region.y) * row;
        Ok(start..start + u64::from(region.height) * row)
    }

    /// Hands the rows of a region to `sink`, from a piece of the file that holds the [`range`](Self::range) of it.
    ///
    /// # Errors
    /// `InvalidParameter` for a region outside the image, `Truncated` for a piece without its rows; nothing is
    /// committed then.
    pub fn copy_rows(&self, piece: Piece<'_>, region: Rect, sink: &mut impl RowSink) -> Result<()> {
        let range = self.range(region)?;
        let rows = range.start.checked_sub(piece.offset).and_then(|start| {
            let (start, len) = (usize::try_from(start).ok()?, usize::try_from(range.end - range.start).ok()?);
            piece.bytes.get(start..start.checked_add(len)?)
        });
        let Some(rows) = rows else {
            let end = piece.offset + piece.bytes.len() as u64;
            let message =
                format!("raw pixels lie at {range:?} of the file, and the bytes {}..{end} are there", piece.offset);
            return Err(Error::new(ErrorKind::Truncated, message).with_remedy("write or copy the file again"));
        };
        let channels = usize::from(self.shape.channels);
        let (start, len) = (region.x as usize * channels, region.width as usize * channels);
        for row in rows.chunks_exact(self.shape.row_bytes() as usize) {
            copy_row(&row[start..start + len], channels, sink.row());
            sink.commit();
        }
        Ok(())
    }

    fn check_region(&self, region: Rect) -> Result<()> {
        let Shape { width, height, .. } = self.shape;
        if region.fits(width, height) {
            return Ok(());
        }
        Err(Error::invalid_parameter("region", format_args!("{region:?}"), &format!("the image is {width}x{height}")))
    }
}

/// Interleaved pixels, of 1 or 3 channels, to a plane each.
pub(crate) fn copy_row(pixels: &[u8], channels: usize, planes: [&mut [u8]; 3]) {
    if channels == 1 {
        planes.into_iter().for_each(|plane| plane[..pixels.len()].copy_from_slice(pixels));
        return;
    }
    let [red, green, blue] = planes;
    let planes = red.iter_mut().zip(green).zip(blue);
    for (pixel, ((r, g), b)) in pixels.chunks_exact(3).zip(planes) {
        (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_as_they_are_written() {
        let shape = Shape { height: 480, width: 640, channels: 3 };
        assert_eq!(("480x640x3".parse::<Shape>().unwrap(), shape.to_string().as_str()), (shape, "480x640x3"));
        assert_eq!("1x2".parse::<Shape>().unwrap(), Shape { height: 1, width: 2, channels: 1 });
        for wrong in [
            "",
            "x",
            "5",
            "5x",
            "x5",
            "0x5x3",
            "5x0x3",
            "5x5x2",
            "5x5x4",
            "5x5x259",
            "5x5x3x1",
            "+5x5",
            "-5x5",
            "5X5",
            "9999999999x1",
            "1073741825x1",
        ] {
            let error = wrong.parse::<Shape>().unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidParameter && error.to_string().contains("raw shape"), "{wrong}");
        }
    }

    #[test]
    fn facts_that_no_file_has_are_refused() {
        let facts = |height, width, channels, offset| Facts { shape: Shape { height, width, channels }, offset };
        facts(2, 3, 3, 10).check(28).unwrap();
        for (wrong, len) in [
            (facts(2, 3, 3, 11), 28),
            (facts(2, 3, 3, u64::MAX), u64::MAX),
            (facts(0, 3, 3, 0), 99),
            (facts(2, 0, 1, 0), 99),
            (facts(2, 3, 2, 0), 99),
            (facts(u32::MAX, u32::MAX, 255, 0), u64::MAX),
        ] {
            assert_eq!(wrong.check(len).unwrap_err().kind(), ErrorKind::IndexStale, "{wrong:?}");
        }
    }

    #[test]
    fn a_region_takes_the_bytes_of_its_rows() {
        let facts = Facts { shape: Shape { height: 4, width: 5, channels: 3 }, offset: 100 };
        let region = Rect { x: 1, y: 2, width: 3, height: 2 };
        assert_eq!(facts.range(region).unwrap(), 130..160);
        for outside in [Rect { x: 3, ..region }, Rect { y: 3, ..region }, Rect { height: 0, ..region }] {
            assert_eq!(facts.range(outside).unwrap_err().kind(), ErrorKind::InvalidParameter, "{outside:?}");
        }
    }
}
