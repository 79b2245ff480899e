//! The two threads between decode threads and consumer on a device: one puts complete batches on it, the other waits
//! until their host memory is free and mends what the kernels could not decode.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::Shared;
use super::cuda::Cuda;
use super::exit::End;
use super::policy::OnError;
use super::seat::Waiting;
use super::tray::{Filled, Kept};
use super::work::{Sample, Worker};
use crate::decode::nvjpeg;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Turn;
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
pub(super) fn launch(shared: &Shared, cuda: &Cuda, end: &End, filled: &Receiver<Filled>, settle: &Sender<Filled>) {
    for mut filled in filled {
        if shared.stop.load(Relaxed) {
            continue;
        }
        if filled.tray.has_failed() {
            // The consumer gets the error, and nobody the tensor.
            filled.deliver();
            end.put(filled);
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
                end.fail(error);
            }
        }
    }
}

/// Settles launched batches in the order of their launch, and hands them to the consumer.
pub(super) fn settle(shared: &Shared, cuda: &Cuda, end: &End, launched: &Receiver<Filled>) {
    let clock = &shared.counters.device;
    let turn = shared.turn(clock);
    let mut mender = Mender { shared, turn: &turn, worker: None };
    loop {
        let waiting = Instant::now();
        let Ok(mut filled) = launched.recv() else { break };
        clock.add_starved(waiting);
        let working = Instant::now();
        // Also when the run was ended: the device still reads the batch's host memory.
        let settled = mender.settle(cuda, &mut filled).and_then(|again| match again[..] {
            [] => close_gaps(cuda, &mut filled).map(|()| again),
            _ => cuda.start_round(filled.slot.index()).map(|()| again),
        });
        clock.add_busy(working);
        match settled {
            Ok(again) if again.is_empty() => end.put(filled),
            Ok(again) => go_again(end, filled, &again),
            Err(error) => {
                cuda.drain(&filled);
                end.fail(error);
            }
        }
    }
}

/// Settles what a batch holds.
fn close_gaps(cuda: &Cuda, filled: &mut Filled) -> Result<()> {
    filled.deliver();
    match &filled.delivered {
        Some(delivered) if delivered.has_gaps() && !filled.tray.has_failed() => {
            let samples = filled.tray.samples.len();
            cuda.close_gaps(&mut filled.slot, (&delivered.places, samples), &delivered.labels)
        }
        _ => Ok(()),
    }
}

/// Has other samples made in these places of a batch, which is launched again with them alone: read as all samples are, by the
/// path that they have to take, within the same limits.
fn go_again(end: &End, filled: Filled, places: &[usize]) {
    let Filled { tray, slot, .. } = filled;
    tray.go_again(places);
    let slot = slot.reopen(places);
    for &index in places {
        // What the kernels find is found every time.
        end.hand_back(Waiting { tray: Arc::clone(&tray), slot: slot.clone(), index }, false);
    }
}

/// Decodes on the host what the kernels could not.
struct Mender<'a> {
    shared: &'a Shared,
    turn: &'a Turn<'a>,
    /// Made when it is first needed, which in most runs is never.
    worker: Option<Worker<'a>>,
}

impl Mender<'_> {
    /// Waits for a batch, and mends what can be. The places that other samples are wanted for.
    fn settle(&mut self, cuda: &Cuda, filled: &mut Filled) -> Result<Vec<usize>> {
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
            return Ok(Vec::new());
        }
        let (mut mended, mut wanted) = (Vec::new(), Vec::new());
        self.turn.begin();
        for (place, why) in bad {
            let Some(kept) = filled.tray.take_kept(place) else { continue };
            match self.mend(filled, place, &why, &kept) {
                Ok(()) => mended.push(place),
                Err(error) => match self.shared.note(&filled.tray, place, error) {
                    OnError::Replace => wanted.push(place),
                    OnError::Fail | OnError::Skip => {}
                },
            }
        }
        self.turn.end();
        filled.tray.let_go();
        if filled.tray.has_failed() {
            return Ok(Vec::new());
        }
        let bytes = cuda.repair(filled, &mended)?;
        self.shared.counters.bytes_uploaded.fetch_add(bytes, Relaxed);
        wanted.sort_unstable();
        Ok(wanted)
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
            let is_headerless = self.shared.source.is_headerless(filled.tray.sample(place)).unwrap_or(false);
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
        let worker = self.worker.get_or_insert_with(|| Worker::new(shared, self.turn));
        let Filled { tray, slot, .. } = filled;
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
