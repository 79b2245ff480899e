//! A contact sheet: thumbnails with their names below, on one picture.

use std::path::Path;

use font8x8::{BASIC_FONTS, UnicodeFonts};
use forebay::batch::Image;
use forebay::source::UNLABELLED;
use forebay::{Augment, Batch, DType, Error, ErrorKind, Layout, Result};
use half::{bf16, f16};
use image::RgbImage;

use crate::picture;

/// One thumbnail, and up to two lines of text below it.
pub struct Tile {
    /// Interleaved RGB, 8 bits, rows without padding.
    pub rgb: Vec<u8>,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// What it is: class name and label.
    pub title: String,
    /// Which it is: the key.
    pub subtitle: String,
}

const GROUND: [u8; 3] = [24, 26, 30];
const TITLE: [u8; 3] = [235, 236, 240];
const SUBTITLE: [u8; 3] = [142, 148, 160];
const MARGIN: u32 = 16;
const GAP: u32 = 12;
const GLYPH: u32 = 8;
const LINE: u32 = 12;
/// Space below a thumbnail: two lines and some air.
const CAPTION: u32 = 6 + 2 * LINE;
/// Pixels of a sheet; more tiles than fit are left out.
const PIXELS_MAX: u64 = 64_000_000;

/// The longer side of a thumbnail, at most.
const THUMBNAIL_SIDE: u32 = 224;
/// Images of a batch that are shown.
const BATCH_TILES: usize = 64;

/// A sheet of the first images of a batch as the consumer gets them, all views of a sample side by side, normalisation
/// undone. `classes` are the names of the labels where they are known.
///
/// # Errors
///
/// As [`write`].
pub fn write_batch(batch: &Batch, classes: &[String], path: &Path) -> Result<()> {
    let images = batch.to_host()?;
    let views: Vec<_> =
        (0..batch.groups()).flat_map(|group| (0..batch.views(group)).map(move |view| (group, view))).collect();
    let tile = |index: usize, image: Image<'_>, (group, view): (usize, usize)| {
        let label = batch.labels()[index];
        let class = usize::try_from(label).ok().and_then(|label| classes.get(label));
        let title = match (class, label) {
            (_, UNLABELLED) => "no label".into(),
            (Some(class), label) => format!("{label} {class}"),
            (None, label) => format!("label {label}"),
        };
        let title = if views.len() > 1 { format!("{group}.{view} {title}") } else { title };
        let rgb = pixels(image.bytes, image.width as usize * image.height as usize, batch.augment(group));
        Tile::thumbnail(rgb, image.width, image.height, title, batch.key(index).to_owned())
    };
    let of_sample =
        |index| images.images(index).zip(views.iter().copied()).map(move |(image, view)| (index, image, view));
    let all = (0..batch.len()).flat_map(of_sample).take(BATCH_TILES);
    let tiles: Vec<Tile> = all.map(|(index, image, view)| tile(index, image, view)).collect();
    write(path, &tiles).map(drop)
}

/// Elements back to interleaved 8-bit pixels.
fn pixels(bytes: &[u8], pixels: usize, augment: &Augment) -> Vec<u8> {
    let normalization = augment.normalization();
    let size_bytes = augment.dtype().size_bytes();
    let mut rgb = vec![0; 3 * pixels];
    for (index, element) in bytes.chunks_exact(size_bytes).take(3 * pixels).enumerate() {
        let (pixel, channel) = match augment.layout() {
            Layout::Nchw => (index % pixels, index / pixels),
            Layout::Nhwc => (index / 3, index % 3),
        };
        let white = match (augment.dtype(), element) {
            (DType::U8, &[byte]) => f32::from(byte) / 255.0,
            (DType::F16, &[a, b]) => f16::from_ne_bytes([a, b]).to_f32(),
            (DType::BF16, &[a, b]) => bf16::from_ne_bytes([a, b]).to_f32(),
            (DType::F32, &[a, b, c, d]) => f32::from_ne_bytes([a, b, c, d]),
            _ => 0.0,
        };
        let white = normalization.map_or(white, |how| white * how.std[channel] + how.mean[channel]);
        rgb[3 * pixel + channel] = (white * 255.0).round() as u8;
    }
    rgb
}

impl Tile {
    /// A tile of an image of any size, made smaller where it is larger than a thumbnail. `rgb` holds 3 bytes
    /// for each pixel.
    pub fn thumbnail(rgb: Vec<u8>, width: u32, height: u32, title: String, subtitle: String) -> Self {
        let scale = (f64::from(THUMBNAIL_SIDE) / f64::from(width.max(height))).min(1.0);
        let fit = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
        let image = RgbImage::from_raw(width, height, rgb).unwrap_or_default();
        let image = image::imageops::thumbnail(&image, fit(width), fit(height));
        Self { width: image.width(), height: image.height(), rgb: image.into_raw(), title, subtitle }
    }
}

/// Lays the tiles out about as wide as high and writes PNG or PPM by the extension of `path`. Returns how
/// many tiles the sheet shows, which is fewer than given only where it would grow beyond 64 megapixels.
///
/// # Errors
///
/// `InvalidParameter` for no tiles, for one whose bytes are not its size, and for an unknown extension; `Io`.
pub fn write(path: &Path, tiles: &[Tile]) -> Result<usize> {
    let fits = |tile: &Tile| tile.rgb.len() as u64 == 3 * u64::from(tile.width) * u64::from(tile.height);
    if tiles.is_empty() || !tiles.iter().all(fits) {
        return Err(Error::new(ErrorKind::InvalidParameter, "a contact sheet needs pictures of 3 bytes a pixel"));
    }
    let cell_width = tiles.iter().map(|tile| tile.width).max().unwrap_or(1).max(12 * GLYPH);
    let cell_height = tiles.iter().map(|tile| tile.height).max().unwrap_or(1) + CAPTION;
    let cell_pixels = u64::from(cell_width + GAP) * u64::from(cell_height + GAP);
    let count = (tiles.len() as u64).min((PIXELS_MAX / cell_pixels).max(1)) as u32;
    // Columns such that the sheet is about 3:2.
    let ideal = (1.5 * f64::from(count) * f64::from(cell_height) / f64::from(cell_width)).sqrt().round() as u32;
    let columns = ideal.clamp(1, count);
    let rows = count.div_ceil(columns);

    let mut sheet =
        Canvas::new(2 * MARGIN + columns * (cell_width + GAP) - GAP, 2 * MARGIN + rows * (cell_height + GAP) - GAP);
    for (number, tile) in (0..count).zip(tiles) {
        let left = MARGIN + number % columns * (cell_width + GAP);
        let top = MARGIN + number / columns * (cell_height + GAP);
        // Smaller pictures stand on the common base line, above their caption.
        let base = top + cell_height - CAPTION;
        sheet.paste(left, base - tile.height, tile);
        sheet.text(left, base + 6, cell_width, &tile.title, TITLE);
        sheet.text(left, base + 6 + LINE, cell_width, &tile.subtitle, SUBTITLE);
    }
    picture::write_rgb8(path, &sheet.rgb, sheet.width, sheet.height)?;
    Ok(count as usize)
}

struct Canvas {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        Self { width, height, rgb: GROUND.repeat(width as usize * height as usize) }
    }

    fn paste(&mut self, left: u32, top: u32, tile: &Tile) {
        let row_bytes = tile.width as usize * 3;
        if row_bytes == 0 {
            return;
        }
        for (row, y) in tile.rgb.chunks_exact(row_bytes).zip(top..) {
            let at = self.at(left, y);
            self.rgb[at..at + row_bytes].copy_from_slice(row);
        }
    }

    /// One line, cut with two dots where it is longer than `width`. Signs that the font lacks become `?`.
    fn text(&mut self, left: u32, top: u32, width: u32, text: &str, colour: [u8; 3]) {
        let room = (width / GLYPH) as usize;
        let mut signs: Vec<char> = text.chars().take(room + 1).collect();
        if signs.len() > room {
            signs.truncate(room.saturating_sub(2));
            signs.extend(['.', '.']);
        }
        for (sign, x) in signs.into_iter().zip((left..).step_by(GLYPH as usize)) {
            let glyph = BASIC_FONTS.get(sign).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
            for (bits, y) in glyph.into_iter().zip(top..) {
                for column in (0..GLYPH).filter(|column| bits >> column & 1 == 1) {
                    let at = self.at(x + column, y);
                    self.rgb[at..at + 3].copy_from_slice(&colour);
                }
            }
        }
    }

    fn at(&self, x: u32, y: u32) -> usize {
        (y as usize * self.width as usize + x as usize) * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(width: u32, height: u32, title: &str) -> Tile {
        let rgb = [200, 90, 40].repeat((width * height) as usize);
        Tile { rgb, width, height, title: title.into(), subtitle: "class/very-long-name-that-is-cut".into() }
    }

    #[test]
    fn every_tile_is_on_the_sheet_with_its_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheet.ppm");
        let tiles: Vec<_> = (1..8).map(|i| tile(20 * i, 30 + i, "tench 0 \u{1F41F}")).collect();
        assert_eq!(write(&path, &tiles).unwrap(), 7);
        let bytes = std::fs::read(&path).unwrap();
        let count = |colour: [u8; 3]| bytes.windows(3).filter(|window| *window == colour).count();
        let pixels: u32 = tiles.iter().map(|tile| tile.width * tile.height).sum();
        // Windows at other phases of a plain area hold its colour turned round, never the same order.
        assert_eq!(count([200, 90, 40]), pixels as usize);
        assert!(count(TITLE) > 7 * 40 && count(SUBTITLE) > 7 * 40);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let path = Path::new("sheet.png");
        assert!(write(path, &[]).is_err());
        let mut wrong = tile(4, 4, "");
        wrong.rgb.pop();
        assert_eq!(write(path, &[wrong]).unwrap_err().kind(), ErrorKind::InvalidParameter);
        assert!(picture::check_extension(Path::new("sheet.gif")).is_err());
    }
}
