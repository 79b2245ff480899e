//! What an index allows: a sample planned before it is read, and only the bytes of its crop asked of storage.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::Shared;
use super::cuda::Cuda;
use super::landed::{Bytes, Landing};
use super::seat::Seat;
use super::tray::{Candidate, Tray};
use crate::decode::kernels::Needs;
use crate::decode::{DecoderKind, ImageInfo};
use crate::engine::{Engine, OpenFile, RequirePath, read_now};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::plan::{Orientation, Passes, Plans, SampleKey, ranges};
use crate::raw;
use crate::report::Fallback;
use crate::source::{Extent, IndexMode, Record, RecordedImage};

impl Shared {
    /// Plans a sample, `len_bytes` of `file`, from its record and leaves the byte ranges that it needs in `ranges`;
    /// `None` where it is to be read whole. Also where it lands. Of pixels without a header, the length is all that a record
    /// could say.
    ///
    /// # Errors
    /// `Changed` if a shard is not the indexed one: its samples need not lie where they did. Where an index is
    /// required, what is wrong with the record; otherwise that is a fallback. Those of pixels without a header that are
    /// not of the shape that was told.
    pub(super) fn push_down(
        &self,
        tray: &Tray,
        index: usize,
        len_bytes: u64,
        file: &OpenFile,
        ranges: &mut Vec<Range<u64>>,
    ) -> Result<Option<(Plans, Landing)>> {
        // Images of their own size are needed whole, and so are nvJPEG's.
        let is_whole = self.views.has_own_sizes() || self.decoder == DecoderKind::NvJpeg && self.cuda.is_some();
        if self.source.is_headerless(tray.sample(index))? {
            let image = RecordedImage::Raw(raw::Facts::headerless(len_bytes, self.raw_shape)?);
            if is_whole {
                return Ok(None);
            }
            let plans = self.plan_ranges(tray, index, &image, ranges)?;
            let landing = self.landing_of(&image, &plans)?;
            return Ok(Some((plans, landing)));
        }
        if self.index == IndexMode::Off || is_whole {
            return Ok(None);
        }
        let planned = self.source.record(tray.sample(index)).and_then(|record| {
            let Some(record) = record else { return Ok(None) };
            check_identity(&record, len_bytes, file)?;
            let plans = self.plan_ranges(tray, index, &record.image, ranges)?;
            check_ranges(ranges, len_bytes)?;
            if let Some(cuda) = self.cuda.as_ref().filter(|cuda| cuda.decodes_files())
                && let Some((eligible, ..)) = cuda.file_of(&record, &plans.first)?
            {
                ranges.clear();
                ranges.push(0..eligible.len_bytes);
                return Ok(Some((plans, cuda.landing())));
            }
            let landing = self.landing_of(&record.image, &plans)?;
            Ok(Some((plans, landing)))
        });
        match planned {
            Err(error) if self.index != IndexMode::Required && error.kind() != ErrorKind::Changed => {
                self.count_index_fallback(tray, index, error);
                Ok(None)
            }
            planned => planned,
        }
    }

    /// Where an image lands that is planned before it is read: with the kernels, if they take it.
    fn landing_of(&self, image: &RecordedImage<'_>, plans: &Plans) -> Result<Landing> {
        let landing = match (&self.cuda, image) {
            (Some(cuda), RecordedImage::Jpeg(jpeg)) if self.decoder.uses_kernels() => {
                cuda.lands(plans.iter().map(|plan| Needs::of(&jpeg.facts, plan)))?
            }
            (Some(cuda), RecordedImage::Raw(facts)) if self.decoder.lands_on_device() => {
                cuda.lands(plans.iter().map(|plan| Needs::of_pixels(facts, plan)))?
            }
            _ => None,
        };
        Ok(landing.unwrap_or(Landing::Host))
    }

    /// Plans a sample of which an image is known, and replaces `ranges` by those that its views need, together.
    fn plan_ranges(
        &self,
        tray: &Tray,
        index: usize,
        image: &RecordedImage<'_>,
        ranges: &mut Vec<Range<u64>>,
    ) -> Result<Plans> {
        let plans = self.plan(tray, index, &image.info())?;
        ranges.clear();
        if plans.more.is_empty() {
            image.ranges(plans.first.view(), ranges)?;
            return Ok(plans);
        }
        let mut windows = Vec::with_capacity(1 + plans.more.len());
        plans.windows(Passes::Few, &mut windows);
        windows.iter().try_for_each(|window| image.ranges(*window, ranges))?;
        ranges::unite(ranges);
        Ok(plans)
    }

    /// What a sample that was planned before it was read was planned by.
    ///
    /// # Errors
    /// `IndexStale` if that is not to be had any more.
    pub(super) fn image(&self, sample: u64) -> Result<RecordedImage<'_>> {
        let image = match self.raw_shape {
            Some(shape) if self.source.is_headerless(sample)? => {
                Some(RecordedImage::Raw(raw::Facts { shape, offset: 0 }))
            }
            _ => self.source.record(sample)?.map(|record| record.image),
        };
        image.ok_or_else(|| stale("the sample's record is gone"))
    }

    /// The plans of a sample by what its header, or its record, says of the image.
    pub(super) fn plan(&self, tray: &Tray, index: usize, info: &ImageInfo) -> Result<Plans> {
        self.limits.check_dimensions(info.width, info.height)?;
        let orientation = if self.orientation { info.orientation } else { Orientation::AS_STORED };
        // A sample that comes several times in an epoch is drawn anew each time, and so is one that stands in for others.
        let Candidate { sample, position, is_stand_in } = tray.candidate(index);
        let epoch = tray.step.epoch();
        let draw =
            if is_stand_in { self.order.stand_in_view(epoch, position) } else { self.order.view(epoch, position) };
        let key = SampleKey { seed: self.order.seed(), epoch, sample, view: draw.into() };
        self.views.plan(key, (info.width, info.height), orientation, info.route.scales())
    }

    /// Where a sample lands that is read whole: for nvJPEG, if it is there and the sample a JPEG that it takes, or the host.
    ///
    /// # Errors
    /// `Unavailable` where everything has to go straight to the device.
    pub(super) fn landing_of_whole(&self) -> Result<Landing> {
        self.refuse_indirect("no index describes it")?;
        let has_nvjpeg = self.cuda.as_ref().is_some_and(Cuda::has_nvjpeg);
        Ok(if has_nvjpeg { Landing::Upload } else { Landing::Host })
    }

    /// Whether a sample that is a file of its own is read whole, for the host, whatever opening it shows: then it can be
    /// opened and read in one go.
    pub(super) fn is_plain_file(&self, sample: u64) -> bool {
        let lands_elsewhere = self.requires_direct() || self.cuda.as_ref().is_some_and(Cuda::has_nvjpeg);
        // What fails here fails again where it is reported.
        let is_known = || matches!(self.source.record(sample), Ok(Some(_)) | Err(_));
        let is_planned = self.index != IndexMode::Off && !self.views.has_own_sizes() && is_known();
        !lands_elsewhere && !is_planned && matches!(self.source.is_headerless(sample), Ok(false))
    }

    /// Takes a seat's memory from the landing area of its slot, if there is room.
    pub(super) fn alloc_for_device(&self, seat: &Seat, engine: &Engine, memory: &mut Vec<Bytes>) -> bool {
        let (Some(cuda), Some(waiting)) = (&self.cuda, &seat.waiting) else { return false };
        let (slot, lens_bytes) = (waiting.slot.index(), seat.region_lens(engine));
        // What never fits there may fit the ring.
        let has_room = match seat.landing() {
            Landing::Host => return false,
            Landing::Upload => {
                cuda.uploads[slot].landing().alloc_all(lens_bytes, |region| memory.push(Bytes::Host(region)))
            }
            Landing::Device => cuda.arenas[slot].alloc_all(lens_bytes, |region| memory.push(Bytes::Device(region))),
        };
        has_room.unwrap_or(false)
    }

    /// Counts a sample that a slot's landing area, or upload, has no room for.
    ///
    /// # Errors
    /// Where everything has to go straight to the device, it says that this cannot.
    pub(super) fn leave_for_want_of_room(&self, landing: Landing, what: &str) -> Result<()> {
        let why = || {
            Error::new(ErrorKind::LimitExceeded, format!("a slot's upload has no room left for a sample's {what}"))
                .with_remedy("raise the loader's landing_bytes (--landing-bytes), or use a smaller batch")
        };
        if landing == Landing::Device && self.requires_direct() {
            // Which sample of a batch comes last is chance.
            return Err(why().of_batch());
        }
        self.counters.count_fallback(Fallback::UPLOAD, "host decoders", why);
        Ok(())
    }

    /// Whether every encoded byte has to go straight to the device.
    pub(super) fn requires_direct(&self) -> bool {
        self.cufile().is_some_and(|cufile| cufile.require() == RequirePath::Direct)
    }

    /// Refuses a sample that goes another way where that is not allowed.
    pub(super) fn refuse_indirect(&self, cause: &str) -> Result<()> {
        if !self.requires_direct() {
            return Ok(());
        }
        let message = format!("the path direct is required, and the sample cannot take it: {cause}");
        Err(Error::new(ErrorKind::Unavailable, message)
            .with_remedy("index the data set (forebay index), leave out what is no baseline JPEG, or allow every path"))
    }

    /// Counts a sample that cuFile could not read.
    pub(super) fn count_turned_back(&self, tray: &Tray, index: usize, error: Error) {
        self.counters.count_fallback(Fallback::CUFILE, "host reads", || {
            let error = self.name_sample(tray, index, error);
            if error.remedy().is_some() {
                error
            } else {
                error.with_remedy("see what `forebay doctor PATH` says of it")
            }
        });
    }

    /// Counts a sample that is read whole although it has a record.
    pub(super) fn count_index_fallback(&self, tray: &Tray, index: usize, error: Error) {
        self.counters.count_fallback(Fallback::INDEX, "whole samples", || {
            let error = self.name_sample(tray, index, error);
            if error.remedy().is_some() { error } else { error.with_remedy("build the index again: forebay index") }
        });
    }

    /// The bytes of a sample whose record turned out to be wrong while it was decoded: so rare that they go through
    /// the page cache, while the thread that wants them waits, into memory of their own.
    ///
    /// # Errors
    /// `TimedOut` where they take too long, and when the run is ended meanwhile; `LimitExceeded` for more than there is memory
    /// for.
    pub(super) fn read_whole(&self, sample: u64) -> Result<Vec<u8>> {
        let (object, range) = match self.source.extent(sample)? {
            Extent::Object(object) => (object, None),
            Extent::Range { object, offset, len_bytes } => (object, Some(offset..offset.saturating_add(len_bytes))),
        };
        let mut path = PathBuf::new();
        self.source.object_path(object, &mut path)?;
        let is_over = || self.stop.load(Ordering::Relaxed);
        let bytes_max = self.limits.max_bytes.min(self.decode_budget.total_bytes() as u64);
        let limits = Limits { max_bytes: bytes_max, ..self.limits };
        read_now(self.engine, &self.engine_options, &path, range, limits, is_over)
    }
}

/// Refuses a record of other bytes than those that lie there.
fn check_identity(record: &Record<'_>, len_bytes: u64, file: &OpenFile) -> Result<()> {
    let now = file.identity();
    let is_same = record.object_bytes == now.size_bytes && record.modified.is_none_or(|then| then == now.modified);
    let is_shard = record.object_bytes != record.len_bytes;
    if !is_same && is_shard {
        let message = format!("{} was modified after it was indexed and opened", file.path().display());
        return Err(Error::new(ErrorKind::Changed, message)
            .with_remedy("start again, and do not write to a data set while it is in use"));
    }
    if record.len_bytes != len_bytes {
        return Err(stale(format!("the sample has {len_bytes} bytes and had {} when indexed", record.len_bytes)));
    }
    if is_same { Ok(()) } else { Err(stale("the file was modified after it was indexed")) }
}

/// Refuses ranges that are none or lie outside of the sample.
fn check_ranges(ranges: &[Range<u64>], len_bytes: u64) -> Result<()> {
    let mut end = 0;
    for range in ranges {
        if range.start < end || range.end <= range.start || range.end > len_bytes {
            return Err(stale(format!("it names the bytes {range:?} of {len_bytes}")));
        }
        end = range.end;
    }
    if ranges.is_empty() { Err(stale("it names no bytes")) } else { Ok(()) }
}

fn stale(cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::IndexStale, format!("index is stale: {cause}"))
        .with_remedy("build the index again: forebay index")
}
