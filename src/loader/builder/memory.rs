//! The memory of a loader, on the host and on a device.

use super::LoaderBuilder;
use super::build::indexed;
use super::fit::SLOTS_MIN;
use super::samples::BatchSize;
use crate::decode::DecoderKind;
use crate::decode::kernels::Capacity;
use crate::decode::nvjpeg::{NvJpeg, NvJpegDevice};
use crate::device::cuda::Gpu;
use crate::error::{Error, ErrorKind, Result};
use crate::loader::cuda::{Built, Cuda, Sizes};
use crate::memory::{Arena, MemoryPlan, REGION_ALIGN_BYTES, SlotPool, UploadLayout, ViewLayout};
use crate::plan::Views;
use crate::source::{IndexMode, Source};

/// Bytes for encoded samples on their way to a device, a slot, unless told otherwise.
const LANDING_BYTES_MIN: usize = 1 << 20;
const LANDING_BYTES_MAX: usize = 1 << 30;
/// What rounding to the alignment of storage adds to a sample that is read in a few pieces.
const LANDING_ROUNDING_BYTES: usize = 16 << 10;

impl LoaderBuilder {
    pub(super) fn host_memory(
        &self,
        views: &Views,
        source: &dyn Source,
        threads: usize,
    ) -> Result<(MemoryPlan, Arena, SlotPool, Option<Cuda>)> {
        let batch_size = self.places();
        let layout = layout(views);
        let slot_bytes = match &layout {
            Some(layout) => MemoryPlan::of_views(0, SLOTS_MIN, batch_size, layout)?.slot_bytes,
            None => self.ragged_bytes()?,
        };
        let memory = self.fit(slot_bytes, 0, threads)?;
        let slots = match layout {
            Some(layout) => SlotPool::of_views(memory.slots, batch_size, layout)?,
            None => SlotPool::ragged(memory.slots, batch_size, slot_bytes)?,
        };
        Ok((memory, Arena::on_node(memory.arena_bytes, crate::loader::node_of(source, || None))?, slots, None))
    }

    /// nvJPEG, where it was asked for or there are samples for it.
    pub(super) fn nvjpeg(
        &self,
        gpu: &Gpu,
        views: &Views,
        source: &dyn Source,
        threads: usize,
    ) -> Option<Result<NvJpeg>> {
        let is_wanted = match self.decoder {
            DecoderKind::NvJpeg => true,
            DecoderKind::Auto => self.index.mode == IndexMode::Off || indexed(source).any(|is_indexed| !is_indexed),
            DecoderKind::Kernels | DecoderKind::NvJpegDevice | DecoderKind::Host => false,
        };
        is_wanted.then(|| {
            if views.len() > 1 {
                return Err(Error::new(ErrorKind::Unavailable, "nvJPEG makes one view of a sample"));
            }
            NvJpeg::new(gpu, self.places(), threads)
        })
    }

    /// Memory on both sides, for samples of so many encoded bytes that so many threads decode.
    pub(super) fn device_memory(
        &self,
        gpu: Gpu,
        nvjpeg: Option<NvJpeg>,
        views: &Views,
        source: &dyn Source,
        (encoded_bytes, threads): (u64, usize),
    ) -> Result<(MemoryPlan, Built)> {
        let Some(layout) = layout(views) else {
            return Err(Error::new(ErrorKind::Internal, "a device loader without an output size"));
        };
        let samples = self.places();
        let slot_bytes = MemoryPlan::of_views(0, SLOTS_MIN, samples, &layout)?.slot_bytes;
        let landing_bytes = match self.landing_bytes {
            0 => landing_bytes(samples, encoded_bytes).min(self.landing_bytes_max()?),
            bytes => bytes,
        };
        let upload = UploadLayout::new(samples, views.len(), landing_bytes).ok_or_else(|| {
            let allowed = "what a batch uploads is below 2 GiB: use a smaller batch or fewer landing_bytes";
            Error::invalid_parameter("landing_bytes", landing_bytes, allowed)
        })?;
        // One more thread decodes what the device turns out unable to.
        let memory = self.fit(slot_bytes, upload.host_len_bytes() + status_bytes(upload.places()), threads + 1)?;
        let outputs = views.groups().iter().map(|group| {
            let side = group.augment.output_shape().into_iter().flatten().max().unwrap_or(1);
            (samples * group.count, side)
        });
        let sizes = Sizes {
            views,
            arena_bytes: memory.arena_bytes,
            slots: memory.slots,
            samples,
            layout,
            upload,
            capacity: Capacity::new(self.scratch_bytes, outputs, upload.words()),
            may_have_fewer_slots: self.fewer_slots,
            nvjpeg_device: match self.decoder {
                DecoderKind::NvJpegDevice => Some(NvJpegDevice::new(&gpu, samples)?),
                _ => None,
            },
            nvjpeg,
            cufile: self.cufile_choice(source),
        };
        let device_bytes = sizes.device_bytes();
        let built = sizes.build(gpu, source)?;
        let memory = MemoryPlan { slots: built.slots.slots(), ..memory };
        Ok((memory.with_device(built.upload_bytes + status_bytes(upload.places()), device_bytes), built))
    }

    pub(super) fn places(&self) -> usize {
        let (BatchSize::OfRank(samples) | BatchSize::OfAll(samples)) = self.batch_size;
        usize::try_from(samples).unwrap_or(usize::MAX)
    }
}

/// What comes back of each place of a slot: whole pages.
fn status_bytes(places: usize) -> usize {
    (places * size_of::<u32>()).next_multiple_of(REGION_ALIGN_BYTES)
}

/// Where the views of a sample lie; `None` where every image has its own size.
fn layout(views: &Views) -> Option<ViewLayout> {
    let groups = views.groups().iter().map(|group| Some((group.count, group.augment.output_bytes()?)));
    Some(ViewLayout::new(groups.collect::<Option<Vec<_>>>()?))
}

/// A quarter more than a batch of samples of the size that the data set has on average.
fn landing_bytes(places: usize, encoded_bytes: u64) -> usize {
    let sample_bytes = usize::try_from(encoded_bytes.saturating_add(encoded_bytes / 4)).unwrap_or(usize::MAX);
    let batch_bytes = places.saturating_mul(sample_bytes.saturating_add(LANDING_ROUNDING_BYTES));
    batch_bytes.clamp(LANDING_BYTES_MIN, LANDING_BYTES_MAX)
}
