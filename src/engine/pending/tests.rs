use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::*;
use crate::engine::{Engine, EngineKind, EngineOptions, Outcome};
use crate::memory::Arena;

const READ_TIMEOUT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

fn engine(kind: EngineKind, arena: &Arena) -> crate::Result<Engine> {
    let options = EngineOptions {
        threads: 1,
        read_timeout: READ_TIMEOUT,
        direct: crate::engine::Direct::Off,
        ..EngineOptions::default()
    };
    Engine::new(kind, arena, 4, options).map(|(engine, _)| engine)
}

/// Waits for the only completion there is: the bytes of a read, or what it failed with.
fn complete(engine: &mut Engine) -> crate::Result<Vec<u8>> {
    let mut completions = vec![];
    engine.reap(1, LONG, &mut completions).unwrap();
    assert_eq!(completions.len(), 1);
    match completions.remove(0).result? {
        Outcome::Read(region) => Ok(region.as_slice().to_vec()),
        other => panic!("{other:?}"),
    }
}

fn assert_timed_out(engine: &mut Engine) {
    let begin = Instant::now();
    let error = complete(engine).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let text = error.to_string();
    assert!(text.contains("4096 bytes at offset 0") && text.contains("within 1s"), "{text}");
    assert!(begin.elapsed() >= READ_TIMEOUT && begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
    assert_eq!((engine.counters().timeouts, engine.in_flight()), (1, 0));
}

/// Reaps until nothing is overdue any more.
fn settle(engine: &mut Engine) {
    let begin = Instant::now();
    while engine.overdue() > 0 {
        assert!(begin.elapsed() < LONG, "it never ends");
        let mut completions = vec![];
        engine.reap(0, Duration::ZERO, &mut completions).unwrap();
        assert!(completions.is_empty(), "it has completed before");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Fault row 10, io_uring: the kernel is asked to let go of it, and does of a pipe.
#[test]
fn fault_10_io_uring_cancels_what_hangs() {
    let arena = Arena::new(64 << 10).unwrap();
    let mut engine = match engine(EngineKind::Uring, &arena) {
        Ok(engine) => engine,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let (reading, writing) = nix::unistd::pipe().unwrap();
    let pipe = Arc::new(OpenFile::of_pipe(reading, 4096));
    engine.read(1, &pipe, 0, 4096, arena.alloc(4096).unwrap().unwrap());
    assert_timed_out(&mut engine);
    settle(&mut engine);
    assert_eq!((arena.used_bytes(), engine.room()), (0, 4), "the kernel has let go of it");
    // One that has its bytes in time goes on from where it is.
    engine.read(2, &pipe, 0, 4096, arena.alloc(4096).unwrap().unwrap());
    let mut writing = std::fs::File::from(writing);
    writing.write_all(&[3; 1000]).unwrap();
    engine.reap(1, READ_TIMEOUT / 4, &mut vec![]).unwrap();
    writing.write_all(&[3; 3096]).unwrap();
    assert_eq!(complete(&mut engine).unwrap(), [3; 4096]);
}

/// Fault row 10, threads: what hangs keeps its thread and its memory, and another thread does the rest.
#[test]
fn fault_10_another_thread_does_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, [7; 8192]).unwrap();
    let arena = Arena::new(64 << 10).unwrap();
    let mut engine = engine(EngineKind::Pread, &arena).unwrap();
    let file = engine.open_now(&path).unwrap();
    let mut hangs = arena.alloc(4096).unwrap().unwrap();
    let missing = match Missing::new(hangs.as_mut_slice()) {
        Ok(missing) => missing,
        Err(error) => return eprintln!("skipped: userfaultfd(2) for faults of the kernel: {error}"),
    };
    engine.read(1, &file, 0, 4096, hangs);
    assert_timed_out(&mut engine);
    assert_eq!((engine.overdue(), arena.quarantined_bytes()), (1, 4096));
    for round in 0..20 {
        engine.read(round, &file, 4096, 4096, arena.alloc(4096).unwrap().unwrap());
        assert_eq!(complete(&mut engine).unwrap(), [7; 4096], "the arena goes round, and a thread is there");
    }
    drop(missing);
    settle(&mut engine);
    assert_eq!((arena.used_bytes(), engine.room()), (0, 4));

    // An engine that is dropped meanwhile leaves the read what it needs, and the arena goes on without that.
    let mut hangs = arena.alloc(4096).unwrap().unwrap();
    let Ok(missing) = Missing::new(hangs.as_mut_slice()) else { return };
    engine.read(1, &file, 0, 4096, hangs);
    engine.reap(1, READ_TIMEOUT / 10, &mut vec![]).unwrap();
    drop(engine);
    assert_eq!(arena.quarantined_bytes(), 4096);
    (0..20).for_each(|_| drop(arena.alloc(32 << 10).unwrap().unwrap()));
    drop(missing);
    let begin = Instant::now();
    while arena.used_bytes() > 0 {
        assert!(begin.elapsed() < LONG, "the thread ends once the kernel lets it");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Pages that are not there: whoever writes to them waits until this is dropped (userfaultfd(2)).
struct Missing {
    uffd: OwnedFd,
    range: [u64; 2],
}

impl Missing {
    fn new(pages: &mut [u8]) -> std::io::Result<Self> {
        const API: libc::c_ulong = 0xC018_AA3F;
        const REGISTER: libc::c_ulong = 0xC020_AA00;
        let range = [pages.as_mut_ptr() as u64, pages.len() as u64];
        // SAFETY: the pages are private anonymous memory that nobody else looks at, and lose only zeroes or old bytes; the
        // calls take a new descriptor, and structs of the sizes that their numbers name, which live through them.
        unsafe {
            if libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_DONTNEED) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            let uffd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) as i32;
            if uffd < 0 {
                return Err(std::io::Error::last_os_error());
            }
            let uffd = OwnedFd::from_raw_fd(uffd);
            let mut api = [0xAA_u64, 0, 0];
            let mut register = [range[0], range[1], 1, 0];
            let failed = libc::ioctl(uffd.as_raw_fd(), API, api.as_mut_ptr()) != 0
                || libc::ioctl(uffd.as_raw_fd(), REGISTER, register.as_mut_ptr()) != 0;
            if failed { Err(std::io::Error::last_os_error()) } else { Ok(Self { uffd, range }) }
        }
    }
}

impl Drop for Missing {
    fn drop(&mut self) {
        const UNREGISTER: libc::c_ulong = 0x8010_AA01;
        // SAFETY: as above. It wakes whoever waits for the pages, and the kernel fills them with zeroes.
        unsafe { libc::ioctl(self.uffd.as_raw_fd(), UNREGISTER, self.range.as_mut_ptr()) };
    }
}
