//! Which files nvJPEG is shown.
//!
//! Its versions before CUDA 13 crash on some malformed files, and its hardware decoder tells of no error in the coded data:
//! wrong pixels would pass for right ones. So the host checks a file's structure first, and what it has not checked
//! nvJPEG does not see. Bits that are flipped within a well-formed scan go past this.

use memchr::memchr;

use super::kinds::Sampling;
use crate::jpeg::{Decodability, Header, HuffmanSpec, Process};

/// The largest category of a DC difference of 8-bit samples (T.81, table F.1).
const DC_CATEGORY_MAX: u8 = 11;

const EOI: u8 = 0xD9;
const RST0: u8 = 0xD0;

/// How many of a file's bytes are the JPEG that nvJPEG may see: what lies behind the EOI marker is not for it. Passes over the
/// file once, a few microseconds for a photo; any thread may do it.
///
/// # Errors
///
/// Why the file is for another decoder.
pub(crate) fn takes(header: &Header, bytes: &[u8]) -> Result<usize, &'static str> {
    structure(header)?;
    tables(header)?;
    scan_end(header, bytes)
}

fn structure(header: &Header) -> Result<(), &'static str> {
    if header.support() != Decodability::Streamed {
        return Err(header.support().name());
    }
    if header.process != Process::Baseline {
        return Err("extended sequential DCT");
    }
    Sampling::of(header).map(drop)
}

/// Whether the tables of a scan are there, and codes of what baseline JPEG codes.
///
/// # Errors
///
/// Why the file is for another decoder.
pub(super) fn tables(header: &Header) -> Result<(), &'static str> {
    let tables = &header.tables;
    for scanned in header.scan.components() {
        let quant = header.components().get(usize::from(scanned.index)).map_or(u8::MAX, |component| component.quant);
        match tables.quant.get(usize::from(quant)) {
            Some(Some(table)) if table.0.iter().all(|&divisor| (1..=255).contains(&divisor)) => {}
            _ => return Err("a quantisation table that is missing or not of 8 bits"),
        }
        let dc = tables.dc.get(usize::from(scanned.dc)).and_then(Option::as_ref);
        let ac = tables.ac.get(usize::from(scanned.ac)).and_then(Option::as_ref);
        let (Some(dc), Some(ac)) = (dc, ac) else { return Err("a Huffman table is missing") };
        let categories = &dc.symbols[..symbol_count(dc).min(256)];
        if !is_prefix_code(dc) || !is_prefix_code(ac) || categories.iter().any(|&category| category > DC_CATEGORY_MAX) {
            return Err("a Huffman table that is no code");
        }
    }
    Ok(())
}

fn symbol_count(spec: &HuffmanSpec) -> usize {
    spec.counts.iter().map(|&count| usize::from(count)).sum()
}

/// Whether codes of these lengths can be told apart (Kraft's inequality), and there are any.
fn is_prefix_code(spec: &HuffmanSpec) -> bool {
    let taken = spec.counts.iter().zip(1..).map(|(&count, len)| u32::from(count) << (16 - len)).sum::<u32>();
    symbol_count(spec) > 0 && taken <= 1 << 16
}

/// Walks the markers of the only scan: restart markers in turn and as many as there must be, then EOI.
fn scan_end(header: &Header, bytes: &[u8]) -> Result<usize, &'static str> {
    let (mut at, mut restarts) = (header.scan_offset, 0);
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(next) = memchr(0xFF, rest) else { return Err("the file ends before its EOI marker") };
        match rest.get(next + 1) {
            Some(0) => {}
            Some(&marker) if marker == RST0 + (restarts % 8) as u8 && restarts < restarts_expected(header) => {
                restarts += 1
            }
            Some(&EOI) if restarts == restarts_expected(header) => return Ok(at + next + 2),
            Some(&EOI) => return Err("restart markers are missing"),
            Some(_) => return Err("a marker within the scan that does not belong there"),
            None => return Err("the file ends before its EOI marker"),
        }
        at += next + 2;
    }
}

fn restarts_expected(header: &Header) -> u32 {
    let (h_max, v_max) = if header.component_count == 1 { (1, 1) } else { header.max_sampling() };
    let mcus = header.width.div_ceil(8 * u32::from(h_max)) * header.height.div_ceil(8 * u32::from(v_max));
    match u32::from(header.tables.restart_interval) {
        0 => 0,
        interval => mcus.div_ceil(interval) - 1,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

    /// A 70x50 photo-like image.
    pub(in super::super) fn encode(colour: ColorType, configure: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
        let channels = match colour {
            ColorType::Luma => 1,
            ColorType::Cmyk => 4,
            _ => 3,
        };
        let pixels: Vec<u8> = (0..70 * 50 * channels).map(|i: usize| (i * 7 % 251) as u8).collect();
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 90);
        configure(&mut encoder);
        encoder.encode(&pixels, 70, 50, colour).unwrap();
        bytes
    }

    fn verdict(bytes: &[u8]) -> Result<usize, &'static str> {
        takes(&Header::parse(bytes).unwrap(), bytes)
    }

    #[test]
    fn plain_photos_are_taken_to_their_end() {
        for sampling in
            [SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_0, SamplingFactor::R_4_2_2, SamplingFactor::R_4_4_0]
        {
            for interval in [0, 1, 3] {
                let bytes = encode(ColorType::Rgb, |encoder| {
                    encoder.set_sampling_factor(sampling);
                    encoder.set_restart_interval(interval);
                });
                assert_eq!(verdict(&bytes), Ok(bytes.len()), "{sampling:?} {interval}");
            }
        }
        let grey = encode(ColorType::Luma, |_| {});
        assert_eq!(verdict(&grey), Ok(grey.len()));
    }

    #[test]
    fn what_lies_behind_the_end_is_left_out() {
        let bytes = encode(ColorType::Rgb, |_| {});
        let longer = [&bytes[..], &[0xFF, 0xD8, 0xFF, 1, 2, 3]].concat();
        assert_eq!(verdict(&longer), Ok(bytes.len()));
    }

    #[test]
    fn each_kind_of_file_that_is_for_the_host_is_refused() {
        let progressive = encode(ColorType::Rgb, |encoder| encoder.set_progressive(true));
        assert_eq!(verdict(&progressive), Err("progressive"));
        assert_eq!(verdict(&encode(ColorType::Cmyk, |_| {})), Err("CMYK"));
        // Cb twice as wide as Cr.
        let odd = encode(ColorType::Rgb, |encoder| encoder.set_sampling_factor(SamplingFactor::R_4_2_0));
        let odd = patched(odd, &[0xFF, 0xC0], 14, &[0x21]);
        assert_eq!(verdict(&odd), Err("sampling factors without a name"));
    }

    /// The bytes with those from the first `pattern` on replaced.
    fn patched(mut bytes: Vec<u8>, pattern: &[u8], offset: usize, value: &[u8]) -> Vec<u8> {
        let at = bytes.windows(pattern.len()).position(|window| window == pattern).unwrap() + offset;
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    }

    #[test]
    fn a_frame_or_table_out_of_the_ordinary_is_refused() {
        let plain = || encode(ColorType::Rgb, |encoder| encoder.set_sampling_factor(SamplingFactor::R_4_4_4));
        assert_eq!(verdict(&patched(plain(), &[0xFF, 0xC0], 1, &[0xC1])), Err("extended sequential DCT"));
        assert_eq!(verdict(&patched(plain(), &[0xFF, 0xC0], 1, &[0xC9])), Err("arithmetic coding"));
        let twelve = patched(patched(plain(), &[0xFF, 0xC0], 1, &[0xC1]), &[0xFF, 0xC1], 4, &[12]);
        assert_eq!(verdict(&twelve), Err("samples of more than 8 bits"));
        assert_eq!(
            verdict(&patched(plain(), &[0xFF, 0xDB], 5, &[0])),
            Err("a quantisation table that is missing or not of 8 bits")
        );
        // Three codes of one bit.
        assert_eq!(verdict(&patched(plain(), &[0xFF, 0xC4], 5, &[3, 1, 2])), Err("a Huffman table that is no code"));
    }

    #[test]
    fn a_scan_that_is_cut_or_interrupted_is_refused() {
        let bytes = encode(ColorType::Rgb, |encoder| encoder.set_restart_interval(2));
        let scan = Header::parse(&bytes).unwrap().scan_offset;
        for len in [scan, scan + 1, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1] {
            assert_eq!(verdict(&bytes[..len]), Err("the file ends before its EOI marker"), "{len}");
        }
        let ended = [&bytes[..bytes.len() / 2], &[0, 0xFF, 0xD9]].concat();
        assert_eq!(verdict(&ended), Err("restart markers are missing"));
        let swapped = patched(bytes.clone(), &[0xFF, 0xD1], 1, &[0xD3]);
        assert_eq!(verdict(&swapped), Err("a marker within the scan that does not belong there"));
        let surplus = [&bytes[..bytes.len() - 2], &[0xFF, 0xD7], &bytes[bytes.len() - 2..]].concat();
        assert_eq!(verdict(&surplus), Err("a marker within the scan that does not belong there"));
        let second = [&bytes[..bytes.len() - 2], &[0xFF, 0xDA, 0, 8], &bytes[bytes.len() - 2..]].concat();
        assert_eq!(verdict(&second), Err("a marker within the scan that does not belong there"));
    }

    #[test]
    fn components_that_are_colours_are_for_the_host() {
        let bytes = encode(ColorType::Rgb, |encoder| encoder.set_sampling_factor(SamplingFactor::R_4_4_4));
        // Without JFIF, and with components named R, G and B, a file holds those (as in libjpeg).
        let mut renamed = patched(bytes, b"JFIF", 0, b"jfif");
        for (id, letter) in [(1, b'R'), (2, b'G'), (3, b'B')] {
            let frame = renamed.windows(2).position(|window| window == [0xFF, 0xC0]).unwrap();
            renamed[frame + 10 + 3 * (id - 1)] = letter;
            let scan = renamed.windows(2).position(|window| window == [0xFF, 0xDA]).unwrap();
            renamed[scan + 5 + 2 * (id - 1)] = letter;
        }
        assert_eq!(verdict(&renamed), Err("components that are red, green and blue"));
    }
}
