//! What the tests' programs are made of: the parts of the driver API that cudarc's safe layer has under other names, or
//! too safely to commit a fault.
#![allow(dead_code)] // Each test file uses its part.

#[path = "../../../cuda_support/mod.rs"]
mod cuda_support;

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

#[allow(unused_imports)] // As above.
pub use cuda_support::{Library, Session, Simulator, session, simulator};

/// Seeds that a fault has to be caught within.
const SEEDS_TO_CATCH: u64 = 20;
/// Seeds over which what is right must not be reported.
const SEEDS_TO_PASS: u64 = 100;

/// Runs a program that commits a fault: some of the seeds must say so, in a report that has these words.
pub fn caught(words: &str, program: impl Fn(&Session)) {
    let session = session(1);
    for seed in 1..=SEEDS_TO_CATCH {
        session.restart(seed);
        program(&session);
        session.finish();
        let reports = session.reports();
        if !reports.is_empty() {
            assert!(reports.iter().any(|report| report.contains(words)), "seed {seed}: not {words:?} but {reports:?}");
            return;
        }
    }
    panic!("not caught in {SEEDS_TO_CATCH} seeds");
}

/// Runs a program that does it right: no seed may say otherwise.
pub fn passes(program: impl Fn(&Session)) {
    let session = session(1);
    for seed in 1..=SEEDS_TO_PASS {
        session.restart(seed);
        program(&session);
        session.finish();
        assert_eq!(session.reports(), Vec::<String>::new(), "seed {seed}");
    }
}

/// Page-locked memory, which this end of a test frees.
pub struct Pinned {
    pub at: *mut u8,
    pub len: usize,
    context: Arc<CudaContext>,
}

pub fn pinned(context: &Arc<CudaContext>, len: usize) -> Pinned {
    // SAFETY: a context is current.
    let at = unsafe { result::malloc_host(len, sys::CU_MEMHOSTALLOC_PORTABLE) }.unwrap().cast::<u8>();
    // SAFETY: the memory was just made.
    unsafe { at.write_bytes(0, len) };
    Pinned { at, len, context: context.clone() }
}

impl Pinned {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the memory lives, and tests look at it when they may, or to be caught.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    pub fn fill(&self, value: u8) {
        // SAFETY: as above.
        unsafe { self.at.write_bytes(value, self.len) };
    }

    /// Copies all of it to the device when the stream gets there.
    pub fn upload(&self, stream: &CudaStream, to: u64) {
        // SAFETY: the driver checks the device's range; the memory outlives the copy, or the test is about that.
        let code = unsafe { sys::cuMemcpyHtoDAsync_v2(to, self.at.cast::<c_void>(), self.len, stream.cu_stream()) };
        code.result().unwrap();
    }

    /// Fills all of it from the device when the stream gets there.
    pub fn download(&self, stream: &CudaStream, from: u64) {
        // SAFETY: as above.
        let code = unsafe { sys::cuMemcpyDtoHAsync_v2(self.at.cast::<c_void>(), from, self.len, stream.cu_stream()) };
        code.result().unwrap();
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.context.bind_to_thread().ok();
        // SAFETY: nobody has the address any more.
        unsafe { result::free_host(self.at.cast()) }.ok();
    }
}

/// Device memory from the stream-ordered allocator, never freed by itself.
pub fn allocate(stream: &CudaStream, len: usize) -> u64 {
    // SAFETY: the stream lives.
    unsafe { result::malloc_async(stream.cu_stream(), len) }.unwrap()
}

/// Frees it at the stream's turn.
pub fn free(stream: &CudaStream, at: u64) {
    // SAFETY: tests free what they have, or to be caught.
    unsafe { result::free_async(at, stream.cu_stream()) }.unwrap();
}

/// Fills device memory at the stream's turn.
pub fn fill(stream: &CudaStream, at: u64, value: u8, len: usize) {
    // SAFETY: the driver checks the range.
    unsafe { result::memset_d8_async(at, value, len, stream.cu_stream()) }.unwrap();
}

/// Copies within the device at the stream's turn.
pub fn copy(stream: &CudaStream, to: u64, from: u64, len: usize) {
    // SAFETY: the driver checks the ranges.
    unsafe { result::memcpy_dtod_async(to, from, len, stream.cu_stream()) }.unwrap();
}

/// A module with its first kernel.
pub struct Kernel {
    module: sys::CUmodule,
    pub function: sys::CUfunction,
}

pub fn kernel(text: &str, name: &str) -> Kernel {
    let text = CString::new(text).unwrap();
    // SAFETY: the image is a string, and outlives the call.
    let module = unsafe { result::module::load_data(text.as_ptr().cast()) }.unwrap();
    // SAFETY: the module was just loaded.
    let function = unsafe { result::module::get_function(module, CString::new(name).unwrap()) }.unwrap();
    Kernel { module, function }
}

impl Kernel {
    /// Runs it with an address and a count.
    pub fn launch(
        &self,
        stream: &CudaStream,
        blocks: u32,
        threads: u32,
        at: u64,
        count: u32,
    ) -> Result<(), DriverError> {
        let (mut at, mut count) = (at, count);
        let params = &mut [(&raw mut at).cast::<c_void>(), (&raw mut count).cast::<c_void>()];
        // SAFETY: the tests' kernels all take an address and a count.
        unsafe { result::launch_kernel(self.function, (blocks, 1, 1), (threads, 1, 1), 0, stream.cu_stream(), params) }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // SAFETY: nothing of the module is used any more.
        unsafe { result::module::unload(self.module) }.ok();
    }
}

/// `at[i] = i` for the words below the count.
pub const IOTA: &str = "
.version 7.8
.target sm_75
.address_size 64
.visible .entry iota(.param .u64 iota_param_0, .param .u32 iota_param_1)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [iota_param_0];
    ld.param.u32 %r1, [iota_param_1];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    st.global.u32 [%rd4], %r5;
DONE:
    ret;
}
";

/// `at[i] = at[i] + 1` for the words below the count.
pub const INCREMENT: &str = "
.version 7.8
.target sm_75
.address_size 64
.visible .entry increment(.param .u64 increment_param_0, .param .u32 increment_param_1)
{
    .reg .pred %p<2>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [increment_param_0];
    ld.param.u32 %r1, [increment_param_1];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    ld.global.u32 %r6, [%rd4];
    add.s32 %r7, %r6, 1;
    st.global.u32 [%rd4], %r7;
DONE:
    ret;
}
";
