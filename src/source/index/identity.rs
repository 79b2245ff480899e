//! Telling whether data is what it was when it was indexed, by what its file system says of it.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::head::{DataKind, Head, unescape};
use super::stale;
use crate::error::Result;
use crate::report::lock;
use crate::source::parallel::{LISTING_THREADS, in_parallel};

/// When something was last modified: seconds and nanoseconds since 1970.
pub(crate) type Modified = (i64, u32);

/// Within this time two changes can get the same time of modification: the clock of file systems ticks
/// every 1 to 10 ms.
const TICK: Duration = Duration::from_millis(20);

/// When a file or folder was last modified.
pub(crate) fn modified(metadata: &Metadata) -> Modified {
    (metadata.mtime(), metadata.mtime_nsec() as u32)
}

/// Sleeps until a change that comes from now on gives the file another time than this one.
pub(crate) fn wait_out_tick((seconds, nanoseconds): Modified) {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return };
    let age = u64::try_from(seconds).ok().and_then(|seconds| now.checked_sub(Duration::new(seconds, nanoseconds)));
    if let Some(left) = age.and_then(|age| TICK.checked_sub(age)) {
        thread::sleep(left);
    }
}

/// Before this time, a time of modification is one that no later change can have.
pub(super) fn settled_before() -> Modified {
    let settled = SystemTime::now().checked_sub(TICK).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    settled.map_or((0, 0), |time| (time.as_secs() as i64, time.subsec_nanos()))
}

/// Refuses an index whose tar shard or list file is not the one that was indexed.
///
/// # Errors
/// `IndexStale`.
pub(super) fn check_file(index: &Path, head: &Head, data: &Path, metadata: &Metadata) -> Result<()> {
    let cause = if metadata.len() != head.size_bytes {
        format!("{} had {} bytes when it was indexed and has {} now", data.display(), head.size_bytes, metadata.len())
    } else if modified(metadata) != head.modified {
        format!("{} was modified after it was indexed", data.display())
    } else {
        return Ok(());
    };
    Err(stale(index, &cause))
}

/// Refuses an index of a folder in which, or below which, any folder changed: a file came, went or was
/// renamed. What was written into a file shows when it is opened.
///
/// # Errors
/// `IndexStale`.
pub(super) fn check_folders(index: &Path, head: &Head, root: &Path) -> Result<()> {
    debug_assert_eq!(head.kind, DataKind::Folder);
    let next = AtomicUsize::new(0);
    let changed: Mutex<Option<String>> = Mutex::default();
    in_parallel(LISTING_THREADS.min(head.folders.len()), || {
        while let Some((folder, then)) = head.folders.get(next.fetch_add(1, Ordering::Relaxed)) {
            let path = unescape(folder).map(|folder| root.join(std::ffi::OsStr::from_bytes(&folder)));
            let now = path.as_ref().and_then(|path| std::fs::metadata(path).ok());
            if now.is_none_or(|now| !now.is_dir() || modified(&now) != *then) {
                *lock(&changed) = Some(folder.clone());
                next.store(head.folders.len(), Ordering::Relaxed);
            }
        }
    });
    match changed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        None => Ok(()),
        Some(folder) => {
            let folder = root.join(folder);
            Err(stale(index, &format!("files came or went in {} after it was indexed", folder.display())))
        }
    }
}
