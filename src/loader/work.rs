//! The decode threads: what has landed becomes tensors.

use std::panic::{AssertUnwindSafe, catch_unwind};
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
use crate::memory::{Region, SampleOut, Slot};
use crate::plan::{Orientation, SampleKey};

/// One sample whose bytes have landed.
pub(super) struct Job {
    pub(super) tray: Arc<Tray>,
    pub(super) slot: Slot,
    pub(super) index: usize,
    pub(super) bytes: Region,
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
        let Job { tray, slot, index, bytes } = job;
        drop(bytes);
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
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, decoder: Decoder::new(shared.limits), resizer: Resizer::new(&shared.augment) }
    }

    /// Decodes and augments one sample into its place in the slot, which is left in `claimed`.
    fn sample(&mut self, job: &Job, claimed: &mut Option<SampleOut>) -> Result<()> {
        let Self { shared, decoder, resizer } = self;
        let bytes = job.bytes.as_slice();
        let info = decoder.inspect(bytes)?;
        shared.counters.count_route(info.route);
        let orientation = if shared.orientation { info.orientation } else { Orientation::AS_STORED };
        let tray = &job.tray;
        let key = SampleKey { seed: shared.order.seed(), epoch: tray.epoch, sample: tray.samples[job.index], view: 0 };
        let plan = shared.augment.plan(key, info.width, info.height, orientation)?;
        let may_scale = shared.augment.dct_scaling() && info.route.scales();
        let plan = if may_scale { plan.scaled_down() } else { plan };
        *claimed = tray.claim(&job.slot, job.index, plan.output_size(), plan.output_bytes())?;
        let Some(output) = claimed else {
            return Err(Error::new(ErrorKind::Internal, "the sample's place in its batch was taken"));
        };
        let mut rows = resizer.begin(&plan, output)?;
        decoder.decode(bytes, &info, plan.view(), &mut rows)?;
        rows.finish()
    }
}
