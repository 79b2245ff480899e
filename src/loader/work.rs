//! The decode threads: what has landed becomes tensors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::Shared;
use super::ready::Ready;
use super::tray::Tray;
use crate::augment::Resizer;
use crate::decode::Decoder;
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::{Grain, Piece};
use crate::memory::{Region, SampleOut, Slot};
use crate::plan::SamplePlan;
use crate::source::index::{Describer, Origin};
use crate::source::{Extent, IndexMode};

/// One sample whose bytes have landed.
pub(super) struct Job {
    pub(super) tray: Arc<Tray>,
    pub(super) slot: Slot,
    pub(super) index: usize,
    /// When its object was last modified before it was opened.
    pub(super) modified: (i64, u32),
    /// What it was read for; none where all of it was read.
    pub(super) plan: Option<SamplePlan>,
    /// Its bytes, ascending.
    pub(super) first: Landed,
    pub(super) more: Vec<Landed>,
}

/// Bytes of a sample.
pub(super) struct Landed {
    /// Where they start in the sample.
    pub(super) offset: u64,
    pub(super) bytes: Region,
}

impl Landed {
    fn piece(&self) -> Piece<'_> {
        Piece { offset: self.offset, bytes: self.bytes.as_slice() }
    }
}

/// Works until the feeding thread has hung up and no job is left.
pub(super) fn run(shared: &Shared, ready: &Ready, jobs: &Receiver<Job>) {
    let clock = &shared.counters.decode;
    let mut worker = Worker::new(shared);
    loop {
        let waiting = Instant::now();
        let Ok(job) = jobs.recv() else { break };
        clock.add_starved(waiting);
        if shared.stop.load(Relaxed) {
            continue;
        }
        let working = Instant::now();
        let mut claimed = None;
        let result = catch_unwind(AssertUnwindSafe(|| worker.sample(&job, &mut claimed))).unwrap_or_else(|_| {
            // The scratch may be half written; the sample is lost, the thread is not.
            worker = Worker::new(shared);
            Err(Error::new(ErrorKind::Internal, "the decode thread panicked on this sample"))
        });
        // The arena's space is free before the batch is handed over, for the reads that wait for it.
        let Job { tray, slot, index, first, more, .. } = job;
        drop((first, more));
        let filled = match result {
            Ok(()) => claimed.and_then(SampleOut::finish),
            Err(error) => {
                let error = shared.name_sample(&tray, index, error);
                tray.fail(&slot, index, claimed, error)
            }
        };
        clock.add_busy(working);
        ready.put_if_filled(&tray, filled);
    }
}

/// A thread's decoder and resizer, with their scratch.
struct Worker<'a> {
    shared: &'a Shared,
    decoder: Decoder,
    resizer: Resizer,
    /// Where an index is to be built.
    describer: Option<Describer>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            decoder: Decoder::new(shared.limits),
            resizer: Resizer::new(&shared.augment),
            describer: shared.recorder.as_ref().map(|_| Describer::new(Grain::default())),
        }
    }

    /// Decodes and augments one sample into its place in the slot, which is left in `claimed`.
    fn sample(&mut self, job: &Job, claimed: &mut Option<SampleOut>) -> Result<()> {
        let Some(plan) = &job.plan else {
            let bytes = job.first.bytes.as_slice();
            self.whole(job, bytes, claimed)?;
            return self.record(job, bytes);
        };
        let error = match self.in_part(job, plan, claimed) {
            Err(error) if self.shared.index != IndexMode::Required => error,
            done => return done,
        };
        // The index or the file is at fault, and only the whole file tells which.
        let bytes = self.shared.read_whole(job.tray.samples[job.index])?;
        self.shared.counters.count_reread(bytes.len() as u64);
        self.whole(job, &bytes, claimed)?;
        self.shared.count_index_fallback(&job.tray, job.index, error);
        Ok(())
    }

    /// From the parts of it that its plan needs.
    fn in_part(&mut self, job: &Job, plan: &SamplePlan, claimed: &mut Option<SampleOut>) -> Result<()> {
        let Self { shared, decoder, resizer, .. } = self;
        let Some(record) = shared.source.record(job.tray.samples[job.index])? else {
            return Err(Error::new(ErrorKind::IndexStale, "index is stale: the sample's record is gone"));
        };
        let mut rows = resizer.begin(plan, claim(job, plan, claimed)?)?;
        let first = job.first.piece();
        if job.more.is_empty() {
            decoder.decode_indexed(&[first], &record, plan.region(), &mut rows)?;
        } else {
            let pieces: Vec<_> = std::iter::once(first).chain(job.more.iter().map(Landed::piece)).collect();
            decoder.decode_indexed(&pieces, &record, plan.region(), &mut rows)?;
        }
        rows.finish()?;
        shared.counters.count_indexed();
        Ok(())
    }

    /// From all of its bytes.
    fn whole(&mut self, job: &Job, bytes: &[u8], claimed: &mut Option<SampleOut>) -> Result<()> {
        let Self { shared, decoder, resizer, .. } = self;
        let info = decoder.inspect(bytes)?;
        shared.counters.count_route(info.route);
        let plan = shared.plan(&job.tray, job.index, (info.width, info.height), info.orientation)?;
        let mut rows = resizer.begin(&plan, claim(job, &plan, claimed)?)?;
        decoder.decode(bytes, &info, plan.region(), &mut rows)?;
        rows.finish()
    }

    /// Notes what an index says of a sample, if one is to be built and lacks it.
    fn record(&mut self, job: &Job, bytes: &[u8]) -> Result<()> {
        let Self { shared, describer, .. } = self;
        let sample = job.tray.samples[job.index];
        let (Some(recorder), Some(describer)) = (&shared.recorder, describer) else { return Ok(()) };
        if !recorder.wants(sample) || matches!(shared.source.record(sample), Ok(Some(_))) {
            return Ok(());
        }
        let (object, offset) = match shared.source.extent(sample)? {
            Extent::Object(object) => (object, 0),
            Extent::Range { object, offset, .. } => (object, offset),
        };
        let mut path = PathBuf::new();
        shared.source.object_path(object, &mut path)?;
        let origin = Origin { path: &path, offset, len_bytes: bytes.len() as u64, modified: job.modified };
        recorder.record(&origin, &describer.describe(bytes));
        Ok(())
    }
}

/// The memory of a sample's output, which it claims but once.
fn claim<'a>(job: &Job, plan: &SamplePlan, claimed: &'a mut Option<SampleOut>) -> Result<&'a mut SampleOut> {
    if claimed.is_none() {
        *claimed = job.tray.claim(&job.slot, job.index, plan.output_size(), plan.output_bytes())?;
    }
    claimed.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "the sample's place in its batch was taken"))
}
