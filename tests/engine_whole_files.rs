//! Small files are opened, read and closed in one go, and what cannot be read so is read the other way: the promises are
//! those of an open and a read.

mod engine_common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine_common::{Rig, TIMEOUT, content, rigs};
use forebay::engine::{Completion, Direct, EngineKind, EngineOptions, Outcome};
use forebay::{Error, ErrorKind};

/// What came of a file.
enum Whole {
    Read(Vec<u8>, forebay::engine::Identity),
    Opened(std::sync::Arc<forebay::engine::OpenFile>),
}

fn read_file(rig: &mut Rig, path: &Path, room: usize) -> Result<Whole, Error> {
    let mut region = rig.engine.arena().alloc(room)?.expect("the arena is empty");
    region.as_mut_slice().fill(0xEE);
    rig.engine.read_file(3, path, region);
    let mut completions = Vec::new();
    rig.engine.reap(1, TIMEOUT, &mut completions)?;
    let Completion { token, result } = completions.remove(0);
    assert_eq!(token, 3);
    Ok(match result? {
        Outcome::ReadFile { region, identity } => Whole::Read(region.as_slice().to_vec(), identity),
        Outcome::Opened(file) => Whole::Opened(file),
        other => panic!("{other:?}"),
    })
}

/// What the engine sim makes up is made up of opens and reads.
fn opens_first(rig: &Rig) -> bool {
    rig.engine.kind() == EngineKind::Sim
}

/// Fault row 3, of whole files: every length up to its region's, and one more byte.
#[test]
fn files_of_every_length() {
    let folder = tempfile::tempdir().unwrap();
    for len in (0..=8193).step_by(17).chain([4095, 4096, 4097, 8191, 8192, 8193]) {
        fs::write(folder.path().join(len.to_string()), content(len as u64, len)).unwrap();
    }
    for mut rig in rigs(1 << 20, 4) {
        for len in (0..=8193).step_by(17).chain([4095, 4096, 4097, 8191, 8192, 8193]) {
            let path = folder.path().join(len.to_string());
            match read_file(&mut rig, &path, 8192).unwrap() {
                Whole::Read(bytes, identity) => {
                    assert!(len <= 8192 && bytes == content(len as u64, len), "{} of {len}", rig.name);
                    assert_eq!(identity, rig.open(&path).unwrap().identity(), "{}", rig.name);
                }
                Whole::Opened(file) => {
                    assert!(len > 8192 || opens_first(&rig), "{} of {len}", rig.name);
                    assert!(rig.read(&file, 0, len).unwrap() == content(len as u64, len));
                }
            }
            assert_eq!(rig.engine.arena().used_bytes(), 0, "{}", rig.name);
        }
        let fallbacks = rig.engine.fallbacks();
        assert!(fallbacks.iter().all(|fallback| fallback.what != "linked opens"), "{fallbacks:?}");
    }
}

/// One round trip is what it is for: where io_uring has links, no open completes on its own.
#[test]
fn a_small_file_is_one_operation() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..200 {
        fs::write(folder.path().join(number.to_string()), content(number, 5000 + number as usize)).unwrap();
    }
    for mut rig in rigs(4 << 20, 16).into_iter().filter(|rig| !opens_first(rig)) {
        let (mut next, mut seen, mut completions) = (0, 0, Vec::new());
        while seen < 200 {
            while next < 200 && rig.engine.room() > 0 {
                let region = rig.engine.arena().alloc(8192).unwrap().unwrap();
                rig.engine.read_file(next, &folder.path().join(next.to_string()), region);
                next += 1;
            }
            rig.engine.reap(1, TIMEOUT, &mut completions).unwrap();
            for Completion { token, result } in completions.drain(..) {
                match result.unwrap() {
                    Outcome::ReadFile { region, .. } => {
                        assert!(region.as_slice() == content(token, 5000 + token as usize), "{}: {token}", rig.name);
                    }
                    other => panic!("{}: {other:?}", rig.name),
                }
                seen += 1;
            }
        }
        let counters = rig.engine.counters();
        assert_eq!((counters.opens, counters.reads), (200, 200), "{}", rig.name);
        assert_eq!(open_descriptors(folder.path()), 0, "{}", rig.name);
    }
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for mut rig in rigs(1 << 20, 4) {
        let mut error = |path: &Path| read_file(&mut rig, path, 4096).err().unwrap();
        let missing = error(&folder.path().join("missing"));
        assert!(missing.kind() == ErrorKind::NotFound && missing.to_string().contains("missing"), "{missing}");
        assert_eq!(error(folder.path()).kind(), ErrorKind::Unsupported, "a directory");
        assert_eq!(error(&pipe).kind(), ErrorKind::Unsupported, "a pipe without a writer");
        assert_eq!(error(Path::new("/dev/zero")).kind(), ErrorKind::Unsupported, "a device");
        assert_eq!(error(Path::new("a\0b")).kind(), ErrorKind::NotFound);
    }
}

/// Fault row 6, of whole files.
#[test]
fn o_direct_refused() {
    let file = Path::new("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
    let Ok(expected) = fs::read(file) else {
        eprintln!("skipped: {} does not exist", file.display());
        return;
    };
    for kind in [EngineKind::Uring, EngineKind::Pread] {
        let options = |direct| EngineOptions { direct, ..Default::default() };
        let Some(mut rig) = Rig::new(kind, 1 << 20, 4, options(Direct::Preferred)) else { continue };
        for _ in 0..30 {
            // What sysfs says of a file's length is not how much there is to read.
            match read_file(&mut rig, file, 4096) {
                Ok(Whole::Opened(file)) => assert_eq!(rig.read(&file, 0, expected.len()).unwrap(), expected),
                Ok(Whole::Read(..)) => panic!("{}", rig.name),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Truncated, "{error}"),
            }
        }
        assert!(rig.engine.fallbacks().iter().any(|fallback| fallback.what == "O_DIRECT"), "{}", rig.name);
        if kind == EngineKind::Uring {
            let fallbacks = rig.engine.fallbacks();
            let links = fallbacks.iter().find(|fallback| fallback.what == "linked opens");
            assert!(links.is_some_and(|links| links.cause.contains("hpage_pmd_size")), "{fallbacks:?}");
        }
        let mut required = Rig::new(kind, 1 << 20, 4, options(Direct::Required)).unwrap();
        assert_eq!(read_file(&mut required, file, 4096).err().unwrap().kind(), ErrorKind::Unavailable);
    }
}

/// Fault row 5: a file that is replaced all the time is read as one or the other, and never said to be newer than it is.
#[test]
fn replaced_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let versions: Vec<Vec<u8>> = (0..4).map(|version| vec![version as u8 + 1; 3000 + 1000 * (version / 2)]).collect();
    fs::write(&path, &versions[0]).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let other = folder.path().join("other");
                fs::write(&other, &versions[round % versions.len()]).unwrap();
                fs::rename(&other, &path).unwrap();
                round += 1;
            }
        });
        for mut rig in rigs(1 << 20, 4) {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(400) {
                match read_file(&mut rig, &path, 8192) {
                    Ok(Whole::Read(bytes, identity)) => {
                        assert!(versions.contains(&bytes), "{}: a mixture of {} bytes", rig.name, bytes.len());
                        assert_eq!(identity.size_bytes, bytes.len() as u64);
                    }
                    Ok(Whole::Opened(file)) => {
                        let len = file.size_bytes() as usize;
                        assert!(versions.contains(&rig.read(&file, 0, len).unwrap()), "{}", rig.name);
                    }
                    Err(error) => panic!("{}: {error}", rig.name),
                }
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Fault row 24, of whole files: dropped with any number in flight.
#[test]
fn dropped_with_files_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..12).map(|number| folder.path().join(number.to_string())).collect();
    paths.iter().for_each(|path| fs::write(path, content(4, 30_000)).unwrap());
    for submitted in 0..=paths.len() {
        for reaped in 0..=submitted.min(2) {
            for mut rig in rigs(4 << 20, 12) {
                let arena = rig.engine.arena().clone();
                for (number, path) in paths[..submitted].iter().enumerate() {
                    let region = arena.alloc(32 << 10).unwrap().unwrap();
                    rig.engine.read_file(number as u64, path, region);
                }
                let mut completions = Vec::new();
                rig.engine.reap(reaped, TIMEOUT, &mut completions).unwrap();
                drop(rig);
                drop(completions);
                assert_eq!(arena.used_bytes(), 0, "the engine gave every region back");
                let mut all = arena.alloc(arena.capacity_bytes()).unwrap().unwrap();
                all.as_mut_slice().fill(0x5A);
                assert!(all.as_slice().iter().all(|byte| *byte == 0x5A));
            }
        }
    }
    assert_eq!(open_descriptors(folder.path()), 0, "no descriptor leaked");
}

/// Descriptors of this process that are open on files of a folder.
fn open_descriptors(folder: &Path) -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.parent() == Some(folder)).count()
}
