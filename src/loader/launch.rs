//! The two threads between decode threads and consumer on a device: one puts complete batches on it, the other waits
//! until their host memory is free and mends what the kernels could not decode.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::Shared;
use super::cuda::Cuda;
use super::ready::Ready;
use super::tray::{Filled, Kept};
use super::work::{Sample, Worker};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

/// What a status of kernels/abi.cuh means.
const STATUSES: [&str; 5] = [
    "nothing",
    "bits that are no Huffman code",
    "a coefficient past the 64th",
    "data that ends before its last MCU",
    "data that contradicts the next entry point",
];

/// Launches batch after batch until there are no more.
pub(super) fn launch(shared: &Shared, cuda: &Cuda, ready: &Ready, filled: &Receiver<Filled>, settle: &Sender<Filled>) {
    for mut filled in filled {
        if shared.stop.load(Relaxed) {
            continue;
        }
        if filled.tray.has_failed() {
            // The consumer gets the error, and nobody the tensor.
            ready.put(filled.tray.sequence, filled);
            continue;
        }
        match cuda.launch(&mut filled) {
            Ok(bytes) => {
                shared.counters.bytes_uploaded.fetch_add(bytes, Relaxed);
                // The other thread is gone only when this one's sender is.
                let _ = settle.send(filled);
            }
            Err(error) => {
                cuda.drain(&filled);
                ready.fail(error);
            }
        }
    }
}

/// Settles launched batches in the order of their launch, and hands them to the consumer.
pub(super) fn settle(shared: &Shared, cuda: &Cuda, ready: &Ready, launched: &Receiver<Filled>) {
    let clock = &shared.counters.device;
    let mut mender = Mender { shared, worker: None };
    loop {
        let waiting = Instant::now();
        let Ok(mut filled) = launched.recv() else { break };
        clock.add_starved(waiting);
        let working = Instant::now();
        // Also when the run was ended: the device still reads the batch's host memory.
        let settled = mender.settle(cuda, &mut filled);
        clock.add_busy(working);
        match settled {
            Ok(()) => ready.put(filled.tray.sequence, filled),
            Err(error) => {
                cuda.drain(&filled);
                ready.fail(error);
            }
        }
    }
}

/// Decodes on the host what the kernels could not.
struct Mender<'a> {
    shared: &'a Shared,
    /// Made when it is first needed, which in most runs is never.
    worker: Option<Worker<'a>>,
}

impl Mender<'_> {
    fn settle(&mut self, cuda: &Cuda, filled: &mut Filled) -> Result<()> {
        let mut bad = Vec::new();
        cuda.settle(filled, |place, status| bad.push((place, status)))?;
        let decoded = filled.tray.kept() - bad.len();
        self.shared.counters.count_kernels(decoded as u64);
        if bad.is_empty() || self.shared.stop.load(Relaxed) {
            filled.tray.let_go();
            return Ok(());
        }
        let mut mended = Vec::new();
        for (place, status) in bad {
            let Some(kept) = filled.tray.take_kept(place) else { continue };
            match self.mend(filled, place, status, &kept) {
                Ok(()) => mended.push(place),
                Err(error) => filled.tray.note_failure(place, self.shared.name_sample(&filled.tray, place, error)),
            }
        }
        filled.tray.let_go();
        if filled.tray.has_failed() {
            return Ok(());
        }
        let bytes = cuda.repair(filled, &mended)?;
        self.shared.counters.bytes_uploaded.fetch_add(bytes, Relaxed);
        Ok(())
    }

    fn mend(&mut self, filled: &mut Filled, place: usize, status: u32, kept: &Kept) -> Result<()> {
        let shared = self.shared;
        let worker = self.worker.get_or_insert_with(|| Worker::new(shared));
        let Filled { tray, slot } = filled;
        let sample = Sample {
            tray,
            index: place,
            modified: (0, 0),
            plan: Some(&kept.plan),
            first: &kept.first,
            more: &kept.more,
        };
        worker.sample(&sample, slot)?;
        shared.counters.count_fallback(Fallback::KERNELS, "host decoders", || {
            let what = STATUSES.get(status as usize).copied().unwrap_or("an unknown status");
            let error = Error::new(ErrorKind::Corrupt, format!("the kernels found {what}"));
            shared.name_sample(&filled.tray, place, error).with_remedy("build the index again: forebay index")
        });
        Ok(())
    }
}
