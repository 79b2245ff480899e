//! The simulated driver in this process, and what the environment asks for.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use libloading::os::unix::{Library, RTLD_LAZY};
use nvjpeg_sys::sys::nvjpegStatus_t;

/// `RTLD_NOLOAD` of glibc: only what is loaded already.
const RTLD_NOLOAD: c_int = 4;

/// `CU_POINTER_ATTRIBUTE_MEMORY_TYPE`, and `CU_MEMORYTYPE_DEVICE`.
const MEMORY_TYPE: c_int = 2;
const MEMORY_TYPE_DEVICE: u32 = 2;

/// A range of device memory, or of page-locked memory of the host.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Its first byte.
    pub address: u64,
    /// How many.
    pub bytes: u64,
}

pub type Work = unsafe extern "C" fn(*mut c_void, *const *const c_void, *const *mut c_void) -> c_int;
type Enqueue = unsafe extern "C" fn(
    u64,
    *const c_char,
    Option<Work>,
    *mut c_void,
    *const Range,
    usize,
    *const Range,
    usize,
) -> c_int;
type Call = unsafe extern "C" fn(*const c_char, *mut c_int) -> c_int;
type Report = unsafe extern "C" fn(*const c_char, *const c_char);
type StreamDone = unsafe extern "C" fn(u64) -> c_int;
type SideStream = unsafe extern "C" fn(u64, *mut u64) -> c_int;
type Join = unsafe extern "C" fn(u64, u64) -> c_int;
type Run = unsafe extern "C" fn(u64) -> c_int;
type PointerAttribute = unsafe extern "C" fn(*mut c_void, c_int, u64) -> c_int;
type CurrentContext = unsafe extern "C" fn(*mut *mut c_void) -> c_int;

/// The entry points of the driver that this library uses.
pub struct Driver {
    enqueue: Enqueue,
    call: Call,
    report: Report,
    stream_done: StreamDone,
    side_stream: SideStream,
    join: Join,
    run: Run,
    pointer_attribute: PointerAttribute,
    current_context: CurrentContext,
}

/// The driver; none where the process has no simulated one.
pub fn driver() -> Option<&'static Driver> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    DRIVER.get_or_init(Driver::find).as_ref()
}

impl Driver {
    fn find() -> Option<Self> {
        // SAFETY: nothing is loaded that was not loaded before.
        let library = unsafe { Library::open(Some("libcuda.so.1"), RTLD_LAZY | RTLD_NOLOAD) }.ok()?;
        // The driver is never unloaded.
        let library = Box::leak(Box::new(library));
        // SAFETY: the types are those of simcuda's documentation and CUDA's header.
        unsafe {
            Some(Self {
                enqueue: *library.get::<Enqueue>("simcuda_enqueue").ok()?,
                call: *library.get::<Call>("simcuda_call").ok()?,
                report: *library.get::<Report>("simcuda_report").ok()?,
                stream_done: *library.get::<StreamDone>("simcuda_stream_done").ok()?,
                side_stream: *library.get::<SideStream>("simcuda_side_stream").ok()?,
                join: *library.get::<Join>("simcuda_join").ok()?,
                run: *library.get::<Run>("simcuda_run").ok()?,
                pointer_attribute: *library.get::<PointerAttribute>("cuPointerGetAttribute").ok()?,
                current_context: *library.get::<CurrentContext>("cuCtxGetCurrent").ok()?,
            })
        }
    }

    /// Queues work on a stream; the code of the driver if it refuses.
    ///
    /// # Safety
    ///
    /// `work` may be called once with `argument` from any thread.
    pub unsafe fn enqueue(
        &self,
        stream: u64,
        name: &str,
        work: Work,
        argument: *mut c_void,
        reads: &[Range],
        writes: &[Range],
    ) -> c_int {
        let name = text(name);
        let (read, written) = (reads.as_ptr(), writes.as_ptr());
        // SAFETY: the arrays are as long as is said, the name is a string; the rest is as the caller promises.
        unsafe { (self.enqueue)(stream, name.as_ptr(), Some(work), argument, read, reads.len(), written, writes.len()) }
    }

    /// Counts a call; what it is to answer at once if the driver's rules single it out.
    pub fn call(&self, name: &str) -> Option<c_int> {
        let (name, mut result) = (text(name), 0);
        // SAFETY: a string, and a pointer that is valid for a write.
        (unsafe { (self.call)(name.as_ptr(), &mut result) } != 0).then_some(result)
    }

    /// Whether nothing is queued on the stream and the host has waited for all that was.
    pub fn is_stream_done(&self, stream: u64) -> bool {
        // SAFETY: any number may be asked about.
        unsafe { (self.stream_done)(stream) != 0 }
    }

    /// A stream beside one of the program's, for work that keeps to no order but what the host has waited for. None
    /// where the context is lost.
    pub fn side_stream(&self, stream: u64) -> Option<u64> {
        let mut side = 0;
        // SAFETY: the pointer is valid for a write.
        let code = unsafe { (self.side_stream)(stream, &mut side) };
        (code == 0).then_some(side)
    }

    /// Has a stream wait for all of its side stream, and ends that; false where the context is lost.
    pub fn join(&self, stream: u64, side: u64) -> bool {
        // SAFETY: any number may be asked about.
        unsafe { (self.join)(stream, side) == 0 }
    }

    /// Runs all that is queued on a stream, of which the program learns nothing; false where the context is lost.
    pub fn run(&self, stream: u64) -> bool {
        // SAFETY: any number may be asked about.
        unsafe { (self.run)(stream) == 0 }
    }

    /// Whether an address is one of device memory.
    pub fn is_device_memory(&self, address: u64) -> bool {
        let mut kind: u32 = 0;
        // SAFETY: the pointer is valid for the attribute's four bytes; any address may be asked about.
        let code = unsafe { (self.pointer_attribute)((&raw mut kind).cast(), MEMORY_TYPE, address) };
        code == 0 && kind == MEMORY_TYPE_DEVICE
    }

    /// The context that is current on the calling thread; 0 without one.
    pub fn current_context(&self) -> usize {
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer is valid for a write.
        let code = unsafe { (self.current_context)(&mut context) };
        if code == 0 { context.addr() } else { 0 }
    }
}

/// Makes a report.
pub fn report(kind: &str, words: &str) {
    let Some(driver) = driver() else { return };
    let (kind, words) = (text(&format!("nvjpeg-{kind}")), text(words));
    // SAFETY: both are strings.
    unsafe { (driver.report)(kind.as_ptr(), words.as_ptr()) };
}

/// Makes a report of a wrong argument or the like, and is the answer to the call.
pub fn refuse(kind: &str, words: &str) -> nvjpegStatus_t {
    report(kind, words);
    nvjpegStatus_t::NVJPEG_STATUS_INVALID_PARAMETER
}

fn text(words: &str) -> CString {
    CString::new(words.replace('\0', "")).unwrap_or_default()
}

/// What [`simnvjpeg_engines`] was told last, if it was called: engines in the high half, cores of each in the low.
static ENGINES: AtomicU64 = AtomicU64::new(u64::MAX);

/// Sets what the environment variable `SIMNVJPEG_ENGINES` would, for tests within one process; 0 and 0 for no hardware.
#[unsafe(no_mangle)]
pub extern "C" fn simnvjpeg_engines(engines: u32, cores: u32) {
    ENGINES.store(u64::from(engines) << 32 | u64::from(cores), Ordering::Relaxed);
}

/// Engines and cores of each, where there is hardware.
pub fn engines() -> Option<(u32, u32)> {
    match ENGINES.load(Ordering::Relaxed) {
        u64::MAX => {
            let text = std::env::var("SIMNVJPEG_ENGINES").ok()?;
            let (engines, cores) = text.split_once('x')?;
            Some((engines.parse().ok()?, cores.parse().ok()?))
        }
        0 => None,
        told => Some(((told >> 32) as u32, told as u32)),
    }
}

/// Major, minor and patch level.
pub fn version() -> [c_int; 3] {
    let text = std::env::var("SIMNVJPEG_VERSION").unwrap_or_default();
    let numbers: Vec<_> = text.split('.').filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().unwrap_or([12, 4, 0])
}
