//! Files that are registered with the ring, so that the kernel looks them up once instead of for every read.
//!
//! The first places of the table are for files that a link of operations opens, reads and closes, one for each operation
//! in flight; the others for files that stay open, such as shards. A file gives its place back when it is dropped, from
//! whatever thread; the ring takes note when it next has something to do, and the kernel closes it for good then.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use io_uring::IoUring;

use crate::engine::{Common, OpenFile};

/// Files that stay registered at most: as many as a cache keeps open.
const STAYING_MAX: usize = crate::engine::files::CACHED_FILES_MAX;

/// The table of a ring.
pub(super) struct Table {
    vacant: Vec<u32>,
    opens_into: bool,
    returned: Arc<Returned>,
}

/// Places whose files were dropped, until the kernel is told.
#[derive(Default)]
struct Returned {
    any: AtomicBool,
    places: Mutex<Vec<u32>>,
}

/// A file's place in the table of a ring, given back when dropped.
pub(in crate::engine) struct Place {
    number: u32,
    returned: Arc<Returned>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.returned.places.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        self.returned.any.store(true, Ordering::Release);
    }
}

impl Table {
    /// Registers an empty table with places of their own for `linked` operations in flight.
    pub(super) fn new(io: &IoUring, linked: usize, common: &Common) -> Option<Self> {
        let places = (linked + STAYING_MAX) as u32;
        let mut opens_into = true;
        let registered = io.submitter().register_files_sparse(places).or_else(|error| {
            // Linux 5.19 made the first possible; the second is the same. Some kernels between 5.11 and it open what should
            // go into a table for the process instead, and say nothing.
            opens_into = false;
            let is_unknown = error.raw_os_error() == Some(libc::EINVAL);
            if is_unknown { io.submitter().register_files(&vec![-1; places as usize]) } else { Err(error) }
        });
        let vacant = (linked as u32..places).rev().collect();
        match registered {
            Ok(()) => Some(Self { vacant, returned: Arc::default(), opens_into }),
            Err(error) => {
                refuse(common, &error, places as usize);
                None
            }
        }
    }

    /// Whether the kernel can open files into it.
    pub(super) fn opens_into(&self) -> bool {
        self.opens_into
    }

    /// The place of a file, which it is given now if it will be read often and there is one. None for a file that another
    /// ring knows.
    pub(super) fn place(&mut self, io: &IoUring, file: &OpenFile) -> Option<u32> {
        if let Some(place) = file.place().get() {
            return Arc::ptr_eq(&place.returned, &self.returned).then_some(place.number);
        }
        if !file.stays_open() {
            return None;
        }
        self.take_back(io);
        let number = self.vacant.pop()?;
        let updated = io.submitter().register_files_update(number, &[file.descriptor().as_raw_fd()]);
        // Another engine's thread may have been faster; the place then goes back at once.
        let place = Place { number, returned: Arc::clone(&self.returned) };
        (updated.is_ok() && file.place().set(place).is_ok()).then_some(number)
    }

    /// Places for files that stay open which none has.
    #[cfg(test)]
    pub(super) fn vacant(&self) -> usize {
        self.vacant.len()
    }

    /// Empties the places that were given back.
    pub(super) fn take_back(&mut self, io: &IoUring) {
        if !self.returned.any.swap(false, Ordering::Acquire) {
            return;
        }
        let places = std::mem::take(&mut *self.returned.places.lock().unwrap_or_else(PoisonError::into_inner));
        for number in places {
            // A place that could not be emptied is not used again: the ring's end closes what is in it.
            if io.submitter().register_files_update(number, &[-1]).is_ok() {
                self.vacant.push(number);
            }
        }
    }
}

fn refuse(common: &Common, error: &io::Error, places: usize) {
    common.fallbacks.take("registered files", "descriptors", None, || {
        (
            format!("io_uring_register of {places} files: {error}"),
            format!(
                "raise the limit on open files to at least {} (ulimit -n); it costs a little CPU time",
                places + 64
            ),
        )
    });
}
