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
use crate::decode::nvjpeg;
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

/// What is wrong with a sample that the device could not decode.
pub(super) enum Bad {
    /// A status of kernels/abi.cuh.
    Kernels(u32),
    NvJpeg(nvjpeg::Refusal),
}

impl Bad {
    /// What was found, and the remedy.
    fn words(&self) -> (String, &'static str) {
        match self {
            Self::Kernels(status) => {
                let found = STATUSES.get(*status as usize).copied().unwrap_or("what has no name");
                (format!("the kernels found {found}"), "build the index again: forebay index")
            }
            Self::NvJpeg(refusal) => (refusal.to_string(), "look at the file with `forebay decode`"),
        }
    }
}

/// What a status of kernels/abi.cuh means.
const STATUSES: [&str; 6] = [
    "nothing",
    "bits that are no Huffman code",
    "a coefficient past the 64th",
    "data that ends before its last MCU",
    "data that contradicts the next entry point",
    "no restart marker where one is due",
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
        cuda.settle(filled, |place, why| {
            // Of a sample with several bad views the first says why.
            if bad.iter().all(|(other, _)| *other != place) {
                bad.push((place, why));
            }
        })?;
        self.count(filled, &bad);
        if bad.is_empty() || self.shared.stop.load(Relaxed) {
            filled.tray.let_go();
            return Ok(());
        }
        let mut mended = Vec::new();
        for (place, why) in bad {
            let Some(kept) = filled.tray.take_kept(place) else { continue };
            match self.mend(filled, place, &why, &kept) {
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

    fn count(&self, filled: &Filled, bad: &[(usize, Bad)]) {
        let (mut kernels, mut nvjpeg, mut indexed) = (0, 0, 0);
        for (place, kept) in filled.tray.kept().enumerate() {
            let Some(kept) = kept.as_ref() else { continue };
            if bad.iter().any(|(bad, _)| *bad == place) {
                continue;
            }
            let count = if kept.way.by.is_nvjpeg() { &mut nvjpeg } else { &mut kernels };
            *count += 1;
            let is_headerless = self.shared.source.is_headerless(filled.tray.samples[place]).unwrap_or(false);
            indexed += u64::from(kept.plans.is_some() && !is_headerless);
        }
        self.shared.counters.count_device(kernels, nvjpeg, indexed);
    }

    fn mend(&mut self, filled: &mut Filled, place: usize, why: &Bad, kept: &Kept) -> Result<()> {
        let shared = self.shared;
        if shared.requires_direct() {
            // The host may not look for what is wrong.
            let (what, remedy) = why.words();
            return Err(Error::new(ErrorKind::Corrupt, what).with_remedy(remedy));
        }
        let worker = self.worker.get_or_insert_with(|| Worker::new(shared));
        let Filled { tray, slot } = filled;
        let sample = Sample {
            tray,
            index: place,
            modified: (0, 0),
            plans: kept.plans.as_ref(),
            first: &kept.first,
            more: &kept.more,
        };
        worker.sample(&sample, slot)?;
        let what = match why {
            Bad::Kernels(_) => Fallback::KERNELS,
            Bad::NvJpeg(_) => Fallback::NVJPEG,
        };
        let (message, remedy) = why.words();
        shared.counters.count_fallback(what, "host decoders", || {
            shared.name_sample(tray, place, Error::new(ErrorKind::Corrupt, message)).with_remedy(remedy)
        });
        Ok(())
    }
}
