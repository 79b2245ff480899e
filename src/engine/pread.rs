//! Reads by threads that block in pread(2): for where io_uring is refused.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::transfer::{Span, Step, Transfer};
use super::{Common, Completion, CuFile, Outcome};
use crate::error::{Error, Result};
use crate::memory::{DeviceRegion, Region};

/// Threads beyond this cost more in switching than their reads in flight gain.
const THREADS_MAX: usize = 32;

/// Threads that are started in place of such as hang.
const REPLACEMENTS_MAX: usize = 32;

/// How long a drop waits for reads that hang in the kernel before it leaves them to their threads.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// The pread driver. Memory in flight is owned by the thread that reads into it.
pub(super) struct Pread {
    /// `None` once the threads are told to end.
    jobs: Option<Sender<Job>>,
    completions: Receiver<Completion>,
    /// Also those that others complete.
    in_flight: usize,
    crew: Arc<Crew>,
    /// What another thread is started with; `None` once they are told to end.
    hands: Option<Hands>,
}

/// What the threads share.
struct Crew {
    common: Arc<Common>,
    stop: AtomicBool,
    threads: AtomicUsize,
    /// Threads that have been replaced, and end when they are back.
    replaced: AtomicUsize,
}

/// The other ends of the channels.
#[derive(Clone)]
struct Hands {
    work: Receiver<Job>,
    done: Sender<Completion>,
}

struct Job {
    token: u64,
    work: Work,
}

enum Work {
    Open(CString),
    Read(Transfer),
    ReadFile(CString, Region),
    ReadDevice(Arc<CuFile>, Transfer<DeviceRegion>),
}

impl Pread {
    /// Starts the threads: `threads`, or one for each operation of `depth` if that is 0.
    pub(super) fn new(common: &Arc<Common>, depth: usize, threads: usize) -> Result<Self> {
        Self::with_sender(common, depth, threads).map(|(pread, _)| pread)
    }

    /// The same, and what another thread sends the completions of its own operations by, each of which is
    /// [expected](Self::expect). Dropping this waits for that thread to drop its sender.
    pub(super) fn with_sender(
        common: &Arc<Common>,
        depth: usize,
        threads: usize,
    ) -> Result<(Self, Sender<Completion>)> {
        let threads = if threads == 0 { depth.min(THREADS_MAX) } else { threads.min(depth) };
        // Both hold all operations in flight, so that neither side ever waits for room.
        let (jobs, work) = bounded(depth);
        let (done, completions) = bounded(depth);
        let crew = Crew {
            common: Arc::clone(common),
            stop: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            replaced: AtomicUsize::new(0),
        };
        let hands = Hands { work, done: done.clone() };
        let pread =
            Self { jobs: Some(jobs), completions, in_flight: 0, crew: Arc::new(crew), hands: Some(hands.clone()) };
        for _ in 0..threads {
            pread.crew.start(hands.clone())?;
        }
        Ok((pread, done))
    }

    /// Starts a thread in place of one that hangs in the kernel, up to a bound.
    pub(super) fn replace_thread(&mut self) {
        let Some(hands) = &self.hands else { return };
        let (crew, fallbacks) = (&self.crew, &self.crew.common.fallbacks);
        let remedy = "see what the storage hangs on (dmesg, nfsstat, lctl)";
        if crew.replaced.load(Ordering::Relaxed) == REPLACEMENTS_MAX {
            fallbacks.take("pread threads", "fewer", None, || {
                (format!("{REPLACEMENTS_MAX} threads hang in reads and were replaced"), remedy.to_owned())
            });
            return;
        }
        crew.replaced.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = crew.start(hands.clone()) {
            crew.replaced.fetch_sub(1, Ordering::Relaxed);
            fallbacks.take("pread threads", "fewer", None, || (error.to_string(), remedy.to_owned()));
        }
    }

    pub(super) fn open(&mut self, token: u64, path: CString) {
        self.submit(Job { token, work: Work::Open(path) });
    }

    pub(super) fn read(&mut self, token: u64, transfer: Transfer) {
        self.submit(Job { token, work: Work::Read(transfer) });
    }

    pub(super) fn read_file(&mut self, token: u64, path: CString, region: Region) {
        self.submit(Job { token, work: Work::ReadFile(path, region) });
    }

    /// Reads into device memory.
    pub(super) fn read_device(&mut self, token: u64, cufile: &Arc<CuFile>, transfer: Transfer<DeviceRegion>) {
        self.submit(Job { token, work: Work::ReadDevice(Arc::clone(cufile), transfer) });
    }

    /// Counts an operation that another thread completes.
    pub(super) fn expect(&mut self) {
        self.in_flight += 1;
    }

    pub(super) fn reap(&mut self, min: usize, timeout: Duration, completions: &mut Vec<Completion>) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let wanted = min.min(self.in_flight);
        let mut reaped = 0;
        while self.in_flight > 0 {
            let received = if reaped < wanted {
                self.completions.recv_deadline(deadline)
            } else {
                self.completions.try_recv().map_err(|_| RecvTimeoutError::Timeout)
            };
            match received {
                Ok(completion) => completions.push(completion),
                Err(RecvTimeoutError::Timeout) if self.crew.threads.load(Ordering::Relaxed) > 0 => break,
                Err(_) => return Err(threads_ended()),
            }
            reaped += 1;
            self.in_flight -= 1;
        }
        Ok(())
    }

    fn submit(&mut self, job: Job) {
        self.in_flight += 1;
        if let Some(jobs) = &self.jobs {
            // Fails only if every thread has ended, which reap reports.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Pread {
    fn drop(&mut self) {
        self.crew.stop.store(true, Ordering::Relaxed);
        (self.jobs, self.hands) = (None, None);
        // The channel is disconnected when the last thread has ended. One that hangs in the kernel keeps
        // what it needs alive for itself, so not waiting for it longer is sound.
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        loop {
            match self.completions.recv_deadline(deadline) {
                Ok(completion) => drop(completion),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    log::error!("reads hang in the kernel: their threads are left behind");
                    return;
                }
            }
        }
    }
}

fn threads_ended() -> Error {
    Error::new(crate::ErrorKind::Internal, "every pread thread has ended")
}

impl Crew {
    fn start(self: &Arc<Self>, hands: Hands) -> Result<()> {
        let (crew, index) = (Arc::clone(self), self.threads.fetch_add(1, Ordering::Relaxed));
        let started = thread::Builder::new().name(format!("forebay-pread-{index}")).spawn(move || {
            let _leave = Leave(&crew.threads);
            crew.serve(&hands);
        });
        started.map(drop).map_err(|error| {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            Error::io("starting a pread thread", error).with_remedy("raise the limit on threads (ulimit -u)")
        })
    }

    /// The life of a thread: until nobody submits any more, or it was replaced.
    fn serve(&self, hands: &Hands) {
        for Job { token, work } in &hands.work {
            if self.stop.load(Ordering::Relaxed) {
                continue;
            }
            let result =
                if self.common.is_abandoned(token) { Err(Common::abandoned()) } else { self.work(token, work) };
            let was_given_up = self.common.is_abandoned(token);
            if hands.done.send(Completion { token, result }).is_err() || was_given_up && self.was_replaced() {
                return;
            }
        }
    }

    fn work(&self, token: u64, work: Work) -> Result<Outcome> {
        let (common, is_abandoned) = (&*self.common, || self.common.is_abandoned(token));
        match work {
            Work::Open(path) => common.open(path).map(Outcome::Opened),
            Work::Read(transfer) => read(common, transfer, is_abandoned).map(Outcome::Read),
            Work::ReadFile(path, region) => read_file(common, path, region, is_abandoned),
            Work::ReadDevice(cufile, transfer) => cufile.read(common, transfer, is_abandoned).map(Outcome::ReadDevice),
        }
    }

    /// Whether there is one thread too many, which is the one that asks.
    fn was_replaced(&self) -> bool {
        let one_less = |replaced: usize| replaced.checked_sub(1);
        self.replaced.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

/// Counts a thread out, however it ends.
struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens, reads and closes; only opens what the region has no room for.
fn read_file(common: &Common, path: CString, mut region: Region, is_abandoned: impl Fn() -> bool) -> Result<Outcome> {
    let file = common.open(path)?;
    let identity = file.identity();
    let len_bytes = usize::try_from(file.size_bytes()).unwrap_or(usize::MAX);
    if Span::new(file.align_bytes(), 0, len_bytes).len_bytes > region.len() {
        return Ok(Outcome::Opened(file));
    }
    if len_bytes == 0 {
        region.narrow(0..0);
        return Ok(Outcome::ReadFile { region, identity });
    }
    let region = read(common, Transfer::new(file, 0, len_bytes, region)?, is_abandoned)?;
    Ok(Outcome::ReadFile { region, identity })
}

fn read(common: &Common, mut transfer: Transfer, is_abandoned: impl Fn() -> bool) -> Result<Region> {
    loop {
        if is_abandoned() {
            return Err(Common::abandoned());
        }
        let request = transfer.request(common);
        let (descriptor, memory) = transfer.ends(request);
        let answer = nix::sys::uio::pread(descriptor, memory, request.offset as i64);
        match transfer.advance(request, answer, common) {
            Step::Again(next) => transfer = next,
            Step::Done(result) => return result,
        }
    }
}
