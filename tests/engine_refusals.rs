//! What a kernel or a file system may refuse, and what is done and said then.

mod engine_common;

use std::fs;
use std::thread;

use engine_common::{Rig, content, seccomp};
use forebay::ErrorKind;
use forebay::engine::{Direct, Engine, EngineKind, EngineOptions};
use forebay::memory::Arena;

/// Fault row 6: O_DIRECT refused by a file system: the page cache, once in the report; `Required` is an error.
#[test]
fn fault_06_o_direct_refused() {
    for kind in [EngineKind::Uring, EngineKind::Pread] {
        let preferred = EngineOptions { direct: Direct::Preferred, ..Default::default() };
        let Some(mut rig) = Rig::new(kind, 1 << 20, 4, preferred) else { continue };
        // A file system without O_DIRECT that every Linux machine has, with files of a known size.
        let sys_file = std::path::Path::new("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
        let Ok(expected) = fs::read(sys_file) else {
            eprintln!("skipped: {} does not exist", sys_file.display());
            return;
        };
        for _ in 0..2 {
            let file = rig.open(sys_file).unwrap();
            assert!(!file.is_direct());
            assert_eq!(rig.read(&file, 0, expected.len()).unwrap(), expected);
        }
        let fallbacks = rig.engine.fallbacks();
        assert_eq!(fallbacks.len(), 1, "{fallbacks:?}");
        assert_eq!((fallbacks[0].what, fallbacks[0].instead, fallbacks[0].count), ("O_DIRECT", "the page cache", 2));
        assert!(fallbacks[0].cause.contains("hpage_pmd_size"), "{}", fallbacks[0]);

        let required = EngineOptions { direct: Direct::Required, ..Default::default() };
        let error = Rig::new(kind, 1 << 20, 4, required).unwrap().open(sys_file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.remedy().is_some());
    }
}

/// Fault row 6: memory file systems read the same bytes, with O_DIRECT or without.
#[test]
fn fault_06_a_memory_file_system_reads_the_same() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: no /dev/shm");
        return;
    };
    let path = folder.path().join("file");
    fs::write(&path, content(5, 70_001)).unwrap();
    for mut rig in engine_common::rigs(1 << 20, 4) {
        let file = rig.open(&path).unwrap();
        assert!(rig.read(&file, 11, 69_990).unwrap() == content(5, 70_001)[11..]);
    }
}

/// Fault row 8: io_uring blocked, as container runtimes do: pread threads with cause and remedy in the report; asked
/// for by name, an error.
#[test]
fn fault_08_io_uring_blocked() {
    // A filter holds for the thread that installs it and those it starts.
    thread::spawn(|| {
        seccomp::refuse(libc::SYS_io_uring_setup as u32, libc::EPERM as u32);
        let arena = Arena::new(1 << 20).unwrap();
        let error = Engine::new(EngineKind::Uring, &arena, 4, EngineOptions::default()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.remedy().unwrap().contains("seccomp"), "{error}");

        let (engine, fallbacks) = Engine::new(EngineKind::Auto, &arena, 4, EngineOptions::default()).unwrap();
        assert_eq!(engine.kind(), EngineKind::Pread);
        assert_eq!(fallbacks.len(), 1);
        assert_eq!((fallbacks[0].what, fallbacks[0].instead), ("io_uring", "pread threads"));
        assert!(fallbacks[0].cause.contains("not permitted") && fallbacks[0].remedy.contains("seccomp"));

        let mut rig = Rig { engine, name: "auto".into() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, content(6, 5000)).unwrap();
        let file = rig.open(&path).unwrap();
        assert!(rig.read(&file, 0, 5000).unwrap() == content(6, 5000));
    })
    .join()
    .unwrap();
}

/// Fault row 9: too little locked memory for the arena: unregistered reads, in the report.
#[test]
fn fault_09_memlock_limit_too_small() {
    let is_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    if !is_root {
        eprintln!("skipped: only root can become a user whose limit is enforced");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = folder.path().join("file");
    fs::write(&path, content(7, 300_000)).unwrap();
    let locked = nix::sys::resource::Resource::RLIMIT_MEMLOCK;
    let (_, hard) = nix::sys::resource::getrlimit(locked).unwrap();
    // The limit is the process's, but every other thread here is root, who is above it.
    nix::sys::resource::setrlimit(locked, 64 << 10, hard).unwrap();
    thread::spawn(move || {
        // SAFETY: the raw call changes the ids of this thread alone; the thread ends with the test.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        assert_eq!(changed, 0);
        let options = EngineOptions { direct: Direct::Preferred, ..Default::default() };
        let Some(mut rig) = Rig::new(EngineKind::Uring, 64 << 20, 4, options) else { return };
        let fallbacks = rig.engine.fallbacks();
        assert_eq!(fallbacks.len(), 1, "{fallbacks:?}");
        assert_eq!((fallbacks[0].what, fallbacks[0].instead), ("registered buffers", "unregistered reads"));
        assert!(fallbacks[0].remedy.contains("ulimit -l"), "{}", fallbacks[0]);
        let file = rig.open(&path).unwrap();
        assert!(rig.read(&file, 1, 299_998).unwrap() == content(7, 300_000)[1..299_999]);
    })
    .join()
    .unwrap();
}
