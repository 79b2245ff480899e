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

/// What the first chunks of a PNG say, read without allocating anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PngHeader {
    pub(super) width: u32,
    pub(super) height: u32,
    bit_depth: u8,
    colour_type: u8,
    /// Whether a colour is transparent, or the palette's are in part.
    has_transparency: bool,
    /// Bytes of the chunks before the pixels.
    ancillary_bytes: u64,
    has_profile: bool,
}

impl PngHeader {
    /// The length of signature and IHDR, with its checksum.
    const LEN: usize = 33;

    /// What a colour profile may unpack to. Those of printers have about 2 MB.
    const PROFILE_BYTES_MAX: u64 = 4 << 20;

    /// Reads it. Whether the rest is right shows when it is decoded.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("{}: {what}", Route::Png.name()));
        if bytes.len() < Self::LEN {
            let message = format!("{}: ends after {} bytes, within its header", Route::Png.name(), bytes.len());
            return Err(Error::new(ErrorKind::Truncated, message));
        }
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if number(8) != 13 || &bytes[12..16] != b"IHDR" {
            return Err(corrupt("does not begin with its header"));
        }
        let (width, height) = (number(16), number(20));
        if width == 0 || height == 0 {
            return Err(corrupt("has no pixels"));
        }
        let mut header = Self {
            width,
            height,
            bit_depth: bytes[24],
            colour_type: bytes[25],
            has_transparency: false,
            ancillary_bytes: 0,
            has_profile: false,
        };
        let mut at = Self::LEN;
        while let Some(head) = bytes.get(at..at + 8) {
            let len_bytes = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            match &head[4..] {
                b"IDAT" => break,
                b"tRNS" => header.has_transparency = true,
                b"iCCP" => header.has_profile = true,
                _ => {}
            }
            let held = len_bytes.min(bytes.len() - at);
            header.ancillary_bytes += held as u64;
            at += held + 12;
        }
        Ok(header)
    }

    /// Bytes of a pixel as the library gives it.
    pub(super) fn bytes_per_pixel(&self) -> u64 {
        let channels = match self.colour_type {
            0 => 1,
            4 => 2,
            6 => 4,
            _ => 3,
        };
        (channels + u64::from(self.has_transparency)) * if self.bit_depth == 16 { 2 } else { 1 }
    }

    /// Whether the library gives pixels as they are wanted.
    pub(super) fn is_rgb8(&self) -> bool {
        self.bytes_per_pixel() == 3 && self.bit_depth != 16
    }

    /// What the library may allocate for chunks beside the pixels: texts are held twice.
    pub(super) fn chunk_bytes_max(&self) -> u64 {
        let profile = if self.has_profile { Self::PROFILE_BYTES_MAX } else { 0 };
        4 * self.ancillary_bytes + profile + (128 << 10)
    }
}

/// A WebP's dimensions, checked before anything is allocated for its pixels.
pub(super) fn webp_dimensions(bytes: &[u8]) -> Result<(u32, u32)> {
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| from_image(Route::WebP, error))?;
    Ok(decoder.dimensions())
}

/// What decides how much memory a WebP takes, by its chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WebpFacts {
    pub(super) is_animated: bool,
    pub(super) has_alpha: bool,
    /// Bytes of bit streams that name their own Huffman codes.
    pub(super) lossless_bytes: u64,
}

impl WebpFacts {
    /// Looks through the chunks of a file whose dimensions were found to be these.
    ///
    /// # Errors
    /// `Corrupt` where a frame says that it is larger: the library would allocate it before it compares.
    pub(super) fn parse(bytes: &[u8], (width, height): (u32, u32)) -> Result<Self> {
        let mut facts = Self::default();
        facts.chunks(bytes.get(12..).unwrap_or_default(), (width, height))?;
        Ok(facts)
    }

    fn chunks(&mut self, mut rest: &[u8], canvas: (u32, u32)) -> Result<()> {
        while let Some(head) = rest.get(..8) {
            let len_bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let body = &rest[8..];
            let (name, body) = (&head[..4], &body[..len_bytes.min(body.len())]);
            match name {
                b"VP8L" => self.lossless_bytes += body.len() as u64,
                b"ALPH" => {
                    self.has_alpha = true;
                    self.lossless_bytes += body.len() as u64;
                }
                b"VP8X" => self.has_alpha |= body.first().is_some_and(|flags| flags & 0x10 != 0),
                b"ANMF" => {
                    self.is_animated = true;
                    self.chunks(body.get(16..).unwrap_or_default(), canvas)?;
                }
                _ => {}
            }
            // Whatever its name says: what follows alpha is taken for a frame.
            if let Some([_, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1]) = body.get(..10) {
                let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
                let (width, height) = (side(*w0, *w1), side(*h0, *h1));
                if width > canvas.0 || height > canvas.1 {
                    let message = format!("{}: has a frame of {width}x{height} in {canvas:?}", Route::WebP.name());
                    return Err(Error::new(ErrorKind::Corrupt, message));
                }
            }
            rest = rest.get(8 + len_bytes + len_bytes % 2..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Alpha is dropped, grey repeated, 16-bit samples rounded to 8, as PIL's `convert("RGB")` does.
pub(super) fn png(bytes: &[u8]) -> Result<Pixels> {
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(PngHeader::parse(bytes)?.chunk_bytes_max());
    pixels(Route::Png, PngDecoder::with_limits(Cursor::new(bytes), limits))
}

/// Alpha is dropped; of an animation, the first picture is taken.
pub(super) fn webp(bytes: &[u8]) -> Result<Pixels> {
    // The library compares a frame with the image only when it is decoded.
    WebpFacts::parse(bytes, webp_dimensions(bytes)?)?;
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
