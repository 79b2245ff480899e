//! Where a path lies: its mount, and the disks under that.

use std::path::{Path, PathBuf};

use super::Finding;
use super::block::{Disk, Stack};
use super::config::Config;
use super::machine::Machine;

/// A mounted file system with what is under it.
pub(super) struct Volume {
    /// The directory that it is mounted at; none if the mount table does not have it.
    mount: Option<Mount>,
    pub(super) stack: Stack,
}

struct Mount {
    directory: PathBuf,
    /// The type, as the kernel names it.
    kind: String,
    /// What is mounted.
    source: String,
    /// Every option, those of the mount and those of the file system.
    options: Vec<String>,
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
        let table = machine.text("/proc/self/mountinfo").unwrap_or_default();
        // The mount whose directory is the longest above the path. Of two on one directory the later one is seen.
        let above = table.lines().filter_map(Mount::parse).filter(|(mount, _)| path.starts_with(&mount.directory));
        let mount = above.max_by_key(|(mount, _)| mount.directory.components().count());
        let (mount, device) = mount.map_or((None, String::new()), |(mount, device)| (Some(mount), device));
        let by_disk = mount.as_ref().is_some_and(|mount| mount.carrier() == Carrier::Disks);
        let stack = if by_disk { Stack::look(machine, &device) } else { Stack::default() };
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
            findings.push(self.stack.finding());
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
    /// Of a line of /proc/self/mountinfo (proc_pid_mountinfo(5)), with the device's number.
    fn parse(line: &str) -> Option<(Self, String)> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let (device, _root, directory, options) = (before.next()?, before.next()?, before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, source) = (after.next()?, after.next()?);
        let options = options.split(',').chain(after.next().unwrap_or_default().split(','));
        let mount = Self {
            directory: PathBuf::from(unescaped(directory)),
            kind: kind.to_owned(),
            source: unescaped(source),
            options: options.map(str::to_owned).collect(),
        };
        Some((mount, device.to_owned()))
    }

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

    /// The value of an option, such as that of `data=`.
    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find_map(|option| option.strip_prefix(name))
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

/// Undoes the mount table's octal escapes of blanks and backslashes.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let octal =
            behind.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        match octal {
            Some(digits) => {
                bytes.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &behind[3..];
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_blanks_and_options() {
        let line =
            r"36 35 259:1 / /mnt/my\040data\134x rw,noatime shared:1 master:2 - ext4 /dev/nvme0n1p1 rw,data=ordered";
        let (mount, device) = Mount::parse(line).unwrap();
        assert_eq!((mount.directory.to_str(), device.as_str()), (Some(r"/mnt/my data\x"), "259:1"));
        assert_eq!((mount.option("data="), mount.option("proto=")), (Some("ordered"), None));
        for odd in ["", " - ", "1 2 3 4 5 6 - ext4", "1 2 - ext4 a b", r"1 2 3:4 / \777\0 rw - \9 \"] {
            let _ = Mount::parse(odd);
        }
    }
}
