//! cuFile with the device memory that it may write.

use std::ffi::c_void;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cudarc::driver::CudaContext;

use super::api::Call;
use super::handle::{Buffer, Handle};
use super::open::Open;
use super::receipts::{Counts, Ledger, ReadPath, Receipts};
use crate::device::cuda::{Gpu, error};
use crate::engine::transfer::{Request, Step, Transfer};
use crate::engine::{Common, OpenFile, RequirePath};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{DeviceArena, DeviceRegion};
use crate::report::lock;

/// Of a request, where the library does not say how long one may be.
const REQUEST_BYTES_UNKNOWN: usize = 1 << 20;

/// How long, and how often, the library's counts are waited for when they say nothing of a read yet.
const COUNTS_WAIT: Duration = Duration::from_micros(500);
const COUNTS_TRIES: u32 = 40;

/// cuFile, open in this process, with the device memory that it may write: arenas, registered once. What reads took is put
/// down here.
///
/// The library is one for the process, and so are its settings and counts: another user of it in the same process may show
/// in the [`Receipts`].
pub struct CuFile {
    // In the order in which they have to be given back.
    buffers: Vec<Buffer>,
    open: Arc<Open>,
    gpu: Gpu,
    require: RequirePath,
    ledger: Mutex<Ledger>,
}

impl CuFile {
    /// Opens the library, if it is not open yet, and registers the memory of the arenas, which lie on one device.
    ///
    /// # Errors
    /// `Unavailable` where the library or what it needs is missing, or the memory cannot be registered;
    /// `InvalidParameter` for no arena, or arenas of several devices.
    pub fn open(arenas: &[DeviceArena], require: RequirePath) -> Result<Arc<Self>> {
        let Some(first) = arenas.first() else {
            return Err(Error::invalid_parameter("arenas", "empty", "there is nothing that cuFile could read to"));
        };
        let gpu = first.memory().gpu().clone();
        if let Some(other) = arenas.iter().find(|arena| arena.memory().gpu().ordinal() != gpu.ordinal()) {
            let value = format!("on cuda:{} and cuda:{}", gpu.ordinal(), other.memory().gpu().ordinal());
            return Err(Error::invalid_parameter("arenas", value, "one device is allowed"));
        }
        bind(gpu.context())?;
        let open = Open::new(&gpu, require)?;
        let mut buffers: Vec<Buffer> = Vec::new();
        for arena in arenas {
            if !buffers.iter().any(|buffer| buffer.is_of(arena.memory())) {
                buffers.push(Buffer::new(&open, arena.memory())?);
            }
        }
        let ledger = Mutex::new(Ledger::new(open.counts().unwrap_or_default()));
        Ok(Arc::new(Self { buffers, open, gpu, require, ledger }))
    }

    /// The version of the library, such as 1.20; none where it does not say.
    pub fn version(&self) -> Option<String> {
        let version = self.open.library().version().ok()?;
        Some(format!("{}.{}", version / 1000, version % 1000 / 10))
    }

    /// What reads took since this was opened.
    pub fn receipts(&self) -> Receipts {
        lock(&self.ledger).receipts()
    }

    /// Why the library does not count reads by path, where it does not.
    pub fn uncounted(&self) -> Option<String> {
        self.open.uncounted().map(|refusal| refusal.to_string())
    }

    /// What reads have to have come by.
    pub fn require(&self) -> RequirePath {
        self.require
    }

    /// The most bytes of a request: batches of older libraries refuse entries that are longer than what is asked of the
    /// kernel at once.
    pub(in crate::engine) fn request_bytes_max(&self) -> usize {
        match self.open.properties().nvfs.max_direct_io_size {
            0 => REQUEST_BYTES_UNKNOWN,
            kibibytes => kibibytes.saturating_mul(1024),
        }
    }

    /// Reads the start of a file into `region` and says what that took, which is not put down. With nothing else in flight.
    ///
    /// # Errors
    /// As for reads; `Unavailable` where they have to be direct and this one was not.
    pub fn prove(&self, path: &Path, region: DeviceRegion) -> Result<ReadPath> {
        let engine = Common::of_proof();
        let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
            .map_err(|_| Error::new(ErrorKind::NotFound, format!("{}: it holds a NUL byte", path.display())))?;
        let file = engine.open(name)?;
        let len_bytes = file.size_bytes().min(region.len() as u64) as usize;
        if len_bytes == 0 {
            let message = format!("{}: it is empty, so no read of it proves anything", path.display());
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy("name a file with bytes"));
        }
        let before = self.receipts();
        self.read(&engine, Transfer::new(file, 0, len_bytes, region)?, || false)?;
        let after = lock(&self.ledger).forget_since(before);
        let grown = |path: &ReadPath| after.of(*path).reads > before.of(*path).reads;
        Ok(ReadPath::ALL.into_iter().find(grown).unwrap_or(ReadPath::Unstated))
    }

    /// Reads on the calling thread.
    pub(in crate::engine) fn read(
        &self,
        common: &Common,
        mut transfer: Transfer<DeviceRegion>,
        is_abandoned: impl Fn() -> bool,
    ) -> Result<DeviceRegion> {
        self.bind()?;
        loop {
            if is_abandoned() {
                return Err(Common::abandoned());
            }
            let request = transfer.request(common);
            let call = self.call(&transfer, request)?;
            // SAFETY: the transfer owns its region and keeps its file open and registered; work that used the bytes before is
            // done, as `Engine::read_device` asks.
            let answer = unsafe {
                self.open.library().cuFileRead(
                    call.file,
                    call.base,
                    call.len_bytes,
                    call.file_offset as i64,
                    call.base_offset as i64,
                )
            };
            match transfer.advance(request, answer, common) {
                Step::Again(next) => transfer = next,
                Step::Done(Err(error)) => return Err(error),
                Step::Done(Ok(region)) => {
                    self.put_down(1, region.len() as u64)?;
                    return Ok(region);
                }
            }
        }
    }

    /// A request of a transfer as cuFile takes it.
    pub(super) fn call(&self, transfer: &Transfer<DeviceRegion>, request: Request) -> Result<Call> {
        let (file, region) = transfer.file_and_region();
        let memory = region.memory();
        if !self.buffers.iter().any(|buffer| buffer.is_of(memory)) {
            let message = "the region is of an arena that cuFile was not opened with";
            return Err(Error::new(ErrorKind::InvalidParameter, message).with_remedy("open it with all arenas"));
        }
        Ok(Call {
            file: self.handle(file)?.raw(),
            base: std::ptr::without_provenance_mut::<c_void>(memory.address() as usize),
            base_offset: region.offset() + request.at,
            file_offset: request.offset,
            len_bytes: request.len_bytes,
        })
    }

    /// The file as cuFile knows it.
    fn handle<'a>(&self, file: &'a OpenFile) -> Result<&'a Handle> {
        let known = file.cufile();
        if let Some(handle) = known.get() {
            return Ok(handle);
        }
        let _alone = lock(&self.open.registering);
        if let Some(handle) = known.get() {
            return Ok(handle);
        }
        // SAFETY: the file owns the handle, which it drops before its descriptor.
        let handle = unsafe { Handle::new(&self.open, file.descriptor(), file.path())? };
        Ok(known.get_or_init(|| handle))
    }

    /// Puts down what reads took that have ended.
    ///
    /// # Errors
    /// `Unavailable` where all have to be direct and these were not.
    pub(super) fn put_down(&self, reads: u64, bytes: u64) -> Result<()> {
        let mut ledger = lock(&self.ledger);
        let is_direct = match self.counts(&mut ledger) {
            Some(now) => ledger.put(now, reads, bytes),
            None => ledger.put_by(self.path_by_properties(), reads, bytes),
        };
        if is_direct || self.require == RequirePath::Any {
            return Ok(());
        }
        let receipts = ledger.receipts();
        drop(ledger);
        let unstated = receipts.of(ReadPath::Unstated).reads > 0 && receipts.of(ReadPath::Posix).reads == 0;
        let cause = match self.uncounted().filter(|_| unstated) {
            Some(refusal) => format!("this cuFile does not say what its reads take: {refusal}"),
            None => format!("cuFile read through host memory ({receipts})"),
        };
        let message = format!("the path direct is required, and {cause}");
        Err(Error::new(ErrorKind::Unavailable, message)
            .with_remedy("see what `forebay doctor PATH` says of GPUDirect Storage, or allow every path"))
    }

    /// The library's counts, once they say anything of what has just ended.
    fn counts(&self, ledger: &mut Ledger) -> Option<Counts> {
        let mut now = self.open.counts()?;
        for _ in 0..COUNTS_TRIES {
            if !ledger.is_behind(&now) {
                return Some(now);
            }
            thread::sleep(COUNTS_WAIT);
            now = self.open.counts()?;
        }
        ledger.wait_out();
        Some(now)
    }

    /// What reads take by the library's properties alone: nothing but the host's memory without a kernel module, and where
    /// compatibility mode is forbidden nothing but the module.
    fn path_by_properties(&self) -> ReadPath {
        let nvfs = &self.open.properties().nvfs;
        let allows_compat =
            nvfs.dcontrolflags & 1 << cufile_sys::sys::CUfileDriverControlFlags::CU_FILE_ALLOW_COMPAT_MODE.0 != 0;
        match (nvfs.major_version, allows_compat) {
            (0, _) => ReadPath::Posix,
            (_, false) => ReadPath::Nvfs,
            (_, true) => ReadPath::Unstated,
        }
    }

    pub(super) fn open_library(&self) -> &Arc<Open> {
        &self.open
    }

    pub(super) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Makes the device's context the calling thread's.
    pub(super) fn bind(&self) -> Result<()> {
        bind(self.gpu.context())
    }
}

impl std::fmt::Debug for CuFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CuFile({:?} on cuda:{})", self.buffers, self.gpu.ordinal())
    }
}

fn bind(context: &Arc<CudaContext>) -> Result<()> {
    context.bind_to_thread().map_err(|code| error("cuCtxSetCurrent", code))
}

impl Common {
    /// For a single read outside of an engine.
    fn of_proof() -> Self {
        Self {
            direct: crate::engine::Direct::Preferred,
            read_bytes_max: 1 << 30,
            align_bytes_min: crate::engine::files::ALIGN_UNKNOWN_BYTES,
            fallbacks: Default::default(),
            polling: Default::default(),
            counters: Default::default(),
            again: Default::default(),
            abandoned: Default::default(),
        }
    }
}
