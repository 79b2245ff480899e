//! Two blocks at a time, one in each half of the registers.

use std::arch::x86_64::*;

use super::super::avx2::madd;
use super::*;

#[target_feature(enable = "avx2")]
pub fn blocks_4x4(blocks: &[Block], quant: &QuantTable, out: &mut [u8], stride: usize) {
    for (i, pair) in blocks.chunks(2).enumerate() {
        let out = &mut out[8 * i..];
        let x = [0, 1, 2, 3, 5, 6, 7].map(|y| load(pair, quant, y));
        // Where a first row would overflow by two bits, the short cut for blocks of one row comes out differently.
        let shifted = _mm256_srai_epi16(_mm256_slli_epi16(x[0], PASS1_BITS as i32), PASS1_BITS as i32);
        if _mm256_movemask_epi8(_mm256_cmpeq_epi16(shifted, x[0])) != -1 {
            scalar::blocks_to_rows(4, pair, quant, out, stride);
            continue;
        }
        let samples = pair_4x4(x);
        let (first, second) = (_mm256_castsi256_si128(samples), _mm256_extracti128_si256::<1>(samples));
        let rows = [_mm_unpacklo_epi32(first, second), _mm_unpackhi_epi32(first, second)];
        for (y, rows) in rows.into_iter().enumerate() {
            out[2 * y * stride..][..8].copy_from_slice(&_mm_cvtsi128_si64(rows).to_le_bytes());
            out[(2 * y + 1) * stride..][..8].copy_from_slice(&_mm_extract_epi64::<1>(rows).to_le_bytes());
        }
    }
}

#[target_feature(enable = "avx2")]
pub fn blocks_2x2(blocks: &[Block], quant: &QuantTable, out: &mut [u8], stride: usize) {
    for (i, pair) in blocks.chunks(2).enumerate() {
        let samples = pair_2x2([0, 1, 3, 5, 7].map(|y| load(pair, quant, y)));
        let (first, second) = (_mm256_castsi256_si128(samples), _mm256_extracti128_si256::<1>(samples));
        let rows = _mm_cvtsi128_si64(_mm_unpacklo_epi16(first, second)).to_le_bytes();
        out[4 * i..][..4].copy_from_slice(&rows[..4]);
        out[4 * i + stride..][..4].copy_from_slice(&rows[4..]);
    }
}

/// Row `y` of one or two blocks, dequantised.
#[target_feature(enable = "avx2")]
#[inline]
fn load(pair: &[Block], quant: &QuantTable, y: usize) -> __m256i {
    let (first, second) = (&pair[0], &pair[pair.len() - 1]);
    // SAFETY: 8 values of 16 bits at 8 * y <= 56 lie inside the 64 of a block and of a table.
    let (coefficients, divisors) = unsafe {
        let load = |values: *const i16| _mm_loadu_si128(values.add(8 * y).cast());
        (
            _mm256_set_m128i(load(second.0.as_ptr()), load(first.0.as_ptr())),
            _mm256_broadcastsi128_si256(load(quant.0.as_ptr().cast())),
        )
    };
    _mm256_mullo_epi16(coefficients, divisors)
}

/// From rows 0, 1, 2, 3, 5, 6 and 7 to sixteen samples, row by row, in each half.
#[target_feature(enable = "avx2")]
#[inline]
fn pair_4x4([x0, x1, x2, x3, x5, x6, x7]: [__m256i; 7]) -> __m256i {
    const SHIFT_1: i32 = (CONST_BITS - PASS1_BITS + 1) as i32;
    const SHIFT_2: i32 = (CONST_BITS + PASS1_BITS + 3 + 1) as i32;
    let zero = _mm256_setzero_si256();
    let low = to_four::<SHIFT_1>(
        _mm256_unpacklo_epi16(zero, x0),
        _mm256_unpacklo_epi16(x2, x6),
        _mm256_unpacklo_epi16(x1, x3),
        _mm256_unpacklo_epi16(x5, x7),
    );
    let high = to_four::<SHIFT_1>(
        _mm256_unpackhi_epi16(zero, x0),
        _mm256_unpackhi_epi16(x2, x6),
        _mm256_unpackhi_epi16(x1, x3),
        _mm256_unpackhi_epi16(x5, x7),
    );
    let [r0, r1, r2, r3] = [0, 1, 2, 3].map(|y| _mm256_packs_epi32(low[y], high[y]));
    // Four rows of eight columns become two columns a register, four rows each.
    let (a, b) = (_mm256_unpacklo_epi16(r0, r1), _mm256_unpacklo_epi16(r2, r3));
    let (c01, c23) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (a, b) = (_mm256_unpackhi_epi16(r0, r1), _mm256_unpackhi_epi16(r2, r3));
    let (c45, c67) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let [c0, c1, c2, c3] = to_four::<SHIFT_2>(
        _mm256_unpacklo_epi16(zero, c01),
        _mm256_unpacklo_epi16(c23, c67),
        _mm256_unpackhi_epi16(c01, c23),
        _mm256_unpackhi_epi16(c45, c67),
    );
    let (even, odd) = (_mm256_packs_epi32(c0, c2), _mm256_packs_epi32(c1, c3));
    let (left, right) = (_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd));
    to_samples(_mm256_unpacklo_epi32(left, right), _mm256_unpackhi_epi32(left, right))
}

/// One dimension of four lines of each block, in 32 bits. The first input is in the upper halves of the lanes,
/// the others are interleaved.
#[target_feature(enable = "avx2")]
#[inline]
fn to_four<const SHIFT: i32>(x0: __m256i, x26: __m256i, x13: __m256i, x57: __m256i) -> [__m256i; 4] {
    const UPPER_TO_FIXED: i32 = 16 - CONST_BITS as i32 - 1;
    let rounding = _mm256_set1_epi32(1 << (SHIFT - 1));
    let t0 = _mm256_add_epi32(_mm256_srai_epi32::<UPPER_TO_FIXED>(x0), rounding);
    let t2 = madd(x26, F_1_847, -F_0_765);
    let (high, low) = (_mm256_add_epi32(t0, t2), _mm256_sub_epi32(t0, t2));
    let outer = _mm256_add_epi32(madd(x13, F_2_562, F_0_899), madd(x57, -F_0_601, -F_0_509));
    let inner = _mm256_add_epi32(madd(x13, F_1_061, -F_2_172), madd(x57, F_1_451, -F_0_211));
    [
        _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(high, outer)),
        _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(low, inner)),
        _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(low, inner)),
        _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(high, outer)),
    ]
}

/// From rows 0, 1, 3, 5 and 7 to four samples, row by row, at the start of each half.
#[target_feature(enable = "avx2")]
#[inline]
fn pair_2x2([x0, x1, x3, x5, x7]: [__m256i; 5]) -> __m256i {
    let zero = _mm256_setzero_si256();
    let (top_low, bottom_low) =
        to_two(_mm256_unpacklo_epi16(zero, x0), _mm256_unpacklo_epi16(x1, x3), _mm256_unpacklo_epi16(x5, x7));
    let (top_high, bottom_high) =
        to_two(_mm256_unpackhi_epi16(zero, x0), _mm256_unpackhi_epi16(x1, x3), _mm256_unpackhi_epi16(x5, x7));
    let columns_1357 = |row| {
        let (f1, f3, f5, f7) = (F_3_624, -F_1_272, F_0_850, -F_0_720);
        _mm256_madd_epi16(row, _mm256_setr_epi16(0, f1, 0, f3, 0, f5, 0, f7, 0, f1, 0, f3, 0, f5, 0, f7))
    };
    let top = columns_1357(_mm256_packs_epi32(top_low, top_high));
    let bottom = columns_1357(_mm256_packs_epi32(bottom_low, bottom_high));
    let odd = _mm256_hadd_epi32(top, bottom);
    let odd = _mm256_hadd_epi32(odd, odd);
    // The first column alone does not pass through 16 bits.
    let even = _mm256_slli_epi32::<{ CONST_BITS as i32 + 2 }>(_mm256_unpacklo_epi32(top_low, bottom_low));
    const SHIFT: i32 = (CONST_BITS + PASS1_BITS + 3 + 2) as i32;
    let even = _mm256_add_epi32(even, _mm256_set1_epi32(1 << (SHIFT - 1)));
    let rows = _mm256_unpacklo_epi32(_mm256_add_epi32(even, odd), _mm256_sub_epi32(even, odd));
    let rows = _mm256_srai_epi32::<SHIFT>(rows);
    let rows = _mm256_packs_epi32(rows, rows);
    to_samples(rows, rows)
}

/// One dimension of four lines of each block, in 32 bits, its inputs as those of [`to_four`].
#[target_feature(enable = "avx2")]
#[inline]
fn to_two(x0: __m256i, x13: __m256i, x57: __m256i) -> (__m256i, __m256i) {
    const UPPER_TO_FIXED: i32 = 16 - CONST_BITS as i32 - 2;
    const SHIFT: i32 = (CONST_BITS - PASS1_BITS + 2) as i32;
    let even = _mm256_add_epi32(_mm256_srai_epi32::<UPPER_TO_FIXED>(x0), _mm256_set1_epi32(1 << (SHIFT - 1)));
    let odd = _mm256_add_epi32(madd(x13, F_3_624, -F_1_272), madd(x57, F_0_850, -F_0_720));
    (_mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(even, odd)), _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(even, odd)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn to_samples(low: __m256i, high: __m256i) -> __m256i {
    _mm256_xor_si256(_mm256_packs_epi16(low, high), _mm256_set1_epi8(-128))
}
