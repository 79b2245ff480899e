//! How fast a device's memory is filled and copied, measured on the spot.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::CudaStream;

use super::error::error;
use super::gpu::Gpu;
use super::memory::{Registered, upload};
use crate::error::Result;

/// Passes over the buffer in one measurement, and measurements of which the best counts.
const PASSES: u32 = 4;
const ROUNDS: u32 = 3;

/// What a device moves, in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bandwidth {
    /// From page-locked host memory to the device.
    pub upload: f64,
    /// Within the device's memory by a copy: what is read and what is written, together.
    pub copy: f64,
}

/// Measures a device with a buffer of `len_bytes`, 64 MiB for a figure that means something: page-locks as much and
/// takes twice as much of the device.
///
/// # Errors
///
/// `Unavailable`, `OutOfMemory`, `DeviceLost`.
pub fn bandwidth(ordinal: u32, len_bytes: usize) -> Result<Bandwidth> {
    let gpu = Gpu::open(ordinal)?;
    let stream = gpu.stream()?;
    let mut host = vec![1_u8; len_bytes.max(1)];
    // SAFETY: `host` is declared before it, so it is there until after; every copy is waited for in `rate`, and where that
    // fails the device is lost and copies nothing any more.
    let _locked = unsafe { Registered::new(&gpu, NonNull::from(&mut host[..]).cast(), host.len())? };
    let mut first = gpu.alloc(&stream, host.len())?;
    let mut second = gpu.alloc(&stream, host.len())?;
    // SAFETY: nobody writes `host` again; one stream does everything.
    let upload = rate(&stream, host.len(), || unsafe { upload(&stream, &mut first, 0, &host) })?;
    let copy = rate(&stream, 2 * host.len(), || {
        stream.memcpy_dtod(&first, &mut second).map_err(|code| error("cuMemcpyDtoDAsync", code))
    })?;
    Ok(Bandwidth { upload, copy })
}

/// Bytes a second of `pass`, which moves `len_bytes` in the stream's order.
fn rate(stream: &Arc<CudaStream>, len_bytes: usize, mut pass: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best: f64 = 0.0;
    // One round more than counts: the first warms up.
    for _ in 0..=ROUNDS {
        let started = Instant::now();
        let passed = (0..PASSES).try_for_each(|_| pass());
        // Also where one failed, for those before it.
        stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))?;
        passed?;
        best = best.max(f64::from(PASSES) * len_bytes as f64 / started.elapsed().as_secs_f64());
    }
    Ok(best)
}
