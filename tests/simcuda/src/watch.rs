//! Shows a companion library what the host gives the device: the bytes of copies, and page-locked memory before it is given
//! back or the process ends.

use std::ffi::{CString, c_char, c_void};

use crate::api::is_mapped;
use crate::driver::{self, Driver};

/// Gets its argument, where the bytes are from in words, the bytes, and how many they are. Called under the driver's lock:
/// it must not call the driver, and may make reports.
pub type Visit = unsafe extern "C" fn(*mut c_void, *const c_char, *const u8, usize);

/// Who looks.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    visit: Visit,
    argument: usize,
}

/// Has `visit` called from now on, until it is null; a reset does not end it.
///
/// # Safety
/// `visit` may be called with `argument` from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_watch(visit: Option<Visit>, argument: *mut c_void) {
    driver::locked(|driver| driver.watch = visit.map(|visit| Watch { visit, argument: argument as usize }));
}

impl Driver {
    /// Shows bytes, which are readable.
    pub fn show(&mut self, what: &str, bytes: *const u8, len: u64) {
        let Some(Watch { visit, argument }) = self.watch else { return };
        let what = CString::new(what.replace('\0', "")).unwrap_or_default();
        // SAFETY: whoever watches promised that it may be called; the bytes are in live memory.
        self.while_locked(|| unsafe { visit(argument as *mut c_void, what.as_ptr(), bytes, len as usize) });
    }

    /// Shows an allocation of host memory.
    pub fn show_host_memory(&mut self, index: usize) {
        let Some(allocation) = self.memory().ok().map(|memory| memory.get(index)) else { return };
        if self.watch.is_some() && allocation.is_host() {
            let (what, bytes, len) = (allocation.describe(), allocation.bytes(0), allocation.len);
            // A program that never ends a registration may have unmapped the memory.
            if !is_mapped(bytes as u64, bytes as u64 + len) {
                return;
            }
            self.show(&format!("page-locked memory {what}"), bytes, len);
        }
    }

    /// Shows all host memory that a context has.
    pub fn show_all_host_memory(&mut self, context: u64) {
        let all: Vec<usize> = self.allocations_of(context).map(|(index, _)| index).collect();
        all.into_iter().for_each(|index| self.show_host_memory(index));
    }
}
