//! CHANGE: crop, resize, flip, normalise, layout and cast in one pass.
//!
//! Rows come from the decoder, the finished tensor goes straight into the batch's memory; between them
//! lie only the rows that the filter still needs.
//!
//! # Arithmetic
//!
//! It is specified, so that every implementation gives the same bits: the scalar code here, its vector
//! forms, and a GPU's kernels (with fused operations written out and no others made).
//!
//! 1. Tap positions and weights: `f64`, rounded to `f32`, by the formulas at [`Axis`](crate::plan::Axis).
//! 2. Down the columns, for every column of the region: `acc = 0; acc = fma(weight, f32(pixel), acc)`
//!    for each tap from top to bottom, in `f32`.
//! 3. Along that row likewise, from left to right: `v`.
//! 4. `fma(v, factor, addend)` with, per channel, `factor = f32(1 / (255 * std))` and `addend =
//!    f32(-mean / std)` computed in `f64`; without normalisation `1/255` and 0, for `U8` 1 and 0.
//! 5. `F32`: as it is. `F16`, `BF16`: rounded to nearest even, beyond the range infinite. `U8`: rounded
//!    to nearest even, clamped to 0 to 255.
//!
//! Columns and rows here are those of the stored image; flips reverse the order in which outputs are
//! written, and never that of taps.

pub(crate) mod cuda;
mod fan_out;
mod host;
mod store;
mod taps;

pub(crate) use fan_out::Resizers;
pub use host::{Isa, Resizer, Rows};
#[cfg(test)]
pub(crate) use taps::Taps;
