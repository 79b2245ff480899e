//! The whole path in processes that may less than this one: the same digest, and a report that says what was not to be had.
#![cfg(feature = "cli")]

mod common;
mod engine_common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use engine_common::seccomp;
use serde_json::Value;

/// A user without rights, as Debian and Red Hat number `nobody`.
const NOBODY: libc::uid_t = 65_534;

struct Site {
    root: tempfile::TempDir,
    data_set: String,
}

impl Site {
    /// A data set, and a folder for results, that every user reaches.
    fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        let data_set = common::shards(root.path(), &common::samples(24, 2), 10);
        let site = Self { root, data_set };
        fs::create_dir(site.results()).expect("folder");
        for (path, mode) in [(site.root.path(), 0o755), (&site.results(), 0o777)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
        }
        site
    }

    fn results(&self) -> PathBuf {
        self.root.path().join("results")
    }

    fn load(&self, binary: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.args(["bench", "load", &self.data_set, "--batch", "4", "--size", "32", "--digest", "--json"]);
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

    fn expected(&self) -> Value {
        self.result_of(self.load(binary(), &["--engine", "pread"]))["digest"].clone()
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
    let expected = site.expected();
    let refusing = |errno: i32, more: &[&str]| {
        let mut command = site.load(binary(), more);
        // SAFETY: between fork and exec it makes two system calls on memory of its own stack.
        unsafe {
            command.pre_exec(move || {
                seccomp::refuse(libc::SYS_io_uring_setup as u32, errno as u32);
                Ok(())
            });
        }
        command
    };
    for (errno, words) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "Linux 5.11")] {
        let result = site.result_of(refusing(errno, &["--engine", "auto"]));
        assert_eq!((&result["digest"], &result["engine"]), (&expected, &Value::from("pread")));
        let fallback = fallback(&result, "io_uring");
        assert_eq!(fallback["instead"], "pread threads");
        assert!(fallback["cause"].as_str().is_some_and(|cause| cause.contains("io_uring_setup")), "{fallback}");
        assert!(fallback["remedy"].as_str().is_some_and(|remedy| remedy.contains(words)), "{fallback}");

        let refused = refusing(errno, &["--engine", "uring"]).output().expect("the binary runs");
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains("io_uring") && text(&refused).contains(words), "{}", text(&refused));
    }
}

#[test]
fn fault_09_with_little_locked_memory_the_digest_is_the_same_and_the_report_says_why() {
    // SAFETY: it has no conditions.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: only root can become a user whose limit is enforced");
        return;
    }
    let site = Site::new();
    let expected = site.expected();
    // Where it was built may be closed to others.
    let binary = site.root.path().join("forebay");
    if fs::hard_link(self::binary(), &binary).is_err() {
        fs::copy(self::binary(), &binary).expect("a copy");
    }
    let mut command = site.load(&binary, &["--engine", "auto", "--direct", "preferred"]);
    // SAFETY: between fork and exec it makes system calls only, on memory of its own stack.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
            let done = libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) == 0
                && libc::setgroups(0, std::ptr::null()) == 0
                && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
                && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0;
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let result = site.result_of(command);
    assert_eq!(result["digest"], expected);
    if result["engine"] != "uring" {
        eprintln!("io_uring is refused here: {}", fallback(&result, "io_uring"));
        return;
    }
    let fallback = fallback(&result, "registered buffers");
    assert_eq!(fallback["instead"], "unregistered reads");
    assert!(fallback["remedy"].as_str().is_some_and(|remedy| remedy.contains("ulimit -l")), "{fallback}");
}

#[test]
fn a_made_up_storage_is_ordered_on_the_command_line() {
    let site = Site::new();
    let expected = site.expected();
    let simulate = |more: &[&str]| site.load(binary(), &[&["--engine", "sim"], more].concat());
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
        let refused = site.load(binary(), arguments).output().expect("it runs");
        assert!(refused.status.code() == Some(2) && text(&refused).contains(words), "{}", text(&refused));
    }
    let io = Command::new(binary()).args(["bench", "io", "/dev/null", "--engine", "sim"]).output().expect("it runs");
    assert!(io.status.code() == Some(2) && text(&io).contains("--engine"), "{}", text(&io));
}
