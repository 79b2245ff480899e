//! Registered files.

use std::ffi::c_int;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cufile_sys::sys::CUfileOpError;

use crate::driver::report;
use crate::library::{Answer, Library, refuse};
use crate::settings::{Way, settings};

/// A file that the program registered.
pub struct File {
    /// The program's descriptor.
    pub descriptor: c_int,
    /// Where it was when it was registered.
    pub path: PathBuf,
    /// Whether the descriptor is for direct I/O, without which cuFile goes through the host's memory.
    pub is_direct: bool,
    /// Where its bytes are read from, through the page cache.
    pub source: Arc<fs::File>,
    identity: (u64, u64),
}

impl File {
    /// Looks at a descriptor.
    pub fn open(descriptor: c_int) -> Answer<Self> {
        const CALL: &str = "cuFileHandleRegister";
        // SAFETY: any number may be asked about.
        let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
        let Some(identity) = identity(descriptor).filter(|_| flags >= 0) else {
            let words = format!("{CALL}: {descriptor} is no open descriptor");
            return Err(refuse("argument", &words, CUfileOpError::CU_FILE_INVALID_VALUE));
        };
        if flags & libc::O_ACCMODE == libc::O_WRONLY {
            let words = format!("{CALL}: descriptor {descriptor} is not for reading");
            return Err(refuse("argument", &words, CUfileOpError::CU_FILE_INVALID_FILE_OPEN_FLAG));
        }
        let link = format!("/proc/self/fd/{descriptor}");
        let path = fs::read_link(&link).map_err(|_| CUfileOpError::CU_FILE_INTERNAL_ERROR)?;
        let behind = settings().source(&path);
        let source = fs::File::open(behind.as_deref().unwrap_or(Path::new(&link)));
        let source = source.map_err(|error| {
            let at = behind.as_ref().unwrap_or(&path).display();
            let words = format!("{CALL}: {at} cannot be read: {error}");
            refuse("argument", &words, CUfileOpError::CU_FILE_GETNEWFD_FAILED)
        })?;
        if !source.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(CUfileOpError::CU_FILE_INVALID_FILE_TYPE.into());
        }
        Ok(Self { descriptor, path, is_direct: flags & libc::O_DIRECT != 0, source: Arc::new(source), identity })
    }

    /// The way that a read of this file goes, by its number; that of the file itself without one.
    pub fn way(&self, library: &Library, read: Option<u64>) -> Way {
        if library.parameters.forces_compatibility() || !self.is_direct {
            return Way::Posix;
        }
        let settings = settings();
        read.map_or_else(|| settings.way_of_file(&self.path), |read| settings.way(read, &self.path))
    }

    /// Whether the descriptor is still this file's. Reports one that was closed.
    pub fn has_descriptor(&self, when: &str) -> bool {
        if identity(self.descriptor) == Some(self.identity) {
            return true;
        }
        let (descriptor, path) = (self.descriptor, self.path.display());
        let words = format!("descriptor {descriptor} of {path} was closed while registered, found when {when}");
        report("lifetime", &words);
        false
    }

    /// How long it is.
    pub fn len(&self) -> u64 {
        self.source.metadata().map_or(0, |metadata| metadata.len())
    }
}

/// Device and number of what a descriptor is of.
fn identity(descriptor: c_int) -> Option<(u64, u64)> {
    let mut facts = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the pointer is valid for a write; any number may be asked about.
    if unsafe { libc::fstat(descriptor, facts.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: numbers alone, which were written.
    let facts = unsafe { facts.assume_init() };
    Some((facts.st_dev, facts.st_ino))
}

impl Library {
    /// Registers a file.
    pub fn register_file(&mut self, descriptor: c_int) -> Answer<usize> {
        self.expect_open("cuFileHandleRegister")?;
        let file = File::open(descriptor)?;
        let twice = self.files.values().find(|other| other.descriptor == descriptor);
        if let Some(twice) = twice {
            twice.has_descriptor("it was registered again");
            let words = format!("cuFileHandleRegister: descriptor {descriptor} is registered already");
            return Err(refuse("argument", &words, CUfileOpError::CU_FILE_HANDLE_ALREADY_REGISTERED));
        }
        if file.way(self, None) == Way::Posix && !self.parameters.allows_compatibility() {
            let why = match file.is_direct {
                true => CUfileOpError::CU_FILE_IO_NOT_SUPPORTED,
                false => CUfileOpError::CU_FILE_INVALID_FILE_OPEN_FLAG,
            };
            return Err(why.into());
        }
        let handle = self.handle();
        self.files.insert(handle, file);
        Ok(handle)
    }

    /// Forgets a file.
    pub fn deregister_file(&mut self, handle: usize) -> Answer {
        const CALL: &str = "cuFileHandleDeregister";
        self.expect_open(CALL)?;
        let reads = self.in_flight(|read| read.handle == handle);
        let Some(file) = self.files.remove(&handle) else {
            let words = format!("{CALL}: {}", Self::describe_stale(handle));
            return Err(refuse("lifetime", &words, CUfileOpError::CU_FILE_HANDLE_NOT_REGISTERED));
        };
        if reads > 0 {
            report("lifetime", &format!("{CALL} of {} with {reads} reads in flight", file.path.display()));
        }
        file.has_descriptor("its handle was given back");
        Ok(())
    }
}
