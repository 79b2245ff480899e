//! What nvJPEG allocates, counted.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys as cuda;
use nvjpeg_sys::sys::{cudaStream_t, nvjpegDevAllocatorV2_t, nvjpegPinnedAllocatorV2_t};

/// `CU_MEMHOSTALLOC_PORTABLE`: page-locked for every context, and not write-combined, since nvJPEG's host phase reads it.
const PORTABLE: u32 = 1;

/// Allocators for nvJPEG that count. It allocates when it meets an image larger than those before, and keeps what it has:
/// so calls that wait for the device are no loss, and spare us to know on which streams it uses what.
pub(super) struct Memory {
    counts: Arc<Counts>,
    pub(super) device: nvjpegDevAllocatorV2_t,
    pub(super) pinned: nvjpegPinnedAllocatorV2_t,
}

#[derive(Default)]
struct Counts {
    device_bytes: AtomicU64,
    pinned_bytes: AtomicU64,
    /// What was last asked for in vain.
    refused_bytes: AtomicU64,
}

// SAFETY: the pointers lead to `counts`, which any thread may use.
unsafe impl Send for Memory {}

impl Memory {
    pub(super) fn new() -> Self {
        let counts = Arc::<Counts>::default();
        let context = Arc::as_ptr(&counts).cast_mut().cast::<c_void>();
        Self {
            counts,
            device: nvjpegDevAllocatorV2_t {
                dev_malloc: Some(device_malloc),
                dev_free: Some(device_free),
                dev_ctx: context,
            },
            pinned: nvjpegPinnedAllocatorV2_t {
                pinned_malloc: Some(pinned_malloc),
                pinned_free: Some(pinned_free),
                pinned_ctx: context,
            },
        }
    }

    /// Bytes that it holds now: of the device, and page-locked ones of the host.
    pub(super) fn held_bytes(&self) -> (u64, u64) {
        (self.counts.device_bytes.load(Ordering::Relaxed), self.counts.pinned_bytes.load(Ordering::Relaxed))
    }

    /// The size of the last allocation that failed.
    pub(super) fn refused_bytes(&self) -> u64 {
        self.counts.refused_bytes.load(Ordering::Relaxed)
    }
}

impl Counts {
    /// The counters behind nvJPEG's pointer.
    ///
    /// # Safety
    ///
    /// `context` is the one that [`Memory::new`] gave out, and that `Memory` is still there.
    unsafe fn of<'a>(context: *mut c_void) -> &'a Self {
        // SAFETY: as the caller promises.
        unsafe { &*context.cast::<Self>() }
    }

    /// Notes how an allocation went, and gives its code to nvJPEG.
    fn note(&self, held: &AtomicU64, size: usize, code: cuda::CUresult) -> c_int {
        match code {
            cuda::CUresult::CUDA_SUCCESS => held.fetch_add(size as u64, Ordering::Relaxed),
            _ => self.refused_bytes.swap(size as u64, Ordering::Relaxed),
        };
        code as c_int
    }
}

unsafe extern "C" fn device_malloc(context: *mut c_void, at: *mut *mut c_void, size: usize, _: cudaStream_t) -> c_int {
    // SAFETY: nvJPEG passes on the context that it was given.
    let counts = unsafe { Counts::of(context) };
    let mut address = 0;
    // SAFETY: the pointer is valid for writing an address. The driver refuses to allocate nothing.
    let code = unsafe { cuda::cuMemAlloc_v2(&mut address, size.max(1)) };
    // SAFETY: nvJPEG's pointer is valid for writing one.
    unsafe { at.write(ptr::with_exposed_provenance_mut(address as usize)) };
    counts.note(&counts.device_bytes, size, code)
}

unsafe extern "C" fn device_free(context: *mut c_void, at: *mut c_void, size: usize, _: cudaStream_t) -> c_int {
    // SAFETY: nvJPEG passes on the context that it was given.
    let counts = unsafe { Counts::of(context) };
    counts.device_bytes.fetch_sub(size as u64, Ordering::Relaxed);
    // SAFETY: nvJPEG frees what `device_malloc` gave it.
    unsafe { cuda::cuMemFree_v2(at.expose_provenance() as u64) as c_int }
}

unsafe extern "C" fn pinned_malloc(context: *mut c_void, at: *mut *mut c_void, size: usize, _: cudaStream_t) -> c_int {
    // SAFETY: nvJPEG passes on the context that it was given.
    let counts = unsafe { Counts::of(context) };
    // SAFETY: nvJPEG's pointer is valid for writing one.
    let code = unsafe { cuda::cuMemHostAlloc(at, size.max(1), PORTABLE) };
    counts.note(&counts.pinned_bytes, size, code)
}

unsafe extern "C" fn pinned_free(context: *mut c_void, at: *mut c_void, size: usize, _: cudaStream_t) -> c_int {
    // SAFETY: nvJPEG passes on the context that it was given.
    let counts = unsafe { Counts::of(context) };
    counts.pinned_bytes.fetch_sub(size as u64, Ordering::Relaxed);
    // SAFETY: nvJPEG frees what `pinned_malloc` gave it.
    unsafe { cuda::cuMemFreeHost(at) as c_int }
}
