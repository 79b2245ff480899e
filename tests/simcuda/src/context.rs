//! Devices, contexts, and what a context's breaking means.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::ThreadId;

use crate::clock::Clock;
use crate::driver::Driver;
use crate::memory::{Allocation, Kind, State};
use crate::result::{Code, Outcome};
use crate::stream::Stream;

/// The stream that programs know as 0 or 1.
pub const LEGACY: u64 = 1;
/// The stream that programs know as 2: each thread has its own.
pub const PER_THREAD: u64 = 2;

/// A device.
#[derive(Debug, Default)]
pub struct Device {
    /// Its primary context, while retained.
    pub primary: Option<u64>,
    /// How often that was retained.
    pub retained: u64,
    /// Flags of the primary context.
    pub flags: u32,
    /// Device memory in use.
    pub used_bytes: u64,
    /// The most that was in use.
    pub used_bytes_max: u64,
}

/// A context.
#[derive(Debug)]
pub struct Context {
    /// Its device.
    pub device: usize,
    /// `CU_CTX_*`.
    pub flags: u32,
    /// What broke it: every call returns this from then on.
    pub broken: Option<Code>,
    /// Its legacy default stream.
    pub legacy: u64,
    /// Its threads' own default streams.
    pub per_thread: Vec<(ThreadId, u64)>,
    /// Contexts whose memory its kernels may use.
    pub peers: HashSet<u64>,
    /// What its destroyed streams did.
    pub retired: Clock,
    /// `CU_LIMIT_*` by number.
    pub limits: [usize; 8],
}

impl Driver {
    /// The device of this ordinal.
    ///
    /// # Errors
    /// `NOT_INITIALIZED` before `cuInit`, `INVALID_DEVICE` if there is none.
    pub fn device(&self, ordinal: i32) -> Outcome<usize> {
        self.memory()?;
        usize::try_from(ordinal).ok().filter(|device| *device < self.devices.len()).ok_or(Code::INVALID_DEVICE)
    }

    /// The context that is current on this thread, whatever its state.
    pub fn current_handle(&self) -> Option<u64> {
        self.with_stack(|stack| stack.last().copied())
    }

    /// The context that is current on this thread, if it can be worked with.
    ///
    /// # Errors
    /// What broke it, or that there is none.
    pub fn current(&self) -> Outcome<u64> {
        self.memory()?;
        let handle = self.current_handle().ok_or(Code::INVALID_CONTEXT)?;
        self.usable(handle)?;
        Ok(handle)
    }

    /// The context, if it can be worked with.
    ///
    /// # Errors
    /// What broke it, or that it is gone.
    pub fn usable(&self, handle: u64) -> Outcome<&Context> {
        let context = self.contexts.get(&handle).ok_or(Code::CONTEXT_IS_DESTROYED)?;
        context.broken.map_or(Ok(context), Err)
    }

    /// Makes a context and its legacy stream.
    pub fn create_context(&mut self, device: usize, flags: u32) -> u64 {
        let handle = self.handle();
        let context = Context {
            device,
            flags,
            broken: None,
            legacy: 0,
            per_thread: Vec::new(),
            peers: HashSet::new(),
            retired: Clock::default(),
            limits: [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0, 0],
        };
        self.contexts.insert(handle, context);
        let legacy = self.create_stream(handle, 0, 0);
        if let Some(context) = self.contexts.get_mut(&handle) {
            context.legacy = legacy;
        }
        handle
    }

    /// Makes a stream of a context.
    pub fn create_stream(&mut self, context: u64, flags: u32, priority: i32) -> u64 {
        let handle = self.handle();
        let actor = self.actors;
        self.actors += 1;
        let stream = Stream {
            context,
            actor,
            blocking: flags & 1 == 0,
            flags,
            priority,
            queue: Default::default(),
            clock: self.host.clone(),
            queued: 0,
            done: 0,
            busy: false,
            destroyed: false,
            lane: None,
        };
        self.streams.insert(handle, stream);
        handle
    }

    /// What a program means by a stream: 0, 1 and 2 are those of the current context.
    ///
    /// # Errors
    /// What broke its context; `INVALID_HANDLE`, with a report, if there is none.
    pub fn stream(&mut self, stream: u64) -> Outcome<u64> {
        match stream {
            0 | LEGACY => {
                let context = self.current()?;
                Ok(self.contexts[&context].legacy)
            }
            PER_THREAD => self.per_thread_stream(),
            _ => {
                let Some(found) = self.streams.get(&stream).filter(|found| !found.destroyed) else {
                    self.report("handle", &format!("stream {stream:#x} does not exist, or no longer"));
                    return Err(Code::INVALID_HANDLE);
                };
                self.usable(found.context)?;
                Ok(stream)
            }
        }
    }

    fn per_thread_stream(&mut self) -> Outcome<u64> {
        let handle = self.current()?;
        let thread = std::thread::current().id();
        let known = self.contexts[&handle].per_thread.iter().find(|(of, _)| *of == thread).map(|(_, stream)| *stream);
        if let Some(stream) = known {
            return Ok(stream);
        }
        let stream = self.create_stream(handle, 0, 0);
        if let Some(context) = self.contexts.get_mut(&handle) {
            context.per_thread.push((thread, stream));
        }
        Ok(stream)
    }

    /// Breaks the context that is current, and returns what its calls return from now on.
    pub fn break_current(&mut self, code: Code) -> Code {
        if let Some(handle) = self.current_handle() {
            self.break_context(handle, code);
        }
        code
    }

    /// Breaks a context. What it has queued will not be done.
    pub fn break_context(&mut self, handle: u64, code: Code) {
        if let Some(context) = self.contexts.get_mut(&handle) {
            context.broken.get_or_insert(code);
            self.broke = true;
        }
    }

    /// Ends a context: what it still has is reported, unless it could not have been freed, and is gone.
    pub fn destroy_context(&mut self, handle: u64) {
        let Some(context) = self.contexts.remove(&handle) else { return };
        let own = [context.legacy].into_iter().chain(context.per_thread.iter().map(|(_, stream)| *stream));
        own.for_each(|stream| drop(self.streams.remove(&stream)));
        if context.broken.is_none() {
            self.report_lanes(handle);
            self.report_left(handle, "its context ended");
        }
        self.streams.retain(|_, stream| stream.context != handle);
        self.events.retain(|_, event| event.context != handle);
        self.modules.retain(|_, module| module.context != handle);
        self.functions.retain(|_, function| function.context != handle);
        self.show_all_host_memory(handle);
        let left: Vec<usize> = self.allocations_of(handle).map(|(index, _)| index).collect();
        left.into_iter().for_each(|index| self.end_allocation(index));
    }

    /// Reports what a context has and should have given back.
    pub fn report_left(&mut self, handle: u64, when: &str) {
        let mut left = self.left_memory(handle);
        let streams = self
            .streams
            .values()
            .filter(|stream| stream.context == handle && !stream.destroyed && stream.lane.is_none())
            .count();
        let events = self.events.values().filter(|event| event.context == handle).count();
        let modules = self.modules.values().filter(|module| module.context == handle).count();
        for (count, what) in [(streams, "streams"), (events, "events"), (modules, "modules")] {
            if count > 0 {
                left.push(format!("{count} {what} not destroyed"));
            }
        }
        left.iter().for_each(|left| self.report("leak", &format!("{left} when {when}")));
    }

    /// Memory of a context that should have been given back, in words.
    pub fn left_memory(&self, handle: u64) -> Vec<String> {
        let unfreed = self
            .allocations_of(handle)
            .filter(|(_, allocation)| allocation.state != State::Ending && allocation.kind != Kind::Variable);
        let words = |allocation: &Allocation| match allocation.kind {
            Kind::HostRegistered => format!("host memory {} still registered", allocation.describe()),
            _ => format!("memory {} not freed", allocation.describe()),
        };
        unfreed.map(|(_, allocation)| words(allocation)).collect()
    }

    /// Memory of a context.
    pub fn allocations_of(&self, handle: u64) -> impl Iterator<Item = (usize, &Allocation)> {
        let all = self.memory().ok().into_iter().flat_map(|memory| memory.live());
        all.filter(move |(_, allocation)| allocation.context == handle)
    }

    /// Ends an allocation and gives its memory back to the device.
    pub fn end_allocation(&mut self, index: usize) {
        let Ok(memory) = self.memory_mut() else { return };
        let allocation = memory.get(index);
        let (kind, device, len) = (allocation.kind, allocation.device, allocation.len);
        memory.end(index);
        if matches!(kind, Kind::Device { .. } | Kind::Managed) {
            let device = &mut self.devices[device];
            device.used_bytes = device.used_bytes.saturating_sub(len);
        }
    }

    /// Where an allocation comes from, for reports.
    pub fn origin(&self, name: &str) -> Arc<str> {
        self.calls.label(name).into()
    }
}
