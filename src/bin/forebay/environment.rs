//! What a result depends on besides the code: the machine, and what this process took of it.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

/// The machine and the build, as results and `doctor` name them.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// This program's version.
    pub forebay: &'static str,
    /// Whether it was built without the optimisations of a release.
    pub debug_build: bool,
    /// Operating system, from its os-release file.
    pub os: String,
    /// Kernel and its version.
    pub kernel: String,
    /// The processor's family.
    pub architecture: &'static str,
    /// The processor's own name.
    pub processor: String,
    /// Threads that may run at once, control groups and affinity considered.
    pub cores: usize,
    /// Vector extensions that matter here and are there.
    pub vector_instructions: Vec<&'static str>,
    /// Memory in bytes; 0 where it cannot be told.
    pub memory_bytes: u64,
}

impl Environment {
    /// Asks the system.
    pub fn new() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let os_release = read("/etc/os-release");
        let os = value_of(&os_release, "PRETTY_NAME=").map(|name| name.trim_matches('"').to_owned());
        let cpu_info = read("/proc/cpuinfo");
        let processor = value_of(&cpu_info, "model name").map(|name| name.trim_start_matches([' ', '\t', ':']));
        Self {
            forebay: env!("CARGO_PKG_VERSION"),
            debug_build: cfg!(debug_assertions),
            os: os.unwrap_or_else(|| std::env::consts::OS.to_owned()),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            architecture: std::env::consts::ARCH,
            processor: processor.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            vector_instructions: vector_instructions(),
            memory_bytes: memory_bytes("MemTotal:").unwrap_or(0),
        }
    }
}

/// User and system time of this process so far.
pub fn cpu_time() -> Duration {
    let time = |value: TimeVal| Duration::from_micros(value.tv_sec() as u64 * 1_000_000 + value.tv_usec() as u64);
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| time(usage.user_time()) + time(usage.system_time()))
}

/// The most memory this process ever had resident.
pub fn peak_rss_bytes() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// A line of /proc/meminfo, in bytes.
pub fn memory_bytes(name: &str) -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

/// The value of a line such as `MemTotal:  16384 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let number: u64 = value_of(text, name)?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(target_arch = "x86_64")]
fn vector_instructions() -> Vec<&'static str> {
    let known = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
    ];
    known.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_instructions() -> Vec<&'static str> {
    vec![]
}
