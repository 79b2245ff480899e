//! Lanes: where a companion library does what is in no stream of the program's, such as a storage device that writes to
//! device memory. Work on a lane begins after what the host knows to be over when it is given, and comes before nothing
//! until the library asks whether it has ended, on which the host knows it. No wait of CUDA's waits for a lane.

use std::ffi::{c_char, c_int, c_void};

use crate::companion::{CRange, Companion, Run, ranges, text};
use crate::driver::{self, Driver};
use crate::memory::{Kind, State};
use crate::result::Code;
use crate::stream::Work;

/// `cuStreamCreate`'s flag for a stream that the legacy one does not wait for.
const NON_BLOCKING: u32 = 1;

/// What a companion asks about an address.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryFacts {
    /// Where its allocation begins.
    base: u64,
    /// How long that is.
    bytes: u64,
    /// Ordinal of its device.
    device: c_int,
    /// 1: device memory; 2: page-locked memory of the host; 3: managed memory.
    kind: c_int,
}

/// An operation's place in the order of things.
#[repr(C)]
#[derive(Debug)]
pub struct Moment {
    actor: u64,
    time: u64,
}

/// Begins work on a lane of the context that owns the memory which it writes first; else as `simcuda_enqueue`. `lane` gets
/// what to ask [`simcuda_ended`] about, until that has said yes.
///
/// # Safety
/// As for `simcuda_enqueue`; `lane` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_begin(
    name: *const c_char,
    run: Option<Run>,
    argument: *mut c_void,
    reads: *const CRange,
    read_count: usize,
    writes: *const CRange,
    write_count: usize,
    lane: *mut u64,
) -> Code {
    // SAFETY: as this function demands.
    let (name, reads, writes) = unsafe { (text(name), ranges(reads, read_count), ranges(writes, write_count)) };
    driver::enter(|driver| {
        let run = run.ok_or(Code::INVALID_VALUE)?;
        let first = writes.first().ok_or(Code::INVALID_VALUE)?.start;
        let context = driver.memory()?.known(first).ok_or(Code::INVALID_VALUE)?.context;
        driver.usable(context)?;
        let companion = Companion::new(driver, run, argument as usize, reads, writes)?;
        let handle = driver.free_lane(context);
        // SAFETY: as this function demands.
        unsafe { lane.write(handle) };
        driver.queue(handle, &name, Work::Companion(Box::new(companion)))
    })
}

/// 1 if the work on a lane is over; the host knows that from now on, and the lane is given back. Else 0, unless `wait`
/// is not 0. Negative if there is no such lane, as after its context has ended: then the work may not have been done.
#[unsafe(no_mangle)]
pub extern "C" fn simcuda_ended(lane: u64, wait: c_int) -> c_int {
    let mut answer = 0;
    let code = driver::enter(|driver| {
        driver.streams.get(&lane).filter(|stream| stream.lane == Some(true)).ok_or(Code::INVALID_HANDLE)?;
        let goal = driver.all_of(lane);
        if wait != 0 {
            driver.run_until(&[goal])?;
        } else if !driver.look(goal) {
            return Ok(());
        }
        answer = 1;
        driver.learn_all_of(lane);
        driver.forget_the_past();
        if let Some(stream) = driver.streams.get_mut(&lane) {
            stream.lane = Some(false);
        }
        Ok(())
    });
    if code == Code::SUCCESS { answer } else { -1 }
}

/// What lies at an address. 0: nothing that the device can reach; 1: memory; 2: memory that was freed.
///
/// # Safety
/// `facts` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_memory(address: u64, facts: *mut MemoryFacts) -> c_int {
    driver::locked(|driver| {
        let Some(allocation) = driver.memory().ok().and_then(|memory| memory.at(address).map(|at| memory.get(at)))
        else {
            return 0;
        };
        let kind = match allocation.kind {
            Kind::Device { .. } | Kind::Variable => 1,
            Kind::HostAllocated | Kind::HostRegistered => 2,
            Kind::Managed => 3,
        };
        let device = allocation.device as c_int;
        // SAFETY: as this function demands.
        unsafe { facts.write(MemoryFacts { base: allocation.base, bytes: allocation.len, device, kind }) };
        if matches!(allocation.state, State::Freed | State::Ending) { 2 } else { 1 }
    })
}

/// The moment at which all that was given to a stream is over; 1 if there is such a stream, else 0.
///
/// # Safety
/// `moment` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_last(stream: u64, moment: *mut Moment) -> c_int {
    let mut found = None;
    driver::enter(|driver| {
        let stream = driver.stream(stream)?;
        let stream = &driver.streams[&stream];
        // Each operation is a tick of its stream's clock.
        let time = stream.clock.at(stream.actor) + stream.queue.len() as u64;
        found = Some(Moment { actor: stream.actor as u64, time });
        Ok(())
    });
    let Some(last) = found else { return 0 };
    // SAFETY: as this function demands.
    unsafe { moment.write(last) };
    1
}

/// 1 if the host knows that this moment has passed.
///
/// # Safety
/// `moment` is one that `simcuda_last` gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simcuda_knows(moment: *const Moment) -> c_int {
    // SAFETY: as this function demands.
    let Moment { actor, time } = unsafe { moment.read() };
    driver::locked(|driver| c_int::from(driver.host.at(actor as usize) >= time))
}

/// A number below `bound` of those that the seed decides.
#[unsafe(no_mangle)]
pub extern "C" fn simcuda_random(bound: u64) -> u64 {
    driver::locked(|driver| driver.random.below(bound as usize) as u64)
}

impl Driver {
    /// A lane that nothing happens on, and that the host knows nothing happens on: now it is in use.
    fn free_lane(&mut self, context: u64) -> u64 {
        let free = self.streams.iter().find(|(_, stream)| stream.context == context && stream.lane == Some(false));
        let handle = match free {
            Some((handle, _)) => *handle,
            None => self.create_stream(context, NON_BLOCKING, 0),
        };
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.lane = Some(true);
        }
        handle
    }

    /// Reports what is done on lanes of a context that ends.
    pub fn report_lanes(&mut self, context: u64) {
        let lanes = self.streams.values().filter(|stream| stream.context == context && stream.lane == Some(true));
        let waiting: Vec<String> =
            lanes.filter_map(|stream| stream.queue.front()).map(|op| op.name.to_string()).collect();
        waiting.iter().for_each(|name| self.report("race", &format!("a context ends before {name} has ended")));
    }
}
