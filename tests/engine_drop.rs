//! Dropping an engine at any moment frees everything, in bounded time, and no byte arrives afterwards.

mod engine_common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use engine_common::{content, rigs};

/// Fault row 24, the engine's part: dropped with any number of operations in flight, reaped or not.
#[test]
fn fault_24_dropped_with_reads_in_flight() {
    const READS: usize = 12;
    const LEN: usize = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, content(8, READS * LEN)).unwrap();
    assert_eq!(open_descriptors(&path), 0);
    for submitted in 0..=READS {
        for reaped in 0..=submitted.min(3) {
            for mut rig in rigs(4 << 20, 2 * READS) {
                let arena = rig.engine.arena().clone();
                let file = rig.open(&path).unwrap();
                assert_eq!(open_descriptors(&path), 1);
                for read in 0..submitted {
                    let offset = (read * LEN) as u64;
                    let region = arena.alloc(rig.engine.region_len(&file, offset, LEN)).unwrap().unwrap();
                    rig.engine.read(read as u64, &file, offset, LEN, region);
                    rig.engine.open(read as u64, &path);
                }
                let mut completions = Vec::new();
                rig.engine.reap(reaped, Duration::from_secs(60), &mut completions).unwrap();
                let begin = Instant::now();
                drop(rig);
                assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
                drop(completions);
                assert_eq!(arena.used_bytes(), 0, "the engine gave every region back");
                // Nobody writes to memory that is free again.
                let mut all = arena.alloc(arena.capacity_bytes()).unwrap().unwrap();
                all.as_mut_slice().fill(0x5A);
                assert!(all.as_slice().iter().all(|byte| *byte == 0x5A));
            }
        }
    }
    assert_eq!(open_descriptors(&path), 0, "no descriptor leaked");
}

#[test]
fn regions_outlive_the_engine_that_filled_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, content(9, 50_000)).unwrap();
    for mut rig in rigs(1 << 20, 2) {
        let file = rig.open(&path).unwrap();
        let region = rig.engine.arena().alloc(rig.engine.region_len(&file, 5, 40_000)).unwrap().unwrap();
        rig.engine.read(0, &file, 5, 40_000, region);
        let mut completions = Vec::new();
        rig.engine.reap(1, Duration::from_secs(60), &mut completions).unwrap();
        drop((rig, file));
        let Ok(forebay::engine::Outcome::Read(region)) = &completions[0].result else { panic!("{completions:?}") };
        assert!(region.as_slice() == &content(9, 50_000)[5..40_005]);
    }
}

/// Descriptors of this process that are open on a file.
fn open_descriptors(path: &Path) -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    descriptors.filter(|entry| fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|target| target == path)).count()
}
