//! Modules, and libraries, which here are modules of the context that is current when they are loaded.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::{In, Out, entries};
use crate::driver::Locked;
use crate::image;
use crate::module::Module;
use crate::result::{Code, Outcome};

impl Locked {
    fn load(&mut self, out: Out<u64>, image: *const u8) -> Outcome {
        let context = self.current()?;
        // SAFETY: by the entry point's contract the image is one.
        let text = unsafe { image::text(image) }.map_err(|(code, what)| {
            self.report("module", &format!("the image is not taken: {what}"));
            code
        })?;
        let handle = self.load_module(context, text)?;
        out.set(handle)
    }

    fn load_file(&mut self, out: Out<u64>, path: In<c_char>) -> Outcome {
        let bytes = image::read(&path.text()?)?;
        self.load(out, bytes.as_ptr())
    }

    fn module(&mut self, handle: u64) -> Outcome<&Module> {
        self.memory()?;
        let Some(module) = self.modules.get(&handle) else {
            self.report("handle", &format!("module {handle:#x} does not exist, or no longer"));
            return Err(Code::INVALID_HANDLE);
        };
        let context = module.context;
        self.usable(context)?;
        self.modules.get(&handle).ok_or(Code::INVALID_HANDLE)
    }

    fn unload(&mut self, handle: u64) -> Outcome {
        self.module(handle)?;
        self.unload_module(handle);
        Ok(())
    }

    fn function_named(&mut self, out: Out<u64>, module: u64, name: In<c_char>) -> Outcome {
        let name = name.text()?;
        let function = self.module(module)?.functions.get(&name).copied();
        out.set(function.ok_or(Code::NOT_FOUND)?)
    }

    fn variable_named(&mut self, base: Out<u64>, len: Out<usize>, module: u64, name: In<c_char>) -> Outcome {
        let name = name.text()?;
        let address = *self.module(module)?.variables.get(&name).ok_or(Code::NOT_FOUND)?;
        let memory = self.memory()?;
        let index = memory.based_at(address).ok_or(Code::NOT_FOUND)?;
        base.set_if_wanted(address);
        len.set_if_wanted(memory.get(index).len as usize);
        Ok(())
    }
}

entries! {
    fn cuModuleLoad(module: Out<u64>, path: In<c_char>) |d| {
        d.load_file(module, path)
    }
    fn cuModuleLoadData(module: Out<u64>, image: *const c_void) |d| {
        d.load(module, image.cast())
    }
    fn cuModuleLoadDataEx(
        module: Out<u64>, image: *const c_void, _count: c_uint, _options: *mut c_void, _values: *mut *mut c_void
    ) |d| {
        d.load(module, image.cast())
    }
    fn cuModuleLoadFatBinary(module: Out<u64>, image: *const c_void) |d| {
        d.load(module, image.cast())
    }
    fn cuModuleUnload(module: u64) |d| {
        d.unload(module)
    }
    fn cuModuleGetLoadingMode(mode: Out<c_uint>) |d| {
        d.memory()?;
        mode.set(1)
    }
    fn cuModuleGetFunction(function: Out<u64>, module: u64, name: In<c_char>) |d| {
        d.function_named(function, module, name)
    }
    fn cuModuleGetFunctionCount(count: Out<c_uint>, module: u64) |d| {
        count.set(d.module(module)?.functions.len() as c_uint)
    }
    fn cuModuleGetGlobal_v2(base: Out<u64>, len: Out<usize>, module: u64, name: In<c_char>) |d| {
        d.variable_named(base, len, module, name)
    }
    fn cuLibraryGetGlobal(base: Out<u64>, len: Out<usize>, library: u64, name: In<c_char>) |d| {
        d.variable_named(base, len, library, name)
    }
    fn cuLibraryLoadData(
        library: Out<u64>, image: *const c_void, _options: *mut c_void, _values: *mut *mut c_void, _count: c_uint,
        _library_options: *mut c_void, _library_values: *mut *mut c_void, _library_count: c_uint
    ) |d| {
        d.load(library, image.cast())
    }
    fn cuLibraryLoadFromFile(
        library: Out<u64>, path: In<c_char>, _options: *mut c_void, _values: *mut *mut c_void, _count: c_uint,
        _library_options: *mut c_void, _library_values: *mut *mut c_void, _library_count: c_uint
    ) |d| {
        d.load_file(library, path)
    }
    fn cuLibraryUnload(library: u64) |d| {
        d.unload(library)
    }
    fn cuLibraryGetModule(module: Out<u64>, library: u64) |d| {
        d.module(library)?;
        module.set(library)
    }
    fn cuLibraryGetKernel(kernel: Out<u64>, library: u64, name: In<c_char>) |d| {
        d.function_named(kernel, library, name)
    }
    fn cuLibraryGetKernelCount(count: Out<c_uint>, library: u64) |d| {
        count.set(d.module(library)?.functions.len() as c_uint)
    }
    fn cuKernelGetFunction(function: Out<u64>, kernel: u64) |d| {
        d.function(kernel)?;
        function.set(kernel)
    }
    fn cuKernelGetLibrary(library: Out<u64>, kernel: u64) |d| {
        library.set(d.function(kernel)?.module)
    }
    fn cuKernelGetAttribute(value: Out<c_int>, number: c_int, kernel: u64, device: c_int) |d| {
        d.device(device)?;
        value.set(d.function_attribute(kernel, number)?)
    }
    fn cuKernelSetAttribute(number: c_int, value: c_int, kernel: u64, device: c_int) |d| {
        d.device(device)?;
        d.set_function_attribute(kernel, number, value)
    }
}
