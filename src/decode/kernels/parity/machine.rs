//! Device memory, and the kernels' PTX run on it by the interpreter.

use simcuda::ptx::{Launch, Memory, Module, Stats};

/// The kernels that ship.
pub const PTX: &str = include_str!("../../../../kernels/ptx/forebay.ptx");

/// Bytes that are never given out lie between allocations, so that a step too far is seen.
const GAP_BYTES: usize = 512;
/// Where the memory begins.
const BASE: u64 = 0x7_0000_0000;

/// A device with the kernels loaded.
pub struct Machine {
    module: Module,
    memory: Allocations,
}

/// Memory that knows what was allocated and what was written.
#[derive(Default)]
struct Allocations {
    bytes: Vec<u8>,
    is_written: Vec<bool>,
    /// Start and end of each, as places in `bytes`.
    places: Vec<(usize, usize)>,
}

impl Machine {
    /// With the text that ships.
    pub fn new() -> Self {
        Self::with(PTX)
    }

    /// With another text.
    pub fn with(text: &str) -> Self {
        let module = Module::parse(text).unwrap();
        assert!(module.variables().is_empty(), "nobody places the kernels' variables here");
        Self { module, memory: Allocations::default() }
    }

    /// Gives all memory back.
    pub fn clear(&mut self) {
        self.memory = Allocations::default();
    }

    /// Bytes that nobody has written, rounded up to what the kernels may read.
    pub fn alloc(&mut self, len_bytes: usize) -> u64 {
        let memory = &mut self.memory;
        let start = (memory.bytes.len() + GAP_BYTES).next_multiple_of(256);
        let end = start + len_bytes.next_multiple_of(16);
        memory.bytes.resize(end, 0);
        memory.is_written.resize(end, false);
        memory.places.push((start, end));
        BASE + start as u64
    }

    /// Zeros.
    pub fn zeroed(&mut self, len_bytes: usize) -> u64 {
        let address = self.alloc(len_bytes);
        self.memory.store(address, &vec![0; len_bytes.next_multiple_of(16)]).unwrap();
        address
    }

    /// Bytes, and zeros as far as rounding reaches.
    pub fn upload(&mut self, bytes: &[u8]) -> u64 {
        let address = self.zeroed(bytes.len());
        self.memory.store(address, bytes).unwrap();
        address
    }

    /// Writes to memory that was allocated.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        self.memory.store(address, bytes).unwrap();
    }

    /// What lies at an address, whether it was written or not.
    pub fn read<T: bytemuck::Pod>(&self, address: u64, count: usize) -> Vec<T> {
        let place = (address - BASE) as usize;
        bytemuck::pod_collect_to_vec(&self.memory.bytes[place..place + count * size_of::<T>()])
    }

    /// Whether any of these bytes was ever written.
    pub fn is_written(&self, address: u64, len_bytes: usize) -> bool {
        let place = (address - BASE) as usize;
        self.memory.is_written[place..place + len_bytes].contains(&true)
    }

    /// Runs a kernel to its end.
    pub fn launch(&mut self, name: &str, grid: [u32; 3], threads: u32, params: &[u8]) -> Result<Stats, String> {
        let kernel = self.module.kernel(name).ok_or_else(|| format!("no kernel {name}"))?;
        let launch = Launch { grid, block: [threads, 1, 1], shared_bytes: 0, params };
        kernel.launch(launch, &mut self.memory).map_err(|fault| fault.to_string())
    }
}

impl Allocations {
    fn place(&self, address: u64, len: usize) -> Result<usize, String> {
        let place = address.wrapping_sub(BASE) as usize;
        let after = self.places.partition_point(|&(start, _)| start <= place);
        let fits = after.checked_sub(1).is_some_and(|i| len <= self.places[i].1.saturating_sub(place));
        if fits { Ok(place) } else { Err(format!("{len} bytes at {address:#x} are not allocated")) }
    }
}

impl Memory for Allocations {
    fn load(&mut self, address: u64, into: &mut [u8]) -> Result<(), String> {
        let place = self.place(address, into.len())?;
        if self.is_written[place..place + into.len()].contains(&false) {
            return Err(format!("{} bytes at {address:#x} were never written", into.len()));
        }
        into.copy_from_slice(&self.bytes[place..place + into.len()]);
        Ok(())
    }

    fn store(&mut self, address: u64, from: &[u8]) -> Result<(), String> {
        let place = self.place(address, from.len())?;
        self.bytes[place..place + from.len()].copy_from_slice(from);
        self.is_written[place..place + from.len()].fill(true);
        Ok(())
    }
}
