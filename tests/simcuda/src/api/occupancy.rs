//! Occupancy: by threads and shared memory only, since registers are for the real compiler to give.

use std::ffi::{c_int, c_uint, c_void};

use super::{Out, device, entries};
use crate::driver::Locked;
use crate::result::{Code, Outcome};

impl Locked {
    fn blocks_of_sm(&mut self, function: u64, threads: c_int, shared_bytes: usize) -> Outcome<c_int> {
        self.function(function)?;
        if !(1..=device::BLOCK_THREADS_MAX as c_int).contains(&threads) {
            return Err(Code::INVALID_VALUE);
        }
        let warps = (threads as u32).div_ceil(32) as c_int;
        let by_threads = device::SM_THREADS / (warps * 32);
        let by_shared = device::SM_SHARED_BYTES as usize / (shared_bytes + 1024);
        Ok(by_threads.min(device::SM_BLOCKS).min(by_shared as c_int))
    }

    fn best_block(&mut self, out: (Out<c_int>, Out<c_int>), function: u64, shared: Shared, limit: c_int) -> Outcome {
        let most =
            if limit > 0 { limit.min(device::BLOCK_THREADS_MAX as c_int) } else { device::BLOCK_THREADS_MAX as c_int };
        let mut best = (0, 0, 0);
        for threads in (1..=most / 32).map(|warps| warps * 32) {
            let blocks = self.blocks_of_sm(function, threads, shared.bytes(threads))?;
            best = best.max((blocks * threads, threads, blocks));
        }
        out.0.set(best.2 * device::SMS)?;
        out.1.set(best.1)
    }
}

/// Dynamic shared memory of a block: the same for all, or as the program says.
struct Shared(Option<unsafe extern "C" fn(c_int) -> usize>, usize);

impl Shared {
    fn bytes(&self, threads: c_int) -> usize {
        // SAFETY: by the entry point's contract the function may be called with any size of a block.
        self.0.map_or(self.1, |function| unsafe { function(threads) })
    }
}

entries! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<c_int>, function: u64, threads: c_int, shared_bytes: usize
    ) |d| {
        blocks.set(d.blocks_of_sm(function, threads, shared_bytes)?)
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<c_int>, function: u64, threads: c_int, shared_bytes: usize, _flags: c_uint
    ) |d| {
        blocks.set(d.blocks_of_sm(function, threads, shared_bytes)?)
    }
    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: Out<usize>, function: u64, blocks: c_int, _threads: c_int) |d| {
        d.function(function)?;
        let blocks = usize::try_from(blocks).ok().filter(|blocks| *blocks > 0).ok_or(Code::INVALID_VALUE)?;
        let share = (device::SM_SHARED_BYTES as usize / blocks).saturating_sub(1024);
        bytes.set(share.min(device::SHARED_BYTES[1] as usize))
    }
    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<c_int>, block: Out<c_int>, function: u64, shared: Option<unsafe extern "C" fn(c_int) -> usize>,
        shared_bytes: usize, limit: c_int
    ) |d| {
        d.best_block((grid, block), function, Shared(shared, shared_bytes), limit)
    }
    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<c_int>, block: Out<c_int>, function: u64, shared: Option<unsafe extern "C" fn(c_int) -> usize>,
        shared_bytes: usize, limit: c_int, _flags: c_uint
    ) |d| {
        d.best_block((grid, block), function, Shared(shared, shared_bytes), limit)
    }
    fn cuOccupancyMaxActiveClusters(clusters: Out<c_int>, function: u64, _config: *const c_void) |d| {
        d.function(function)?;
        clusters.set(device::SMS)
    }
}
