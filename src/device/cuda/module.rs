//! Our kernels, compiled for the device by its driver.

use std::ffi::{CStr, c_uint, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUjit_option};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use super::error::error;
use crate::error::{Error, ErrorKind, Result};

/// The text of all kernels, ended by a zero as the driver wants it.
const PTX: &CStr =
    match CStr::from_bytes_with_nul(concat!(include_str!("../../../kernels/ptx/forebay.ptx"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("the kernels' text holds a zero"),
    };

// The kernels compiled beforehand, where the build was asked for that.
include!(concat!(env!("OUT_DIR"), "/cubins.rs"));

/// Bytes for what the driver's compiler has to say.
const LOG_BYTES: usize = 4096;

/// The entry points of kernels/, whose parameters and grids kernels/abi.cuh describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum KernelName {
    Destuff,
    Entropy,
    Idct,
    Taps,
    ResizeU8,
    ResizeF16,
    ResizeBf16,
    ResizeF32,
}

/// By number of [`KernelName`].
const NAMES: [&CStr; 8] = [
    c"forebay_destuff",
    c"forebay_entropy",
    c"forebay_idct",
    c"forebay_taps",
    c"forebay_resize_u8",
    c"forebay_resize_f16",
    c"forebay_resize_bf16",
    c"forebay_resize_f32",
];

/// A kernel of a loaded [`Module`].
pub(crate) struct Kernel(sys::CUfunction);

/// The kernels in a context, unloaded when dropped.
pub(super) struct Module {
    context: Arc<CudaContext>,
    module: sys::CUmodule,
    kernels: [Kernel; NAMES.len()],
}

// SAFETY: a module and its functions belong to the context and may be used from any thread that it is bound to.
unsafe impl Send for Module {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Module {}

impl Module {
    /// Loads the kernels: compiled ones that suit the device, else the text, which the driver compiles and keeps in a
    /// cache of its own.
    ///
    /// # Errors
    ///
    /// `Unavailable` with the compiler's words where it refuses the text.
    pub(super) fn load(context: &Arc<CudaContext>) -> Result<Self> {
        context.bind_to_thread().map_err(|code| error("cuCtxSetCurrent", code))?;
        let capability = context.compute_capability().map_err(|code| error("cuDeviceGetAttribute", code))?;
        let module = match cubin_for(capability) {
            // SAFETY: a whole cubin.
            Some(cubin) => unsafe { compile(cubin.as_ptr().cast()) }.or_else(|error| {
                log::warn!("the kernels compiled beforehand are not used, the driver compiles them anew: {error}");
                compile_text()
            })?,
            None => compile_text()?,
        };
        let none = [const { Kernel(ptr::null_mut()) }; NAMES.len()];
        // From here on dropping it unloads the module.
        let mut this = Self { context: Arc::clone(context), module, kernels: none };
        for (kernel, name) in this.kernels.iter_mut().zip(NAMES) {
            // SAFETY: the module was loaded in the context that is bound.
            let found = unsafe { result::module::get_function(module, name.to_owned()) };
            kernel.0 =
                found.map_err(|code| error(&format!("cuModuleGetFunction({})", name.to_string_lossy()), code))?;
        }
        Ok(this)
    }

    pub(super) fn kernel(&self, which: KernelName) -> &Kernel {
        &self.kernels[which as usize]
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // After a sticky error neither call succeeds, and nothing is left to do about it.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: it was loaded in this context and is not used after this.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

/// Code runs on devices of its own major version from its own minor version on.
fn cubin_for((major, minor): (i32, i32)) -> Option<&'static [u8]> {
    let suits = |arch: u32| arch / 10 == major as u32 && arch % 10 <= minor as u32;
    CUBINS.iter().filter(|(arch, _)| suits(*arch)).max_by_key(|(arch, _)| *arch).map(|(_, cubin)| *cubin)
}

fn compile_text() -> Result<sys::CUmodule> {
    // SAFETY: a text ended by a zero.
    unsafe { compile(PTX.as_ptr().cast()) }
}

/// `cuModuleLoadDataEx` with a place for the compiler's errors.
///
/// # Safety
///
/// `image` is a whole cubin, or a text ended by a zero.
unsafe fn compile(image: *const c_void) -> Result<sys::CUmodule> {
    let mut log = vec![0_u8; LOG_BYTES];
    let mut options = [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // Numbers are passed where pointers are declared.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(LOG_BYTES)];
    let mut module = ptr::null_mut();
    // SAFETY: the image is as the caller promises; both arrays hold as many entries as is said; the log is as long as is
    // said; all of them outlive the call. The context is bound by `load`.
    let code = unsafe {
        sys::cuModuleLoadDataEx(&mut module, image, options.len() as c_uint, options.as_mut_ptr(), values.as_mut_ptr())
    };
    code.result().map_err(|code| refused(code, &log))?;
    Ok(module)
}

fn refused(code: DriverError, log: &[u8]) -> Error {
    let known = error("cuModuleLoadDataEx", code);
    if known.kind() != ErrorKind::Internal {
        return known;
    }
    let log = CStr::from_bytes_until_nul(log).unwrap_or_default().to_string_lossy();
    let log = log.trim();
    let words = if log.is_empty() { String::new() } else { format!(": {log}") };
    let message = format!("the driver cannot compile the kernels for this device: {}{words}", known.cause());
    Error::new(ErrorKind::Unavailable, message)
        .with_remedy("update NVIDIA's driver to 525 or later, or use the device host or auto")
}

/// Launches a kernel. It runs in the stream's order, after this returns.
///
/// # Safety
///
/// The kernel is of the stream's context and still loaded. `parameters` point to values of the types and
/// number that kernels/abi.cuh gives (they are copied before this returns). What those values point to is valid until the
/// kernel has run, large enough for its grid, and ordered: what it reads was written before in the stream's
/// order, and nothing else touches what it writes.
pub(crate) unsafe fn launch(
    stream: &CudaStream,
    kernel: &Kernel,
    grid: [u32; 3],
    block: u32,
    parameters: &mut [*mut c_void],
) -> Result<()> {
    stream.context().bind_to_thread().map_err(|code| error("cuCtxSetCurrent", code))?;
    let [x, y, z] = grid;
    // SAFETY: as the caller promises.
    let launched =
        unsafe { result::launch_kernel(kernel.0, (x, y, z), (block, 1, 1), 0, stream.cu_stream(), parameters) };
    launched.map_err(|code| error("cuLaunchKernel", code))
}

const _: () = assert!(KernelName::ResizeF32 as usize + 1 == NAMES.len());
