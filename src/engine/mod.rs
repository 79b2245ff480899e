//! MOVE: many reads in flight, through io_uring or threads.
//!
//! One thread submits opens and reads, each with a token of its choice, and reaps their completions, in
//! any order. Bytes land in a [`Region`] of the loader's [`Arena`], which belongs to the engine from submission to
//! completion: nothing that a caller can drop is ever written by the kernel.
//!
//! Where the bytes are for a CUDA device that decodes them itself, cuFile reads them straight into a
//! [`DeviceRegion`] of its memory, and the host never has them.
//!
//! An operation that does not complete within [`EngineOptions::read_timeout`] ends with an error; module `pending` keeps its
//! memory from everyone else until it has really ended.
//!
//! All drivers do the same on the same bytes. What a read goes through (rounding to the device's alignment,
//! short reads, interruptions, a refused O_DIRECT, one retry) is module `transfer`'s, what an open goes through
//! is `files`'; `uring`, `pread` and [`cufile`] only carry requests. [`sim`](EngineKind::Sim) carries them to a storage that
//! is made up by a seed, so that everything which can go wrong does, and again.

pub mod cufile;
mod depth;
mod fallbacks;
mod files;
mod now;
mod options;
mod page_cache;
mod pending;
mod polling;
mod pread;
pub mod probe;
mod sim;
mod transfer;
mod uring;

use std::ffi::CString;
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use cufile::CuFile;
pub use files::{FileCache, Identity, OpenFile};
pub use options::{CuFileApi, Depth, Direct, EngineKind, EngineOptions, Polling, RequirePath};
pub use page_cache::{budget_bytes as page_cache_budget_bytes, estimate_data_set_bytes, resident_share};
pub use sim::{SimFault, SimFaults, SimOptions};

pub(crate) use depth::DepthControl;
pub(crate) use now::read_now;

use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Arena, DeviceRegion, Region};
use crate::report::{Fallback, lock};
use fallbacks::Fallbacks;
use pending::{Pending, What};
use polling::IoPolling;
use transfer::Transfer;

/// An operation that has ended.
#[derive(Debug)]
pub struct Completion {
    /// The caller's number for it.
    pub token: u64,
    /// What came of it.
    pub result: Result<Outcome>,
}

/// What an operation yields.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Engine::open`].
    Opened(Arc<OpenFile>),
    /// Of [`Engine::read`]: exactly the bytes asked for are visible.
    Read(Region),
    /// Of [`Engine::read_file`]: all bytes of the file are visible.
    ReadFile {
        /// Its bytes.
        region: Region,
        /// Which file it was: never a newer one than the bytes are of.
        identity: Identity,
    },
    /// Of [`Engine::read_device`], likewise. What the read wrote is there for all that is put on a stream from now on.
    ReadDevice(DeviceRegion),
}

/// What an engine has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Files opened.
    pub opens: u64,
    /// Reads completed.
    pub reads: u64,
    /// Bytes that completed reads asked for.
    pub bytes_asked: u64,
    /// Bytes that the kernel delivered, rounding and retries included.
    pub bytes_read: u64,
    /// Reads that failed once and were tried again through the page cache.
    pub retries: u64,
    /// Operations that had not completed by their deadline.
    pub timeouts: u64,
}

/// Moves bytes from files to memory.
///
/// Bound to the thread that makes it, since an io_uring with a single issuer is: make it on the I/O thread
/// and send out what [`new`](Self::new) returns beside it. Dropping it waits for what is in flight, in bounded time.
pub struct Engine {
    driver: Driver,
    common: Arc<Common>,
    arena: Arena,
    /// Completions that needed no I/O: refused before they began, or empty.
    ready: Vec<Completion>,
    /// What the driver has. After the driver, which ends it.
    pending: Pending,
    /// Of those, the ones whose deadline has just passed.
    expired: Vec<u64>,
    depth: usize,
    /// How many of them pay, where that is looked for.
    control: Option<DepthControl>,
    bound_to_thread: PhantomData<*const ()>,
}

enum Driver {
    Uring(Box<uring::Uring>),
    Pread(pread::Pread),
    CuFile(Box<cufile::Driver>),
    Sim(Box<sim::Sim>),
}

/// What every driver needs and every thread of it shares.
struct Common {
    /// Whether files are opened for O_DIRECT, and whether it may be refused.
    direct: Direct,
    read_bytes_max: usize,
    /// What files are read in multiples of at least.
    align_bytes_min: u32,
    fallbacks: Fallbacks,
    polling: IoPolling,
    counters: Counters,
    again: Again,
    /// By their numbers, operations that no one waits for any more: to be ended at the first occasion.
    abandoned: Box<[AtomicBool]>,
}

#[derive(Default)]
struct Counters {
    opens: AtomicU64,
    reads: AtomicU64,
    bytes_asked: AtomicU64,
    bytes_read: AtomicU64,
    retries: AtomicU64,
    timeouts: AtomicU64,
}

/// Bytes that were asked of storage again, since they had not come.
#[derive(Default)]
struct Again {
    any: AtomicBool,
    /// By the devices of their files.
    bytes: Mutex<Vec<(u64, u64)>>,
}

impl Again {
    /// Counts some of a file on a device.
    fn add(&self, device: u64, len_bytes: u64) {
        let mut bytes = lock(&self.bytes);
        match bytes.iter_mut().find(|(known, _)| *known == device) {
            Some((_, known)) => *known += len_bytes,
            None => bytes.push((device, len_bytes)),
        }
        // Under the lock, as it is cleared.
        self.any.store(true, Ordering::Relaxed);
    }
}

impl Counters {
    /// Counts a read that is complete, of so many bytes.
    fn read(&self, len_bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes_asked.fetch_add(len_bytes as u64, Ordering::Relaxed);
    }

    /// Counts a file of so many bytes that was opened and read whole in one go.
    fn read_file(&self, len_bytes: usize) {
        self.opens.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(len_bytes as u64, Ordering::Relaxed);
        self.read(len_bytes);
    }
}

impl Common {
    fn new(depth: usize, direct: Direct, align_bytes_min: u32, options: EngineOptions) -> Result<Self> {
        if !(1..=4096).contains(&depth) {
            return Err(Error::invalid_parameter("depth", depth, "1 to 4096 operations in flight are possible"));
        }
        if options.read_timeout.is_zero() {
            return Err(Error::invalid_parameter("read_timeout", "0", "a read takes some time"));
        }
        Ok(Self {
            direct,
            read_bytes_max: options.read_bytes_max.clamp(1, 1 << 30),
            align_bytes_min,
            fallbacks: Fallbacks::default(),
            polling: IoPolling::new(options.iopoll),
            counters: Counters::default(),
            again: Again::default(),
            abandoned: (0..depth).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// What an operation ends with that no one waits for.
    fn abandoned() -> Error {
        Error::new(ErrorKind::TimedOut, "it was given up")
    }

    /// Whether no one waits any more for the operation of this number.
    fn is_abandoned(&self, number: u64) -> bool {
        self.abandoned.get(number as usize).is_some_and(|abandoned| abandoned.load(Ordering::Relaxed))
    }
}

impl Engine {
    /// An engine that reads into `arena` with up to `depth` operations in flight.
    ///
    /// [`EngineKind::Auto`] takes io_uring where the kernel allows it and pread threads elsewhere. The second value
    /// says what could not be had so far; [`fallbacks`](Self::fallbacks) adds what files refuse later.
    ///
    /// # Errors
    /// `Unavailable` if the engine was asked for by name and is not to be had; `InvalidParameter` for
    /// a depth of 0 or beyond 4096.
    pub fn new(kind: EngineKind, arena: &Arena, depth: usize, options: EngineOptions) -> Result<(Self, Vec<Fallback>)> {
        let common = Arc::new(Common::new(depth, options.resolve_direct(), 1, options)?);
        let driver = match kind {
            EngineKind::CuFile => {
                let message = "the engine cufile reads into device memory, and no device was named";
                return Err(
                    Error::new(ErrorKind::Unavailable, message).with_remedy("name a device: cuda:0, for example")
                );
            }
            EngineKind::Pread => {
                options.forgo_polling(kind, &common.fallbacks)?;
                Driver::Pread(pread::Pread::new(&common, depth, options.threads)?)
            }
            EngineKind::Sim => {
                options.forgo_polling(kind, &common.fallbacks)?;
                Driver::Sim(Box::new(sim::Sim::new(&common, depth, options.sim)))
            }
            EngineKind::Uring => Driver::Uring(Box::new(uring::Uring::new(&common, arena, depth, options)?)),
            EngineKind::Auto => match uring::Uring::new(&common, arena, depth, options) {
                Ok(uring) => Driver::Uring(Box::new(uring)),
                Err(refusal) if options.requires_uring() => return Err(refusal.into()),
                Err(uring::Refusal { cause, remedy }) => {
                    common.fallbacks.take("io_uring", "pread threads", None, || (cause, remedy.to_owned()));
                    Driver::Pread(pread::Pread::new(&common, depth, options.threads)?)
                }
            },
        };
        Ok(Self::of(driver, common, arena, depth, options))
    }

    /// An engine that can read into the device memory that `cufile` knows too ([`read_device`](Self::read_device)). Files are
    /// opened for O_DIRECT where they allow it, and what the host asks for is read by pread threads.
    ///
    /// # Errors
    /// `InvalidParameter` for [`Direct::Off`] and as for [`new`](Self::new); `Unavailable` where an interface of cuFile that
    /// was asked for by name is not to be had.
    pub fn with_cufile(
        cufile: &Arc<CuFile>,
        arena: &Arena,
        depth: usize,
        options: EngineOptions,
    ) -> Result<(Self, Vec<Fallback>)> {
        let direct = match options.direct {
            Direct::Off => {
                let allowed = "cuFile reads around the page cache: use auto, preferred or required";
                return Err(Error::invalid_parameter("direct", options.direct, allowed));
            }
            Direct::Auto => Direct::Preferred,
            direct => direct,
        };
        let read_bytes_max = options.read_bytes_max.min(cufile.request_bytes_max());
        let options = EngineOptions { read_bytes_max, ..options };
        let common = Arc::new(Common::new(depth, direct, files::ALIGN_UNKNOWN_BYTES, options)?);
        options.forgo_polling(EngineKind::CuFile, &common.fallbacks)?;
        let driver = cufile::Driver::new(cufile, &common, depth, options)?;
        Ok(Self::of(Driver::CuFile(Box::new(driver)), common, arena, depth, options))
    }

    fn of(
        driver: Driver,
        common: Arc<Common>,
        arena: &Arena,
        depth: usize,
        options: EngineOptions,
    ) -> (Self, Vec<Fallback>) {
        let fallbacks = common.fallbacks.snapshot();
        let (arena, ready) = (arena.clone(), Vec::with_capacity(depth));
        let (pending, expired) = (Pending::new(depth, options.read_timeout), Vec::new());
        let control = DepthControl::of(options.depth, depth);
        let bound_to_thread = PhantomData;
        (Self { driver, common, arena, ready, pending, expired, depth, control, bound_to_thread }, fallbacks)
    }

    /// Opens a file for reading. Completes with [`Outcome::Opened`], or an error that names the path.
    ///
    /// # Panics
    /// If no operation has [`room`](Self::room).
    pub fn open(&mut self, token: u64, path: &Path) {
        self.assert_room();
        match CString::new(path.as_os_str().as_bytes()) {
            Ok(path) => {
                let number = self.pending.begin(&self.common, token, What::Open(path.clone()));
                match &mut self.driver {
                    Driver::Uring(uring) => uring.open(number, path),
                    Driver::Pread(pread) => pread.open(number, path),
                    Driver::CuFile(cufile) => cufile.host().open(number, path),
                    Driver::Sim(sim) => sim.open(number, path),
                }
            }
            Err(_) => self.ready.push(Completion { token, result: Err(nul_in(path)) }),
        }
    }

    /// Opens a file and waits for it: for objects that stay open, which are opened rarely.
    ///
    /// # Errors
    /// As for [`open`](Self::open); `TimedOut` after [`read_timeout`](EngineOptions::read_timeout).
    pub fn open_now(&self, path: &Path) -> Result<Arc<OpenFile>> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| nul_in(path))?;
        let opened = match &self.driver {
            Driver::Sim(sim) => sim.open_now(name.clone()),
            _ => {
                let (common, name) = (Arc::clone(&self.common), name.clone());
                now::within(self.pending.timeout(), || false, move || common.open(name))?
            }
        };
        let file = opened.unwrap_or_else(|| Err(self.pending.give_up(&self.common, &What::Open(name))))?;
        file.keep_open();
        Ok(file)
    }

    /// Opens a file, reads all of it into `region` and closes it again: for small files that are read once. Completes with
    /// [`Outcome::ReadFile`], or with [`Outcome::Opened`] where that cannot be done in one go, because the file is
    /// larger than the region or the kernel lacks something: then nothing of it was read, and the region is freed.
    ///
    /// # Errors
    /// In the completion: as for [`open`](Self::open) and [`read`](Self::read).
    ///
    /// # Panics
    /// If no operation has [`room`](Self::room).
    pub fn read_file(&mut self, token: u64, path: &Path, region: Region) {
        self.assert_room();
        match CString::new(path.as_os_str().as_bytes()) {
            Ok(path) => {
                let what = What::ReadFile { path: path.clone(), memory: (&region).into() };
                let number = self.pending.begin(&self.common, token, what);
                match &mut self.driver {
                    Driver::Uring(uring) => uring.read_file(number, path, region),
                    Driver::Pread(pread) => pread.read_file(number, path, region),
                    Driver::CuFile(cufile) => cufile.host().read_file(number, path, region),
                    // What is made up is made up of opens and reads.
                    Driver::Sim(sim) => sim.open(number, path),
                }
            }
            Err(_) => self.ready.push(Completion { token, result: Err(nul_in(path)) }),
        }
    }

    /// Bytes of the arena that a read of this range takes: the range rounded outward to the file's alignment.
    pub fn region_len(&self, file: &OpenFile, offset: u64, len_bytes: usize) -> usize {
        transfer::Span::new(file.align_bytes(), offset, len_bytes).len_bytes
    }

    /// Reads `len_bytes` at `offset` into `region`, which is the engine's until it comes back in
    /// [`Outcome::Read`] narrowed to those bytes; on an error it is freed.
    ///
    /// # Errors
    /// In the completion: `Truncated` if the file is shorter, `Io` naming path, offset and cause.
    ///
    /// # Panics
    /// If the region is shorter than [`region_len`](Self::region_len), or no operation has
    /// [`room`](Self::room).
    pub fn read(&mut self, token: u64, file: &Arc<OpenFile>, offset: u64, len_bytes: usize, mut region: Region) {
        self.assert_room();
        if len_bytes == 0 {
            region.narrow(0..0);
            self.ready.push(Completion { token, result: Ok(Outcome::Read(region)) });
            return;
        }
        let memory = (&region).into();
        match Transfer::new(Arc::clone(file), offset, len_bytes, region) {
            Ok(transfer) => {
                let what = What::Read { file: Arc::clone(file), offset, len_bytes, memory };
                let number = self.pending.begin(&self.common, token, what);
                match &mut self.driver {
                    Driver::Uring(uring) => uring.read(number, transfer),
                    Driver::Pread(pread) => pread.read(number, transfer),
                    Driver::CuFile(cufile) => cufile.host().read(number, transfer),
                    Driver::Sim(sim) => sim.read(number, transfer),
                }
            }
            Err(error) => self.ready.push(Completion { token, result: Err(error) }),
        }
    }

    /// Reads `len_bytes` at `offset` into device memory, which is the engine's until it comes back in
    /// [`Outcome::ReadDevice`] narrowed to those bytes; on an error it is freed.
    ///
    /// Whatever was put on a stream before and uses the region's bytes must be done: the read waits for no stream.
    ///
    /// # Errors
    /// In the completion: as for [`read`](Self::read), and `Unavailable` where the path is not the required one or this is no
    /// engine [with cuFile](Self::with_cufile).
    ///
    /// # Panics
    /// As for [`read`](Self::read).
    pub fn read_device(
        &mut self,
        token: u64,
        file: &Arc<OpenFile>,
        offset: u64,
        len_bytes: usize,
        mut region: DeviceRegion,
    ) {
        self.assert_room();
        if len_bytes == 0 {
            region.narrow(0..0);
            self.ready.push(Completion { token, result: Ok(Outcome::ReadDevice(region)) });
            return;
        }
        let Driver::CuFile(cufile) = &mut self.driver else {
            let message = format!("the engine {} cannot read into device memory", self.kind());
            let error = Error::new(ErrorKind::Unavailable, message).with_remedy("use the engine cufile");
            self.ready.push(Completion { token, result: Err(error) });
            return;
        };
        let memory = (&region).into();
        match Transfer::new(Arc::clone(file), offset, len_bytes, region) {
            Ok(transfer) => {
                let what = What::Read { file: Arc::clone(file), offset, len_bytes, memory };
                let number = self.pending.begin(&self.common, token, what);
                cufile.read_device(number, transfer);
            }
            Err(error) => self.ready.push(Completion { token, result: Err(error) }),
        }
    }

    /// Hands everything submitted to the kernel and appends what has completed to `completions`, sleeping until
    /// there are `min` (or nothing is in flight any more) or `timeout` has passed.
    ///
    /// What is in flight for [`read_timeout`](EngineOptions::read_timeout), counted from the first call after it was submitted,
    /// completes with `TimedOut`.
    ///
    /// # Errors
    /// Only if the engine itself has failed. Errors of operations are in their completions.
    pub fn reap(&mut self, min: usize, timeout: Duration, completions: &mut Vec<Completion>) -> Result<()> {
        let (in_flight, before) = (self.in_flight(), completions.len());
        self.reap_until(min, timeout, completions)?;
        let now = self.now();
        if let Some(control) = &mut self.control {
            control.completed(now, completions.len() - before, in_flight >= control.depth());
        }
        Ok(())
    }

    fn reap_until(&mut self, min: usize, timeout: Duration, completions: &mut Vec<Completion>) -> Result<()> {
        let enough = completions.len().saturating_add(min);
        completions.append(&mut self.ready);
        let mut now = self.now();
        let until = now.checked_add(timeout);
        loop {
            self.pending.look(now, &self.common, completions, &mut self.expired);
            for number in self.expired.drain(..) {
                self.driver.abandon(number);
            }
            let want = enough.saturating_sub(completions.len()).min(self.pending.live());
            let wake = [until, self.pending.look_at()].into_iter().flatten().min();
            let left = wake.map_or(timeout, |wake| wake.saturating_duration_since(now));
            let first = completions.len();
            let result = self.driver.reap(want, left, completions);
            self.pending.settle(completions, first);
            result?;
            if completions.len() >= enough || self.pending.live() == 0 {
                return Ok(());
            }
            now = self.now();
            if until.is_some_and(|until| until <= now) {
                return Ok(());
            }
        }
    }

    /// Operations in flight or not reaped yet, [overdue](Self::overdue) ones aside.
    pub fn in_flight(&self) -> usize {
        self.pending.live() + self.ready.len()
    }

    /// Operations that have completed for the caller, with `TimedOut`, and have not ended: each keeps its memory and takes
    /// one of the places of the depth until it has, which [`reap`](Self::reap) finds out.
    pub fn overdue(&self) -> usize {
        self.pending.overdue()
    }

    /// What to say where nothing goes on because everything is [overdue](Self::overdue).
    pub(crate) fn stuck(&self) -> Error {
        self.pending.stuck()
    }

    /// Operations that can be submitted now.
    pub fn room(&self) -> usize {
        self.depth - self.pending.len() - self.ready.len()
    }

    /// The driver's clock.
    pub(crate) fn now(&self) -> Instant {
        match &self.driver {
            Driver::Sim(sim) => sim.now(),
            _ => Instant::now(),
        }
    }

    /// Operations that it pays to submit now: as many as have [`room`](Self::room), or fewer where the storage is no faster
    /// with more in flight.
    pub fn wanted(&self) -> usize {
        self.depth().saturating_sub(self.in_flight()).min(self.room())
    }

    /// Operations in flight that pay, as far as is known by now.
    pub fn depth(&self) -> usize {
        self.control.as_ref().map_or(self.depth, DepthControl::depth)
    }

    /// The engine in use: never `Auto`.
    pub fn kind(&self) -> EngineKind {
        match self.driver {
            Driver::Uring(_) => EngineKind::Uring,
            Driver::Pread(_) => EngineKind::Pread,
            Driver::CuFile(_) => EngineKind::CuFile,
            Driver::Sim(_) => EngineKind::Sim,
        }
    }

    /// How files are read: never `Auto`. [`Direct::Preferred`] files that refuse it are in
    /// [`fallbacks`](Self::fallbacks).
    pub fn direct(&self) -> Direct {
        self.common.direct
    }

    /// The arena that it reads into.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Every fallback taken so far.
    pub fn fallbacks(&self) -> Vec<Fallback> {
        self.common.fallbacks.snapshot()
    }

    /// Hands out, once, the bytes that were asked of each device again since an answer was short or none: for whoever holds
    /// devices to a rate, and has counted each read when it began. `put` gets a device number (st_dev) and bytes.
    pub fn take_asked_again(&mut self, mut put: impl FnMut(u64, u64)) {
        let Again { any, bytes } = &self.common.again;
        if any.load(Ordering::Relaxed) {
            let mut bytes = lock(bytes);
            any.store(false, Ordering::Relaxed);
            bytes.drain(..).for_each(|(device, len_bytes)| put(device, len_bytes));
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> EngineCounters {
        let Counters { opens, reads, bytes_asked, bytes_read, retries, timeouts } = &self.common.counters;
        EngineCounters {
            opens: opens.load(Ordering::Relaxed),
            reads: reads.load(Ordering::Relaxed),
            bytes_asked: bytes_asked.load(Ordering::Relaxed),
            bytes_read: bytes_read.load(Ordering::Relaxed),
            retries: retries.load(Ordering::Relaxed),
            timeouts: timeouts.load(Ordering::Relaxed),
        }
    }

    fn assert_room(&self) {
        assert!(self.room() > 0, "all {} operations are in flight", self.depth);
    }
}

impl Driver {
    /// As [`Engine::reap`], of operations by their numbers, and without deadlines.
    fn reap(&mut self, min: usize, timeout: Duration, completions: &mut Vec<Completion>) -> Result<()> {
        match self {
            Self::Uring(uring) => uring.reap(min, timeout, completions),
            Self::Pread(pread) => pread.reap(min, timeout, completions),
            Self::CuFile(cufile) => cufile.reap(min, timeout, completions),
            Self::Sim(sim) => {
                sim.reap(min, timeout, completions);
                Ok(())
            }
        }
    }

    /// Does what can be done about an operation that was just abandoned. It completes whenever it does.
    fn abandon(&mut self, number: u64) {
        match self {
            Self::Uring(uring) => uring.cancel(number),
            Self::Pread(pread) => pread.replace_thread(),
            // The library can cancel only all at once. What hangs on the host's threads has one of them.
            Self::CuFile(cufile) => cufile.host().replace_thread(),
            Self::Sim(sim) => sim.cancel(number),
        }
    }
}

fn nul_in(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, format!("{}: a path cannot hold a NUL byte", path.display()))
}
