//! Modules and the kernels in them.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::driver::Driver;
use crate::kernel_memory::KernelMemory;
use crate::memory::{Kind, Owner, State};
use crate::ptx::{self, Param};
use crate::result::{Code, Outcome};
use crate::stream::KernelLaunch;

/// Dynamic shared memory that a kernel may have without asking for more.
const SHARED_BYTES: i32 = 48 << 10;

/// A module, or a library, which here is a module too.
#[derive(Debug)]
pub struct Module {
    /// The context it belongs to.
    pub context: u64,
    /// Handles of its kernels, by name.
    pub functions: HashMap<String, u64>,
    /// Addresses of its variables, by name.
    pub variables: HashMap<String, u64>,
}

/// A kernel of a module.
pub struct Function {
    /// Its name as C programs get it.
    pub name: CString,
    /// The context it belongs to.
    pub context: u64,
    /// The module it belongs to.
    pub module: u64,
    /// Dynamic shared memory that it may be given.
    pub shared_bytes_max: AtomicI32,
    code: Arc<ptx::Module>,
    index: usize,
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
    /// What the interpreter has of it.
    pub fn kernel(&self) -> &ptx::Kernel {
        &self.code.kernels()[self.index]
    }

    /// Its parameters.
    pub fn params(&self) -> &[Param] {
        self.kernel().params()
    }

    /// Dynamic shared memory that it may be given, as programs are told.
    pub fn shared_bytes_max(&self) -> i32 {
        self.shared_bytes_max.load(Ordering::Relaxed)
    }

    /// Runs it.
    ///
    /// # Errors
    /// In words.
    pub fn run(&self, launch: &KernelLaunch, memory: &mut KernelMemory<'_>) -> Result<ptx::Stats, String> {
        let KernelLaunch { grid, block, shared_bytes, params, .. } = launch;
        let launch = ptx::Launch { grid: *grid, block: *block, shared_bytes: *shared_bytes, params };
        self.kernel().launch(launch, memory).map_err(|fault| fault.message)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Driver {
    /// Loads a module into a context and returns its handle.
    ///
    /// # Errors
    /// `INVALID_PTX`, with a report, if the interpreter does not take it; `OUT_OF_MEMORY` for its variables.
    pub fn load_module(&mut self, context: u64, text: String) -> Outcome<u64> {
        let text = self.edit(text)?;
        let mut code = ptx::Module::parse(&text).map_err(|what| {
            self.report("module", &format!("the PTX is not taken: {what}"));
            Code::INVALID_PTX
        })?;
        let handle = self.handle();
        let variables = self.place_variables(context, handle, &mut code)?;
        let code = Arc::new(code);
        let mut functions = HashMap::new();
        for (index, kernel) in code.kernels().iter().enumerate() {
            let function = Function {
                name: CString::new(kernel.name()).map_err(|_| Code::INVALID_PTX)?,
                context,
                module: handle,
                shared_bytes_max: AtomicI32::new(SHARED_BYTES),
                code: code.clone(),
                index,
            };
            let function_handle = self.handle();
            self.functions.insert(function_handle, Arc::new(function));
            functions.insert(kernel.name().to_owned(), function_handle);
        }
        self.modules.insert(handle, Module { context, functions, variables });
        Ok(handle)
    }

    /// Forgets a module, its kernels and its variables.
    pub fn unload_module(&mut self, handle: u64) {
        let Some(module) = self.modules.remove(&handle) else { return };
        module.functions.values().for_each(|function| drop(self.functions.remove(function)));
        for address in module.variables.into_values() {
            let index = self.memory().ok().and_then(|memory| memory.based_at(address));
            index.into_iter().for_each(|index| self.end_allocation(index));
        }
    }

    /// Gives the variables of a module memory with what they hold at first.
    fn place_variables(&mut self, context: u64, module: u64, code: &mut ptx::Module) -> Outcome<HashMap<String, u64>> {
        let device = self.usable(context)?.device;
        let mut places = HashMap::new();
        for (index, variable) in code.variables().to_vec().into_iter().enumerate() {
            let origin = format!("variable {} of module {module:#x}", variable.name).into();
            let owner = Owner { device, context, flags: 0, origin };
            let len = variable.initial.len() as u64;
            let memory = self.memory_mut()?;
            let address = memory.allocate(len, owner, Kind::Variable, State::Live)?;
            if let Some(place) = memory.based_at(address) {
                memory.get_mut(place).write(0, &variable.initial);
            }
            code.place(index, address);
            places.insert(variable.name, address);
        }
        Ok(places)
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
