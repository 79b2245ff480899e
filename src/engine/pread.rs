//! Reads by threads that block in pread(2): for where io_uring is refused.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::transfer::{Span, Step, Transfer};
use super::{Common, Completion, CuFile, Outcome};
use crate::error::{Error, Result};
use crate::memory::{DeviceRegion, Region};

/// Threads beyond this cost more in switching than their reads in flight gain.
const THREADS_MAX: usize = 32;

/// How long a drop waits for reads that hang in the kernel before it leaves them to their threads.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The pread driver. Memory in flight is owned by the thread that reads into it.
pub(super) struct Pread {
    /// `None` once the threads are told to end.
    jobs: Option<Sender<Job>>,
    completions: Receiver<Completion>,
    /// Also those that others complete.
    in_flight: usize,
    stop: Arc<AtomicBool>,
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
        let pread = Self { jobs: Some(jobs), completions, in_flight: 0, stop: Arc::default() };
        for index in 0..threads {
            let (common, work, done, stop) = (Arc::clone(common), work.clone(), done.clone(), Arc::clone(&pread.stop));
            thread::Builder::new()
                .name(format!("forebay-pread-{index}"))
                .spawn(move || serve(&common, &work, &done, &stop))
                .map_err(|error| {
                    Error::io("starting a pread thread", error).with_remedy("raise the limit on threads (ulimit -u)")
                })?;
        }
        Ok((pread, done))
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

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
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
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(threads_ended()),
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
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
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

/// The life of a thread: until nobody submits any more.
fn serve(common: &Common, work: &Receiver<Job>, done: &Sender<Completion>, stop: &AtomicBool) {
    for Job { token, work } in work {
        if stop.load(Ordering::Relaxed) {
            continue;
        }
        let result = match work {
            Work::Open(path) => common.open(path).map(Outcome::Opened),
            Work::Read(transfer) => read(common, transfer).map(Outcome::Read),
            Work::ReadFile(path, region) => read_file(common, path, region),
            Work::ReadDevice(cufile, transfer) => cufile.read(common, transfer).map(Outcome::ReadDevice),
        };
        if done.send(Completion { token, result }).is_err() {
            return;
        }
    }
}

/// Opens, reads and closes; only opens what the region has no room for.
fn read_file(common: &Common, path: CString, mut region: Region) -> Result<Outcome> {
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
    let region = read(common, Transfer::new(file, 0, len_bytes, region)?)?;
    Ok(Outcome::ReadFile { region, identity })
}

fn read(common: &Common, mut transfer: Transfer) -> Result<Region> {
    loop {
        let request = transfer.request(common);
        let (descriptor, memory) = transfer.ends(request);
        let answer = nix::sys::uio::pread(descriptor, memory, request.offset as i64);
        match transfer.advance(request, answer, common) {
            Step::Again(next) => transfer = next,
            Step::Done(result) => return result,
        }
    }
}
