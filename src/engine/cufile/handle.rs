//! What cuFile knows: a file, and device memory. Each is given back when its owner is dropped.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use cufile_sys::Error as Refusal;
use cufile_sys::sys::{
    CUfileDescr_t, CUfileDescr_t__bindgen_ty_1, CUfileFileHandleType, CUfileHandle_t, CUfileOpError,
};

use super::open::Open;
use crate::device::cuda::DeviceMemory;
use crate::error::{Error, ErrorKind, Result};

/// A file that is registered.
pub(in crate::engine) struct Handle {
    raw: CUfileHandle_t,
    open: Arc<Open>,
}

// SAFETY: a handle belongs to the process; cuFile's functions may be called with it from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above, from several at once.
unsafe impl Sync for Handle {}

impl Handle {
    /// Registers a file.
    ///
    /// # Errors
    /// `Unavailable` where its file system is none of cuFile's.
    ///
    /// # Safety
    /// The descriptor stays open as long as the handle lives.
    pub(super) unsafe fn new(open: &Arc<Open>, file: BorrowedFd<'_>, path: &Path) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        let mut descriptor = CUfileDescr_t {
            type_: CUfileFileHandleType::CU_FILE_HANDLE_TYPE_OPAQUE_FD,
            handle: CUfileDescr_t__bindgen_ty_1 { fd: file.as_raw_fd() },
            fs_ops: std::ptr::null(),
        };
        // SAFETY: both are valid; the descriptor stays open, as the caller promises.
        unsafe { open.library().cuFileHandleRegister(&mut raw, &mut descriptor) }.map_err(|refusal| {
            let message = format!("{}: cuFile does not take the file: {refusal}", path.display());
            Error::new(ErrorKind::Unavailable, message).with_remedy(remedy(refusal)).with_source(refusal)
        })?;
        Ok(Self { raw, open: Arc::clone(open) })
    }

    pub(super) fn raw(&self) -> CUfileHandle_t {
        self.raw
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: registered, and no read uses it: reads own the file that owns this.
        let _ = unsafe { self.open.library().cuFileHandleDeregister(self.raw) };
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({:?})", self.raw)
    }
}

fn remedy(refusal: Refusal) -> &'static str {
    match refusal.code() {
        Some(CUfileOpError::CU_FILE_IO_NOT_SUPPORTED | CUfileOpError::CU_FILE_INVALID_FILE_TYPE) => {
            "put the data on a file system that GPUDirect Storage supports, such as ext4 or XFS on NVMe, or use the engine uring"
        }
        Some(CUfileOpError::CU_FILE_DIO_NOT_SET | CUfileOpError::CU_FILE_INVALID_FILE_OPEN_FLAG) => {
            "the file system refuses O_DIRECT: put the data on another one, or use the engine uring"
        }
        _ => "see what `forebay doctor PATH` says of GPUDirect Storage, or use the engine uring",
    }
}

/// Device memory that is registered: pinned, so that reads go to it without a bounce buffer.
pub(super) struct Buffer {
    memory: Arc<DeviceMemory>,
    open: Arc<Open>,
}

impl Buffer {
    /// Registers all of it.
    ///
    /// # Errors
    /// `Unavailable` where cuFile refuses.
    pub(super) fn new(open: &Arc<Open>, memory: &Arc<DeviceMemory>) -> Result<Self> {
        let (base, len_bytes) = (memory.address() as *const _, memory.len_bytes());
        // SAFETY: the start of an allocation of that length, which this keeps allocated.
        unsafe { open.library().cuFileBufRegister(base, len_bytes, 0) }.map_err(|refusal| {
            let message = format!("cuFile does not register {len_bytes} bytes of device memory: {refusal}");
            Error::new(ErrorKind::Unavailable, message)
                .with_remedy(
                    "use fewer slots or landing_bytes, raise max_device_pinned_mem_size_kb in cufile.json, or use the engine uring",
                )
                .with_source(refusal)
        })?;
        Ok(Self { memory: Arc::clone(memory), open: Arc::clone(open) })
    }

    /// Whether this is the memory.
    pub(super) fn is_of(&self, memory: &Arc<DeviceMemory>) -> bool {
        Arc::ptr_eq(&self.memory, memory)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: registered, and no read uses it: reads hold the session that owns this.
        let _ = unsafe { self.open.library().cuFileBufDeregister(self.memory.address() as *const _) };
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({:#x})", self.memory.address())
    }
}
