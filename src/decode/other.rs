//! Formats that a library decodes as a whole: PNG, WebP and the JPEG processes beside baseline.

use std::io::Cursor;

use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{DynamicImage, ImageDecoder, ImageError, RgbImage};

use super::Route;
use crate::error::{Error, ErrorKind, Result};
use crate::pixels::{Rect, RowSink};

/// The dimensions that the file declares, columns and rows.
pub(super) fn dimensions(route: Route, bytes: &[u8]) -> Result<(u32, u32)> {
    let reader = Cursor::new(bytes);
    let dimensions = match route {
        Route::Png => PngDecoder::new(reader).map(|decoder| decoder.dimensions()),
        Route::WebP => WebPDecoder::new(reader).map(|decoder| decoder.dimensions()),
        Route::Jpeg | Route::OtherJpeg => JpegDecoder::new(reader).map(|decoder| decoder.dimensions()),
    };
    dimensions.map_err(|error| from_library(route, error))
}

/// Decodes the whole image, its dimensions checked before, and hands the region's rows on. Alpha is
/// dropped, grey repeated, 16-bit samples rounded to 8, as PIL's `convert("RGB")` does.
pub(super) fn decode(route: Route, bytes: &[u8], region: Rect, sink: &mut impl RowSink) -> Result<()> {
    let reader = Cursor::new(bytes);
    let image = match route {
        Route::Png => PngDecoder::new(reader).and_then(DynamicImage::from_decoder),
        Route::WebP => WebPDecoder::new(reader).and_then(DynamicImage::from_decoder),
        Route::Jpeg | Route::OtherJpeg => JpegDecoder::new(reader).and_then(DynamicImage::from_decoder),
    };
    let image = image.map_err(|error| from_library(route, error))?.into_rgb8();
    if !region.fits(image.width(), image.height()) {
        let message = format!("image is {}x{}, not as its header says", image.width(), image.height());
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    copy_rows(&image, region, sink);
    Ok(())
}

/// The library yields interleaved pixels; the augmentation reads planes. This copy is what a format
/// without a decoder of our own costs.
fn copy_rows(image: &RgbImage, region: Rect, sink: &mut impl RowSink) {
    let (start, len) = (region.x as usize * 3, region.width as usize * 3);
    let rows = image.as_raw().chunks_exact(image.width() as usize * 3);
    for row in rows.skip(region.y as usize).take(region.height as usize) {
        let [red, green, blue] = sink.row();
        let planes = red.iter_mut().zip(green).zip(blue);
        for (pixel, ((r, g), b)) in row[start..start + len].chunks_exact(3).zip(planes) {
            (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
        }
        sink.commit();
    }
}

fn from_library(route: Route, error: ImageError) -> Error {
    let kind = match &error {
        ImageError::Unsupported(_) => ErrorKind::Unsupported,
        ImageError::Limits(_) => ErrorKind::LimitExceeded,
        ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => ErrorKind::Truncated,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, format!("{}: {error}", route.name())).with_source(error)
}
