//! What decoding an image takes of memory, known from its first bytes.
//!
//! The libraries' numbers are upper bounds that were read off their sources and measured: tests/decode_memory.rs holds
//! every route below its own.

use super::other::{PngHeader, WebpFacts};
use crate::jpeg::{Component, Header, Process};

/// Rows and columns that decoders round up to: MCUs of four blocks.
const PADDING: u64 = 32;

/// What a library takes for an image of any size: buffers of a few rows' blocks, tables, windows of inflate.
const FIXED_BYTES: u64 = 512 << 10;

/// Bytes of Huffman tables that a bit stream of lossless WebP can ask for by each of its bytes: a table of 1024 words by
/// a code of about a hundred bits; and in all: 65,536 groups of five, and the lists of them.
const VP8L_TABLES_PER_BYTE: u64 = 350;
const VP8L_TABLES_BYTES_MAX: u64 = 65_536 * (5 * 4200 + 1024);

/// JPEG by the library. 8 bits: the samples of the components, those that are fewer than the image's pixels upsampled, the
/// result, and 16-bit coefficients where every scan may change them. 12 bits: all of it in 16 bits, and upsampled whether
/// that changes anything or not.
pub(super) fn jpeg(header: &Header, len_bytes: usize) -> u64 {
    let (h_max, v_max) = header.max_sampling();
    // Whole MCUs.
    let blocks = |len: u32, max: u8| u64::from(len).div_ceil(8 * u64::from(max)) * 8;
    let (across, down) = (blocks(header.width, h_max), blocks(header.height, v_max));
    let samples: u64 =
        header.components().iter().map(|part| across * u64::from(part.h) * down * u64::from(part.v)).sum();
    let pixels = across * u64::from(h_max) * down * u64::from(v_max);
    let components = header.components().len() as u64;
    let is_subsampled = |part: &&Component| (part.h, part.v) != (h_max, v_max);
    let subsampled = header.components().iter().filter(is_subsampled).count() as u64;
    let holds_coefficients = !matches!(header.process, Process::Baseline | Process::Extended);
    let coefficients = if holds_coefficients { 2 * samples } else { 0 };
    let of_samples = match header.precision {
        12 => 2 * samples + 4 * components * pixels + 2 * coefficients,
        _ => samples + (subsampled + 3) * pixels + coefficients,
    };
    of_samples + of_samples / 64 + len_bytes as u64 + rows(header.width) + FIXED_BYTES
}

/// PNG: the image in its own type, ours if that is another, and what stands before it.
pub(super) fn png(header: &PngHeader) -> u64 {
    let pixels = u64::from(header.width) * u64::from(header.height);
    let ours = if header.is_rgb8() { 0 } else { 3 };
    pixels * (header.bytes_per_pixel() + ours) + header.chunk_bytes_max() + rows(header.width) + FIXED_BYTES
}

/// WebP: planes or words, the result, alpha, ours if there is alpha, and a canvas where it is animated.
pub(super) fn webp(facts: &WebpFacts, (width, height): (u32, u32), len_bytes: usize) -> u64 {
    let per_pixel = match facts {
        WebpFacts { is_animated: true, .. } => 17,
        WebpFacts { has_alpha: true, .. } => 12,
        WebpFacts { lossless_bytes: 0, .. } => 5,
        _ => 9,
    };
    let tables = (facts.lossless_bytes * VP8L_TABLES_PER_BYTE).min(VP8L_TABLES_BYTES_MAX);
    pixels(width, height) * per_pixel + len_bytes as u64 + tables + rows(width) + FIXED_BYTES
}

fn pixels(width: u32, height: u32) -> u64 {
    (u64::from(width) + PADDING) * (u64::from(height) + PADDING)
}

/// A few rows, with what is kept of them.
fn rows(width: u32) -> u64 {
    u64::from(width) * 64
}
