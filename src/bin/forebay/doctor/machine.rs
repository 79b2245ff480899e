//! Processor, memory and the limits that the system sets.

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::{Fact, human_bytes};
use crate::environment::{Environment, memory_bytes};

/// Below this, page-locked buffers of a usual batch do not fit.
const MEMLOCK_ENOUGH_BYTES: u64 = 1 << 30;
/// Shards and small files open at once, with room for the training job's own.
const OPEN_FILES_ENOUGH: u64 = 4096;

pub fn facts(environment: &Environment) -> Vec<Fact> {
    let Environment { os, kernel, processor, cores, vector_instructions, memory_bytes: memory, .. } = environment;
    let available = memory_bytes("MemAvailable:").map_or("unknown".into(), human_bytes);
    vec![
        Fact::new("system", format!("{os}, {kernel}")),
        Fact::new("processor", format!("{processor}, {cores} cores")),
        vectors(vector_instructions),
        Fact::new("memory", format!("{}, {available} available", human_bytes(*memory))),
        huge_pages(),
        locked_memory(),
        open_files(),
    ]
}

fn vectors(there: &[&str]) -> Fact {
    let value = if there.is_empty() { "none".into() } else { there.join(" ") };
    let lacking = cfg!(target_arch = "x86_64") && !["avx2", "fma", "f16c"].iter().all(|name| there.contains(name));
    Fact::new("vector extensions", value).short_if(
        lacking,
        "decoding and augmentation run their scalar code: the same pixels, several times slower",
        "a processor since Haswell (2013) or Zen; in a virtual machine, pass the host's processor through",
    )
}

fn huge_pages() -> Fact {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(word, _)| word);
    Fact::new("huge pages", format!("transparent: {chosen}")).short_if(
        chosen == "never",
        "buffers consist of small pages, which makes registered reads slower",
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    )
}

fn locked_memory() -> Fact {
    let Some(limit) = soft_limit(Resource::RLIMIT_MEMLOCK) else { return Fact::new("locked memory", "unknown") };
    if may_lock_memory() {
        let limit = limit_text(limit, human_bytes);
        return Fact::new("locked memory", format!("{limit}, which CAP_IPC_LOCK lifts"));
    }
    Fact::new("locked memory", limit_text(limit, human_bytes)).short_if(
        limit < MEMLOCK_ENOUGH_BYTES,
        "buffers beyond it cannot be registered with the kernel, so every read maps its pages anew",
        "raise it: `ulimit -l unlimited`, LimitMEMLOCK=infinity in a unit, --ulimit memlock=-1 for a container",
    )
}

/// Whether this process has CAP_IPC_LOCK, number 14, as root usually does.
fn may_lock_memory() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> 14 & 1 == 1)
}

fn open_files() -> Fact {
    let Some(limit) = soft_limit(Resource::RLIMIT_NOFILE) else { return Fact::new("open files", "unknown") };
    Fact::new("open files", limit_text(limit, |n| n.to_string())).short_if(
        limit < OPEN_FILES_ENOUGH,
        "a data set of more shards than this opens and closes them over and over",
        "raise it: `ulimit -n 65536`, LimitNOFILE=65536 in a unit, --ulimit nofile=65536 for a container",
    )
}

fn soft_limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).ok().map(|(soft, _)| soft)
}

fn limit_text(limit: u64, text: impl Fn(u64) -> String) -> String {
    if limit == RLIM_INFINITY { "unlimited".into() } else { text(limit) }
}
