//! Which node of a machine with several memories (NUMA) bytes should land in: that of the device that uses them, or else
//! that of the storage that they come from.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the kernel tells of devices and nodes.
pub(crate) const SYS: &str = "/sys";

/// Nodes that are looked at: what a mask of four words holds.
pub(super) const NODES_MAX: u32 = 256;

/// The node for memory whose bytes come from files like the one at `path` and go to the device at a place on the PCI bus, such
/// as `0000:17:00.0`. `None` where there is one node only, or nothing says which.
pub(crate) fn node(path: Option<&Path>, pci: Option<&str>) -> Option<u32> {
    let sys = Path::new(SYS);
    let nodes = nodes_with_memory(sys);
    let storage = || node_of_device(sys, fs::metadata(path?).ok()?.dev());
    choose(&nodes, || node_of_pci(sys, pci?), storage)
}

/// Whether there is a choice.
pub(crate) fn has_choice() -> bool {
    nodes_with_memory(Path::new(SYS)).len() > 1
}

/// The processors of a node, those below `count`; none where it has none or there is no such node.
pub(crate) fn processors(sys: &Path, node: u32, count: u32) -> Vec<u32> {
    let list = sys.join(format!("devices/system/node/node{node}/cpulist"));
    fs::read_to_string(list).map_or_else(|_| Vec::new(), |text| parse_list(&text, count))
}

fn choose(nodes: &[u32], device: impl FnOnce() -> Option<u32>, storage: impl FnOnce() -> Option<u32>) -> Option<u32> {
    if nodes.len() < 2 {
        return None;
    }
    let has_memory = |node: &u32| nodes.contains(node);
    device().filter(has_memory).or_else(|| storage().filter(has_memory))
}

/// The list that the kernel gives: `0-1,4`.
fn nodes_with_memory(sys: &Path) -> Vec<u32> {
    fs::read_to_string(sys.join("devices/system/node/has_memory"))
        .map_or_else(|_| Vec::new(), |text| parse_list(&text, NODES_MAX))
}

/// Of numbers and ranges, those below `count`.
fn parse_list(text: &str, count: u32) -> Vec<u32> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < count);
    let ranges = text.trim().split(',').filter_map(|part| match part.split_once('-') {
        Some((first, last)) => Some(number(first)?..=number(last)?),
        None => number(part).map(|node| node..=node),
    });
    ranges.flatten().collect()
}

fn node_of_pci(sys: &Path, place: &str) -> Option<u32> {
    // A name, not a path.
    let is_name = place.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.');
    if is_name { node_at(&sys.join("bus/pci/devices").join(place)) } else { None }
}

/// The node of a block device, through partitions up to the controller that says it. A device of several disks says none.
fn node_of_device(sys: &Path, device: u64) -> Option<u32> {
    let link = sys.join(format!("dev/block/{}:{}", libc::major(device), libc::minor(device)));
    let place = fs::canonicalize(link).ok()?;
    let sys = fs::canonicalize(sys).ok()?;
    place.ancestors().take_while(|place| *place != sys).find_map(node_at)
}

/// -1 where a device belongs to none.
fn node_at(place: &Path) -> Option<u32> {
    fs::read_to_string(place.join("numa_node")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_decides_then_the_storage_and_only_where_there_is_a_choice() {
        let some = |node| move || Some(node);
        let none = || None;
        assert_eq!(choose(&[0], some(0), some(0)), None);
        assert_eq!(choose(&[], some(0), some(0)), None);
        assert_eq!(choose(&[0, 1], some(1), some(0)), Some(1));
        assert_eq!(choose(&[0, 1], none, some(0)), Some(0));
        assert_eq!(choose(&[0, 1], none, none), None);
        // A node without memory of its own, as accelerators may have.
        assert_eq!(choose(&[0, 1], some(2), some(1)), Some(1));
        assert_eq!(choose(&[0, 1], some(2), some(3)), None);
    }

    #[test]
    fn lists_are_ranges_and_numbers() {
        let parse_list = |text| super::parse_list(text, NODES_MAX);
        assert_eq!(parse_list("0\n"), [0]);
        assert_eq!(parse_list("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(parse_list(""), [0; 0]);
        assert_eq!(parse_list("1-0,x,3-,-4,4294967296,0-4000000000,7"), [7], "what is no node is passed over");
    }

    #[test]
    fn a_node_has_the_processors_of_its_list() {
        let sys = tempfile::tempdir().unwrap();
        let node = sys.path().join("devices/system/node/node1");
        fs::create_dir_all(&node).unwrap();
        fs::write(node.join("cpulist"), "2-3,300,1023-1025\n").unwrap();
        assert_eq!(processors(sys.path(), 1, 1024), [2, 3, 300], "a range beyond the last is passed over");
        assert_eq!(processors(sys.path(), 0, 1024), [0; 0]);
    }

    #[test]
    fn the_node_is_that_of_the_nearest_device_that_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        let disk = sys.join("devices/pci0000:80/0000:81:00.0/nvme/nvme0/nvme0n1");
        fs::create_dir_all(disk.join("nvme0n1p1")).unwrap();
        fs::write(sys.join("devices/pci0000:80/0000:81:00.0/numa_node"), "1\n").unwrap();
        let virtual_disk = sys.join("devices/virtual/block/dm-0");
        fs::create_dir_all(&virtual_disk).unwrap();
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        std::os::unix::fs::symlink(disk.join("nvme0n1p1"), sys.join("dev/block/259:1")).unwrap();
        std::os::unix::fs::symlink(&virtual_disk, sys.join("dev/block/253:0")).unwrap();
        assert_eq!(node_of_device(sys, libc::makedev(259, 1)), Some(1));
        assert_eq!(node_of_device(sys, libc::makedev(253, 0)), None);
        assert_eq!(node_of_device(sys, libc::makedev(8, 0)), None);
        let gpu = sys.join("bus/pci/devices/0000:17:00.0");
        fs::create_dir_all(&gpu).unwrap();
        for (says, node) in [("0\n", Some(0)), ("-1\n", None), ("", None)] {
            fs::write(gpu.join("numa_node"), says).unwrap();
            assert_eq!(node_of_pci(sys, "0000:17:00.0"), node, "{says:?}");
        }
        assert_eq!(node_of_pci(sys, "../pci/devices/0000:17:00.0"), None);
    }
}
