//! The way between a GPU and a drive on the PCI bus: what lies on it, and what turns peer-to-peer traffic aside.

use std::path::Path;

use super::Finding;
use super::driver::Driver;
use super::volume::Volume;
use crate::storage::Machine;

/// The configuration space of a PCI Express function, where the extended capabilities start in it, and the most there can
/// be of them.
const CONFIG_BYTES: u64 = 4096;
const EXTENDED_AT: usize = 0x100;
const CAPABILITIES_MAX: usize = 64;
/// The capability "Access Control Services" (PCI Express Base Specification, 7.7.8), its control register, and the bits that
/// send requests and completions between peers up to the root.
const ACS_ID: u16 = 0x000D;
const ACS_CONTROL_AT: usize = 6;
const ACS_REDIRECT: u16 = 0b1100;
/// Names that are listed in a message.
const NAMED_MAX: usize = 4;

/// What slows peer-to-peer traffic.
pub(super) fn look(machine: &Machine, driver: &Driver, volume: Option<&Volume>) -> Vec<Finding> {
    let gpus: Vec<(&str, Vec<String>)> = driver
        .gpus
        .iter()
        .filter_map(|gpu| {
            Some((gpu.place.as_str(), chain(&machine.link(format!("/sys/bus/pci/devices/{}", gpu.place))?)))
        })
        .collect();
    let disks: Vec<(&str, Vec<String>)> = volume
        .into_iter()
        .flat_map(|volume| &volume.stack.disks)
        .filter_map(|disk| Some((disk.name.as_str(), chain(disk.controller.as_deref()?))))
        .filter(|(_, pci)| !pci.is_empty())
        .collect();
    [iommu(machine), distance(&gpus, &disks), access_control(machine, &gpus, &disks)].into_iter().flatten().collect()
}

/// The host bridge and the PCI devices on the way to a device, from its directory in sysfs:
/// `pci0000:00`, `0000:00:01.0`, `0000:17:00.0`.
fn chain(place: &Path) -> Vec<String> {
    let names = place.components().filter_map(|component| component.as_os_str().to_str());
    names.filter(|name| is_function(name) || is_host_bridge(name)).map(str::to_owned).collect()
}

fn is_host_bridge(name: &str) -> bool {
    let bus = name.strip_prefix("pci").and_then(|rest| rest.split_once(':'));
    bus.is_some_and(|(domain, bus)| domain.len() >= 4 && bus.len() == 2 && is_hex(domain) && is_hex(bus))
}

fn is_function(name: &str) -> bool {
    let mut parts = name.split([':', '.']);
    let mut part = |lens: std::ops::RangeInclusive<usize>| {
        parts.next().is_some_and(|part| lens.contains(&part.len()) && is_hex(part))
    };
    part(4..=8) && part(2..=2) && part(2..=2) && part(1..=1) && parts.next().is_none()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// How far two devices are apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    /// Behind one root port, so below one switch.
    Switch,
    /// Through the host bridge that both hang on.
    HostBridge,
    /// From one host bridge to another, between sockets perhaps.
    Apart,
}

impl Distance {
    fn of(one: &[String], other: &[String]) -> Self {
        match one.iter().zip(other).take_while(|(one, other)| one == other).count() {
            0 => Self::Apart,
            1 => Self::HostBridge,
            _ => Self::Switch,
        }
    }
}

/// Which of the devices is near the drives.
fn distance(gpus: &[(&str, Vec<String>)], disks: &[(&str, Vec<String>)]) -> Option<Finding> {
    let farthest = |gpu: &[String]| disks.iter().map(|(_, disk)| Distance::of(gpu, disk)).max();
    let distances: Vec<_> = gpus.iter().filter_map(|(place, gpu)| Some((farthest(gpu)?, *place))).collect();
    let nearest = distances.iter().map(|(distance, _)| *distance).min()?;
    let near: Vec<_> = distances.iter().filter(|(distance, _)| *distance == nearest).map(|(_, place)| *place).collect();
    let drives = named(&disks.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let found = |how: &str| format!("{drives} and GPU {} {how}", named(&near));
    let remedy = "use the GPU and the drive that `nvidia-smi topo -m` and `lspci -tv` show behind one switch";
    Some(match nearest {
        Distance::Switch => Finding::well("PCIe", found("are behind one root port")),
        Distance::HostBridge => {
            let cost =
                "the bytes go through the processor's root complex, which some processors do slowly or not at all";
            Finding::slows("PCIe", found("meet in the host bridge"), cost, remedy)
        }
        Distance::Apart => {
            let cost = "the bytes cross the links within or between processors";
            Finding::slows("PCIe", found("hang on different host bridges"), cost, remedy)
        }
    })
}

/// An IOMMU that translates sends peer-to-peer traffic through the root complex. On Arm it belongs to the platform.
fn iommu(machine: &Machine) -> Option<Finding> {
    if machine.architecture != "x86_64" {
        return None;
    }
    if machine.names("/sys/class/iommu").is_empty() {
        return Some(Finding::well("IOMMU", "off"));
    }
    let command_line = machine.text("/proc/cmdline").unwrap_or_default();
    let passes = command_line.split_whitespace().any(|word| matches!(word, "iommu=pt" | "iommu.passthrough=1"));
    let found = if passes { "on, in passthrough mode" } else { "on" };
    let cost = "traffic between peers goes through the root complex: slower, and on some platforms not at all";
    let remedy = "boot with iommu=off (or amd_iommu=off, intel_iommu=off), unless the platform is one that NVIDIA lists for \
                  iommu=pt";
    Some(Finding::slows("IOMMU", found, cost, remedy))
}

/// Bridges that send traffic between peers up to the root. nvidia-fs lists them for everybody; without it only root may see.
fn access_control(machine: &Machine, gpus: &[(&str, Vec<String>)], disks: &[(&str, Vec<String>)]) -> Option<Finding> {
    let listed = machine.text("/proc/driver/nvidia-fs/bridges").ok();
    let redirects = |function: &str| match &listed {
        Some(listed) => Some(listed.lines().any(|line| line.trim() == function)),
        None => redirects(&machine.bytes(format!("/sys/bus/pci/devices/{function}/config"), CONFIG_BYTES).ok()?),
    };
    // The last of a chain is the device itself, the first the host bridge.
    let above = |chain: &[String]| chain.get(1..chain.len().saturating_sub(1)).unwrap_or_default().to_vec();
    let mut bridges: Vec<String> = gpus.iter().flat_map(|(_, chain)| above(chain)).collect();
    bridges.extend(disks.iter().flat_map(|(_, chain)| above(chain)));
    bridges.sort_unstable();
    bridges.dedup();
    let known: Vec<_> = bridges.iter().filter_map(|bridge| Some((bridge.as_str(), redirects(bridge)?))).collect();
    if known.is_empty() {
        return None;
    }
    let on: Vec<_> = known.iter().filter(|(_, on)| *on).map(|(bridge, _)| *bridge).collect();
    if on.is_empty() {
        return Some(Finding::well("PCIe ACS", "off on the way"));
    }
    let cost = "traffic between peers goes up to the root complex and back instead of through the switch";
    let remedy = "turn ACS off in the firmware, or for each bridge: setpci -s BRIDGE ECAP_ACS+6.w=0000";
    Some(Finding::slows("PCIe ACS", format!("on at {}", named(&on)), cost, remedy))
}

/// Whether a function's configuration space has ACS redirecting peers; none where the space is too short to say, which is
/// what everybody but root sees.
fn redirects(config: &[u8]) -> Option<bool> {
    let word = |at: usize| Some(u16::from_le_bytes(config.get(at..at + 2)?.try_into().ok()?));
    let mut at = EXTENDED_AT;
    word(at)?;
    for _ in 0..CAPABILITIES_MAX {
        let (id, next) = (word(at)?, word(at + 2)? >> 4);
        if id == ACS_ID {
            return Some(word(at + ACS_CONTROL_AT)? & ACS_REDIRECT != 0);
        }
        if usize::from(next) < EXTENDED_AT {
            break;
        }
        at = next.into();
    }
    Some(false)
}

/// The first few names, and how many more there are.
fn named(names: &[&str]) -> String {
    let first = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_way_to_a_device_is_in_its_directory() {
        let place = "/sys/devices/pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:04.0/0000:1a:00.0/nvme/nvme0/nvme0n1";
        let way = chain(place.as_ref());
        assert_eq!(way, ["pci0000:16", "0000:16:01.0", "0000:17:00.0", "0000:18:04.0", "0000:1a:00.0"]);
        assert!(chain("/sys/devices/virtual/block/dm-0".as_ref()).is_empty());
        let other = chain("/sys/devices/pci0000:16/0000:16:01.0/0000:17:00.0/0000:18:08.0/0000:1b:00.0".as_ref());
        assert!(Distance::of(&way, &other) == Distance::Switch);
        let other = chain("/sys/devices/pci0000:16/0000:16:03.0/0000:20:00.0".as_ref());
        assert!(Distance::of(&way, &other) == Distance::HostBridge);
        let other = chain("/sys/devices/pci10000:e0/10000:e0:03.0".as_ref());
        assert!(Distance::of(&way, &other) == Distance::Apart && other.len() == 2);
    }

    #[test]
    fn redirection_of_peers_is_read_from_the_configuration_space() {
        let mut config = vec![0_u8; 4096];
        let mut capability = |at: usize, id: u16, next: u16, control: u16| {
            config[at..at + 2].copy_from_slice(&id.to_le_bytes());
            config[at + 2..at + 4].copy_from_slice(&(next << 4 | 1).to_le_bytes());
            config[at + 6..at + 8].copy_from_slice(&control.to_le_bytes());
            config.clone()
        };
        let without = capability(0x100, 0x0001, 0x150, 0);
        assert_eq!(redirects(&without), Some(false));
        let on = capability(0x150, ACS_ID, 0, 0b1_1101);
        assert_eq!((redirects(&on), redirects(&on[..256]), redirects(&on[..64])), (Some(true), None, None));
        let off = capability(0x150, ACS_ID, 0, 0b1_0001);
        assert_eq!(redirects(&off), Some(false));
        let loops = capability(0x150, 0x0002, 0x100, 0);
        assert_eq!(redirects(&loops), Some(false));
    }

    proptest! {
        #[test]
        fn any_configuration_space_is_taken(config in proptest::collection::vec(any::<u8>(), 0..4200)) {
            let _ = redirects(&config);
        }

        #[test]
        fn any_name_is_taken(name in "[pci0-9a-f:.]{0,16}") {
            let _ = chain(name.as_ref());
        }
    }
}
