//! The inverse DCT that makes fewer samples of a block: 4x4, 2x2 or 1x1 from its lower frequencies, in the
//! arithmetic of libjpeg's jidctred.c, which is that of the full one.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

use super::*;

/// As [`blocks_to_rows`](super::blocks_to_rows), whose checks have passed, for a `side` of 4, 2 or 1.
pub fn blocks_to_rows(simd: Simd, side: usize, blocks: &[Block], quant: &QuantTable, out: &mut [u8], stride: usize) {
    match (side, simd.level()) {
        (1, _) => averages(blocks, quant, out),
        (_, Level::Scalar) => scalar::blocks_to_rows(side, blocks, quant, out, stride),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where its instructions do.
        (2, Level::Avx2) => unsafe { avx2::blocks_2x2(blocks, quant, out, stride) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where its instructions do.
        (_, Level::Avx2) => unsafe { avx2::blocks_4x4(blocks, quant, out, stride) },
    }
}

/// One sample a block, its average. libjpeg-turbo has no SIMD code for it, so that the product is exact and
/// what lies outside the range of samples is looked up modulo 1024 (jdmaster.c, `prepare_range_limit_table`).
fn averages(blocks: &[Block], quant: &QuantTable, out: &mut [u8]) {
    let divisor = i32::from(quant.0[0] as i16);
    for (block, out) in blocks.iter().zip(out) {
        let average = (i32::from(block.0[0]) * divisor + 4) >> 3;
        *out = (((average & 1023) ^ 512) - 512 + 128).clamp(0, 255) as u8;
    }
}

const F_0_211: i16 = 1730;
const F_0_509: i16 = 4176;
const F_0_601: i16 = 4926;
const F_0_720: i16 = 5906;
const F_0_850: i16 = 6967;
const F_1_061: i16 = 8697;
const F_1_272: i16 = 10426;
const F_1_451: i16 = 11893;
const F_2_172: i16 = 17799;
const F_3_624: i16 = 29692;

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that libjpeg looks samples up in, written down: 128..=255, 255s, 0s, 0..=127.
    #[test]
    fn averages_out_of_range_wrap_as_in_libjpeg() {
        let quant = QuantTable([8; 64]);
        for value in -4096..4096_i16 {
            let mut block = Block::ZERO;
            block.0[0] = value;
            let mut out = [0];
            averages(&[block], &quant, &mut out);
            let expected = match value.rem_euclid(1024) {
                at @ 0..128 => at + 128,
                128..512 => 255,
                512..896 => 0,
                at => at - 896,
            };
            assert_eq!(i16::from(out[0]), expected, "{value}");
        }
    }

    /// A block that is flat at full size is as flat, and of the same value, at every size.
    #[test]
    fn flat_blocks_are_flat_at_every_size() {
        let quant = QuantTable([3; 64]);
        for dc in -400..400 {
            let mut block = Block::ZERO;
            block.0[0] = dc;
            for side in [4, 2, 1] {
                let mut out = [0x55; 4 * 16];
                super::blocks_to_rows(Simd::SCALAR, side, &[block], &quant, &mut out, 16);
                for row in out.chunks(16).take(side) {
                    assert!(row[..side].iter().all(|&sample| sample == flat_sample(&block, &quant)), "{dc} {side}");
                }
            }
        }
    }
}
