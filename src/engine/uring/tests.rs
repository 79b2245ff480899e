//! What only the driver itself can show: which ring a read takes, and what is registered. What it reads, the tests of every
//! engine do.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::*;
use crate::engine::{Direct, OpenFile};

const TIMEOUT: Duration = Duration::from_secs(60);
const LEN: usize = 70_001;

/// A driver and what it needs; none where io_uring is refused.
fn driver(options: EngineOptions) -> Option<(Arc<Common>, Arena, Uring)> {
    let common = Arc::new(Common::new(8, options.direct, 1, options).unwrap());
    let arena = Arena::new(2 << 20).unwrap();
    match Uring::new(&common, &arena, 8, options) {
        Ok(uring) => Some((common, arena, uring)),
        Err(Refusal { cause, .. }) => {
            eprintln!("skipped: {cause}");
            None
        }
    }
}

fn options() -> EngineOptions {
    EngineOptions { direct: Direct::Preferred, ..Default::default() }
}

fn content() -> Vec<u8> {
    (0..LEN).map(|at| (at * 7 % 251) as u8).collect()
}

fn open(common: &Common, path: &Path) -> Arc<OpenFile> {
    common.open(CString::new(path.as_os_str().as_bytes()).unwrap()).unwrap()
}

fn begin(uring: &mut Uring, arena: &Arena, file: &Arc<OpenFile>, offset: u64) {
    let region = arena.alloc(LEN + 8192).unwrap().unwrap();
    uring.read(1, Transfer::new(Arc::clone(file), offset, LEN - offset as usize, region).unwrap());
}

fn end(uring: &mut Uring) -> Vec<u8> {
    let mut completions = Vec::new();
    uring.reap(1, TIMEOUT, &mut completions).unwrap();
    match completions.remove(0).result.unwrap() {
        Outcome::Read(region) => region.as_slice().to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_many_are_opened_at_once_as_may_be_in_flight() {
    // The last has the same thread, whose limit it must not lower.
    for (depth, at_least) in [(1, 1), (100, 100), (1, 100)] {
        let common = Arc::new(Common::new(depth, Direct::Off, 1, EngineOptions::default()).unwrap());
        let arena = Arena::new(2 << 20).unwrap();
        let Ok(uring) = Uring::new(&common, &arena, depth, EngineOptions::default()) else { return };
        let mut workers = [0; 2];
        uring.ring.io().submitter().register_iowq_max_workers(&mut workers).unwrap();
        assert!(workers[0] >= at_least, "{} of {at_least}", workers[0]);
    }
}

#[test]
fn a_thread_of_the_kernel_submits() {
    let Some((common, arena, mut uring)) = driver(EngineOptions { sqpoll: Polling::Required, ..options() }) else {
        return;
    };
    assert!(uring.ring.io().params().is_setup_sqpoll());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, content()).unwrap();
    let file = open(&common, &path);
    for round in 0..2000 {
        // Both while the thread looks and after it has gone to sleep.
        if round % 700 == 0 {
            std::thread::sleep(Duration::from_millis(80));
        }
        let offset = round % 5000;
        begin(&mut uring, &arena, &file, offset);
        assert!(end(&mut uring) == content()[offset as usize..]);
    }
    for _ in 0..8 {
        begin(&mut uring, &arena, &file, 0);
    }
    drop(uring);
    assert_eq!(arena.used_bytes(), 0);
}

/// Reads of a polled file take the ring that is polled, at the same time as others take the other. The device need have no
/// queues for it: the kernel then finds its completions all the same.
#[test]
fn polled_reads_have_a_ring_of_their_own() {
    let Some((common, arena, mut uring)) = driver(EngineOptions { iopoll: Polling::Preferred, ..options() }) else {
        return;
    };
    if uring.polled.is_none() {
        return eprintln!("skipped: {:?}", common.fallbacks.snapshot());
    }
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = folder.path().join("file");
    fs::write(&path, content()).unwrap();
    let (polled, other) = (open(&common, &path), open(&common, &path));
    if !polled.is_direct() {
        return eprintln!("skipped: no O_DIRECT in {}", folder.path().display());
    }
    polled.poll();
    begin(&mut uring, &arena, &polled, 5);
    assert_eq!((uring.polled.as_ref().map(Ring::in_flight), uring.ring.in_flight()), (Some(1), 0));
    assert!(end(&mut uring) == content()[5..]);
    for round in 0..200 {
        begin(&mut uring, &arena, &polled, round);
        begin(&mut uring, &arena, &other, round);
        assert!(end(&mut uring) == content()[round as usize..]);
        assert!(uring.in_flight() == 0 || end(&mut uring) == content()[round as usize..]);
        while uring.in_flight() > 0 {
            end(&mut uring);
        }
    }
    // What a file system cannot poll for is read without, on the other ring.
    begin(&mut uring, &arena, &polled, 0);
    begin(&mut uring, &arena, &other, 0);
    drop(uring);
    assert_eq!(arena.used_bytes(), 0);
}

#[test]
fn files_that_stay_open_are_registered_until_they_are_dropped() {
    let Some((common, arena, mut uring)) = driver(options()) else { return };
    let Some(table) = &uring.table else { return eprintln!("skipped: {:?}", common.fallbacks.snapshot()) };
    let vacant = table.vacant();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard-of-the-table");
    fs::write(&path, content()).unwrap();
    let passing = open(&common, &path);
    begin(&mut uring, &arena, &passing, 0);
    assert!(end(&mut uring) == content() && passing.place().get().is_none(), "it is read once");
    drop(passing);

    let staying = open(&common, &path);
    staying.keep_open();
    for offset in [0, 1, 4096] {
        begin(&mut uring, &arena, &staying, offset);
        assert!(end(&mut uring) == content()[offset as usize..]);
    }
    assert_eq!(uring.table.as_ref().map(Table::vacant), Some(vacant - 1));
    // Another ring knows nothing of it.
    if let Some((_, arena, mut other)) = driver(options()) {
        begin(&mut other, &arena, &staying, 3);
        assert!(end(&mut other) == content()[3..]);
        assert_eq!(other.table.as_ref().map(Table::vacant), Some(vacant));
    }
    drop(staying);
    uring.reap(0, Duration::ZERO, &mut Vec::new()).unwrap();
    assert_eq!(uring.table.as_ref().map(Table::vacant), Some(vacant));
    // The kernel lists what is registered, where it lists anything.
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", uring.ring.io().as_raw_fd())).unwrap();
    assert!(!info.contains("shard-of-the-table"), "{info}");
}

/// More of them than there are places are read by their descriptors.
#[test]
fn a_full_table_is_no_limit() {
    let Some((common, arena, mut uring)) = driver(options()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, content()).unwrap();
    let files: Vec<_> = (0..300)
        .map(|_| {
            let file = open(&common, &path);
            file.keep_open();
            file
        })
        .collect();
    for file in files.iter().chain(&files) {
        begin(&mut uring, &arena, file, 9);
        assert!(end(&mut uring) == content()[9..]);
    }
    assert!(files[0].place().get().is_some() && files[299].place().get().is_none());
    assert_eq!(common.fallbacks.snapshot(), []);
}
