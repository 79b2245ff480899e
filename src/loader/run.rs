//! A run over some epochs: its threads, and the iterator that owns them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::exit::{End, Exit};
use super::feed::Feed;
use super::judge::Judge;
use super::ready::{Next, Ready};
use super::{OnError, Shared, State, launch, work};
use crate::batch::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::order::{Cursor, Steps};
use crate::report::lock;

/// How often a consumer that waits looks whether it holds every batch itself.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The batches of some epochs, in order. See [`Loader::epochs`](super::Loader::epochs).
pub struct Epochs<'a> {
    shared: &'a Arc<Shared>,
    /// Behind the last batch that was taken.
    taken: &'a mut Cursor,
    ready: Arc<Ready>,
    threads: Vec<JoinHandle<()>>,
    started: Instant,
    judge: Judge,
    is_over: bool,
}

impl<'a> Epochs<'a> {
    pub(super) fn start(shared: &'a Arc<Shared>, steps: Steps, taken: &'a mut Cursor) -> Self {
        shared.stop.store(false, Relaxed);
        let ready = Arc::new(Ready::default());
        let (threads, started) = (Vec::new(), Instant::now());
        let mut run = Self { shared, taken, ready, threads, started, judge: Judge::default(), is_over: false };
        // No more jobs exist than seats in slots, so sending one never waits.
        let seats = shared.slots.slots() * shared.steps.batch_size() as usize;
        let (sender, jobs) = crossbeam_channel::bounded(seats);
        let (back_sender, back) = match shared.on_error {
            OnError::Replace => Some(crossbeam_channel::bounded(2 * seats + shared.slots.slots())).unzip(),
            OnError::Fail | OnError::Skip => (None, None),
        };
        let exit = Arc::new(run.exit(End::new(&run.ready, back_sender, &shared.slots)));
        for number in 0..shared.threads {
            let (shared, exit, jobs) = (Arc::clone(shared), Arc::clone(&exit), jobs.clone());
            run.spawn(format!("forebay-decode-{number}"), move || work::run(&shared, &exit, &jobs));
        }
        let ready = Arc::clone(&run.ready);
        let shared = Arc::clone(shared);
        run.spawn_vital("feed", move || Feed::new(&shared, &ready, &exit, sender, back)?.run(steps));
        run
    }

    /// How far the run has come: behind the last batch that was taken from it, whatever was read ahead. See
    /// [`State`]; [`Batch::state`] is the same of a batch.
    pub fn state(&self) -> State {
        self.shared.state(*self.taken)
    }

    /// Where complete trays go, with the threads between there and the consumer.
    fn exit(&mut self, end: End) -> Exit {
        let shared = self.shared;
        if shared.cuda.is_none() {
            return Exit { end, device: None };
        }
        let slots = shared.slots.slots();
        let (launch_sender, filled) = crossbeam_channel::bounded(slots);
        let (settle_sender, launched) = crossbeam_channel::bounded(slots);
        let (launching, settling) = (Arc::clone(shared), Arc::clone(shared));
        let (launch_end, settle_end) = (end.clone(), end.clone());
        self.spawn_vital("launch", move || {
            let Some(cuda) = &launching.cuda else { return Ok(()) };
            launch::launch(&launching, cuda, &launch_end, &filled, &settle_sender);
            Ok(())
        });
        self.spawn_vital("settle", move || {
            let Some(cuda) = &settling.cuda else { return Ok(()) };
            launch::settle(&settling, cuda, &settle_end, &launched);
            Ok(())
        });
        Exit { end, device: Some(launch_sender) }
    }

    /// Starts a thread without which no batch comes: what ends it early ends the run.
    fn spawn_vital(&mut self, name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) {
        let ready = Arc::clone(&self.ready);
        let panicked = format!("the {name} thread panicked");
        self.spawn(format!("forebay-{name}"), move || {
            // A panic here would be a defect of ours; the consumer must hear of it, not wait for ever.
            match catch_unwind(AssertUnwindSafe(body)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => ready.fail(error),
                Err(_) => ready.fail(Error::new(ErrorKind::Internal, panicked)),
            }
        });
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) {
        let shared = Arc::clone(self.shared);
        let body = move || {
            shared.pin_thread();
            body();
        };
        match std::thread::Builder::new().name(name).spawn(body) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => self.ready.fail(Error::io("starting a thread", error)),
        }
    }

    /// Waits for the next batch; `None` at the end.
    fn wait(&mut self) -> Option<Result<Batch>> {
        let shared = self.shared;
        let mut held_since = None;
        loop {
            match self.ready.take(LOOK_EVERY) {
                Next::Filled(filled) => {
                    return Some(self.judge.take(shared, &filled).map(|()| {
                        let state = shared.state(filled.tray.step.next());
                        Batch::new(filled, state, &shared.held)
                    }));
                }
                Next::Failed(error) => return Some(Err(error)),
                Next::End => return None,
                Next::TimedOut if shared.held.load(Relaxed) < shared.slots.slots() => held_since = None,
                Next::TimedOut => {
                    let since = *held_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= shared.held_timeout {
                        return Some(Err(batches_held(shared.slots.slots())));
                    }
                }
            }
        }
    }

    fn finish(&mut self) {
        self.is_over = true;
        self.shared.stop.store(true, Relaxed);
        if let Some(share) = &self.shared.share {
            share.wake();
        }
        for thread in self.threads.drain(..) {
            // A worker's panic was turned into an error of its sample or run already.
            let _ = thread.join();
        }
        self.shared.counters.running_ns.fetch_add(self.started.elapsed().as_nanos() as u64, Relaxed);
    }
}

impl Iterator for Epochs<'_> {
    type Item = Result<Batch>;

    /// The next batch, or the error of the first sample of it that failed, after which the run is over; so it is where too
    /// many samples were bad for their [budget](crate::ErrorBudget).
    /// Only [`BatchesHeld`](ErrorKind::BatchesHeld) leaves the run as it was.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let waiting = Instant::now();
        let next = self.wait();
        let counters = &self.shared.counters;
        counters.consumer.add_starved(waiting);
        match &next {
            Some(Ok(batch)) => {
                lock(&counters.batch_wait).record_us(waiting.elapsed().as_micros() as u64);
                counters.images.fetch_add(batch.len() as u64, Relaxed);
                counters.batches.fetch_add(1, Relaxed);
                self.shared.count_parts(batch);
                let first_ns = self.started.elapsed().as_nanos() as u64;
                *self.taken = batch.state().cursor();
                let _ = counters.first_batch_ns.compare_exchange(0, first_ns, Relaxed, Relaxed);
                if self.shared.recorder.is_some() && self.taken.epoch > batch.epoch() {
                    let shared = Arc::clone(self.shared);
                    self.spawn("forebay-index".into(), move || shared.write_index());
                }
            }
            Some(Err(error)) if error.kind() == ErrorKind::BatchesHeld => {}
            Some(Err(_)) | None => self.finish(),
        }
        next
    }
}

impl Drop for Epochs<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.finish();
        }
    }
}

fn batches_held(count: usize) -> Error {
    Error::new(ErrorKind::BatchesHeld, format!("the consumer holds all {count} batches, so none can be filled"))
        .with_remedy("drop a batch before taking the next, copy what must be kept, or build with more slots")
}
