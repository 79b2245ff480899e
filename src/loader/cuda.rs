//! The device side of a loader: what it allocates there, and how a batch gets there.

use std::mem::size_of;
use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaEvent, CudaStream};

use super::direct::{CuFileChoice, Opened};
use super::landed::Landing;
use super::launch::Bad;
use super::tray::{By, DeviceJpeg, Filled, Tray, WholeJpeg};
use crate::augment::cuda::Resampler;
use crate::decode::kernels::abi::Image;
use crate::decode::kernels::cuda::{Images, Scratch, address};
use crate::decode::kernels::{Capacity, Needs, Wave, cut, samples_image};
use crate::decode::nvjpeg::{self, Eligible, Kinds, NvJpeg, NvJpegDevice, Refusal};
use crate::device::Device;
use crate::device::cuda::{DeviceMemory, Gpu, Output, Registered, error, move_down, upload};
use crate::engine::CuFile;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Arena, DeviceArena, FilledSlot, Pinned, SlotPool, Statuses, Upload, UploadLayout, ViewLayout};
use crate::pixels::Rect;
use crate::plan::{SamplePlan, Views};
use crate::report::{Fallback, lock};
use crate::source::{Record, Source};

/// A device as a loader uses it.
pub(super) struct Cuda {
    gpu: Gpu,
    // Before the memory that it reads.
    nvjpeg: Option<Mutex<NvJpeg>>,
    /// With the kinds of files that it takes.
    nvjpeg_device: Option<(Mutex<NvJpegDevice>, Kinds)>,
    pub(super) capacity: Capacity,
    // Before the memory that it may write.
    pub(super) cufile: Option<Arc<CuFile>>,
    /// The landing areas of the slots on the device.
    pub(super) arenas: Vec<DeviceArena>,
    slots: Vec<Mutex<DeviceSlot>>,
    // Before the memory that it page-locks, which the uploads keep mapped.
    _registered: Registered,
    pub(super) uploads: Vec<Upload>,
    statuses: Vec<Statuses>,
}

/// What a device loader is built of.
pub(super) struct Sizes<'a> {
    pub(super) views: &'a Views,
    pub(super) arena_bytes: usize,
    pub(super) slots: usize,
    /// Samples of a batch.
    pub(super) samples: usize,
    pub(super) layout: ViewLayout,
    pub(super) upload: UploadLayout,
    pub(super) capacity: Capacity,
    pub(super) may_have_fewer_slots: bool,
    pub(super) nvjpeg: Option<NvJpeg>,
    pub(super) nvjpeg_device: Option<NvJpegDevice>,
    pub(super) cufile: CuFileChoice,
}

/// What a device loader is built to.
pub(super) struct Built {
    pub(super) cuda: Cuda,
    pub(super) arena: Arena,
    pub(super) slots: SlotPool,
    /// Of the host, a slot.
    pub(super) upload_bytes: usize,
    pub(super) fallbacks: Vec<Fallback>,
}

/// The device's half of a slot: memory for one batch on its way, and the stream that all of its work is on.
struct DeviceSlot {
    stream: Arc<CudaStream>,
    upload: Arc<DeviceMemory>,
    scratch: Scratch,
    resampler: Resampler,
    /// Behind the last copy from host memory, and the statuses.
    settled: CudaEvent,
    /// Behind the last kernel that reads what landed.
    used: CudaEvent,
    waves: Vec<Wave>,
    /// Where in the sample buffer each image's samples start.
    samples_at: Vec<u64>,
    /// What nvJPEG refused of this batch.
    refused: Vec<(usize, Refusal)>,
}

impl Sizes<'_> {
    /// Bytes of device memory that one slot takes.
    pub(super) fn device_bytes(&self) -> usize {
        let labels_and_status = self.samples * size_of::<i64>() + self.upload.places() * size_of::<u32>();
        self.upload.len_bytes() + self.capacity.len_bytes() + self.tensor_bytes() + labels_and_status
    }

    /// Allocates everything: on the device first, so that host memory is taken for the slots that it has room for.
    ///
    /// # Errors
    /// `OutOfMemory` where the device's does not suffice, `LimitExceeded` where the host's does not; those of
    /// [`CuFileChoice::open`].
    pub(super) fn build(self, gpu: Gpu, source: &dyn Source) -> Result<Built> {
        let (mut slots, mut outputs) = (Vec::new(), Vec::new());
        let mut fallbacks = Vec::new();
        for made in 0..self.slots {
            match self.slot(&gpu) {
                Ok((slot, output)) => {
                    slots.push(Mutex::new(slot));
                    outputs.push(output);
                }
                Err(error) if error.kind() == ErrorKind::OutOfMemory && self.may_have_fewer_slots && made >= 2 => {
                    fallbacks.push(fewer_slots(made, self.slots, &error));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        for slot in &slots {
            // What zeroes the memory is done before anything else is asked of the device.
            lock(slot).stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))?;
        }
        let arenas: Vec<_> = slots.iter().map(|slot| self.upload.arena(&lock(slot).upload)).collect();
        let cufile = match self.cufile.open(&arenas, source)? {
            Opened::CuFile(cufile) => Some(cufile),
            Opened::Not(fallback) => {
                fallbacks.extend(fallback);
                None
            }
        };
        let upload = match (&cufile, &self.nvjpeg) {
            (Some(_), None) => self.upload.without_host_landing(),
            _ => self.upload,
        };
        let node = super::node_of(source, || gpu.pci_place());
        let pinned = Pinned::new(self.arena_bytes, slots.len(), upload, &self.layout, node)?;
        let (start, len_bytes) = pinned.range();
        // SAFETY: the range stays mapped while `Cuda` holds its uploads, which it drops last. Copies have ended when a
        // run has: its threads wait for each batch that they launched.
        let registered = unsafe { Registered::new(&gpu, start, len_bytes)? };
        pinned.slots.set_outputs(outputs);
        let Pinned { arena, uploads, statuses, slots: pool, .. } = pinned;
        let capacity = self.capacity;
        let nvjpeg = self.nvjpeg.map(Mutex::new);
        let nvjpeg_device = self.nvjpeg_device.map(|nvjpeg| {
            let kinds = nvjpeg.kinds();
            (Mutex::new(nvjpeg), kinds)
        });
        let cuda = Cuda {
            gpu,
            nvjpeg,
            nvjpeg_device,
            capacity,
            cufile,
            arenas,
            slots,
            _registered: registered,
            uploads,
            statuses,
        };
        Ok(Built { cuda, arena, slots: pool, upload_bytes: upload.host_len_bytes(), fallbacks })
    }

    fn slot(&self, gpu: &Gpu) -> Result<(DeviceSlot, Output)> {
        let stream = gpu.stream()?;
        let slot = DeviceSlot {
            upload: Arc::new(DeviceMemory::new(gpu, self.upload.len_bytes())?),
            scratch: Scratch::new(gpu, &stream, &self.capacity, self.upload.places())?,
            resampler: Resampler::new(gpu, &stream, &self.capacity, self.views)?,
            settled: gpu.host_event()?,
            used: gpu.host_event()?,
            waves: Vec::new(),
            samples_at: Vec::new(),
            refused: Vec::new(),
            stream: Arc::clone(&stream),
        };
        // Kernels read in units of which a part may not have been written.
        // SAFETY: nobody else knows the memory.
        unsafe { slot.upload.zero(&stream)? };
        Ok((slot, Output::new(gpu, &stream, self.tensor_bytes(), self.samples)?))
    }

    /// Bytes of the tensors of a batch, which the memory plan has counted.
    fn tensor_bytes(&self) -> usize {
        self.layout.len_bytes(self.samples).unwrap_or(usize::MAX)
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

    /// Where samples land that the kernels decode.
    pub(super) fn landing(&self) -> Landing {
        if self.cufile.is_some() { Landing::Device } else { Landing::Upload }
    }

    /// The same of a sample, where they take all its views.
    pub(super) fn lands(&self, mut needs: impl Iterator<Item = Result<Option<Needs>>>) -> Result<Option<Landing>> {
        let takes_all = needs.try_fold(true, |all, needs| {
            Ok::<_, Error>(all && needs?.is_some_and(|needs| self.capacity.holds(&needs)))
        })?;
        Ok(takes_all.then(|| self.landing()))
    }

    /// Empties a slot's upload for the next batch, or for another round of one that has settled. What is to land on the
    /// device waits for no stream, so the last batch's kernels have to be done with what landed there: by now they mostly
    /// are.
    pub(super) fn start_round(&self, index: usize) -> Result<()> {
        self.uploads[index].start_round();
        if self.cufile.is_some() {
            let slot = lock(&self.slots[index]);
            slot.used.synchronize().map_err(|code| error("cuEventSynchronize", code))?;
        }
        Ok(())
    }

    /// Whether nvJPEG decodes here what the index describes, from files in the device's memory.
    pub(super) fn decodes_files(&self) -> bool {
        self.nvjpeg_device.is_some()
    }

    /// What nvJPEG is told of a file in the device's memory, if it takes it: by the index alone.
    pub(super) fn file_of(&self, record: &Record<'_>, plan: &SamplePlan) -> Result<Option<(Eligible, Needs, Image)>> {
        let (Some((_, kinds)), Some(jpeg)) = (&self.nvjpeg_device, record.jpeg()) else { return Ok(None) };
        let Ok(eligible) = kinds.takes(jpeg, record.len_bytes) else { return Ok(None) };
        let (width, height) = (jpeg.facts.width, jpeg.facts.height);
        let Ok((image, needs)) = samples_image(plan, (width, height), Rect::whole(width, height)) else {
            return Ok(None);
        };
        Ok(self.capacity.holds(&needs).then_some((eligible, needs, image)))
    }

    /// Whether samples that no index describes are decoded here.
    pub(super) fn has_nvjpeg(&self) -> bool {
        self.nvjpeg.is_some()
    }

    /// Puts all work for a complete batch on its slot's stream. Returns how many bytes go to the device.
    ///
    /// # Errors
    /// `DeviceLost` and the like. The device may then still work on the batch: see [`drain`](Self::drain).
    pub(super) fn launch(&self, filled: &mut Filled) -> Result<u64> {
        let Filled { tray, slot: filled, .. } = filled;
        let mut guard = lock(&self.slots[filled.index()]);
        let slot = &mut *guard;
        let (host, statuses) = (&self.uploads[filled.index()], &self.statuses[filled.index()]);
        let images = host.images_mut(filled);
        let samples = tray.samples.len();
        cut(images, |place| tray.needs(place / samples, place % samples), &self.capacity, &mut slot.waves);
        slot.samples_at.clear();
        slot.samples_at.extend(images.iter().map(|image| image.planes[0].samples));
        let (start, bytes) = host.used(filled, tray.landed_bytes());
        let made_on_host: Vec<_> = tray.made_on_host().flat_map(|range| filled.runs(range)).collect();
        let (tensors, output) = filled.sides();
        let Some(output) = output else { return Err(no_output()) };
        output.begin()?;
        let mut copied = 0;
        // SAFETY: the upload, the tensors and the labels stay as they are until `settled`, which is waited for before
        // the batch goes on. All memory on the device is this slot's, and only this stream works with it. What the
        // kernels follow was written by describers and `cut`.
        unsafe {
            if !slot.waves.is_empty() {
                slot.upload.upload(&slot.stream, start, bytes)?;
                copied += bytes.len();
            }
            output.upload_labels(&tray.made_labels())?;
            for range in made_on_host {
                copied += range.len();
                upload(&slot.stream, output.bytes_mut(), range.start, &tensors[range])?;
            }
            slot.run(self, tray, host, statuses, output)?;
        }
        output.end()?;
        Ok(copied as u64)
    }

    /// Waits until a launched batch has no more use for host memory, and gives the samples that its kernels could not
    /// decode, with why, to `bad`; of several views each that they could not.
    pub(super) fn settle(&self, filled: &Filled, mut bad: impl FnMut(usize, Bad)) -> Result<()> {
        let index = filled.slot.index();
        let mut slot = lock(&self.slots[index]);
        slot.settled.synchronize().map_err(|code| error("cuEventSynchronize", code))?;
        slot.refused.drain(..).for_each(|(place, refusal)| bad(place, Bad::NvJpeg(refusal)));
        let has_kernels = !slot.waves.is_empty();
        drop(slot);
        if has_kernels {
            let samples = filled.slot.samples();
            // SAFETY: the copy of the statuses lies before `settled`.
            let statuses = unsafe { self.statuses[index].read(0..samples * filled.slot.views()) };
            for (place, &status) in statuses.iter().enumerate().filter(|(_, status)| **status != 0) {
                bad(place % samples, Bad::Kernels(status));
            }
        }
        Ok(())
    }

    /// Copies tensors that were made on the host after all to their places, and waits for that.
    pub(super) fn repair(&self, filled: &mut Filled, samples: &[usize]) -> Result<u64> {
        let slot = lock(&self.slots[filled.slot.index()]);
        let places: Vec<_> = samples.iter().flat_map(|&index| filled.slot.places(index)).collect();
        let (tensors, output) = filled.slot.sides();
        let Some(output) = output else { return Err(no_output()) };
        let mut copied = 0;
        for range in places {
            copied += range.len();
            // SAFETY: the tensors stay as they are until the stream was waited for, below.
            unsafe { upload(&slot.stream, output.bytes_mut(), range.start, &tensors[range])? };
        }
        output.end()?;
        slot.stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))?;
        Ok(copied as u64)
    }

    /// Moves the tensors of the places that a batch of `samples` holds, ascending, and their labels to where a batch of so
    /// many has them, in the stream's order.
    pub(super) fn close_gaps(
        &self,
        filled: &mut FilledSlot,
        (places, samples): (&[usize], usize),
        labels: &[i64],
    ) -> Result<()> {
        let slot = lock(&self.slots[filled.index()]);
        let moves: Vec<_> = filled.moves(places, samples).collect();
        let Some(output) = filled.output_mut() else { return Err(no_output()) };
        for (from, to) in moves {
            // SAFETY: this is the stream that writes the tensors.
            unsafe { move_down(&slot.stream, output.bytes_mut(), from, to)? };
        }
        // SAFETY: CUDA takes a copy of what is not page-locked, and the order is the stream's.
        unsafe { output.upload_labels(labels)? };
        output.end()
    }

    /// Waits until the device does nothing more for a batch, whatever became of it.
    pub(super) fn drain(&self, filled: &Filled) {
        // Where this fails the device is lost, and reads no host memory any more.
        let _ = lock(&self.slots[filled.slot.index()]).stream.synchronize();
    }
}

impl DeviceSlot {
    /// Launches the work of all waves. `images` of a wave lie on the device where they lie in `host`.
    ///
    /// # Safety
    /// As for [`Scratch::entropy`], and what is kept in `tray` stays where it is until `settled`; so do `statuses`.
    unsafe fn run(
        &mut self,
        cuda: &Cuda,
        tray: &Tray,
        host: &Upload,
        statuses: &Statuses,
        output: &mut Output,
    ) -> Result<()> {
        let (gpu, samples) = (&cuda.gpu, tray.samples.len());
        self.refused.clear();
        if !self.waves.is_empty() {
            // SAFETY: only this stream works with the scratch memory.
            unsafe { self.scratch.begin(&self.stream)? };
        }
        let base = self.upload.address();
        let to = address(output.bytes_mut(), &self.stream);
        let waves = std::mem::take(&mut self.waves);
        for (number, wave) in waves.iter().enumerate() {
            let first = base + (host.images_at() + wave.places.start * size_of::<Image>()) as u64;
            let images = Images { upload: base, first };
            // SAFETY: as the caller promises; each step comes behind the one before, in the stream's order.
            unsafe {
                self.scratch.entropy(gpu, &self.stream, images, wave)?;
                self.decode_whole(cuda, tray, wave)?;
                self.decode_files(cuda, tray, wave)?;
                if number + 1 == waves.len() {
                    // All statuses are known, and host memory was read for the last time.
                    let places = samples * tray.views.len();
                    self.scratch.download_status(&self.stream, places, statuses.start())?;
                    self.settled.record(&self.stream).map_err(|code| error("cuEventRecord", code))?;
                }
                self.scratch.transform(gpu, &self.stream, images, wave)?;
                let from = self.scratch.samples(&self.stream);
                self.resampler.resample(gpu, &self.stream, images, wave, samples, (from, to))?;
            }
        }
        if waves.is_empty() {
            self.settled.record(&self.stream).map_err(|code| error("cuEventRecord", code))?;
        }
        self.waves = waves;
        if cuda.cufile.is_some() {
            self.used.record(&self.stream).map_err(|code| error("cuEventRecord", code))?;
        }
        Ok(())
    }

    /// Has nvJPEG decode the images of a wave that are its own.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn decode_whole(&mut self, cuda: &Cuda, tray: &Tray, wave: &Wave) -> Result<()> {
        let Some(nvjpeg) = &cuda.nvjpeg else { return Ok(()) };
        let samples = self.scratch.samples(&self.stream);
        // Nobody else wants what is kept of a batch that is being launched.
        let kept: Vec<_> = wave.places.clone().zip(tray.kept().skip(wave.places.start)).collect();
        let (mut numbers, mut images) = (Vec::new(), Vec::new());
        for (place, kept) in &kept {
            let Some(kept) = kept.as_ref() else { continue };
            let By::NvJpeg(WholeJpeg { len_bytes, width, height, area }) = kept.way.by else { continue };
            let Some(bytes) = kept.first.on_host().and_then(|bytes| bytes.get(..len_bytes)) else { continue };
            let (pitch, rows) = (area.width.next_multiple_of(8), area.height.next_multiple_of(8));
            let plane_bytes = u64::from(pitch) * u64::from(rows);
            let planes = [0, 1, 2].map(|number| samples + self.samples_at[*place] + number * plane_bytes);
            numbers.push(*place);
            images.push(nvjpeg::Image { bytes, width, height, area, planes, pitch: pitch as usize });
        }
        if images.is_empty() {
            return Ok(());
        }
        let mut verdicts = vec![Ok(nvjpeg::Engine::Hybrid); images.len()];
        // SAFETY: the bytes are page-locked and kept until `settled`, which is recorded behind this. The planes are the
        // images' own parts of the sample buffer.
        unsafe { lock(nvjpeg).decode(&self.stream, &images, &mut verdicts)? };
        self.refuse(&numbers, &verdicts);
        Ok(())
    }

    /// Has nvJPEG decode the images of a wave whose files lie on the device.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn decode_files(&mut self, cuda: &Cuda, tray: &Tray, wave: &Wave) -> Result<()> {
        let Some((nvjpeg, _)) = &cuda.nvjpeg_device else { return Ok(()) };
        let samples = self.scratch.samples(&self.stream);
        let (mut numbers, mut images) = (Vec::new(), Vec::new());
        for (place, kept) in wave.places.clone().zip(tray.kept().skip(wave.places.start)) {
            let Some(By::NvJpegDevice(jpeg)) = kept.as_ref().map(|kept| kept.way.by) else { continue };
            let DeviceJpeg { kind, at, len_bytes, width, height } = jpeg;
            let (pitch, rows) = (width.next_multiple_of(8), height.next_multiple_of(8));
            let plane_bytes = u64::from(pitch) * u64::from(rows);
            let planes = [0, 1, 2].map(|number| samples + self.samples_at[place] + number * plane_bytes);
            let address = self.upload.address() + u64::from(at);
            numbers.push(place);
            images.push(nvjpeg::DeviceImage { address, len_bytes, kind, width, height, planes, pitch: pitch as usize });
        }
        if images.is_empty() {
            return Ok(());
        }
        let mut verdicts = vec![Ok(nvjpeg::Engine::Kernels); images.len()];
        // SAFETY: the files were copied on this stream, or cuFile has read them before their samples were described. The
        // planes are the images' own parts of the sample buffer.
        unsafe { lock(nvjpeg).decode(&self.stream, &images, &mut verdicts)? };
        self.refuse(&numbers, &verdicts);
        Ok(())
    }

    /// Notes what nvJPEG has refused of the images of these places.
    fn refuse(&mut self, places: &[usize], verdicts: &[nvjpeg::Verdict]) {
        let refused = places.iter().zip(verdicts).filter_map(|(&place, verdict)| Some((place, verdict.err()?)));
        self.refused.extend(refused);
    }
}

fn no_output() -> Error {
    Error::new(ErrorKind::Internal, "a slot of a device loader has no side on the device")
}
