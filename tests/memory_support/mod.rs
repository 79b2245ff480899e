//! Images of any size in a few bytes, each of which a library decodes as a whole.
#![allow(dead_code, reason = "every test binary uses its own part")]

/// A progressive JPEG of one colour, 4:4:4: a DC scan whose differences are all 0, a bit each.
pub fn flat_progressive(width: u16, height: u16, components: u8) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8];
    let mut segment = |marker: u8, payload: &[u8]| {
        bytes.extend([0xFF, marker]);
        bytes.extend((payload.len() as u16 + 2).to_be_bytes());
        bytes.extend(payload);
    };
    segment(0xDB, &[&[0][..], &[1; 64]].concat());
    let mut frame = vec![8];
    frame.extend(height.to_be_bytes());
    frame.extend(width.to_be_bytes());
    frame.push(components);
    (1..=components).for_each(|id| frame.extend([id, 0x11, 0]));
    segment(0xC2, &frame);
    // One code, of one bit, for the difference 0.
    segment(0xC4, &[&[0, 1][..], &[0; 15], &[0]].concat());
    let mut scan = vec![components];
    (1..=components).for_each(|id| scan.extend([id, 0]));
    scan.extend([0, 0, 0]);
    segment(0xDA, &scan);
    let blocks = usize::from(width.div_ceil(8)) * usize::from(height.div_ceil(8)) * usize::from(components);
    bytes.resize(bytes.len() + blocks / 8, 0);
    // What is left of the last byte are ones.
    if !blocks.is_multiple_of(8) {
        bytes.push(0xFF >> (blocks % 8));
    }
    bytes.extend([0xFF, 0xD9]);
    bytes
}

/// A baseline JPEG of one colour, 4:4:4, whose components lie in scans of their own, so that our decoder holds all of their
/// samples: blocks of a DC difference of 0 and an end, a bit each.
pub fn flat_planes(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8];
    let segment = |bytes: &mut Vec<u8>, marker: u8, payload: &[u8]| {
        bytes.extend([0xFF, marker]);
        bytes.extend((payload.len() as u16 + 2).to_be_bytes());
        bytes.extend(payload);
    };
    segment(&mut bytes, 0xDB, &[&[0][..], &[1; 64]].concat());
    let frame = [&[8][..], &height.to_be_bytes(), &width.to_be_bytes(), &[3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]];
    segment(&mut bytes, 0xC0, &frame.concat());
    segment(&mut bytes, 0xC4, &[&[0, 1][..], &[0; 15], &[0]].concat());
    segment(&mut bytes, 0xC4, &[&[0x10, 1][..], &[0; 15], &[0]].concat());
    let bits = usize::from(width.div_ceil(8)) * usize::from(height.div_ceil(8)) * 2;
    for id in 1..=3 {
        segment(&mut bytes, 0xDA, &[1, id, 0, 0, 63, 0]);
        bytes.resize(bytes.len() + bits / 8, 0);
        if !bits.is_multiple_of(8) {
            bytes.push(0xFF >> (bits % 8));
        }
    }
    bytes.extend([0xFF, 0xD9]);
    bytes
}

/// A WebP whose frame is larger than it says to be itself.
pub fn webp_with_large_frame() -> Vec<u8> {
    let mut bytes = vec![];
    bytes.extend(b"RIFF\x2C\0\0\0WEBPVP8X\x0A\0\0\0");
    bytes.extend([0, 0, 0, 0, 9, 0, 0, 9, 0, 0]);
    bytes.extend(b"VP8 \x0A\0\0\0");
    bytes.extend([0x10, 0, 0, 0x9D, 0x01, 0x2A, 0xFF, 0x3F, 0xFF, 0x3F]);
    bytes
}

/// A PNG of one level of grey.
pub fn flat_png(width: u32, height: u32) -> Vec<u8> {
    use image::ImageEncoder;
    let mut bytes = vec![];
    let levels = vec![90; width as usize * height as usize];
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&levels, width, height, image::ExtendedColorType::L8)
        .expect("PNG");
    bytes
}

/// A lossless WebP of one colour: five codes of one symbol each, of no bits a pixel.
pub fn flat_webp(width: u32, height: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0x2F, 8);
    bits.put(width - 1, 14);
    bits.put(height - 1, 14);
    bits.put(0, 4); // No alpha, version 0.
    bits.put(0, 3); // No transform, no cache, one group of codes.
    for symbol in [60, 120, 30, 255, 0] {
        bits.put(0b101, 3); // A simple code, of one symbol, of 8 bits.
        bits.put(symbol, 8);
    }
    let stream = bits.bytes;
    let mut bytes = vec![];
    bytes.extend(b"RIFF");
    let padded = stream.len().next_multiple_of(2);
    bytes.extend((padded as u32 + 12).to_le_bytes());
    bytes.extend(b"WEBPVP8L");
    bytes.extend((stream.len() as u32).to_le_bytes());
    bytes.extend(&stream);
    bytes.resize(20 + padded, 0);
    bytes
}

/// Bits, the lowest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn put(&mut self, value: u32, count: usize) {
        for bit in 0..count {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) as u8) << (self.count % 8);
            self.count += 1;
        }
    }
}
