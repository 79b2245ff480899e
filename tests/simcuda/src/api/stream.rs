//! Streams.

use std::ffi::{c_int, c_uint, c_void};

use super::{Out, entries};
use crate::driver::Locked;
use crate::result::{Code, Outcome};
use crate::schedule::{Goal, Step};
use crate::stream::{HostFunction, Work};

impl Locked {
    /// Waits for all that a stream has queued, and learns that it is over.
    ///
    /// # Errors
    /// What broke its context.
    pub fn synchronize_stream(&mut self, stream: u64) -> Outcome {
        let context = self.streams.get(&stream).ok_or(Code::INVALID_HANDLE)?.context;
        let goal = self.all_of(stream);
        self.run_until(&[goal])?;
        self.learn_all_of(stream);
        self.forget_the_past();
        self.usable(context).map(drop)
    }

    /// Whether a goal is reached, at which a program looks without waiting: things may go on before it does.
    pub fn look(&mut self, goal: Goal) -> bool {
        while !self.reached(goal) && self.random.chance(128) {
            if self.step(Some(&[goal])) != Step::Ran {
                break;
            }
        }
        self.reached(goal)
    }

    fn new_stream(&mut self, out: Out<u64>, flags: c_uint, priority: c_int) -> Outcome {
        let context = self.current()?;
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        out.set(self.create_stream(context, flags, priority.clamp(-5, 0)))
    }
}

entries! {
    fn cuStreamCreate(stream: Out<u64>, flags: c_uint) |d| {
        d.new_stream(stream, flags, 0)
    }
    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: c_uint, priority: c_int) |d| {
        d.new_stream(stream, flags, priority)
    }
    fn cuStreamDestroy_v2(stream: u64) |d| {
        if stream < 16 {
            return Err(Code::INVALID_HANDLE);
        }
        let handle = d.stream(stream)?;
        if let Some(stream) = d.streams.get_mut(&handle) {
            stream.destroyed = true;
            if stream.queue.is_empty() && !stream.busy {
                d.retire(handle);
            }
        }
        Ok(())
    }
    fn cuStreamSynchronize(stream: u64) |d| {
        let stream = d.stream(stream)?;
        d.synchronize_stream(stream)
    }
    fn cuStreamQuery(stream: u64) |d| {
        let stream = d.stream(stream)?;
        let goal = d.all_of(stream);
        if !d.look(goal) {
            return Err(Code::NOT_READY);
        }
        d.synchronize_stream(stream)
    }
    fn cuStreamWaitEvent(stream: u64, event: u64, _flags: c_uint) |d| {
        let stream = d.stream(stream)?;
        // What the event was last recorded for counts, now and not when the stream gets there.
        match d.event(event)?.record.clone() {
            Some(record) => d.queue(stream, "cuStreamWaitEvent", Work::Wait(record)),
            None => Ok(()),
        }
    }
    fn cuStreamGetPriority(stream: u64, priority: Out<c_int>) |d| {
        let stream = d.stream(stream)?;
        priority.set(d.streams[&stream].priority)
    }
    fn cuStreamGetFlags(stream: u64, flags: Out<c_uint>) |d| {
        let stream = d.stream(stream)?;
        flags.set(d.streams[&stream].flags)
    }
    fn cuStreamGetId(stream: u64, id: Out<u64>) |d| {
        let stream = d.stream(stream)?;
        id.set(stream)
    }
    fn cuStreamGetCtx(stream: u64, context: Out<u64>) |d| {
        let stream = d.stream(stream)?;
        context.set(d.streams[&stream].context)
    }
    fn cuStreamGetDevice(stream: u64, device: Out<c_int>) |d| {
        let stream = d.stream(stream)?;
        let context = d.streams[&stream].context;
        device.set(d.usable(context)?.device as c_int)
    }
    fn cuStreamIsCapturing(stream: u64, status: Out<c_uint>) |d| {
        d.stream(stream)?;
        status.set(0)
    }
    fn cuStreamGetCaptureInfo_v2(
        stream: u64, status: Out<c_uint>, id: Out<u64>, _graph: *mut c_void, _nodes: *mut c_void, _count: *mut usize
    ) |d| {
        d.stream(stream)?;
        id.set_if_wanted(0);
        status.set(0)
    }
    fn cuStreamAttachMemAsync(stream: u64, _at: u64, _len: usize, _flags: c_uint) |d| {
        d.stream(stream).map(drop)
    }
    fn cuLaunchHostFunc(
        stream: u64, function: Option<unsafe extern "C" fn(*mut c_void)>, argument: *mut c_void
    ) |d| {
        let function = function.ok_or(Code::INVALID_VALUE)?;
        let stream = d.stream(stream)?;
        d.queue(stream, "cuLaunchHostFunc", Work::Host(HostFunction::Plain(function, argument as usize)))
    }
    fn cuStreamAddCallback(
        stream: u64, function: Option<unsafe extern "C" fn(u64, Code, *mut c_void)>, argument: *mut c_void,
        _flags: c_uint
    ) |d| {
        let function = function.ok_or(Code::INVALID_VALUE)?;
        let handle = d.stream(stream)?;
        let function = HostFunction::Callback(function, stream, argument as usize);
        d.queue(handle, "cuStreamAddCallback", Work::Host(function))
    }
}
