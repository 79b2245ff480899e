//! Kernels and their attributes.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Out, device, entries};
use crate::driver::Locked;
use crate::module::Function;
use crate::result::{Code, Outcome};

impl Locked {
    /// What a program means by a function or kernel.
    ///
    /// # Errors
    /// What broke its context; `INVALID_HANDLE`, with a report, if there is none.
    pub fn function(&mut self, handle: u64) -> Outcome<Arc<Function>> {
        self.memory()?;
        let Some(function) = self.functions.get(&handle).cloned() else {
            self.report("handle", &format!("function {handle:#x} does not exist, or its module is unloaded"));
            return Err(Code::INVALID_HANDLE);
        };
        self.usable(function.context)?;
        Ok(function)
    }

    fn parameter(&mut self, handle: u64, index: usize, offset: Out<usize>, len: Out<usize>) -> Outcome {
        let function = self.function(handle)?;
        let param = function.params().get(index).ok_or(Code::INVALID_VALUE)?;
        offset.set(param.offset)?;
        len.set_if_wanted(param.bytes);
        Ok(())
    }

    /// An attribute by its number in `CUfunction_attribute`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is no such.
    pub fn function_attribute(&mut self, handle: u64, number: c_int) -> Outcome<c_int> {
        let function = self.function(handle)?;
        Ok(match number {
            0 => function.kernel().max_threads() as c_int,
            1 => function.kernel().shared_bytes() as c_int,
            2 => 0,
            3 => function.kernel().local_bytes() as c_int,
            4 => 32,
            5 => 78,
            6 => 90,
            7 => 0,
            8 => function.shared_bytes_max(),
            9 => -1,
            10..=15 => 0,
            _ => return Err(Code::INVALID_VALUE),
        })
    }

    /// Sets one of those that can be set.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is none, or the value is more than the device has.
    pub fn set_function_attribute(&mut self, handle: u64, number: c_int, value: c_int) -> Outcome {
        let function = self.function(handle)?;
        match number {
            8 if (0..=device::SHARED_BYTES[1]).contains(&value) => {
                function.shared_bytes_max.store(value, Ordering::Relaxed);
                Ok(())
            }
            9 | 14 | 15 => Ok(()),
            _ => Err(Code::INVALID_VALUE),
        }
    }
}

entries! {
    fn cuFuncGetAttribute(value: Out<c_int>, number: c_int, function: u64) |d| {
        value.set(d.function_attribute(function, number)?)
    }
    fn cuFuncSetAttribute(function: u64, number: c_int, value: c_int) |d| {
        d.set_function_attribute(function, number, value)
    }
    fn cuFuncSetCacheConfig(function: u64, _config: c_uint) |d| {
        d.function(function).map(drop)
    }
    fn cuFuncSetSharedMemConfig(function: u64, _config: c_uint) |d| {
        d.function(function).map(drop)
    }
    fn cuFuncGetModule(module: Out<u64>, function: u64) |d| {
        module.set(d.function(function)?.module)
    }
    fn cuFuncGetName(name: Out<*const c_char>, function: u64) |d| {
        // It lives as long as its module, which is as long as the program may use it.
        name.set(d.function(function)?.name.as_ptr())
    }
    fn cuKernelGetName(name: Out<*const c_char>, function: u64) |d| {
        name.set(d.function(function)?.name.as_ptr())
    }
    fn cuFuncGetParamInfo(function: u64, index: usize, offset: Out<usize>, len: Out<usize>) |d| {
        d.parameter(function, index, offset, len)
    }
    fn cuKernelGetParamInfo(function: u64, index: usize, offset: Out<usize>, len: Out<usize>) |d| {
        d.parameter(function, index, offset, len)
    }
    fn cuFuncIsLoaded(state: Out<c_uint>, function: u64) |d| {
        d.function(function)?;
        state.set(1)
    }
    fn cuFuncLoad(function: u64) |d| {
        d.function(function).map(drop)
    }
}
