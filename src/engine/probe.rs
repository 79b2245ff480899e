//! What the kernel has of io_uring, found by trying each thing: for `forebay doctor`.
//!
//! Nothing of a data set is read, and every ring is gone when the probe ends.

use std::io;

use io_uring::{Builder, IoUring, opcode, squeue, types};
use nix::errno::Errno;

use super::files::OPEN_FLAGS;
use crate::error::Result;
use crate::memory::{Arena, REGION_ALIGN_BYTES};
use crate::storage::Machine;

/// Entries of the rings that are tried.
const ENTRIES: u32 = 8;
/// The most that one registered buffer may hold (io_uring_register_buffers(3)).
const REGISTERED_BYTES_MAX: usize = 1 << 30;
/// How long a thread of the kernel that polls would stay awake.
const SQPOLL_IDLE_MS: u32 = 1;

/// What there is of io_uring.
#[derive(Clone, Debug)]
pub struct UringProbe {
    /// Why there is nothing of it, with what mends that.
    pub refusal: Option<(String, String)>,
    /// Each feature that was tried; empty where io_uring is refused.
    pub features: Vec<UringFeature>,
}

/// A feature of io_uring.
#[derive(Clone, Debug)]
pub struct UringFeature {
    /// Its name in the manual.
    pub name: &'static str,
    /// The first kernel that has it.
    pub since: &'static str,
    /// Why it is not to be had; none if it is.
    pub refusal: Option<String>,
    /// What its lack costs.
    pub cost: &'static str,
}

impl UringProbe {
    /// Tries it on this thread.
    pub fn this(machine: &Machine) -> Self {
        match IoUring::new(ENTRIES) {
            Ok(ring) => Self { refusal: None, features: features(&ring) },
            Err(error) => {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                Self { refusal: Some(why_refused(errno, machine)), features: Vec::new() }
            }
        }
    }
}

/// Bytes of an arena that the kernel takes as registered buffers, found by halving: the whole of it where nothing is in the
/// way, else as much as the limit on locked memory leaves. None where io_uring is refused.
///
/// # Errors
/// Those of making an arena of that size.
pub fn registrable_bytes(arena_bytes: usize) -> Result<Option<usize>> {
    let Ok(ring) = IoUring::new(ENTRIES) else { return Ok(None) };
    let arena = Arena::new(arena_bytes)?;
    let (start, all_bytes) = arena.reads();
    let fits = |len_bytes: usize| {
        let buffers: Vec<libc::iovec> = (0..len_bytes)
            .step_by(REGISTERED_BYTES_MAX)
            .map(|at| libc::iovec {
                iov_base: start.as_ptr().wrapping_add(at).cast(),
                iov_len: REGISTERED_BYTES_MAX.min(len_bytes - at),
            })
            .collect();
        // SAFETY: the buffers are parts of the arena's mapping, which outlives the registration, since it is taken back at
        // once; no operation is submitted that could write to them.
        let registered = unsafe { ring.submitter().register_buffers(&buffers) }.is_ok();
        registered && ring.submitter().unregister_buffers().is_ok()
    };
    Ok(Some(largest(all_bytes, REGION_ALIGN_BYTES, fits)))
}

/// The largest multiple of `unit` up to `most` for which `fits` holds, which holds for all below one that it holds for; or
/// `most`.
fn largest(most: usize, unit: usize, fits: impl Fn(usize) -> bool) -> usize {
    if most == 0 || fits(most) {
        return most;
    }
    let (mut fitting, mut too_many) = (0, most.div_ceil(unit));
    while too_many - fitting > 1 {
        let middle = fitting + (too_many - fitting) / 2;
        if fits(middle * unit) { fitting = middle } else { too_many = middle }
    }
    fitting * unit
}

fn features(ring: &IoUring) -> Vec<UringFeature> {
    let with = |set: fn(&mut Builder) -> &mut Builder| refusal(set(&mut IoUring::builder()).build(ENTRIES));
    let has = |is_there: bool| if is_there { None } else { Some("the kernel does not offer it".to_owned()) };
    let feature = |name, since, refusal, cost| UringFeature { name, since, refusal, cost };
    let threads = "without it reads go through pread threads: a thread for each read in flight";
    vec![
        feature("EXT_ARG", "5.11", has(ring.params().is_feature_ext_arg()), threads),
        feature("NODROP", "5.5", has(ring.params().is_feature_nodrop()), threads),
        feature(
            "registered files",
            "5.19",
            refusal(ring.submitter().register_files_sparse(ENTRIES).and_then(|()| ring.submitter().unregister_files())),
            "every read looks its file up anew: a little CPU time",
        ),
        feature(
            "direct descriptors",
            "5.15",
            refusal(open_direct()),
            "files of a folder are opened, read and closed by separate calls: more CPU time for small files",
        ),
        feature(
            "number of workers",
            "5.15",
            refusal(ring.submitter().register_iowq_max_workers(&mut [0, 0])),
            "at most four files a processor are opened at once: slow where opening waits for storage or a server",
        ),
        feature(
            "SINGLE_ISSUER",
            "6.0",
            with(|builder| builder.setup_single_issuer()),
            "the kernel locks what one thread alone uses: a little CPU time",
        ),
        feature(
            "DEFER_TASKRUN",
            "6.1",
            with(|builder| builder.setup_single_issuer().setup_defer_taskrun()),
            "completions interrupt the thread that reads: a little CPU time",
        ),
        feature(
            "SQPOLL",
            "5.11",
            with(|builder| builder.setup_sqpoll(SQPOLL_IDLE_MS)),
            "an option that is off by default",
        ),
        feature("IOPOLL", "5.1", with(|builder| builder.setup_iopoll()), "an option that is off by default"),
    ]
}

fn refusal<T>(tried: io::Result<T>) -> Option<String> {
    tried.err().map(|error| error.to_string())
}

/// Opens the root directory as a descriptor that only a ring knows.
fn open_direct() -> io::Result<()> {
    let mut ring = IoUring::new(ENTRIES)?;
    ring.submitter().register_files_sparse(ENTRIES)?;
    let slot = types::DestinationSlot::try_from_slot_target(0).map_err(|_| io::Error::from(io::ErrorKind::Other))?;
    let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c"/".as_ptr());
    // The flag for closing on exec is refused for a descriptor that no table of a process has.
    let entry = open.flags((OPEN_FLAGS.bits()) & !libc::O_CLOEXEC).file_index(Some(slot)).build();
    submit(&mut ring, &entry)
}

fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: the path that the entry points to is a literal, and the ring is new, so that the queue has room.
    unsafe { ring.submission().push(entry) }.map_err(|_| io::Error::from(io::ErrorKind::Other))?;
    ring.submit_and_wait(1)?;
    match ring.completion().next().map(|completion| completion.result()) {
        Some(result) if result < 0 => Err(io::Error::from_raw_os_error(-result)),
        Some(_) => Ok(()),
        None => Err(io::Error::from(io::ErrorKind::Interrupted)),
    }
}

/// Who refuses io_uring, of those that say the same: a kernel that is too old, the system's setting, or a filter on this
/// process.
fn why_refused(errno: Errno, machine: &Machine) -> (String, String) {
    let setting = machine.word("/proc/sys/kernel/io_uring_disabled");
    let status = machine.text("/proc/self/status").unwrap_or_default();
    let has_filter = status.lines().filter_map(|line| line.strip_prefix("Seccomp:")).any(|mode| mode.trim() == "2");
    let said = format!("io_uring_setup: {}", errno.desc());
    let (why, remedy) = match (errno, setting.as_deref(), has_filter) {
        (Errno::EPERM, Some("2"), _) => (
            "sysctl kernel.io_uring_disabled is 2, which forbids it to everyone",
            "sudo sysctl kernel.io_uring_disabled=0",
        ),
        (Errno::EPERM, Some("1"), _) => (
            "sysctl kernel.io_uring_disabled is 1, which forbids it without CAP_SYS_ADMIN or a group",
            "sudo sysctl kernel.io_uring_disabled=0, or name a group of this user: sudo sysctl kernel.io_uring_group=GID",
        ),
        (Errno::EPERM | Errno::EACCES | Errno::ENOSYS, _, true) => (
            "a seccomp filter is on this process, as container runtimes install it",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the profile: --security-opt \
             seccomp=PROFILE.json for a container",
        ),
        (Errno::EPERM | Errno::EACCES, ..) => (
            "something forbids it that is not seen from here, such as SELinux or AppArmor",
            "see the kernel's log: dmesg",
        ),
        (Errno::ENOSYS, ..) => {
            ("the kernel does not have it", "use Linux 5.11 or later with CONFIG_IO_URING, 6.1 or later if you can")
        }
        (Errno::ENOMEM, ..) => (
            "the limit on locked memory is too low for a ring",
            "raise it: ulimit -l unlimited, --ulimit memlock=-1 for a container",
        ),
        _ => ("nothing is known of that", "use --engine pread"),
    };
    (format!("{said}: {why}"), remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_fits_is_found_whatever_it_is() {
        for most in [0, 1, 4096, 4097, 10 << 20] {
            for limit in [0, 1, 4095, 4096, 8191, 8192, 1 << 20, 11 << 20] {
                let tries = std::cell::Cell::new(0);
                let found = largest(most, 4096, |len_bytes| {
                    tries.set(tries.get() + 1);
                    len_bytes <= limit
                });
                let expected = if most <= limit { most } else { limit / 4096 * 4096 };
                assert_eq!(found, expected, "{most} with {limit}");
                assert!(tries.get() < 15);
            }
        }
    }

    #[test]
    fn who_refuses_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let says = |errno, setting: Option<&str>, seccomp: &str| {
            let root = dir.path().join(format!("{errno}-{}-{seccomp}", setting.unwrap_or("none")));
            std::fs::create_dir_all(root.join("proc/sys/kernel")).unwrap();
            std::fs::create_dir_all(root.join("proc/self")).unwrap();
            if let Some(setting) = setting {
                std::fs::write(root.join("proc/sys/kernel/io_uring_disabled"), format!("{setting}\n")).unwrap();
            }
            std::fs::write(root.join("proc/self/status"), format!("Name:\tx\nSeccomp:\t{seccomp}\n")).unwrap();
            let (cause, remedy) = why_refused(errno, &Machine::at(root, "x86_64", |_| None));
            format!("{cause} | {remedy}")
        };
        for (errno, setting, seccomp, expected) in [
            (Errno::EPERM, Some("2"), "2", "io_uring_disabled=0"),
            (Errno::EPERM, Some("1"), "0", "io_uring_group"),
            (Errno::EPERM, Some("0"), "2", "seccomp=PROFILE"),
            (Errno::ENOSYS, None, "2", "seccomp=PROFILE"),
            (Errno::ENOSYS, None, "0", "Linux 5.11"),
            (Errno::EPERM, Some("0"), "0", "SELinux"),
            (Errno::ENOMEM, Some("0"), "0", "ulimit -l"),
            (Errno::EIO, None, "0", "--engine pread"),
        ] {
            let said = says(errno, setting, seccomp);
            assert!(said.contains(expected), "{errno} {setting:?} {seccomp}: {said}");
        }
    }

    #[test]
    fn this_kernel_is_probed_without_a_trace() {
        let descriptors = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let probe = UringProbe::this(&Machine::this());
        let registrable = registrable_bytes(4 << 20).unwrap();
        match &probe.refusal {
            Some((cause, remedy)) => {
                println!("io_uring is refused here: {cause}");
                assert!(!remedy.is_empty() && probe.features.is_empty() && registrable.is_none());
            }
            None => {
                assert!(probe.features.iter().any(|feature| feature.name == "direct descriptors"));
                assert!(registrable.unwrap() <= 4 << 20);
            }
        }
        // Other tests open files meanwhile; a leak would grow with every call.
        let before = descriptors();
        (0..50).for_each(|_| _ = UringProbe::this(&Machine::this()));
        assert!(descriptors() < before + 50);
    }
}
