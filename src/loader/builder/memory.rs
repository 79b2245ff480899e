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
use crate::memory::{Arena, MemoryPlan, REGION_ALIGN_BYTES, SlotPool, UploadLayout};
use crate::plan::{Augment, Geometry};
use crate::source::{IndexMode, Source};

/// Bytes for encoded samples on their way to a device, a slot, unless told otherwise.
const LANDING_BYTES_MIN: usize = 1 << 20;
const LANDING_BYTES_MAX: usize = 1 << 30;
/// What rounding to the alignment of storage adds to a sample that is read in a few pieces.
const LANDING_ROUNDING_BYTES: usize = 16 << 10;

impl LoaderBuilder {
    pub(super) fn host_memory(
        &self,
        augment: &Augment,
        source: &dyn Source,
        threads: usize,
    ) -> Result<(MemoryPlan, Arena, SlotPool, Option<Cuda>)> {
        let batch_size = self.places();
        let slot_bytes = match augment.output_bytes() {
            Some(sample_bytes) => MemoryPlan::new(0, SLOTS_MIN, batch_size, sample_bytes)?.slot_bytes,
            None => self.ragged_bytes()?,
        };
        let memory = self.fit(slot_bytes, 0, threads)?;
        let slots = match augment.output_bytes() {
            Some(sample_bytes) => SlotPool::new(memory.slots, batch_size, sample_bytes)?,
            None => SlotPool::ragged(memory.slots, batch_size, slot_bytes)?,
        };
        debug_assert_eq!(augment.output_bytes().is_none(), matches!(augment.geometry(), Geometry::None));
        Ok((memory, Arena::on_node(memory.arena_bytes, crate::loader::node_of(source, || None))?, slots, None))
    }

    /// nvJPEG, where it was asked for or there are samples for it.
    pub(super) fn nvjpeg(&self, gpu: &Gpu, source: &dyn Source, threads: usize) -> Option<Result<NvJpeg>> {
        let is_wanted = match self.decoder {
            DecoderKind::NvJpeg => true,
            DecoderKind::Auto => self.index.mode == IndexMode::Off || indexed(source).any(|is_indexed| !is_indexed),
            DecoderKind::Kernels | DecoderKind::NvJpegDevice | DecoderKind::Host => false,
        };
        is_wanted.then(|| NvJpeg::new(gpu, self.places(), threads))
    }

    /// Memory on both sides, for samples of so many encoded bytes that so many threads decode.
    pub(super) fn device_memory(
        &self,
        gpu: Gpu,
        nvjpeg: Option<NvJpeg>,
        augment: &Augment,
        source: &dyn Source,
        (encoded_bytes, threads): (u64, usize),
    ) -> Result<(MemoryPlan, Built)> {
        let (Some(sample_bytes), Some(shape)) = (augment.output_bytes(), augment.output_shape()) else {
            return Err(Error::new(ErrorKind::Internal, "a device loader without an output size"));
        };
        let places = self.places();
        let slot_bytes = MemoryPlan::new(0, SLOTS_MIN, places, sample_bytes)?.slot_bytes;
        let landing_bytes = match self.landing_bytes {
            0 => landing_bytes(places, encoded_bytes).min(self.landing_bytes_max()?),
            bytes => bytes,
        };
        let upload = UploadLayout::new(places, landing_bytes).ok_or_else(|| {
            let allowed = "what a batch uploads is below 2 GiB: use a smaller batch or fewer landing_bytes";
            Error::invalid_parameter("landing_bytes", landing_bytes, allowed)
        })?;
        // One more thread decodes what the device turns out unable to.
        let memory = self.fit(slot_bytes, upload.host_len_bytes() + status_bytes(places), threads + 1)?;
        let side = shape.into_iter().max().unwrap_or(1);
        let sizes = Sizes {
            augment,
            arena_bytes: memory.arena_bytes,
            slots: memory.slots,
            places,
            sample_bytes,
            upload,
            capacity: Capacity::new(self.scratch_bytes, places, side, upload.words()),
            may_have_fewer_slots: self.fewer_slots,
            nvjpeg_device: match self.decoder {
                DecoderKind::NvJpegDevice => Some(NvJpegDevice::new(&gpu, places)?),
                _ => None,
            },
            nvjpeg,
            cufile: self.cufile_choice(source),
        };
        let device_bytes = sizes.device_bytes();
        let built = sizes.build(gpu, source)?;
        let memory = MemoryPlan { slots: built.slots.slots(), ..memory };
        Ok((memory.with_device(built.upload_bytes + status_bytes(places), device_bytes), built))
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

/// A quarter more than a batch of samples of the size that the data set has on average.
fn landing_bytes(places: usize, encoded_bytes: u64) -> usize {
    let sample_bytes = usize::try_from(encoded_bytes.saturating_add(encoded_bytes / 4)).unwrap_or(usize::MAX);
    let batch_bytes = places.saturating_mul(sample_bytes.saturating_add(LANDING_ROUNDING_BYTES));
    batch_bytes.clamp(LANDING_BYTES_MIN, LANDING_BYTES_MAX)
}
