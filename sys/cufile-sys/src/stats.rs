//! What reads took, by the library's own statistics, which moved within their struct from version to version.

use std::ffi::c_int;

use crate::layouts::LAYOUTS;
use crate::result::{Error, Library};
use crate::sys::CUfileStatsLevel3_t;

/// What the library has read into one GPU since its statistics began or were reset.
///
/// `p2p`, `nvfs` and `posix` count reads by their path. The first two are direct, PCI peer-to-peer DMA of the kernel
/// and nvidia-fs; `posix` reads went through the host's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuReads {
    /// The GPU's UUID, as `cuDeviceGetUuid` says it.
    pub uuid: [u8; 16],
    /// Bytes that were asked for: of a read over the end of its file all count.
    pub bytes: u64,
    /// All reads.
    pub total: u64,
    /// Reads by PCI peer-to-peer DMA.
    pub p2p: u64,
    /// Reads by nvidia-fs.
    pub nvfs: u64,
    /// Reads by way of the host's memory.
    pub posix: u64,
    /// Reads of unaligned bytes, which took a bounce buffer.
    pub unaligned: u64,
    /// Reads that took another GPU's memory for the crossing of the bus.
    pub dynamic_routing: u64,
    /// Reads that failed, which nothing else counts.
    pub errors: u64,
}

/// What batches have read into all GPUs since the library's statistics began or were reset. The library counts what a
/// batch reads here alone, none of it in [`GpuReads`].
///
/// All but `bytes` count entries, as `cuFileBatchIOSubmit` took them. Those that came on a direct path are `p2p` and
/// `nvfs`, whatever the rest is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchReads {
    /// Bytes that were read, of an entry over the end of its file those that were there.
    pub bytes: u64,
    /// All entries. Writes count too, where there are any.
    pub total: u64,
    /// By PCI peer-to-peer DMA.
    pub p2p: u64,
    /// By nvidia-fs.
    pub nvfs: u64,
    /// By way of the host's memory: by Linux AIO, by io_uring, and by threads of the library's own. The last are in
    /// compatibility mode those of which offset or size is no multiple of 4096, and of descriptors without `O_DIRECT`.
    pub posix: u64,
    /// What the library calls mixed: in compatibility mode what its threads read, which `posix` counts too.
    pub mixed: u64,
    /// That were refused, by whichever path.
    pub errors: u64,
}

/// Where one version's `CUfileStatsLevel3_t` has its fields, all in bytes. Those of a GPU begin at its part of the
/// struct.
#[derive(Debug)]
pub(crate) struct Layout {
    pub version: c_int,
    pub bytes: usize,
    pub gpu_count: usize,
    pub first_gpu: usize,
    pub gpu_bytes: usize,
    pub gpus_max: usize,
    pub uuid: usize,
    pub read_bytes: usize,
    pub total: usize,
    pub p2p: usize,
    pub nvfs: usize,
    pub posix: usize,
    pub unaligned: usize,
    pub dynamic_routing: usize,
    pub errors: usize,
    /// This and what follows are pairs of what went well and what failed, from the beginning of the struct.
    pub batch_total: usize,
    pub batch_p2p: usize,
    pub batch_nvfs: usize,
    pub batch_aio: usize,
    pub batch_uring: usize,
    pub batch_threads: usize,
    pub batch_mixed: usize,
    /// A number, again from the beginning.
    pub batch_bytes: usize,
}

/// How much the call gets, several times what any known version writes.
const BUFFER_WORDS: usize = 4096;
/// What stands behind the struct before and after the call.
const UNTOUCHED: u64 = 0xa5a5_a5a5_a5a5_a5a5;

impl Library {
    /// What was read into each GPU that the library has seen, by other calls than those of batches, if its statistics
    /// are at level 3 and started.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] before 1.15 (CUDA 13.0), [`Error::UnknownLayout`] for a version that is newer than this code,
    /// what the library answers otherwise.
    pub fn gpu_reads(&self) -> Result<Vec<GpuReads>, Error> {
        self.statistics(Layout::gpu_reads)
    }

    /// What batches have read, if the library's statistics are at level 3 and started.
    ///
    /// # Errors
    ///
    /// As for [`Self::gpu_reads`].
    pub fn batch_reads(&self) -> Result<BatchReads, Error> {
        self.statistics(Layout::batch_reads)
    }

    fn statistics<T>(&self, read: impl FnOnce(&Layout, &[u64]) -> Option<T>) -> Result<T, Error> {
        const CALL: &str = "cuFileGetStatsL3";
        if self.missing().contains(&CALL) {
            return Err(Error::Missing(CALL));
        }
        let version = self.version()?;
        let unknown = Error::UnknownLayout { call: CALL, version };
        let layout = LAYOUTS.iter().find(|layout| layout.version == version).ok_or(unknown)?;
        let mut words = vec![0; BUFFER_WORDS];
        words[layout.bytes / 8..].fill(UNTOUCHED);
        // SAFETY: the buffer is longer than the struct of this version, and aligned for it.
        unsafe { self.cuFileGetStatsL3(words.as_mut_ptr().cast::<CUfileStatsLevel3_t>()) }?;
        layout.written(&words).and_then(|words| read(layout, words)).ok_or(unknown)
    }
}

impl Layout {
    /// The struct of this layout, or nothing where the words show that they have another.
    fn written<'a>(&self, words: &'a [u64]) -> Option<&'a [u64]> {
        let (written, behind) = words.split_at_checked(self.bytes / 8)?;
        behind.iter().all(|&word| word == UNTOUCHED).then_some(written)
    }

    /// Nothing where there cannot be as many GPUs.
    fn gpu_reads(&self, written: &[u64]) -> Option<Vec<GpuReads>> {
        // An unsigned int and padding, which is 0 as it was.
        let count = usize::try_from(written[self.gpu_count / 8]).ok()?;
        if count > self.gpus_max {
            return None;
        }
        let gpus = written[self.first_gpu / 8..].chunks_exact(self.gpu_bytes / 8).take(count);
        Some(gpus.map(|gpu| self.gpu(gpu)).collect())
    }

    fn batch_reads(&self, written: &[u64]) -> Option<BatchReads> {
        let word = |offset: usize| written.get(offset / 8).copied();
        let paths = [self.batch_p2p, self.batch_nvfs, self.batch_aio, self.batch_uring, self.batch_mixed];
        let errors = paths.map(|offset| word(offset + 8));
        let by_host = [self.batch_aio, self.batch_uring, self.batch_threads].map(word);
        Some(BatchReads {
            bytes: word(self.batch_bytes)?,
            total: word(self.batch_total)?,
            p2p: word(self.batch_p2p)?,
            nvfs: word(self.batch_nvfs)?,
            posix: by_host.into_iter().try_fold(0_u64, |sum, count| Some(sum.saturating_add(count?)))?,
            mixed: word(self.batch_mixed)?,
            errors: errors.into_iter().try_fold(0_u64, |sum, errors| Some(sum.saturating_add(errors?)))?,
        })
    }

    fn gpu(&self, words: &[u64]) -> GpuReads {
        let word = |offset: usize| words[offset / 8];
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&word(self.uuid).to_ne_bytes());
        uuid[8..].copy_from_slice(&word(self.uuid + 8).to_ne_bytes());
        GpuReads {
            uuid,
            bytes: word(self.read_bytes),
            total: word(self.total),
            p2p: word(self.p2p),
            nvfs: word(self.nvfs),
            posix: word(self.posix),
            unaligned: word(self.unaligned),
            dynamic_routing: word(self.dynamic_routing),
            errors: word(self.errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;
    use crate::sys::*;

    #[test]
    fn layouts_are_whole_words_within_the_buffer() {
        for layout in LAYOUTS {
            assert!(layout.bytes < BUFFER_WORDS * 8 / 2, "{layout:?}");
            assert!(layout.first_gpu + layout.gpus_max * layout.gpu_bytes <= layout.bytes, "{layout:?}");
            let fields = [layout.read_bytes, layout.total, layout.p2p, layout.nvfs, layout.posix, layout.unaligned];
            for offset in fields.into_iter().chain([layout.uuid + 8, layout.dynamic_routing, layout.errors]) {
                assert!(offset % 8 == 0 && offset + 8 <= layout.gpu_bytes, "{layout:?}");
            }
            let batches = [layout.batch_total, layout.batch_p2p, layout.batch_nvfs, layout.batch_aio];
            let batches = batches.into_iter().chain([layout.batch_uring, layout.batch_threads, layout.batch_mixed]);
            let all = [layout.bytes, layout.gpu_count, layout.first_gpu, layout.gpu_bytes].into_iter().chain(batches);
            for offset in all {
                assert!(offset % 8 == 0 && offset <= layout.bytes, "{layout:?}");
            }
        }
    }

    #[test]
    fn the_newest_layout_is_that_of_the_bindings_and_its_fields_are_found() {
        let layout = LAYOUTS.last().unwrap();
        assert_eq!(layout.bytes, size_of::<CUfileStatsLevel3_t>());
        assert_eq!(layout.gpu_count, offset_of!(CUfileStatsLevel3_t, num_gpus));
        let mut words = vec![0; BUFFER_WORDS];
        words[layout.bytes / 8..].fill(UNTOUCHED);
        // SAFETY: the words are longer than the struct, which is numbers alone, and aligned for it.
        let stats = unsafe { &mut *words.as_mut_ptr().cast::<CUfileStatsLevel3_t>() };
        stats.num_gpus = 2;
        let gpu = &mut stats.per_gpu_stats[1];
        gpu.uuid = std::array::from_fn(|i| (i as i8).wrapping_add(120));
        (gpu.read_bytes, gpu.n_total_reads, gpu.n_p2p_reads, gpu.n_nvfs_reads) = (1, 2, 3, 4);
        (gpu.n_posix_reads, gpu.n_unaligned_reads, gpu.n_dr_reads, gpu.n_reads_err) = (5, 6, 7, 8);
        let expected = GpuReads {
            uuid: std::array::from_fn(|i| i as u8 + 120),
            bytes: 1,
            total: 2,
            p2p: 3,
            nvfs: 4,
            posix: 5,
            unaligned: 6,
            dynamic_routing: 7,
            errors: 8,
        };
        assert_eq!(layout.gpu_reads(layout.written(&words).unwrap()), Some(vec![GpuReads::default(), expected]));
    }

    #[test]
    fn batches_are_counted_by_path() {
        let layout = LAYOUTS.last().unwrap();
        let mut words = vec![0; BUFFER_WORDS];
        // SAFETY: the words are longer than the struct, which is numbers alone, and aligned for it.
        let stats = unsafe { &mut *words.as_mut_ptr().cast::<CUfileStatsLevel3_t>() };
        let basic = &mut stats.detailed.basic;
        let count = |ok, err| CUfileOpCounter_t { ok, err };
        (basic.batch_p2p_submit_ops, basic.batch_nvfs_submit_ops) = (count(1, 10), count(2, 20));
        (basic.batch_aio_submit_ops, basic.batch_iouring_submit_ops) = (count(3, 30), count(4, 40));
        (basic.batch_mixed_io_submit_ops, basic.batch_total_submit_ops) = (count(5, 50), count(6, 60));
        (basic.batch_posix_enqueued_ops, basic.batch_read_bytes) = (count(8, 80), 7);
        let expected = BatchReads { bytes: 7, total: 6, p2p: 1, nvfs: 2, posix: 15, mixed: 5, errors: 150 };
        assert_eq!(layout.batch_reads(&words), Some(expected));
    }

    #[test]
    fn the_struct_grew_in_1_19() {
        let bytes = |version| LAYOUTS.iter().find(|layout| layout.version == version).map(|layout| layout.bytes);
        let added = size_of::<CUfileStatsLevel1_t>() - offset_of!(CUfileStatsLevel1_t, readv_ops);
        assert_eq!(bytes(1180).map(|bytes| bytes + added), bytes(1190));
        assert_eq!(LAYOUTS.first().map(|layout| layout.version), Some(1150));
    }

    #[test]
    fn a_struct_that_is_longer_than_known_or_counts_too_many_gpus_is_not_read() {
        let layout = LAYOUTS.first().unwrap();
        let mut words = vec![0; BUFFER_WORDS];
        words[layout.bytes / 8..].fill(UNTOUCHED);
        assert_eq!(layout.written(&words).and_then(|written| layout.gpu_reads(written)), Some(Vec::new()));
        words[layout.gpu_count / 8] = layout.gpus_max as u64 + 1;
        assert_eq!(layout.written(&words).and_then(|written| layout.gpu_reads(written)), None);
        words[layout.gpu_count / 8] = 0;
        words[layout.bytes / 8 + 3] = 0;
        assert_eq!(layout.written(&words), None);
    }
}
