//! Open files: what is learned when one is opened, and the few that stay open.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;

use super::cufile::Handle;
use super::uring::Place;
use super::{Common, Direct};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::REGION_ALIGN_BYTES;

/// How every file is opened. Not blocking, so that a pipe among the samples cannot stop a thread; taken
/// back once the file is known to be a regular one.
pub(super) const OPEN_FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

/// The alignment of offsets and lengths where the kernel (before 6.1) or the file system does not say.
pub(super) const ALIGN_UNKNOWN_BYTES: u32 = 4096;

/// A file system that asks for more than this reads too much around a sample to go around the page cache.
const ALIGN_MAX_BYTES: u32 = 1 << 20;

/// What is asked of statx(2).
pub(super) const STATX_MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_DIOALIGN;

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The device and the inode on it.
    pub inode: (u64, u64),
    /// The file's length.
    pub size_bytes: u64,
    /// The last modification, in seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
}

/// A regular file, open for reading, with what its file system says about it.
pub struct OpenFile {
    /// The file as cuFile knows it, once it was asked. Before the descriptor, which must stay open meanwhile.
    cufile: OnceLock<Handle>,
    /// Its place in the table of an io_uring, once it has one.
    place: OnceLock<Place>,
    /// Many samples share it.
    stays_open: AtomicBool,
    file: OwnedFd,
    path: CString,
    identity: Identity,
    /// What offsets and lengths of reads are rounded to; 1 where the page cache is in the way and a device is not.
    align_bytes: u32,
    /// `file` was opened for the page cache.
    is_buffered: bool,
    /// Reads of `file` go around the page cache. Cleared when the file system refuses one of them.
    direct: AtomicBool,
    /// Direct reads are polled for. Cleared when the kernel refuses that.
    polled: AtomicBool,
    /// The same file through the page cache, opened when a direct read first fails.
    buffered: OnceLock<OwnedFd>,
}

impl OpenFile {
    /// Its path as it was opened.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path.as_bytes()))
    }

    /// Its length when it was opened.
    pub fn size_bytes(&self) -> u64 {
        self.identity.size_bytes
    }

    /// Which file it was when it was opened.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether reads go around the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// What offsets and lengths of reads are rounded outward to.
    pub fn align_bytes(&self) -> usize {
        self.align_bytes as usize
    }

    /// Refuses a file that is not the one that was listed or opened before.
    ///
    /// # Errors
    /// `Changed`.
    pub fn expect_identity(&self, expected: &Identity) -> Result<()> {
        if self.identity == *expected {
            return Ok(());
        }
        let what = if self.identity.inode != expected.inode { "another file" } else { "edited" };
        Err(Error::new(
            ErrorKind::Changed,
            format!(
                "{}: {what} since it was listed ({} bytes, now {})",
                self.path().display(),
                expected.size_bytes,
                self.identity.size_bytes
            ),
        )
        .with_remedy("start again, and do not write to a data set while it is in use"))
    }

    /// What cuFile knows it by, once that was made.
    pub(super) fn cufile(&self) -> &OnceLock<Handle> {
        &self.cufile
    }

    /// Its place in the table of an io_uring, once it has one.
    pub(super) fn place(&self) -> &OnceLock<Place> {
        &self.place
    }

    /// Whether it is kept open for many samples.
    pub(super) fn stays_open(&self) -> bool {
        self.stays_open.load(Ordering::Relaxed)
    }

    /// It is kept open for many samples.
    pub(crate) fn keep_open(&self) {
        self.stays_open.store(true, Ordering::Relaxed);
    }

    /// Whether direct reads are polled for.
    pub(super) fn is_polled(&self) -> bool {
        self.polled.load(Ordering::Relaxed)
    }

    /// Poll, whatever the device says.
    #[cfg(test)]
    pub(super) fn poll(&self) {
        self.polled.store(true, Ordering::Relaxed);
    }

    /// Polling was refused: no later read is polled for.
    pub(super) fn refuse_polling(&self) {
        self.polled.store(false, Ordering::Relaxed);
    }

    /// The descriptor for direct reads, or for all if it was opened through the page cache.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The descriptor for reads through the page cache, if there is one.
    pub(super) fn buffered_descriptor(&self) -> Option<BorrowedFd<'_>> {
        if self.is_buffered { Some(self.file.as_fd()) } else { self.buffered.get().map(AsFd::as_fd) }
    }

    /// Makes sure that there is a descriptor for reads through the page cache.
    pub(super) fn open_buffered(&self) -> nix::Result<()> {
        if self.buffered_descriptor().is_some() {
            return Ok(());
        }
        // Through the open descriptor, so that it is the same file even if the path names another by now.
        let same = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let buffered = open(same.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        // Another thread may have been faster: then its descriptor is used and ours closed.
        let _ = self.buffered.set(buffered);
        Ok(())
    }

    /// Makes it another file than it is.
    pub(super) fn pretend(&mut self, inode: (u64, u64), modified: (i64, u32)) {
        self.identity = Identity { inode, modified, ..self.identity };
    }

    /// Direct reads were refused: all later ones go through the page cache.
    pub(super) fn refuse_direct(&self) {
        self.direct.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl OpenFile {
    /// A file whose bytes come when a test writes them: a pipe that is said to have some.
    pub(super) fn of_pipe(pipe: OwnedFd, size_bytes: u64) -> Self {
        Self {
            cufile: OnceLock::new(),
            place: OnceLock::new(),
            stays_open: AtomicBool::new(false),
            polled: AtomicBool::new(false),
            file: pipe,
            path: c"pipe".to_owned(),
            identity: Identity { inode: (0, 0), size_bytes, modified: (0, 0) },
            align_bytes: 1,
            is_buffered: true,
            direct: AtomicBool::new(false),
            buffered: OnceLock::new(),
        }
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenFile({}, {} bytes, direct: {})", self.path().display(), self.size_bytes(), self.is_direct())
    }
}

impl Common {
    /// Opens a file on this thread.
    pub(super) fn open(&self, path: CString) -> Result<Arc<OpenFile>> {
        match open(path.as_c_str(), OPEN_FLAGS, Mode::empty()) {
            Ok(file) => self.opened(file, path),
            Err(errno) => Err(open_error(&path, errno)),
        }
    }

    /// Takes over a descriptor that was opened with [`OPEN_FLAGS`].
    pub(super) fn opened(&self, file: OwnedFd, path: CString) -> Result<Arc<OpenFile>> {
        self.opened_or(file, path, None)
    }

    /// The same, as if O_DIRECT were refused for that reason.
    pub(super) fn opened_or(&self, file: OwnedFd, path: CString, refusal: Option<&str>) -> Result<Arc<OpenFile>> {
        let status = status(file.as_fd()).map_err(|errno| open_error(&path, errno))?;
        let Some(identity) = identity(&status) else {
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: not a regular file", display(&path)))
                .with_remedy("list files only; directories, pipes and devices hold no sample"));
        };
        let align_bytes = match refusal {
            None => direct_align_bytes(&status),
            Some(refusal) => Err(refusal),
        };
        let align_bytes = self.set_direct(&file, &path, align_bytes, identity.inode.0)?;
        let is_buffered = align_bytes == 1;
        let is_polled = !is_buffered && self.polling.allows(&display(&path), identity.inode.0, &self.fallbacks)?;
        self.counters.opens.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(OpenFile {
            cufile: OnceLock::new(),
            place: OnceLock::new(),
            stays_open: AtomicBool::new(false),
            file,
            path,
            identity,
            align_bytes: align_bytes.max(self.align_bytes_min),
            is_buffered,
            direct: AtomicBool::new(!is_buffered),
            polled: AtomicBool::new(is_polled),
            buffered: OnceLock::new(),
        }))
    }

    /// Turns O_DIRECT on if it is wanted, and O_NONBLOCK off: the alignment of reads, 1 through the page cache.
    fn set_direct(&self, file: &OwnedFd, path: &CString, align_bytes: Result<u32, &str>, device: u64) -> Result<u32> {
        let set = |flags| fcntl(file, FcntlArg::F_SETFL(flags)).map_err(|errno| errno.desc().to_owned());
        if self.direct != Direct::Off {
            let refused = match align_bytes {
                // Setting the flag fails where opening with it would.
                Ok(align_bytes) => match set(OFlag::O_DIRECT) {
                    Ok(_) => return Ok(align_bytes),
                    Err(cause) => cause,
                },
                Err(cause) => cause.to_owned(),
            };
            self.direct_refused(&display(path), device, &refused)?;
        }
        // A regular file takes this; if not, O_NONBLOCK stays and does nothing to pread.
        let _ = set(OFlag::empty());
        Ok(1)
    }

    /// Counts a refusal of O_DIRECT, or makes it an error where direct reads are required.
    pub(super) fn direct_refused(&self, path: &dyn std::fmt::Display, device: u64, cause: &str) -> Result<()> {
        let remedy = "put the data on a file system with O_DIRECT, such as ext4 or XFS, or accept the page cache";
        if self.direct == Direct::Required {
            let message = format!("{path}: O_DIRECT is required and refused: {cause}");
            return Err(Error::new(ErrorKind::Unavailable, message).with_remedy(remedy));
        }
        self.fallbacks.take("O_DIRECT", "the page cache", Some(device), || {
            let (major, minor) = (libc::major(device), libc::minor(device));
            (format!("{cause} for {path} on device {major}:{minor}"), remedy.to_owned())
        });
        Ok(())
    }
}

/// Which file it is, if it is a regular one.
pub(super) fn identity(status: &libc::statx) -> Option<Identity> {
    (u32::from(status.stx_mode) & libc::S_IFMT == libc::S_IFREG).then(|| Identity {
        inode: (libc::makedev(status.stx_dev_major, status.stx_dev_minor), status.stx_ino),
        size_bytes: status.stx_size,
        modified: (status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
    })
}

/// The alignment of direct reads of a file, or why there are none.
pub(super) fn direct_align_bytes(status: &libc::statx) -> Result<u32, &'static str> {
    if status.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(ALIGN_UNKNOWN_BYTES);
    }
    let (memory, offset) = (status.stx_dio_mem_align, status.stx_dio_offset_align);
    if offset == 0 {
        return Err("the file system reports none");
    }
    // An alignment of 1 is one of 2 as well, and 1 stands for the page cache here.
    let offset = offset.max(2);
    let fits = memory as usize <= REGION_ALIGN_BYTES && offset <= ALIGN_MAX_BYTES && offset.is_power_of_two();
    if fits { Ok(offset) } else { Err("the file system asks for an alignment that regions do not have") }
}

/// statx(2) of an open file.
fn status(file: BorrowedFd<'_>) -> nix::Result<libc::statx> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a NUL-terminated literal (empty: the descriptor itself), and `status` is writable
    // memory of the type that the call fills.
    let result =
        unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, STATX_MASK, status.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: `statx` is plain integers, for which zeroes are valid, and the kernel wrote integers over them.
    Ok(unsafe { status.assume_init() })
}

/// An error of opening a file, with what helps.
pub(super) fn open_error(path: &CString, errno: Errno) -> Error {
    let error = Error::io(format_args!("{}", display(path)), errno.into());
    match errno {
        Errno::EMFILE => error.with_remedy("raise the limit on open files (ulimit -n)"),
        Errno::ENFILE => error.with_remedy("raise the system's limit on open files (sysctl fs.file-max)"),
        Errno::EACCES | Errno::EPERM => error.with_remedy("make it readable for this user"),
        Errno::ENOENT => error.with_remedy("list the data set again: the file is gone"),
        _ => error,
    }
}

pub(super) fn display(path: &CString) -> std::path::Display<'_> {
    Path::new(OsStr::from_bytes(path.as_bytes())).display()
}

/// Files that stay open because many samples share them: the shards in use, least recently used first
/// to go.
pub struct FileCache {
    files: HashMap<u64, (Arc<OpenFile>, u64)>,
    capacity: usize,
    clock: u64,
}

/// Files that a cache keeps open at most.
pub(super) const CACHED_FILES_MAX: usize = 256;

impl Default for FileCache {
    /// A cache of up to 256 files, or a quarter of the descriptors that the process may open if that is less.
    fn default() -> Self {
        let (allowed, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        Self::with_capacity(CACHED_FILES_MAX.min(usize::try_from(allowed / 4).unwrap_or(usize::MAX)))
    }
}

impl FileCache {
    /// A cache of up to `capacity` files, at least 1.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { files: HashMap::new(), capacity: capacity.max(1), clock: 0 }
    }

    /// The file of an object, if it is open.
    pub fn lookup(&mut self, object: u64) -> Option<Arc<OpenFile>> {
        self.clock += 1;
        let (file, used) = self.files.get_mut(&object)?;
        *used = self.clock;
        Some(Arc::clone(file))
    }

    /// Keeps the file of an object. The least recently used one is let go if there are too many; it closes
    /// when its last read ends.
    pub fn insert(&mut self, object: u64, file: Arc<OpenFile>) {
        self.clock += 1;
        self.files.insert(object, (file, self.clock));
        if self.files.len() > self.capacity {
            // Linear in the capacity, beside the opening of a file.
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(object, _)| *object);
            oldest.and_then(|object| self.files.remove(&object));
        }
    }

    /// Files open.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}
