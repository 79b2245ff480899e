//! YCbCr to RGB (JFIF 1.02, in libjpeg's 16-bit fixed point).

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

use super::simd::{Level, Simd};

/// How far past what they need the kernels may read their input and write their output.
pub const SLACK: usize = 32;

/// Converts a row of `width` pixels.
pub fn ycbcr_to_rgb(simd: Simd, ycbcr: [&[u8]; 3], rgb: [&mut [u8]; 3], width: usize) {
    let needed = width + SLACK;
    assert!(ycbcr.iter().all(|row| row.len() >= needed) && rgb.iter().all(|row| row.len() >= needed));
    match simd.level() {
        Level::Scalar => scalar::ycbcr_to_rgb(ycbcr, rgb, width),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where its instructions do.
        Level::Avx2 => unsafe { avx2::ycbcr_to_rgb(ycbcr, rgb, width) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_kernels_agree_with_the_specification() {
        let width = 256;
        let ramp: Vec<u8> = (0..width + SLACK).map(|i| i as u8).collect();
        for cb in 0..=255_u8 {
            for y in (0..=255_u8).step_by(5) {
                let run = |simd| {
                    let mut rgb = [(); 3].map(|()| vec![0; width + SLACK]);
                    let [r, g, b] = &mut rgb;
                    ycbcr_to_rgb(simd, [&vec![y; ramp.len()], &vec![cb; ramp.len()], &ramp], [r, g, b], width);
                    rgb.map(|mut row| {
                        row.truncate(width);
                        row
                    })
                };
                let expected = run(Simd::SCALAR);
                for simd in Simd::available() {
                    assert_eq!(expected, run(simd), "{simd:?} y {y} cb {cb}");
                }
            }
        }
    }
}
