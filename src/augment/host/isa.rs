//! Which instructions the inner loops use: chosen once, at run time.

use bytemuck::Pod;

use super::super::taps::Taps;
use super::{SLACK, scalar};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// A set of instructions that the inner loops are written for. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable code; it is the specification.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL besides.
    Avx512,
}

impl Isa {
    /// All, slowest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// The fastest that this processor has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Scalar)
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

/// Calls the form of a function that an instruction set has.
///
/// SAFETY of each use: a `Resizer` holds only an `Isa` that is available, which is all that the vector
/// forms ask of their caller besides what the method asserts.
macro_rules! dispatch {
    ($isa:expr, $function:ident $arguments:tt) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: see above.
            Isa::Avx512 => unsafe { avx512::$function $arguments },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: see above.
            Isa::Avx2 => unsafe { avx2::$function $arguments },
            _ => scalar::$function $arguments,
        }
    };
}

/// The inner loops.
impl Isa {
    /// Resamples columns: `output[x]` becomes the weighted sum of `ring[start + plane + x]` over the taps'
    /// starts. `output` is a multiple of [`SLACK`] long.
    pub(in super::super) fn resample_down(self, ring: &[u8], plane: usize, taps: &[(usize, f32)], output: &mut [f32]) {
        assert!(output.len().is_multiple_of(SLACK));
        assert!(taps.iter().all(|(start, _)| start + plane + output.len() <= ring.len()));
        dispatch!(self, resample_down(ring, plane, taps, output));
    }

    /// Resamples rows: `outputs[c][i]` becomes `fma(v, factor, addend)` of the weighted sum `v` of
    /// `columns[c]` over the taps of output `i`.
    pub(in super::super) fn resample_across(
        self,
        columns: [&[f32]; 3],
        taps: &Taps,
        affine: &[(f32, f32); 3],
        outputs: [&mut [f32]; 3],
    ) {
        let len = outputs[0].len();
        assert!(outputs.iter().all(|output| output.len() == len) && len <= taps.stride);
        assert!(columns.iter().all(|plane| plane.len() >= taps.source_len + taps.count_max + SLACK));
        taps.assert_consistent();
        dispatch!(self, resample_across(columns, taps, affine, outputs));
    }

    /// Rounds to the nearest byte.
    pub(in super::super) fn cast_u8(self, values: &[f32], output: &mut [u8]) {
        assert_eq!(values.len(), output.len());
        dispatch!(self, cast_u8(values, output));
    }

    /// Rounds to half precision.
    pub(in super::super) fn cast_f16(self, values: &[f32], output: &mut [u16]) {
        assert_eq!(values.len(), output.len());
        dispatch!(self, cast_f16(values, output));
    }

    /// Rounds to bfloat16.
    pub(in super::super) fn cast_bf16(self, values: &[f32], output: &mut [u16]) {
        assert_eq!(values.len(), output.len());
        dispatch!(self, cast_bf16(values, output));
    }

    /// Puts three planes side by side, pixel by pixel.
    pub(in super::super) fn interleave<T: Pod>(self, planes: [&[T]; 3], output: &mut [T]) {
        let len = planes[0].len();
        assert!(planes.iter().all(|plane| plane.len() == len) && output.len() == 3 * len);
        dispatch!(self, interleave(planes, output));
    }
}
