//! Sixteen samples at a time, in 16 bits.

use std::arch::x86_64::*;

#[target_feature(enable = "avx2")]
pub fn h2v1(row: &[u8], count: usize, out: &mut [u8]) {
    for i in (0..count).step_by(16) {
        let row = &row[i..i + 18];
        let samples = triangle::<2>(widen(&row[..16]), widen(&row[1..17]), widen(&row[2..18]), 1, 2);
        store(&mut out[2 * i..2 * i + 32], samples);
    }
}

#[target_feature(enable = "avx2")]
pub fn h1v2(near: &[u8], far: &[u8], bias: u8, count: usize, out: &mut [u8]) {
    let bias = _mm256_set1_epi16(bias.into());
    for i in (0..count).step_by(16) {
        let sum = _mm256_add_epi16(three_to_one(&near[i..i + 16], &far[i..i + 16]), bias);
        let samples = _mm256_srli_epi16::<2>(sum);
        let samples = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(samples, samples));
        let out = &mut out[i..i + 16];
        // SAFETY: the slice was just checked to hold 16 bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_castsi256_si128(samples)) }
    }
}

#[target_feature(enable = "avx2")]
pub fn h2v2(near: &[u8], far: &[u8], count: usize, out: &mut [u8]) {
    for i in (0..count).step_by(16) {
        let (near, far) = (&near[i..i + 18], &far[i..i + 18]);
        let left = three_to_one(&near[..16], &far[..16]);
        let here = three_to_one(&near[1..17], &far[1..17]);
        let right = three_to_one(&near[2..18], &far[2..18]);
        store(&mut out[2 * i..2 * i + 32], triangle::<4>(left, here, right, 8, 7));
    }
}

/// Two outputs for each of 16 inputs, interleaved.
#[target_feature(enable = "avx2")]
#[inline]
fn triangle<const SHIFT: i32>(left: __m256i, here: __m256i, right: __m256i, even: i16, odd: i16) -> __m256i {
    let three = _mm256_add_epi16(_mm256_add_epi16(here, here), here);
    let even = _mm256_add_epi16(_mm256_add_epi16(three, left), _mm256_set1_epi16(even));
    let odd = _mm256_add_epi16(_mm256_add_epi16(three, right), _mm256_set1_epi16(odd));
    let odd = _mm256_slli_epi16::<8>(_mm256_srli_epi16::<SHIFT>(odd));
    _mm256_or_si256(_mm256_srli_epi16::<SHIFT>(even), odd)
}

#[target_feature(enable = "avx2")]
#[inline]
fn three_to_one(near: &[u8], far: &[u8]) -> __m256i {
    let near = widen(near);
    _mm256_add_epi16(_mm256_add_epi16(near, near), _mm256_add_epi16(near, widen(far)))
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
fn store(out: &mut [u8], samples: __m256i) {
    let out = &mut out[..32];
    // SAFETY: the slice was just checked to hold 32 bytes.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), samples) }
}
