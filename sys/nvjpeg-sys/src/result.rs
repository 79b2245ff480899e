//! A library that was opened, and its functions with results instead of statuses.

use std::error::Error as _;
use std::ffi::{OsStr, c_int, c_uint};
use std::fmt;

use crate::sys::*;

/// The names that the library goes by, in the order of trial: what a toolkit's development package links to, then what
/// CUDA 12, 13 and 11 install. 12 before 13, since the library of CUDA 13 needs a driver that knows CUDA 13, and every
/// driver that does runs the other too.
pub const NAMES: [&str; 4] = ["libnvjpeg.so", "libnvjpeg.so.12", "libnvjpeg.so.13", "libnvjpeg.so.11"];

/// Why a call did not do what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The library, an older or a newer one, has no function of this name.
    Missing(&'static str),
    /// The function answers with a status other than success.
    Failed {
        /// The function.
        call: &'static str,
        /// Its answer.
        status: nvjpegStatus_t,
    },
}

impl Error {
    /// The status, where a function answered with one.
    pub fn status(self) -> Option<nvjpegStatus_t> {
        match self {
            Self::Missing(_) => None,
            Self::Failed { status, .. } => Some(status),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(call) => write!(f, "this libnvjpeg has no {call}"),
            Self::Failed { call, status } => match status_name(*status) {
                Some(name) => write!(f, "{call} says {name}"),
                None => write!(f, "{call} says {}", status.0),
            },
        }
    }
}

impl std::error::Error for Error {}

/// What NVIDIA's header calls a status; none where it is newer than the header.
pub fn status_name(status: nvjpegStatus_t) -> Option<&'static str> {
    const NAMES: [&str; 11] = [
        "NVJPEG_STATUS_SUCCESS",
        "NVJPEG_STATUS_NOT_INITIALIZED",
        "NVJPEG_STATUS_INVALID_PARAMETER",
        "NVJPEG_STATUS_BAD_JPEG",
        "NVJPEG_STATUS_JPEG_NOT_SUPPORTED",
        "NVJPEG_STATUS_ALLOCATOR_FAILURE",
        "NVJPEG_STATUS_EXECUTION_FAILED",
        "NVJPEG_STATUS_ARCH_MISMATCH",
        "NVJPEG_STATUS_INTERNAL_ERROR",
        "NVJPEG_STATUS_IMPLEMENTATION_NOT_SUPPORTED",
        "NVJPEG_STATUS_INCOMPLETE_BITSTREAM",
    ];
    NAMES.get(status.0 as usize).copied()
}

/// No library could be opened: each name that was tried, and what the dynamic linker said of it.
#[derive(Debug)]
pub struct OpenError(Vec<(String, libloading::Error)>);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no nvJPEG library can be opened, tried")?;
        for (i, (name, _)) in self.0.iter().enumerate() {
            write!(f, "{} {name}", if i == 0 { "" } else { "," })?;
        }
        for (name, error) in &self.0 {
            let Some(reason) = error.source() else { continue };
            let reason = reason.to_string();
            // Of a name that is nowhere it only repeats the name.
            if !reason.starts_with(&format!("{name}: cannot open shared object file: No such")) {
                write!(f, "; {reason}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for OpenError {}

impl Library {
    /// Opens the first of [`NAMES`] that the dynamic linker finds. Once opened it is never closed: it keeps threads and
    /// thread-local data of its own.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names all that was tried.
    pub fn open() -> Result<&'static Self, OpenError> {
        Self::open_first(&NAMES)
    }

    /// Opens the library at a path.
    ///
    /// # Errors
    ///
    /// [`OpenError`] with what the dynamic linker says.
    pub fn open_at(path: impl AsRef<OsStr>) -> Result<&'static Self, OpenError> {
        Self::open_first(&[path])
    }

    fn open_first(names: &[impl AsRef<OsStr>]) -> Result<&'static Self, OpenError> {
        let mut tried = Vec::new();
        for name in names {
            // SAFETY: the library's initialisers are those that every program which links it runs.
            match unsafe { libloading::Library::new(name.as_ref()) } {
                // A handle that is leaked along with the functions it was asked for.
                Ok(library) => return Ok(Box::leak(Box::new(Self::resolve(Box::leak(Box::new(library)))))),
                Err(error) => tried.push((name.as_ref().to_string_lossy().into_owned(), error)),
            }
        }
        Err(OpenError(tried))
    }

    /// Major, minor and patch level of the library, which are not those of CUDA.
    ///
    /// # Errors
    ///
    /// What the library answers.
    pub fn version(&self) -> Result<[c_int; 3], Error> {
        let mut version = [0; 3];
        for (number, property) in version.iter_mut().zip(0..) {
            // SAFETY: the pointer is valid for writing an int, all that the call asks for.
            unsafe { self.nvjpegGetProperty(libraryPropertyType_t(property), number) }?;
        }
        Ok(version)
    }
}

/// Makes [`Library`] of a list of functions: the table, and a method each.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*);)*) => {
        /// An open library. Any thread may use it; what NVIDIA's documentation says of the thread safety of
        /// each handle holds.
        #[allow(non_snake_case)]
        pub struct Library {
            $($name: Option<crate::sys::$name>,)*
        }

        impl Library {
            fn resolve(library: &'static libloading::Library) -> Self {
                Self {
                    $(
                        // SAFETY: bindgen has read the function's type from the library's header.
                        $name: unsafe { library.get::<crate::sys::$name>(stringify!($name)) }.ok().map(|found| *found),
                    )*
                }
            }

            /// The functions that this library lacks.
            pub fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $(if self.$name.is_none() {
                    missing.push(stringify!($name));
                })*
                missing
            }
        }

        /// The functions, by the names that NVIDIA's documentation has.
        ///
        /// All of them fail with [`Error::Missing`] or [`Error::Failed`].
        #[allow(non_snake_case, clippy::too_many_arguments)]
        impl Library {
            $(
                $(#[$doc])*
                pub unsafe fn $name(&self, $($argument: $kind),*) -> Result<(), Error> {
                    let function = self.$name.ok_or(Error::Missing(stringify!($name)))?;
                    // SAFETY: as the caller promises.
                    match unsafe { function($($argument),*) } {
                        nvjpegStatus_t::NVJPEG_STATUS_SUCCESS => Ok(()),
                        status => Err(Error::Failed { call: stringify!($name), status }),
                    }
                }
            )*
        }
    };
}

functions! {
    /// A number of the library's version.
    /// # Safety
    /// `value` is valid for a write.
    nvjpegGetProperty(property: libraryPropertyType, value: *mut c_int);
    /// A number of the version of the CUDA runtime within.
    /// # Safety
    /// `value` is valid for a write.
    nvjpegGetCudartProperty(property: libraryPropertyType, value: *mut c_int);

    /// Opens the library on the current device.
    /// # Safety
    /// A CUDA context is current; `handle` is valid for a write. The allocators' functions may be called from any thread,
    /// and they and their contexts live as long as the handle.
    nvjpegCreateExV2(backend: nvjpegBackend_t, device: *mut nvjpegDevAllocatorV2_t,
        pinned: *mut nvjpegPinnedAllocatorV2_t, flags: c_uint, handle: *mut nvjpegHandle_t);
    /// # Safety
    /// The handle is live, as is nothing that was made with it.
    nvjpegDestroy(handle: nvjpegHandle_t);
    /// Rounds device allocations up to a multiple.
    /// # Safety
    /// The handle is live.
    nvjpegSetDeviceMemoryPadding(padding: usize, handle: nvjpegHandle_t);
    /// Rounds page-locked allocations up to a multiple.
    /// # Safety
    /// The handle is live.
    nvjpegSetPinnedMemoryPadding(padding: usize, handle: nvjpegHandle_t);
    /// How many decoding engines the device has; none where it answers 0.
    /// # Safety
    /// The handle is live; the pointers are valid for writes.
    nvjpegGetHardwareDecoderInfo(handle: nvjpegHandle_t, engines: *mut c_uint, cores_per_engine: *mut c_uint);

    /// A state for batched decoding.
    /// # Safety
    /// The handle is live; `state` is valid for a write.
    nvjpegJpegStateCreate(handle: nvjpegHandle_t, state: *mut nvjpegJpegState_t);
    /// # Safety
    /// The state is live, and nothing decodes with it.
    nvjpegJpegStateDestroy(state: nvjpegJpegState_t);
    /// Prepares a state for batches of one size.
    /// # Safety
    /// Handle and state are live; what the state decoded before has ended.
    nvjpegDecodeBatchedInitialize(handle: nvjpegHandle_t, state: nvjpegJpegState_t, batch_size: c_int,
        cpu_threads_max: c_int, format: nvjpegOutputFormat_t);
    /// Allocates for batches of images of a size.
    /// # Safety
    /// Handle and state are live; nothing decodes with the state.
    nvjpegDecodeBatchedPreAllocate(handle: nvjpegHandle_t, state: nvjpegJpegState_t, batch_size: c_int,
        width: c_int, height: c_int, sampling: nvjpegChromaSubsampling_t, format: nvjpegOutputFormat_t);
    /// 0 where `nvjpegDecodeBatchedEx` takes the image with these parameters.
    /// # Safety
    /// All handles are live, the stream's header was parsed; `supported` is valid for a write.
    nvjpegDecodeBatchedSupportedEx(handle: nvjpegHandle_t, stream: nvjpegJpegStream_t,
        params: nvjpegDecodeParams_t, supported: *mut c_int);
    /// 0 where `nvjpegDecodeBatched` takes the image.
    /// # Safety
    /// The handles are live, the stream's header was parsed; `supported` is valid for a write.
    nvjpegDecodeBatchedSupported(handle: nvjpegHandle_t, stream: nvjpegJpegStream_t, supported: *mut c_int);
    /// Decodes a batch of whole images, in the order of the CUDA stream; the hardware does not keep to it, and the host
    /// must have waited for what the call reads and writes. The backends for bitstreams in device memory know this
    /// one alone.
    /// # Safety
    /// Handle and state are live. The arrays hold as many entries as the state was prepared for; the bytes, in device
    /// memory for the backends of that name, stay until the CUDA stream has come past the call, and the destinations
    /// are device memory large enough.
    nvjpegDecodeBatched(handle: nvjpegHandle_t, state: nvjpegJpegState_t, data: *const *const u8,
        lengths: *const usize, destinations: *mut nvjpegImage_t, stream: cudaStream_t);
    /// Decodes a batch, in the order of the CUDA stream. The hardware and the lossless decoder know it.
    /// # Safety
    /// Handle and state are live. The arrays hold as many entries as the state was prepared for, of `params` live handles; the
    /// bytes stay until the CUDA stream has come past the call, and the destinations are device memory large enough.
    nvjpegDecodeBatchedEx(handle: nvjpegHandle_t, state: nvjpegJpegState_t, data: *const *const u8,
        lengths: *const usize, destinations: *mut nvjpegImage_t, params: *mut nvjpegDecodeParams_t,
        stream: cudaStream_t);

    /// Page-locked memory for the host phase.
    /// # Safety
    /// The handle is live; the allocator lives as long as the buffer; `buffer` is valid for a write.
    nvjpegBufferPinnedCreateV2(handle: nvjpegHandle_t, allocator: *mut nvjpegPinnedAllocatorV2_t,
        buffer: *mut nvjpegBufferPinned_t);
    /// # Safety
    /// The buffer is live, and what used it has ended.
    nvjpegBufferPinnedDestroy(buffer: nvjpegBufferPinned_t);
    /// Device memory for the later phases.
    /// # Safety
    /// The handle is live; the allocator lives as long as the buffer; `buffer` is valid for a write.
    nvjpegBufferDeviceCreateV2(handle: nvjpegHandle_t, allocator: *mut nvjpegDevAllocatorV2_t,
        buffer: *mut nvjpegBufferDevice_t);
    /// # Safety
    /// The buffer is live, and what used it has ended.
    nvjpegBufferDeviceDestroy(buffer: nvjpegBufferDevice_t);
    /// # Safety
    /// Both are live; no phase of the state runs. What was transferred from this buffer before has ended.
    nvjpegStateAttachPinnedBuffer(state: nvjpegJpegState_t, buffer: nvjpegBufferPinned_t);
    /// # Safety
    /// Both are live; no phase of the state runs.
    nvjpegStateAttachDeviceBuffer(state: nvjpegJpegState_t, buffer: nvjpegBufferDevice_t);

    /// What is known of a JPEG once it is parsed.
    /// # Safety
    /// The handle is live; `stream` is valid for a write.
    nvjpegJpegStreamCreate(handle: nvjpegHandle_t, stream: *mut nvjpegJpegStream_t);
    /// # Safety
    /// The stream is live, and no phase uses it.
    nvjpegJpegStreamDestroy(stream: nvjpegJpegStream_t);
    /// Parses a file. Unless `save_stream` is set its bytes are read again by the later phases.
    /// # Safety
    /// Handle and stream are live; `data` is valid for `length` bytes until the transfer to the device has ended.
    nvjpegJpegStreamParse(handle: nvjpegHandle_t, data: *const u8, length: usize, save_metadata: c_int,
        save_stream: c_int, stream: nvjpegJpegStream_t);
    /// Parses a file up to its first scan.
    /// # Safety
    /// Handle and stream are live; `data` is valid for `length` bytes.
    nvjpegJpegStreamParseHeader(handle: nvjpegHandle_t, data: *const u8, length: usize, stream: nvjpegJpegStream_t);

    /// # Safety
    /// The handle is live; `params` is valid for a write.
    nvjpegDecodeParamsCreate(handle: nvjpegHandle_t, params: *mut nvjpegDecodeParams_t);
    /// # Safety
    /// The parameters are live.
    nvjpegDecodeParamsDestroy(params: nvjpegDecodeParams_t);
    /// # Safety
    /// The parameters are live.
    nvjpegDecodeParamsSetOutputFormat(params: nvjpegDecodeParams_t, format: nvjpegOutputFormat_t);
    /// The part of the image to decode; 0, 0, -1, -1 is all of it.
    /// # Safety
    /// The parameters are live.
    nvjpegDecodeParamsSetROI(params: nvjpegDecodeParams_t, x: c_int, y: c_int, width: c_int, height: c_int);
    /// # Safety
    /// The parameters are live.
    nvjpegDecodeParamsSetExifOrientation(params: nvjpegDecodeParams_t, orientation: nvjpegExifOrientation_t);

    /// A decoder of a kind, for images one at a time.
    /// # Safety
    /// The handle is live; `decoder` is valid for a write.
    nvjpegDecoderCreate(handle: nvjpegHandle_t, backend: nvjpegBackend_t, decoder: *mut nvjpegJpegDecoder_t);
    /// # Safety
    /// The decoder is live, and no state of it decodes.
    nvjpegDecoderDestroy(decoder: nvjpegJpegDecoder_t);
    /// # Safety
    /// Handle and decoder are live; `state` is valid for a write.
    nvjpegDecoderStateCreate(handle: nvjpegHandle_t, decoder: nvjpegJpegDecoder_t, state: *mut nvjpegJpegState_t);
    /// 0 where the decoder takes the image with these parameters.
    /// # Safety
    /// All are live, the stream was parsed; `supported` is valid for a write.
    nvjpegDecoderJpegSupported(decoder: nvjpegJpegDecoder_t, stream: nvjpegJpegStream_t,
        params: nvjpegDecodeParams_t, supported: *mut c_int);
    /// The first phase, on the host alone.
    /// # Safety
    /// All are live, the stream was parsed and its bytes are still there; the state's page-locked buffer is no
    /// longer read by an earlier transfer.
    nvjpegDecodeJpegHost(handle: nvjpegHandle_t, decoder: nvjpegJpegDecoder_t, state: nvjpegJpegState_t,
        params: nvjpegDecodeParams_t, stream: nvjpegJpegStream_t);
    /// The second phase, in the order of the CUDA stream.
    /// # Safety
    /// All are live, and the host phase succeeded. The state's page-locked buffer and the bytes stay until the CUDA
    /// stream has come past this; its device buffer is used by one CUDA stream.
    nvjpegDecodeJpegTransferToDevice(handle: nvjpegHandle_t, decoder: nvjpegJpegDecoder_t, state: nvjpegJpegState_t,
        parsed: nvjpegJpegStream_t, stream: cudaStream_t);
    /// The last phase, in the order of the CUDA stream.
    /// # Safety
    /// All are live, and the transfer succeeded; `destination` points to device memory large enough for the format.
    nvjpegDecodeJpegDevice(handle: nvjpegHandle_t, decoder: nvjpegJpegDecoder_t, state: nvjpegJpegState_t,
        destination: *mut nvjpegImage_t, stream: cudaStream_t);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_nowhere_is_named_with_all_that_was_tried() {
        let names = ["libnvjpeg-nowhere.so", "libnvjpeg-nowhere.so.12"];
        let text = Library::open_first(&names).err().map(|error| error.to_string());
        let expected = "no nvJPEG library can be opened, tried libnvjpeg-nowhere.so, libnvjpeg-nowhere.so.12";
        assert_eq!(text.as_deref(), Some(expected));
    }

    #[test]
    fn a_library_that_is_no_library_says_what_the_linker_says() {
        let path = std::env::current_exe().unwrap().with_extension("d");
        std::fs::write(&path, "text").unwrap();
        let text = Library::open_at(&path).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("; ") && (text.contains("too short") || text.contains("invalid ELF")), "{text}");
    }

    #[test]
    fn a_library_without_the_functions_lacks_all_and_calls_say_so() {
        let library = Library::open_at("libc.so.6").unwrap();
        assert!(library.missing().contains(&"nvjpegCreateExV2"), "{:?}", library.missing());
        assert_eq!(library.version(), Err(Error::Missing("nvjpegGetProperty")));
        assert_eq!(library.version().unwrap_err().to_string(), "this libnvjpeg has no nvjpegGetProperty");
    }

    #[test]
    fn a_failure_names_call_and_status() {
        let failed = |status| Error::Failed { call: "nvjpegCreateExV2", status: nvjpegStatus_t(status) };
        assert_eq!(failed(6).to_string(), "nvjpegCreateExV2 says NVJPEG_STATUS_EXECUTION_FAILED");
        assert_eq!(failed(99).to_string(), "nvjpegCreateExV2 says 99");
        assert_eq!(failed(5).status(), Some(nvjpegStatus_t::NVJPEG_STATUS_ALLOCATOR_FAILURE));
    }
}
