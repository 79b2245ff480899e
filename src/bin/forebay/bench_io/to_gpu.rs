//! Reads by cuFile, into the memory of a device.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use forebay::Result;
use forebay::device::Device;
use forebay::engine::cufile::Receipts;
use forebay::engine::{Completion, CuFile, Engine, EngineOptions, OpenFile, Outcome};
use forebay::memory::{Arena, DeviceArena, DeviceRegion};
use forebay::report::Fallback;

use super::pieces::Piece;
use super::reads::{Ended, Memory, REAP_TIMEOUT, Reads, Setup, arena_bytes};

/// Host memory that the engine has and does not need.
const HOST_BYTES: usize = 4096;

/// The engine with cuFile. What it reads to is taken and given back at every read, which costs nothing beside it.
pub struct ToGpu {
    // The engine ends before the memory goes that it reads to.
    engine: Engine,
    cufile: Arc<CuFile>,
    arena: DeviceArena,
    completions: Vec<Completion>,
    /// Files that were opened and wait for memory, with the slots that they belong to.
    opened: VecDeque<(usize, Arc<OpenFile>)>,
    in_flight: usize,
}

impl ToGpu {
    pub fn new(setup: &Setup, device: Device) -> Result<Self> {
        let arena = DeviceArena::new(device, arena_bytes(setup)?)?;
        let cufile = CuFile::open(std::slice::from_ref(&arena), setup.require_path)?;
        let options = EngineOptions {
            direct: setup.direct,
            data_set_bytes: setup.data_bytes,
            threads: setup.threads,
            cufile_api: setup.cufile_api,
            ..setup.options
        };
        let (engine, _fallbacks) = Engine::with_cufile(&cufile, &Arena::new(HOST_BYTES)?, setup.depth, options)?;
        let completions = Vec::with_capacity(setup.depth);
        Ok(Self { engine, cufile, arena, completions, opened: VecDeque::with_capacity(setup.depth), in_flight: 0 })
    }

    /// Begins the reads of files that were opened, as far as there is memory.
    fn read_opened(&mut self) -> Result<()> {
        while let Some((slot, file)) = self.opened.front() {
            let len_bytes = usize::try_from(file.size_bytes()).unwrap_or(usize::MAX);
            let Some(region) = self.memory(file, 0, len_bytes)? else { return Ok(()) };
            self.engine.read_device(*slot as u64, file, 0, len_bytes, region);
            self.opened.pop_front();
        }
        Ok(())
    }

    fn memory(&self, file: &OpenFile, offset: u64, len_bytes: usize) -> Result<Option<DeviceRegion>> {
        self.arena.alloc(self.engine.region_len(file, offset, len_bytes))
    }
}

impl Reads for ToGpu {
    fn open(&self, path: &Path) -> Result<Arc<OpenFile>> {
        self.engine.open_now(path)
    }

    fn start(&mut self, slot: usize, piece: Piece) -> Result<Option<Piece>> {
        match piece {
            Piece::File(path) => self.engine.open(slot as u64, &path),
            Piece::Range { file, offset, len_bytes } => {
                let Some(region) = self.memory(&file, offset, len_bytes)? else {
                    return Ok(Some(Piece::Range { file, offset, len_bytes }));
                };
                self.engine.read_device(slot as u64, &file, offset, len_bytes, region);
            }
        }
        self.in_flight += 1;
        Ok(None)
    }

    fn reap(&mut self, ended: &mut Vec<Ended>) -> Result<()> {
        let before = ended.len();
        while ended.len() == before && self.in_flight > 0 {
            self.read_opened()?;
            self.engine.reap(1, REAP_TIMEOUT, &mut self.completions)?;
            for completion in self.completions.drain(..) {
                let slot = completion.token as usize;
                match completion.result? {
                    Outcome::Opened(file) => self.opened.push_back((slot, file)),
                    Outcome::ReadDevice(region) => {
                        self.in_flight -= 1;
                        ended.push(Ended { slot, len_bytes: region.len(), memory: Memory::Device(region) });
                    }
                    Outcome::Read(_) | Outcome::ReadFile { .. } => unreachable!("nothing is read to the host"),
                }
            }
        }
        Ok(())
    }

    fn take_asked_again(&mut self, put: &mut dyn FnMut(u64, u64)) {
        self.engine.take_asked_again(put);
    }

    fn recycle(&mut self, memory: Memory) {
        drop(memory);
    }

    fn engine(&self) -> &'static str {
        self.engine.kind().name()
    }

    fn is_direct(&self) -> bool {
        self.engine.fallbacks().iter().all(|fallback| fallback.what != "O_DIRECT")
    }

    fn receipts(&self) -> Receipts {
        self.cufile.receipts()
    }

    fn fallbacks(&self) -> Vec<Fallback> {
        self.engine.fallbacks()
    }
}
