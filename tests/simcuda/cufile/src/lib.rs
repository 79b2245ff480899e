//! A stand-in for NVIDIA's cuFile (GPUDirect Storage) where there is neither a GPU nor a direct path.
//!
//! It exports the functions that reading takes. Files are read on the host, when the simulated driver (`simcuda`), which must be
//! the libcuda of the process, comes to it: a read begins no earlier than its call and is ordered with nothing until the
//! program learns of its end, by `cuFileRead` returning, by `cuFileBatchIOGetStatus`, or by waiting for the stream of a
//! `cuFileReadAsync`. So the driver finds who uses the memory of a read too early, or frees it. Entries of a batch end in an
//! order that `SIMCUDA_SEED` decides; the program is told of them a few at a time, and its time-outs may pass.
//!
//! What it says of the path that bytes took is what it is told to say; its properties, flags and statistics agree. As in the
//! real library the counts of a GPU are of single and asynchronous reads, while those of batches are counted by their submission,
//! in `batch_nvfs_submit_ops` and its like, and in `batch_read_bytes`: those that the library's threads do, for they are not
//! aligned, in `batch_mixed_io_submit_ops`, and in `batch_posix_enqueued_ops` too if they go through the host. A GPU's bytes are
//! those asked for, a batch's those that were there.
//!
//! Batches behave as NVIDIA's library was seen to in compatibility mode: a submission that is refused, as one is with any entry
//! that is wrong, cancels what the batch has in flight, as does `cuFileBatchIOCancel`, and no end of that is ever told; when a
//! read has failed, `cuFileBatchIOGetStatus` fails too, its events are there all the same, and its count is left as it was.
//!
//! # What it reports
//!
//! To the driver's reports (`SIMCUDA_REPORT`), by kind:
//! - `cufile-lifetime`: use before `cuFileDriverOpen`; handles that are not live; files and buffers given back, or the driver
//!   closed, with reads in flight; descriptors closed while registered, memory freed while registered; batches destroyed whose
//!   reads' ends were not asked for; what is left when the driver is closed or the process ends;
//! - `cufile-resubmit`: a batch submitted anew before all its ends were taken. The real library takes that as far as there is
//!   room, and so does this; no documentation promises it;
//! - `cufile-order`: a submission that is refused while the batch has reads in flight, by which their ends are lost; two
//!   threads that ask about one batch; waits that cannot end; numbers of an asynchronous read that change before its turn
//!   (unless its stream was registered with them fixed), and its count of bytes written by the host before;
//! - `cufile-argument`: reads outside of the registered buffer or of memory that is not registered, whose base is not the
//!   buffer's, too many entries, a cookie twice in a batch, and everything else that the documentation forbids;
//! - `cufile-unaligned`: reads on a direct path whose file offset, size or place in memory is no multiple of 4096: they would
//!   take a bounce buffer;
//! - `host-bytes`: with `SIMCUFILE_WATCH=1`, bytes of a direct read that are in a copy from the host to the device, or in
//!   page-locked memory when it is given back. Of each read, 32 bytes in 512 are looked for.
//!
//! The driver itself reports accesses that are out of bounds, not ordered, or of memory that was never written. Bytes of a read
//! that failed are garbage; a short read leaves the rest as it was.
//!
//! # Settings
//!
//! Environment variables, read when the library is first used; `simcufile_configure` sets the same later, without the prefix.
//! Reads are counted from 1, those of batches and streams too; `n` may be 0 for all, and lists have commas.
//!
//! | variable | what it does |
//! |---|---|
//! | `SIMCUFILE_PATH=nvfs` | the way that bytes take: `nvfs`, `p2p` or `posix`; with exceptions, the first that holds counts: `nvfs,posix:3` for every third read, `nvfs,posix:/folder` for the files beneath; `nvfs` |
//! | `SIMCUFILE_FAIL=n:code` | that read fails with this errno, or from 5001 this status |
//! | `SIMCUFILE_SHORT=n:bytes` | that read gives no more bytes than this |
//! | `SIMCUFILE_STUCK=n` | that read, if it is of a batch, does not end unless it is cancelled |
//! | `SIMCUFILE_VERSION=1.20.0` | what the library says it is, and how it lays out its statistics; functions that came later answer `CU_FILE_INVALID_VALUE`, since they cannot vanish; 1.20 |
//! | `SIMCUFILE_BEHIND=dir=>true` | a file beneath the first folder is read from the file of the same name beneath the second, so that a program which sees only files with other bytes of the same length, and has the right tensors, never saw a byte of them |
//! | `SIMCUFILE_WATCH=1` | see `host-bytes` |
//! | `SIMCUDA_FAIL=cuFileBatchIOSubmit#2:5030` | and the like: the driver's rules count these functions too. Reads take an errno or a status |
//!
//! Compatibility mode can be forbidden as with the real library: by `cuFileSetParameterBool`, by `CUFILE_ALLOW_COMPAT_MODE`, or
//! in the file that `CUFILE_ENV_PATH_JSON` names. Then `cuFileDriverOpen` fails where the path is `posix`,
//! `cuFileHandleRegister` for files that go this way or whose descriptor is without `O_DIRECT`, and otherwise the read.
//! `CUFILE_FORCE_COMPAT_MODE` sends all that way.
//!
//! A test in the same process finds `simcufile_configure(name, value)`, `simcufile_reset()`, which belongs with
//! `simcuda_reset`, and `simcufile_finish()`, which belongs before `simcuda_finish`.
//!
//! # What it cannot show
//!
//! What the real library's copies through bounce buffers cost, and which files it takes: any regular file is one on NVMe. Only
//! reads: a write is refused. The host's pageable memory is no target.
#![deny(missing_docs)]

mod api;
mod batch;
mod buffer;
mod driver;
mod file;
mod library;
mod numbers;
mod parameters;
mod read;
mod settings;
mod stats;
mod watch;

/// A string of the program's; nothing for null.
///
/// # Safety
/// It is a string or null.
unsafe fn text(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as this function demands.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
