//! One request as cuFile's interfaces take it, and the two of them that one thread drives.

use std::ffi::c_void;

use cufile_sys::sys::CUfileHandle_t;

use super::batch::Batches;
use super::stream::Streams;
use crate::engine::transfer::Fault;

/// A read into registered memory.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) file: CUfileHandle_t,
    /// Where the registered memory starts.
    pub(super) base: *mut c_void,
    /// Where in it the bytes go.
    pub(super) base_offset: usize,
    pub(super) file_offset: u64,
    pub(super) len_bytes: usize,
}

// SAFETY: the pointers are names of device memory and of a file, which belong to no thread.
unsafe impl Send for Call {}

/// A read that has ended: its number, and its bytes.
pub(super) type Answer = (usize, Result<usize, Fault>);

/// An interface with many reads in flight.
pub(super) enum Api {
    Batch(Batches),
    Stream(Streams),
}

impl Api {
    /// Reads that can be submitted now.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Batch(batches) => batches.room(),
            Self::Stream(streams) => streams.room(),
        }
    }

    /// Submits reads, as many as there is room for at most. One that is refused is answered by the next poll.
    ///
    /// # Safety
    /// File and memory of each, which nobody else uses, stay until its answer.
    pub(super) unsafe fn submit(&mut self, reads: &[(usize, Call)]) {
        match self {
            // SAFETY: as the caller promises.
            Self::Batch(batches) => unsafe { batches.submit(reads) },
            // SAFETY: as the caller promises.
            Self::Stream(streams) => unsafe { streams.submit(reads) },
        }
    }

    /// Adds what has ended, without waiting.
    pub(super) fn poll(&mut self, answers: &mut Vec<Answer>) {
        match self {
            Self::Batch(batches) => batches.poll(answers),
            Self::Stream(streams) => streams.poll(answers),
        }
    }

    /// Asks that what is in flight end soon.
    pub(super) fn cancel(&mut self) {
        match self {
            Self::Batch(batches) => batches.cancel(),
            // A stream ends when its reads have.
            Self::Stream(_) => {}
        }
    }
}
