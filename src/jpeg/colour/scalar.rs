//! The specification (jdcolor.c, `ycc_rgb_convert`).

/// 1.40200, 0.34414, 0.71414 and 1.77200 in 16 fraction bits.
const CR_TO_R: i32 = 91881;
const CB_TO_G: i32 = -22554;
const CR_TO_G: i32 = -46802;
const CB_TO_B: i32 = 116130;
const HALF: i32 = 1 << 15;

pub fn ycbcr_to_rgb([luma, cb, cr]: [&[u8]; 3], [red, green, blue]: [&mut [u8]; 3], width: usize) {
    for x in 0..width {
        let (y, cb, cr) = (i32::from(luma[x]), i32::from(cb[x]) - 128, i32::from(cr[x]) - 128);
        red[x] = clamp(y + ((CR_TO_R * cr + HALF) >> 16));
        green[x] = clamp(y + ((CB_TO_G * cb + CR_TO_G * cr + HALF) >> 16));
        blue[x] = clamp(y + ((CB_TO_B * cb + HALF) >> 16));
    }
}

fn clamp(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}
