//! What a caller waits for on its own thread, being too rare to be in flight beside others: in bounded time all the same.
//!
//! The kernel cannot be asked to give up, so the work is done by a thread that is left behind if it hangs, with all that it
//! needs.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::options::EngineOptions;
use super::pending::REMEDY;
use super::sim::hangs;
use super::{Common, EngineKind};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;

/// How long it sleeps at most before it looks whether the caller still wants it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What `work` gives; none if it has not ended within `timeout`, or once `is_over`.
///
/// # Errors
/// Those of starting a thread.
pub(super) fn within<T: Send + 'static>(
    timeout: Duration,
    is_over: impl Fn() -> bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>> {
    let (sender, receiver) = sync_channel(1);
    let started = thread::Builder::new().name("forebay-now".to_owned()).spawn(move || {
        // Nobody may wait for it any more.
        let _ = sender.send(work());
    });
    let thread = started.map_err(|error| {
        Error::io("starting a thread to read with", error).with_remedy("raise the limit on threads (ulimit -u)")
    })?;
    let deadline = Instant::now().checked_add(timeout);
    loop {
        let left = deadline.map_or(LOOK_EVERY, |deadline| deadline.saturating_duration_since(Instant::now()));
        match receiver.recv_timeout(left.min(LOOK_EVERY)) {
            Ok(done) => {
                let _ = thread.join();
                return Ok(Some(done));
            }
            // It panicked: the caller's thread goes on with that.
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return Ok(None),
            },
            Err(RecvTimeoutError::Timeout) if left.is_zero() || is_over() => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// The bytes `range` of a file, or all of it, through the page cache into memory of their own: for what an engine has read
/// once and that has to be read another way. `is_over` says that nobody wants them any more.
///
/// # Errors
/// `LimitExceeded` for more than `limits` allow, `TimedOut` after [`EngineOptions::read_timeout`] and when it is over, which
/// the engine [`Sim`](EngineKind::Sim) makes up, and those of opening and reading.
pub(crate) fn read_now(
    kind: EngineKind,
    options: &EngineOptions,
    path: &Path,
    range: Option<Range<u64>>,
    limits: Limits,
    is_over: impl Fn() -> bool,
) -> Result<Vec<u8>> {
    let timeout = options.read_timeout;
    let late = || {
        let message = format!("{}: reading it once more has not completed within {timeout:?}", path.display());
        Err(Error::new(ErrorKind::TimedOut, message).with_remedy(REMEDY))
    };
    if kind == EngineKind::Sim && hangs(options.sim, path, range.as_ref()) {
        return late();
    }
    let work = {
        let path = path.to_owned();
        move || read(&path, range, limits)
    };
    match within(timeout, &is_over, work)? {
        Some(read) => read,
        None if is_over() => Err(Common::abandoned()),
        None => late(),
    }
}

fn read(path: &Path, range: Option<Range<u64>>, limits: Limits) -> Result<Vec<u8>> {
    let failed = |error| Error::io(path.display(), error);
    let file = File::open(path).map_err(failed)?;
    let Range { start, end } = match range {
        Some(range) => range,
        None => 0..file.metadata().map_err(failed)?.len(),
    };
    let len_bytes = end.saturating_sub(start);
    limits.check_bytes(len_bytes)?;
    let mut bytes = vec![0; len_bytes as usize];
    file.read_exact_at(&mut bytes, start).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{SimFault, SimFaults, SimOptions};
    use super::*;

    #[test]
    fn what_hangs_is_left_behind_in_time_or_when_nobody_wants_it() {
        let (_keep, hung) = sync_channel::<()>(0);
        let (_keep_too, hung_too) = sync_channel::<()>(0);
        let begin = Instant::now();
        assert!(within(Duration::from_millis(50), || false, move || hung.recv()).unwrap().is_none());
        assert!(begin.elapsed() >= Duration::from_millis(50));
        assert!(within(Duration::MAX, || true, move || hung_too.recv()).unwrap().is_none());
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert_eq!(within(Duration::MAX, || false, || 7).unwrap(), Some(7));
        let panicked = std::panic::catch_unwind(|| within(Duration::MAX, || false, || panic!("a defect")));
        assert!(panicked.is_err());
    }

    /// A pipe that nobody writes to: opening it takes for ever.
    #[test]
    fn a_read_that_hangs_ends_with_the_path_and_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, file) = (folder.path().join("pipe"), folder.path().join("file"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(&file, b"0123456789").unwrap();
        let options = EngineOptions { read_timeout: Duration::from_millis(60), ..Default::default() };
        let read = |kind, options: &EngineOptions, path: &Path, range, is_over: bool| {
            read_now(kind, options, path, range, Limits::default(), || is_over)
        };
        let error = read(EngineKind::Pread, &options, &pipe, None, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let text = error.to_string();
        assert!(text.contains("pipe") && text.contains("within 60ms") && text.contains("--read-timeout"), "{text}");
        let patient = EngineOptions::default();
        assert_eq!(read(EngineKind::Pread, &patient, &pipe, None, true).unwrap_err().kind(), ErrorKind::TimedOut);
        // What is made up hangs without taking any time.
        let sim = SimOptions { faults: SimFaults::NONE.with(SimFault::Hang), one_in: 1, ..Default::default() };
        let hung = EngineOptions { sim, ..patient };
        let error = read(EngineKind::Sim, &hung, &file, Some(2..5), false).unwrap_err();
        assert!(error.kind() == ErrorKind::TimedOut && error.to_string().contains("within 120s"), "{error}");
        for (kind, options) in [(EngineKind::Sim, patient), (EngineKind::Pread, hung)] {
            assert_eq!(read(kind, &options, &file, Some(2..5), false).unwrap(), b"234");
            assert_eq!(read(kind, &options, &file, None, false).unwrap(), b"0123456789");
        }
    }

    #[test]
    fn what_is_beyond_the_limits_is_refused_before_there_is_memory_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        // It takes no room, and would as bytes in memory.
        File::create(&path).unwrap().set_len(1 << 42).unwrap();
        let read = |range, max_bytes| {
            let limits = Limits { max_bytes, ..Limits::default() };
            read_now(EngineKind::Pread, &EngineOptions::default(), &path, range, limits, || false)
        };
        for (range, max_bytes) in [(None, 64 << 20), (Some(5..9), 3), (Some(0..u64::MAX), 64 << 20)] {
            assert_eq!(read(range, max_bytes).unwrap_err().kind(), ErrorKind::LimitExceeded);
        }
        assert_eq!(read(Some(5..9), 4).unwrap(), [0; 4]);
    }
}
