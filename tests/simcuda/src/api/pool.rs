//! Memory pools: each device has one, the default, and it is all there is.

use std::ffi::{c_int, c_uint, c_void};

use super::{Out, entries};
use crate::driver::Driver;
use crate::result::{Code, Outcome};

/// Handles of pools, a device's each. Other handles are far above.
const POOL: u64 = 0x100;

impl Driver {
    /// The handle of a device's pool.
    pub fn default_pool(&self, device: usize) -> u64 {
        POOL + 16 * device as u64
    }

    fn pool(&self, pool: u64) -> Outcome<usize> {
        self.memory()?;
        (0..self.devices.len()).find(|device| self.default_pool(*device) == pool).ok_or(Code::INVALID_VALUE)
    }
}

entries! {
    fn cuDeviceGetDefaultMemPool(pool: Out<u64>, device: c_int) |d| {
        pool.set(d.default_pool(d.device(device)?))
    }
    fn cuDeviceGetMemPool(pool: Out<u64>, device: c_int) |d| {
        pool.set(d.default_pool(d.device(device)?))
    }
    fn cuDeviceSetMemPool(device: c_int, pool: u64) |d| {
        if d.pool(pool)? == d.device(device)? { Ok(()) } else { Err(Code::INVALID_VALUE) }
    }
    fn cuMemPoolGetAttribute(pool: u64, number: c_uint, value: *mut c_void) |d| {
        let device = &d.devices[d.pool(pool)?];
        match number {
            1..=3 => Out(value.cast::<c_int>()).set(1),
            4 => Out(value.cast::<u64>()).set(0),
            5 | 7 => Out(value.cast::<u64>()).set(device.used_bytes),
            6 | 8 => Out(value.cast::<u64>()).set(device.used_bytes_max),
            _ => Err(Code::INVALID_VALUE),
        }
    }
    fn cuMemPoolSetAttribute(pool: u64, number: c_uint, _value: *mut c_void) |d| {
        let device = d.pool(pool)?;
        if matches!(number, 6 | 8) {
            d.devices[device].used_bytes_max = d.devices[device].used_bytes;
        }
        Ok(())
    }
    fn cuMemPoolTrimTo(pool: u64, _keep_bytes: usize) |d| {
        d.pool(pool).map(drop)
    }
    fn cuMemAllocFromPoolAsync(address: Out<u64>, len: usize, pool: u64, stream: u64) |d| {
        d.pool(pool)?;
        d.allocate_ordered(address, len, stream)
    }
}
