//! The library's statistics.

use std::mem::{offset_of, size_of};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use cufile_sys::sys::*;

use crate::library::Answer;

/// The version that lengthened the first struct.
const LONGER_SINCE: i32 = 1190;

/// What is counted, and whether it is.
pub struct Stats {
    /// 0 to 3.
    pub level: i32,
    /// Between start and stop.
    pub running: bool,
    all: Box<CUfileStatsLevel3_t>,
}

/// The statistics, locked. No other lock is taken under this one, which work of the driver's takes under its own.
pub fn stats() -> MutexGuard<'static, Stats> {
    static STATS: LazyLock<Mutex<Stats>> =
        LazyLock::new(|| Mutex::new(Stats { level: 0, running: false, all: zeroed() }));
    STATS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn zeroed() -> Box<CUfileStatsLevel3_t> {
    // SAFETY: numbers alone, of which 0 is one.
    Box::new(unsafe { std::mem::zeroed() })
}

impl Stats {
    /// Counts, if counting is on.
    pub fn count(&mut self, body: impl FnOnce(&mut CUfileStatsLevel3_t)) {
        if self.running && self.level > 0 {
            body(&mut self.all);
        }
    }

    /// Begins at 0.
    pub fn clear(&mut self) {
        self.all = zeroed();
    }

    /// As if the process began anew.
    pub fn reset(&mut self) {
        (self.level, self.running, self.all) = (0, false, zeroed());
    }

    /// Writes the struct of a level as a version of the library lays it out, for devices of these identities.
    ///
    /// # Safety
    /// `to` may be written as far as that struct goes.
    pub unsafe fn give(&mut self, level: i32, version: i32, devices: &[[u8; 16]], to: *mut u8) -> Answer {
        if to.is_null() || self.level < level {
            return Err(CUfileOpError::CU_FILE_INVALID_VALUE.into());
        }
        self.all.num_gpus = devices.len().min(self.all.per_gpu_stats.len()) as u32;
        for (gpu, uuid) in self.all.per_gpu_stats.iter_mut().zip(devices) {
            gpu.uuid = uuid.map(|byte| byte as std::ffi::c_char);
        }
        let end = match level {
            1 => size_of::<CUfileStatsLevel1_t>(),
            2 => size_of::<CUfileStatsLevel2_t>(),
            _ => size_of::<CUfileStatsLevel3_t>(),
        };
        let longer = offset_of!(CUfileStatsLevel1_t, readv_ops)..size_of::<CUfileStatsLevel1_t>();
        let from = std::ptr::from_ref(&*self.all).cast::<u8>();
        // SAFETY: both parts lie within the struct; the caller promised room for them.
        unsafe {
            if version >= LONGER_SINCE {
                to.copy_from_nonoverlapping(from, end);
            } else {
                to.copy_from_nonoverlapping(from, longer.start);
                to.add(longer.start).copy_from_nonoverlapping(from.add(longer.end), end - longer.end);
            }
        }
        Ok(())
    }
}
