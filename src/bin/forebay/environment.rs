//! What a result depends on besides the code: the machine, and what this process took of it.

use std::fs::read_to_string;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

/// The machine and the build, for results.
pub fn facts() -> Value {
    let kernel = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    json!({
        "forebay": env!("CARGO_PKG_VERSION"),
        "kernel": kernel.ok(),
        "architecture": std::env::consts::ARCH,
        "processor": processor(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "vector_instructions": format!("{:?}", forebay::augment::Isa::detect()),
        "debug_build": cfg!(debug_assertions),
    })
}

fn processor() -> Option<String> {
    let text = read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// User and system time of this process so far.
pub fn cpu_time() -> Duration {
    let time = |value: TimeVal| Duration::from_micros(value.tv_sec() as u64 * 1_000_000 + value.tv_usec() as u64);
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| time(usage.user_time()) + time(usage.system_time()))
}

/// The most memory this process ever had resident.
pub fn peak_rss_bytes() -> Option<u64> {
    let text = read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
