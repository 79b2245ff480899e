//! Machines made up of directories: what each lacks is named, with its remedy.

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// A machine on which everything is as it should be for nvidia-fs, to be spoilt.
struct Tree {
    root: tempfile::TempDir,
    variables: HashMap<String, String>,
    architecture: &'static str,
}

const DATA: &str = "/data/train";
const DRIVE: &str = "devices/pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:04.0/0000:1a:00.0/nvme/nvme0/nvme0n1";
const GPU: &str = "devices/pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:08.0/0000:1b:00.0";
const P2PDMA_JSON: &str =
    r#"{ "properties": { "use_pci_p2pdma": true }, "block": { "nvme": { "use_pci_p2pdma": true } } }"#;

impl Tree {
    fn new() -> Self {
        let tree = Self { root: tempfile::tempdir().unwrap(), variables: HashMap::new(), architecture: "x86_64" };
        tree.open_driver("570.86.15")
            .gpu("NVIDIA H100 80GB HBM3")
            .file("proc/modules", "nvidia_fs 262144 0 - Live 0x0\nnvidia 1 2 - Live 0x0\n")
            .file("proc/driver/nvidia-fs/version", "version: 2.24\n")
            .file("proc/driver/nvidia-fs/modules", "nvme: 1\nnvme_rdma: 1\nlnet: 2.14\n")
            .file("proc/driver/nvidia-fs/bridges", "")
            .file("dev/nvidia-fs0", "")
            .file("run/udev/data/b259:1", "")
            .file("proc/sys/kernel/osrelease", "5.15.0-91-generic\n")
            .file("proc/cmdline", "ro quiet\n")
            .drive()
            .mount("259:1", "ext4 /dev/nvme0n1p1 rw,data=ordered")
    }

    /// As it should be for P2PDMA, without nvidia-fs.
    fn p2pdma() -> Self {
        Self::new()
            .without("proc/driver/nvidia-fs")
            .without("dev/nvidia-fs0")
            .file("proc/sys/kernel/osrelease", "6.8.0-51-generic\n")
            .file("proc/kallsyms", "0000000000000000 t one\n0000000000000000 d p2pdma_pgmap_ops\n")
            .file("sys/module/nvme_core/parameters/multipath", "N\n")
            .registry("RMForceStaticBar1=1;RmForceDisableIomapWC=1;")
            .file("etc/cufile.json", P2PDMA_JSON)
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn without(self, path: &str) -> Self {
        let path = self.root.path().join(path);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
        self
    }

    fn link(self, path: &str, target: &str) -> Self {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        symlink(target, path).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    fn open_driver(self, version: &str) -> Self {
        let text = format!("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\n");
        self.file("proc/driver/nvidia/version", &(text + "GCC version:  gcc version 12.3.0\n"))
    }

    fn gpu(self, model: &str) -> Self {
        let text = format!("Model: \t\t {model}\nIRQ:   \t\t 42\nBus Location: \t 0000:1b:00.0\n");
        self.file("proc/driver/nvidia/gpus/0000:1b:00.0/information", &text)
            .file(&format!("sys/{GPU}/class"), "0x030200\n")
            .link("sys/bus/pci/devices/0000:1b:00.0", &format!("../../../{GPU}"))
    }

    fn registry(self, keys: &str) -> Self {
        self.file("proc/driver/nvidia/params", &format!("ResmanDebugLevel: 4294967295\nRegistryDwords: \"{keys}\"\n"))
    }

    /// An NVMe drive with a partition.
    fn drive(self) -> Self {
        self.file(&format!("sys/{DRIVE}/nvme0n1p1/partition"), "1\n")
            .file(&format!("sys/{DRIVE}/../transport"), "pcie\n")
            .link("sys/dev/block/259:1", &format!("../../{DRIVE}/nvme0n1p1"))
            .link("sys/dev/block/259:0", &format!("../../{DRIVE}"))
    }

    fn mount(self, device: &str, rest: &str) -> Self {
        let root = "22 1 254:0 / / rw,relatime - overlay overlay rw\n";
        self.file("proc/self/mountinfo", &format!("{root}40 22 {device} / /data rw,noatime shared:1 - {rest}\n"))
    }

    fn examine(&self) -> Gds {
        let variables = self.variables.clone();
        let variable = move |name: &str| variables.get(name).map(Into::into);
        let machine = Machine::at(self.root.path().to_owned(), self.architecture, variable);
        machine.examine(Some(Path::new(DATA)))
    }

    /// What prevents the direct path, in order.
    fn lacks(&self) -> Vec<&'static str> {
        let gds = self.examine();
        let ranks: Vec<_> = gds.findings.iter().map(Finding::rank).collect();
        assert!(ranks.is_sorted(), "{gds:?}");
        let lacks: Vec<_> = gds.findings.iter().filter(|finding| finding.is_preventing()).map(|f| f.what).collect();
        assert_eq!(lacks.is_empty(), matches!(gds.verdict, Verdict::Direct(_)), "{gds:?}");
        assert_eq!(lacks.is_empty(), gds.why_host_memory().is_none());
        if let Some((cause, remedy)) = gds.why_host_memory() {
            assert!(
                cause.starts_with(&format!("cuFile would go through host memory: {}", lacks[0])) && !remedy.is_empty()
            );
        }
        lacks
    }

    fn slowed_by(&self) -> Vec<&'static str> {
        self.examine().findings.iter().filter(|finding| finding.rank() == 1).map(|finding| finding.what).collect()
    }

    fn found(&self, what: &str) -> Finding {
        let gds = self.examine();
        gds.findings.iter().find(|finding| finding.what == what).unwrap_or_else(|| panic!("{what}: {gds:?}")).clone()
    }

    /// The first thing that is missing, with a word of what is said about it and one of its remedy.
    fn expect(&self, what: &str, found: &str, remedy: &str) {
        assert_eq!(self.lacks().first().copied(), Some(what), "{:?}", self.examine());
        let finding = self.found(what);
        assert!(finding.found.contains(found), "{finding:?}");
        assert!(finding.shortfall.as_ref().unwrap().remedy.contains(remedy), "{finding:?}");
    }
}

#[test]
fn a_machine_that_lacks_nothing_has_a_direct_path() {
    let tree = Tree::new();
    assert_eq!(tree.lacks(), [""; 0]);
    assert_eq!(tree.slowed_by(), [""; 0], "{:?}", tree.examine());
    assert_eq!(tree.examine().verdict, Verdict::Direct(Route::Nvfs));
    assert!(tree.found("disk").found.contains("nvme0n1 (NVMe)"));
    assert!(tree.found("PCIe").found.contains("one root port"), "{:?}", tree.found("PCIe"));
    let tree = Tree::p2pdma();
    assert_eq!(tree.lacks(), [""; 0]);
    assert_eq!(tree.slowed_by(), [""; 0], "{:?}", tree.examine());
    assert_eq!(tree.examine().verdict, Verdict::Direct(Route::P2pDma));
}

#[test]
fn no_driver_is_one_finding() {
    let gds = Tree::new().without("proc/driver/nvidia").examine();
    assert_eq!((gds.verdict, gds.has_driver, gds.findings.len()), (Verdict::HostMemory, false, 1));
    assert!(gds.why_host_memory().unwrap().0.contains("/proc/driver/nvidia"));
}

#[test]
fn what_a_container_hides_is_named_first() {
    let tree = Tree::new().without("proc/modules").without("run/udev").without("dev/nvidia-fs0");
    assert_eq!(tree.lacks(), ["kernel modules", "udev", "nvidia-fs device"]);
    tree.expect("kernel modules", "/proc/modules", "modules");
    Tree::new().without("run/udev").expect("udev", "/run/udev", "--volume /run/udev");
    Tree::new().without("dev/nvidia-fs0").expect("nvidia-fs device", "/dev/nvidia-fs0", "NVIDIA_GDS=enabled");
    Tree::new().mount("0:50", "overlay overlay rw").expect("file system", "overlay", "container");
    Tree::new().mount("0:50", "tmpfs tmpfs rw").expect("file system", "tmpfs", "container");
    Tree::new().mount("0:50", "fuse.gcsfuse bucket rw").expect("file system", "fuse.gcsfuse", "container");
    Tree::new().without("proc/self/mountinfo").expect("file system", "mount table", "/proc");
}

#[test]
fn file_systems_and_their_options_are_told_apart() {
    let drive = |rest: &str| Tree::new().mount("259:1", rest);
    drive("ext4 /dev/nvme0n1p1 rw").expect("file system", "without the option data=ordered", "data=ordered");
    drive("ext4 /dev/nvme0n1p1 rw,data=journal").expect("file system", "data=journal", "data=ordered");
    assert_eq!(drive("xfs /dev/nvme0n1p1 rw,attr2").lacks(), [""; 0]);
    drive("btrfs /dev/nvme0n1p1 rw").expect("file system", "btrfs", "XFS");
    let share = |rest: &str| Tree::new().mount("0:51", rest);
    share("nfs4 server:/export rw,vers=4.2,proto=tcp").expect("file system", "by tcp", "proto=rdma");
    share("nfs server:/export rw,proto=rdma").expect("storage driver", "rpcrdma", "--with-nfsrdma");
    assert_eq!(share("lustre 10.0.0.1@o2ib:/fs rw,flock").lacks(), [""; 0]);
    share("wekafs cluster/fs rw").expect("storage driver", "wekafsio", "client");
    share("ceph mon:/ rw").expect("file system", "ceph", "Lustre");
}

#[test]
fn disks_are_found_under_partitions_raid_and_the_device_mapper() {
    let dm = |tree: Tree| {
        tree.file("sys/devices/virtual/block/dm-0/dm/uuid", "LVM-abcdef\n")
            .link("sys/devices/virtual/block/dm-0/slaves/nvme0n1p1", &format!("../../../../../{DRIVE}/nvme0n1p1"))
            .link("sys/dev/block/253:0", "../../devices/virtual/block/dm-0")
            .mount("253:0", "xfs /dev/mapper/vg-data rw")
    };
    dm(Tree::new()).expect("disk", "device mapper (LVM) over nvme0n1", "LVM");
    let raid = |tree: Tree, level: &str| {
        tree.file("sys/devices/virtual/block/md0/md/level", level)
            .link("sys/devices/virtual/block/md0/slaves/nvme0n1", &format!("../../../../../{DRIVE}"))
            .link("sys/dev/block/9:0", "../../devices/virtual/block/md0")
            .mount("9:0", "xfs /dev/md0 rw")
    };
    assert_eq!(raid(Tree::new(), "raid0\n").lacks(), [""; 0]);
    assert_eq!(raid(Tree::new(), "raid0\n").found("disk").found, "raid0 over nvme0n1 (NVMe)");
    raid(Tree::new(), "raid5\n").expect("RAID", "raid5", "raid0");
    raid(Tree::p2pdma(), "raid0\n").expect("P2PDMA storage", "one NVMe drive", "nvidia-fs");
    let disk = |name: &str| {
        Tree::new().link("sys/dev/block/8:0", &format!("../../devices/x/{name}")).mount("8:0", "xfs /dev/x rw")
    };
    disk("sda").expect("storage driver", "scsi_mod", "DOCA");
    disk("vda").expect("disk", "vda (virtio)", "NVMe");
    disk("loop3").expect("disk", "loop3 (a file)", "NVMe");
    Tree::new().without("sys/dev/block/259:1").expect("disk", "does not say", "NVMe");
}

#[test]
fn nvme_is_told_apart_by_its_transport_and_through_multipath() {
    let transport = |name: &str| Tree::new().file(&format!("sys/{DRIVE}/../transport"), name);
    assert_eq!(transport("rdma\n").lacks(), [""; 0]);
    transport("tcp\n").expect("disk", "NVMe by tcp", "RDMA");
    let multipath = |tree: Tree| {
        tree.link("sys/devices/virtual/nvme-subsystem/nvme-subsys0/subsystem", "../../../../class/nvme-subsystem")
            .link("sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0", &format!("../../../../{DRIVE}/.."))
            .file("sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/size", "1\n")
            .link("sys/dev/block/259:0", "../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1")
            .mount("259:0", "xfs /dev/nvme0n1 rw")
            .file("sys/module/nvme_core/parameters/multipath", "Y\n")
    };
    assert_eq!(multipath(Tree::new()).lacks(), [""; 0]);
    assert!(multipath(Tree::new()).found("PCIe").found.contains("one root port"));
    multipath(Tree::p2pdma()).expect("NVMe multipath", "on", "multipath=N");
}

#[test]
fn what_nvidia_fs_needs_is_named() {
    let tree = Tree::new().without("proc/driver/nvidia-fs");
    tree.expect("nvidia-fs", "not loaded", "modprobe nvidia-fs");
    assert!(tree.found("other route").found.contains("P2PDMA"), "{:?}", tree.examine());
    Tree::new().file("proc/driver/nvidia-fs/version", "version: 2.7\n").expect("nvidia-fs", "2.7", "update");
    let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n";
    Tree::new().file("proc/driver/nvidia/version", closed).expect("nvidia-fs", "open kernel modules", "nvidia-open");
    let old = Tree::new().file("proc/driver/nvidia/version", closed);
    assert_eq!(old.file("proc/driver/nvidia-fs/version", "version: 2.17\n").lacks(), [""; 0]);
    Tree::new().file("proc/driver/nvidia-fs/modules", "lnet: 1\n").expect("storage driver", "nvme", "DOCA");
}

#[test]
fn what_p2pdma_needs_is_named() {
    Tree::p2pdma().file("proc/sys/kernel/osrelease", "5.15.0\n").expect("kernel", "Linux 5.15.0", "newer");
    Tree::p2pdma().file("proc/kallsyms", "0000 t one\n").expect("kernel", "CONFIG_PCI_P2PDMA", "kernel");
    assert_eq!(Tree::p2pdma().without("proc/kallsyms").lacks(), [""; 0], "a kernel that lists nothing is trusted");
    Tree::p2pdma().open_driver("560.35.03").expect("P2PDMA driver", "570", "nvidia-open");
    Tree::p2pdma().registry("").expect("driver registry", "RMForceStaticBar1=1", "RMForceStaticBar1=1;Rm");
    let ampere = Tree::p2pdma().gpu("NVIDIA A100-SXM4-80GB");
    ampere.expect("driver registry", "without ForceP2P=0", "RMForceStaticBar1=1;ForceP2P=0;RmForceDisableIomapWC=1;");
    assert_eq!(ampere.registry("RMForceStaticBar1=1;ForceP2P=0;RmForceDisableIomapWC=1").lacks(), [""; 0]);
    let mut arm = Tree::p2pdma().registry("");
    arm.architecture = "aarch64";
    assert_eq!(arm.lacks(), [""; 0], "the keys are for x86");
    assert_eq!(
        Tree::p2pdma()
            .gpu("NVIDIA H20X")
            .registry("RMForceStaticBar1=1;ForceP2P=0;RmForceDisableIomapWC=1")
            .slowed_by(),
        ["P2PDMA GPU"]
    );
}

#[test]
fn the_configuration_decides_with_the_environment_above_it() {
    Tree::p2pdma().without("etc/cufile.json").expect("P2PDMA mode", "/etc/cufile.json", "use_pci_p2pdma");
    let by_environment = Tree::p2pdma().without("etc/cufile.json").variable("CUFILE_USE_PCIP2PDMA", "true");
    assert_eq!((by_environment.lacks(), by_environment.slowed_by()), (vec![], vec!["P2PDMA mode"]));
    Tree::p2pdma().variable("CUFILE_USE_PCIP2PDMA", "0").expect("P2PDMA mode", "not set", "use_pci_p2pdma");
    let half = r#"{ "properties": { "use_pci_p2pdma": true }, "block": { "nvme": { "use_pci_p2pdma": false } } }"#;
    Tree::p2pdma().file("etc/cufile.json", half).expect("P2PDMA mode", "block.nvme", "block");
    let named = Tree::new().variable("CUFILE_ENV_PATH_JSON", "/home/me/cufile.json");
    named.expect("cufile.json", "/home/me/cufile.json", "CUFILE_ENV_PATH_JSON");
    assert_eq!(named.file("home/me/cufile.json", "// mine\n{ \"fs\": { }, }").lacks(), [""; 0]);
    Tree::new().file("etc/cufile.json", "{ \"a\": ").expect("cufile.json", "no JSON", "mend");
    Tree::new().file("etc/cufile.json", &"[".repeat(100_000)).expect("cufile.json", "no JSON", "mend");
    Tree::new().variable("CUFILE_FORCE_COMPAT_MODE", "True").expect("compatibility mode", "CUFILE_FORCE", "unset");
    let forced = "{ \"properties\": { \"force_compat_mode\": true } }";
    Tree::new().file("etc/cufile.json", forced).expect("compatibility mode", "force_compat_mode", "false");
    let lifted = Tree::new().file("etc/cufile.json", forced).variable("CUFILE_FORCE_COMPAT_MODE", "false");
    assert_eq!(lifted.lacks(), [""; 0]);
    let denied = "{ \"denylist\": { \"drivers\": [ \"nvme\" ], \"mounts\": [ \"/data\" ] } }";
    let tree = Tree::new().file("etc/cufile.json", denied);
    assert_eq!(tree.lacks(), ["deny list", "storage driver"]);
    let strict = "{ \"properties\": { \"allow_compat_mode\": false } }";
    assert!(Tree::new().file("etc/cufile.json", strict).found("cufile.json").found.contains("fails"));
}

#[test]
fn what_slows_the_direct_path_does_not_prevent_it() {
    let iommu = Tree::new().file("sys/class/iommu/dmar0/uevent", "");
    assert_eq!((iommu.lacks(), iommu.slowed_by()), (vec![], vec!["IOMMU"]));
    let passing = Tree::new().file("sys/class/iommu/dmar0/uevent", "").file("proc/cmdline", "ro iommu=pt\n");
    assert!(passing.found("IOMMU").found.contains("passthrough"));
    let acs = Tree::new().file("proc/driver/nvidia-fs/bridges", "0000:18:04.0\n0000:99:00.0\n");
    assert_eq!((acs.lacks(), acs.slowed_by()), (vec![], vec!["PCIe ACS"]));
    assert!(acs.found("PCIe ACS").found.ends_with("0000:18:04.0"), "{:?}", acs.found("PCIe ACS"));
    let elsewhere = |place: &str| {
        Tree::new()
            .file(&format!("sys/devices/{place}/class"), "0x030200\n")
            .link("sys/bus/pci/devices/0000:1b:00.0", &format!("../../../devices/{place}"))
    };
    assert_eq!(elsewhere("pci0000:16/0000:16:03.0/0000:1b:00.0").slowed_by(), ["PCIe"]);
    assert!(elsewhere("pci0000:96/0000:96:03.0/0000:1b:00.0").found("PCIe").found.contains("different host bridges"));
}

#[test]
fn a_device_that_is_not_supported_is_named() {
    Tree::new().gpu("NVIDIA GeForce RTX 4090").expect("GPU", "GeForce RTX 4090", "supported");
    Tree::new().without("proc/driver/nvidia/gpus").expect("GPU", "no device", "nvidia-smi");
}

#[test]
fn hostile_trees_are_bounded_and_judged() {
    // A device mapper that lies on itself, in a great many ways.
    let mut tree = Tree::new().link("sys/dev/block/253:0", "../../devices/virtual/block/dm-0");
    for slave in 0..100 {
        let from = format!("sys/devices/virtual/block/dm-0/slaves/dm-{slave}");
        tree = tree.link(&from, "../../dm-0").file(&format!("sys/devices/virtual/block/dm-{slave}/dm/uuid"), "CRYPT-x");
    }
    let tree = tree.mount("253:0", "ext4 /dev/dm-0 rw,data=ordered");
    assert_eq!(tree.lacks()[0], "disk");
    let huge = "x".repeat(4 << 20);
    for path in [
        "proc/self/mountinfo",
        "proc/driver/nvidia/version",
        "proc/driver/nvidia/params",
        "proc/driver/nvidia-fs/version",
        "proc/driver/nvidia-fs/modules",
        "proc/driver/nvidia-fs/bridges",
        "etc/cufile.json",
        "proc/kallsyms",
        "proc/sys/kernel/osrelease",
        "proc/cmdline",
    ] {
        for tree in [Tree::new(), Tree::p2pdma()] {
            let gds = tree.file(path, &huge).examine();
            assert!(!gds.findings.is_empty(), "{path}");
        }
        let tree = Tree::new().file(path, "").without(path).link(path, "nowhere").link("nowhere", path);
        assert!(!tree.examine().findings.is_empty(), "{path}");
    }
}
