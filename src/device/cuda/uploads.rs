//! Copies of what reads have brought, from page-locked memory to a device: storage to CPU to GPU, many in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaSlice, CudaStream};

use super::error::error;
use super::gpu::Gpu;
use super::memory::{Registered, download, upload};
use crate::error::{Error, Result};
use crate::memory::{Arena, Region};

/// Copies regions of an arena to a device, in order, and gives each region back when its copy has ended.
///
/// This is what a program does without a [direct path](crate::engine::cufile::gds) to the device, and what `forebay bench
/// io` compares that with. The copies go round a buffer on the device. Each starts as soon as it is asked for, on one
/// stream; dropping this waits for those that have not ended.
pub struct Uploads {
    stream: Arc<CudaStream>,
    to: CudaSlice<u8>,
    /// Where in `to` the next copy goes.
    at: usize,
    /// Oldest first: what was copied, with the event behind its copy.
    in_flight: VecDeque<(CudaEvent, u64, Region)>,
    /// Events of copies that have ended.
    spare: Vec<CudaEvent>,
    gpu: Gpu,
    // Unlocked before the arena is unmapped.
    _locked: Registered,
    _arena: Arena,
}

impl Uploads {
    /// Page-locks `arena` for the device `ordinal`, and allocates `len_bytes` on that.
    ///
    /// # Errors
    /// `Unavailable`, `OutOfMemory`, `DeviceLost`; `InvalidParameter` for no bytes.
    pub fn new(ordinal: u32, arena: &Arena, len_bytes: usize) -> Result<Self> {
        if len_bytes == 0 {
            return Err(Error::invalid_parameter("len_bytes", 0, "copies go somewhere"));
        }
        let gpu = Gpu::open(ordinal)?;
        let stream = gpu.stream()?;
        let to = gpu.alloc(&stream, len_bytes)?;
        let (start, locked_bytes) = arena.reads();
        // SAFETY: `_arena` keeps the range mapped until after `_locked` is dropped, and `drop` waits for every copy, or the
        // device is lost and copies nothing any more.
        let locked = unsafe { Registered::new(&gpu, start, locked_bytes)? };
        let (in_flight, spare) = (VecDeque::new(), Vec::new());
        Ok(Self { stream, to, at: 0, in_flight, spare, gpu, _locked: locked, _arena: arena.clone() })
    }

    /// Starts the copy of a region's visible bytes, which keeps the region until then. `token` is the caller's number for it.
    ///
    /// # Errors
    /// `InvalidParameter` for a region that is larger than the buffer; `DeviceLost` and the like.
    pub fn start(&mut self, token: u64, region: Region) -> Result<()> {
        if region.len() > self.to.len() {
            let allowed = format!("the buffer on the device has {} bytes", self.to.len());
            return Err(Error::invalid_parameter("region", format!("{} bytes long", region.len()), &allowed));
        }
        if region.len() > self.to.len() - self.at {
            self.at = 0;
        }
        let event = match self.spare.pop() {
            Some(event) => event,
            None => self.gpu.host_event()?,
        };
        // SAFETY: the region goes into `in_flight` until the copy has ended, or is waited for below: nobody can write it. One
        // stream does everything with `to`.
        let copied = unsafe { upload(&self.stream, &mut self.to, self.at, region.as_slice()) };
        let copied = copied.and_then(|()| event.record(&self.stream).map_err(|code| error("cuEventRecord", code)));
        if let Err(error) = copied {
            // A copy that was queued may still read it; where it cannot be waited for the device is lost.
            let _ = self.stream.synchronize();
            return Err(error);
        }
        self.at += region.len();
        self.in_flight.push_back((event, token, region));
        Ok(())
    }

    /// Gives back what has been copied, oldest first, and waits until that are at least `min`, or all.
    ///
    /// # Errors
    /// `DeviceLost` and the like.
    pub fn reap(&mut self, min: usize, copied: &mut Vec<(u64, Region)>) -> Result<()> {
        let mut wanted = min;
        while let Some((event, ..)) = self.in_flight.front() {
            if wanted > 0 {
                event.synchronize().map_err(|code| error("cuEventSynchronize", code))?;
            } else if !event.try_is_complete().map_err(|code| error("cuEventQuery", code))? {
                break;
            }
            wanted = wanted.saturating_sub(1);
            if let Some((event, token, region)) = self.in_flight.pop_front() {
                self.spare.push(event);
                copied.push((token, region));
            }
        }
        Ok(())
    }

    /// Copies that have not been given back.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Copies the first bytes of the buffer back to the host: for checks.
    ///
    /// # Errors
    /// `InvalidParameter` for more than the buffer has; `DeviceLost` and the like.
    pub fn download(&self, into: &mut [u8]) -> Result<()> {
        if into.len() > self.to.len() {
            let allowed = format!("the buffer on the device has {} bytes", self.to.len());
            return Err(Error::invalid_parameter("into", format!("{} bytes long", into.len()), &allowed));
        }
        // SAFETY: one stream does everything with `to`, and `into` is borrowed until that has been waited for; where that
        // fails the device is lost and copies nothing any more.
        unsafe { download(&self.stream, &self.to, 0..into.len(), into.as_mut_ptr())? };
        self.stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        // Where this fails the device is lost and copies nothing any more.
        let _ = self.stream.synchronize();
    }
}
