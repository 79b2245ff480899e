//! The device side of a loader: what it allocates there, and how a batch gets there.

use std::mem::size_of;
use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaEvent, CudaSlice, CudaStream};

use super::tray::Filled;
use crate::augment::cuda::Resampler;
use crate::decode::kernels::abi::Image;
use crate::decode::kernels::cuda::{Images, Scratch, address, zeroed};
use crate::decode::kernels::{Capacity, Wave, cut};
use crate::device::Device;
use crate::device::cuda::{Gpu, Output, Registered, error, upload};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Arena, Pinned, SlotPool, Statuses, Upload, UploadLayout};
use crate::plan::Augment;
use crate::report::{Fallback, lock};

/// A device as a loader uses it.
pub(super) struct Cuda {
    gpu: Gpu,
    pub(super) capacity: Capacity,
    sample_bytes: usize,
    slots: Vec<Mutex<DeviceSlot>>,
    // Before the memory that it page-locks, which the uploads keep mapped.
    _registered: Registered,
    pub(super) uploads: Vec<Upload>,
    statuses: Vec<Statuses>,
}

/// What a device loader is built of.
pub(super) struct Sizes<'a> {
    pub(super) augment: &'a Augment,
    pub(super) arena_bytes: usize,
    pub(super) slots: usize,
    pub(super) places: usize,
    pub(super) sample_bytes: usize,
    pub(super) upload: UploadLayout,
    pub(super) capacity: Capacity,
    pub(super) may_have_fewer_slots: bool,
}

/// The device's half of a slot: memory for one batch on its way, and the stream that all of its work is on.
struct DeviceSlot {
    stream: Arc<CudaStream>,
    upload: CudaSlice<u8>,
    scratch: Scratch,
    resampler: Resampler,
    /// Behind the last copy from host memory, and the statuses.
    settled: CudaEvent,
    waves: Vec<Wave>,
}

impl Sizes<'_> {
    /// Bytes of device memory that one slot takes.
    pub(super) fn device_bytes(&self) -> usize {
        let labels_and_status = self.places * (size_of::<i64>() + size_of::<u32>());
        self.upload.len_bytes() + self.capacity.len_bytes() + self.places * self.sample_bytes + labels_and_status
    }

    /// Allocates everything: on the device first, so that host memory is taken for the slots that it has room for.
    ///
    /// # Errors
    /// `OutOfMemory` where the device's does not suffice, `LimitExceeded` where the host's does not.
    pub(super) fn build(&self, gpu: Gpu) -> Result<(Cuda, Arena, SlotPool, Option<Fallback>)> {
        let (mut slots, mut outputs) = (Vec::new(), Vec::new());
        let mut fallback = None;
        for made in 0..self.slots {
            match self.slot(&gpu) {
                Ok((slot, output)) => {
                    slots.push(Mutex::new(slot));
                    outputs.push(output);
                }
                Err(error) if error.kind() == ErrorKind::OutOfMemory && self.may_have_fewer_slots && made >= 2 => {
                    fallback = Some(fewer_slots(made, self.slots, &error));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let pinned = Pinned::new(self.arena_bytes, slots.len(), self.upload, self.sample_bytes)?;
        let (start, len_bytes) = pinned.range();
        // SAFETY: the range stays mapped while `Cuda` holds its uploads, which it drops last. Copies have ended when a
        // run has: its threads wait for each batch that they launched.
        let registered = unsafe { Registered::new(&gpu, start, len_bytes)? };
        for slot in &slots {
            // What zeroes the memory is done before anything else is asked of the device.
            lock(slot).stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))?;
        }
        pinned.slots.set_outputs(outputs);
        let Pinned { arena, uploads, statuses, slots: pool, .. } = pinned;
        let (capacity, sample_bytes) = (self.capacity, self.sample_bytes);
        Ok((
            Cuda { gpu, capacity, sample_bytes, slots, _registered: registered, uploads, statuses },
            arena,
            pool,
            fallback,
        ))
    }

    fn slot(&self, gpu: &Gpu) -> Result<(DeviceSlot, Output)> {
        let stream = gpu.stream()?;
        let slot = DeviceSlot {
            upload: zeroed(gpu, &stream, self.upload.len_bytes())?,
            scratch: Scratch::new(gpu, &stream, &self.capacity, self.places)?,
            resampler: Resampler::new(gpu, &stream, &self.capacity, self.augment)?,
            settled: gpu.host_event()?,
            waves: Vec::new(),
            stream: Arc::clone(&stream),
        };
        Ok((slot, Output::new(gpu, &stream, self.places * self.sample_bytes, self.places)?))
    }
}

fn fewer_slots(made: usize, asked: usize, error: &Error) -> Fallback {
    let fallback = Fallback {
        what: "slots",
        instead: "fewer slots",
        cause: format!("{made} of {asked} fit: {}", error.cause()),
        remedy: error.remedy().unwrap_or("ask for fewer slots").to_owned(),
        count: 1,
    };
    log::warn!("{fallback}");
    fallback
}

impl Cuda {
    pub(super) fn device(&self) -> Device {
        Device::Cuda(self.gpu.ordinal())
    }

    /// Puts all work for a complete batch on its slot's stream. Returns how many bytes go to the device.
    ///
    /// # Errors
    /// `DeviceLost` and the like. The device may then still work on the batch: see [`drain`](Self::drain).
    pub(super) fn launch(&self, filled: &mut Filled) -> Result<u64> {
        let Filled { tray, slot: filled } = filled;
        let mut guard = lock(&self.slots[filled.index()]);
        let slot = &mut *guard;
        let (host, statuses) = (&self.uploads[filled.index()], &self.statuses[filled.index()]);
        let images = host.images_mut(filled);
        cut(images, |place| tray.needs(place), &self.capacity, &mut slot.waves);
        let (start, bytes) = host.used(filled, tray.landed_bytes());
        let places = filled.samples();
        let (tensors, output) = filled.sides();
        let Some(output) = output else { return Err(no_output()) };
        output.begin()?;
        let mut copied = 0;
        // SAFETY: the upload, the tensors and the labels stay as they are until `settled`, which is waited for before
        // the batch goes on. All memory on the device is this slot's, and only this stream works with it. What the
        // kernels follow was written by describers and `cut`.
        unsafe {
            if !slot.waves.is_empty() {
                upload(&slot.stream, &mut slot.upload, start, bytes)?;
                copied += bytes.len();
            }
            output.upload_labels(&tray.labels)?;
            for range in tray.made_on_host() {
                let range = range.start * self.sample_bytes..range.end * self.sample_bytes;
                copied += range.len();
                upload(&slot.stream, output.bytes_mut(), range.start, &tensors[range])?;
            }
            slot.run(&self.gpu, host.images_at(), places, statuses, output)?;
        }
        output.end()?;
        Ok(copied as u64)
    }

    /// Waits until a launched batch has no more use for host memory, and gives the places that its kernels could not
    /// decode, with why, to `bad`.
    pub(super) fn settle(&self, filled: &Filled, mut bad: impl FnMut(usize, u32)) -> Result<()> {
        let index = filled.slot.index();
        let slot = lock(&self.slots[index]);
        slot.settled.synchronize().map_err(|code| error("cuEventSynchronize", code))?;
        let has_kernels = !slot.waves.is_empty();
        drop(slot);
        if has_kernels {
            // SAFETY: the copy of the statuses lies before `settled`.
            let statuses = unsafe { self.statuses[index].read(0..filled.slot.samples()) };
            for (place, &status) in statuses.iter().enumerate().filter(|(_, status)| **status != 0) {
                bad(place, status);
            }
        }
        Ok(())
    }

    /// Copies tensors that were made on the host after all to their places, and waits for that.
    pub(super) fn repair(&self, filled: &mut Filled, places: &[usize]) -> Result<u64> {
        let slot = lock(&self.slots[filled.slot.index()]);
        let (tensors, output) = filled.slot.sides();
        let Some(output) = output else { return Err(no_output()) };
        for place in places {
            let range = place * self.sample_bytes..(place + 1) * self.sample_bytes;
            // SAFETY: the tensors stay as they are until the stream was waited for, below.
            unsafe { upload(&slot.stream, output.bytes_mut(), range.start, &tensors[range])? };
        }
        output.end()?;
        slot.stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))?;
        Ok((places.len() * self.sample_bytes) as u64)
    }

    /// Waits until the device does nothing more for a batch, whatever became of it.
    pub(super) fn drain(&self, filled: &Filled) {
        // Where this fails the device is lost, and reads no host memory any more.
        let _ = lock(&self.slots[filled.slot.index()]).stream.synchronize();
    }
}

impl DeviceSlot {
    /// Launches the kernels of all waves.
    ///
    /// # Safety
    /// As for [`Scratch::entropy`]; `statuses` are not touched until `settled`.
    unsafe fn run(
        &mut self,
        gpu: &Gpu,
        images_at: usize,
        places: usize,
        statuses: &Statuses,
        output: &mut Output,
    ) -> Result<()> {
        let Self { stream, upload, scratch, resampler, settled, waves } = self;
        let base = address(upload, stream);
        let to = address(output.bytes_mut(), stream);
        if !waves.is_empty() {
            // SAFETY: only this stream works with the scratch memory.
            unsafe { scratch.begin(stream)? };
        }
        for (number, wave) in waves.iter().enumerate() {
            let first = base + (images_at + wave.places.start * size_of::<Image>()) as u64;
            let images = Images { upload: base, first };
            // SAFETY: as the caller promises; each step comes behind the one before, on one stream.
            unsafe {
                scratch.entropy(gpu, stream, images, wave)?;
                if number + 1 == waves.len() {
                    // All statuses are known, and the upload was read for the last time but for the images on the device.
                    scratch.download_status(stream, places, statuses.start())?;
                    settled.record(stream).map_err(|code| error("cuEventRecord", code))?;
                }
                scratch.transform(gpu, stream, images, wave)?;
                let samples = scratch.samples(stream);
                resampler.resample(gpu, stream, images, wave, samples, to)?;
            }
        }
        if waves.is_empty() {
            settled.record(stream).map_err(|code| error("cuEventRecord", code))?;
        }
        Ok(())
    }
}

fn no_output() -> Error {
    Error::new(ErrorKind::Internal, "a slot of a device loader has no side on the device")
}
