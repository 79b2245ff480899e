//! What the tests' programs are made of: a file, a device, and the library opened on both.
#![allow(dead_code)] // Each test file uses its part.

#[path = "../../../../cuda_support/mod.rs"]
mod cuda_support;

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cudarc::driver::{CudaContext, CudaStream, result};
use cufile_sys::Library;
use cufile_sys::sys::*;

pub use cuda_support::{Session, Simulator};

/// What direct reads are aligned to.
pub const PAGE: usize = 4096;
/// Pages of the file, and of the buffer.
pub const PAGES: usize = 8;

/// Seeds that a fault has to be caught within.
const SEEDS_TO_CATCH: u64 = 20;
/// Seeds over which what is right must not be reported.
const SEEDS_TO_PASS: u64 = 50;

/// The stand-in within this process, and the driver under it, for one test at a time.
pub struct Stand {
    pub session: Session,
    pub cufile: &'static Library,
    own: libloading::Library,
}

/// Both of them fresh, without faults planted.
pub fn stand() -> Stand {
    let session = cuda_support::session(1);
    let path = std::env::current_exe().unwrap().with_file_name("libsimcufile.so");
    let cufile = Library::open_at(&path).unwrap();
    // SAFETY: it is loaded already.
    let own = unsafe { libloading::Library::new(&path) }.unwrap();
    let stand = Stand { session, cufile, own };
    for name in ["path", "fail", "short", "stuck", "version", "behind", "watch"] {
        stand.set(name, "");
    }
    stand.restart(1);
    stand
}

impl Stand {
    /// Sets what the environment variable `SIMCUFILE_` and the name would.
    pub fn set(&self, name: &str, value: impl ToString) {
        let (name, value) = (CString::new(name).unwrap(), CString::new(value.to_string()).unwrap());
        type Configure = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;
        // SAFETY: the function is the stand-in's, of this signature; both are strings.
        let code = unsafe { self.own.get::<Configure>("simcufile_configure").unwrap()(name.as_ptr(), value.as_ptr()) };
        assert_eq!(code, 0, "{name:?}={value:?}: {:?}", self.session.reports());
    }

    /// Begins anew, with what was set.
    pub fn restart(&self, seed: u64) {
        self.session.restart(seed);
        self.call("simcufile_reset");
    }

    /// Ends what the end of the process would.
    pub fn finish(&self) {
        self.call("simcufile_finish");
        self.session.finish();
    }

    fn call(&self, name: &str) {
        // SAFETY: the function is the stand-in's, of this signature.
        unsafe { self.own.get::<extern "C" fn()>(name).unwrap()() };
    }

    /// Opens the driver and a device.
    pub fn open(&self) -> Device {
        open(self.cufile)
    }
}

/// A driver for programs in processes of their own, which find the stand-in there too.
pub fn simulator() -> Simulator {
    cuda_support::simulator().library("libsimcufile.so", &["libcufile.so", "libcufile.so.0"])
}

/// Opens what such a process finds.
pub fn open_in_process() -> Device {
    open(Library::open().unwrap())
}

/// Opens a file and a device, registers both, lets `body` happen, and gives all back.
pub fn with_file(stand: &Stand, path: &Path, body: impl Fn(&Device, CUfileHandle_t)) {
    let file = direct(path).unwrap();
    let device = stand.open();
    device.register();
    let handle = device.handle(&file).unwrap();
    body(&device, handle);
    // Some of this is wrong after some faults; the first report has been made.
    // SAFETY: the stand-in checks what it is given.
    unsafe {
        device.cufile().cuFileHandleDeregister(handle).ok();
        device.cufile().cuFileBufDeregister(device.at(0)).ok();
        device.cufile().cuFileDriverClose_v2().ok();
    }
    device.free();
}

fn open(cufile: &'static Library) -> Device {
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    // SAFETY: the stand-in needs no /proc/modules.
    unsafe { cufile.cuFileDriverOpen() }.unwrap();
    // SAFETY: a context is current.
    let memory = unsafe { result::malloc_sync((PAGES + 1) * PAGE) }.unwrap();
    let base = memory.next_multiple_of(PAGE as u64);
    Device { cufile, context, stream, memory, is_freed: AtomicBool::new(false), base }
}

/// Runs a program that commits a fault: some of the seeds must say so, in a report that has these words.
pub fn caught(words: &str, program: impl Fn(&Stand)) {
    let stand = stand();
    for seed in 1..=SEEDS_TO_CATCH {
        stand.restart(seed);
        program(&stand);
        stand.finish();
        let reports = stand.session.reports();
        if !reports.is_empty() {
            assert!(reports.iter().any(|report| report.contains(words)), "seed {seed}: not {words:?} but {reports:?}");
            return;
        }
    }
    panic!("{words:?} is not caught in {SEEDS_TO_CATCH} seeds");
}

/// Runs a program that does it right: no seed may say otherwise.
pub fn passes(program: impl Fn(&Stand)) {
    let stand = stand();
    for seed in 1..=SEEDS_TO_PASS {
        stand.restart(seed);
        program(&stand);
        stand.finish();
        assert_eq!(stand.session.reports(), Vec::<String>::new(), "seed {seed}");
    }
}

/// A device with a buffer, which is not registered yet, and a stream.
pub struct Device {
    cufile: &'static Library,
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    memory: u64,
    is_freed: AtomicBool,
    /// The buffer: [`PAGES`], aligned.
    pub base: u64,
}

impl Device {
    pub fn cufile(&self) -> &'static Library {
        self.cufile
    }

    pub fn register(&self) {
        // SAFETY: the buffer lies within an allocation.
        unsafe { self.cufile().cuFileBufRegister(self.at(0), PAGES * PAGE, 0) }.unwrap();
    }

    pub fn deregister(&self) {
        // SAFETY: tests do when no read uses it, or to be caught.
        unsafe { self.cufile().cuFileBufDeregister(self.at(0)) }.unwrap();
    }

    pub fn at(&self, offset: usize) -> *mut c_void {
        ptr::without_provenance_mut(self.base as usize + offset)
    }

    /// Makes a file known.
    pub fn handle(&self, file: &File) -> Result<CUfileHandle_t, cufile_sys::Error> {
        let mut handle = ptr::null_mut();
        let mut description = CUfileDescr_t {
            type_: CUfileFileHandleType::CU_FILE_HANDLE_TYPE_OPAQUE_FD,
            handle: CUfileDescr_t__bindgen_ty_1 { fd: file.as_raw_fd() },
            fs_ops: ptr::null(),
        };
        // SAFETY: both pointers are valid.
        unsafe { self.cufile().cuFileHandleRegister(&mut handle, &mut description) }.map(|()| handle)
    }

    pub fn forget(&self, handle: CUfileHandle_t) {
        // SAFETY: tests do when no read uses it, or to be caught.
        unsafe { self.cufile().cuFileHandleDeregister(handle) }.unwrap();
    }

    /// Reads pages of the file to the same pages of the buffer, and waits.
    pub fn read(&self, handle: CUfileHandle_t, page: usize, pages: usize) -> Result<usize, cufile_sys::Error> {
        let offset = (page * PAGE) as off_t;
        // SAFETY: the stand-in checks what it is given.
        unsafe { self.cufile().cuFileRead(handle, self.at(0), pages * PAGE, offset, offset) }
    }

    /// An entry of a batch that does so; its cookie is the page.
    pub fn entry(&self, handle: CUfileHandle_t, page: usize) -> CUfileIOParams_t {
        let offset = (page * PAGE) as off_t;
        let batch = CUfileIOParams__bindgen_ty_1__bindgen_ty_1 {
            devPtr_base: self.at(0),
            file_offset: offset,
            devPtr_offset: offset,
            size: PAGE,
        };
        CUfileIOParams_t {
            mode: CUfileBatchMode_t::CUFILE_BATCH,
            u: CUfileIOParams__bindgen_ty_1 { batch },
            fh: handle,
            opcode: CUfileOpcode_t::CUFILE_READ,
            cookie: ptr::without_provenance_mut(page),
        }
    }

    pub fn batch(&self, entries_max: usize) -> CUfileBatchHandle_t {
        let mut batch = ptr::null_mut();
        // SAFETY: the pointer is valid.
        unsafe { self.cufile().cuFileBatchIOSetUp(&mut batch, entries_max as c_uint) }.unwrap();
        batch
    }

    pub fn submit(
        &self,
        batch: CUfileBatchHandle_t,
        entries: &mut [CUfileIOParams_t],
    ) -> Result<(), cufile_sys::Error> {
        // SAFETY: the stand-in checks what it is given.
        unsafe { self.cufile().cuFileBatchIOSubmit(batch, entries.len() as c_uint, entries.as_mut_ptr(), 0) }
    }

    /// Takes at least some ends of reads: cookie, status, and bytes or the negative of a reason. If one has failed, so does
    /// the call, which is no error here.
    pub fn ends(
        &self,
        batch: CUfileBatchHandle_t,
        count_min: usize,
        timeout: Option<Duration>,
    ) -> Result<Vec<(usize, CUfileStatus_t, isize)>, cufile_sys::Error> {
        let none = CUfileIOEvents_t { cookie: ptr::null_mut(), status: CUfileStatus_t::CUFILE_WAITING, ret: 9 };
        let (mut events, mut count) = ([none; PAGES], PAGES as c_uint);
        let mut timeout = timeout
            .map(|timeout| timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) });
        let timeout = timeout.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // SAFETY: there is room for as many events as are asked for.
        let answer = unsafe {
            let (min, events) = (count_min as c_uint, events.as_mut_ptr());
            self.cufile().cuFileBatchIOGetStatus(batch, min, &mut count, events, timeout)
        };
        let taken = events[..count as usize].iter().filter(|event| event.status.0 != 0);
        let has_failed = taken.clone().any(|event| event.status == CUfileStatus_t::CUFILE_FAILED);
        match answer {
            Err(error) if !(has_failed && error.code() == Some(CUfileOpError::CU_FILE_IO_ERROR)) => return Err(error),
            answer => assert_eq!(answer.is_err(), has_failed),
        }
        Ok(taken.map(|event| (event.cookie.addr(), event.status, event.ret as isize)).collect())
    }

    /// Takes all the ends, waiting for each.
    pub fn all_ends(&self, batch: CUfileBatchHandle_t, count: usize) -> Vec<(usize, CUfileStatus_t, isize)> {
        let mut ends = Vec::new();
        while ends.len() < count {
            ends.extend(self.ends(batch, 1, None).unwrap());
        }
        ends
    }

    pub fn cancel(&self, batch: CUfileBatchHandle_t) {
        // SAFETY: the batch is live, or the stand-in says so.
        unsafe { self.cufile().cuFileBatchIOCancel(batch) }.unwrap();
    }

    pub fn destroy(&self, batch: CUfileBatchHandle_t) {
        // SAFETY: tests do when no read of it runs, or to be caught.
        unsafe { self.cufile().cuFileBatchIODestroy(batch) }.unwrap();
    }

    /// Reads in a stream.
    pub fn read_async(
        &self,
        handle: CUfileHandle_t,
        numbers: &mut InStream,
        stream: &CudaStream,
    ) -> Result<(), cufile_sys::Error> {
        let InStream { size, file_offset, base_offset, read } = numbers;
        // SAFETY: the numbers outlive the wait for the stream, or the test is about that.
        unsafe {
            let stream = stream.cu_stream().cast();
            self.cufile().cuFileReadAsync(handle, self.at(0), size, file_offset, base_offset, read, stream)
        }
    }

    /// The buffer's bytes.
    pub fn bytes(&self, page: usize, pages: usize) -> Vec<u8> {
        let mut bytes = vec![0; pages * PAGE];
        let from = self.base + (page * PAGE) as u64;
        // SAFETY: the range is within the buffer.
        unsafe { result::memcpy_dtoh_sync(&mut bytes, from) }.unwrap();
        bytes
    }

    /// Fills the buffer from its start.
    pub fn write(&self, bytes: &[u8]) {
        // SAFETY: the range is within the buffer.
        unsafe { result::memcpy_htod_sync(self.base, bytes) }.unwrap();
    }

    /// Frees the buffer's memory, unless it is freed.
    pub fn free(&self) {
        if !self.is_freed.swap(true, Ordering::Relaxed) {
            // SAFETY: tests do when nothing uses it, or to be caught.
            unsafe { result::free_sync(self.memory) }.unwrap();
        }
    }

    pub fn close(&self) {
        // SAFETY: tests do when nothing is left, or to be caught.
        unsafe { self.cufile().cuFileDriverClose_v2() }.unwrap();
    }

    /// What the library counts from now on.
    pub fn count(&self) {
        // SAFETY: no precondition.
        unsafe {
            self.cufile().cuFileSetStatsLevel(3).unwrap();
            self.cufile().cuFileStatsStart().unwrap();
        }
    }
}

/// The numbers of an asynchronous read.
pub struct InStream {
    pub size: usize,
    pub file_offset: off_t,
    pub base_offset: off_t,
    pub read: isize,
}

/// Those of a page.
pub fn page_in_stream(page: usize) -> InStream {
    let offset = (page * PAGE) as off_t;
    InStream { size: PAGE, file_offset: offset, base_offset: offset, read: 0 }
}

/// A folder on a file system that knows direct I/O, with a file of [`PAGES`] of noise in it; none, and words, where there is
/// no such file system.
pub fn folder() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, noise(1)).unwrap();
    if direct(&path).is_none() {
        eprintln!("skipped: {} has no direct I/O", folder.path().display());
        return None;
    }
    Some(folder)
}

/// A file, opened for direct I/O.
pub fn direct(path: &Path) -> Option<File> {
    File::options().read(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

/// Bytes of a file's length.
pub fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..PAGES * PAGE).map(byte).collect()
}
