//! What scenes with libcufile are played with: a file, a buffer on the device, batches. All are given back.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{mem, ptr};

use cudarc::driver::{CudaContext, result};
use cufile_sys::sys::*;
use cufile_sys::{Error, GpuReads, Library};

/// Length of the file, no multiple of what the library aligns to.
pub const FILE_BYTES: usize = 2_000_001;
/// Length of the buffer on the device.
pub const BUFFER_BYTES: usize = 1 << 20;
/// Status of an entry that was read.
pub const CUFILE_COMPLETE: u32 = CUFILEStatus_enum::CUFILE_COMPLETE.0;

/// A file, a buffer on the device, and the library's statistics from here on.
pub struct Stage {
    pub library: &'static Library,
    pub version: i32,
    pub context: Arc<CudaContext>,
    pub uuid: [u8; 16],
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    device: u64,
    pub file: Handle,
}

impl Stage {
    pub fn new(library: &'static Library, version: i32, context: &Arc<CudaContext>, path: &Path) -> Self {
        if version >= 1150 {
            // SAFETY: the calls ask for nothing.
            unsafe {
                library.cuFileSetStatsLevel(3).unwrap();
                library.cuFileStatsStart().unwrap();
            }
            let nothing = |gpu: &GpuReads| *gpu == GpuReads { uuid: gpu.uuid, ..GpuReads::default() };
            assert!(library.gpu_reads().unwrap().iter().all(nothing));
        } else {
            assert_eq!(library.gpu_reads(), Err(Error::Missing("cuFileGetStatsL3")));
        }
        let file = Handle::register(library, &open(path, libc::O_DIRECT)).unwrap();
        // SAFETY: a context is current.
        let device = unsafe { result::malloc_sync(BUFFER_BYTES) }.unwrap();
        // SAFETY: the memory was just made, and is given back when the stage goes.
        unsafe { library.cuFileBufRegister(device as *const c_void, BUFFER_BYTES, 0) }.unwrap();
        let uuid = context.uuid().unwrap().bytes.map(|byte| byte as u8);
        let (context, path, bytes) = (context.clone(), path.to_owned(), bytes());
        Self { library, version, context, uuid, path, bytes, device, file }
    }

    pub fn base(&self) -> *mut c_void {
        self.device as *mut c_void
    }

    /// Reads, and looks whether the bytes are the file's.
    pub fn read(&self, file: CUfileHandle_t, len: usize, from: usize, to: usize) -> Result<usize, Error> {
        // SAFETY: the handle is registered; the library checks the range.
        let read = unsafe { self.library.cuFileRead(file, self.base(), len, from as off_t, to as off_t) }?;
        self.expect(read, from, to);
        Ok(read)
    }

    pub fn expect(&self, len: usize, from: usize, to: usize) {
        if len == 0 {
            return;
        }
        let mut back = vec![0_u8; len];
        // SAFETY: the driver checks the range.
        unsafe { result::memcpy_dtoh_sync(&mut back, self.device + to as u64) }.unwrap();
        assert!(back == self.bytes[from..from + len], "{len} bytes at {from} of the file, at {to}");
    }

    /// Looks at the statistics, where the library has any.
    pub fn counted(&self, look: impl FnOnce()) {
        if self.version >= 1150 {
            look();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SAFETY: the buffer is registered, and nothing uses it any more.
        unsafe {
            self.library.cuFileBufDeregister(self.base()).unwrap();
            result::free_sync(self.device).unwrap();
        }
    }
}

/// Opens it to be registered.
pub fn open(path: &Path, flags: i32) -> Arc<File> {
    Arc::new(File::options().read(true).custom_flags(flags).open(path).unwrap())
}

/// A registered file, which stays open as long.
pub struct Handle {
    library: &'static Library,
    pub handle: CUfileHandle_t,
    _file: Arc<File>,
}

impl Handle {
    pub fn register(library: &'static Library, file: &Arc<File>) -> Result<Self, Error> {
        // SAFETY: numbers and null pointers.
        let mut descriptor: CUfileDescr_t = unsafe { mem::zeroed() };
        descriptor.type_ = CUfileFileHandleType::CU_FILE_HANDLE_TYPE_OPAQUE_FD;
        descriptor.handle.fd = file.as_raw_fd();
        let mut handle = ptr::null_mut();
        // SAFETY: both are valid, and the descriptor outlives the handle.
        unsafe { library.cuFileHandleRegister(&mut handle, &mut descriptor) }?;
        Ok(Self { library, handle, _file: file.clone() })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is registered, and no read uses it.
        unsafe { self.library.cuFileHandleDeregister(self.handle) }.unwrap();
    }
}

/// Reads that are submitted together.
pub struct Batch<'a> {
    stage: &'a Stage,
    batch: CUfileBatchHandle_t,
}

impl<'a> Batch<'a> {
    pub fn new(stage: &'a Stage, entries_max: u32) -> Self {
        let mut batch = ptr::null_mut();
        // SAFETY: the pointer is valid for a write.
        unsafe { stage.library.cuFileBatchIOSetUp(&mut batch, entries_max) }.unwrap();
        Self { stage, batch }
    }

    /// Entries of bytes, place in the file, and place in the buffer.
    pub fn submit(&self, entries: &[[usize; 3]]) -> Result<(), Error> {
        let entry = |(i, &[len, from, to]): (usize, &[usize; 3])| {
            // SAFETY: numbers and null pointers.
            let mut entry: CUfileIOParams_t = unsafe { mem::zeroed() };
            entry.mode = cufileBatchMode::CUFILE_BATCH;
            entry.u.batch.devPtr_base = self.stage.base();
            (entry.u.batch.file_offset, entry.u.batch.devPtr_offset) = (from as off_t, to as off_t);
            entry.u.batch.size = len;
            (entry.fh, entry.opcode) = (self.stage.file.handle, CUfileOpcode::CUFILE_READ);
            entry.cookie = (i + 1) as *mut c_void;
            entry
        };
        let mut entries: Vec<CUfileIOParams_t> = entries.iter().enumerate().map(entry).collect();
        // SAFETY: the batch is live, and the entries' places stay until their events have been taken.
        unsafe { self.stage.library.cuFileBatchIOSubmit(self.batch, entries.len() as u32, entries.as_mut_ptr(), 0) }
    }

    /// Up to so many events: which entry, its status, and bytes.
    pub fn events(&self, count: usize) -> Vec<(usize, u32, usize)> {
        let mut all = Vec::new();
        let mut empty = 0;
        while all.len() < count && empty < 3 {
            // SAFETY: numbers and null pointers.
            let mut events: Vec<CUfileIOEvents_t> = vec![unsafe { mem::zeroed() }; count];
            let (mut taken, mut timeout) = ((count - all.len()) as u32, timespec { tv_sec: 1, tv_nsec: 0 });
            let library = self.stage.library;
            // SAFETY: the batch is live, the events are as many as said.
            unsafe {
                library
                    .cuFileBatchIOGetStatus(self.batch, taken, &mut taken, events.as_mut_ptr(), &mut timeout)
                    .unwrap();
            }
            empty = if taken == 0 { empty + 1 } else { 0 };
            let number = |event: &CUfileIOEvents_t| (event.cookie as usize - 1, event.status.0, event.ret);
            all.extend(events[..taken as usize].iter().map(number));
        }
        all
    }

    pub fn cancel(&self) {
        // SAFETY: the batch is live.
        unsafe { self.stage.library.cuFileBatchIOCancel(self.batch) }.unwrap();
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // SAFETY: the batch is live, and its events have been taken.
        unsafe { self.stage.library.cuFileBatchIODestroy(self.batch) }.unwrap();
    }
}

/// What the file holds.
pub fn bytes() -> Vec<u8> {
    (0..FILE_BYTES as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
