//! Where a path lies: its mount, and the disks under that.

use std::path::Path;

use super::Finding;
use super::block;
use super::config::Config;
use crate::storage::{Disk, Disks, Machine, Mount};

/// A mounted file system with what is under it.
pub(super) struct Volume {
    /// The directory that it is mounted at; none if the mount table does not have it.
    mount: Option<Mount>,
    pub(super) stack: Disks,
}

/// Who takes a file system's reads to a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// The driver of the disks under it.
    Disks,
    /// A client of a network file system, by the name under which it registers with nvidia-fs.
    Client(&'static str),
    /// Nobody.
    Nobody,
}

impl Volume {
    pub(super) fn look(machine: &Machine, path: &Path) -> Self {
        let mount = Mount::of(machine, path);
        let stack = match &mount {
            Some(mount) if mount.carrier() == Carrier::Disks => Disks::look(machine, &mount.device),
            _ => Disks::default(),
        };
        Self { mount, stack }
    }

    /// Who takes reads of it to a GPU.
    pub(super) fn carrier(&self) -> Carrier {
        self.mount.as_ref().map_or(Carrier::Nobody, Mount::carrier)
    }

    /// What holds for both routes.
    pub(super) fn findings(&self, config: &Config) -> Vec<Finding> {
        let Some(mount) = &self.mount else {
            let remedy = "mount /proc, which cuFile reads too";
            return vec![Finding::prevents("file system", "the mount table does not say where the path lies", remedy)];
        };
        let mut findings = vec![mount.finding()];
        if mount.carrier() == Carrier::Disks {
            findings.push(block::finding(&self.stack));
        }
        let devices = self.stack.disks.iter().map(|disk| format!("/dev/{}", disk.name));
        let denied = [("filesystems", mount.kind.clone()), ("mounts", mount.directory.display().to_string())]
            .into_iter()
            .chain(devices.map(|device| ("devices", device)))
            .find(|(list, name)| config.denies(list, name));
        if let Some((list, name)) = denied {
            let found = format!("{name} stands in denylist.{list} of {}", config.path().display());
            findings.push(Finding::prevents("deny list", found, "take it out of that list"));
        }
        findings
    }
}

impl Mount {
    fn carrier(&self) -> Carrier {
        match self.kind.as_str() {
            "ext4" | "xfs" => Carrier::Disks,
            "nfs" | "nfs4" => Carrier::Client("rpcrdma"),
            "lustre" => Carrier::Client("lnet"),
            "wekafs" => Carrier::Client("wekafsio"),
            "gpfs" => Carrier::Client("mmfslinux"),
            "beegfs" | "beegfs_nodev" => Carrier::Client("beegfs"),
            _ => Carrier::Nobody,
        }
    }

    fn finding(&self) -> Finding {
        let Self { directory, kind, source, .. } = self;
        let found = format!("{kind} on {source}, mounted at {}", directory.display());
        match kind.as_str() {
            "ext4" => match self.option("data=") {
                Some("ordered") => Finding::well("file system", found),
                Some(mode) => Finding::prevents(
                    "file system",
                    format!("{found} with data={mode}, and cuFile takes data=ordered alone"),
                    "unmount it, and mount it with -o data=ordered",
                ),
                None => Finding::prevents(
                    "file system",
                    format!("{found} without the option data=ordered, which cuFile looks for in the mount table"),
                    "unmount it, and mount it with -o data=ordered: it is the default, but not listed unless given",
                ),
            },
            "nfs" | "nfs4" => match self.option("proto=") {
                Some("rdma") => Finding::well("file system", format!("{found} by RDMA")),
                other => Finding::prevents(
                    "file system",
                    format!("{found} by {}", other.unwrap_or("TCP")),
                    "mount it with -o proto=rdma, from a server and by an adapter that can",
                ),
            },
            _ if self.carrier() != Carrier::Nobody => Finding::well("file system", found),
            _ => {
                let layered = matches!(kind.as_str(), "overlay" | "tmpfs" | "ramfs" | "9p" | "virtiofs" | "squashfs")
                    || kind.starts_with("fuse");
                let remedy = if layered {
                    "give the container or virtual machine a directory of the host's ext4 or XFS on NVMe, and keep the data \
                     there"
                } else {
                    "keep the data on ext4 or XFS on NVMe, or on Lustre, WekaFS, BeeGFS, Spectrum Scale or NFS over RDMA"
                };
                Finding::prevents("file system", format!("{found}: cuFile knows no direct path from it"), remedy)
            }
        }
    }
}

impl Volume {
    /// The only disk under it, if there is one and nothing between.
    pub(super) fn plain_disk(&self) -> Option<&Disk> {
        match (&self.stack.layers[..], &self.stack.disks[..]) {
            ([], [disk]) => Some(disk),
            _ => None,
        }
    }
}
