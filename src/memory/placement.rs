//! Where memory lies just now: in which pages, on which node.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::ptr::NonNull;

use super::mapping::Pages;
use crate::report::mebibytes;

/// Pages whose node is asked for: evenly spread over the memory.
const PAGES_ASKED: usize = 64;

/// Where memory lies just now, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// Bytes in all.
    pub len_bytes: usize,
    /// What pages were asked for.
    pub pages: Pages,
    /// Bytes that have been touched; others have no page yet.
    pub resident_bytes: usize,
    /// Those of them that lie in huge pages. Of memory beside ours that the kernel counts together with it some may be
    /// among them.
    pub huge_bytes: usize,
    /// The NUMA node that most of it lies on; none where the kernel does not tell.
    pub node: Option<u32>,
}

impl Placement {
    /// Asks the kernel, which walks the page tables of the whole process: milliseconds, for reports.
    pub(super) fn of(start: NonNull<u8>, len_bytes: usize, pages: Pages) -> Self {
        let first = start.as_ptr() as usize;
        let text = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let (resident_bytes, huge_bytes) = backed(&text, first..first + len_bytes);
        Self { len_bytes, pages, resident_bytes, huge_bytes, node: node(start, len_bytes) }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, resident) = (mebibytes(self.len_bytes as u64), mebibytes(self.resident_bytes as u64));
        write!(f, "{all:.1} MiB, {resident:.1} touched, ")?;
        let huge = 100.0 * self.huge_bytes as f64 / self.resident_bytes.max(1) as f64;
        match self.pages {
            Pages::Huge => write!(f, "in huge pages that were set aside")?,
            Pages::Transparent => write!(f, "{huge:.0} % of that in huge pages")?,
            Pages::Small => write!(f, "in small pages")?,
        }
        match self.node {
            Some(node) => write!(f, ", on NUMA node {node}"),
            None => Ok(()),
        }
    }
}

/// Bytes of a range of addresses that are backed by memory, and by huge pages, by the text of /proc/self/smaps.
fn backed(text: &str, range: Range<usize>) -> (usize, usize) {
    let (mut resident, mut huge, mut overlap) = (0, 0, 0);
    for line in text.lines() {
        if let Some(mapped) = addresses(line) {
            overlap = mapped.end.min(range.end).saturating_sub(mapped.start.max(range.start));
        } else if overlap > 0
            && let Some((name, value)) = line.split_once(':')
        {
            let kib = value.split_whitespace().next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
            let bytes = kib.saturating_mul(1024).min(overlap);
            match name {
                "Rss" => resident += bytes,
                "AnonHugePages" => huge += bytes,
                // Those that were set aside are not in Rss.
                "Private_Hugetlb" => (resident, huge) = (resident + bytes, huge + bytes),
                _ => {}
            }
        }
    }
    (resident, huge.min(resident))
}

/// Those that the first line of a mapping begins with.
fn addresses(line: &str) -> Option<Range<usize>> {
    let (first, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(usize::from_str_radix(first, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// The node of most of the pages that are asked for (move_pages(2), which moves nothing where no nodes are named).
fn node(start: NonNull<u8>, len_bytes: usize) -> Option<u32> {
    let step = (len_bytes / PAGES_ASKED).max(super::REGION_ALIGN_BYTES);
    let pages: Vec<*const u8> =
        (0..len_bytes).step_by(step).map(|at| start.as_ptr().wrapping_add(at).cast_const()).collect();
    let mut status = vec![-1_i32; pages.len()];
    // SAFETY: both arrays have as many entries as is said; without nodes the call only writes `status`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            std::ptr::null::<libc::c_int>(),
            status.as_mut_ptr(),
            0,
        )
    };
    if result < 0 {
        return None;
    }
    // Pages that are not touched have an error instead.
    let nodes = status.iter().filter_map(|node| u32::try_from(*node).ok());
    nodes.clone().max_by_key(|node| nodes.clone().filter(|other| other == node).count())
}

#[cfg(test)]
mod tests {
    use super::super::Arena;
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read_for_the_range_alone() {
        let text = "\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0 
Size:               4096 kB
KernelPageSize:        4 kB
Rss:                4096 kB
AnonHugePages:      2048 kB
Private_Hugetlb:       0 kB
VmFlags: rd wr mr mw me ac hg
7f0000400000-7f0000800000 rw-p 00000000 00:00 0    [heap: odd]
Rss:                 100 kB
AnonHugePages:         0 kB
7f0000800000-7f0000a00000 rw-p 00000000 00:0f 7   /anon_hugepage (deleted)
Rss:                   0 kB
Private_Hugetlb:    2048 kB
";
        let mib = 1 << 20;
        let at = |first: usize, end: usize| backed(text, 0x7f00_0000_0000 + first..0x7f00_0000_0000 + end);
        assert_eq!(at(0, 4 * mib), (4 * mib, 2 * mib));
        assert_eq!(at(mib, 2 * mib), (mib, mib), "no more than there is");
        assert_eq!(at(0, 8 * mib), (4 * mib + (100 << 10), 2 * mib));
        assert_eq!(at(8 * mib, 10 * mib), (2 * mib, 2 * mib));
        assert_eq!(at(10 * mib, 12 * mib), (0, 0));
        for odd in ["", "x", "Rss: 5 kB", "ff-ee rw\nRss: 1 kB", "0-fffffffffffff r\nRss: many kB\nRss:\n:"] {
            assert_eq!(backed(odd, 0..100), (0, 0), "{odd}");
        }
    }

    #[test]
    fn an_arena_is_where_it_was_touched() {
        let arena = Arena::new(8 << 20).unwrap();
        let mut region = arena.alloc(5 << 20).unwrap().unwrap();
        region.as_mut_slice().fill(1);
        let placement = arena.placement();
        assert_eq!(placement.len_bytes, 8 << 20);
        assert!((5 << 20..=8 << 20).contains(&placement.resident_bytes), "{placement:?}");
        assert!(placement.huge_bytes <= placement.resident_bytes, "{placement:?}");
        if std::path::Path::new("/sys/devices/system/node/node0").is_dir() {
            assert!(placement.node.is_some(), "{placement:?}");
        }
        assert!(placement.to_string().starts_with("8.0 MiB, "), "{placement}");
    }
}
