//! Registered buffers and streams.

use std::ffi::{c_int, c_uint};

use cufile_sys::sys::*;

use crate::driver::{driver, report};
use crate::library::{Answer, Buffer, Library, refuse};
use crate::stats::stats;

impl Library {
    /// Registers memory.
    pub fn register_buffer(&mut self, base: u64, bytes: u64, flags: c_int) -> Answer {
        const CALL: &str = "cuFileBufRegister";
        self.expect_open(CALL)?;
        let registered = self.checked_buffer(CALL, base, bytes, flags);
        let device = registered.as_ref().map_or(0, |buffer| buffer.memory.device);
        stats().count(|all| {
            let gpu = &mut all.per_gpu_stats[device as usize % 16];
            gpu.n_mmap += 1;
            if registered.is_ok() {
                gpu.n_mmap_ok += 1;
                gpu.reg_bytes += bytes;
            } else {
                gpu.n_mmap_err += 1;
            }
        });
        self.buffers.insert(base, registered?);
        Ok(())
    }

    fn checked_buffer(&self, call: &str, base: u64, bytes: u64, flags: c_int) -> Answer<Buffer> {
        let what = format!("{call} of {bytes} bytes at {base:#x}");
        let known_flags = (CU_FILE_RDMA_REGISTER | CU_FILE_RDMA_RELAXED_ORDERING) as c_int;
        if base == 0 || bytes == 0 || flags & !known_flags != 0 {
            return Err(refuse("argument", &format!("{what}, flags {flags}"), CUfileOpError::CU_FILE_INVALID_VALUE));
        }
        let (memory, is_live) = driver().and_then(|driver| driver.memory(base)).ok_or_else(|| {
            refuse("argument", &format!("{what}: no memory of the device"), CUfileOpError::CU_FILE_CUDA_POINTER_INVALID)
        })?;
        if !is_live {
            return Err(refuse(
                "lifetime",
                &format!("{what}: it is freed"),
                CUfileOpError::CU_FILE_CUDA_POINTER_INVALID,
            ));
        }
        if base.saturating_add(bytes) > memory.base + memory.bytes {
            let words = format!("{what}: its allocation ends before");
            return Err(refuse("argument", &words, CUfileOpError::CU_FILE_CUDA_POINTER_RANGE_ERROR));
        }
        let last = self.buffers.range(..base.saturating_add(bytes)).next_back();
        if last.is_some_and(|(other, buffer)| other + buffer.bytes > base) {
            let words = format!("{what}: some of it is registered already");
            return Err(refuse("argument", &words, CUfileOpError::CU_FILE_MEMORY_ALREADY_REGISTERED));
        }
        Ok(Buffer { bytes, memory })
    }

    /// Forgets memory.
    pub fn deregister_buffer(&mut self, base: u64) -> Answer {
        const CALL: &str = "cuFileBufDeregister";
        self.expect_open(CALL)?;
        let Some(buffer) = self.buffers.remove(&base) else {
            let words = format!("{CALL}: {base:#x} is not where a registered buffer begins");
            return Err(refuse("lifetime", &words, CUfileOpError::CU_FILE_MEMORY_NOT_REGISTERED));
        };
        let end = base + buffer.bytes;
        let reads = self.in_flight(|read| read.memory.start < end && base < read.memory.end);
        if reads > 0 {
            report("lifetime", &format!("{CALL} of {base:#x} with {reads} reads into it in flight"));
        }
        if !buffer.is_live(base) {
            report("lifetime", &format!("{CALL} of {base:#x}: its memory was freed while it was registered"));
        }
        stats().count(|all| all.per_gpu_stats[buffer.memory.device as usize % 16].n_mmap_free += 1);
        Ok(())
    }

    /// Prepares a stream.
    pub fn register_stream(&mut self, stream: u64, flags: c_uint) -> Answer {
        const CALL: &str = "cuFileStreamRegister";
        self.expect_open(CALL)?;
        if flags > 15 {
            return Err(refuse("argument", &format!("{CALL}: flags {flags}"), CUfileOpError::CU_FILE_INVALID_VALUE));
        }
        if self.streams.insert(stream, flags).is_some() {
            report("argument", &format!("{CALL}: the stream is registered already"));
        }
        Ok(())
    }

    /// Forgets a stream.
    pub fn deregister_stream(&mut self, stream: u64) -> Answer {
        const CALL: &str = "cuFileStreamDeregister";
        self.expect_open(CALL)?;
        if self.streams.remove(&stream).is_none() {
            let words = format!("{CALL}: the stream is not registered");
            return Err(refuse("lifetime", &words, CUfileOpError::CU_FILE_INVALID_VALUE));
        }
        let reads = self.in_flight(|read| read.stream == Some(stream));
        if reads > 0 {
            report("lifetime", &format!("{CALL} with {reads} reads in flight in the stream"));
        }
        Ok(())
    }
}
