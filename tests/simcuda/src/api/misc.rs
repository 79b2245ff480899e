//! Starting, versions, errors, and finding entry points.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::{In, Out, entries};
use crate::result::Code;

/// The CUDA version that the driver says it is of.
pub const VERSION: c_int = 13000;

entries! {
    fn cuInit(flags: c_uint) |d| {
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        d.initialise()
    }
    fn cuDriverGetVersion(version: Out<c_int>) |_d| {
        version.set(VERSION)
    }
    fn cuGetErrorName(code: Code, name: Out<*const c_char>) |_d| {
        name.set(code.name().map_or(std::ptr::null(), |name| name.as_ptr()))?;
        code.name().map(drop).ok_or(Code::INVALID_VALUE)
    }
    fn cuGetErrorString(code: Code, words: Out<*const c_char>) |_d| {
        words.set(code.words().map_or(std::ptr::null(), |words| words.as_ptr()))?;
        code.words().map(drop).ok_or(Code::INVALID_VALUE)
    }
    fn cuProfilerStart() |d| {
        d.current().map(drop)
    }
    fn cuProfilerStop() |d| {
        d.current().map(drop)
    }
    fn cuGetExportTable(table: Out<*const c_void>, _id: *const c_void) |_d| {
        // The tables are private to NVIDIA's own libraries, which do without.
        table.set(std::ptr::null())?;
        Err(Code::NOT_FOUND)
    }
    fn cuGetProcAddress(name: In<c_char>, found: Out<*const c_void>, version: c_int, _flags: u64) |_d| {
        let entry = lookup(&name.text()?, version);
        found.set(entry.unwrap_or(std::ptr::null()))?;
        entry.map(drop).ok_or(Code::NOT_FOUND)
    }
    fn cuGetProcAddress_v2(
        name: In<c_char>, found: Out<*const c_void>, version: c_int, _flags: u64, status: Out<c_uint>
    ) |_d| {
        let entry = lookup(&name.text()?, version);
        found.set(entry.unwrap_or(std::ptr::null()))?;
        status.set_if_wanted(c_uint::from(entry.is_none()));
        entry.map(drop).ok_or(Code::NOT_FOUND)
    }
}

/// The newest entry point of a name that the asker's version has. Only one changed its shape within CUDA 12.
fn lookup(name: &str, version: c_int) -> Option<*const c_void> {
    let newest = match name {
        "cuGetProcAddress" if version < 12000 => ["", "", ""],
        "cuCtxCreate" if version < 13000 => ["_v2", "", ""],
        "cuStreamGetCaptureInfo" if version < 13000 => ["_v2", "", ""],
        _ => ["_v3", "_v2", ""],
    };
    newest.iter().find_map(|suffix| super::find(&format!("{name}{suffix}")))
}
