//! Row 13 of the fault table: an indexer killed before any of its writes leaves the old index, and behind the renaming
//! the new one.

use std::ffi::c_long;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::cli_support::forebay;
use crate::common::{self, folder};
use crate::index_support::{index, records, required, said, samples};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// System calls by which what is on the disk changes.
const WRITES: &[c_long] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
];

const RENAMES: &[c_long] = &[
    libc::SYS_renameat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
];

#[test]
fn killed_before_any_write_there_is_the_old_index_or_the_new_one() {
    if !may_trace() {
        eprintln!("SKIPPED: ptrace(2) is forbidden here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut photos = samples(30, 3);
    // Entry points of more than the writer's buffer holds.
    photos.extend((0..8).map(|number| (format!("class0/large{number}"), 0, large_jpeg(number))));
    let root = folder(dir.path(), &photos);
    index(&root);
    let old = records(&*required(&root));
    let listing = said(&*required(&root));
    let kept = fs::read(sidecar(&root)).unwrap();

    let (mut new, mut kills) = (Vec::new(), 0);
    for nth in 1.. {
        let traced = Traced::run(command(&root), nth);
        let source = required(&root);
        assert_eq!(said(&*source), listing);
        let now = records(&*source);
        let is_renamed = traced.writes.iter().any(|write| RENAMES.contains(write));
        if is_renamed {
            new.push(now);
        } else {
            assert!(now == old, "killed before write {nth}, {:?}", traced.writes);
        }
        if !traced.is_killed {
            assert!(traced.writes.contains(&libc::SYS_fsync) && is_renamed, "{:?}", traced.writes);
            break;
        }
        kills += 1;
        fs::write(sidecar(&root), &kept).unwrap();
    }
    assert!(new.iter().all(|records| *records == new[0] && *records != old));
    assert!(kills > 4 && new.len() > 1, "{kills} kills, {} behind the renaming", new.len() - 1);
    // What the killed left behind is gone with the one that came through.
    let names: Vec<_> = fs::read_dir(root.join(".forebay")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [sidecar(&root)]);
}

fn sidecar(root: &Path) -> std::path::PathBuf {
    root.join(".forebay/index-00000-of-00001.arrow")
}

fn command(root: &Path) -> Command {
    let mut command = forebay();
    command.arg("index").arg(root).args(["--entry-bits", "64", "--force", "--threads", "2", "--part", "0/1"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn large_jpeg(number: usize) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = Encoder::new(&mut bytes, 90);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    let pixels = common::pixels(number, 1600, 1200);
    encoder.encode(&pixels, 1600, 1200, ColorType::Rgb).expect("encoding");
    bytes
}

/// Whether a child may be traced: sandboxes forbid it.
fn may_trace() -> bool {
    let mut command = forebay();
    command.arg("--version").stdout(Stdio::null());
    // SAFETY: between fork and exec there is one system call and no allocation.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(io::Error::from)) };
    let traced = command.spawn();
    traced.map(|mut child| kill(&mut child)).is_ok()
}

/// A process that was run under ptrace(2).
struct Traced {
    /// The writes that it made, by the numbers of the calls.
    writes: Vec<c_long>,
    /// Whether there was one more, before which it was killed.
    is_killed: bool,
}

impl Traced {
    /// Runs a command and kills it before its n-th write, all threads counted together.
    #[allow(clippy::zombie_processes, reason = "waitpid(2) is told of its end")]
    fn run(mut command: Command, nth: usize) -> Self {
        // SAFETY: between fork and exec there is one system call and no allocation.
        unsafe { command.pre_exec(|| ptrace::traceme().map_err(io::Error::from)) };
        let mut child = command.spawn().expect("a child that may be traced");
        let main = Pid::from_raw(child.id() as i32);
        // It stops as its program begins.
        assert!(matches!(waitpid(main, None), Ok(WaitStatus::Stopped(..))));
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(main, options).unwrap();
        ptrace::syscall(main, None).unwrap();
        let mut writes = Vec::new();
        loop {
            // Threads of the child too, and no child of another thread of this process.
            let stopped = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap();
            let (thread, signal) = match stopped {
                WaitStatus::Exited(pid, status) if pid == main => {
                    assert_eq!(status, 0);
                    return Self { writes, is_killed: false };
                }
                WaitStatus::PtraceSyscall(thread) => {
                    if let Some(call) = call_entered(thread).filter(|call| WRITES.contains(call)) {
                        if writes.len() + 1 == nth {
                            kill(&mut child);
                            return Self { writes, is_killed: true };
                        }
                        writes.push(call);
                    }
                    (thread, None)
                }
                WaitStatus::PtraceEvent(thread, ..) => (thread, None),
                // A new thread begins with a stop of its own, which is no signal to pass on.
                WaitStatus::Stopped(thread, signal) => {
                    (thread, Some(signal).filter(|signal| *signal as i32 != libc::SIGSTOP))
                }
                WaitStatus::Signaled(pid, signal, _) if pid == main => panic!("ended by {signal:?}"),
                _ => continue,
            };
            ptrace::syscall(thread, signal).unwrap();
        }
    }
}

/// The system call that a thread is about to make, if it is not returning from one.
fn call_entered(thread: Pid) -> Option<c_long> {
    let info = ptrace::syscall_info(thread).unwrap();
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says which member of the union the kernel has filled in.
    Some(unsafe { info.u.entry.nr } as c_long)
}

/// Kills a traced child and reaps all of its threads.
fn kill(child: &mut Child) {
    child.kill().unwrap();
    while waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).is_ok() {}
}
