//! Who reads, by where the bytes go: the engine alone, the engine with copies to a GPU behind it, or cuFile.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::device::Device;
use forebay::device::cuda::Uploads;
use forebay::engine::cufile::Receipts;
use forebay::engine::{
    Completion, CuFileApi, Direct, Engine, EngineKind, EngineOptions, OpenFile, Outcome, RequirePath,
};
use forebay::memory::{Arena, DeviceRegion, REGION_ALIGN_BYTES, Region};
use forebay::report::Fallback;
use forebay::{Error, ErrorKind, Result};

use super::Destination;
use super::pieces::Piece;
use super::to_gpu::ToGpu;
use crate::environment::memory_bytes;

/// What is asked of a reader.
#[derive(Clone, Copy)]
pub struct Setup {
    pub engine: EngineKind,
    pub direct: Direct,
    pub require_path: RequirePath,
    pub cufile_api: CuFileApi,
    /// Threads of the pread engine; 0 for its own choice.
    pub threads: usize,
    /// Reads in flight.
    pub depth: usize,
    /// Whether the host's memory is to be in the smallest pages.
    pub small_pages: bool,
    /// How the engine was told to read besides.
    pub options: EngineOptions,
    /// The size of the data, where it is known.
    pub data_bytes: Option<u64>,
    /// The size of the largest piece.
    pub piece_bytes: u64,
    /// Whether every piece has that size, so that memory is used again without being given back.
    pub is_uniform: bool,
}

/// A read that has ended.
pub struct Ended {
    /// The caller's number for it.
    pub slot: usize,
    /// Its bytes.
    pub len_bytes: usize,
    pub memory: Memory,
}

/// Where bytes are that were read.
pub enum Memory {
    Host(Region),
    Device(DeviceRegion),
}

/// Something that reads pieces, many at once, on the thread that calls.
pub trait Reads {
    /// Opens a file that many pieces share.
    fn open(&self, path: &Path) -> Result<Arc<OpenFile>>;

    /// Begins a read, or gives the piece back while there is no memory for it. With nothing in flight there is.
    fn start(&mut self, slot: usize, piece: Piece) -> Result<Option<Piece>>;

    /// Adds what has ended, at least one read if any is in flight.
    fn reap(&mut self, ended: &mut Vec<Ended>) -> Result<()>;

    /// Hands out the bytes that were asked of each device again, as [`Engine::take_asked_again`] does.
    fn take_asked_again(&mut self, put: &mut dyn FnMut(u64, u64));

    /// Takes back the memory of a read that has ended.
    fn recycle(&mut self, memory: Memory);

    /// The engine's name: uring, pread or cufile.
    fn engine(&self) -> &'static str;

    /// Reads that it pays to begin now.
    fn wanted(&self) -> usize {
        usize::MAX
    }

    /// Reads in flight that pay, where that is looked for.
    fn depth(&self) -> Option<usize> {
        None
    }

    /// Whether no read went through the page cache.
    fn is_direct(&self) -> bool;

    /// What reads straight to a device took.
    fn receipts(&self) -> Receipts {
        Receipts::default()
    }

    /// What could not be had.
    fn fallbacks(&self) -> Vec<Fallback>;
}

/// The reader for a destination.
///
/// # Errors
/// `Unavailable` and the like for what this machine does not have.
pub fn to(destination: Destination, setup: &Setup, device: Device) -> Result<Box<dyn Reads>> {
    match destination {
        Destination::Host => Ok(Box::new(ToHost::new(setup)?)),
        Destination::GpuViaHost => Ok(Box::new(ViaHost::new(setup, ordinal(device)?)?)),
        Destination::Gpu => Ok(Box::new(ToGpu::new(setup, Device::Cuda(ordinal(device)?))?)),
    }
}

fn ordinal(device: Device) -> Result<u32> {
    match device {
        Device::Cuda(ordinal) => Ok(ordinal),
        other => Err(Error::invalid_parameter("--device", other, "cuda:N is allowed, since bytes go to a GPU")),
    }
}

/// How long a reap waits until it looks again. An engine whose reads hang is waited for.
pub const REAP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a reap sleeps on reads while copies are in flight too.
const LOOK_AGAIN: Duration = Duration::from_micros(50);
/// Files up to this length are opened and read in one go.
const SMALL_BYTES_MAX: usize = 128 << 10;
/// The memory that reads land in, at least: as in a loader enough for huge pages, which storage fills faster.
const ARENA_BYTES_MIN: u64 = 16 << 20;
/// The same for samples of many sizes.
const DATA_SET_ARENA_BYTES_MIN: u64 = 64 << 20;

/// The engine, into host memory.
struct ToHost {
    engine: Engine,
    completions: Vec<Completion>,
    /// Files that were opened and wait for memory, with the slots that they belong to.
    opened: VecDeque<(usize, Arc<OpenFile>)>,
    /// Memory that the next reads land in.
    spare: Vec<Region>,
    is_uniform: bool,
    /// The size of the largest piece, as far as is known.
    piece_bytes: usize,
    /// Whether a file was opened through the page cache.
    is_cached: std::cell::Cell<bool>,
    in_flight: usize,
}

impl ToHost {
    fn new(setup: &Setup) -> Result<Self> {
        let make = if setup.small_pages { Arena::in_small_pages } else { Arena::new };
        let arena = make(arena_bytes(setup)?)?;
        let options = EngineOptions {
            direct: setup.direct,
            data_set_bytes: setup.data_bytes,
            threads: setup.threads,
            ..setup.options
        };
        let (engine, _fallbacks) = Engine::new(setup.engine, &arena, setup.depth, options)?;
        Ok(Self {
            engine,
            completions: Vec::with_capacity(setup.depth),
            opened: VecDeque::with_capacity(setup.depth),
            spare: Vec::with_capacity(setup.depth),
            is_uniform: setup.is_uniform,
            piece_bytes: usize::try_from(setup.piece_bytes).unwrap_or(usize::MAX),
            is_cached: false.into(),
            in_flight: 0,
        })
    }

    /// Memory for a read, if there is any.
    fn memory(&mut self, needed_bytes: usize) -> Result<Option<Region>> {
        match self.spare.pop_if(|region| region.len() >= needed_bytes) {
            Some(region) => Ok(Some(region)),
            None => self.engine.arena().alloc(needed_bytes),
        }
    }

    /// Memory for a file that is opened and read in one go, if it is small and there is any.
    fn memory_of_file(&mut self) -> Result<Option<Region>> {
        if self.piece_bytes > SMALL_BYTES_MAX { Ok(None) } else { self.memory(self.piece_bytes) }
    }

    /// Begins the reads of files that were opened, as far as there is memory.
    fn read_opened(&mut self) -> Result<()> {
        while let Some((slot, file)) = self.opened.front() {
            let (slot, file) = (*slot, Arc::clone(file));
            let len_bytes = usize::try_from(file.size_bytes()).unwrap_or(usize::MAX);
            let needed = self.engine.region_len(&file, 0, len_bytes);
            let Some(region) = self.memory(needed)? else { return Ok(()) };
            self.engine.read(slot as u64, &file, 0, len_bytes, region);
            self.opened.pop_front();
        }
        Ok(())
    }

    /// As `reap`, but waits for `min` reads, and no longer than `timeout`.
    fn reap_some(&mut self, min: usize, timeout: Duration, ended: &mut Vec<Ended>) -> Result<()> {
        self.read_opened()?;
        self.engine.reap(min, timeout, &mut self.completions)?;
        for completion in self.completions.drain(..) {
            let slot = completion.token as usize;
            match completion.result? {
                Outcome::Opened(file) => {
                    self.is_cached.set(self.is_cached.get() || !file.is_direct());
                    self.opened.push_back((slot, file));
                }
                Outcome::Read(region) | Outcome::ReadFile { region, .. } => {
                    self.in_flight -= 1;
                    ended.push(Ended { slot, len_bytes: region.len(), memory: Memory::Host(region) });
                }
                Outcome::ReadDevice(_) => unreachable!("nothing is read to a device"),
            }
        }
        self.read_opened()
    }
}

impl Reads for ToHost {
    fn open(&self, path: &Path) -> Result<Arc<OpenFile>> {
        let file = self.engine.open_now(path)?;
        self.is_cached.set(self.is_cached.get() || !file.is_direct());
        Ok(file)
    }

    fn start(&mut self, slot: usize, piece: Piece) -> Result<Option<Piece>> {
        match piece {
            Piece::File(path) => match self.memory_of_file()? {
                Some(region) => self.engine.read_file(slot as u64, &path, region),
                None => self.engine.open(slot as u64, &path),
            },
            Piece::Range { file, offset, len_bytes } => {
                let needed = self.engine.region_len(&file, offset, len_bytes);
                let Some(region) = self.memory(needed)? else {
                    return Ok(Some(Piece::Range { file, offset, len_bytes }));
                };
                self.engine.read(slot as u64, &file, offset, len_bytes, region);
            }
        }
        self.in_flight += 1;
        Ok(None)
    }

    fn reap(&mut self, ended: &mut Vec<Ended>) -> Result<()> {
        let before = ended.len();
        while ended.len() == before && self.in_flight > 0 {
            self.reap_some(1, REAP_TIMEOUT, ended)?;
        }
        Ok(())
    }

    fn take_asked_again(&mut self, put: &mut dyn FnMut(u64, u64)) {
        self.engine.take_asked_again(put);
    }

    fn recycle(&mut self, memory: Memory) {
        let Memory::Host(memory) = memory else { return };
        // One that was narrowed cannot be widened again.
        if self.is_uniform && memory.len() == memory.allocated_bytes() {
            self.spare.push(memory);
        }
    }

    fn wanted(&self) -> usize {
        self.engine.wanted()
    }

    fn depth(&self) -> Option<usize> {
        Some(self.engine.depth())
    }

    fn engine(&self) -> &'static str {
        self.engine.kind().name()
    }

    fn is_direct(&self) -> bool {
        let refused = self.engine.fallbacks().iter().any(|fallback| fallback.what == "O_DIRECT");
        self.engine.direct() != Direct::Off && !refused && !self.is_cached.get()
    }

    fn fallbacks(&self) -> Vec<Fallback> {
        self.engine.fallbacks()
    }
}

/// The engine into page-locked memory, and a copy to a device behind each read.
struct ViaHost {
    // Before the engine's memory goes.
    uploads: Uploads,
    host: ToHost,
    read: Vec<Ended>,
    copied: Vec<(u64, Region)>,
}

impl ViaHost {
    fn new(setup: &Setup, ordinal: u32) -> Result<Self> {
        let host = ToHost::new(setup)?;
        let uploads = Uploads::new(ordinal, host.engine.arena(), host.engine.arena().capacity_bytes())?;
        let (read, copied) = (Vec::with_capacity(setup.depth), Vec::with_capacity(setup.depth));
        Ok(Self { uploads, host, read, copied })
    }
}

impl Reads for ViaHost {
    fn open(&self, path: &Path) -> Result<Arc<OpenFile>> {
        self.host.open(path)
    }

    fn start(&mut self, slot: usize, piece: Piece) -> Result<Option<Piece>> {
        self.host.start(slot, piece)
    }

    fn reap(&mut self, ended: &mut Vec<Ended>) -> Result<()> {
        let before = ended.len();
        while ended.len() == before && self.host.in_flight + self.uploads.in_flight() > 0 {
            if self.host.in_flight > 0 {
                let timeout = if self.uploads.in_flight() > 0 { LOOK_AGAIN } else { REAP_TIMEOUT };
                self.host.reap_some(1, timeout, &mut self.read)?;
                for Ended { slot, memory, .. } in self.read.drain(..) {
                    if let Memory::Host(memory) = memory {
                        self.uploads.start(slot as u64, memory)?;
                    }
                }
            }
            // With nothing to read there is nothing else to wait for.
            self.uploads.reap(usize::from(self.host.in_flight == 0), &mut self.copied)?;
            ended.extend(self.copied.drain(..).map(|(slot, region)| Ended {
                slot: slot as usize,
                len_bytes: region.len(),
                memory: Memory::Host(region),
            }));
        }
        Ok(())
    }

    fn take_asked_again(&mut self, put: &mut dyn FnMut(u64, u64)) {
        self.host.take_asked_again(put);
    }

    fn recycle(&mut self, memory: Memory) {
        self.host.recycle(memory);
    }

    fn wanted(&self) -> usize {
        self.host.wanted()
    }

    fn depth(&self) -> Option<usize> {
        self.host.depth()
    }

    fn engine(&self) -> &'static str {
        self.host.engine()
    }

    fn is_direct(&self) -> bool {
        self.host.is_direct()
    }

    fn fallbacks(&self) -> Vec<Fallback> {
        self.host.fallbacks()
    }
}

/// Room for every piece in flight, and as much again for those that end out of turn.
pub fn arena_bytes(setup: &Setup) -> Result<usize> {
    let align = REGION_ALIGN_BYTES as u64;
    // An unaligned piece is rounded outward on both sides.
    let piece = setup.piece_bytes.max(1).next_multiple_of(align).saturating_add(align);
    let least = if setup.is_uniform { ARENA_BYTES_MIN } else { DATA_SET_ARENA_BYTES_MIN };
    let asked = piece.saturating_mul(setup.depth as u64).saturating_mul(2).max(least);
    let available = memory_bytes("MemAvailable:").unwrap_or(u64::MAX);
    // A few large samples make no reason to refuse a data set: reads wait for memory instead.
    let bytes = if setup.is_uniform { asked } else { asked.min((available / 4).max(piece)) };
    match usize::try_from(bytes).ok().filter(|_| bytes <= available / 2) {
        Some(bytes) => Ok(bytes),
        None => {
            let message = format!("reads in flight take {asked} bytes of memory, and {available} are available");
            Err(Error::new(ErrorKind::LimitExceeded, message).with_remedy("lower --depth or --block"))
        }
    }
}
