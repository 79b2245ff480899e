//! The inner loops for AVX2, FMA and F16C, eight lanes at a time.

use std::arch::x86_64::*;

use bytemuck::Pod;

use super::super::taps::Taps;
use super::scalar;

/// # Safety
///
/// The processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn resample_down(ring: &[u8], plane: usize, taps: &[(usize, f32)], output: &mut [f32]) {
    scalar::resample_down(ring, plane, taps, output);
}

/// # Safety
///
/// The processor has AVX2 and FMA, and what [`Isa::resample_across`](super::Isa) asserts holds.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn resample_across(
    columns: [&[f32]; 3],
    taps: &Taps,
    affine: &[(f32, f32); 3],
    outputs: [&mut [f32]; 3],
) {
    let len = outputs[0].len();
    let outputs = outputs.map(|output| output.as_mut_ptr());
    for i in (0..len).step_by(8) {
        // SAFETY: tables are padded to 16 outputs, so eight from a multiple of eight below `len` exist.
        // A tap lies below source_len + count_max, within every plane of columns.
        let sums = unsafe {
            let mut index = _mm256_loadu_si256(taps.first.as_ptr().add(i).cast());
            let mut sums = [_mm256_setzero_ps(); 3];
            for tap in 0..taps.count_max {
                let weight = _mm256_loadu_ps(taps.weights.as_ptr().add(tap * taps.stride + i));
                for (sum, columns) in sums.iter_mut().zip(columns) {
                    *sum = _mm256_fmadd_ps(weight, _mm256_i32gather_ps::<4>(columns.as_ptr(), index), *sum);
                }
                index = _mm256_add_epi32(index, _mm256_set1_epi32(1));
            }
            sums
        };
        for channel in 0..3 {
            let (factor, addend) = affine[channel];
            let values = _mm256_fmadd_ps(sums[channel], _mm256_set1_ps(factor), _mm256_set1_ps(addend));
            // SAFETY: the mask stores only lanes below `len`, the length of every output.
            unsafe { _mm256_maskstore_ps(outputs[channel].add(i), lanes_below(len - i), values) };
        }
    }
}

/// A mask of the lanes below `count`.
#[target_feature(enable = "avx2")]
fn lanes_below(count: usize) -> __m256i {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), lanes)
}

/// # Safety
///
/// The processor has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn cast_u8(values: &[f32], output: &mut [u8]) {
    scalar::cast_u8(values, output);
}

/// # Safety
///
/// The processor has AVX2 and F16C.
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn cast_f16(values: &[f32], output: &mut [u16]) {
    let (value_blocks, values) = values.as_chunks::<8>();
    let (output_blocks, output) = output.as_chunks_mut::<8>();
    for (values, output) in value_blocks.iter().zip(output_blocks) {
        // SAFETY: both are eight elements long.
        unsafe {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(values.as_ptr()));
            _mm_storeu_si128(output.as_mut_ptr().cast(), halves);
        }
    }
    scalar::cast_f16(values, output);
}

/// # Safety
///
/// The processor has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn cast_bf16(values: &[f32], output: &mut [u16]) {
    scalar::cast_bf16(values, output);
}

/// # Safety
///
/// The processor has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn interleave<T: Pod>(planes: [&[T]; 3], output: &mut [T]) {
    scalar::interleave(planes, output);
}
