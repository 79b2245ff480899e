//! Launching kernels.

use std::ffi::{c_uint, c_void};

use super::{In, device, entries};
use crate::driver::Locked;
use crate::module::Function;
use crate::result::{Code, Outcome};
use crate::stream::{KernelLaunch, Work};

/// Ends the list of extra arguments.
const EXTRA_END: usize = 0;
/// Before a pointer to parameter space.
const EXTRA_BUFFER: usize = 1;
/// Before a pointer to its size.
const EXTRA_BUFFER_BYTES: usize = 2;

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: u64,
    attributes: *const c_void,
    attribute_count: c_uint,
}

/// How the caller gives parameters.
#[derive(Clone, Copy)]
struct Arguments {
    each: In<*const u8>,
    extra: In<*const c_void>,
}

impl Locked {
    fn launch_kernel(&mut self, name: &str, function: u64, config: Config, arguments: Arguments) -> Outcome {
        let function = self.function(function)?;
        let stream = self.stream(config.stream)?;
        if self.streams[&stream].context != function.context {
            let what = format!("{name}: {:?} and the stream are of different contexts", function.name);
            self.report("handle", &what);
            return Err(Code::INVALID_HANDLE);
        }
        let Config { grid, block, shared_bytes, .. } = config;
        check_shape(&function, grid, block, shared_bytes)?;
        let params = gather(&function, arguments)?;
        let name = format!("{name} of {}", function.name.to_string_lossy());
        let launch = KernelLaunch { function, grid, block, shared_bytes: shared_bytes as usize, params };
        self.queue(stream, &name, Work::Launch(Box::new(launch)))
    }
}

fn check_shape(function: &Function, grid: [u32; 3], block: [u32; 3], shared_bytes: u32) -> Outcome {
    let within = |sizes: [u32; 3], most: [u32; 3]| sizes.iter().zip(most).all(|(size, most)| (1..=most).contains(size));
    if !within(grid, device::GRID_MAX) || !within(block, device::BLOCK_MAX) {
        return Err(Code::INVALID_VALUE);
    }
    if block.iter().product::<u32>() > function.kernel().max_threads()
        || shared_bytes as i32 > function.shared_bytes_max()
    {
        return Err(Code::INVALID_VALUE);
    }
    Ok(())
}

/// Parameter space, from an address a parameter or from a copy of it.
fn gather(function: &Function, arguments: Arguments) -> Outcome<Vec<u8>> {
    let mut params = vec![0; function.kernel().params_bytes()];
    if !arguments.extra.is_null() {
        let (from, len) = extra(arguments.extra)?;
        if len < params.len() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: by the entry point's contract the buffer has the size that is given with it.
        unsafe { std::ptr::copy_nonoverlapping(from, params.as_mut_ptr(), params.len()) };
        return Ok(params);
    }
    for (index, param) in function.params().iter().enumerate() {
        let from = arguments.each.at(index)?;
        let to = &mut params[param.offset..param.offset + param.bytes];
        // SAFETY: by the entry point's contract there is an address for each parameter, of as many bytes as it has.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
    }
    Ok(params)
}

fn extra(list: In<*const c_void>) -> Outcome<(*const u8, usize)> {
    let (mut buffer, mut len, mut at) = (None, None, 0);
    loop {
        match list.at(at)? as usize {
            EXTRA_END => break,
            EXTRA_BUFFER => buffer = Some(list.at(at + 1)?.cast::<u8>()),
            EXTRA_BUFFER_BYTES => len = Some(In(list.at(at + 1)?.cast::<usize>()).get()?),
            _ => return Err(Code::INVALID_VALUE),
        }
        at += 2;
    }
    buffer.zip(len).ok_or(Code::INVALID_VALUE)
}

entries! {
    fn cuLaunchKernel(
        function: u64, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint, stream: u64, each: In<*const u8>, extra: In<*const c_void>
    ) |d| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let config = Config { grid, block, shared_bytes, stream, attributes: std::ptr::null(), attribute_count: 0 };
        d.launch_kernel("cuLaunchKernel", function, config, Arguments { each, extra })
    }
    fn cuLaunchCooperativeKernel(
        function: u64, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint, stream: u64, each: In<*const u8>
    ) |d| {
        let _ = (function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, each);
        d.report("unimplemented", "cuLaunchCooperativeKernel: blocks run one after another, so they cannot cooperate");
        Err(Code::NOT_SUPPORTED)
    }
    fn cuLaunchKernelEx(config: In<Config>, function: u64, each: In<*const u8>, extra: In<*const c_void>) |d| {
        // Attributes are about speed, or clusters, which PTX would show.
        d.launch_kernel("cuLaunchKernelEx", function, config.get()?, Arguments { each, extra })
    }
}
