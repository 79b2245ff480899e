//! Pictures for people: decoded rows gathered, and written by extension as PPM or PNG.

use std::path::Path;

use forebay::pixels::{ROW_PADDING_BYTES, RowSink};
use forebay::{Error, ErrorKind, Rect, Result};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use crate::datagen::write_whole;

/// Whether [`write_rgb8`] knows the extension; asked before the work whose picture it is.
pub fn check_extension(path: &Path) -> Result<()> {
    match extension(path).as_deref() {
        Some("png" | "ppm") => Ok(()),
        _ => Err(Error::invalid_parameter("output", path.display(), "the name must end in .png or .ppm")),
    }
}

/// Writes interleaved RGB, 8 bits, rows without padding. The file appears when it is whole.
pub fn write_rgb8(path: &Path, rgb: &[u8], width: u32, height: u32) -> Result<()> {
    check_extension(path)?;
    let mut out = Vec::with_capacity(rgb.len() / 2 + 64);
    if extension(path).as_deref() == Some("ppm") {
        out.extend(format!("P6\n{width} {height}\n255\n").bytes());
        out.extend(rgb);
    } else {
        PngEncoder::new(&mut out).write_image(rgb, width, height, ExtendedColorType::Rgb8).map_err(|error| {
            Error::new(ErrorKind::Internal, format!("cannot encode {}: {error}", path.display())).with_source(error)
        })?;
    }
    write_whole(path, &out)
}

/// Collects rows as a picture file wants them.
pub struct Interleaved {
    width: usize,
    row: [Vec<u8>; 3],
    /// Red, green, blue, rows without padding.
    pub pixels: Vec<u8>,
}

impl Interleaved {
    /// For the rows of a region.
    pub fn new(region: Rect) -> Self {
        let width = region.width as usize;
        let row = std::array::from_fn(|_| vec![0; width + ROW_PADDING_BYTES]);
        Self { width, row, pixels: Vec::with_capacity(3 * width * region.height as usize) }
    }
}

impl RowSink for Interleaved {
    fn row(&mut self) -> [&mut [u8]; 3] {
        self.row.each_mut().map(|plane| plane.as_mut_slice())
    }

    fn commit(&mut self) {
        let [red, green, blue] = self.row.each_ref().map(|plane| &plane[..self.width]);
        self.pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]));
    }
}

fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}
