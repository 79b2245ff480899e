//! A library that was opened, and its functions with results instead of statuses.

use std::error::Error as _;
use std::ffi::{OsStr, c_char, c_int, c_long, c_uint, c_void};
use std::{fmt, io};

use crate::sys::*;

/// The names that the library goes by, in the order of trial: what a toolkit's development package links to, then what
/// all of CUDA 11, 12 and 13 install.
pub const NAMES: [&str; 2] = ["libcufile.so", "libcufile.so.0"];

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
        code: CUfileOpError,
        /// What the CUDA driver said, where the status is `CU_FILE_CUDA_DRIVER_ERROR`; otherwise of no meaning.
        cuda: CUresult,
    },
    /// The function read from a file, and the kernel refused.
    Os {
        /// The function.
        call: &'static str,
        /// The kernel's reason, as in `std::io::Error::from_raw_os_error`.
        errno: c_int,
    },
    /// This version of the library is newer than what is known of its structs.
    UnknownLayout {
        /// The function that would fill the struct.
        call: &'static str,
        /// What `cuFileGetVersion` says: 1200 for 1.20.
        version: c_int,
    },
}

impl Error {
    /// The status, where a function answered with one.
    pub fn code(self) -> Option<CUfileOpError> {
        match self {
            Self::Failed { code, .. } => Some(code),
            Self::Missing(_) | Self::Os { .. } | Self::UnknownLayout { .. } => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Missing(call) => write!(f, "this libcufile has no {call}"),
            Self::Failed { call, code, cuda } => {
                match status_name(code) {
                    Some(name) => write!(f, "{call} says {name}")?,
                    None => write!(f, "{call} says {}", code.0)?,
                }
                match code {
                    CUfileOpError::CU_FILE_CUDA_DRIVER_ERROR => write!(f, " (CUresult {cuda})"),
                    _ => Ok(()),
                }
            }
            Self::Os { call, errno } => write!(f, "{call}: {}", io::Error::from_raw_os_error(errno)),
            Self::UnknownLayout { call, version } => write!(
                f,
                "what {call} of libcufile {}.{} writes is not known here",
                version / 1000,
                version % 1000 / 10
            ),
        }
    }
}

impl std::error::Error for Error {}

/// What NVIDIA's header calls a status; none where it is newer than the header.
///
/// Up to 1.14 the library's `CU_FILE_IO_MAX_ERROR`, which no call answers with, had the number of what is
/// `CU_FILE_INTERNAL_BATCH_SETUP_ERROR` since.
pub fn status_name(code: CUfileOpError) -> Option<&'static str> {
    macro_rules! names {
        ($($name:ident)*) => {
            match code {
                $(CUfileOpError::$name => Some(stringify!($name)),)*
                _ => None,
            }
        };
    }
    names! {
        CU_FILE_SUCCESS CU_FILE_DRIVER_NOT_INITIALIZED CU_FILE_DRIVER_INVALID_PROPS CU_FILE_DRIVER_UNSUPPORTED_LIMIT
        CU_FILE_DRIVER_VERSION_MISMATCH CU_FILE_DRIVER_VERSION_READ_ERROR CU_FILE_DRIVER_CLOSING
        CU_FILE_PLATFORM_NOT_SUPPORTED CU_FILE_IO_NOT_SUPPORTED CU_FILE_DEVICE_NOT_SUPPORTED CU_FILE_NVFS_DRIVER_ERROR
        CU_FILE_CUDA_DRIVER_ERROR CU_FILE_CUDA_POINTER_INVALID CU_FILE_CUDA_MEMORY_TYPE_INVALID
        CU_FILE_CUDA_POINTER_RANGE_ERROR CU_FILE_CUDA_CONTEXT_MISMATCH CU_FILE_INVALID_MAPPING_SIZE
        CU_FILE_INVALID_MAPPING_RANGE CU_FILE_INVALID_FILE_TYPE CU_FILE_INVALID_FILE_OPEN_FLAG CU_FILE_DIO_NOT_SET
        CU_FILE_INVALID_VALUE CU_FILE_MEMORY_ALREADY_REGISTERED CU_FILE_MEMORY_NOT_REGISTERED CU_FILE_PERMISSION_DENIED
        CU_FILE_DRIVER_ALREADY_OPEN CU_FILE_HANDLE_NOT_REGISTERED CU_FILE_HANDLE_ALREADY_REGISTERED
        CU_FILE_DEVICE_NOT_FOUND CU_FILE_INTERNAL_ERROR CU_FILE_GETNEWFD_FAILED CU_FILE_NVFS_SETUP_ERROR
        CU_FILE_IO_DISABLED CU_FILE_BATCH_SUBMIT_FAILED CU_FILE_GPU_MEMORY_PINNING_FAILED CU_FILE_BATCH_FULL
        CU_FILE_ASYNC_NOT_SUPPORTED CU_FILE_INTERNAL_BATCH_SETUP_ERROR CU_FILE_INTERNAL_BATCH_SUBMIT_ERROR
        CU_FILE_INTERNAL_BATCH_GETSTATUS_ERROR CU_FILE_INTERNAL_BATCH_CANCEL_ERROR CU_FILE_NOMEM_ERROR CU_FILE_IO_ERROR
        CU_FILE_INTERNAL_BUF_REGISTER_ERROR CU_FILE_HASH_OPR_ERROR CU_FILE_INVALID_CONTEXT_ERROR
        CU_FILE_NVFS_INTERNAL_DRIVER_ERROR CU_FILE_BATCH_NOCOMPAT_ERROR CU_FILE_IO_MAX_ERROR
    }
}

/// What a transfer left behind (`ret` of a batch's event, the bytes of an asynchronous read): bytes, or a reason.
///
/// # Errors
///
/// [`Error::Failed`] for the negative of a status, [`Error::Os`] for the negative of an errno.
pub fn bytes_read(call: &'static str, answer: isize) -> Result<usize, Error> {
    match usize::try_from(answer) {
        Ok(bytes) => Ok(bytes),
        Err(_) => {
            let reason = c_int::try_from(answer.unsigned_abs()).unwrap_or(c_int::MAX);
            match c_uint::try_from(reason) {
                Ok(code) if code > CUFILEOP_BASE_ERR => Err(Error::Failed { call, code: CUfileOpError(code), cuda: 0 }),
                _ => Err(Error::Os { call, errno: reason }),
            }
        }
    }
}

/// No library could be opened: each name that was tried, and what the dynamic linker said of it.
#[derive(Debug)]
pub struct OpenError(Vec<(String, libloading::Error)>);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no cuFile library can be opened, tried")?;
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

    /// The library's version as it says it: 1000 times the major number and 10 times the minor, 1200 for 1.20. It needs
    /// no driver.
    ///
    /// # Errors
    ///
    /// What the library answers; libraries up to that of CUDA 12.1 lack the call.
    pub fn version(&self) -> Result<c_int, Error> {
        let mut version = 0;
        // SAFETY: the pointer is valid for writing an int, all that the call asks for.
        unsafe { self.cuFileGetVersion(&mut version) }?;
        Ok(version)
    }

    /// What the library says of itself and of nvidia-fs. The struct is the same in all known versions.
    ///
    /// # Errors
    ///
    /// What the library answers.
    pub fn properties(&self) -> Result<CUfileDrvProps_t, Error> {
        // SAFETY: numbers alone, of which 0 is one.
        let mut properties = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is valid for writing the struct, all that the call asks for.
        unsafe { self.cuFileDriverGetProperties(&mut properties) }?;
        Ok(properties)
    }
}

/// What a function returns, as a result.
trait Answer<Value> {
    fn result(self, call: &'static str) -> Result<Value, Error>;
}

impl Answer<()> for CUfileError_t {
    fn result(self, call: &'static str) -> Result<(), Error> {
        match self.err {
            CUfileOpError::CU_FILE_SUCCESS => Ok(()),
            code => Err(Error::Failed { call, code, cuda: self.cu_err }),
        }
    }
}

impl Answer<()> for () {
    fn result(self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }
}

impl Answer<usize> for isize {
    fn result(self, call: &'static str) -> Result<usize, Error> {
        match self {
            -1 => Err(Error::Os { call, errno: io::Error::last_os_error().raw_os_error().unwrap_or(0) }),
            answer => bytes_read(call, answer),
        }
    }
}

impl Answer<c_long> for c_long {
    fn result(self, _: &'static str) -> Result<c_long, Error> {
        Ok(self)
    }
}

/// Makes [`Library`] of a list of functions: the table, and a method each, which gives nothing unless a value is named.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) $(-> $value:ty)?;)*) => {
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
        /// All of them fail with [`Error::Missing`] or [`Error::Failed`], reads with [`Error::Os`] too.
        #[allow(non_snake_case, clippy::too_many_arguments)]
        impl Library {
            $(
                $(#[$doc])*
                pub unsafe fn $name(&self, $($argument: $kind),*) -> Result<functions!(@value $($value)?), Error> {
                    let function = self.$name.ok_or(Error::Missing(stringify!($name)))?;
                    // SAFETY: as the caller promises.
                    unsafe { function($($argument),*) }.result(stringify!($name))
                }
            )*
        }
    };
    (@value) => { () };
    (@value $value:ty) => { $value };
}

functions! {
    /// The library's version, 1200 for 1.20. Asks for no driver.
    /// # Safety
    /// `version` is valid for a write.
    cuFileGetVersion(version: *mut c_int);
    /// Opens the library, once for the process; each further call counts. It reads its settings now, and writes a log
    /// to the current folder unless `CUFILE_LOGFILE_PATH` says where. Since 1.16 it also opens where there is no driver
    /// or no device.
    /// # Safety
    /// `/proc/modules` exists: where it does not and libcuda loads, the call never returns. No other thread changes the
    /// environment.
    cuFileDriverOpen();
    /// Closes the library, as [`Self::cuFileDriverClose_v2`] does, in those that lack that.
    /// # Safety
    /// No read, batch, buffer, handle or stream is left, and no other thread is within the library.
    cuFileDriverClose();
    /// Closes the library once it was called as often as opened.
    /// # Safety
    /// No read, batch, buffer, handle or stream is left, and no other thread is within the library.
    cuFileDriverClose_v2();
    /// How often the library is open.
    /// # Safety
    /// None is asked for.
    cuFileUseCount() -> c_long;
    /// See [`Self::properties`].
    /// # Safety
    /// `properties` is valid for a write.
    cuFileDriverGetProperties(properties: *mut CUfileDrvProps_t);
    /// Whether reads up to a threshold, in KiB, wait by polling.
    /// # Safety
    /// No read runs.
    cuFileDriverSetPollMode(poll: bool, poll_threshold_kib: usize);
    /// The most KiB that are asked of the kernel at once, a multiple of 64.
    /// # Safety
    /// No read runs.
    cuFileDriverSetMaxDirectIOSize(max_direct_io_kib: usize);
    /// The most KiB of device memory for bounce buffers.
    /// # Safety
    /// The library is not open, or no read runs.
    cuFileDriverSetMaxCacheSize(max_cache_kib: usize);
    /// The most KiB of device memory that may be registered.
    /// # Safety
    /// The library is not open, or no read runs.
    cuFileDriverSetMaxPinnedMemSize(max_pinned_kib: usize);
    /// How files of a kind reach a GPU: bits, numbered by `CUfileP2PFlags`. Since 1.16.
    /// # Safety
    /// `flags` is valid for a write.
    cuFileDriverGetP2PFlags(kind: CUfileDriverStatusFlags, flags: *mut CUfileP2PFlags);
    /// Size of the window through which the bus sees a GPU's memory. Since 1.15.
    /// # Safety
    /// `bar_kib` is valid for a write.
    cuFileGetBARSizeInKB(gpu: c_int, bar_kib: *mut usize);

    /// Makes a file known, by the number of its descriptor. It refuses a number that is registered already, and a file
    /// of which udev's folder `/run/udev/data` says nothing.
    /// # Safety
    /// Both pointers are valid, for a write and a read. The descriptor stays open until the handle is given back.
    cuFileHandleRegister(handle: *mut CUfileHandle_t, descriptor: *mut CUfileDescr_t);
    /// # Safety
    /// The handle is registered, and no read uses it.
    cuFileHandleDeregister(handle: CUfileHandle_t);
    /// Pins device memory, so that reads into it take no bounce buffer.
    /// # Safety
    /// `base` is the start of `length` bytes of an allocation, which stays until it is given back here.
    cuFileBufRegister(base: *const c_void, length: usize, flags: c_int);
    /// # Safety
    /// `base` is registered, and no read uses it.
    cuFileBufDeregister(base: *const c_void);

    /// Reads, and returns once the bytes are there. Fewer than asked for are there at the end of the file.
    /// # Safety
    /// The handle is registered; `base` is the start of an allocation, or of a registered buffer, and `size` bytes at
    /// `base_offset` lie within. No work on the device uses them meanwhile.
    cuFileRead(handle: CUfileHandle_t, base: *mut c_void, size: usize, file_offset: off_t, base_offset: off_t) -> usize;
    /// Reads consecutive bytes into several buffers. Since 1.19.
    /// # Safety
    /// As for [`Self::cuFileRead`], for each of the `count` buffers.
    cuFileReadv(handle: CUfileHandle_t, buffers: *const CUfileIOVec_t, count: usize, file_offset: off_t,
        flags: c_uint) -> usize;
    /// Reads in the order of a CUDA stream. It may succeed and `read` say at once why nothing will be read.
    /// # Safety
    /// As for [`Self::cuFileRead`], but that the memory is the read's at its turn in the stream. The four numbers,
    /// page-locked or registered with the stream as fixed, stay until then, and `read` until the stream has come past:
    /// it holds what [`bytes_read`] takes.
    cuFileReadAsync(handle: CUfileHandle_t, base: *mut c_void, size: *mut usize, file_offset: *mut off_t,
        base_offset: *mut off_t, read: *mut isize, stream: CUstream);
    /// Prepares a CUDA stream for asynchronous reads; `flags` are `CU_FILE_STREAM_*`.
    /// # Safety
    /// The stream is live, and its context current.
    cuFileStreamRegister(stream: CUstream, flags: c_uint);
    /// # Safety
    /// The stream is registered, and no read is queued in it.
    cuFileStreamDeregister(stream: CUstream);

    /// A batch of up to so many reads at a time.
    /// # Safety
    /// `batch` is valid for a write.
    cuFileBatchIOSetUp(batch: *mut CUfileBatchHandle_t, entries_max: c_uint);
    /// Submits reads. Where it fails, what was submitted to the batch before is cancelled too, and gives no events. An
    /// entry of no bytes never gives one.
    /// # Safety
    /// The batch is live; `entries` is valid for reading `count` of them. Each is as [`Self::cuFileRead`] asks, until
    /// its event has been taken.
    cuFileBatchIOSubmit(batch: CUfileBatchHandle_t, count: c_uint, entries: *mut CUfileIOParams_t, flags: c_uint);
    /// Takes the events of reads that have ended, waiting for at least `count_min` of them or the time, and no longer
    /// than reads run. Where a read has failed it fails, and has written events all the same: `count` is as it was, and
    /// those that are none are zeros.
    /// # Safety
    /// The batch is live; `events` is valid for writing as many as `count` says, which becomes how many there are.
    /// `timeout` is null or valid for a read.
    cuFileBatchIOGetStatus(batch: CUfileBatchHandle_t, count_min: c_uint, count: *mut c_uint,
        events: *mut CUfileIOEvents_t, timeout: *mut timespec);
    /// Cancels what was submitted, of which there will be no events. The batch can be used again.
    /// # Safety
    /// The batch is live.
    cuFileBatchIOCancel(batch: CUfileBatchHandle_t);
    /// # Safety
    /// The batch is live, and nothing that it submitted still runs.
    cuFileBatchIODestroy(batch: CUfileBatchHandle_t);

    /// A setting that is a size. Since 1.14, as all of these.
    /// # Safety
    /// `value` is valid for a write.
    cuFileGetParameterSizeT(parameter: CUFileSizeTConfigParameter_t, value: *mut usize);
    /// A setting that is on or off.
    /// # Safety
    /// `value` is valid for a write.
    cuFileGetParameterBool(parameter: CUFileBoolConfigParameter_t, value: *mut bool);
    /// A setting that is text.
    /// # Safety
    /// `text` is valid for writing `len` bytes.
    cuFileGetParameterString(parameter: CUFileStringConfigParameter_t, text: *mut c_char, len: c_int);
    /// What a size may be. Since 1.15.
    /// # Safety
    /// Both are valid for a write.
    cuFileGetParameterMinMaxValue(parameter: CUFileSizeTConfigParameter_t, min: *mut usize, max: *mut usize);
    /// Sets a size, before the library is opened.
    /// # Safety
    /// No other thread is within the library.
    cuFileSetParameterSizeT(parameter: CUFileSizeTConfigParameter_t, value: usize);
    /// Turns a setting on or off, before the library is opened.
    /// # Safety
    /// No other thread is within the library.
    cuFileSetParameterBool(parameter: CUFileBoolConfigParameter_t, value: bool);
    /// Sets a text, before the library is opened.
    /// # Safety
    /// `text` ends with a zero byte; no other thread is within the library.
    cuFileSetParameterString(parameter: CUFileStringConfigParameter_t, text: *const c_char);

    /// How much is counted: 0 to 3. Since 1.15, as all of these.
    /// # Safety
    /// None is asked for.
    cuFileSetStatsLevel(level: c_int);
    /// How much is counted.
    /// # Safety
    /// `level` is valid for a write.
    cuFileGetStatsLevel(level: *mut c_int);
    /// Begins to count.
    /// # Safety
    /// None is asked for.
    cuFileStatsStart();
    /// Counts no more.
    /// # Safety
    /// None is asked for.
    cuFileStatsStop();
    /// Begins again at 0.
    /// # Safety
    /// None is asked for.
    cuFileStatsReset();
    /// Counts of calls.
    /// # Safety
    /// `stats` is valid for writing as many bytes as this version's struct has: 1.19 has lengthened it at its end.
    cuFileGetStatsL1(stats: *mut CUfileStatsLevel1_t);
    /// Sizes too.
    /// # Safety
    /// As for L1. Up to 1.18 what follows the first struct lies where the shorter one ends.
    cuFileGetStatsL2(stats: *mut CUfileStatsLevel2_t);
    /// Per GPU too; [`Self::gpu_reads`] knows where.
    /// # Safety
    /// As for L2.
    cuFileGetStatsL3(stats: *mut CUfileStatsLevel3_t);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_nowhere_is_named_with_all_that_was_tried() {
        let names = ["libcufile-nowhere.so", "libcufile-nowhere.so.0"];
        let text = Library::open_first(&names).err().map(|error| error.to_string());
        let expected = "no cuFile library can be opened, tried libcufile-nowhere.so, libcufile-nowhere.so.0";
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
        assert!(library.missing().contains(&"cuFileBatchIOSubmit"), "{:?}", library.missing());
        assert_eq!(library.version(), Err(Error::Missing("cuFileGetVersion")));
        assert_eq!(library.gpu_reads(), Err(Error::Missing("cuFileGetStatsL3")));
        assert_eq!(library.version().unwrap_err().to_string(), "this libcufile has no cuFileGetVersion");
    }

    #[test]
    fn a_failure_names_call_and_status() {
        let failed = |code, cuda| Error::Failed { call: "cuFileDriverOpen", code: CUfileOpError(code), cuda };
        assert_eq!(failed(5033, 7).to_string(), "cuFileDriverOpen says CU_FILE_NVFS_SETUP_ERROR");
        assert_eq!(failed(5011, 100).to_string(), "cuFileDriverOpen says CU_FILE_CUDA_DRIVER_ERROR (CUresult 100)");
        assert_eq!(failed(5099, 0).to_string(), "cuFileDriverOpen says 5099");
        assert_eq!(failed(5049, 0).code(), Some(CUfileOpError::CU_FILE_BATCH_NOCOMPAT_ERROR));
    }

    #[test]
    fn what_a_transfer_leaves_is_bytes_a_status_or_an_errno() {
        let call = "cuFileBatchIOGetStatus";
        assert_eq!(bytes_read(call, 4096), Ok(4096));
        assert_eq!(bytes_read(call, 0), Ok(0));
        assert_eq!(bytes_read(call, -5), Err(Error::Os { call, errno: 5 }));
        let failed = Error::Failed { call, code: CUfileOpError::CU_FILE_INVALID_VALUE, cuda: 0 };
        assert_eq!(bytes_read(call, -5022), Err(failed));
        assert!(bytes_read(call, isize::MIN).is_err());
    }

    #[test]
    fn a_read_that_the_kernel_refuses_says_why() {
        let _ = std::fs::File::open("/nowhere/at/all").unwrap_err();
        let error = Answer::<usize>::result(-1isize, "cuFileRead").unwrap_err();
        assert_eq!(error, Error::Os { call: "cuFileRead", errno: 2 });
        assert_eq!(error.to_string(), "cuFileRead: No such file or directory (os error 2)");
    }
}
