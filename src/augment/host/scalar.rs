//! The inner loops in portable code. They are the specification: the vector forms give the same bits.
//!
//! They are inlined into the vector modules, where the compiler vectorises some of them well enough.
//! It never fuses or reorders floating-point operations by itself, so that changes no bit.

use bytemuck::Pod;

use super::super::taps::Taps;

#[inline(always)]
pub(super) fn resample_down(ring: &[u8], plane: usize, taps: &[(usize, f32)], output: &mut [f32]) {
    // Blocks of columns, so that a vector form keeps its sums in registers.
    for (block, output) in output.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let mut sums = [0f32; 32];
        for &(start, weight) in taps {
            let pixels = &ring[start + plane + block * 32..][..32];
            for (sum, &pixel) in sums.iter_mut().zip(pixels) {
                *sum = weight.mul_add(f32::from(pixel), *sum);
            }
        }
        *output = sums;
    }
}

#[inline(always)]
pub(super) fn resample_across(columns: [&[f32]; 3], taps: &Taps, affine: &[(f32, f32); 3], outputs: [&mut [f32]; 3]) {
    for ((columns, output), (factor, addend)) in columns.into_iter().zip(outputs).zip(affine) {
        for (i, output) in output.iter_mut().enumerate() {
            let (first, end) = (taps.first[i] as usize, taps.end[i] as usize);
            let mut sum = 0f32;
            for (tap, value) in columns[first..end].iter().enumerate() {
                sum = taps.weights[tap * taps.stride + i].mul_add(*value, sum);
            }
            *output = sum.mul_add(*factor, *addend);
        }
    }
}

#[inline(always)]
pub(super) fn cast_u8(values: &[f32], output: &mut [u8]) {
    for (value, output) in values.iter().zip(output) {
        // Adding 1.5 * 2^23 leaves the integer nearest to a small number in the low bits, halves to even.
        *output = (value.clamp(0.0, 255.0) + 12_582_912.0).to_bits() as u8;
    }
}

#[inline(always)]
pub(super) fn cast_f16(values: &[f32], output: &mut [u16]) {
    for (value, output) in values.iter().zip(output) {
        *output = half::f16::from_f32(*value).to_bits();
    }
}

#[inline(always)]
pub(super) fn cast_bf16(values: &[f32], output: &mut [u16]) {
    for (value, output) in values.iter().zip(output) {
        // Half a unit of the last place that stays, less one where that place is even. No value is NaN.
        let bits = value.to_bits();
        *output = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    }
}

#[inline(always)]
pub(super) fn interleave<T: Pod>(planes: [&[T]; 3], output: &mut [T]) {
    let [red, green, blue] = planes;
    for (((pixel, red), green), blue) in output.as_chunks_mut::<3>().0.iter_mut().zip(red).zip(green).zip(blue) {
        *pixel = [*red, *green, *blue];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_half_to_even_and_clamped() {
        let values = [-1e9, -0.5, -0.0, 0.5, 0.50001, 1.5, 2.5, 2.49999, 254.5, 254.6, 255.4, 1e9, f32::INFINITY];
        let mut output = [0; 13];
        cast_u8(&values, &mut output);
        assert_eq!(output, [0, 0, 0, 0, 1, 2, 2, 2, 254, 255, 255, 255, 255]);
        let quarters: Vec<f32> = (0..1021).map(|i| i as f32 / 4.0).collect();
        let mut output = vec![0; quarters.len()];
        cast_u8(&quarters, &mut output);
        assert!(quarters.iter().zip(&output).all(|(value, byte)| value.round_ties_even() == f32::from(*byte)));
    }

    #[test]
    fn bfloats_are_those_of_the_half_crate() {
        // Every exponent, with mantissas around the rounding points.
        for high in 0..=0xffffu32 {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(high << 16 | low);
                if !value.is_nan() {
                    let mut output = [0];
                    cast_bf16(&[value], &mut output);
                    assert_eq!(output[0], half::bf16::from_f32(value).to_bits(), "{value:e}");
                }
            }
        }
    }
}
