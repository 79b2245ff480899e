//! PTX, parsed and run: warps in lock-step, with checks that hardware does not make.

use std::fmt;

/// A parsed module: what `cuModuleLoadData` is given.
pub struct Module {}

/// An entry point of a [`Module`].
pub struct Kernel {}

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
/// from what was.
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
    pub fn parse(_text: &str) -> Result<Self, String> {
        Err("not implemented".into())
    }

    /// An entry point by its name.
    pub fn kernel(&self, _name: &str) -> Option<&Kernel> {
        None
    }
}

impl Kernel {
    /// Runs it to its end.
    ///
    /// # Errors
    /// The first fault.
    pub fn launch(&self, _launch: Launch<'_>, _memory: &mut dyn Memory) -> Result<Stats, Fault> {
        Err(Fault { message: "not implemented".into() })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
