//! The inner loops for AVX-512, sixteen lanes at a time.

use std::arch::x86_64::*;

use bytemuck::Pod;

use super::super::taps::Taps;
use super::{SLACK, scalar};

/// # Safety
///
/// The processor has AVX-512 F, and what [`Isa::resample_down`](super::Isa) asserts holds.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn resample_down(ring: &[u8], plane: usize, taps: &[(usize, f32)], output: &mut [f32]) {
    for x in (0..output.len()).step_by(SLACK) {
        let mut sums = [_mm512_setzero_ps(); SLACK / 16];
        for &(start, weight) in taps {
            let weight = _mm512_set1_ps(weight);
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: start + plane + output.len() is within the ring, and x + SLACK within the output.
                let pixels = unsafe { _mm_loadu_si128(ring.as_ptr().add(start + plane + x + i * 16).cast()) };
                let pixels = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(pixels));
                *sum = _mm512_fmadd_ps(weight, pixels, *sum);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            // SAFETY: the output is a multiple of SLACK long.
            unsafe { _mm512_storeu_ps(output.as_mut_ptr().add(x + i * 16), sum) };
        }
    }
}

/// # Safety
///
/// The processor has AVX-512 F, and what [`Isa::resample_across`](super::Isa) asserts holds.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn resample_across(
    columns: [&[f32]; 3],
    taps: &Taps,
    affine: &[(f32, f32); 3],
    outputs: [&mut [f32]; 3],
) {
    let len = outputs[0].len();
    let outputs = outputs.map(|output| output.as_mut_ptr());
    for i in (0..len).step_by(16) {
        let (one_end, other_end) = (taps.first[i], taps.first[i + 15]);
        let lowest = one_end.min(other_end) as usize;
        let span = one_end.max(other_end) as usize - lowest + taps.count_max;
        // SAFETY: tables are padded to sixteen outputs. First taps rise or fall along the outputs, so all
        // sixteen lie between the two ends, and every tap from `lowest` within `span`. A plane of columns
        // reaches `count_max + SLACK` past the source, so that wherever a tap is, 64 columns from `lowest`
        // and all taps of a gather are within it.
        let sums = unsafe {
            match span {
                0..=32 => permuted::<2>(columns, taps, i, lowest),
                33..=64 => permuted::<4>(columns, taps, i, lowest),
                _ => gathered(columns, taps, i),
            }
        };
        let mask = if len - i >= 16 { 0xffff } else { (1u16 << (len - i)) - 1 };
        for channel in 0..3 {
            let (factor, addend) = affine[channel];
            let values = _mm512_fmadd_ps(sums[channel], _mm512_set1_ps(factor), _mm512_set1_ps(addend));
            // SAFETY: the mask stores only lanes below `len`, the length of every output.
            unsafe { _mm512_mask_storeu_ps(outputs[channel].add(i), mask, values) };
        }
    }
}

/// Sums for sixteen outputs whose taps all lie in `16 * VECTORS` columns from `lowest`, which are loaded
/// once and picked from by permutation.
///
/// # Safety
///
/// The processor has AVX-512 F; `16 * VECTORS` columns from `lowest` exist, and outputs `i` to `i + 15`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn permuted<const VECTORS: usize>(columns: [&[f32]; 3], taps: &Taps, i: usize, lowest: usize) -> [__m512; 3] {
    // SAFETY: the caller's.
    unsafe {
        let first = _mm512_loadu_si512(taps.first.as_ptr().add(i).cast());
        let mut index = _mm512_sub_epi32(first, _mm512_set1_epi32(lowest as i32));
        let sources = columns.map(|columns| -> [__m512; VECTORS] {
            std::array::from_fn(|vector| _mm512_loadu_ps(columns.as_ptr().add(lowest + vector * 16)))
        });
        let mut sums = [_mm512_setzero_ps(); 3];
        for tap in 0..taps.count_max {
            let weight = _mm512_loadu_ps(taps.weights.as_ptr().add(tap * taps.stride + i));
            // A permutation looks at the low five bits of an index: the sixth chooses between two of them.
            let upper = if VECTORS == 4 { _mm512_test_epi32_mask(index, _mm512_set1_epi32(32)) } else { 0 };
            for (sum, source) in sums.iter_mut().zip(&sources) {
                let mut values = _mm512_permutex2var_ps(source[0], index, source[1]);
                if VECTORS == 4 {
                    let others = _mm512_permutex2var_ps(source[2], index, source[3]);
                    values = _mm512_mask_mov_ps(values, upper, others);
                }
                *sum = _mm512_fmadd_ps(weight, values, *sum);
            }
            index = _mm512_add_epi32(index, _mm512_set1_epi32(1));
        }
        sums
    }
}

/// Sums for sixteen outputs whose taps lie far apart.
///
/// # Safety
///
/// The processor has AVX-512 F; every tap of outputs `i` to `i + 15` lies within every plane.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn gathered(columns: [&[f32]; 3], taps: &Taps, i: usize) -> [__m512; 3] {
    // SAFETY: the caller's.
    unsafe {
        let mut index = _mm512_loadu_si512(taps.first.as_ptr().add(i).cast());
        let mut sums = [_mm512_setzero_ps(); 3];
        for tap in 0..taps.count_max {
            let weight = _mm512_loadu_ps(taps.weights.as_ptr().add(tap * taps.stride + i));
            for (sum, columns) in sums.iter_mut().zip(columns) {
                *sum = _mm512_fmadd_ps(weight, _mm512_i32gather_ps::<4>(index, columns.as_ptr()), *sum);
            }
            index = _mm512_add_epi32(index, _mm512_set1_epi32(1));
        }
        sums
    }
}

/// # Safety
///
/// The processor has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) unsafe fn cast_u8(values: &[f32], output: &mut [u8]) {
    scalar::cast_u8(values, output);
}

/// # Safety
///
/// The processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn cast_f16(values: &[f32], output: &mut [u16]) {
    let (value_blocks, values) = values.as_chunks::<16>();
    let (output_blocks, output) = output.as_chunks_mut::<16>();
    for (values, output) in value_blocks.iter().zip(output_blocks) {
        // SAFETY: both are sixteen elements long.
        unsafe {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_loadu_ps(values.as_ptr()));
            _mm256_storeu_si256(output.as_mut_ptr().cast(), halves);
        }
    }
    scalar::cast_f16(values, output);
}

/// # Safety
///
/// The processor has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) unsafe fn cast_bf16(values: &[f32], output: &mut [u16]) {
    scalar::cast_bf16(values, output);
}

/// # Safety
///
/// The processor has AVX-512 F, BW and VL, and what [`Isa::interleave`](super::Isa) asserts holds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) unsafe fn interleave<T: Pod>(planes: [&[T]; 3], output: &mut [T]) {
    let mut done = 0;
    if size_of::<T>() == size_of::<f32>() {
        done = planes[0].len() / 16 * 16;
        let [red, green, blue] = planes.map(|plane| plane.as_ptr().cast::<f32>());
        // SAFETY: T is Pod and as large as a float, so its bits may pass through one; the first `done`
        // elements exist in every plane, and three times as many in the output.
        unsafe { interleave_words(red, green, blue, done, output.as_mut_ptr().cast()) };
    }
    scalar::interleave(planes.map(|plane| &plane[done..]), &mut output[3 * done..]);
}

/// Lane `i` of vector `v` of an interleaved triple is pixel `(16 v + i) / 3`'s channel `(16 v + i) % 3`:
/// where to pick it in red and green together, which lanes are blue, and where to pick those.
const PICKS: [([i32; 16], u16, [i32; 16]); 3] = {
    let mut picks = [([0; 16], 0, [0; 16]); 3];
    let mut at = 0;
    while at < 48 {
        let (vector, lane, pixel) = (at / 16, at % 16, (at / 3) as i32);
        match at % 3 {
            0 => picks[vector].0[lane] = pixel,
            1 => picks[vector].0[lane] = 16 + pixel,
            _ => {
                picks[vector].1 |= 1 << lane;
                picks[vector].2[lane] = pixel;
            }
        }
        at += 1;
    }
    picks
};

/// # Safety
///
/// The processor has AVX-512 F; `len`, a multiple of sixteen, elements are readable at each plane, and
/// three times as many writable at `output`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn interleave_words(red: *const f32, green: *const f32, blue: *const f32, len: usize, output: *mut f32) {
    for i in (0..len).step_by(16) {
        // SAFETY: the caller's.
        unsafe {
            let (red, green) = (_mm512_loadu_ps(red.add(i)), _mm512_loadu_ps(green.add(i)));
            let blue = _mm512_loadu_ps(blue.add(i));
            for (vector, (both, is_blue, third)) in PICKS.iter().enumerate() {
                let values = _mm512_permutex2var_ps(red, _mm512_loadu_si512(both.as_ptr().cast()), green);
                let third = _mm512_loadu_si512(third.as_ptr().cast());
                let values = _mm512_mask_permutexvar_ps(values, *is_blue, third, blue);
                _mm512_storeu_ps(output.add(3 * i + vector * 16), values);
            }
        }
    }
}
