//! Block devices: from the number that a mount has down to the disks, through partitions, RAID and the device mapper.

use std::path::{Path, PathBuf};

use super::Machine;

/// Layers that are followed down, and devices that are looked at in all: a hostile sysfs may have loops.
const DEPTH_MAX: usize = 8;
const DEVICES_MAX: usize = 256;

/// What a file system lies on.
#[derive(Default)]
pub struct Disks {
    /// What lies between it and the disks, topmost first.
    pub layers: Vec<Layer>,
    /// The disks; none where sysfs does not say.
    pub disks: Vec<Disk>,
    /// Devices looked at.
    looked_at: usize,
}

/// Something that makes one block device of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Linux's software RAID, with its level.
    Raid(String),
    /// The device mapper, with what made the device: `LVM`, `CRYPT`.
    Mapper(String),
}

/// A disk.
pub struct Disk {
    /// The kernel's name.
    pub name: String,
    /// How it is attached.
    pub kind: DiskKind,
    /// What the maker calls it, where it says.
    pub model: Option<String>,
    /// Whether it has heads that move, which a virtual disk may claim wrongly.
    pub is_rotational: Option<bool>,
    /// The scheduler that orders its requests, such as `none` or `mq-deadline`.
    pub scheduler: Option<String>,
    /// Requests that its queues hold.
    pub queue_requests: Option<u64>,
    /// Whether it has queues whose completions can be polled for (IOPOLL).
    pub has_polling: Option<bool>,
    /// The directory of its controller.
    pub(crate) controller: Option<PathBuf>,
}

/// How a disk is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// NVMe, with its transport: `pcie`, `rdma`, `tcp`, `fc`, `loop`.
    Nvme(String),
    /// By SCSI, which SATA is too.
    Scsi,
    /// A virtual machine's.
    Virtio,
    /// A file.
    Loop,
    /// Something else.
    Other,
}

impl Disks {
    /// Of a device's number, `major:minor`.
    pub fn look(machine: &Machine, device: &str) -> Self {
        let mut disks = Self::default();
        if let Some(place) = machine.link(format!("/sys/dev/block/{device}")) {
            disks.descend(machine, place, 0);
        }
        disks
    }

    fn descend(&mut self, machine: &Machine, mut place: PathBuf, depth: usize) {
        if machine.exists(place.join("partition")) {
            place.pop();
        }
        let Some(name) = place.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { return };
        self.looked_at += 1;
        let known = self.disks.iter().any(|disk| disk.name == name);
        if known || depth > DEPTH_MAX || self.looked_at > DEVICES_MAX {
            return;
        }
        let layer = if name.starts_with("dm-") {
            let made_by = machine.word(place.join("dm/uuid")).unwrap_or_default();
            Some(Layer::Mapper(made_by.split('-').next().unwrap_or_default().to_owned()))
        } else if name.starts_with("md") {
            Some(Layer::Raid(machine.word(place.join("md/level")).unwrap_or_default()))
        } else {
            None
        };
        let Some(layer) = layer else {
            let kind = DiskKind::of(machine, &name, &place);
            let queue = |file: &str| machine.word(place.join("queue").join(file));
            return self.disks.push(Disk {
                kind,
                model: machine.word(place.join("device/model")).filter(|model| !model.is_empty()),
                is_rotational: queue("rotational").map(|word| word != "0"),
                scheduler: queue("scheduler").as_deref().map(chosen),
                queue_requests: queue("nr_requests").and_then(|word| word.parse().ok()),
                has_polling: queue("io_poll").map(|word| word == "1"),
                controller: controller(machine, &place),
                name,
            });
        };
        if !self.layers.contains(&layer) {
            self.layers.push(layer);
        }
        let slaves = place.join("slaves");
        for slave in machine.names(&slaves) {
            if let Some(place) = machine.link(slaves.join(slave)) {
                self.descend(machine, place, depth + 1);
            }
        }
    }
}

impl std::fmt::Display for Disks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for layer in &self.layers {
            match layer {
                Layer::Raid(level) if level.is_empty() => f.write_str("RAID over ")?,
                Layer::Raid(level) => write!(f, "{level} over ")?,
                Layer::Mapper(made_by) if made_by.is_empty() => f.write_str("device mapper over ")?,
                Layer::Mapper(made_by) => write!(f, "device mapper ({made_by}) over ")?,
            }
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} ({})", disk.name, disk.kind)?;
        }
        Ok(())
    }
}

impl DiskKind {
    fn of(machine: &Machine, name: &str, place: &Path) -> Self {
        match name {
            _ if name.starts_with("nvme") => {
                let transport = controller(machine, place).and_then(|place| machine.word(place.join("transport")));
                Self::Nvme(transport.unwrap_or_else(|| "an unknown transport".into()))
            }
            _ if name.starts_with("sd") => Self::Scsi,
            _ if name.starts_with("vd") => Self::Virtio,
            _ if name.starts_with("loop") => Self::Loop,
            _ => Self::Other,
        }
    }
}

impl std::fmt::Display for DiskKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nvme(transport) if transport == "pcie" => f.write_str("NVMe"),
            Self::Nvme(transport) => write!(f, "NVMe by {transport}"),
            Self::Scsi => f.write_str("SCSI"),
            Self::Virtio => f.write_str("virtio"),
            Self::Loop => f.write_str("a file"),
            Self::Other => f.write_str("of another kind"),
        }
    }
}

/// The directory of the controller that a disk hangs on. With the kernel's NVMe multipath the disk belongs to a subsystem,
/// in which its controllers are links; the first counts.
fn controller(machine: &Machine, place: &Path) -> Option<PathBuf> {
    let above = place.parent()?;
    let is_subsystem = above.file_name()?.to_str()?.starts_with("nvme-subsys");
    if !is_subsystem {
        return Some(above.to_owned());
    }
    machine.names(above).into_iter().find_map(|name| {
        machine.link(above.join(name)).filter(|place| {
            let name = place.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("nvme") && !name.starts_with("nvme-"))
        })
    })
}

/// Of words of which one stands in brackets, that one; of one word alone, that.
fn chosen(words: &str) -> String {
    let bracketed = words.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    bracketed.map_or(words, |(word, _)| word).to_owned()
}
