//! The two direct routes, and what each of them needs.

use super::config::Config;
use super::driver::{Driver, Gpu, version};
use super::volume::{Carrier, Volume};
use super::{Finding, Route, Verdict};
use crate::storage::{DiskKind, Layer, Machine};

/// The oldest nvidia-fs that cuFile works with, and the newest that works with proprietary kernel modules (what
/// `gdscheck -p` says).
const NVFS_MIN: (u32, u32) = (2, 12);
const NVFS_PROPRIETARY_MAX: (u32, u32) = (2, 17);
/// The first kernel whose block layer takes device memory, and the first driver whose CUDA (12.8) has P2PDMA.
const P2PDMA_KERNEL_MIN: (u32, u32) = (6, 2);
const P2PDMA_DRIVER_MIN: u32 = 570;
/// Either is in kernels built with CONFIG_PCI_P2PDMA.
const P2PDMA_SYMBOLS: [&str; 2] = ["p2pdma_pgmap_ops", "pci_p2pdma_add_resource"];

/// What was found about each route.
pub(super) struct Routes {
    nvfs: Vec<Finding>,
    p2pdma: Vec<Finding>,
    is_nvfs_loaded: bool,
}

pub(super) fn look(machine: &Machine, driver: &Driver, config: &Config, volume: Option<&Volume>) -> Routes {
    let nvfs = machine.word("/proc/driver/nvidia-fs/version");
    Routes {
        nvfs: match &nvfs {
            Some(text) => by_nvfs(machine, driver, config, volume, text),
            None => vec![Finding::prevents(
                "nvidia-fs",
                "the kernel module is not loaded",
                "install nvidia-fs for this kernel (package nvidia-gds) and load it: sudo modprobe nvidia-fs",
            )],
        },
        p2pdma: by_p2pdma(machine, driver, config, volume),
        is_nvfs_loaded: nvfs.is_some(),
    }
}

impl Routes {
    /// The verdict, given what holds for both, and what to say: all about the route that is taken or is nearer.
    pub(super) fn decide(self, common: Vec<Finding>) -> (Verdict, Vec<Finding>) {
        let missing = |findings: &[Finding]| findings.iter().filter(|finding| finding.is_preventing()).count();
        let (nvfs, p2pdma) = (missing(&self.nvfs), missing(&self.p2pdma));
        // Where both are open P2PDMA was asked for. Where both lack as much, what is loaded is nearer.
        let by_p2pdma = p2pdma < nvfs || p2pdma == nvfs && (p2pdma == 0 || !self.is_nvfs_loaded);
        let (route, chosen, other) =
            if by_p2pdma { (Route::P2pDma, self.p2pdma, nvfs) } else { (Route::Nvfs, self.nvfs, p2pdma) };
        let is_open = missing(&common) == 0 && missing(&chosen) == 0;
        let mut findings = common;
        findings.extend(chosen);
        if !is_open {
            let name = if by_p2pdma { Route::Nvfs.name() } else { Route::P2pDma.name() };
            let things = if other == 1 { "one thing is".to_owned() } else { format!("{other} things are") };
            findings.push(Finding::well("other route", format!("by {name} {things} missing")));
        }
        (if is_open { Verdict::Direct(route) } else { Verdict::HostMemory }, findings)
    }
}

fn by_nvfs(
    machine: &Machine,
    driver: &Driver,
    config: &Config,
    volume: Option<&Volume>,
    version_text: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let numbers = version_text.split_whitespace().find_map(version);
    let shown = numbers.map_or_else(|| version_text.to_owned(), |(major, minor)| format!("{major}.{minor}"));
    findings.push(match numbers {
        Some(numbers) if numbers < NVFS_MIN => {
            let (major, minor) = NVFS_MIN;
            let found = format!("version {shown} is loaded, and cuFile needs {major}.{minor}");
            Finding::prevents("nvidia-fs", found, "update it")
        }
        Some(numbers) if numbers > NVFS_PROPRIETARY_MAX && !driver.is_open => {
            let found = format!("version {shown} is loaded, which works with the open kernel modules alone");
            Finding::prevents("nvidia-fs", found, "install the driver's open kernel modules (nvidia-open)")
        }
        _ => Finding::well("nvidia-fs", format!("version {shown} is loaded")),
    });
    if !machine.exists("/dev/nvidia-fs0") {
        let found = "/dev/nvidia-fs0 is missing, though the module is loaded";
        let remedy = "in a container, start it with --env NVIDIA_GDS=enabled; elsewhere load the module anew";
        findings.push(Finding::prevents("nvidia-fs device", found, remedy));
    }
    let modules = machine.text("/proc/driver/nvidia-fs/modules").unwrap_or_default();
    let registered: Vec<&str> = modules.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    for needed in drivers_needed(volume) {
        findings.push(if config.denies("drivers", needed) {
            let found = format!("{needed} stands in denylist.drivers of {}", config.path().display());
            Finding::prevents("storage driver", found, "take it out of that list")
        } else if registered.contains(&needed) {
            Finding::well("storage driver", format!("{needed} knows nvidia-fs"))
        } else {
            let found = format!("{needed} has not registered with nvidia-fs: it is not loaded, or does not know it");
            Finding::prevents("storage driver", found, remedy_of(needed))
        });
    }
    let level = volume.and_then(|volume| {
        volume.stack.layers.iter().find_map(|layer| match layer {
            Layer::Raid(level) => Some(level.as_str()),
            Layer::Mapper(_) => None,
        })
    });
    if let Some(level) = level.filter(|level| !matches!(*level, "raid0" | "raid1" | "raid10")) {
        let found = format!("{level}, and cuFile takes raid0, in its newest releases raid1 and raid10 too");
        findings.push(Finding::prevents("RAID", found, "make it a raid0, or keep the data on single drives"));
    }
    findings
}

/// The kernel modules that have to know nvidia-fs, by the names that it lists.
fn drivers_needed(volume: Option<&Volume>) -> Vec<&'static str> {
    let Some(volume) = volume else { return vec!["nvme"] };
    match volume.carrier() {
        Carrier::Client(name) => vec![name],
        Carrier::Nobody => Vec::new(),
        Carrier::Disks => {
            let of = |kind: &DiskKind| match kind {
                DiskKind::Nvme(transport) if transport == "rdma" => Some("nvme_rdma"),
                DiskKind::Nvme(_) => Some("nvme"),
                DiskKind::Scsi => Some("scsi_mod"),
                DiskKind::Virtio | DiskKind::Loop | DiskKind::Other => None,
            };
            let mut names: Vec<_> = volume.stack.disks.iter().filter_map(|disk| of(&disk.kind)).collect();
            names.sort_unstable();
            names.dedup();
            names
        }
    }
}

fn remedy_of(driver: &str) -> &'static str {
    match driver {
        "nvme" => {
            "install NVIDIA's DOCA or MLNX_OFED with NVMe (--with-nvmf --enable-gds), whose nvme driver does; or use P2PDMA"
        }
        "nvme_rdma" | "scsi_mod" | "rpcrdma" => {
            "install NVIDIA's DOCA or MLNX_OFED (--with-nvmf --with-nfsrdma --enable-gds), whose drivers do"
        }
        _ => {
            "install a version of the file system's client that supports GPUDirect Storage, and load it after nvidia-fs"
        }
    }
}

fn by_p2pdma(machine: &Machine, driver: &Driver, config: &Config, volume: Option<&Volume>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(finding) = volume.and_then(not_for_p2pdma) {
        findings.push(finding);
    }
    let kernel = machine.word("/proc/sys/kernel/osrelease").unwrap_or_default();
    let is_new = version(&kernel).is_some_and(|kernel| kernel >= P2PDMA_KERNEL_MIN);
    let wanted = config.wants_p2pdma();
    let (major, minor) = P2PDMA_KERNEL_MIN;
    findings.push(if !is_new {
        let found = format!("Linux {kernel}, and P2PDMA needs {major}.{minor}");
        Finding::prevents("kernel", found, "use a newer kernel, or nvidia-fs")
    // Ten megabytes are not read for a route that nobody asked for.
    } else if wanted && machine.has_symbol(&P2PDMA_SYMBOLS) == Some(false) {
        let found = format!("Linux {kernel} was built without CONFIG_PCI_P2PDMA");
        Finding::prevents("kernel", found, "use the distribution's newest kernel, or nvidia-fs")
    } else {
        Finding::well("kernel", format!("Linux {kernel}"))
    });
    if !driver.is_open || driver.version.is_none_or(|(major, _)| major < P2PDMA_DRIVER_MIN) {
        let found = format!("P2PDMA needs the open kernel modules, {P2PDMA_DRIVER_MIN} or later");
        findings.push(Finding::prevents("P2PDMA driver", found, "install nvidia-open of a current release"));
    }
    findings.extend(registry_keys(machine, driver));
    if machine.word("/sys/module/nvme_core/parameters/multipath").is_some_and(|value| value == "Y") {
        let found = "it is on, and P2PDMA does not go through it";
        let remedy = "options nvme_core multipath=N in /etc/modprobe.d/nvme.conf, then update-initramfs -u (dracut -f) and reboot";
        findings.push(Finding::prevents("NVMe multipath", found, remedy));
    }
    findings.extend(asked_for(config, wanted));
    if !driver.gpus.iter().any(Gpu::is_listed_for_p2pdma) && !driver.gpus.is_empty() {
        let found = format!("{} is not on NVIDIA's list for P2PDMA", driver.models());
        let cost = "bytes may go through host memory all the same";
        findings.push(Finding::slows("P2PDMA GPU", found, cost, "look at the engine's receipt of what each read took"));
    }
    findings
}

/// P2PDMA reads local NVMe drives with nothing between.
fn not_for_p2pdma(volume: &Volume) -> Option<Finding> {
    let disk = volume.plain_disk().filter(|_| volume.carrier() == Carrier::Disks);
    if disk.is_some_and(|disk| matches!(&disk.kind, DiskKind::Nvme(transport) if transport == "pcie")) {
        return None;
    }
    let found = "P2PDMA reads a file system on one NVMe drive of this machine alone";
    Some(Finding::prevents("P2PDMA storage", found, "keep the data on such a drive, or use nvidia-fs"))
}

/// Keys of the driver's registry that P2PDMA needs on x86.
fn registry_keys(machine: &Machine, driver: &Driver) -> Option<Finding> {
    if machine.architecture != "x86_64" {
        return None;
    }
    let params = machine.text("/proc/driver/nvidia/params").unwrap_or_default();
    let line = params.lines().find_map(|line| line.strip_prefix("RegistryDwords:")).unwrap_or_default();
    let set: Vec<(&str, &str)> =
        line.trim().trim_matches('"').split(';').filter_map(|key| key.split_once('=')).collect();
    let has = |key: &str, value: &str| {
        set.iter().any(|(name, is)| name.trim().eq_ignore_ascii_case(key) && is.trim() == value)
    };
    let mut needed = vec![("RMForceStaticBar1", "1"), ("RmForceDisableIomapWC", "1")];
    if !driver.gpus.iter().any(Gpu::is_hopper_or_later) {
        needed.insert(1, ("ForceP2P", "0"));
    }
    let text = |keys: &[(&str, &str)]| keys.iter().map(|(key, value)| format!("{key}={value};")).collect::<String>();
    let missing: Vec<_> = needed.iter().copied().filter(|(key, value)| !has(key, value)).collect();
    if missing.is_empty() {
        return Some(Finding::well("driver registry", text(&needed)));
    }
    let found = format!("the driver was loaded without {}", text(&missing).trim_end_matches(';'));
    let remedy = format!(
        "options nvidia NVreg_RegistryDwords=\"{}\" in /etc/modprobe.d/nvidia-p2pdma.conf, then update-initramfs -u (dracut \
         -f) and reboot",
        text(&needed)
    );
    Some(Finding::prevents("driver registry", found, remedy))
}

/// Whether cuFile was told to use it.
fn asked_for(config: &Config, wanted: bool) -> Option<Finding> {
    let path = config.path().display();
    if !wanted {
        let found = format!("properties.use_pci_p2pdma is not set in {path}");
        let remedy = "set properties.use_pci_p2pdma and block.nvme.use_pci_p2pdma to true in /etc/cufile.json or the file \
                      that CUFILE_ENV_PATH_JSON names";
        return Some(Finding::prevents("P2PDMA mode", found, remedy));
    }
    let remedy = "set block.nvme.use_pci_p2pdma to true beside it, in an object \"block\" of the outermost level";
    match config.p2pdma_for_nvme() {
        Some(true) => Some(Finding::well("P2PDMA mode", format!("asked for by {path}"))),
        Some(false) => {
            let found = format!("block.nvme.use_pci_p2pdma is false in {path}");
            Some(Finding::prevents("P2PDMA mode", found, remedy))
        }
        None => {
            let found = format!("asked for, but {path} has no block.nvme.use_pci_p2pdma");
            let cost = "releases of cuFile that ask for it by kind of storage go through host memory";
            Some(Finding::slows("P2PDMA mode", found, cost, remedy))
        }
    }
}
