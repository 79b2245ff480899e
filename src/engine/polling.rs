//! Which devices can be polled for completions, and what is done where one cannot.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::fallbacks::Fallbacks;
use super::options::{EngineKind, EngineOptions, Polling};
use crate::error::{Error, ErrorKind, Result};

/// What the report calls them.
pub(super) const SQPOLL: &str = "SQPOLL";
pub(super) const IOPOLL: &str = "IOPOLL";

/// Whether completions are polled for, by device. By default not.
#[derive(Default)]
pub(super) struct IoPolling {
    wish: Polling,
    /// There is a ring for it.
    is_possible: AtomicBool,
    /// Devices that were looked at, and whether they have queues for it.
    devices: Mutex<Vec<(u64, bool)>>,
}

impl IoPolling {
    pub(super) fn new(wish: Polling) -> Self {
        Self { wish, is_possible: AtomicBool::new(false), devices: Mutex::default() }
    }

    /// There is a ring for it.
    pub(super) fn enable(&self) {
        self.is_possible.store(true, Ordering::Relaxed);
    }

    /// Whether direct reads of a file on `device` are polled for.
    ///
    /// # Errors
    /// `Unavailable` where they must be and cannot.
    pub(super) fn allows(&self, path: &dyn Display, device: u64, fallbacks: &Fallbacks) -> Result<bool> {
        if self.wish == Polling::Off || !self.is_possible.load(Ordering::Relaxed) || self.is_polled(device) {
            return Ok(self.wish != Polling::Off && self.is_possible.load(Ordering::Relaxed));
        }
        let (major, minor) = (libc::major(device), libc::minor(device));
        let cause = format!("the device {major}:{minor} has no queues that are polled");
        let remedy = "load its driver with some (nvme.poll_queues=N), or leave polling off";
        if self.wish == Polling::Required {
            let message = format!("{path}: polling for completions is required and not possible: {cause}");
            return Err(Error::new(ErrorKind::Unavailable, message).with_remedy(remedy));
        }
        fallbacks.take(IOPOLL, "interrupts", Some(device), || (format!("{cause}, for {path}"), remedy.to_owned()));
        Ok(false)
    }

    fn is_polled(&self, device: u64) -> bool {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        match devices.iter().find(|(known, _)| *known == device) {
            Some((_, is_polled)) => *is_polled,
            None => {
                let is_polled = has_poll_queues(Path::new("/sys"), device);
                devices.push((device, is_polled));
                is_polled
            }
        }
    }
}

/// What a block device, or the disk that a partition is part of, says of itself (Documentation/ABI/stable/sysfs-block).
fn has_poll_queues(sys: &Path, device: u64) -> bool {
    let place = sys.join(format!("dev/block/{}:{}", libc::major(device), libc::minor(device)));
    let says = |path| fs::read_to_string(place.join(path)).ok();
    says("queue/io_poll").or_else(|| says("../queue/io_poll")).is_some_and(|text| text.trim() == "1")
}

impl EngineOptions {
    /// Refuses polling, or counts it as a fallback, for an engine that knows none.
    pub(super) fn forgo_polling(&self, kind: EngineKind, fallbacks: &Fallbacks) -> Result<()> {
        for (what, wish) in [(SQPOLL, self.sqpoll), (IOPOLL, self.iopoll)] {
            let cause = format!("the engine {kind} has no queues to poll");
            let remedy = "use the engine uring, or leave polling off";
            match wish {
                Polling::Off => {}
                Polling::Preferred => {
                    fallbacks.take(what, "waiting", None, || (cause, remedy.to_owned()));
                }
                Polling::Required => {
                    let message = format!("{what} is required and not to be had: {cause}");
                    return Err(Error::new(ErrorKind::Unavailable, message).with_remedy(remedy));
                }
            }
        }
        Ok(())
    }

    /// Whether an engine without io_uring is an error.
    pub(super) fn requires_uring(&self) -> bool {
        [self.sqpoll, self.iopoll].contains(&Polling::Required)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_of_a_partition_are_those_of_its_disk() {
        let sys = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("devices/nvme0n1/queue/io_poll", "1\n");
        write("devices/nvme0n1/nvme0n1p2/partition", "2\n");
        write("devices/vda/queue/io_poll", "0\n");
        fs::create_dir_all(sys.path().join("dev/block")).unwrap();
        for (device, place) in [("259:0", "nvme0n1"), ("259:2", "nvme0n1/nvme0n1p2"), ("254:0", "vda")] {
            let link = sys.path().join("dev/block").join(device);
            std::os::unix::fs::symlink(sys.path().join("devices").join(place), link).unwrap();
        }
        let has = |major, minor| has_poll_queues(sys.path(), libc::makedev(major, minor));
        assert!(has(259, 0) && has(259, 2));
        assert!(!has(254, 0) && !has(0, 35), "none, or no block device at all");
    }

    #[test]
    fn what_is_required_is_an_error_and_what_is_preferred_is_told() {
        let fallbacks = Fallbacks::default();
        // A file system in memory has no block device.
        let device = libc::makedev(0, 1);
        let polling = |wish| {
            let polling = IoPolling::new(wish);
            polling.enable();
            polling
        };
        assert!(!polling(Polling::Off).allows(&"file", device, &fallbacks).unwrap());
        assert!(!IoPolling::new(Polling::Required).allows(&"file", device, &fallbacks).unwrap(), "no ring for it");
        assert!(fallbacks.snapshot().is_empty());
        assert!(!polling(Polling::Preferred).allows(&"file", device, &fallbacks).unwrap());
        assert_eq!((fallbacks.snapshot()[0].what, fallbacks.snapshot()[0].instead), (IOPOLL, "interrupts"));
        let error = polling(Polling::Required).allows(&"file", device, &fallbacks).unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("file"), "{error}");

        let options = |sqpoll, iopoll| EngineOptions { sqpoll, iopoll, ..Default::default() };
        let forgone = |options: EngineOptions| options.forgo_polling(EngineKind::Pread, &fallbacks);
        forgone(options(Polling::Off, Polling::Off)).unwrap();
        forgone(options(Polling::Preferred, Polling::Off)).unwrap();
        assert_eq!(fallbacks.snapshot()[1].what, SQPOLL);
        assert_eq!(forgone(options(Polling::Off, Polling::Required)).unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(options(Polling::Off, Polling::Required).requires_uring());
        assert!(!options(Polling::Preferred, Polling::Preferred).requires_uring());
    }
}
