//! Sixteen pixels at a time, in 16 bits.
//!
//! The factors over 1 are split: 1.402 = 1 + 0.402 and 1.772 = 2 - 0.228, whose products with doubled
//! differences fit the high half of a 16-bit multiplication, then are halved and rounded.

use std::arch::x86_64::*;

#[target_feature(enable = "avx2")]
pub fn ycbcr_to_rgb([luma, cb, cr]: [&[u8]; 3], [red, green, blue]: [&mut [u8]; 3], width: usize) {
    for x in (0..width).step_by(16) {
        let pixels = x..x + 16;
        let rgb = pixel(widen(&luma[pixels.clone()]), widen(&cb[pixels.clone()]), widen(&cr[pixels.clone()]));
        store(&mut red[pixels.clone()], rgb[0]);
        store(&mut green[pixels.clone()], rgb[1]);
        store(&mut blue[pixels], rgb[2]);
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn pixel(y: __m256i, cb: __m256i, cr: __m256i) -> [__m256i; 3] {
    let centre = _mm256_set1_epi16(128);
    let (cb, cr) = (_mm256_sub_epi16(cb, centre), _mm256_sub_epi16(cr, centre));
    let (cb2, cr2) = (_mm256_add_epi16(cb, cb), _mm256_add_epi16(cr, cr));
    // 0.402 and -0.228 in 16 fraction bits.
    let red = _mm256_add_epi16(cr, halve(_mm256_mulhi_epi16(cr2, _mm256_set1_epi16(26345))));
    let blue = _mm256_add_epi16(cb2, halve(_mm256_mulhi_epi16(cb2, _mm256_set1_epi16(-14942))));
    // -0.34414 cb + (1 - 0.71414) cr, in full, and cr taken off again.
    let factors = _mm256_set1_epi32((-22554_i32 & 0xFFFF) | 18734 << 16);
    let half = _mm256_set1_epi32(1 << 15);
    let green = |pairs| _mm256_srai_epi32::<16>(_mm256_add_epi32(_mm256_madd_epi16(pairs, factors), half));
    let (low, high) = (_mm256_unpacklo_epi16(cb, cr), _mm256_unpackhi_epi16(cb, cr));
    let green = _mm256_sub_epi16(_mm256_packs_epi32(green(low), green(high)), cr);
    [_mm256_add_epi16(y, red), _mm256_add_epi16(y, green), _mm256_add_epi16(y, blue)]
}

#[target_feature(enable = "avx2")]
#[inline]
fn halve(value: __m256i) -> __m256i {
    _mm256_srai_epi16::<1>(_mm256_add_epi16(value, _mm256_set1_epi16(1)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn widen(samples: &[u8]) -> __m256i {
    let samples = &samples[..16];
    // SAFETY: the slice was just checked to hold 16 bytes.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(samples.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(out: &mut [u8], values: __m256i) {
    let out = &mut out[..16];
    let samples = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(values, values));
    // SAFETY: the slice was just checked to hold 16 bytes.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_castsi256_si128(samples)) }
}
