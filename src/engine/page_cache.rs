//! Whether a data set fits into the page cache, and what of a file is in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::memory::FileMap;
use crate::source::{Extent, Source};

/// Samples whose files are looked at to estimate the size of a data set. At a millisecond a file on a slow network
/// mount this is a tenth of a second.
const SAMPLES_LOOKED_AT: u64 = 64;

/// Bytes of a data set that can be expected to stay in the page cache: half of the memory that is available
/// now, within the control group's limit. 0 if that cannot be told.
///
/// Half, because training and the other processes of the node grow after this is asked, and because
/// a cache that is a little too small for a random order still misses most of what it evicted.
pub fn budget_bytes() -> u64 {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_bytes(&text)).unwrap_or(0);
    available.min(cgroup_limit_bytes()) / 2
}

/// The approximate size of a data set, from the mean of a few samples spread over it: exact where
/// samples are parts of shards of one size. `None` if none of them can be looked at.
pub fn estimate_data_set_bytes(source: &dyn Source) -> Option<u64> {
    let looked_at = source.len().min(SAMPLES_LOOKED_AT);
    let mut path = PathBuf::new();
    let sizes = (0..looked_at).filter_map(|step| {
        let sample = (u128::from(step) * u128::from(source.len()) / u128::from(looked_at)) as u64;
        match source.extent(sample).ok()? {
            Extent::Range { len_bytes, .. } => Some(len_bytes),
            Extent::Object(object) => {
                source.object_path(object, &mut path).ok()?;
                Some(fs::metadata(&path).ok()?.len())
            }
        }
    });
    let (count, sum) = sizes.fold((0_u128, 0_u128), |(count, sum), size| (count + 1, sum + u128::from(size)));
    (count > 0).then(|| u64::try_from(sum * u128::from(source.len()) / count).unwrap_or(u64::MAX))
}

/// What is asked about at once, and how often at most; larger files are judged by parts at even distances.
const RESIDENCY_PART_BYTES: u64 = 64 << 20;
const RESIDENCY_PARTS_MAX: u64 = 64;

/// The share of a file that is in the page cache, 0 to 1: all of a file of up to 4 GiB is looked at, and as much of a larger
/// one. `None` where the kernel would not tell this process, which neither owns the file nor may write it; 0 for an empty one.
///
/// # Errors
/// Those of opening and mapping the file.
pub fn resident_share(path: &Path) -> Result<Option<f64>> {
    let failed = |error| Error::io(format_args!("{}: asking what is in the page cache", path.display()), error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.len() == 0 {
        return Ok(Some(0.0));
    }
    // Of other files mincore(2) calls every page resident, lest it tell what other users read.
    let own = fs::metadata("/proc/self").map(|process| process.uid());
    let is_told =
        own.is_ok_and(|own| own == 0 || own == metadata.uid()) || OpenOptions::new().write(true).open(path).is_ok();
    if !is_told {
        return Ok(None);
    }
    let map = FileMap::new(&file).map_err(failed)?;
    let (resident, looked_at) = residency(&map, metadata.len()).map_err(failed)?;
    Ok(Some(resident as f64 / looked_at.max(1) as f64))
}

/// Bytes in the page cache, and bytes looked at.
fn residency(map: &FileMap, len_bytes: u64) -> io::Result<(u64, u64)> {
    let parts = len_bytes.div_ceil(RESIDENCY_PART_BYTES);
    let looked_at = parts.min(RESIDENCY_PARTS_MAX);
    (0..looked_at).try_fold((0, 0), |(resident, all), number| {
        let part = (u128::from(number) * u128::from(parts) / u128::from(looked_at)) as u64;
        let start = usize::try_from(part * RESIDENCY_PART_BYTES).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let (in_part, of) = map.resident_bytes(start, RESIDENCY_PART_BYTES as usize)?;
        Ok((resident + in_part as u64, all + of as u64))
    })
}

/// `MemAvailable` of /proc/meminfo (proc_meminfo(5)).
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The tightest memory limit of our control group and those above it (cgroups(7)); the page cache we fill
/// is charged to it.
fn cgroup_limit_bytes() -> u64 {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_start_matches('/').to_owned();
    let version_2 = Path::new(&own).ancestors().map(|above| Path::new("/sys/fs/cgroup").join(above).join("memory.max"));
    let version_1 = PathBuf::from("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    let limits = version_2.chain([version_1]).filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    struct Shard;

    impl Source for Shard {
        fn len(&self) -> u64 {
            1_000_000_000
        }
        fn extent(&self, sample: u64) -> Result<Extent> {
            Ok(Extent::Range { object: 0, offset: sample * 1000, len_bytes: 1000 })
        }
        fn object_path(&self, _: u64, _: &mut PathBuf) -> Result<()> {
            Ok(())
        }
        fn label(&self, _: u64) -> Result<i64> {
            Ok(0)
        }
        fn key(&self, _: u64, _: &mut String) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_size_is_estimated_without_reading_every_sample() {
        assert_eq!(estimate_data_set_bytes(&Shard), Some(1_000_000_000_000));
    }

    #[test]
    fn what_was_written_is_resident_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![1; 3 << 20]).unwrap();
        assert_eq!(resident_share(&path).unwrap(), Some(1.0));
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(&file, 0, 1 << 20, advice).unwrap();
        let share = resident_share(&path).unwrap().unwrap();
        // A file system in memory drops nothing.
        assert!(share == 1.0 || (0.6..0.7).contains(&share), "{share}");
        fs::write(&path, "").unwrap();
        assert_eq!(resident_share(&path).unwrap(), Some(0.0));
        assert!(resident_share("/no/such/file".as_ref()).unwrap_err().to_string().contains("/no/such/file"));
    }

    #[test]
    fn available_memory_is_in_kibibytes() {
        assert_eq!(available_bytes("MemTotal: 9 kB\nMemAvailable:   24 kB\n"), Some(24 * 1024));
        assert_eq!(available_bytes("MemAvailable: many kB"), None);
        assert!(budget_bytes() > 0, "this machine has memory to spare");
    }
}
