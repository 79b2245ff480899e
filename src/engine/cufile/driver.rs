//! The driver of an engine with cuFile: threads for the host's reads, and one that keeps the device's in flight.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::CuFile;
use super::api::{Answer, Api, Call};
use super::batch::Batches;
use super::stream::Streams;
use crate::engine::pread::Pread;
use crate::engine::transfer::{Request, Step, Transfer};
use crate::engine::{Common, Completion, CuFileApi, EngineOptions, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::DeviceRegion;

/// How long the thread sleeps between two looks at reads in flight: a fraction of what the fastest read takes at first, and
/// what costs no processor when they are slow.
const SLEEP_MIN: Duration = Duration::from_micros(10);
const SLEEP_MAX: Duration = Duration::from_micros(200);

/// How long a drop waits for reads to end by themselves, and then once more after it has cancelled them, before it leaves
/// them their memory for good.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// Opens and host reads on threads, device reads through cuFile. The completions of all come through one channel.
pub(in crate::engine) struct Driver {
    // The thread ends before the channel that it sends to.
    device: Device,
    host: Pread,
}

enum Device {
    /// On the host's threads.
    Threads(Arc<CuFile>),
    /// On a thread of its own.
    Thread { requests: Option<Sender<(u64, Transfer<DeviceRegion>)>>, thread: Option<JoinHandle<()>> },
}

impl Driver {
    /// # Errors
    /// `Unavailable` where an interface that was asked for by name is not to be had.
    pub(in crate::engine) fn new(
        cufile: &Arc<CuFile>,
        common: &Arc<Common>,
        depth: usize,
        options: EngineOptions,
    ) -> Result<Self> {
        cufile.bind()?;
        let (host, completions) = Pread::with_sender(common, depth, options.threads)?;
        let Some(api) = api(cufile, common, depth, options.cufile_api)? else {
            return Ok(Self { device: Device::Threads(Arc::clone(cufile)), host });
        };
        let (requests, submitted) = bounded(depth);
        let worker = Worker {
            cufile: Arc::clone(cufile),
            common: Arc::clone(common),
            api,
            reads: (0..depth).map(|_| None).collect(),
            vacant: (0..depth).rev().collect(),
            waiting: VecDeque::with_capacity(depth),
            calls: Vec::with_capacity(depth),
            answers: Vec::with_capacity(depth),
            done: Vec::with_capacity(depth),
            completions,
        };
        let thread = thread::Builder::new().name("forebay-cufile".into()).spawn(move || worker.run(&submitted));
        let thread = thread.map_err(|error| {
            Error::io("starting the cuFile thread", error).with_remedy("raise the limit on threads (ulimit -u)")
        })?;
        Ok(Self { device: Device::Thread { requests: Some(requests), thread: Some(thread) }, host })
    }

    /// As [`Engine::reap`](crate::engine::Engine::reap).
    pub(in crate::engine) fn reap(&mut self, min: usize, timeout: Duration, done: &mut Vec<Completion>) -> Result<()> {
        self.host.reap(min, timeout, done)?;
        match &self.device {
            Device::Thread { thread: Some(thread), .. } if thread.is_finished() => {
                Err(Error::new(ErrorKind::Internal, "the cuFile thread has ended"))
            }
            _ => Ok(()),
        }
    }

    /// What opens files and reads for the host.
    pub(in crate::engine) fn host(&mut self) -> &mut Pread {
        &mut self.host
    }

    pub(in crate::engine) fn read_device(&mut self, token: u64, transfer: Transfer<DeviceRegion>) {
        match &self.device {
            Device::Threads(cufile) => self.host.read_device(token, cufile, transfer),
            Device::Thread { requests, .. } => {
                self.host.expect();
                if let Some(requests) = requests {
                    // Fails only if the thread has ended, which reap reports.
                    let _ = requests.send((token, transfer));
                }
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Self::Thread { requests, thread } = self {
            *requests = None;
            if let Some(thread) = thread.take() {
                // It ends in bounded time, and its panics would be defects that its reads' owners have seen.
                let _ = thread.join();
            }
        }
    }
}

/// The interface to be driven by a thread; none where the host's threads call the library themselves.
fn api(cufile: &CuFile, common: &Common, depth: usize, which: CuFileApi) -> Result<Option<Api>> {
    let open = cufile.open_library();
    match which {
        CuFileApi::Threads => Ok(None),
        CuFileApi::Stream => Ok(Some(Api::Stream(Streams::new(open, cufile.gpu(), depth)?))),
        CuFileApi::Auto | CuFileApi::Batch => match Batches::new(open, depth) {
            Ok(batches) => Ok(Some(Api::Batch(batches))),
            Err(refusal) if which == CuFileApi::Batch => {
                Err(Error::new(ErrorKind::Unavailable, format!("cuFile has no batches: {refusal}"))
                    .with_remedy("use libcufile of CUDA 12 or later, or the interface threads (--cufile-api)")
                    .with_source(refusal))
            }
            Err(refusal) => {
                common.fallbacks.take("cuFile batches", "cuFile on threads", None, || {
                    (refusal.to_string(), "use libcufile of CUDA 12 or later".to_owned())
                });
                Ok(None)
            }
        },
    }
}

/// A read that the library has.
struct Reading {
    token: u64,
    transfer: Transfer<DeviceRegion>,
    request: Request,
}

/// The state of the thread. Reads in flight stay in `reads` until their answer.
struct Worker {
    cufile: Arc<CuFile>,
    common: Arc<Common>,
    api: Api,
    reads: Vec<Option<Reading>>,
    vacant: Vec<usize>,
    /// To be submitted when there is room.
    waiting: VecDeque<usize>,
    calls: Vec<(usize, Call)>,
    answers: Vec<Answer>,
    /// Reads that have ended well, whose path is to be learned before they are handed out.
    done: Vec<(u64, DeviceRegion)>,
    completions: Sender<Completion>,
}

impl Worker {
    fn run(mut self, requests: &Receiver<(u64, Transfer<DeviceRegion>)>) {
        if let Err(error) = self.cufile.bind() {
            // Reads will say it too.
            log::error!("{error}");
        }
        let mut sleep = SLEEP_MIN;
        loop {
            if !self.take(requests, sleep) {
                break;
            }
            self.submit();
            let progressed = self.poll();
            sleep = if progressed { SLEEP_MIN } else { (2 * sleep).min(SLEEP_MAX) };
        }
        self.drain();
    }

    /// Takes what is asked for: sleeps until there is something if there is nothing to do, else for a moment. Whether more
    /// can come.
    fn take(&mut self, requests: &Receiver<(u64, Transfer<DeviceRegion>)>, sleep: Duration) -> bool {
        let first = if self.in_flight() == 0 {
            requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            requests.recv_timeout(sleep)
        };
        match first {
            Ok((token, transfer)) => self.begin(token, transfer),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        loop {
            match requests.try_recv() {
                Ok((token, transfer)) => self.begin(token, transfer),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.reads.len() - self.vacant.len()
    }

    fn begin(&mut self, token: u64, mut transfer: Transfer<DeviceRegion>) {
        let request = transfer.request(&self.common);
        let Some(number) = self.vacant.pop() else { unreachable!("the engine has checked for room") };
        self.reads[number] = Some(Reading { token, transfer, request });
        self.waiting.push_back(number);
    }

    /// Hands the library what it has room for.
    fn submit(&mut self) {
        loop {
            let room = self.api.room();
            self.calls.clear();
            while self.calls.len() < room
                && let Some(number) = self.waiting.pop_front()
            {
                let Some(reading) = &self.reads[number] else { continue };
                if self.common.is_abandoned(reading.token) {
                    self.end(number, Err(Common::abandoned()));
                    continue;
                }
                match self.cufile.call(&reading.transfer, reading.request) {
                    Ok(call) => self.calls.push((number, call)),
                    Err(error) => self.end(number, Err(error)),
                }
            }
            if self.calls.is_empty() {
                return;
            }
            // SAFETY: what the calls name is owned by transfers that stay in `reads` until their answer, or for good: see
            // `drain`. Nothing on the device uses the regions, as `Engine::read_device` asks.
            unsafe { self.api.submit(&self.calls) };
        }
    }

    /// Looks for answers: whether there were any.
    fn poll(&mut self) -> bool {
        let mut answers = mem::take(&mut self.answers);
        self.api.poll(&mut answers);
        let any = !answers.is_empty();
        for (number, answer) in answers.drain(..) {
            let Some(Reading { token, transfer, request }) = self.reads[number].take() else { continue };
            if self.common.is_abandoned(token) {
                self.vacant.push(number);
                self.send(token, Err(Common::abandoned()));
                continue;
            }
            match transfer.advance(request, answer, &self.common) {
                Step::Again(mut transfer) => {
                    let request = transfer.request(&self.common);
                    self.reads[number] = Some(Reading { token, transfer, request });
                    self.waiting.push_back(number);
                }
                Step::Done(result) => {
                    self.vacant.push(number);
                    match result {
                        Ok(region) => self.done.push((token, region)),
                        Err(error) => self.send(token, Err(error)),
                    }
                }
            }
        }
        self.answers = answers;
        self.hand_out();
        any
    }

    /// Puts down what the reads took that have ended, and hands them out.
    fn hand_out(&mut self) {
        if self.done.is_empty() {
            return;
        }
        let bytes = self.done.iter().map(|(_, region)| region.len() as u64).sum();
        let verdict = self.cufile.put_down(self.done.len() as u64, bytes);
        for (token, region) in mem::take(&mut self.done) {
            let result = match &verdict {
                Ok(()) => Ok(Outcome::ReadDevice(region)),
                Err(error) => {
                    Err(Error::new(error.kind(), error.cause()).with_remedy(error.remedy().unwrap_or_default()))
                }
            };
            // The engine is gone: nobody wants them.
            let _ = self.completions.send(Completion { token, result });
        }
    }

    /// Ends a read that was never begun.
    fn end(&mut self, number: usize, result: Result<Outcome>) {
        if let Some(Reading { token, .. }) = self.reads[number].take() {
            self.vacant.push(number);
            let _ = self.completions.send(Completion { token, result });
        }
    }

    fn send(&mut self, token: u64, result: Result<Outcome>) {
        let _ = self.completions.send(Completion { token, result });
    }

    fn wait_for_all(&mut self) {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while self.in_flight() > 0 && Instant::now() < deadline {
            let mut answers = mem::take(&mut self.answers);
            self.api.poll(&mut answers);
            for (number, _) in answers.drain(..) {
                if self.reads[number].take().is_some() {
                    self.vacant.push(number);
                }
            }
            self.answers = answers;
            thread::sleep(SLEEP_MAX);
        }
    }

    /// Waits until the library has let go of everything. What it does not let go of keeps its memory for good.
    fn drain(&mut self) {
        for number in mem::take(&mut self.waiting) {
            self.reads[number] = None;
            self.vacant.push(number);
        }
        self.wait_for_all();
        if self.in_flight() > 0 {
            // The library says nothing of what it has cancelled, be it that it stopped or not.
            self.api.cancel();
            self.wait_for_all();
        }
        if self.in_flight() > 0 {
            log::error!("{} reads hang in cuFile: their memory is left to them", self.in_flight());
            mem::forget(mem::take(&mut self.reads));
            mem::forget(Arc::clone(&self.cufile));
        }
    }
}
