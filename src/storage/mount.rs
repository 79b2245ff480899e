//! What is mounted where, by the kernel's mount table.

use std::path::{Path, PathBuf};

use super::Machine;

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The directory that it is mounted at.
    pub directory: PathBuf,
    /// Its type, as the kernel names it.
    pub kind: String,
    /// What is mounted: a device, or a server's export.
    pub source: String,
    /// Every option, those of the mount and those of the file system.
    pub options: Vec<String>,
    /// The number of its device, `major:minor`.
    pub device: String,
}

impl Mount {
    /// The mount that a path lies in, which has to be a canonical one; none where the mount table does not say.
    pub fn of(machine: &Machine, path: &Path) -> Option<Self> {
        let table = Self::all(machine);
        Self::above(&table, path).cloned()
    }

    /// The mount table; empty where there is none. No file system is asked anything.
    pub(super) fn all(machine: &Machine) -> Vec<Self> {
        let table = machine.text("/proc/self/mountinfo").unwrap_or_default();
        table.lines().filter_map(Self::parse).collect()
    }

    /// That of a table whose directory is the longest above a path. Of two on one directory the later one is seen.
    pub(super) fn above<'a>(table: impl IntoIterator<Item = &'a Self>, path: &Path) -> Option<&'a Self> {
        let above = table.into_iter().filter(|mount| path.starts_with(&mount.directory));
        above.max_by_key(|mount| mount.directory.components().count())
    }

    /// Its device as stat(2) numbers it.
    pub(super) fn device_number(&self) -> Option<u64> {
        let (major, minor) = self.device.split_once(':')?;
        Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
    }

    /// Of a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let (device, _root, directory, options) = (before.next()?, before.next()?, before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, source) = (after.next()?, after.next()?);
        let options = options.split(',').chain(after.next().unwrap_or_default().split(','));
        Some(Self {
            directory: PathBuf::from(unescaped(directory)),
            kind: kind.to_owned(),
            source: unescaped(source),
            options: options.map(str::to_owned).collect(),
            device: device.to_owned(),
        })
    }

    /// The value of an option, such as that of `data=`.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find_map(|option| option.strip_prefix(name))
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
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.directory.to_str(), mount.device.as_str()), (Some(r"/mnt/my data\x"), "259:1"));
        assert_eq!((mount.option("data="), mount.option("proto=")), (Some("ordered"), None));
        for odd in ["", " - ", "1 2 3 4 5 6 - ext4", "1 2 - ext4 a b", r"1 2 3:4 / \777\0 rw - \9 \"] {
            let _ = Mount::parse(odd);
        }
    }
}
