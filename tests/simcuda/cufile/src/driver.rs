//! The simulated driver in this process.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_LAZY};

/// `RTLD_NOLOAD` of glibc: only what is loaded already.
const RTLD_NOLOAD: c_int = 4;

/// A range of device memory, or of page-locked memory of the host.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Its first byte.
    pub address: u64,
    /// How many.
    pub bytes: u64,
}

/// What lies at an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Where its allocation begins.
    pub base: u64,
    /// How long that is.
    pub bytes: u64,
    /// The ordinal of its device.
    pub device: c_int,
    /// Whether it is device memory or the host's.
    pub kind: c_int,
}

/// An operation's place in the order of things.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    actor: u64,
    time: u64,
}

pub type Work = unsafe extern "C" fn(*mut c_void, *const *const c_void, *const *mut c_void) -> c_int;
pub type Visit = unsafe extern "C" fn(*mut c_void, *const c_char, *const u8, usize);

/// The entry points of the driver that this library uses.
pub struct Driver {
    enqueue: unsafe extern "C" fn(
        u64,
        *const c_char,
        Option<Work>,
        *mut c_void,
        *const Range,
        usize,
        *const Range,
        usize,
    ) -> c_int,
    begin: unsafe extern "C" fn(
        *const c_char,
        Option<Work>,
        *mut c_void,
        *const Range,
        usize,
        *const Range,
        usize,
        *mut u64,
    ) -> c_int,
    ended: unsafe extern "C" fn(u64, c_int) -> c_int,
    memory: unsafe extern "C" fn(u64, *mut Memory) -> c_int,
    last: unsafe extern "C" fn(u64, *mut Moment) -> c_int,
    knows: unsafe extern "C" fn(*const Moment) -> c_int,
    random: unsafe extern "C" fn(u64) -> u64,
    call: unsafe extern "C" fn(*const c_char, *mut c_int) -> c_int,
    report: unsafe extern "C" fn(*const c_char, *const c_char),
    watch: unsafe extern "C" fn(Option<Visit>, *mut c_void),
    device_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    device_uuid: unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int,
}

/// The driver; none where the process has no simulated one.
pub fn driver() -> Option<&'static Driver> {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    match DRIVER.get() {
        // It may be loaded later than this library is first asked for its version.
        None => Driver::find().map(|found| DRIVER.get_or_init(|| found)),
        found => found,
    }
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
                enqueue: *library.get("simcuda_enqueue").ok()?,
                begin: *library.get("simcuda_begin").ok()?,
                ended: *library.get("simcuda_ended").ok()?,
                memory: *library.get("simcuda_memory").ok()?,
                last: *library.get("simcuda_last").ok()?,
                knows: *library.get("simcuda_knows").ok()?,
                random: *library.get("simcuda_random").ok()?,
                call: *library.get("simcuda_call").ok()?,
                report: *library.get("simcuda_report").ok()?,
                watch: *library.get("simcuda_watch").ok()?,
                device_count: *library.get("cuDeviceGetCount").ok()?,
                device_uuid: *library.get("cuDeviceGetUuid").ok()?,
            })
        }
    }

    /// Queues work that writes on a stream; the driver's code if it refuses.
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
        writes: &[Range],
    ) -> Result<(), c_int> {
        let (name, written) = (text(name), writes.as_ptr());
        let none = std::ptr::null();
        // SAFETY: the array is as long as is said, the name is a string; the rest is as the caller promises.
        match unsafe { (self.enqueue)(stream, name.as_ptr(), Some(work), argument, none, 0, written, writes.len()) } {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// Begins work that writes and that is in no stream; what to ask [`Self::has_ended`] about.
    ///
    /// # Safety
    ///
    /// `work` may be called once with `argument` from any thread.
    pub unsafe fn begin(&self, name: &str, work: Work, argument: *mut c_void, writes: &[Range]) -> Result<u64, c_int> {
        let (name, written, mut lane) = (text(name), writes.as_ptr(), 0);
        let none = std::ptr::null();
        // SAFETY: as in `enqueue`; the last may be written.
        match unsafe { (self.begin)(name.as_ptr(), Some(work), argument, none, 0, written, writes.len(), &mut lane) } {
            0 => Ok(lane),
            code => Err(code),
        }
    }

    /// Whether such work is over, which the host knows from now on; none if it will never be. Waits for it if told so.
    pub fn has_ended(&self, lane: u64, wait: bool) -> Option<bool> {
        // SAFETY: any number may be asked about.
        match unsafe { (self.ended)(lane, c_int::from(wait)) } {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// What lies at an address, and whether it is still there.
    pub fn memory(&self, address: u64) -> Option<(Memory, bool)> {
        let mut memory = Memory::default();
        // SAFETY: the pointer is valid for a write.
        match unsafe { (self.memory)(address, &mut memory) } {
            0 => None,
            state => Some((memory, state == 1)),
        }
    }

    /// When all is over that was given to a stream, if there is such a stream.
    pub fn last(&self, stream: u64) -> Option<Moment> {
        let mut moment = Moment::default();
        // SAFETY: the pointer is valid for a write.
        (unsafe { (self.last)(stream, &mut moment) } != 0).then_some(moment)
    }

    /// Whether the host knows that a moment has passed.
    pub fn knows(&self, moment: &Moment) -> bool {
        // SAFETY: the driver made it.
        unsafe { (self.knows)(moment) != 0 }
    }

    /// A number below `bound`, decided by the seed.
    pub fn random(&self, bound: usize) -> usize {
        // SAFETY: any number may be asked for.
        unsafe { (self.random)(bound as u64) as usize }
    }

    /// Counts a call; what it is to answer at once if the driver's rules single it out.
    pub fn call(&self, name: &str) -> Option<c_uint> {
        let (name, mut result) = (text(name), 0);
        // SAFETY: a string, and a pointer that is valid for a write.
        (unsafe { (self.call)(name.as_ptr(), &mut result) } != 0).then_some(result as c_uint)
    }

    /// Has host memory shown to `visit`, or no longer.
    pub fn watch(&self, visit: Option<Visit>) {
        // SAFETY: the functions of this library may be called from any thread, and it is never unloaded.
        unsafe { (self.watch)(visit, std::ptr::null_mut()) };
    }

    /// The identity of each device.
    pub fn devices(&self) -> Vec<[u8; 16]> {
        let mut count = 0;
        // SAFETY: the pointer is valid for a write.
        if unsafe { (self.device_count)(&mut count) } != 0 {
            return Vec::new();
        }
        let identity = |device| {
            let mut uuid = [0; 16];
            // SAFETY: as above.
            (unsafe { (self.device_uuid)(&mut uuid, device) } == 0).then_some(uuid)
        };
        (0..count).filter_map(identity).collect()
    }
}

/// Makes a report of the kind `cufile-` and this.
pub fn report(kind: &str, words: &str) {
    report_kind(&format!("cufile-{kind}"), words);
}

/// Makes a report.
pub fn report_kind(kind: &str, words: &str) {
    let Some(driver) = driver() else { return };
    let (kind, words) = (text(kind), text(words));
    // SAFETY: both are strings.
    unsafe { (driver.report)(kind.as_ptr(), words.as_ptr()) };
}

fn text(words: &str) -> CString {
    CString::new(words.replace('\0', "")).unwrap_or_default()
}
