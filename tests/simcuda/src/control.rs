//! What tests in the same process call, and what happens when the process ends.

use std::ffi::{c_char, c_int};
use std::fmt::Write;

use crate::companion::text;
use crate::driver::{self, Driver};
use crate::module::KernelStats;

/// Forgets all contexts, memory, streams, events, modules, reports and counts, and begins anew with this seed. The other
/// settings stay. Device memory and streams of before must not be used any more.
#[unsafe(no_mangle)]
pub extern "C" fn simcuda_reset(seed: u64) {
    driver::locked(|driver| driver.reset(seed));
}

/// Sets what the environment variable `SIMCUDA_` and the name would have. Returns 0, or 1 if that makes no sense, which
/// is reported.
///
/// # Safety
/// Both are strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_configure(name: *const c_char, value: *const c_char) -> c_int {
    // SAFETY: as this function demands.
    let (name, value) = unsafe { (text(name), text(value)) };
    driver::locked(|driver| match driver.settings.set(&name, &value) {
        Ok(()) => 0,
        Err(what) => {
            driver.report("setting", &what);
            1
        }
    })
}

/// Writes the reports so far, a line each, as far as they fit, and returns how many bytes they are.
///
/// # Safety
/// The buffer has that many bytes, or none if it is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_reports(buffer: *mut c_char, len: usize) -> usize {
    let reports = driver::locked(|driver| driver.reports.text());
    // SAFETY: as this function demands.
    unsafe { give(&reports, buffer, len) }
}

/// Writes a line for each kernel that ran: its name, launches, instructions summed over threads, and over warps.
///
/// # Safety
/// The buffer has that many bytes, or none if it is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_stats(buffer: *mut c_char, len: usize) -> usize {
    let stats = driver::locked(|driver| stats(driver));
    // SAFETY: as this function demands.
    unsafe { give(&stats, buffer, len) }
}

/// Ends what the end of a process would: reports what is left, and what a test asked for that did not happen.
#[unsafe(no_mangle)]
pub extern "C" fn simcuda_finish() {
    driver::locked(finish);
}

/// Calls it when the process ends.
pub fn finish_at_exit() {
    extern "C" fn at_exit() {
        driver::locked(|driver| {
            // A child that was forked ends too, and has nothing of its own to tell.
            if driver.process == std::process::id() {
                finish(driver);
            }
        });
    }
    // SAFETY: the function may be called at any time; the library is never unloaded (see build.rs).
    unsafe { libc::atexit(at_exit) };
}

fn finish(driver: &mut Driver) {
    // Of a context that is still held, only memory is missed: a program may keep its device for as long as it lives.
    let held: Vec<u64> = driver.contexts.keys().copied().collect();
    for handle in held {
        let Some(context) = driver.contexts.get(&handle).filter(|context| context.broken.is_none()) else { continue };
        let device = context.device;
        driver.show_all_host_memory(handle);
        for left in driver.left_memory(handle) {
            driver.report("leak", &format!("{left} on device {device} when the process ended"));
        }
    }
    let unused: Vec<String> =
        driver.calls.unused(&driver.settings).map(|rule| format!("{}#{}", rule.name, rule.nth)).collect();
    unused.iter().for_each(|rule| driver.report("setting", &format!("{rule} never happened")));
    if driver.settings.ptx_edit.is_some() && !driver.edited {
        driver.report("setting", "PTX_EDIT: no module has the text");
    }
    if let Some(path) = &driver.settings.stats
        && let Err(error) = std::fs::write(path, stats(driver))
    {
        driver.report("setting", &format!("STATS: {error}"));
    }
}

fn stats(driver: &Driver) -> String {
    driver.stats.iter().fold(String::new(), |mut lines, (name, stats)| {
        let KernelStats { launches, instructions, warp_instructions } = stats;
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{name} {launches} {instructions} {warp_instructions}");
        lines
    })
}

/// # Safety
/// The buffer has that many bytes, or none if it is null.
unsafe fn give(text: &str, buffer: *mut c_char, len: usize) -> usize {
    if !buffer.is_null() {
        // SAFETY: as this function demands.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), text.len().min(len)) };
    }
    text.len()
}
