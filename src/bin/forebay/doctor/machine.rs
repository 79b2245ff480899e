//! Processor, memory and the limits that the system sets.

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use forebay::storage::Machine;

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
        lacking(kernel),
        Fact::new("processor", format!("{processor}, {cores} cores")),
        vectors(vector_instructions),
        Fact::new("memory", format!("{}, {available} available", human_bytes(*memory))),
        huge_pages(),
        numa(&Machine::this()),
        locked_memory(),
        open_files(),
    ]
}

/// What kernels before a version lack, and what that costs.
const KERNEL_HAS: [((u32, u32), &str, &str); 4] = [
    ((6, 1), "deferred completions and STATX_DIOALIGN", "a little CPU time, and direct reads of at least 4 KiB units"),
    ((5, 19), "sparse tables of registered files", "a little CPU time for every read"),
    (
        (5, 15),
        "direct descriptors and numbers of workers",
        "more system calls for small files, fewer of which are opened at once",
    ),
    ((5, 11), "io_uring waits with a timeout", "reads go through pread threads"),
];

/// What the kernel is too old for.
fn lacking(kernel: &str) -> Fact {
    let name = "kernel";
    let Some(version) = version(kernel) else { return Fact::new(name, format!("unknown version: {kernel}")) };
    let lacks: Vec<_> = KERNEL_HAS.iter().filter(|(since, ..)| version < *since).collect();
    if lacks.is_empty() {
        return Fact::new(name, "has all that is used here");
    }
    let (what, costs): (Vec<_>, Vec<_>) = lacks.iter().map(|(_, what, cost)| (*what, *cost)).unzip();
    Fact::new(name, format!("lacks {}", what.join("; "))).short(costs.join("; "), "use Linux 6.1 or later")
}

/// The first two numbers of a version, such as those of `Linux 6.1.0-18-amd64`.
fn version(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.trim_start_matches(|c: char| !c.is_ascii_digit()).split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The NUMA nodes that have memory, with their processors.
fn numa(machine: &Machine) -> Fact {
    let directory = "/sys/devices/system/node";
    let names = machine.names(directory);
    let numbers = names.iter().filter_map(|name| name.strip_prefix("node")?.parse::<u32>().ok());
    let mut nodes: Vec<_> = numbers.collect();
    nodes.sort_unstable();
    let word = |node: u32, file: &str| machine.word(format!("{directory}/node{node}/{file}")).unwrap_or_default();
    match &nodes[..] {
        [] => Fact::new("NUMA", "not told by the kernel"),
        [_] => Fact::new("NUMA", "one node"),
        several => {
            let told = several.iter().map(|node| format!("{node} (processors {})", word(*node, "cpulist")));
            let value = format!("{} nodes: {}", several.len(), told.collect::<Vec<_>>().join(", "));
            let status = machine.text("/proc/self/status").unwrap_or_default();
            let allowed = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:")).map(str::trim);
            if let Some(node) = allowed.and_then(|list| list.parse::<u32>().ok()) {
                return Fact::new("NUMA", format!("{value}; memory of this process is bound to node {node}"));
            }
            Fact::new("NUMA", value).short(
                "a loader's threads are pinned to the node of its device (--pin auto), but the program's own threads, the drive and \
                 the GPU may lie on different nodes: bytes cross the link between",
                "start it with `numactl --cpunodebind=N --membind=N`, with N from                  /sys/block/DISK/device/numa_node or `nvidia-smi topo -m`",
            )
        }
    }
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
    Fact::new("huge pages", format!("transparent: {chosen}; pool: {}", pool(&Machine::this()))).short_if(
        chosen == "never",
        "buffers consist of small pages, which makes registered reads slower",
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    )
}

/// Huge pages that were set aside, by their size.
fn pool(machine: &Machine) -> String {
    let directory = "/sys/kernel/mm/hugepages";
    let sizes = machine.names(directory).into_iter().filter_map(|name| {
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let number = |file: &str| machine.word(format!("{directory}/{name}/{file}"))?.parse::<u64>().ok();
        let (all, free) = (number("nr_hugepages")?, number("free_hugepages")?);
        (all > 0).then(|| format!("{free} of {all} of {} free", human_bytes(kib.saturating_mul(1024))))
    });
    let told: Vec<_> = sizes.collect();
    if told.is_empty() { "none".into() } else { told.join(", ") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_follows_from_its_version() {
        for (kernel, lacks) in [
            ("Linux 6.18.44", 0),
            ("Linux 6.1.0-18-amd64", 0),
            ("Linux 5.15.0-91-generic", 2),
            ("Linux 5.4.0", 4),
            ("Linux 4.18.0-553.el8", 4),
        ] {
            let fact = lacking(kernel);
            let told = fact.shortfall.as_ref().map_or(0, |shortfall| shortfall.cost.split("; ").count());
            assert_eq!(told, lacks, "{kernel}: {}", fact.value);
        }
        for kernel in ["", "Linux", "Linux six", "Linux 99999999999.1"] {
            assert!(lacking(kernel).value.starts_with("unknown version"), "{kernel}");
        }
    }

    #[test]
    fn nodes_and_huge_pages_are_read_from_sysfs() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let machine = Machine::at(root.path().to_owned(), "x86_64", |_| None);
        assert_eq!((numa(&machine).value.as_str(), pool(&machine).as_str()), ("not told by the kernel", "none"));
        write("sys/devices/system/node/node0/cpulist", "0-15\n");
        write("sys/devices/system/node/online", "0\n");
        assert_eq!(numa(&machine).value, "one node");
        write("sys/devices/system/node/node1/cpulist", "16-31\n");
        let two = numa(&machine);
        assert_eq!(two.value, "2 nodes: 0 (processors 0-15), 1 (processors 16-31)");
        assert!(two.shortfall.is_some_and(|shortfall| shortfall.remedy.contains("numactl")));
        write("proc/self/status", "Name:\tx\nMems_allowed_list:\t1\n");
        assert!(numa(&machine).shortfall.is_none() && numa(&machine).value.ends_with("bound to node 1"));
        for (size, all, free) in [("2048", "512", "500"), ("1048576", "0", "0")] {
            write(&format!("sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages"), all);
            write(&format!("sys/kernel/mm/hugepages/hugepages-{size}kB/free_hugepages"), free);
        }
        assert_eq!(pool(&machine), "500 of 512 of 2.0 MiB free");
    }
}
