//! Upsampling of rows as libjpeg-turbo does it by default: triangle filters for factors of two
//! ("fancy"), repetition for the others (jdsample.c).
//!
//! At the image's edges the filters repeat the edge sample, which comes to the same as libjpeg's special
//! cases; callers put it there.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

use super::simd::{Level, Simd};

/// How far past what they need the kernels may read their input, and in the double write their output.
pub const SLACK: usize = 32;

/// Doubles a row of `count` samples, which start at `row[1]` between their neighbours.
pub fn h2v1(simd: Simd, row: &[u8], count: usize, out: &mut [u8]) {
    assert!(row.len() >= count + SLACK && out.len() >= 2 * (count + SLACK));
    match simd.level() {
        Level::Scalar => scalar::h2v1(row, count, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where its instructions do.
        Level::Avx2 => unsafe { avx2::h2v1(row, count, out) },
    }
}

/// A row between two: three parts of `near` and one of `far`, rounded up from `bias` quarters.
pub fn h1v2(simd: Simd, near: &[u8], far: &[u8], bias: u8, count: usize, out: &mut [u8]) {
    assert!(near.len().min(far.len()).min(out.len()) >= count + SLACK);
    match simd.level() {
        Level::Scalar => scalar::h1v2(near, far, bias, count, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where its instructions do.
        Level::Avx2 => unsafe { avx2::h1v2(near, far, bias, count, out) },
    }
}

/// Both: doubles a row of `count` samples between `near` and `far`, which start at their index 1.
pub fn h2v2(simd: Simd, near: &[u8], far: &[u8], count: usize, out: &mut [u8]) {
    assert!(near.len().min(far.len()) >= count + SLACK && out.len() >= 2 * (count + SLACK));
    match simd.level() {
        Level::Scalar => scalar::h2v2(near, far, count, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Simd` of this level exists only where its instructions do.
        Level::Avx2 => unsafe { avx2::h2v2(near, far, count, out) },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn vector_kernels_agree_with_the_specification(
            samples in prop::collection::vec(any::<(u8, u8)>(), 1..200),
            bias in 1..3_u8,
        ) {
            let (mut near, mut far): (Vec<u8>, Vec<u8>) = samples.iter().copied().unzip();
            let count = near.len();
            near.resize(count + 2 + SLACK, 77);
            far.resize(count + 2 + SLACK, 99);
            let run = |simd| {
                let mut out = [vec![0; 2 * (count + SLACK)], vec![0; 2 * (count + SLACK)], vec![0; count + SLACK]];
                h2v1(simd, &near, count, &mut out[0]);
                h2v2(simd, &near, &far, count, &mut out[1]);
                h1v2(simd, &near, &far, bias, count, &mut out[2]);
                out[0].truncate(2 * count);
                out[1].truncate(2 * count);
                out[2].truncate(count);
                out
            };
            let expected = run(Simd::SCALAR);
            for simd in Simd::available() {
                prop_assert_eq!(&expected, &run(simd), "{:?}", simd);
            }
        }
    }
}
