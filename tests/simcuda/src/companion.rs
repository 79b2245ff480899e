//! Work of other libraries that are part of the simulation, such as a stand-in for a decoder of the vendor's: host code
//! that does at its turn in a stream what the real library's kernels would.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::driver::{self, Driver, Locked};
use crate::result::{Code, Outcome};
use crate::settings::Verdict;
use crate::stream::{Record, Work};

/// Bytes with an address on the device: device memory, or page-locked memory of the host.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CRange {
    address: u64,
    bytes: u64,
}

/// Gets a host pointer for each range, in order; null instead of the arrays if the context is lost and the work will
/// not be done. Returns 0, or the `CUresult` that breaks the context.
pub type Run = unsafe extern "C" fn(*mut c_void, *const *const c_void, *const *mut c_void) -> c_int;

/// Queued work of a companion library.
#[derive(Debug)]
pub struct Companion {
    /// What to call.
    pub run: Run,
    /// What to give it.
    pub argument: usize,
    /// What it reads.
    pub reads: Vec<Input>,
    /// What it writes, all of it.
    pub writes: Vec<Range<u64>>,
}

/// Something that a companion reads.
#[derive(Debug)]
pub enum Input {
    /// Pageable memory, taken at the call.
    Staged(Vec<u8>),
    /// Memory with an address on the device. The digest of what pinned memory held at the call.
    Memory(Range<u64>, Option<u64>),
}

impl Companion {
    /// The work, if its ranges are ones that it may have.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it would write to pageable memory, or what it reads is only partly page-locked.
    pub fn new(
        driver: &mut Locked,
        run: Run,
        argument: usize,
        reads: Vec<Range<u64>>,
        writes: Vec<Range<u64>>,
    ) -> Outcome<Self> {
        let inputs = reads.into_iter().map(|range| driver.companion_input(range)).collect::<Outcome<Vec<_>>>()?;
        if writes.iter().any(|range| !range.is_empty() && driver.memory().is_ok_and(|m| m.at(range.start).is_none())) {
            return Err(Code::INVALID_VALUE);
        }
        Ok(Self { run, argument, reads: inputs, writes })
    }

    /// Memory with an address on the device that it reads, and writes.
    pub fn touches(&self) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
        let reads = self.reads.iter().filter_map(|input| match input {
            Input::Memory(range, _) => Some(range.clone()),
            Input::Staged(_) => None,
        });
        (reads.collect(), self.writes.clone())
    }

    /// Calls it with these addresses: null for both if its work will not be done.
    pub fn call(&self, reads: *const *const u8, writes: *const *mut u8) -> Code {
        // SAFETY: the caller of `simcuda_enqueue` promised that it may be called with its argument, once, with as many
        // addresses as it gave ranges, or with null.
        Code(unsafe { (self.run)(self.argument as *mut c_void, reads.cast(), writes.cast()) })
    }
}

/// Queues `run` on a stream. It is called once, at its turn, under the driver's lock: it must not call the driver. Its
/// ranges are checked like a kernel's accesses: bounds, lifetime, whether what is read was ever written, and whether
/// other work on the same bytes is ordered with it. Pageable memory in `reads` is copied at the call; in `writes` it is
/// refused.
///
/// # Safety
/// `run` may be called with `argument` from any thread; the arrays hold as many ranges as said; pageable memory among
/// `reads` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_enqueue(
    stream: u64,
    name: *const c_char,
    run: Option<Run>,
    argument: *mut c_void,
    reads: *const CRange,
    read_count: usize,
    writes: *const CRange,
    write_count: usize,
) -> Code {
    // SAFETY: as this function demands.
    let (name, reads, writes) = unsafe { (text(name), ranges(reads, read_count), ranges(writes, write_count)) };
    driver::enter(|driver| {
        let run = run.ok_or(Code::INVALID_VALUE)?;
        let stream = driver.stream(stream)?;
        let companion = Companion::new(driver, run, argument as usize, reads, writes)?;
        driver.queue(stream, &name, Work::Companion(Box::new(companion)))
    })
}

/// Makes a stream that the program does not see, in the context of one of its own: for work of a companion that keeps
/// to no order but what the host has waited for, as that of an engine beside the streams does. [`simcuda_join`] ends
/// it.
///
/// # Safety
/// `side` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_side_stream(stream: u64, side: *mut u64) -> Code {
    driver::enter(|driver| {
        let stream = driver.stream(stream)?;
        let context = driver.streams[&stream].context;
        let made = driver.create_stream(context, NON_BLOCKING, 0);
        // SAFETY: as this function demands.
        unsafe { side.write(made) };
        Ok(())
    })
}

/// Has `stream` wait for all that was queued on a side stream, which is gone afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn simcuda_join(stream: u64, side: u64) -> Code {
    driver::enter(|driver| {
        let joined = driver.join_side(stream, side);
        if let Some(ending) = driver.streams.get_mut(&side) {
            ending.destroyed = true;
            if ending.queue.is_empty() {
                driver.retire(side);
            }
        }
        joined
    })
}

/// Runs all that is queued on a stream before it returns. Unlike a wait of the program's it teaches the host nothing:
/// for a library that waits within a call, and makes no promise that it does.
#[unsafe(no_mangle)]
pub extern "C" fn simcuda_run(stream: u64) -> Code {
    driver::enter(|driver| {
        let stream = driver.stream(stream)?;
        let context = driver.streams[&stream].context;
        let goal = driver.all_of(stream);
        driver.run_until(&[goal])?;
        driver.usable(context).map(drop)
    })
}

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

impl Driver {
    fn join_side(&mut self, stream: u64, side: u64) -> Outcome {
        let (stream, side) = (self.stream(stream)?, self.stream(side)?);
        let record = Arc::new(Record { stream: side, number: self.operations + 1, done: OnceLock::new() });
        self.queue(side, "simcuda_join", Work::Record(Arc::clone(&record)))?;
        self.queue(stream, "simcuda_join", Work::Wait(record))
    }
}

/// Counts a call of a companion library's own entry point, so that the rules of the environment apply to it. If this
/// returns something else than 0, the entry point is to return `*result` at once.
///
/// # Safety
/// `name` is a string, `result` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_call(name: *const c_char, result: *mut c_int) -> c_int {
    // SAFETY: as this function demands.
    let name = unsafe { text(name) };
    let code = match driver::locked(|driver| driver.count(&name)) {
        Verdict::Pass => return 0,
        Verdict::Drop => 0,
        Verdict::Fail(code) | Verdict::Sticky(code) => code.0,
    };
    // SAFETY: as this function demands.
    unsafe { result.write(code) };
    1
}

/// Makes a report in the name of a companion library.
///
/// # Safety
/// Both are strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_report(kind: *const c_char, words: *const c_char) {
    // SAFETY: as this function demands.
    let (kind, words) = unsafe { (text(kind), text(words)) };
    driver::report(&kind, &words);
}

/// 1 if nothing is queued on the stream and the host has waited for all that ran there, so that host objects which its
/// work uses may be destroyed; else 0.
#[unsafe(no_mangle)]
pub extern "C" fn simcuda_stream_done(stream: u64) -> c_int {
    driver::locked(|driver| c_int::from(driver.host_knows_all_of(stream)))
}

/// # Safety
/// It is a string or null.
pub unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as this function demands.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
/// There are as many.
pub unsafe fn ranges(ranges: *const CRange, count: usize) -> Vec<Range<u64>> {
    if ranges.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: as this function demands.
    let ranges = unsafe { std::slice::from_raw_parts(ranges, count) };
    ranges.iter().map(|range| range.address..range.address.saturating_add(range.bytes)).collect()
}
