//! What the library has been told of: files, buffers, batches, streams, and the reads in flight. Handles are numbers that are
//! never used again, so that one that was given back is known.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use cufile_sys::sys::*;

use crate::batch::Batch;
use crate::driver::{Memory, driver, report, report_kind};
use crate::file::File;
use crate::parameters::Parameters;
use crate::read::Read;
use crate::settings::settings;
use crate::stats::stats;
use crate::watch;

/// Where the numbers of handles start: no address that a program has.
const FIRST: usize = 0x4355_4649_0000;

/// All that is registered, and all that is in flight.
#[derive(Default)]
pub struct Library {
    /// How often it is open.
    pub uses: i64,
    /// As they were set before it was opened.
    pub parameters: Parameters,
    /// By handle.
    pub files: HashMap<usize, File>,
    /// By address.
    pub buffers: BTreeMap<u64, Buffer>,
    /// By handle.
    pub batches: HashMap<usize, Batch>,
    /// Flags by stream.
    pub streams: HashMap<u64, c_uint>,
    /// Reads that the program does not know to be over.
    pub in_flight: Vec<Arc<Read>>,
    /// Reads so far.
    pub reads: u64,
    made: usize,
}

/// A registered buffer.
pub struct Buffer {
    /// How many bytes.
    pub bytes: u64,
    /// The memory that it is in, as it was.
    pub memory: Memory,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub code: CUfileOpError,
    pub cuda: CUresult,
}

/// What a call answers.
pub type Answer<T = ()> = Result<T, Refusal>;

impl From<CUfileOpError> for Refusal {
    fn from(code: CUfileOpError) -> Self {
        Self { code, cuda: 0 }
    }
}

/// Makes a report, and is the answer to the call.
pub fn refuse(kind: &str, words: &str, code: CUfileOpError) -> Refusal {
    report(kind, words);
    code.into()
}

/// The library, locked. The lock must not be held when the driver may run something.
pub fn library() -> MutexGuard<'static, Library> {
    static LIBRARY: LazyLock<Mutex<Library>> = LazyLock::new(|| {
        PROCESS.store(std::process::id(), Ordering::Relaxed);
        // SAFETY: a function of this library, which is never unloaded, and which may run when the process ends.
        unsafe { libc::atexit(at_exit) };
        watch::set(settings().watch);
        Mutex::default()
    });
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process that used the library first.
static PROCESS: AtomicU32 = AtomicU32::new(0);

extern "C" fn at_exit() {
    // A child that was forked ends too, and has nothing of its own to tell.
    if PROCESS.load(Ordering::Relaxed) == std::process::id() {
        simcufile_finish();
    }
}

/// Reports what the end of the process would: what is left, and what a test asked for that did not happen.
#[unsafe(no_mangle)]
pub extern "C" fn simcufile_finish() {
    let library = library();
    library.report_left("the process ended");
    let settings = settings().clone();
    let happened = |nth: u64| if nth == 0 { library.reads > 0 } else { nth <= library.reads };
    for (name, rules) in [("FAIL", &settings.fail), ("SHORT", &settings.short), ("STUCK", &settings.stuck)] {
        for rule in rules.iter().filter(|rule| !happened(rule.nth)) {
            report_kind("setting", &format!("SIMCUFILE_{name}: there was no read {}", rule.nth));
        }
    }
}

/// Forgets all but the settings, as `simcuda_reset` does, with which it is to be called.
#[unsafe(no_mangle)]
pub extern "C" fn simcufile_reset() {
    *library() = Library::default();
    stats().reset();
    watch::forget();
}

impl Library {
    /// A handle that nothing had before.
    pub fn handle(&mut self) -> usize {
        static MADE: Mutex<usize> = Mutex::new(0);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        *made += 1;
        self.made = *made;
        FIRST + 16 * self.made
    }

    /// That it is open.
    pub fn expect_open(&self, call: &str) -> Answer {
        if self.uses > 0 {
            return Ok(());
        }
        let words = format!("{call}: the driver is not open");
        Err(refuse("lifetime", &words, CUfileOpError::CU_FILE_DRIVER_NOT_INITIALIZED))
    }

    /// That it is open, for the statistics, which many programs ask for before: no fault of theirs.
    pub fn expect_counting(&self) -> Answer {
        if self.uses > 0 { Ok(()) } else { Err(CUfileOpError::CU_FILE_DRIVER_NOT_INITIALIZED.into()) }
    }

    /// A handle that is none, in words.
    pub fn describe_stale(handle: usize) -> String {
        let ours = handle > FIRST && handle - FIRST < 1 << 32 && handle.is_multiple_of(16);
        if ours { "a handle that was given back".to_owned() } else { format!("{handle:#x} is no handle") }
    }

    /// Reads that the program does not know to be over and that this is true of.
    pub fn in_flight(&mut self, of: impl Fn(&Read) -> bool) -> usize {
        self.forget_known();
        self.in_flight.iter().filter(|read| of(read)).count()
    }

    /// Forgets reads in streams that the program has waited for.
    pub fn forget_known(&mut self) {
        let Some(driver) = driver() else { return };
        self.in_flight.retain(|read| !read.is_known(driver));
    }

    /// The registered buffer that these bytes begin in, with its address.
    pub fn buffer_around(&self, address: u64) -> Option<(u64, &Buffer)> {
        let (base, buffer) = self.buffers.range(..=address).next_back()?;
        (address - base < buffer.bytes).then_some((*base, buffer))
    }

    /// Opens the driver, or counts.
    pub fn open(&mut self) -> Answer {
        if self.uses == 0 {
            let direct = settings().path.0 != crate::settings::Way::Posix && !self.parameters.forces_compatibility();
            if !direct && !self.parameters.allows_compatibility() {
                return Err(CUfileOpError::CU_FILE_DRIVER_NOT_INITIALIZED.into());
            }
        }
        self.uses += 1;
        Ok(())
    }

    /// Closes it once it was called as often as opened.
    pub fn close(&mut self) -> Answer {
        self.expect_open("cuFileDriverClose")?;
        if self.uses == 1 {
            let reads = self.in_flight(|_| true);
            if reads > 0 {
                let words = format!("cuFileDriverClose: {reads} reads are in flight");
                return Err(refuse("lifetime", &words, CUfileOpError::CU_FILE_DRIVER_CLOSING));
            }
            self.report_left("the driver was closed");
            let (parameters, reads) = (std::mem::take(&mut self.parameters), self.reads);
            *self = Self { parameters, reads, ..Self::default() };
            return Ok(());
        }
        self.uses -= 1;
        Ok(())
    }

    fn report_left(&self, when: &str) {
        for file in self.files.values() {
            report("lifetime", &format!("the handle of {} is still registered when {when}", file.path.display()));
            file.has_descriptor(when);
        }
        for (base, buffer) in &self.buffers {
            let state = if buffer.is_live(*base) { "" } else { ", and its memory is freed" };
            let words =
                format!("the buffer of {} bytes at {base:#x} is still registered when {when}{state}", buffer.bytes);
            report("lifetime", &words);
        }
        for (count, what) in
            [(self.batches.len(), "batches are not destroyed"), (self.streams.len(), "streams are still registered")]
        {
            if count > 0 {
                report("lifetime", &format!("{count} {what} when {when}"));
            }
        }
    }
}

impl Buffer {
    /// Whether the memory is still that which was registered.
    pub fn is_live(&self, base: u64) -> bool {
        let found = driver().and_then(|driver| driver.memory(base));
        found.is_some_and(|(memory, live)| live && memory.base == self.memory.base && memory.bytes == self.memory.bytes)
    }
}

/// What an entry point returns.
pub fn status(answer: Answer) -> CUfileError_t {
    let Refusal { code, cuda } = answer.err().unwrap_or(Refusal { code: CUfileOpError::CU_FILE_SUCCESS, cuda: 0 });
    CUfileError_t { err: code, cu_err: cuda }
}

/// Sets what `errno` is for this thread.
pub fn set_errno(errno: c_int) {
    // SAFETY: the pointer is to this thread's own.
    unsafe { *libc::__errno_location() = errno };
}
