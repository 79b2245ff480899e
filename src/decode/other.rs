//! Formats that a library decodes as a whole: the JPEG processes beside baseline, PNG and WebP.

use std::io::Cursor;

use image::codecs::{png::PngDecoder, webp::WebPDecoder};
use image::{DynamicImage, ImageDecoder, ImageError, ImageResult};
use libjpeg_turbo_rs::{DecodeLimits, JpegError, PixelFormat};

use super::Route;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::pixels::{Rect, RowSink};
use crate::raw;

/// Scans of a progressive JPEG, each of which can cost a pass over the image. Encoders write about ten;
/// 500 is what libjpeg-turbo's own fuzzers allow.
const SCANS_MAX: usize = 500;

/// What decoding one pixel takes at most: three 16-bit coefficients, the planes before and after
/// upsampling, and the result.
const BYTES_PER_PIXEL: u64 = 24;

/// A decoded image: interleaved R, G, B.
pub(super) struct Pixels {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// A PNG, its dimensions checked before anything is allocated for its pixels.
pub(super) fn png_dimensions(bytes: &[u8]) -> Result<(u32, u32)> {
    dimensions(Route::Png, PngDecoder::new(Cursor::new(bytes)))
}

/// A WebP, likewise.
pub(super) fn webp_dimensions(bytes: &[u8]) -> Result<(u32, u32)> {
    dimensions(Route::WebP, WebPDecoder::new(Cursor::new(bytes)))
}

fn dimensions(route: Route, decoder: ImageResult<impl ImageDecoder>) -> Result<(u32, u32)> {
    decoder.map(|decoder| decoder.dimensions()).map_err(|error| from_image(route, error))
}

/// Alpha is dropped, grey repeated, 16-bit samples rounded to 8, as PIL's `convert("RGB")` does.
pub(super) fn png(bytes: &[u8]) -> Result<Pixels> {
    pixels(Route::Png, PngDecoder::new(Cursor::new(bytes)))
}

/// Alpha is dropped; of an animation, the first picture is taken.
pub(super) fn webp(bytes: &[u8]) -> Result<Pixels> {
    pixels(Route::WebP, WebPDecoder::new(Cursor::new(bytes)))
}

fn pixels(route: Route, decoder: ImageResult<impl ImageDecoder>) -> Result<Pixels> {
    let image = decoder.and_then(DynamicImage::from_decoder).map_err(|error| from_image(route, error))?;
    let image = image.into_rgb8();
    Ok(Pixels { width: image.width() as usize, height: image.height() as usize, rgb: image.into_raw() })
}

/// Progressive, arithmetic and four-component JPEG of 8 bits, and JPEG of 12 bits, whose samples lose
/// their last four.
pub(super) fn jpeg(bytes: &[u8], precision: u8, limits: &Limits) -> Result<Pixels> {
    let limits = DecodeLimits {
        max_width: limits.max_side as usize,
        max_height: limits.max_side as usize,
        max_pixels: limits.max_pixels,
        max_scans: SCANS_MAX,
        max_memory: Some(limits.max_pixels.saturating_mul(BYTES_PER_PIXEL)),
    };
    if precision == 12 {
        return jpeg_12_bit(bytes, &limits);
    }
    let decoder = libjpeg_turbo_rs::Decoder::new_with_limits(bytes, limits);
    let image = decoder.and_then(|mut decoder| {
        decoder.set_output_format(PixelFormat::Rgb);
        decoder.decode_image()
    });
    let image = image.map_err(from_jpeg)?;
    Ok(Pixels { width: image.width, height: image.height, rgb: image.data })
}

fn jpeg_12_bit(bytes: &[u8], limits: &DecodeLimits) -> Result<Pixels> {
    let image = libjpeg_turbo_rs::precision::decompress_12bit_with_limits(bytes, limits).map_err(from_jpeg)?;
    let high = |sample: i16| (sample >> 4).clamp(0, 255) as u8;
    let rgb = match image.num_components {
        1 => image.data.iter().flat_map(|&grey| [high(grey); 3]).collect(),
        3 => image.data.iter().copied().map(high).collect(),
        other => {
            let message = format!("12-bit JPEG of {other} components");
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy("store it as an 8-bit JPEG"));
        }
    };
    Ok(Pixels { width: image.width, height: image.height, rgb })
}

impl Pixels {
    /// Hands the region's rows on. The library yields interleaved pixels and the augmentation reads
    /// planes: this copy is what a format without a decoder of our own costs.
    pub(super) fn copy_rows(&self, region: Rect, sink: &mut impl RowSink) -> Result<()> {
        let fits = region.fits(self.width as u32, self.height as u32);
        if !fits || self.rgb.len() != self.width * self.height * 3 {
            let message = format!("image decodes to {}x{}, not to what its header says", self.width, self.height);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let (start, len) = (region.x as usize * 3, region.width as usize * 3);
        let rows = self.rgb.chunks_exact(self.width * 3);
        for row in rows.skip(region.y as usize).take(region.height as usize) {
            raw::copy_row(&row[start..start + len], 3, sink.row());
            sink.commit();
        }
        Ok(())
    }
}

fn from_image(route: Route, error: ImageError) -> Error {
    let kind = match &error {
        ImageError::Unsupported(_) => ErrorKind::Unsupported,
        ImageError::Limits(_) => ErrorKind::LimitExceeded,
        ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => ErrorKind::Truncated,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, format!("{}: {error}", route.name())).with_source(error)
}

fn from_jpeg(error: JpegError) -> Error {
    let kind = match &error {
        JpegError::Unsupported(_) => ErrorKind::Unsupported,
        JpegError::LimitExceeded { .. } | JpegError::AllocationFailed { .. } => ErrorKind::LimitExceeded,
        JpegError::UnexpectedEof => ErrorKind::Truncated,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, format!("{}: {error}", Route::OtherJpeg.name())).with_source(error)
}
