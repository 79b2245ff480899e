//! Which disks take reads to a GPU.

use super::Finding;
use crate::storage::{DiskKind, Disks, Layer};

/// What it is, and whether anything takes it to a GPU.
pub(super) fn finding(disks: &Disks) -> Finding {
    let found = disks.to_string();
    let remedy = "keep the data on NVMe drives of this machine, or on NVMe over RDMA";
    let unfit = disks.disks.iter().find(|disk| !may_be_direct(&disk.kind));
    if disks.disks.is_empty() {
        Finding::prevents("disk", "sysfs does not say which disk the file system lies on", remedy)
    } else if disks.layers.iter().any(|layer| matches!(layer, Layer::Mapper(_))) {
        let remedy = "keep the data on a partition, a whole drive or RAID 0 by md, without LVM or encryption between";
        Finding::prevents("disk", format!("{found}: cuFile does not look through the device mapper"), remedy)
    } else if let Some(disk) = unfit {
        Finding::prevents("disk", format!("{found}: nothing takes {} to a GPU directly", disk.name), remedy)
    } else {
        Finding::well("disk", found)
    }
}

/// Whether there is a driver for it that knows nvidia-fs or P2PDMA.
fn may_be_direct(kind: &DiskKind) -> bool {
    match kind {
        DiskKind::Nvme(transport) => !matches!(transport.as_str(), "tcp" | "fc" | "loop"),
        DiskKind::Scsi => true,
        DiskKind::Virtio | DiskKind::Loop | DiskKind::Other => false,
    }
}
