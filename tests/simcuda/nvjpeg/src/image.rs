//! Files and pixels.

use libjpeg_turbo_rs::{Decoder, PixelFormat};

const SOS: u8 = 0xDA;
const DRI: u8 = 0xDD;

/// Pixels along the inner edges of a region that come out wrong.
const WRONG_EDGE: u32 = 4;

/// What the frame header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The code of the SOF marker.
    pub process: u8,
    /// Bits a sample.
    pub precision: u8,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Horizontal and vertical sampling factors.
    pub sampling: Vec<(u8, u8)>,
    /// Whether a restart interval is defined before the scan.
    pub has_restarts: bool,
}

/// The part of an image that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Frame {
    /// Walks the segments to the scan; none where they are malformed before the frame header has come.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
        let (mut frame, mut has_restarts) = (None, false);
        loop {
            let segment = rest.split_first_chunk().and_then(|(&[marker, code, high, low], behind)| {
                let payload = behind.get(..usize::from(u16::from_be_bytes([high, low])).checked_sub(2)?)?;
                (marker == 0xFF && code != SOS).then_some((code, payload))
            });
            let Some((code, payload)) = segment else { break };
            if (0xC0..=0xCF).contains(&code) && ![0xC4, 0xC8, 0xCC].contains(&code) {
                frame = Some(Self::of(code, payload)?);
            } else if code == DRI {
                has_restarts = payload != [0, 0];
            }
            rest = &rest[4 + payload.len()..];
        }
        frame.map(|frame| Self { has_restarts, ..frame })
    }

    fn of(process: u8, payload: &[u8]) -> Option<Self> {
        let (&[precision, y1, y0, x1, x0, count], components) = payload.split_first_chunk()?;
        let sampling: Vec<_> = components.chunks_exact(3).map(|entry| (entry[1] >> 4, entry[1] & 15)).collect();
        (sampling.len() == usize::from(count)).then_some(Self {
            process,
            precision,
            width: u16::from_be_bytes([x1, x0]).into(),
            height: u16::from_be_bytes([y1, y0]).into(),
            sampling,
            has_restarts: false,
        })
    }

    /// Why such a file must not get here at all.
    pub fn fault(&self, bytes: &[u8]) -> Option<String> {
        if !bytes.ends_with(&[0xFF, 0xD9]) {
            return Some("it does not end with an EOI marker".into());
        }
        if self.process != 0xC0 || self.precision != 8 || ![1, 3].contains(&self.sampling.len()) {
            return Some(format!(
                "SOF{}, {} bits, {} components",
                self.process - 0xC0,
                self.precision,
                self.sampling.len()
            ));
        }
        None
    }

    /// Whether the hardware decodes it: neither 4:1:1 nor 4:1:0.
    pub fn suits_hardware(&self) -> bool {
        self.process == 0xC0 && self.sampling.first().is_some_and(|&(h, _)| h < 4)
    }

    /// All of the image.
    pub fn whole(&self) -> Region {
        Region { x: 0, y: 0, width: self.width, height: self.height }
    }
}

/// Decodes a region into planes of red, green and blue, one behind the other; none for a corrupt file. `salt` tells the
/// backends' rounding apart.
pub fn decode(bytes: &[u8], region: Region, interpolate: bool, salt: u32) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(bytes).ok()?;
    decoder.set_output_format(PixelFormat::Rgb);
    decoder.set_fast_upsample(!interpolate);
    let image = decoder.decode_image().ok()?;
    let (width, height) = (image.width as u32, image.height as u32);
    if region.x + region.width > width || region.y + region.height > height || image.data.len() < image.width * 3 {
        return None;
    }
    let mut planes = Vec::with_capacity((region.width * region.height * 3) as usize);
    for channel in 0..3 {
        for y in region.y..region.y + region.height {
            for x in region.x..region.x + region.width {
                let exact = image.data[((y * width + x) * 3 + channel) as usize];
                let error = if is_edge(region, (width, height), (x, y)) { 64 } else { rounding(x, y, channel, salt) };
                planes.push((i32::from(exact) + error).clamp(0, 255) as u8);
            }
        }
    }
    Some(planes)
}

/// Whether a pixel lies along an edge of the region that is not one of the image.
fn is_edge(region: Region, (width, height): (u32, u32), (x, y): (u32, u32)) -> bool {
    let along = |at: u32, start: u32, len: u32, limit: u32| {
        (start > 0 && at < start + WRONG_EDGE) || (start + len < limit && at >= start + len - WRONG_EDGE)
    };
    along(x, region.x, region.width, width) || along(y, region.y, region.height, height)
}

/// How far a sample is off, by its place.
fn rounding(x: u32, y: u32, channel: u32, salt: u32) -> i32 {
    let mut hash =
        (x.wrapping_mul(0x9E37_79B9) ^ y.wrapping_mul(0x85EB_CA6B)) ^ (channel * 4 + salt).wrapping_mul(0xC2B2_AE35);
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(0x2C1B_3C6D);
    hash ^= hash >> 12;
    match hash % 64 {
        0 => 3,
        1..=8 => 1,
        9..=16 => -1,
        _ => 0,
    }
}
