//! PTX, parsed and run: warps in lock-step, with checks that hardware does not make.
//!
//! ```
//! use simcuda::ptx::{Launch, Memory, Module};
//!
//! struct Ram(Vec<u8>);
//!
//! impl Memory for Ram {
//!     fn load(&mut self, address: u64, into: &mut [u8]) -> Result<(), String> {
//!         let from = self.0.get(address as usize..).and_then(|from| from.get(..into.len()));
//!         from.map(|from| into.copy_from_slice(from)).ok_or_else(|| format!("{address:#x} is not allocated"))
//!     }
//!
//!     fn store(&mut self, address: u64, from: &[u8]) -> Result<(), String> {
//!         let into = self.0.get_mut(address as usize..).and_then(|into| into.get_mut(..from.len()));
//!         into.map(|into| into.copy_from_slice(from)).ok_or_else(|| format!("{address:#x} is not allocated"))
//!     }
//! }
//!
//! let text = "
//!     .version 8.0
//!     .visible .entry numbers(.param .u64 out)
//!     {
//!         .reg .b32 %r<2>;
//!         .reg .b64 %rd<3>;
//!         ld.param.u64 %rd1, [out];
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd2, %r1, 4;
//!         add.s64 %rd1, %rd1, %rd2;
//!         st.global.u32 [%rd1], %r1;
//!         ret;
//!     }";
//! let module = Module::parse(text)?;
//! let kernel = module.kernel("numbers").ok_or("no such kernel")?;
//! let mut memory = Ram(vec![0; 12]);
//! let mut launch = Launch { grid: [1, 1, 1], block: [3, 1, 1], shared_bytes: 0, params: &[0; 8] };
//! kernel.launch(launch, &mut memory).map_err(|fault| fault.message)?;
//! assert_eq!(memory.0, [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
//!
//! launch.block = [4, 1, 1];
//! let fault = kernel.launch(launch, &mut memory).unwrap_err();
//! assert_eq!(
//!     fault.message,
//!     "kernel numbers, PTX line 11 `st.global.u32 [%rd1], %r1;`, thread (3, 0, 0) of block (0, 0, 0): \
//!      0xc is not allocated"
//! );
//! # Ok::<(), String>(())
//! ```
//!
//! # What is understood
//!
//! What nvcc 13 and NVRTC 12 make of ordinary kernels for compute capability 7.5 to 9.0: integer, bit and predicate
//! instructions; f16, bf16, f32 and f64 with their rounding named; conversions; loads, stores and atomics in every memory
//! space; branches, barriers, and what warps do together. Anything else is an error of [`Module::parse`] with its line, among
//! it
//! - what the hardware approximates in a way that is not specified (`.approx`, `.full`) or flushes (`.ftz`): compile without
//!   `-use_fast_math`, and with divisions and roots that are rounded (`__fdiv_rn`, `__fsqrt_rn`);
//! - calls: mark functions `__forceinline__`. Functions that no kernel calls may be there;
//! - textures, surfaces, matrices (`mma`), asynchronous copies, clusters, and `printf` and `assert`, which are calls.
//!
//! Results are those that PTX specifies, bit for bit. Clocks always read 0, and there is one multiprocessor.
//!
//! # What is checked
//!
//! A launch ends at its first [`Fault`]:
//! - an access that is misaligned, or out of the bounds of shared, local or parameter memory, or that [`Memory`] refuses;
//! - a value that was never written, in a register or in shared or local memory, where it decides a branch, a predicate, an
//!   address or a mask, or is stored to global memory. Copying it, or computing with it, is allowed, as compilers do both;
//! - a race in shared memory: two threads, at least one of which writes (a value that is not there already), with neither
//!   a barrier nor a `bar.warp.sync` of both between. That a warp runs in lock-step orders nothing. Accesses that are atomic,
//!   volatile or ordered do not race with each other. What a flag or a lock orders is not understood: data that it guards
//!   needs accesses of that kind too;
//! - a barrier that part of the block's threads never reach, though they have not exited; a warp operation whose mask
//!   names lanes that never come, or not the lane itself;
//! - a warp that executes 2^28 instructions, and `trap`.
//!
//! Races between blocks in global memory are not seen: blocks run one after another.
//!
//! # How it runs
//!
//! A module is decoded once, names to register numbers, into an array of instructions. A register is 32 lanes side by side,
//! so that an instruction is a loop over them that the compiler vectorises. Lanes that part at a branch run on as fragments,
//! the one least far in the text first, and join where they meet. Blocks run in order, the warps of a block in turn until
//! each waits: all is deterministic. Nothing is allocated for an instruction or a block.
//!
//! One core does some 1.3 billion lane-instructions a second of integer arithmetic, 500 million of fused multiply-adds, and
//! 200 million of code that lives in shared memory, whose every byte is watched (optimised, Sapphire Rapids).

mod arithmetic;
mod block;
mod fault;
mod lex;
mod lower;
mod memory_map;
mod module;
mod program;
mod registers;
mod shared;
mod syntax;
#[cfg(test)]
mod tests;
mod types;
mod warp;

use std::fmt;
use std::sync::Arc;

use block::Limits;
use program::Program;

/// A parsed module: what `cuModuleLoadData` is given.
pub struct Module {
    kernels: Vec<Kernel>,
    variables: Vec<Variable>,
}

/// An entry point of a [`Module`].
pub struct Kernel {
    name: String,
    params: Vec<Param>,
    threads_max: Option<u32>,
    program: Program,
    text: Arc<str>,
}

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Where it lies in parameter memory.
    pub offset: usize,
    /// Its size.
    pub bytes: usize,
}

/// A variable of a module in global or constant memory. The driver gives it memory, fills it with its first value, and says
/// where it is with [`Module::place`].
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name in the text.
    pub name: String,
    /// Bytes that its address must be a multiple of, a power of two.
    pub align: usize,
    /// What it holds when the module is loaded; its size is the length.
    pub initial: Vec<u8>,
    /// Whether kernels may only read it.
    pub constant: bool,
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: usize,
    /// The parameters as they lie in parameter space.
    pub params: &'a [u8],
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instructions executed, summed over threads.
    pub instructions: u64,
    /// Instructions executed, summed over warps: the lanes of a warp that execute one together count once.
    pub warp_instructions: u64,
}

/// What a kernel did that it must not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In words: the kernel, the PTX instruction and its line, the thread and block, what happened.
    pub message: String,
}

/// Global memory. Implementations check that an access lies in a live allocation, and keep what was never written apart
/// from what was. Threads of a warp whose accesses lie side by side make one call.
pub trait Memory {
    /// Fills `into` from the address.
    ///
    /// # Errors
    /// In words, if the bytes are not to be had or were never written.
    fn load(&mut self, address: u64, into: &mut [u8]) -> Result<(), String>;

    /// Stores at the address.
    ///
    /// # Errors
    /// In words, if the bytes are not to be had.
    fn store(&mut self, address: u64, from: &[u8]) -> Result<(), String>;
}

impl Module {
    /// Parses the text of a module.
    ///
    /// # Errors
    /// In words, with the line, for what is no PTX or is not supported.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = module::parse(text)?;
        let text: Arc<str> = text.into();
        let kernel = |parts: module::KernelParts| Kernel {
            name: parts.name,
            params: parts.params.iter().map(|&(offset, bytes)| Param { offset, bytes }).collect(),
            threads_max: parts.threads_max,
            program: parts.program,
            text: text.clone(),
        };
        let variable = |parts: module::VariableParts| Variable {
            name: parts.name,
            align: parts.align,
            initial: parts.bytes,
            constant: parts.constant,
        };
        Ok(Self {
            kernels: parts.kernels.into_iter().map(kernel).collect(),
            variables: parts.variables.into_iter().map(variable).collect(),
        })
    }

    /// An entry point by its name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// Every entry point, in the order of the text.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Every variable, in the order of the text.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Says where in global memory the variable with this index of [`Module::variables`] is.
    pub fn place(&mut self, variable: usize, address: u64) {
        for kernel in &mut self.kernels {
            for place in kernel.program.relocations.iter().filter(|place| place.variable == variable) {
                kernel.program.constants[place.constant] = address.wrapping_add_signed(place.offset);
            }
        }
    }
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its parameters, in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Bytes of all parameters as they lie in parameter memory.
    pub fn params_bytes(&self) -> usize {
        self.params.last().map_or(0, |last| last.offset + last.bytes)
    }

    /// Bytes of static shared memory.
    pub fn shared_bytes(&self) -> usize {
        self.program.shared_bytes
    }

    /// Bytes of local memory of a thread.
    pub fn local_bytes(&self) -> usize {
        self.program.local_bytes
    }

    /// The most threads of a block: what the kernel says (`__launch_bounds__`), or what every device takes.
    pub fn max_threads(&self) -> u32 {
        self.threads_max.unwrap_or(1024).min(1024)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// The first fault.
    pub fn launch(&self, launch: Launch<'_>, memory: &mut dyn Memory) -> Result<Stats, Fault> {
        block::launch(self, launch, memory, LIMITS)
    }
}

/// A slice is long against what lanes wait for each other at the end of a loop; what runs for ever does so for seconds.
const LIMITS: Limits = Limits { slice: 1 << 20, instructions_max: 1 << 28 };

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
