//! The whole path in processes that may less than this one: the same digest, and a report that says what was not to be had.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common;
use crate::engine_common::seccomp;
use serde_json::Value;

/// The first of the users whom nobody is.
const STRANGERS: libc::uid_t = 61_000;

struct Site {
    root: tempfile::TempDir,
    /// The same samples in shards and in a folder, whose digests differ by their order.
    data_sets: [String; 2],
}

impl Site {
    /// Data sets, and a folder for results, that every user reaches.
    fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        let samples = common::samples(24, 2);
        let shards = common::shards(root.path(), &samples, 10);
        let folder = common::folder(root.path(), &samples).display().to_string();
        let site = Self { root, data_sets: [shards, folder] };
        fs::create_dir(site.results()).expect("folder");
        for (path, mode) in [(site.root.path(), 0o755), (&site.results(), 0o777)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
        }
        site
    }

    /// The binary where every user reaches it.
    fn binary(&self) -> PathBuf {
        let binary = self.root.path().join("forebay");
        if !binary.exists() && fs::hard_link(self::binary(), &binary).is_err() {
            fs::copy(self::binary(), &binary).expect("a copy");
        }
        binary
    }

    fn results(&self) -> PathBuf {
        self.root.path().join("results")
    }

    fn load(&self, binary: &Path, data_set: &str, more: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.args(["bench", "load", data_set, "--batch", "4", "--size", "32", "--digest", "--json"]);
        command.arg(self.results().join("result.json")).args(more);
        command
    }

    /// Runs it and reads its result.
    fn result_of(&self, mut command: Command) -> Value {
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = self.results().join("result.json");
        let result = serde_json::from_slice(&fs::read(&path).expect("a result")).expect("JSON");
        fs::remove_file(path).expect("the next is another");
        result
    }

    fn expected(&self, data_set: &str) -> Value {
        self.result_of(self.load(binary(), data_set, &["--engine", "pread"]))["digest"].clone()
    }
}

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_forebay"))
}

fn fallback<'a>(result: &'a Value, what: &str) -> &'a Value {
    let fallbacks = result["fallbacks"].as_array().expect("fallbacks");
    fallbacks.iter().find(|fallback| fallback["what"] == what).unwrap_or_else(|| panic!("no {what} in {result}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn fault_08_without_io_uring_the_digest_is_the_same_and_the_report_says_why() {
    let site = Site::new();
    let refusing = |errno: i32, data_set: &str, more: &[&str]| {
        let mut command = site.load(binary(), data_set, more);
        // SAFETY: between fork and exec it makes two system calls on memory of its own stack.
        unsafe {
            command.pre_exec(move || {
                seccomp::refuse(libc::SYS_io_uring_setup as u32, errno as u32);
                Ok(())
            });
        }
        command
    };
    for data_set in &site.data_sets {
        let expected = site.expected(data_set);
        for (errno, words) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "Linux 5.11")] {
            let result = site.result_of(refusing(errno, data_set, &["--engine", "auto"]));
            assert_eq!((&result["digest"], &result["engine"]), (&expected, &Value::from("pread")));
            let fallback = fallback(&result, "io_uring");
            assert_eq!(fallback["instead"], "pread threads");
            assert!(fallback["cause"].as_str().is_some_and(|cause| cause.contains("io_uring_setup")), "{fallback}");
            assert!(fallback["remedy"].as_str().is_some_and(|remedy| remedy.contains(words)), "{fallback}");

            let refused = refusing(errno, data_set, &["--engine", "uring"]).output().expect("the binary runs");
            assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
            assert!(text(&refused).contains("io_uring") && text(&refused).contains(words), "{}", text(&refused));
        }
    }
}

/// Makes a command run as a user without rights, with so little memory to lock, and perhaps without io_uring. Each time it is
/// another user, since what the rings of one lock counts against all of his programs, and is given back some time after they end.
fn as_nobody(command: &mut Command, lockable_bytes: u64, has_uring: bool) {
    static USERS: AtomicU32 = AtomicU32::new(STRANGERS);
    let user = USERS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: between fork and exec it makes system calls only, on memory of its own stack.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: lockable_bytes, rlim_max: lockable_bytes };
            let done = libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) == 0
                && libc::setgroups(0, std::ptr::null()) == 0
                && libc::setresgid(user, user, user) == 0
                && libc::setresuid(user, user, user) == 0;
            if !done {
                return Err(std::io::Error::last_os_error());
            }
            if !has_uring {
                seccomp::refuse(libc::SYS_io_uring_setup as u32, libc::EPERM as u32);
            }
            Ok(())
        });
    }
}

fn may_become_nobody() -> bool {
    // SAFETY: it has no conditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        eprintln!("skipped: only root can become a user whose limit is enforced");
    }
    is_root
}

#[test]
fn fault_09_with_little_locked_memory_the_digest_is_the_same_and_the_report_says_why() {
    if !may_become_nobody() {
        return;
    }
    let site = Site::new();
    let binary = site.binary();
    for data_set in &site.data_sets {
        let expected = site.expected(data_set);
        for kib in [64, 1024] {
            let mut command = site.load(&binary, data_set, &["--engine", "auto", "--direct", "preferred"]);
            as_nobody(&mut command, kib << 10, true);
            let result = site.result_of(command);
            assert_eq!(result["digest"], expected);
            if result["engine"] != "uring" {
                eprintln!("io_uring is refused here: {}", fallback(&result, "io_uring"));
                return;
            }
            let fallback = fallback(&result, "registered buffers");
            assert_eq!(fallback["instead"], "unregistered reads");
            assert!(fallback["remedy"].as_str().is_some_and(|remedy| remedy.contains("ulimit -l")), "{fallback}");
            // What rings leave of the limit is registered all the same, although the arena lies in huge pages.
            let words = fallback["cause"].as_str().unwrap_or_default().split_whitespace();
            let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
            assert!(matches!(numbers[..], [_, registered] if (kib / 16..=kib).contains(&registered)), "{fallback}");
            assert!(
                fallback["cause"].as_str().is_some_and(|cause| cause.ends_with("of it are registered")),
                "{fallback}"
            );
        }
    }
}

/// All at once: no io_uring, hardly any locked memory, and a file system without O_DIRECT.
#[test]
fn where_everything_is_refused_the_digest_is_the_same_and_the_report_says_so() {
    if !may_become_nobody() {
        return;
    }
    let site = Site::new();
    let binary = site.binary();
    // Few file systems refuse O_DIRECT: ramfs does, in a namespace of its own.
    let refuses = site.root.path().join("refuses");
    fs::create_dir(&refuses).expect("folder");
    let mut command = Command::new("unshare");
    let script = r#"mount -t ramfs none "$1" && cp -r "$2" "$1/folder" && chmod -R a+rX "$1" && shift 2 && exec "$@""#;
    command.args(["--mount", "sh", "-c", script, "sh"]).args([refuses.as_path(), Path::new(&site.data_sets[1])]);
    if !command.arg("true").output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no mount namespace, or no ramfs");
    }
    let expected = site.expected(&site.data_sets[1]);
    for has_uring in [true, false] {
        let there = refuses.join("folder").display().to_string();
        let inner = site.load(&binary, &there, &["--engine", "auto", "--direct", "preferred"]);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).args([refuses.as_path(), Path::new(&site.data_sets[1])]);
        // The mount needs root's rights; what is loaded from it runs without.
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
        command.args(["prlimit", "--memlock=65536:65536"]).arg(inner.get_program()).args(inner.get_args());
        if !has_uring {
            // SAFETY: between fork and exec it makes two system calls on memory of its own stack.
            unsafe {
                command.pre_exec(|| {
                    seccomp::refuse(libc::SYS_io_uring_setup as u32, libc::EPERM as u32);
                    Ok(())
                });
            }
        }
        let result = site.result_of(command);
        assert_eq!(result["digest"], expected);
        let refused = fallback(&result, "O_DIRECT");
        assert!(refused["instead"] == "the page cache" && refused["cause"].to_string().contains("folder"), "{refused}");
        if !has_uring {
            assert_eq!(
                (&result["engine"], &fallback(&result, "io_uring")["instead"]),
                (&Value::from("pread"), &Value::from("pread threads"),)
            );
        }
        assert!(result["arena"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{result}");
    }
}

#[test]
fn a_made_up_storage_is_ordered_on_the_command_line() {
    let site = Site::new();
    let shards = &site.data_sets[0];
    let expected = site.expected(shards);
    let simulate = |more: &[&str]| site.load(binary(), shards, &[&["--engine", "sim"], more].concat());
    let survived = "short,interrupted,eio,enomem,direct-open,direct-read,replaced";
    for seed in ["0", "1", "2"] {
        let result = site.result_of(simulate(&["--sim-seed", seed, "--sim-faults", survived, "--direct", "preferred"]));
        assert_eq!((&result["digest"], &result["engine"]), (&expected, &Value::from("sim")));
        assert!(result["notes"].to_string().contains("simulated"), "{result}");
    }
    let hung = simulate(&["--sim-seed", "5", "--sim-faults", "hang", "--read-timeout", "7"]).output().expect("it runs");
    assert_eq!(hung.status.code(), Some(1), "{}", text(&hung));
    for word in ["within 7s", "train-0", "--read-timeout"] {
        assert!(text(&hung).contains(word), "{word}: {}", text(&hung));
    }
    for (arguments, words) in [
        (&["--engine", "sim", "--sim-faults", "gremlins"][..], "gremlins"),
        (&["--engine", "pread", "--sim-faults", "eio"], "--engine sim"),
        (&["--read-timeout", "0"], "--read-timeout"),
        (&["--read-timeout", "NaN"], "--read-timeout"),
    ] {
        let refused = site.load(binary(), shards, arguments).output().expect("it runs");
        assert!(refused.status.code() == Some(2) && text(&refused).contains(words), "{}", text(&refused));
    }
    let io = Command::new(binary()).args(["bench", "io", "/dev/null", "--engine", "sim"]).output().expect("it runs");
    assert!(io.status.code() == Some(2) && text(&io).contains("--engine"), "{}", text(&io));
}
