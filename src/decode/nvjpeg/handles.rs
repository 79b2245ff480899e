//! nvJPEG's handles, destroyed when they are dropped.

use std::ffi::c_int;
use std::ptr;

use nvjpeg_sys::sys::*;
use nvjpeg_sys::{Error, Library};

use super::Image;
use super::memory::Memory;

/// What there is of a handle: `T` is NVIDIA's opaque type.
pub(super) struct Owned<T> {
    library: &'static Library,
    raw: *mut T,
    destroy: Destroy<T>,
}

type Destroy<T> = unsafe fn(&Library, *mut T) -> Result<(), Error>;

// SAFETY: a handle may be used by any thread that the device's context is current for.
unsafe impl<T> Send for Owned<T> {}
// SAFETY: of the library's types, NVIDIA's documentation (Thread Safety) wants states, parsed streams and buffers to be one
// thread's alone; the handle of the library is not among them.
unsafe impl Sync for Owned<nvjpegHandle> {}
// SAFETY: nor is a decoder.
unsafe impl Sync for Owned<nvjpegJpegDecoder> {}

impl<T> Owned<T> {
    /// # Safety
    ///
    /// `create` writes a live handle when it succeeds, which `destroy` destroys. What it was made with outlives it; so does the
    /// work that it is used for end before it is dropped, by a thread that the context is current for.
    unsafe fn new(
        library: &'static Library,
        create: impl FnOnce(*mut *mut T) -> Result<(), Error>,
        destroy: Destroy<T>,
    ) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        create(&mut raw)?;
        Ok(Self { library, raw, destroy })
    }

    pub(super) fn raw(&self) -> *mut T {
        self.raw
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and whoever made it promised the rest. That it fails, on a device that was lost, changes
        // nothing.
        let _ = unsafe { (self.destroy)(self.library, self.raw) };
    }
}

pub(super) type Handle = Owned<nvjpegHandle>;
pub(super) type State = Owned<nvjpegJpegState>;
pub(super) type Parsed = Owned<nvjpegJpegStream>;
pub(super) type Params = Owned<nvjpegDecodeParams>;
pub(super) type Pinned = Owned<nvjpegBufferPinned>;
pub(super) type Scratch = Owned<nvjpegBufferDevice>;
pub(super) type Decoder = Owned<nvjpegJpegDecoder>;

/// The library opened on the current device, in one of its kinds.
pub(super) struct Opened {
    pub(super) handle: Handle,
    pub(super) library: &'static Library,
}

/// What its buffers are rounded up to, so that they have grown to their sizes after a few images: about the coefficients of
/// a photo of a megapixel, in device memory and page-locked memory alike.
const PADDING_BYTES: usize = 4 << 20;

// SAFETY of every `Owned::new` below: each function writes a live handle when it succeeds, and is paired with the one that
// destroys such a handle. `Hybrid` and `Hardware` hold what is made here in fields whose order drops a handle before what
// it was made with, after they have waited for their streams; `NvJpeg` binds the context before.
impl Opened {
    /// # Safety
    ///
    /// The device's context is current; `memory` outlives all that is made with this.
    pub(super) unsafe fn new(
        library: &'static Library,
        backend: nvjpegBackend_t,
        memory: &mut Memory,
        flags: u32,
    ) -> Result<Self, Error> {
        let (device, pinned) = (&raw mut memory.device, &raw mut memory.pinned);
        // SAFETY: see above; the allocators are valid and outlive the handle.
        let create = |raw| unsafe { library.nvjpegCreateExV2(backend, device, pinned, flags, raw) };
        // SAFETY: see above.
        let handle = unsafe { Owned::new(library, create, Library::nvjpegDestroy) }?;
        // SAFETY: the handle is live.
        unsafe {
            library.nvjpegSetDeviceMemoryPadding(PADDING_BYTES, handle.raw())?;
            library.nvjpegSetPinnedMemoryPadding(PADDING_BYTES, handle.raw())?;
        }
        Ok(Self { handle, library })
    }

    /// Cores of all engines that the device has for JPEG.
    pub(super) fn hardware_cores(&self) -> Result<u32, Error> {
        let (mut engines, mut cores) = (0, 0);
        // SAFETY: the handle is live, the pointers are valid for writes.
        unsafe { self.library.nvjpegGetHardwareDecoderInfo(self.handle.raw(), &mut engines, &mut cores) }?;
        Ok(engines.saturating_mul(cores))
    }

    /// A state for batches.
    pub(super) fn state(&self) -> Result<State, Error> {
        // SAFETY: see above.
        let create = |raw| unsafe { self.library.nvjpegJpegStateCreate(self.handle.raw(), raw) };
        // SAFETY: see above.
        unsafe { Owned::new(self.library, create, Library::nvjpegJpegStateDestroy) }
    }

    /// A decoder for images one at a time.
    pub(super) fn decoder(&self, backend: nvjpegBackend_t) -> Result<Decoder, Error> {
        // SAFETY: see above.
        let create = |raw| unsafe { self.library.nvjpegDecoderCreate(self.handle.raw(), backend, raw) };
        // SAFETY: see above.
        unsafe { Owned::new(self.library, create, Library::nvjpegDecoderDestroy) }
    }

    /// A state for a decoder's images.
    pub(super) fn state_of(&self, decoder: &Decoder) -> Result<State, Error> {
        // SAFETY: see above.
        let create = |raw| unsafe { self.library.nvjpegDecoderStateCreate(self.handle.raw(), decoder.raw(), raw) };
        // SAFETY: see above.
        unsafe { Owned::new(self.library, create, Library::nvjpegJpegStateDestroy) }
    }

    pub(super) fn parsed(&self) -> Result<Parsed, Error> {
        // SAFETY: see above.
        let create = |raw| unsafe { self.library.nvjpegJpegStreamCreate(self.handle.raw(), raw) };
        // SAFETY: see above.
        unsafe { Owned::new(self.library, create, Library::nvjpegJpegStreamDestroy) }
    }

    /// Page-locked memory for a host phase. `memory` is what this was opened with.
    pub(super) fn pinned(&self, memory: &mut Memory) -> Result<Pinned, Error> {
        let allocator = &raw mut memory.pinned;
        // SAFETY: see above.
        let create = |raw| unsafe { self.library.nvjpegBufferPinnedCreateV2(self.handle.raw(), allocator, raw) };
        // SAFETY: see above.
        unsafe { Owned::new(self.library, create, Library::nvjpegBufferPinnedDestroy) }
    }

    /// Device memory for the later phases. `memory` is what this was opened with.
    pub(super) fn scratch(&self, memory: &mut Memory) -> Result<Scratch, Error> {
        let allocator = &raw mut memory.device;
        // SAFETY: see above.
        let create = |raw| unsafe { self.library.nvjpegBufferDeviceCreateV2(self.handle.raw(), allocator, raw) };
        // SAFETY: see above.
        unsafe { Owned::new(self.library, create, Library::nvjpegBufferDeviceDestroy) }
    }

    /// Parameters for planes of red, green and blue, stored as the file has them: the plan of a sample knows its EXIF orientation,
    /// and the resampling applies it.
    pub(super) fn params(&self) -> Result<Params, Error> {
        // SAFETY: see above.
        let create = |raw| unsafe { self.library.nvjpegDecodeParamsCreate(self.handle.raw(), raw) };
        // SAFETY: see above.
        let params = unsafe { Owned::new(self.library, create, Library::nvjpegDecodeParamsDestroy) }?;
        let upright = nvjpegExifOrientation::NVJPEG_ORIENTATION_NORMAL;
        // SAFETY: the parameters are live.
        unsafe {
            self.library.nvjpegDecodeParamsSetOutputFormat(params.raw(), OUTPUT)?;
            self.library.nvjpegDecodeParamsSetExifOrientation(params.raw(), upright)?;
        }
        Ok(params)
    }

    /// Sets the part of the image that is decoded.
    pub(super) fn set_area(&self, params: &mut Params, image: &Image<'_>) -> Result<(), Error> {
        let [x, y, width, height] = if image.is_whole() {
            [0, 0, -1, -1]
        } else {
            [image.area.x, image.area.y, image.area.width, image.area.height].map(|pixels| pixels as c_int)
        };
        // SAFETY: the parameters are live.
        unsafe { self.library.nvjpegDecodeParamsSetROI(params.raw(), x, y, width, height) }
    }
}

pub(super) const OUTPUT: nvjpegOutputFormat_t = nvjpegOutputFormat_t::NVJPEG_OUTPUT_RGB;
