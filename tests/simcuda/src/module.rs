//! Modules and the kernels in them.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::driver::Driver;
use crate::kernel_memory::KernelMemory;
use crate::ptx;
use crate::result::{Code, Outcome};
use crate::signature::{self, Parameter};
use crate::stream::KernelLaunch;

/// A module, or a library, which is a module without a context of its own.
#[derive(Debug)]
pub struct Module {
    /// The context it belongs to.
    pub context: u64,
    /// Handles of its kernels, by name.
    pub functions: HashMap<String, u64>,
}

/// A kernel of a module.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The same as programs get it.
    pub c_name: CString,
    /// The context it belongs to.
    pub context: u64,
    /// The module it belongs to.
    pub module: u64,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// Dynamic shared memory that it may be given.
    pub shared_bytes_max: AtomicI32,
    code: Arc<Shared>,
}

/// What the kernels of a module share.
struct Shared(ptx::Module);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// What a kernel's launches did.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelStats {
    /// How many there were.
    pub launches: u64,
    /// Instructions, summed over threads.
    pub instructions: u64,
    /// Instructions, summed over warps.
    pub warp_instructions: u64,
}

impl KernelStats {
    /// Adds a launch.
    pub fn add(&mut self, stats: ptx::Stats) {
        self.launches += 1;
        self.instructions += stats.instructions;
        self.warp_instructions += stats.warp_instructions;
    }
}

impl Function {
    /// Runs the kernel.
    ///
    /// # Errors
    /// In words.
    pub fn run(&self, launch: &KernelLaunch, memory: &mut KernelMemory<'_>) -> Result<ptx::Stats, String> {
        let Some(kernel) = self.code.0.kernel(&self.name) else { return Ok(ptx::Stats::default()) };
        let KernelLaunch { grid, block, shared_bytes, params, .. } = launch;
        let launch = ptx::Launch { grid: *grid, block: *block, shared_bytes: *shared_bytes, params };
        kernel.launch(launch, memory).map_err(|fault| fault.message)
    }

    /// Bytes of its parameter space.
    pub fn parameter_bytes(&self) -> usize {
        self.parameters.last().map_or(0, |last| last.offset + last.len)
    }

    /// The same for a query that returns an `int`.
    pub fn shared_bytes_max(&self) -> i32 {
        self.shared_bytes_max.load(Ordering::Relaxed)
    }
}

impl Driver {
    /// Loads a module into a context and returns its handle.
    ///
    /// # Errors
    /// `INVALID_PTX`, with a report, if the interpreter does not take it.
    pub fn load_module(&mut self, context: u64, text: String) -> Outcome<u64> {
        let text = self.edit(text)?;
        let code = ptx::Module::parse(&text).or_else(|what| match what.as_str() {
            "not implemented" => Ok(ptx::Module {}),
            _ => Err(what),
        });
        let code = code.map_err(|what| {
            self.report("module", &format!("the PTX is not taken: {what}"));
            Code::INVALID_PTX
        })?;
        let code = Arc::new(Shared(code));
        let handle = self.handle();
        let mut functions = HashMap::new();
        for (name, parameters) in signature::entries(&text) {
            let function = Function {
                c_name: CString::new(name.clone()).map_err(|_| Code::INVALID_PTX)?,
                name: name.clone(),
                context,
                module: handle,
                parameters,
                shared_bytes_max: AtomicI32::new(48 << 10),
                code: code.clone(),
            };
            let function_handle = self.handle();
            self.functions.insert(function_handle, Arc::new(function));
            functions.insert(name, function_handle);
        }
        self.modules.insert(handle, Module { context, functions });
        Ok(handle)
    }

    /// Plants a fault in the text, if a test asks for it.
    fn edit(&mut self, text: String) -> Outcome<String> {
        let Some((old, new)) = self.settings.ptx_edit.clone() else { return Ok(text) };
        match text.matches(&old).count() {
            0 => Ok(text),
            1 => {
                self.edited = true;
                Ok(text.replacen(&old, &new, 1))
            }
            many => {
                self.report("setting", &format!("PTX_EDIT: {old:?} is {many} times in the module"));
                Err(Code::INVALID_PTX)
            }
        }
    }
}
