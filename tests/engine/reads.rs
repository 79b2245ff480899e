//! Every engine reads exactly the bytes that were asked for, from files of every length, around the page cache
//! and through it, in one piece or in many.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::engine_common::{Rig, content, rigs};
use forebay::ErrorKind;
use forebay::engine::{Direct, EngineKind, EngineOptions, FileCache};

/// Fault row 3: the unaligned tail at the end of a file is accepted only if it reaches the expected end.
#[test]
fn fault_03_unaligned_tail_at_end_of_file() {
    let folder = tempfile::tempdir().unwrap();
    for len in 1..=8193 {
        fs::write(folder.path().join(len.to_string()), content(len as u64, len)).unwrap();
    }
    for mut rig in rigs(8 << 20, 8) {
        for len in 1..=8193 {
            let file = rig.open(&folder.path().join(len.to_string())).unwrap();
            assert_eq!(file.size_bytes(), len as u64);
            let bytes = content(len as u64, len);
            assert!(rig.read(&file, 0, len).unwrap() == bytes, "{} of {len}", rig.name);
            // Every length is read whole; parts, and a byte too many, of every seventh.
            if len % 7 != 0 {
                continue;
            }
            for (offset, range_len) in [(len / 2, len - len / 2), (len / 3, len / 3), (len - 1, 1), (len, 0)] {
                let got = rig.read(&file, offset as u64, range_len).unwrap();
                assert!(got == bytes[offset..offset + range_len], "{} of {len} at {offset}", rig.name);
            }
            let error = rig.read(&file, 0, len + 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Truncated, "{}", rig.name);
            assert!(error.to_string().contains(&format!("expected {} bytes", len + 1)), "{error}");
        }
    }
}

/// Fault row 7: rounding outward. Random ranges of a large file, many in flight, completed in any order.
#[test]
fn fault_07_random_ranges_with_many_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard");
    let bytes = content(1, 5_000_001);
    fs::write(&path, &bytes).unwrap();
    for mut rig in rigs(2 << 20, 16) {
        let file = rig.open(&path).unwrap();
        let mut state = 1_u64;
        let ranges: Vec<(u64, usize)> = (0..1500)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let len = (state >> 33) as usize % 200_000;
                ((state >> 20) % (bytes.len() - len) as u64, len)
            })
            .collect();
        let seen = rig.read_all(&file, &ranges, |(offset, len), got| {
            assert!(got == &bytes[offset as usize..offset as usize + len], "{len} bytes at {offset}");
        });
        assert_eq!(seen, ranges.len());
        assert_eq!(rig.engine.arena().used_bytes(), 0);
        assert!(rig.engine.counters().bytes_read >= rig.engine.counters().bytes_asked);
    }
}

/// Fault row 2: a read in pieces of every size is the read in one piece.
#[test]
fn fault_02_reads_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let bytes = content(2, 10_007);
    fs::write(&path, &bytes).unwrap();
    for kind in [EngineKind::Uring, EngineKind::Pread] {
        for direct in [Direct::Off, Direct::Preferred] {
            for read_bytes_max in [1, 2, 511, 512, 513, 4096, 9999] {
                let options = EngineOptions { direct, read_bytes_max, ..Default::default() };
                let Some(mut rig) = Rig::new(kind, 1 << 20, 4, options) else { continue };
                let file = rig.open(&path).unwrap();
                assert!(rig.read(&file, 3, 10_001).unwrap() == bytes[3..10_004], "{kind} {direct} {read_bytes_max}");
            }
        }
    }
}

/// Fault row 4: truncated under us.
#[test]
fn fault_04_truncated_under_us() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for mut rig in rigs(1 << 20, 4) {
        for left in [0_u64, 1, 511, 512, 4096, 5000] {
            fs::write(&path, content(3, 10_000)).unwrap();
            let file = rig.open(&path).unwrap();
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
            let error = rig.read(&file, 100, 9_900).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Truncated, "{} {left}: {error}", rig.name);
            let got = left.saturating_sub(100);
            let expected = format!("expected 9900 bytes at offset 100, got {got}");
            assert!(error.to_string().contains(&expected), "{}: {error}", rig.name);
        }
    }
}

/// Fault row 5: replaced or edited.
#[test]
fn fault_05_replaced_or_edited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for mut rig in rigs(1 << 20, 4) {
        fs::write(&path, b"first").unwrap();
        let listed = rig.open(&path).unwrap();
        rig.open(&path).unwrap().expect_identity(&listed.identity()).unwrap();
        fs::write(folder.path().join("other"), b"other").unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        let replaced = rig.open(&path).unwrap();
        assert_eq!(replaced.expect_identity(&listed.identity()).unwrap_err().kind(), ErrorKind::Changed);
        // What is open stays the file that was opened.
        assert_eq!(rig.read(&listed, 0, 5).unwrap(), b"first");
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"!").unwrap();
        let edited = rig.open(&path).unwrap();
        assert_eq!(edited.expect_identity(&replaced.identity()).unwrap_err().kind(), ErrorKind::Changed);
    }
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for mut rig in rigs(1 << 20, 4) {
        let missing = rig.open(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.to_string().contains("missing"), "{missing}");
        assert_eq!(rig.open(folder.path()).unwrap_err().kind(), ErrorKind::Unsupported, "a directory");
        assert_eq!(rig.open(&pipe).unwrap_err().kind(), ErrorKind::Unsupported, "a pipe without a writer");
        assert_eq!(rig.open(Path::new("a\0b")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(rig.engine.open_now(&folder.path().join("missing")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[test]
fn shared_files_stay_open_up_to_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(EngineKind::Pread, 4096, 1, EngineOptions::default()).unwrap();
    let mut cache = FileCache::with_capacity(2);
    for object in 0..3 {
        let path = folder.path().join(object.to_string());
        fs::write(&path, b"shard").unwrap();
        cache.insert(object, rig.engine.open_now(&path).unwrap());
        assert!(cache.lookup(0).is_some(), "0 is used most often");
    }
    assert!(cache.lookup(1).is_none() && cache.lookup(2).is_some());
    assert_eq!(cache.len(), 2);
}
