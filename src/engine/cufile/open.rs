//! The library, open for this process: once, however many use it.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use cufile_sys::sys::{CUFileBoolConfigParameter_t, CUfileDrvProps_t, CUfileOpError};
use cufile_sys::{Error as Refusal, Library};

use super::receipts::Counts;
use crate::device::cuda::Gpu;
use crate::engine::RequirePath;
use crate::error::{Error, ErrorKind, Result};
use crate::report::lock;

/// How much the library counts: per device, which the paths of reads are among.
const STATS_LEVEL: i32 = 3;

/// The library, open until the last of these is dropped.
pub(in crate::engine) struct Open {
    library: &'static Library,
    properties: CUfileDrvProps_t,
    /// Why reads are not counted by path.
    uncounted: Option<Refusal>,
    /// Held while a file is registered: two threads may come with the same one.
    pub(super) registering: Mutex<()>,
}

impl Open {
    /// Opens it, or takes the one that is open.
    ///
    /// # Errors
    /// `Unavailable`, naming what is missing.
    pub(super) fn new(gpu: &Gpu, require: RequirePath) -> Result<Arc<Self>> {
        static OPEN: Mutex<Weak<Open>> = Mutex::new(Weak::new());
        let mut open = lock(&OPEN);
        if let Some(open) = open.upgrade() {
            return Ok(open);
        }
        let new = Arc::new(Self::of_process(gpu, require)?);
        *open = Arc::downgrade(&new);
        Ok(new)
    }

    fn of_process(gpu: &Gpu, require: RequirePath) -> Result<Self> {
        let library = library()?;
        // The simulated driver has no kernel module to look for.
        if !gpu.is_simulated() && !Path::new("/proc/modules").exists() {
            let message =
                "cuFile cannot be opened: /proc/modules does not exist, and libcufile would look for it for ever";
            return Err(Error::new(ErrorKind::Unavailable, message)
                .with_remedy("mount the whole of /proc, or use the engine uring"));
        }
        if require == RequirePath::Direct {
            let parameter = CUFileBoolConfigParameter_t::CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE;
            // An older library lacks this; then every read is looked at only behind it.
            // SAFETY: the library is not open, so no other thread of ours is within it.
            let _ = unsafe { library.cuFileSetParameterBool(parameter, false) };
        }
        // SAFETY: none is asked for.
        let counting = unsafe { library.cuFileSetStatsLevel(STATS_LEVEL) };
        // SAFETY: /proc/modules is there, or the driver is simulated. The environment is this program's user's.
        unsafe { library.cuFileDriverOpen() }.map_err(|refusal| {
            Error::new(ErrorKind::Unavailable, format!("cuFile cannot be opened: {refusal}"))
                .with_remedy(remedy(refusal))
                .with_source(refusal)
        })?;
        let mut open = Self {
            library,
            // SAFETY: numbers alone, of which 0 is one.
            properties: unsafe { std::mem::zeroed() },
            uncounted: None,
            registering: Mutex::default(),
        };
        // From here on dropping it closes the library.
        open.properties = library.properties().map_err(|refusal| {
            Error::new(ErrorKind::Unavailable, format!("cuFile does not say what it is: {refusal}"))
                .with_source(refusal)
        })?;
        // SAFETY: none is asked for.
        let counting = counting.and_then(|()| unsafe { library.cuFileStatsStart() });
        open.uncounted = counting.and_then(|()| library.gpu_reads()).err();
        Ok(open)
    }

    pub(super) fn library(&self) -> &'static Library {
        self.library
    }

    pub(super) fn properties(&self) -> &CUfileDrvProps_t {
        &self.properties
    }

    /// Reads by path so far; none where the library does not count them.
    pub(super) fn counts(&self) -> Option<Counts> {
        if self.uncounted.is_some() {
            return None;
        }
        let (gpus, batches) = (self.library.gpu_reads().ok()?, self.library.batch_reads().ok()?);
        Some(Counts::of(&gpus, &batches))
    }

    /// Why reads are not counted by path, where they are not.
    pub(super) fn uncounted(&self) -> Option<Refusal> {
        self.uncounted
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: files, buffers, streams and batches each held this until they were given back.
        let closed = unsafe { self.library.cuFileDriverClose_v2() };
        if let Err(Refusal::Missing(_)) = closed {
            // SAFETY: as above.
            let _ = unsafe { self.library.cuFileDriverClose() };
        }
    }
}

/// The library, found once.
fn library() -> Result<&'static Library> {
    static LIBRARY: OnceLock<&'static Library> = OnceLock::new();
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let library = Library::open().map_err(|error| {
        Error::new(ErrorKind::Unavailable, error.to_string())
            .with_remedy(
                "install NVIDIA's libcufile (in CUDA's packages, or nvidia-cufile of PyPI) and put its folder on \
                 LD_LIBRARY_PATH, or use the engine uring",
            )
            .with_source(error)
    })?;
    Ok(LIBRARY.get_or_init(|| library))
}

fn remedy(refusal: Refusal) -> &'static str {
    match refusal.code() {
        Some(CUfileOpError::CU_FILE_DRIVER_NOT_INITIALIZED | CUfileOpError::CU_FILE_NVFS_SETUP_ERROR) => {
            "load NVIDIA's kernel module (modprobe nvidia-fs), or turn on PCI peer-to-peer DMA (use_pci_p2pdma in \
             cufile.json); see what `forebay doctor PATH` says of GPUDirect Storage"
        }
        Some(CUfileOpError::CU_FILE_DRIVER_VERSION_MISMATCH) => {
            "install the nvidia-fs module and the libcufile of one CUDA release"
        }
        Some(CUfileOpError::CU_FILE_PERMISSION_DENIED) => "make /dev/nvidia-fs* readable and writable for this user",
        Some(CUfileOpError::CU_FILE_CUDA_DRIVER_ERROR) => "see what `nvidia-smi` says",
        _ => "see what `forebay doctor PATH` says of GPUDirect Storage, or use the engine uring",
    }
}
