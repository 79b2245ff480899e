//! Running programs, and tests in this process, on the simulated CUDA driver (tests/simcuda).
#![allow(dead_code)] // Each test file uses its part.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The names under which programs look for the driver.
const DRIVER_NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// A driver for programs of their own processes, with what is asked of it.
pub struct Simulator {
    folder: tempfile::TempDir,
    libraries: Vec<PathBuf>,
    settings: Vec<(String, String)>,
}

/// A driver without planted faults, with the first seed.
pub fn simulator() -> Simulator {
    let folder = tempfile::tempdir().unwrap();
    Simulator { folder, libraries: vec![links("libsimcuda.so", &DRIVER_NAMES)], settings: Vec::new() }
}

impl Simulator {
    /// Sets `SIMCUDA_` and the name. tests/simcuda/README.md has the list.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((format!("SIMCUDA_{name}"), value.to_string()));
        self
    }

    /// Which schedule is run.
    pub fn seed(self, seed: u64) -> Self {
        self.set("SEED", seed)
    }

    /// Calls that do nothing and say success: `cuStreamWaitEvent#3`.
    pub fn drop(self, calls: &str) -> Self {
        self.set("DROP", calls)
    }

    /// Calls that fail: `cuMemAllocAsync#2:2`.
    pub fn fail(self, calls: &str) -> Self {
        self.set("FAIL", calls)
    }

    /// Calls whose work breaks the context: `cuLaunchKernel#5:700`.
    pub fn sticky(self, calls: &str) -> Self {
        self.set("STICKY", calls)
    }

    /// A fault planted in the kernels' text: `old=>new`.
    pub fn ptx_edit(self, edit: &str) -> Self {
        self.set("PTX_EDIT", edit)
    }

    /// Also gives programs another library that cargo built beside this test, under these names.
    pub fn library(mut self, built: &str, names: &[&str]) -> Self {
        self.libraries.push(links(built, names));
        self
    }

    /// The program, to be run on this driver. Earlier reports are forgotten.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        self.dress(&mut command);
        command
    }

    /// Makes a command run on this driver. Earlier reports are forgotten.
    pub fn dress(&self, command: &mut Command) {
        let earlier = std::env::var_os("LD_LIBRARY_PATH");
        let earlier = earlier.iter().flat_map(std::env::split_paths);
        let folders = std::env::join_paths(self.libraries.iter().cloned().chain(earlier)).unwrap();
        std::fs::remove_file(self.report()).ok();
        command.env("LD_LIBRARY_PATH", folders);
        command.env("SIMCUDA_REPORT", self.report());
        command.env("SIMCUDA_STATS", self.folder.path().join("stats"));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
    }

    /// What the driver has against the program that ran last.
    pub fn reports(&self) -> Vec<String> {
        match std::fs::read_to_string(self.report()) {
            Ok(text) => lines(&text),
            Err(_) => Vec::new(),
        }
    }

    /// For each kernel that the last program ran: launches, instructions summed over threads, and over warps.
    pub fn stats(&self) -> BTreeMap<String, [u64; 3]> {
        let text = std::fs::read_to_string(self.folder.path().join("stats")).unwrap();
        let each = text.lines().map(|line| {
            let mut words = line.split(' ');
            let name = words.next().unwrap().to_owned();
            (name, [(); 3].map(|()| words.next().unwrap().parse().unwrap()))
        });
        each.collect()
    }

    fn report(&self) -> PathBuf {
        self.folder.path().join("reports")
    }
}

/// The driver within this process, for one test at a time.
pub struct Session {
    library: Library,
    _alone: MutexGuard<'static, ()>,
}

/// A fresh driver with this seed and no faults planted, once the tests before are done with theirs.
pub fn session(seed: u64) -> Session {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let session = Session { library: load(), _alone: alone };
    for name in ["drop", "fail", "sticky", "ptx_edit", "memory_bytes", "devices", "ignore", "idle_ms", "value_ms"] {
        session.set(name, "");
    }
    // Tests print the reports that they did not expect.
    session.set("report", "/dev/null");
    session.restart(seed);
    session
}

impl Session {
    /// Begins anew, with what was set.
    pub fn restart(&self, seed: u64) {
        // SAFETY: the function is the simulator's, of this signature.
        let reset: extern "C" fn(u64) = unsafe { std::mem::transmute(self.library.symbol(c"simcuda_reset")) };
        reset(seed);
    }

    /// Sets what the environment variable `SIMCUDA_` and the name would.
    pub fn set(&self, name: &str, value: impl ToString) {
        let (name, value) = (CString::new(name).unwrap(), CString::new(value.to_string()).unwrap());
        type Configure = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;
        // SAFETY: the function is the simulator's, of this signature.
        let configure: Configure = unsafe { std::mem::transmute(self.library.symbol(c"simcuda_configure")) };
        // SAFETY: both are strings.
        assert_eq!(unsafe { configure(name.as_ptr(), value.as_ptr()) }, 0, "{name:?}={value:?}");
    }

    /// Reports what is left as if the process ended.
    pub fn finish(&self) {
        // SAFETY: the function is the simulator's, of this signature.
        let finish: extern "C" fn() = unsafe { std::mem::transmute(self.library.symbol(c"simcuda_finish")) };
        finish();
    }

    /// What the driver has against this process so far.
    pub fn reports(&self) -> Vec<String> {
        type Reports = unsafe extern "C" fn(*mut u8, usize) -> usize;
        // SAFETY: the function is the simulator's, of this signature.
        let reports: Reports = unsafe { std::mem::transmute(self.library.symbol(c"simcuda_reports")) };
        let mut text = vec![0; 1 << 20];
        // SAFETY: the buffer is as long as said.
        let len = unsafe { reports(text.as_mut_ptr(), text.len()) };
        text.truncate(len);
        lines(&String::from_utf8(text).unwrap())
    }
}

/// The reports. What is wrong with the test itself, such as a planted fault that never happened, ends it.
fn lines(text: &str) -> Vec<String> {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let wrong = lines.iter().find(|line| line.starts_with("setting:"));
    assert!(wrong.is_none(), "{wrong:?}");
    lines
}

/// A folder in which the library is found under these names. Cargo puts what it builds of a dependency beside the tests.
fn links(built: &str, names: &[&str]) -> PathBuf {
    let folder = beside().join(format!("{built}.links"));
    std::fs::create_dir_all(&folder).unwrap();
    let target = beside().join(built);
    assert!(target.exists(), "{} is not there: is its package a dev-dependency?", target.display());
    for name in names {
        // Other tests do the same at the same time, in this process and in others: a link appears whole or not at all.
        static LINKS: AtomicU32 = AtomicU32::new(0);
        let number = LINKS.fetch_add(1, Ordering::Relaxed);
        let fresh = folder.join(format!("{name}.{}.{number}", std::process::id()));
        symlink(&target, &fresh).unwrap();
        std::fs::rename(&fresh, folder.join(name)).unwrap();
    }
    folder
}

fn beside() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// The driver's library within this process, which stays open.
#[derive(Clone, Copy)]
pub struct Library(*mut c_void);

// SAFETY: a handle of a library that is never closed may be used by any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Loads it, unless it is.
    pub fn open() -> Self {
        load()
    }

    /// What it exports under this name.
    pub fn symbol(self, name: &CStr) -> *mut c_void {
        // SAFETY: the library is open.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?} is not in the library");
        found
    }
}

/// Loads the driver into this process, where its name makes later look-ups of `libcuda.so.1` find it. Where the machine
/// has a driver of its own that would be found first, the process begins anew with a path that prevents it.
fn load() -> Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    *LIBRARY.get_or_init(|| {
        let folder = links("libsimcuda.so", &DRIVER_NAMES);
        // SAFETY: no other library is loaded than those that programs would load.
        let [first, ours] =
            [c"libcuda.so".to_owned(), CString::new(folder.join("libcuda.so.1").as_os_str().as_bytes()).unwrap()]
                .map(|name| unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) });
        assert!(!ours.is_null(), "{} cannot be loaded", folder.display());
        // SAFETY: the library is open.
        if !first.is_null() && unsafe { libc::dlsym(first, c"simcuda_reset".as_ptr()) }.is_null() {
            let arguments: Vec<_> = std::env::args_os().skip(1).collect();
            let error =
                Command::new(std::env::current_exe().unwrap()).args(arguments).env("LD_LIBRARY_PATH", &folder).exec();
            panic!("the test cannot begin anew: {error}");
        }
        Library(ours)
    })
}
