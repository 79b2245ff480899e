//! The stand-in for cuFile (tests/simcuda/cufile) within this process, on the simulated driver.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use crate::cuda_support::{self, Session};

/// Both of them for one test at a time, without faults planted.
pub struct Stand {
    pub session: Session,
    library: usize,
}

/// What can be set.
const SETTINGS: [&str; 7] = ["path", "fail", "short", "stuck", "version", "behind", "watch"];

/// A fresh driver with this seed, and a fresh stand-in, which is found by its name from then on.
pub fn stand(seed: u64) -> Stand {
    let session = cuda_support::session(seed);
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    let library = *LIBRARY.get_or_init(|| {
        let path = std::env::current_exe().expect("a path").with_file_name("libsimcufile.so");
        let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
        // SAFETY: the stand-in's initialisers do nothing.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "{path:?} cannot be loaded");
        library.addr()
    });
    let stand = Stand { session, library };
    for name in SETTINGS {
        stand.set(name, "");
    }
    stand.restart(seed);
    stand
}

impl Stand {
    /// Sets what the environment variable `SIMCUFILE_` and the name would.
    pub fn set(&self, name: &str, value: impl ToString) {
        let (name, value) = (CString::new(name).expect("text"), CString::new(value.to_string()).expect("text"));
        type Configure = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;
        // SAFETY: the function is the stand-in's, of this signature.
        let configure: Configure = unsafe { std::mem::transmute(self.symbol(c"simcufile_configure")) };
        // SAFETY: both are strings.
        assert_eq!(unsafe { configure(name.as_ptr(), value.as_ptr()) }, 0, "{name:?}={value:?}");
    }

    /// Begins anew, with what was set.
    pub fn restart(&self, seed: u64) {
        self.session.restart(seed);
        self.call(c"simcufile_reset");
    }

    /// Ends what the end of the process would, and says what is wrong.
    pub fn reports(&self) -> Vec<String> {
        self.call(c"simcufile_finish");
        self.session.finish();
        self.session.reports()
    }

    fn call(&self, name: &CStr) {
        // SAFETY: the function is the stand-in's, of this signature.
        let function: extern "C" fn() = unsafe { std::mem::transmute(self.symbol(name)) };
        function();
    }

    fn symbol(&self, name: &CStr) -> *mut std::ffi::c_void {
        // SAFETY: the library is open.
        let found = unsafe { libc::dlsym(std::ptr::without_provenance_mut(self.library), name.as_ptr()) };
        assert!(!found.is_null(), "{name:?} is not in the stand-in");
        found
    }
}
