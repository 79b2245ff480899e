//! What reads took on their way to a device, by what the library says.

use std::fmt;

use cufile_sys::{BatchReads, GpuReads};

/// A way from storage to device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadPath {
    /// DMA through NVIDIA's kernel module nvidia-fs.
    Nvfs,
    /// PCI peer-to-peer DMA of the kernel's own.
    P2pDma,
    /// Compatibility mode: read into host memory and copied from there.
    Posix,
    /// The library does not say.
    Unstated,
}

impl ReadPath {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nvfs, Self::P2pDma, Self::Posix, Self::Unstated];

    /// The name used in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nvfs => "nvfs",
            Self::P2pDma => "p2pdma",
            Self::Posix => "posix",
            Self::Unstated => "unstated",
        }
    }

    /// Whether no byte was in host memory.
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::Nvfs | Self::P2pDma)
    }
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// Reads that were completed.
    pub reads: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What reads into device memory took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    passages: [Passage; ReadPath::ALL.len()],
    /// Reads of the direct paths that took a bounce buffer on the device, since they were not aligned.
    pub bounced_reads: u64,
    /// Reads of the direct paths that crossed the bus by way of another device's memory.
    pub rerouted_reads: u64,
}

impl Receipts {
    /// What went one way.
    pub fn of(&self, path: ReadPath) -> Passage {
        self.passages[path as usize]
    }

    /// What went each way, ways that were not taken left out.
    pub fn taken(&self) -> impl Iterator<Item = (ReadPath, Passage)> {
        ReadPath::ALL.into_iter().map(|path| (path, self.of(path))).filter(|(_, passage)| passage.reads > 0)
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.taken().next().is_none()
    }

    fn count(&mut self, path: ReadPath, reads: u64, bytes: u64) {
        let passage = &mut self.passages[path as usize];
        passage.reads += reads;
        passage.bytes += bytes;
    }
}

impl fmt::Display for Receipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (path, Passage { reads, bytes })) in self.taken().enumerate() {
            let mebibytes = bytes as f64 / f64::from(1 << 20);
            write!(f, "{}{mebibytes:.1} MiB in {reads} reads by {}", if i == 0 { "" } else { ", " }, path.name())?;
        }
        Ok(())
    }
}

/// Reads by path, since the library began to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) nvfs: u64,
    pub(super) p2p: u64,
    pub(super) posix: u64,
    pub(super) bounced: u64,
    pub(super) rerouted: u64,
}

impl Counts {
    /// The sum over all devices, and of batches, which are counted apart. What took more than one path was not direct.
    pub(super) fn of(gpus: &[GpuReads], batches: &BatchReads) -> Self {
        let BatchReads { nvfs, p2p, posix, mixed, .. } = *batches;
        let mut sum = Self { nvfs, p2p, posix: posix + mixed, ..Self::default() };
        for gpu in gpus {
            sum.nvfs += gpu.nvfs;
            sum.p2p += gpu.p2p;
            sum.posix += gpu.posix;
            sum.bounced += gpu.unaligned;
            sum.rerouted += gpu.dynamic_routing;
        }
        sum
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            nvfs: self.nvfs.saturating_sub(earlier.nvfs),
            p2p: self.p2p.saturating_sub(earlier.p2p),
            posix: self.posix.saturating_sub(earlier.posix),
            bounced: self.bounced.saturating_sub(earlier.bounced),
            rerouted: self.rerouted.saturating_sub(earlier.rerouted),
        }
    }

    fn by_path(&self) -> [(ReadPath, u64); 3] {
        [(ReadPath::Nvfs, self.nvfs), (ReadPath::P2pDma, self.p2p), (ReadPath::Posix, self.posix)]
    }

    /// The path, if all of them took the same one.
    fn path(&self) -> Option<ReadPath> {
        let mut taken = self.by_path().into_iter().filter(|(_, reads)| *reads > 0);
        match (taken.next(), taken.next()) {
            (Some((path, _)), None) => Some(path),
            _ => None,
        }
    }
}

/// Puts completed reads down to the paths that the library's counts name.
///
/// The counts are the process's: reads of another library's user in it are among them. What lies between two looks at them
/// is put down to one path if only that one was counted; between looks that find several, the reads are told apart by their
/// numbers and the bytes are [`ReadPath::Unstated`].
#[derive(Debug, Default)]
pub(super) struct Ledger {
    first: Counts,
    last: Counts,
    receipts: Receipts,
    is_waited_out: bool,
}

impl Ledger {
    pub(super) fn new(now: Counts) -> Self {
        Self { first: now, last: now, ..Self::default() }
    }

    /// What was put down so far.
    pub(super) fn receipts(&self) -> Receipts {
        self.receipts
    }

    /// Goes back to what was put down before, and says what it was.
    pub(super) fn forget_since(&mut self, before: Receipts) -> Receipts {
        std::mem::replace(&mut self.receipts, before)
    }

    /// Whether nothing was ever counted, though a read has ended: the first counts may be late.
    pub(super) fn is_behind(&self, now: &Counts) -> bool {
        !self.is_waited_out && now.since(&self.first).by_path().iter().all(|(_, reads)| *reads == 0)
    }

    /// Notes that waiting for the first counts brought none: nobody waits again.
    pub(super) fn wait_out(&mut self) {
        self.is_waited_out = true;
    }

    /// Puts down reads that have ended, and says whether all of them were direct.
    pub(super) fn put(&mut self, now: Counts, reads: u64, bytes: u64) -> bool {
        let window = now.since(&self.last);
        let path = window.path().or_else(|| {
            let is_silent = window.by_path().iter().all(|(_, reads)| *reads == 0);
            // Counted with the reads of another thread, which asked first.
            now.since(&self.first).path().filter(|_| is_silent)
        });
        self.last = now;
        self.receipts.bounced_reads += window.bounced;
        self.receipts.rerouted_reads += window.rerouted;
        if let Some(path) = path {
            self.receipts.count(path, reads, bytes);
            return path.is_direct();
        }
        let mut left = reads;
        for (path, counted) in window.by_path() {
            let counted = counted.min(left);
            self.receipts.count(path, counted, 0);
            left -= counted;
        }
        self.receipts.count(ReadPath::Unstated, left, bytes);
        false
    }

    /// Puts down reads of which the library counts nothing.
    pub(super) fn put_by(&mut self, path: ReadPath, reads: u64, bytes: u64) -> bool {
        self.receipts.count(path, reads, bytes);
        path.is_direct()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(nvfs: u64, p2p: u64, posix: u64) -> Counts {
        Counts { nvfs, p2p, posix, ..Counts::default() }
    }

    fn passage(reads: u64, bytes: u64) -> Passage {
        Passage { reads, bytes }
    }

    #[test]
    fn reads_between_two_looks_that_name_one_path_took_it() {
        let mut ledger = Ledger::new(counts(10, 0, 5));
        assert!(ledger.put(counts(14, 0, 5), 4, 4096));
        assert!(!ledger.put(counts(14, 0, 6), 1, 100));
        assert!(ledger.put(counts(15, 0, 6), 1, 50));
        let receipts = ledger.receipts();
        assert_eq!(receipts.of(ReadPath::Nvfs), passage(5, 4146));
        assert_eq!(receipts.of(ReadPath::Posix), passage(1, 100));
        assert_eq!(receipts.to_string(), "0.0 MiB in 5 reads by nvfs, 0.0 MiB in 1 reads by posix");
    }

    #[test]
    fn bytes_of_several_paths_at_once_are_of_none() {
        let mut ledger = Ledger::new(Counts::default());
        assert!(!ledger.put(counts(0, 3, 2), 6, 600));
        let receipts = ledger.receipts();
        assert_eq!(receipts.of(ReadPath::P2pDma), passage(3, 0));
        assert_eq!(receipts.of(ReadPath::Posix), passage(2, 0));
        assert_eq!(receipts.of(ReadPath::Unstated), passage(1, 600));
    }

    #[test]
    fn reads_that_were_counted_with_anothers_take_the_only_path_there_was() {
        let mut ledger = Ledger::new(Counts::default());
        assert!(ledger.is_behind(&Counts::default()));
        ledger.wait_out();
        assert!(!ledger.is_behind(&Counts::default()));
        assert!(ledger.put(counts(2, 0, 0), 1, 10));
        assert!(!ledger.is_behind(&counts(2, 0, 0)));
        assert!(ledger.put(counts(2, 0, 0), 1, 10));
        assert_eq!(ledger.receipts().of(ReadPath::Nvfs), passage(2, 20));
        assert!(!ledger.put(counts(2, 0, 1), 1, 10));
        assert!(!ledger.put(counts(2, 0, 1), 1, 10), "by now there are two");
        assert_eq!(ledger.receipts().of(ReadPath::Unstated), passage(1, 10));
    }

    #[test]
    fn what_the_library_does_not_count_is_put_down_by_its_properties() {
        let mut ledger = Ledger::default();
        assert!(Receipts::default().is_empty() && ledger.put_by(ReadPath::Nvfs, 3, 30));
        assert!(!ledger.put_by(ReadPath::Unstated, 1, 5));
        assert_eq!(ledger.receipts().of(ReadPath::Nvfs), passage(3, 30));
    }
}
