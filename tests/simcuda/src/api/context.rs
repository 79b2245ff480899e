//! Contexts.

use std::ffi::{c_int, c_uint, c_void};

use super::{Out, entries};
use crate::driver::Locked;
use crate::result::{Code, Outcome};

impl Locked {
    /// Finishes what a context has queued, and ends it.
    pub fn end_context(&mut self, handle: u64) {
        let goals: Vec<_> = self.streams_of(handle).into_iter().map(|stream| self.all_of(stream)).collect();
        // Work that cannot end has been reported, and ends here.
        let _ = self.run_until(&goals);
        if let Some(device) = self.devices.iter_mut().find(|device| device.primary == Some(handle)) {
            device.primary = None;
            device.retained = 0;
        }
        self.destroy_context(handle);
    }

    /// Waits for all that a context has queued.
    ///
    /// # Errors
    /// What broke it.
    pub fn synchronize_context(&mut self, handle: u64) -> Outcome {
        self.usable(handle)?;
        let streams = self.streams_of(handle);
        let goals: Vec<_> = streams.iter().map(|stream| self.all_of(*stream)).collect();
        self.run_until(&goals)?;
        streams.into_iter().for_each(|stream| self.learn_all_of(stream));
        let retired = self.usable(handle)?.retired.clone();
        self.host.join(&retired);
        self.forget_the_past();
        Ok(())
    }

    fn streams_of(&self, context: u64) -> Vec<u64> {
        let of = self.streams.iter().filter(|(_, stream)| stream.context == context && stream.lane.is_none());
        of.map(|(handle, _)| *handle).collect()
    }

    fn create_current(&mut self, out: Out<u64>, flags: c_uint, device: c_int) -> Outcome {
        let device = self.device(device)?;
        let handle = self.create_context(device, flags);
        self.with_stack(|stack| stack.push(handle));
        out.set(handle)
    }
}

entries! {
    fn cuCtxCreate_v2(context: Out<u64>, flags: c_uint, device: c_int) |d| {
        d.create_current(context, flags, device)
    }
    fn cuCtxCreate_v3(context: Out<u64>, _affinity: *mut c_void, _count: c_int, flags: c_uint, device: c_int) |d| {
        d.create_current(context, flags, device)
    }
    fn cuCtxCreate_v4(context: Out<u64>, _params: *mut c_void, flags: c_uint, device: c_int) |d| {
        d.create_current(context, flags, device)
    }
    fn cuCtxDestroy_v2(context: u64) |d| {
        d.memory()?;
        if !d.contexts.contains_key(&context) || d.devices.iter().any(|device| device.primary == Some(context)) {
            d.report("handle", &format!("cuCtxDestroy: {context:#x} is no context of cuCtxCreate's, or no longer"));
            return Err(Code::INVALID_CONTEXT);
        }
        d.end_context(context);
        d.with_stack(|stack| if stack.last() == Some(&context) { stack.pop(); });
        Ok(())
    }
    fn cuCtxSetCurrent(context: u64) |d| {
        d.memory()?;
        if context != 0 && !d.contexts.contains_key(&context) {
            return Err(Code::CONTEXT_IS_DESTROYED);
        }
        d.with_stack(|stack| {
            stack.pop();
            if context != 0 {
                stack.push(context);
            }
        });
        Ok(())
    }
    fn cuCtxGetCurrent(context: Out<u64>) |d| {
        d.memory()?;
        context.set(d.current_handle().unwrap_or(0))
    }
    fn cuCtxPushCurrent_v2(context: u64) |d| {
        d.memory()?;
        if !d.contexts.contains_key(&context) {
            return Err(Code::INVALID_CONTEXT);
        }
        d.with_stack(|stack| stack.push(context));
        Ok(())
    }
    fn cuCtxPopCurrent_v2(context: Out<u64>) |d| {
        d.memory()?;
        let popped = d.with_stack(Vec::pop).ok_or(Code::INVALID_CONTEXT)?;
        context.set_if_wanted(popped);
        Ok(())
    }
    fn cuCtxGetDevice(device: Out<c_int>) |d| {
        d.memory()?;
        let handle = d.current_handle().ok_or(Code::INVALID_CONTEXT)?;
        device.set(d.contexts.get(&handle).ok_or(Code::INVALID_CONTEXT)?.device as c_int)
    }
    fn cuCtxGetDevice_v2(device: Out<c_int>, context: u64) |d| {
        d.memory()?;
        device.set(d.contexts.get(&context).ok_or(Code::INVALID_CONTEXT)?.device as c_int)
    }
    fn cuCtxGetId(context: u64, id: Out<u64>) |d| {
        let handle = if context == 0 { d.current()? } else { context };
        d.usable(handle)?;
        id.set(handle)
    }
    fn cuCtxGetApiVersion(_context: u64, version: Out<c_uint>) |d| {
        d.memory()?;
        version.set(super::misc::VERSION as c_uint)
    }
    fn cuCtxGetFlags(flags: Out<c_uint>) |d| {
        let handle = d.current()?;
        flags.set(d.usable(handle)?.flags)
    }
    fn cuCtxSetFlags(flags: c_uint) |d| {
        let handle = d.current()?;
        if let Some(context) = d.contexts.get_mut(&handle) {
            context.flags = flags;
        }
        Ok(())
    }
    fn cuCtxGetStreamPriorityRange(least: Out<c_int>, greatest: Out<c_int>) |d| {
        d.current()?;
        least.set_if_wanted(0);
        greatest.set_if_wanted(-5);
        Ok(())
    }
    fn cuCtxGetLimit(value: Out<usize>, limit: c_uint) |d| {
        let handle = d.current()?;
        let limits = d.usable(handle)?.limits;
        value.set(*limits.get(limit as usize).ok_or(Code::UNSUPPORTED_LIMIT)?)
    }
    fn cuCtxSetLimit(limit: c_uint, value: usize) |d| {
        let handle = d.current()?;
        let context = d.contexts.get_mut(&handle).ok_or(Code::INVALID_CONTEXT)?;
        *context.limits.get_mut(limit as usize).ok_or(Code::UNSUPPORTED_LIMIT)? = value;
        Ok(())
    }
    fn cuCtxGetCacheConfig(config: Out<c_uint>) |d| {
        d.current()?;
        config.set(0)
    }
    fn cuCtxSetCacheConfig(_config: c_uint) |d| {
        d.current().map(drop)
    }
    fn cuCtxGetSharedMemConfig(config: Out<c_uint>) |d| {
        d.current()?;
        config.set(1)
    }
    fn cuCtxSetSharedMemConfig(_config: c_uint) |d| {
        d.current().map(drop)
    }
    fn cuCtxResetPersistingL2Cache() |d| {
        d.current().map(drop)
    }
    fn cuCtxSynchronize() |d| {
        let handle = d.current()?;
        d.synchronize_context(handle)
    }
    fn cuCtxSynchronize_v2(context: u64) |d| {
        d.synchronize_context(context)
    }
    fn cuCtxEnablePeerAccess(peer: u64, flags: c_uint) |d| {
        let handle = d.current()?;
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let device = d.usable(handle)?.device;
        if d.usable(peer)?.device == device {
            return Err(Code::INVALID_DEVICE);
        }
        let context = d.contexts.get_mut(&handle).ok_or(Code::INVALID_CONTEXT)?;
        if context.peers.insert(peer) { Ok(()) } else { Err(Code::PEER_ACCESS_ALREADY_ENABLED) }
    }
    fn cuCtxDisablePeerAccess(peer: u64) |d| {
        let handle = d.current()?;
        let context = d.contexts.get_mut(&handle).ok_or(Code::INVALID_CONTEXT)?;
        if context.peers.remove(&peer) { Ok(()) } else { Err(Code::PEER_ACCESS_NOT_ENABLED) }
    }
}
