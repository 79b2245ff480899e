//! The driver as one value behind one lock, and how entry points get at it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::context::{Context, Device};
use crate::memory::Memory;
use crate::module::{Function, KernelStats, Module};
use crate::random::Random;
use crate::report::Reports;
use crate::result::{Code, Outcome};
use crate::schedule::Temper;
use crate::settings::{Calls, Settings, Verdict};
use crate::stream::{Event, Stream};
use crate::watch::Watch;

/// All that the driver knows. Handles are numbers that never come back, so that a stale one is told from a live one.
#[derive(Debug)]
pub struct Driver {
    /// What tests ask for.
    pub settings: Settings,
    /// What is wrong so far.
    pub reports: Reports,
    /// Entry points called so far.
    pub calls: Calls,
    /// Decides among what may happen.
    pub random: Random,
    /// How this seed leans in its decisions.
    pub temper: Temper,
    /// By ordinal; empty before `cuInit`.
    pub devices: Vec<Device>,
    /// By handle.
    pub contexts: HashMap<u64, Context>,
    /// By handle, in the order of their making.
    pub streams: BTreeMap<u64, Stream>,
    /// By handle.
    pub events: HashMap<u64, Event>,
    /// By handle; libraries too.
    pub modules: HashMap<u64, Module>,
    /// By handle; kernels of libraries too.
    pub functions: HashMap<u64, Arc<Function>>,
    /// By name.
    pub stats: BTreeMap<String, KernelStats>,
    /// What the host knows to be over.
    pub host: Clock,
    /// Actors so far.
    pub actors: usize,
    /// Operations queued so far.
    pub operations: u64,
    /// The process that initialised it.
    pub process: u32,
    /// Whether the edit that a test asks for was made.
    pub edited: bool,
    /// As the idle watch found it.
    pub operations_at_last_look: u64,
    /// The stream that ran last.
    pub last_stream: Option<u64>,
    /// Operations begun so far, to see whether anything goes on.
    pub progress: u64,
    /// For each place where a stream wrote a value, what came before.
    pub signals: HashMap<u64, Clock>,
    /// What breaks the context at the next operation that this call queues.
    pub fault: Option<Code>,
    /// Whether a context broke since its streams were last emptied.
    pub broke: bool,
    /// Whether an operation was queued by this call.
    pub queued: bool,
    /// Who looks at what the host gives the device.
    pub watch: Option<Watch>,
    /// Tells stacks of current contexts of before a reset from those after.
    pub generation: u64,
    memory: Option<Memory>,
    handles: u64,
}

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| {
    let (settings, wrong) = Settings::from_environment();
    let mut driver = Driver::new(settings, 1, 0x1000);
    wrong.iter().for_each(|what| driver.report("setting", what));
    Mutex::new(driver)
});
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// Contexts made current on this thread, the last on top, and the driver's generation that they are of.
    static CURRENT: RefCell<(u64, Vec<u64>)> = const { RefCell::new((0, Vec::new())) };
    /// Whether this thread runs a function that a stream called.
    static CALLED: Cell<Called> = const { Cell::new(Called::No) };
    /// Reports that a function made while the driver was locked by its own thread.
    static LATER: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

/// What a stream called on this thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Called {
    /// Nothing.
    No,
    /// A function of the program's, without the lock.
    Program,
    /// A function of a companion library's, under the lock.
    Companion,
}

/// An entry point of the driver API: counts the call, lets rules have their say, and runs the body under the lock.
pub fn call(name: &'static str, body: impl FnOnce(&mut Locked) -> Outcome) -> Code {
    if CALLED.get() != Called::No {
        report("callback", &format!("{name} is called from a function that a stream called"));
        return Code::NOT_PERMITTED;
    }
    // Libraries tidy up when the process ends, later than what is kept per thread.
    if CURRENT.try_with(|_| ()).is_err() {
        return Code::DEINITIALIZED;
    }
    let mut driver = Locked::new();
    if driver.settings.trace {
        eprintln!("simcuda: {name}");
    }
    match driver.count(name) {
        Verdict::Pass => {}
        Verdict::Drop => return Code::SUCCESS,
        Verdict::Fail(code) => return code,
        Verdict::Sticky(code) => driver.fault = Some(code),
    }
    driver.run_entry(body)
}

/// An entry point of the simulator's own, which no rule applies to.
pub fn enter(body: impl FnOnce(&mut Locked) -> Outcome) -> Code {
    if CALLED.get() != Called::No {
        return Code::NOT_PERMITTED;
    }
    Locked::new().run_entry(body)
}

/// Something that looks at the driver and does not wait.
pub fn locked<T>(body: impl FnOnce(&mut Driver) -> T) -> T {
    body(&mut Locked::new())
}

/// Makes a report, from wherever it is called.
pub fn report(kind: &str, words: &str) {
    match CALLED.get() {
        Called::Companion => LATER.with_borrow_mut(|later| later.push((kind.to_owned(), words.to_owned()))),
        _ => locked(|driver| driver.report(kind, words)),
    }
}

/// The driver, for as long as an entry point holds its lock.
pub struct Locked(Option<MutexGuard<'static, Driver>>);

impl Locked {
    /// Waits for the lock. A panic of another thread under it was a fault of the simulator's; what it left is used on.
    pub fn new() -> Self {
        Self(Some(DRIVER.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn run_entry(&mut self, body: impl FnOnce(&mut Self) -> Outcome) -> Code {
        let mut result = body(self);
        if let Some(code) = self.fault.take() {
            result = Err(self.break_current(code));
        }
        if std::mem::take(&mut self.broke) {
            self.give_up_broken();
        }
        if std::mem::take(&mut self.queued) {
            self.run_some();
        }
        result.err().unwrap_or(Code::SUCCESS)
    }

    /// Runs a function of the program's without the lock, since it may wait for another thread that needs it.
    pub fn unlocked<T>(&mut self, body: impl FnOnce() -> T) -> T {
        self.0 = None;
        CALLED.set(Called::Program);
        let result = body();
        CALLED.set(Called::No);
        *self = Self::new();
        CHANGED.notify_all();
        result
    }

    /// Waits until another thread is done with such a function, or so long.
    pub fn wait_for_change(&mut self, time: Duration) {
        if let Some(guard) = self.0.take() {
            let waited = CHANGED.wait_timeout(guard, time);
            self.0 = Some(waited.unwrap_or_else(PoisonError::into_inner).0);
        }
    }
}

#[allow(clippy::expect_used)]
impl Deref for Locked {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        self.0.as_ref().expect("the lock is only given up within unlocked and wait_for_change")
    }
}

#[allow(clippy::expect_used)]
impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Driver {
        self.0.as_mut().expect("the lock is only given up within unlocked and wait_for_change")
    }
}

impl Driver {
    fn new(settings: Settings, generation: u64, handles: u64) -> Self {
        let mut random = Random::new(settings.seed);
        let temper = Temper::draw(&mut random);
        Self {
            settings,
            reports: Reports::default(),
            calls: Calls::default(),
            random,
            temper,
            devices: Vec::new(),
            contexts: HashMap::new(),
            streams: BTreeMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            stats: BTreeMap::new(),
            host: Clock::default(),
            actors: 0,
            operations: 0,
            process: std::process::id(),
            edited: false,
            operations_at_last_look: 0,
            last_stream: None,
            progress: 0,
            signals: HashMap::new(),
            fault: None,
            broke: false,
            queued: false,
            watch: None,
            generation,
            memory: None,
            handles,
        }
    }

    /// Forgets everything but the settings, as if the process began anew with this seed.
    pub fn reset(&mut self, seed: u64) {
        let mut settings = self.settings.clone();
        settings.seed = seed;
        *self = Self { watch: self.watch, ..Self::new(settings, self.generation + 1, self.handles) };
    }

    /// Counts a call and says what becomes of it.
    pub fn count(&mut self, name: &str) -> Verdict {
        let Self { calls, settings, .. } = self;
        calls.count(name, settings)
    }

    /// Makes a report.
    pub fn report(&mut self, kind: &str, text: &str) {
        let Self { reports, settings, .. } = self;
        reports.add(settings, kind, text);
    }

    /// Runs a function of a companion library's, which keeps the lock and may make reports.
    pub fn while_locked<T>(&mut self, body: impl FnOnce() -> T) -> T {
        CALLED.set(Called::Companion);
        let result = body();
        CALLED.set(Called::No);
        LATER.take().iter().for_each(|(kind, words)| self.report(kind, words));
        result
    }

    /// A handle that nothing had before. Multiples of 16, as pointers are.
    pub fn handle(&mut self) -> u64 {
        self.handles += 16;
        self.handles
    }

    /// What `cuInit` does.
    ///
    /// # Errors
    /// `NO_DEVICE` if the settings say so; `OUT_OF_MEMORY` if there is no address space.
    pub fn initialise(&mut self) -> Outcome {
        if self.memory.is_none() {
            if self.settings.devices == 0 {
                return Err(Code::NO_DEVICE);
            }
            self.memory = Some(Memory::new()?);
            self.devices = (0..self.settings.devices).map(|_| Device::default()).collect();
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                crate::background::start();
                crate::control::finish_at_exit();
            });
        }
        Ok(())
    }

    /// The address space.
    ///
    /// # Errors
    /// `NOT_INITIALIZED` before `cuInit`.
    pub fn memory(&self) -> Outcome<&Memory> {
        self.memory.as_ref().ok_or(Code::NOT_INITIALIZED)
    }

    /// The address space.
    ///
    /// # Errors
    /// `NOT_INITIALIZED` before `cuInit`.
    pub fn memory_mut(&mut self) -> Outcome<&mut Memory> {
        self.memory.as_mut().ok_or(Code::NOT_INITIALIZED)
    }

    /// Runs with this thread's stack of current contexts.
    pub fn with_stack<T>(&self, body: impl FnOnce(&mut Vec<u64>) -> T) -> T {
        CURRENT.with_borrow_mut(|(generation, stack)| {
            if *generation != self.generation {
                *generation = self.generation;
                stack.clear();
            }
            body(stack)
        })
    }
}
