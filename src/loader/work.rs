//! The decode threads: what has landed becomes tensors.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::Shared;
use super::cuda::Cuda;
use super::exit::Exit;
use super::landed::{Landed, Landing};
use super::seat::Waiting;
use super::tray::{By, DeviceJpeg, Kept, Tray, Way, WholeJpeg};
use crate::augment::Resizers;
use crate::decode::kernels::{Describer, Description, Needs, describe_pixels, samples_image};
use crate::decode::{Decoder, ImageInfo, Route, nvjpeg};
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::{Grain, Piece};
use crate::memory::{FilledSlot, SampleOut, Slot, Upload};
use crate::pixels::View;
use crate::plan::{Passes, Plans, SamplePlan};
use crate::pool::Turn;
use crate::source::index::{Describer as Recording, Origin};
use crate::source::{Extent, IndexMode, RecordedImage};

/// One sample whose bytes have landed.
pub(super) struct Job {
    pub(super) tray: Arc<Tray>,
    pub(super) slot: Slot,
    pub(super) index: usize,
    /// When its object was last modified before it was opened.
    pub(super) modified: (i64, u32),
    /// What it was read for; none where all of it was read.
    pub(super) plans: Option<Plans>,
    /// Where it landed: with a device, to be decoded there, or not.
    pub(super) landing: Landing,
    /// Its bytes, ascending.
    pub(super) first: Landed,
    pub(super) more: Vec<Landed>,
}

/// A sample whose bytes are here, whoever decodes it.
pub(super) struct Sample<'a> {
    pub(super) tray: &'a Tray,
    pub(super) index: usize,
    pub(super) modified: (i64, u32),
    pub(super) plans: Option<&'a Plans>,
    pub(super) first: &'a Landed,
    pub(super) more: &'a [Landed],
}

/// Where the outputs of a sample go.
pub(super) trait Place {
    /// The memory of each view's; the same when asked again.
    fn outputs(&mut self, tray: &Tray, index: usize, plans: &Plans) -> Result<impl Iterator<Item = &mut [u8]>>;
}

/// A place in a slot that is being filled: claimed when it is first asked for.
struct Claim<'a> {
    slot: &'a Slot,
    claimed: &'a mut Option<SampleOut>,
}

impl Claim<'_> {
    fn claim(&mut self, tray: &Tray, index: usize, plan: &SamplePlan) -> Result<&mut SampleOut> {
        if self.claimed.is_none() {
            *self.claimed = tray.claim(self.slot, index, plan.output_size(), plan.output_bytes())?;
        }
        self.claimed
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the sample's place in its batch was taken"))
    }
}

impl Place for Claim<'_> {
    fn outputs(&mut self, tray: &Tray, index: usize, plans: &Plans) -> Result<impl Iterator<Item = &mut [u8]>> {
        self.claim(tray, index, &plans.first).map(SampleOut::views_mut)
    }
}

impl Place for FilledSlot {
    fn outputs(&mut self, _tray: &Tray, index: usize, _plans: &Plans) -> Result<impl Iterator<Item = &mut [u8]>> {
        Ok(self.views_mut(index))
    }
}

/// Works until the feeding thread has hung up and no job is left.
pub(super) fn run(shared: &Shared, exit: &Exit, jobs: &Receiver<Job>) {
    let clock = &shared.counters.decode;
    let turn = shared.turn(clock);
    let mut worker = Worker::new(shared, &turn);
    loop {
        let waiting = Instant::now();
        let job = match jobs.try_recv() {
            Ok(job) => job,
            Err(_) => {
                turn.end();
                let Ok(job) = jobs.recv() else { break };
                job
            }
        };
        clock.add_starved(waiting);
        turn.begin();
        if shared.stop.load(Relaxed) {
            continue;
        }
        let working = Instant::now();
        let mut claimed = None;
        let result = catch_unwind(AssertUnwindSafe(|| worker.job(&job, &mut claimed))).unwrap_or_else(|_| {
            // The scratch may be half written; the sample is lost, the thread is not.
            worker = Worker::new(shared, &turn);
            Err(Error::new(ErrorKind::Internal, "the decode thread panicked on this sample"))
        });
        let Job { tray, slot, index, plans, first, more, .. } = job;
        // Of what the device does not decode, and of what failed, the arena's space is free before the batch is handed over,
        // for the reads that wait for it.
        let result = result.map(|described| match described {
            Some((way, more_needs)) => tray.keep(index, Kept { way, more_needs, plans, first, more }),
            None => drop((first, more)),
        });
        match result {
            Ok(()) => exit.succeed(&tray, index, claimed),
            Err(error) => exit.fail(shared, Waiting { tray, slot, index }, claimed, error),
        }
        clock.add_busy(working + std::mem::take(&mut worker.waited));
        turn.goes_on();
    }
}

/// A thread's decoder and resizers, with their scratch.
pub(super) struct Worker<'a> {
    pub(super) shared: &'a Shared,
    pub(super) turn: &'a Turn<'a>,
    decoder: Decoder,
    resizers: Resizers,
    /// What is decoded for the views of a sample.
    windows: Vec<View>,
    describer: Describer,
    /// Where an index is to be built.
    recording: Option<Recording>,
    /// What is left of the shared memory while it has all of it, for a sample that it reads a second time.
    pub(super) reread_bytes: Option<usize>,
    /// How long the sample waited for memory.
    pub(super) waited: Duration,
}

impl<'a> Worker<'a> {
    pub(super) fn new(shared: &'a Shared, turn: &'a Turn<'a>) -> Self {
        Self {
            shared,
            turn,
            decoder: Decoder::new(shared.limits),
            resizers: Resizers::new(&shared.views),
            windows: Vec::new(),
            describer: Describer::default(),
            recording: shared.recorder.as_ref().map(|_| Recording::new(Grain::default())),
            reread_bytes: None,
            waited: Duration::ZERO,
        }
    }

    /// Scratch that it holds, but for what has one size for all samples.
    pub(super) fn held_bytes(&self) -> usize {
        self.decoder.held_bytes() + self.resizers.held_bytes() + self.describer.held_bytes()
    }

    /// Gives that back.
    pub(super) fn release(&mut self) {
        self.decoder.release();
        self.resizers.release();
        self.describer = Describer::default();
    }

    /// Makes one sample, in its places in the slot, which is left in `claimed`; or only describes it to the device, and
    /// says how it is decoded there, and what its further views need.
    fn job(&mut self, job: &Job, claimed: &mut Option<SampleOut>) -> Result<Option<(Way, Vec<Needs>)>> {
        let Job { tray, slot, index, modified, plans, first, more, .. } = job;
        let sample = Sample { tray, index: *index, modified: *modified, plans: plans.as_ref(), first, more };
        let mut claim = Claim { slot, claimed };
        if job.landing != Landing::Host
            && let Some(cuda) = &self.shared.cuda
        {
            let upload = &cuda.uploads[slot.index()];
            // nvJPEG is not there for more views than one.
            let alone = |way| (way, Vec::new());
            let described = match sample.plans {
                Some(plans) if cuda.decodes_files() => {
                    self.describe_file(&sample, &plans.first, cuda, upload, &mut claim)?.map(alone)
                }
                Some(plans) => self.describe(&sample, plans, (upload, job.landing), &mut claim)?,
                None => self.describe_whole(&sample, cuda, upload, &mut claim)?.map(alone),
            };
            if described.is_some() {
                return Ok(described);
            }
        }
        self.sample(&sample, &mut claim).map(|()| None)
    }

    /// Describes every view of a sample to the kernels; `None` where the sample is to be decoded here, which finds out what
    /// is wrong with it.
    fn describe(
        &mut self,
        sample: &Sample<'_>,
        plans: &Plans,
        (upload, landing): (&Upload, Landing),
        claim: &mut Claim<'_>,
    ) -> Result<Option<(Way, Vec<Needs>)>> {
        let find = |range| sample.find(range, upload);
        let image = self.shared.image(sample.tray.sample(sample.index))?;
        let out = claim.claim(sample.tray, sample.index, &plans.first)?;
        let (mut first, mut more_needs) = (None, Vec::new());
        for (view, plan) in plans.iter().enumerate() {
            let described = match &image {
                RecordedImage::Jpeg(jpeg) => self.describer.describe(jpeg, plan, find),
                RecordedImage::Raw(facts) => describe_pixels(facts, plan, find),
            };
            let is_described = described.is_ok();
            match described {
                Ok(description) if upload.put(out, view, &description) => match &first {
                    None => first = Some(Way { needs: description.needs, by: By::Kernels }),
                    Some(_) => more_needs.push(description.needs),
                },
                _ => {
                    upload.take_back(out, view);
                    if is_described {
                        self.shared.leave_for_want_of_room(landing, "segments")?;
                    }
                    return Ok(None);
                }
            }
        }
        Ok(first.map(|way| (way, more_needs)))
    }

    /// The same of a file that nvJPEG decodes.
    fn describe_whole(
        &mut self,
        sample: &Sample<'_>,
        cuda: &Cuda,
        upload: &Upload,
        claim: &mut Claim<'_>,
    ) -> Result<Option<Way>> {
        let Some(bytes) = sample.first.on_host() else { return Ok(None) };
        let Ok(info) = self.inspect(sample, bytes) else { return Ok(None) };
        let Some(header) = self.decoder.jpeg_header().filter(|_| info.route == Route::Jpeg) else { return Ok(None) };
        let Ok(len_bytes) = nvjpeg::takes(header, bytes) else { return Ok(None) };
        let plan = self.shared.plan(sample.tray, sample.index, &info)?.first;
        let (width, height) = (info.width, info.height);
        let area = nvjpeg::area(plan.region(), width, height);
        let Ok((image, needs)) = samples_image(&plan, (width, height), area) else { return Ok(None) };
        let description = Description { image, segments: &[], tables: &[], needs };
        if !cuda.capacity.holds(&needs) {
            return Ok(None);
        }
        // Before it is described: what fails then is not decoded.
        self.record(sample, bytes)?;
        if !upload.put(claim.claim(sample.tray, sample.index, &plan)?, 0, &description) {
            return Ok(None);
        }
        Ok(Some(Way { needs, by: By::NvJpeg(WholeJpeg { len_bytes, width, height, area }) }))
    }

    /// The same of a file that landed on the device as a whole, of which only the index tells.
    fn describe_file(
        &mut self,
        sample: &Sample<'_>,
        plan: &SamplePlan,
        cuda: &Cuda,
        upload: &Upload,
        claim: &mut Claim<'_>,
    ) -> Result<Option<Way>> {
        let Some(record) = self.shared.source.record(sample.tray.sample(sample.index))? else { return Ok(None) };
        let Some((eligible, needs, image)) = cuda.file_of(&record, plan)? else { return Ok(None) };
        let Some(at) = sample.find(0..eligible.len_bytes, upload) else { return Ok(None) };
        let info = record.image.info();
        let out = claim.claim(sample.tray, sample.index, plan)?;
        if !upload.put(out, 0, &Description { image, segments: &[], tables: &[], needs }) {
            return Ok(None);
        }
        let nvjpeg::Eligible { kind, len_bytes } = eligible;
        let (width, height) = (info.width, info.height);
        let jpeg = DeviceJpeg { kind, at, len_bytes: len_bytes as usize, width, height };
        Ok(Some(Way { needs, by: By::NvJpegDevice(jpeg) }))
    }

    /// Decodes and augments one sample.
    pub(super) fn sample(&mut self, sample: &Sample<'_>, place: &mut impl Place) -> Result<()> {
        match (sample.plans, sample.first.on_host()) {
            (Some(plans), Some(_)) => self.planned(sample, plans, place),
            (None, Some(bytes)) => {
                self.whole(sample, bytes, place)?;
                self.record(sample, bytes)
            }
            (_, None) => self.read_again(sample, place),
        }
    }

    /// One of which the parts are here that its plans need.
    fn planned(&mut self, sample: &Sample<'_>, plans: &Plans, place: &mut impl Place) -> Result<()> {
        let decoded = match sample.more {
            [] => self.in_part(sample, plans, sample.first.piece().as_slice(), place),
            more => {
                let pieces: Vec<_> = std::iter::once(sample.first).chain(more).filter_map(Landed::piece).collect();
                self.in_part(sample, plans, &pieces, place)
            }
        };
        let error = match decoded {
            Err(error) if self.shared.index != IndexMode::Required => error,
            done => return done,
        };
        // The index or the file is at fault, and only the whole file tells which.
        self.reread(sample, |worker, bytes| worker.whole(sample, bytes, place))?;
        self.shared.count_index_fallback(sample.tray, sample.index, error);
        Ok(())
    }

    /// One that went straight to a device, which does not decode it.
    fn read_again(&mut self, sample: &Sample<'_>, place: &mut impl Place) -> Result<()> {
        self.shared.refuse_indirect("the device does not decode it")?;
        self.reread(sample, |worker, bytes| {
            let Some(plans) = sample.plans else { return worker.whole(sample, bytes, place) };
            match worker.in_part(sample, plans, &[Piece { offset: 0, bytes }], place) {
                Err(error) if worker.shared.index != IndexMode::Required => {
                    worker.whole(sample, bytes, place)?;
                    worker.shared.count_index_fallback(sample.tray, sample.index, error);
                    Ok(())
                }
                done => done,
            }
        })
    }

    /// Reads all of a sample a second time, and decodes it.
    fn reread(&mut self, sample: &Sample<'_>, decode: impl FnOnce(&mut Self, &[u8]) -> Result<()>) -> Result<()> {
        let room = self.make_room_to_reread()?;
        let read = self.turn.pause(|| self.shared.read_whole(sample.tray.sample(sample.index)));
        let done = read.and_then(|bytes| {
            self.shared.counters.count_reread(bytes.len() as u64);
            self.has_reread(bytes.len());
            decode(self, &bytes)
        });
        self.leave_reread(room);
        done
    }

    /// From parts of it that hold what its plans need.
    fn in_part(
        &mut self,
        sample: &Sample<'_>,
        plans: &Plans,
        pieces: &[Piece<'_>],
        place: &mut impl Place,
    ) -> Result<()> {
        let (shared, number) = (self.shared, sample.tray.sample(sample.index));
        let image = shared.image(number)?;
        let info = image.info();
        plans.windows(Passes::Few, &mut self.windows);
        // The decoder's scratch grows with a window's width alone.
        let of_window = |window: &View| Decoder::memory_bytes_indexed(info.route, *window);
        let of_decoder = self.windows.iter().map(of_window).max().unwrap_or(0);
        let room = self.make_room(Resizers::memory_bytes(plans, &self.windows) + of_decoder, &info)?;
        let done = self.decode_part(sample, plans, pieces, &image, place);
        self.leave(room);
        done?;
        let route = info.route;
        // Pixels without a header are planned by their shape.
        if route == Route::Raw && shared.source.is_headerless(number)? {
            shared.counters.count_route(route);
        } else {
            shared.counters.count_indexed(route);
        }
        Ok(())
    }

    fn decode_part(
        &mut self,
        sample: &Sample<'_>,
        plans: &Plans,
        pieces: &[Piece<'_>],
        image: &RecordedImage<'_>,
        place: &mut impl Place,
    ) -> Result<()> {
        let Self { decoder, resizers, windows, .. } = self;
        let outputs = place.outputs(sample.tray, sample.index, plans)?;
        resizers.make(plans, windows, outputs, |window, rows| decoder.decode_indexed(pieces, image, window, rows))
    }

    /// From all of its bytes.
    fn whole(&mut self, sample: &Sample<'_>, bytes: &[u8], place: &mut impl Place) -> Result<()> {
        let info = self.inspect(sample, bytes)?;
        let shared = self.shared;
        let plans = shared.plan(sample.tray, sample.index, &info)?;
        plans.windows(Passes::One, &mut self.windows);
        // One window a scale, of which the decoder's scratch may grow part by part.
        let of_window = |window: &View| self.decoder.memory_bytes(bytes, &info, *window);
        let of_decoder = self.windows.iter().map(of_window).sum::<Result<u64>>()?;
        let room = self.make_room(Resizers::memory_bytes(&plans, &self.windows) + of_decoder, &info)?;
        let done = self.decode_whole(sample, bytes, &info, &plans, place);
        self.leave(room);
        if done.is_ok() {
            shared.counters.count_route(info.route);
        }
        done
    }

    fn decode_whole(
        &mut self,
        sample: &Sample<'_>,
        bytes: &[u8],
        info: &ImageInfo,
        plans: &Plans,
        place: &mut impl Place,
    ) -> Result<()> {
        let Self { decoder, resizers, windows, .. } = self;
        let outputs = place.outputs(sample.tray, sample.index, plans)?;
        resizers.make(plans, windows, outputs, |window, rows| decoder.decode(bytes, info, window, rows))
    }

    /// What a sample is, by its bytes; of pixels without a header, by their shape.
    fn inspect(&mut self, sample: &Sample<'_>, bytes: &[u8]) -> Result<ImageInfo> {
        if self.shared.source.is_headerless(sample.tray.sample(sample.index))? {
            self.decoder.inspect_headerless(bytes, self.shared.raw_shape)
        } else {
            self.decoder.inspect(bytes)
        }
    }

    /// Notes what an index says of a sample, if one is to be built and lacks it.
    fn record(&mut self, sample: &Sample<'_>, bytes: &[u8]) -> Result<()> {
        let Self { shared, recording, .. } = self;
        let number = sample.tray.sample(sample.index);
        let (Some(recorder), Some(recording)) = (&shared.recorder, recording) else { return Ok(()) };
        if !recorder.wants(number) || matches!(shared.source.record(number), Ok(Some(_))) {
            return Ok(());
        }
        let (object, offset) = match shared.source.extent(number)? {
            Extent::Object(object) => (object, 0),
            Extent::Range { object, offset, .. } => (object, offset),
        };
        let mut path = PathBuf::new();
        shared.source.object_path(object, &mut path)?;
        let origin = Origin { path: &path, offset, len_bytes: bytes.len() as u64, modified: sample.modified };
        recorder.record(number, &origin, &recording.describe(bytes, shared.source.is_headerless(number)?));
        Ok(())
    }
}

impl Sample<'_> {
    /// Where a range of its bytes is in the upload, if it landed in one piece.
    fn find(&self, range: Range<u64>, upload: &Upload) -> Option<u32> {
        // Ascending, and few: the first that starts at or before the range, from the end.
        let landed = self.more.iter().rev().chain([self.first]).find(|landed| landed.offset <= range.start)?;
        landed.find(&range, upload)
    }
}
