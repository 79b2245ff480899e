//! Where a path lies: the file system with its options, and the disks under it. A function of a machine's files, so that
//! machines that nobody has can be looked at too.

use std::path::Path;
use std::process::Command;

use forebay::storage::{Disk, DiskKind, Disks, Layer, Machine, Mount};

use super::{Fact, human_bytes};

/// What NFS moves at once if it may, and what is asked for less often because of it.
const NFS_SIZE_BYTES: u64 = 1 << 20;
/// Connections beyond which more bring little.
const NFS_CONNECTIONS: u32 = 8;
/// A file from which on more than one server of Lustre should have a part of it.
const STRIPED_FROM_BYTES: u64 = 1 << 30;
const DEVICES_NAMED_MAX: usize = 8;

/// What is asked of Lustre's own tool about a path: the number that an option makes it print.
pub type AskLustre<'a> = &'a dyn Fn(&str, &Path) -> Option<u64>;

/// The facts of a canonical path on a machine; `file` is a file at or below it, with its length.
pub fn facts(machine: &Machine, path: &Path, file: Option<(&Path, u64)>, ask_lustre: AskLustre<'_>) -> Vec<Fact> {
    let Some(mount) = Mount::of(machine, path) else {
        return vec![Fact::new("file system", "unknown: the mount table does not say")];
    };
    let Mount { directory, kind, source, device, .. } = &mount;
    let mut facts = vec![file_system(kind, source, directory)];
    match kind.as_str() {
        "nfs" | "nfs4" => facts.extend(nfs(&mount)),
        "lustre" => facts.extend(lustre(path, file, ask_lustre)),
        _ => {
            let disks = Disks::look(machine, device);
            if !disks.disks.is_empty() {
                facts.extend(layers(&disks));
                facts.extend(disks.disks.iter().take(DEVICES_NAMED_MAX).map(disk));
            }
        }
    }
    facts
}

fn file_system(kind: &str, source: &str, directory: &Path) -> Fact {
    let fact = Fact::new("file system", format!("{kind} on {source}, mounted at {}", directory.display()));
    match kind {
        "overlay" => fact.short(
            "the layers of a container: opening a file looks through all of them, and writing copies it whole",
            "keep data on a volume: --volume /data:/data for a container",
        ),
        "9p" | "virtiofs" => fact.short(
            "every read goes through the host's file server for virtual machines",
            "give the virtual machine a disk of its own with the data",
        ),
        _ if kind.starts_with("fuse") => fact.short(
            "every read goes through a process of the user's",
            "copy the data to a local disk, or mount it by a file system of the kernel's",
        ),
        _ => fact,
    }
}

/// What the mount of an NFS export is told to do (nfs(5)).
fn nfs(mount: &Mount) -> Vec<Fact> {
    let option = |name: &str| mount.option(name).unwrap_or("unknown").to_owned();
    let bytes = |name: &str| mount.option(name).and_then(|value| value.parse::<u64>().ok());
    let again = |options: &str| {
        format!("sudo umount {0} && sudo mount -o {options} {1} {0}", mount.directory.display(), mount.source)
    };
    let sizes = [("rsize=", "reads"), ("wsize=", "writes")].map(|(name, what)| {
        let fact_name = if name == "rsize=" { "NFS rsize" } else { "NFS wsize" };
        let Some(size) = bytes(name) else { return Fact::new(fact_name, "unknown") };
        let fact = Fact::new(fact_name, human_bytes(size));
        if size >= NFS_SIZE_BYTES {
            return fact;
        }
        let times = NFS_SIZE_BYTES.div_ceil(size.max(1));
        // Nothing is written where data is only loaded.
        if what == "writes" {
            return fact;
        }
        fact.short(
            format!("a read of 1 MiB becomes {times} requests to the server"),
            format!("{}; the server must allow as much", again("rsize=1048576")),
        )
    });
    let protocol = option("proto=");
    let connections = mount.option("nconnect=").and_then(|count| count.parse::<u32>().ok()).unwrap_or(1);
    let is_tcp = protocol.starts_with("tcp");
    let connections_fact =
        Fact::new("NFS connections", format!("{connections} by {protocol}, version {}", option("vers=")));
    let connections_fact = if protocol.starts_with("udp") {
        connections_fact.short("UDP loses whole requests where the network is busy", again("proto=tcp,nconnect=8"))
    } else if is_tcp && connections < NFS_CONNECTIONS / 2 {
        connections_fact.short(
            "all reads share a connection or two, each of which is worth a core and a stream of the network",
            format!("{} (Linux 5.3 or later)", again("nconnect=8")),
        )
    } else {
        connections_fact
    };
    let [reads, writes] = sizes;
    let mut facts = vec![reads, writes, connections_fact];
    if mount.options.iter().any(|option| option == "noac" || option == "actimeo=0") {
        let fact = Fact::new("NFS attributes", "never cached");
        facts.push(fact.short("every open asks the server about every part of the path", again("actimeo=60")));
    }
    facts
}

/// How a file, or what is made in a directory, is spread over the servers of Lustre.
fn lustre(path: &Path, file: Option<(&Path, u64)>, ask: AskLustre<'_>) -> Vec<Fact> {
    let (asked, len_bytes) = file.unwrap_or((path, 0));
    let (Some(count), Some(size)) = (ask("-c", asked), ask("-S", asked)) else {
        return vec![Fact::new("Lustre stripes", format!("unknown: `lfs getstripe {}` does not say", asked.display()))];
    };
    let plural = if count == 1 { "" } else { "s" };
    let value = format!("{count} stripe{plural} of {} for {}", human_bytes(size), asked.display());
    let short = count == 1 && len_bytes >= STRIPED_FROM_BYTES;
    let fact = Fact::new("Lustre stripes", value);
    vec![if short {
        fact.short(
            "one storage server gives all of a large file, while others have nothing to do",
            format!(
                "lfs migrate -c 4 -S 4M {}, and `lfs setstripe -c 4 -S 4M DIR` for what is made in DIR",
                asked.display()
            ),
        )
    } else {
        fact
    }]
}

/// Runs Lustre's own tool.
pub fn ask_lustre(option: &str, path: &Path) -> Option<u64> {
    let output = Command::new("lfs").args(["getstripe", option]).arg(path).output().ok()?;
    number_of_stripes(&String::from_utf8_lossy(&output.stdout))
}

/// The number in what `lfs getstripe` prints for one option: alone, or behind a name.
fn number_of_stripes(printed: &str) -> Option<u64> {
    printed.split_whitespace().find_map(|word| word.parse().ok())
}

/// What lies between the file system and the disks.
fn layers(disks: &Disks) -> Option<Fact> {
    let fact = (!disks.layers.is_empty()).then(|| Fact::new("block devices", disks.to_string()))?;
    let is_encrypted = disks.layers.iter().any(|layer| matches!(layer, Layer::Mapper(by) if by.starts_with("CRYPT")));
    Some(fact.short_if(
        is_encrypted,
        "every byte is decrypted by the CPU",
        "keep public data sets on a partition that is not encrypted",
    ))
}

fn disk(disk: &Disk) -> Fact {
    let Disk { name, kind, model, is_rotational, scheduler, queue_requests, has_polling, .. } = disk;
    let mut value = format!("{name} ({kind})");
    let mut add = |text: String| value += &format!(", {text}");
    if let Some(model) = model {
        add(model.clone());
    }
    if let Some(scheduler) = scheduler {
        add(format!("scheduler {scheduler}"));
    }
    if let Some(requests) = queue_requests {
        add(format!("{requests} requests a queue"));
    }
    match has_polling {
        Some(true) => add("queues to poll (IOPOLL)".into()),
        Some(false) => add("no queues to poll (IOPOLL)".into()),
        None => {}
    }
    let fact = Fact::new("disk", value);
    let is_nvme = matches!(kind, DiskKind::Nvme(_));
    // A virtual disk says that it turns unless the host was told otherwise, so what it says means nothing.
    if *is_rotational == Some(true) && !matches!(kind, DiskKind::Virtio | DiskKind::Loop) {
        return fact.short(
            "heads have to move to every sample: a hundred or so random reads a second",
            "keep the data in tar shards and load it with --shuffle-block 1000, or copy it to a solid-state drive",
        );
    }
    match scheduler.as_deref() {
        Some(slow @ ("bfq" | "kyber" | "mq-deadline")) if is_nvme || slow == "bfq" => fact.short(
            format!(
                "the scheduler {slow} sorts requests for a drive that needs none: CPU time and locks for every read"
            ),
            format!("echo none | sudo tee /sys/block/{name}/queue/scheduler"),
        ),
        _ => fact,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with one mount at /data, of this type, source and options, on the device 259:1.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(kind: &str, source: &str, options: &str) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            let table = format!(
                "22 1 254:0 / / rw - ext4 /dev/root rw\n36 22 259:1 / /data rw,noatime shared:1 - {kind} {source} {options}\n"
            );
            tree.write("proc/self/mountinfo", &table);
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn disk(self, place: &str, queue: &[(&str, &str)]) -> Self {
            let name = place.rsplit('/').next().unwrap();
            queue.iter().for_each(|(file, text)| self.write(&format!("sys/{place}/queue/{file}"), text));
            fs::create_dir_all(self.0.path().join("sys/dev/block")).unwrap();
            symlink(format!("../../{place}"), self.0.path().join("sys/dev/block/259:1")).unwrap();
            self.write(&format!("sys/{place}/device/model"), &format!("Model of {name}  \n"));
            self
        }

        fn facts(&self, file_bytes: u64, ask: AskLustre<'_>) -> Vec<Fact> {
            let machine = Machine::at(self.0.path().to_owned(), "x86_64", |_| None);
            facts(&machine, Path::new("/data/set"), Some((Path::new("/data/set/a.tar"), file_bytes)), ask)
        }
    }

    fn no_lustre(_: &str, _: &Path) -> Option<u64> {
        None
    }

    fn fact<'a>(facts: &'a [Fact], name: &str) -> &'a Fact {
        facts.iter().find(|fact| fact.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// The remedy of a shortfall that there must be.
    fn remedy<'a>(facts: &'a [Fact], name: &str) -> &'a str {
        let shortfall = fact(facts, name).shortfall.as_ref().unwrap_or_else(|| panic!("{name} is no shortfall"));
        assert!(!shortfall.cost.is_empty());
        &shortfall.remedy
    }

    #[test]
    fn an_nfs_mount_is_judged_by_its_options() {
        let poor =
            Tree::new("nfs4", "nas:/export", "rw,vers=4.2,rsize=131072,wsize=65536,hard,proto=tcp,noac,addr=10.0.0.1");
        let facts = poor.facts(1, &no_lustre);
        assert_eq!(fact(&facts, "file system").value, "nfs4 on nas:/export, mounted at /data");
        assert!(remedy(&facts, "NFS rsize").contains("mount -o rsize=1048576 nas:/export /data"));
        assert!(fact(&facts, "NFS rsize").shortfall.as_ref().unwrap().cost.contains("8 requests"));
        assert!(remedy(&facts, "NFS connections").contains("nconnect=8"));
        assert!(remedy(&facts, "NFS attributes").contains("actimeo=60"));
        assert!(fact(&facts, "NFS wsize").shortfall.is_none(), "nothing is written");

        let good = "rw,vers=4.2,rsize=1048576,wsize=1048576,proto=tcp,nconnect=16";
        let facts = Tree::new("nfs4", "nas:/export", good).facts(1, &no_lustre);
        assert!(facts.iter().all(|fact| fact.shortfall.is_none()));
        assert_eq!(fact(&facts, "NFS connections").value, "16 by tcp, version 4.2");
        let rdma =
            Tree::new("nfs", "nas:/export", "rw,vers=3,rsize=1048576,wsize=1048576,proto=rdma").facts(1, &no_lustre);
        assert!(rdma.iter().all(|fact| fact.shortfall.is_none()));
        let udp = Tree::new("nfs", "nas:/export", "rw,vers=3,rsize=32768,proto=udp").facts(1, &no_lustre);
        assert!(remedy(&udp, "NFS connections").contains("proto=tcp"));
        // What a hostile table says is not computed with.
        let odd = Tree::new("nfs", "x", "rsize=0,wsize=99999999999999999999,nconnect=-1").facts(1, &no_lustre);
        assert!(remedy(&odd, "NFS rsize").contains("rsize"));
    }

    #[test]
    fn lustre_stripes_matter_for_large_files() {
        let tree = Tree::new("lustre", "10.0.0.1@tcp:/scratch", "rw,flock");
        let one_stripe = |option: &str, path: &Path| {
            assert_eq!(path, Path::new("/data/set/a.tar"));
            Some(if option == "-c" { 1 } else { 1 << 20 })
        };
        let facts = tree.facts(2 << 30, &one_stripe);
        assert_eq!(fact(&facts, "Lustre stripes").value, "1 stripe of 1.0 MiB for /data/set/a.tar");
        assert!(remedy(&facts, "Lustre stripes").contains("lfs migrate -c 4"));
        assert!(fact(&tree.facts(1 << 20, &one_stripe), "Lustre stripes").shortfall.is_none(), "a small file");
        let four = |option: &str, _: &Path| Some(if option == "-c" { 4 } else { 4 << 20 });
        assert!(fact(&tree.facts(2 << 30, &four), "Lustre stripes").shortfall.is_none());
        assert!(fact(&tree.facts(1, &no_lustre), "Lustre stripes").value.starts_with("unknown"));
        for (printed, number) in [("4\n", Some(4)), ("stripe_count:  1\n", Some(1)), ("", None), ("error\n", None)] {
            assert_eq!(number_of_stripes(printed), number);
        }
    }

    #[test]
    fn a_disk_is_told_with_what_slows_it() {
        let queue = [
            ("scheduler", "none [mq-deadline]\n"),
            ("nr_requests", "1023\n"),
            ("rotational", "0\n"),
            ("io_poll", "0\n"),
        ];
        let nvme = Tree::new("ext4", "/dev/nvme0n1", "rw").disk("devices/pci0000:00/nvme/nvme0/nvme0n1", &queue);
        nvme.write("sys/devices/pci0000:00/nvme/nvme0/transport", "pcie\n");
        let facts = nvme.facts(1, &no_lustre);
        let expected = "nvme0n1 (NVMe), Model of nvme0n1, scheduler mq-deadline, 1023 requests a queue, no queues to poll (IOPOLL)";
        assert_eq!(fact(&facts, "disk").value, expected);
        assert_eq!(remedy(&facts, "disk"), "echo none | sudo tee /sys/block/nvme0n1/queue/scheduler");

        let turning = Tree::new("xfs", "/dev/sda", "rw").disk("devices/pci0000:00/ata1/sda", &[("rotational", "1\n")]);
        assert!(remedy(&turning.facts(1, &no_lustre), "disk").contains("--shuffle-block"));
        // A virtual disk claims to turn by default.
        let queue = [("rotational", "1\n"), ("scheduler", "[none] mq-deadline\n"), ("nr_requests", "many\n")];
        let virtual_disk = Tree::new("ext4", "/dev/vda", "rw").disk("devices/pci0000:00/virtio1/block/vda", &queue);
        let facts = virtual_disk.facts(1, &no_lustre);
        assert!(fact(&facts, "disk").shortfall.is_none());
        assert!(fact(&facts, "disk").value.starts_with("vda (virtio), Model of vda, scheduler none"));
    }

    #[test]
    fn layers_and_file_systems_that_cost_are_told() {
        for kind in ["overlay", "9p", "fuse.sshfs"] {
            assert!(!remedy(&Tree::new(kind, "x", "rw").facts(1, &no_lustre), "file system").is_empty());
        }
        let mapped = Tree::new("ext4", "/dev/mapper/x", "rw").disk("devices/virtual/block/dm-0", &[]);
        mapped.write("sys/devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc\n");
        let slaves = mapped.0.path().join("sys/devices/virtual/block/dm-0/slaves");
        fs::create_dir_all(&slaves).unwrap();
        fs::create_dir_all(mapped.0.path().join("sys/devices/pci0000:00/sda")).unwrap();
        symlink("../../../../pci0000:00/sda", slaves.join("sda")).unwrap();
        let facts = mapped.facts(1, &no_lustre);
        assert_eq!(fact(&facts, "block devices").value, "device mapper (CRYPT) over sda (SCSI)");
        assert!(remedy(&facts, "block devices").contains("not encrypted"));
        let nowhere = Machine::at(mapped.0.path().join("none"), "x86_64", |_| None);
        assert!(facts_of_nothing(&nowhere).value.starts_with("unknown"));
    }

    fn facts_of_nothing(machine: &Machine) -> Fact {
        facts(machine, Path::new("/data"), None, &no_lustre).remove(0)
    }
}
