//! Reads in the order of CUDA streams: `cuFileReadAsync`.

use std::collections::VecDeque;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream};
use cufile_sys::sys::{
    CU_FILE_STREAM_FIXED_BUF_OFFSET, CU_FILE_STREAM_FIXED_FILE_OFFSET, CU_FILE_STREAM_FIXED_FILE_SIZE,
    CU_FILE_STREAM_PAGE_ALIGNED_INPUTS, off_t,
};
use cufile_sys::{Error as Refusal, bytes_read};

use super::api::{Answer, Call};
use super::open::Open;
use crate::device::cuda::Gpu;
use crate::engine::transfer::Fault;
use crate::error::{Error, ErrorKind, Result};

/// Streams that reads are spread over: those of one stream come one after another.
const STREAMS: usize = 8;

/// All numbers of a read are known when it is submitted, and multiples of 4 KiB.
const FLAGS: u32 = CU_FILE_STREAM_FIXED_BUF_OFFSET
    | CU_FILE_STREAM_FIXED_FILE_OFFSET
    | CU_FILE_STREAM_FIXED_FILE_SIZE
    | CU_FILE_STREAM_PAGE_ALIGNED_INPUTS;

/// Some streams of reads.
pub(super) struct Streams {
    lanes: Vec<Lane>,
    per_lane: usize,
    refused: Vec<Answer>,
}

/// A stream, and the reads on it in their order.
struct Lane {
    open: Arc<Open>,
    stream: Arc<CudaStream>,
    reads: VecDeque<Box<Read>>,
    /// Boxes and events of reads that have ended, for the next ones.
    #[allow(clippy::vec_box, reason = "the library keeps pointers into them while they are in the queue")]
    spare: Vec<Box<Read>>,
}

/// What the library writes and reads of a read, at a place that does not move.
struct Read {
    number: usize,
    len_bytes: usize,
    file_offset: off_t,
    base_offset: off_t,
    read: isize,
    behind: CudaEvent,
}

impl Streams {
    /// Streams for `depth` reads in all.
    ///
    /// # Errors
    /// `Unavailable` where the library has no such reads.
    pub(super) fn new(open: &Arc<Open>, gpu: &Gpu, depth: usize) -> Result<Self> {
        let count = STREAMS.min(depth);
        let per_lane = depth.div_ceil(count);
        let lane = |_| {
            let stream = gpu.stream()?;
            // SAFETY: the stream is live, and making it has made its context current.
            unsafe { open.library().cuFileStreamRegister(stream.cu_stream().cast(), FLAGS) }.map_err(refused)?;
            let mut lane =
                Lane { open: Arc::clone(open), stream, reads: VecDeque::with_capacity(per_lane), spare: Vec::new() };
            for _ in 0..per_lane {
                let behind = gpu.event()?;
                lane.spare.push(Box::new(Read {
                    number: 0,
                    len_bytes: 0,
                    file_offset: 0,
                    base_offset: 0,
                    read: 0,
                    behind,
                }));
            }
            Ok(lane)
        };
        let lanes = (0..count).map(lane).collect::<Result<_>>()?;
        Ok(Self { lanes, per_lane, refused: Vec::new() })
    }

    /// Reads that can be submitted now.
    pub(super) fn room(&self) -> usize {
        self.lanes.iter().map(|lane| self.per_lane - lane.reads.len()).sum()
    }

    /// Queues reads on the streams with the fewest.
    ///
    /// # Safety
    /// As for [`Api::submit`](super::api::Api::submit).
    pub(super) unsafe fn submit(&mut self, reads: &[(usize, Call)]) {
        for &(number, call) in reads {
            let Some(lane) = self.lanes.iter_mut().min_by_key(|lane| lane.reads.len()) else { return };
            // SAFETY: as the caller promises.
            if let Err(fault) = unsafe { lane.submit(number, call) } {
                self.refused.push((number, Err(fault)));
            }
        }
    }

    /// Adds what has ended.
    pub(super) fn poll(&mut self, answers: &mut Vec<Answer>) {
        answers.append(&mut self.refused);
        for lane in &mut self.lanes {
            while lane.reads.front().is_some_and(|read| read.behind.is_complete()) {
                let Some(read) = lane.reads.pop_front() else { break };
                answers.push((read.number, bytes_read("cuFileReadAsync", read.read).map_err(Fault::from)));
                lane.spare.push(read);
            }
        }
    }
}

impl Lane {
    /// # Safety
    /// As for [`Api::submit`](super::api::Api::submit).
    unsafe fn submit(&mut self, number: usize, call: Call) -> Result<(), Fault> {
        let Some(mut read) = self.spare.pop() else { unreachable!("the caller has asked for room") };
        read.number = number;
        read.len_bytes = call.len_bytes;
        read.file_offset = call.file_offset as off_t;
        read.base_offset = call.base_offset as off_t;
        // What a call leaves that is never made.
        read.read = -(nix::errno::Errno::EIO as isize);
        // SAFETY: the numbers stay where they are, in a box that is kept until the event behind the read; the rest is as the
        // caller promises.
        let queued = unsafe {
            self.open.library().cuFileReadAsync(
                call.file,
                call.base,
                &mut read.len_bytes,
                &mut read.file_offset,
                &mut read.base_offset,
                &mut read.read,
                self.stream.cu_stream().cast(),
            )
        };
        if let Err(refusal) = queued {
            self.spare.push(read);
            return Err(refusal.into());
        }
        if read.behind.record(&self.stream).is_err() {
            // The device is lost: that nothing reads there any more is all that can still be learned.
            let _ = self.stream.synchronize();
        }
        self.reads.push_back(read);
        Ok(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Where this fails the device is lost, and reads nothing any more.
        let _ = self.stream.synchronize();
        // SAFETY: the stream is registered, and no read is queued in it.
        let _ = unsafe { self.open.library().cuFileStreamDeregister(self.stream.cu_stream().cast()) };
    }
}

fn refused(refusal: Refusal) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cuFile has no reads on streams: {refusal}"))
        .with_remedy("use libcufile of CUDA 12.2 or later, or the interface batch or threads (--cufile-api)")
        .with_source(refusal)
}
