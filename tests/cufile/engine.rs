//! Reads into device memory: the file's bytes through every interface, in whatever order and length they come, and the
//! promised errors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cufile_support::{Stand, stand};
use crate::engine_common::{TIMEOUT, content};
use forebay::device::Device;
use forebay::engine::cufile::ReadPath;
use forebay::engine::{Completion, CuFile, CuFileApi, Direct, Engine, EngineOptions, OpenFile, Outcome, RequirePath};
use forebay::memory::{Arena, DeviceArena};
use forebay::{ErrorKind, Result};

const APIS: [CuFileApi; 3] = [CuFileApi::Batch, CuFileApi::Stream, CuFileApi::Threads];
const DEPTH: usize = 12;
const FILE_BYTES: usize = 300_001;

struct Rig {
    engine: Engine,
    cufile: Arc<CuFile>,
    device: DeviceArena,
    file: Arc<OpenFile>,
}

struct Data {
    _root: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Data {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        let path = root.path().join("samples");
        let bytes = content(3, FILE_BYTES);
        std::fs::write(&path, &bytes).expect("file");
        Self { _root: root, path, bytes }
    }
}

fn options(api: CuFileApi) -> EngineOptions {
    EngineOptions { cufile_api: api, threads: 4, ..EngineOptions::default() }
}

fn rig(path: &Path, options: EngineOptions, require: RequirePath) -> Result<Rig> {
    let device = DeviceArena::new(Device::Cuda(0), 1 << 20)?;
    let cufile = CuFile::open(std::slice::from_ref(&device), require)?;
    let arena = Arena::new(1 << 16)?;
    let (engine, _) = Engine::with_cufile(&cufile, &arena, DEPTH, options)?;
    let file = engine.open_now(path)?;
    Ok(Rig { engine, cufile, device, file })
}

impl Rig {
    /// Reads ranges, many at once: what came of each, in the order of the ranges.
    fn read(&mut self, ranges: &[(u64, usize)]) -> Vec<Result<Vec<u8>>> {
        let mut found: Vec<Option<Result<Vec<u8>>>> = ranges.iter().map(|_| None).collect();
        let (mut next, mut seen, mut completions) = (0, 0, Vec::new());
        while seen < ranges.len() {
            while let Some(&(offset, len)) = ranges.get(next)
                && self.engine.room() > 0
                && let Some(region) = self.device.alloc(self.engine.region_len(&self.file, offset, len)).expect("room")
            {
                self.engine.read_device(next as u64, &self.file, offset, len, region);
                next += 1;
            }
            self.engine.reap(1, TIMEOUT, &mut completions).expect("an engine");
            for Completion { token, result } in completions.drain(..) {
                seen += 1;
                found[token as usize] = Some(result.map(|outcome| {
                    let Outcome::ReadDevice(region) = outcome else { panic!("{outcome:?}") };
                    let mut bytes = vec![0; region.len()];
                    region.copy_to_host(&mut bytes).expect("a copy");
                    bytes
                }));
            }
        }
        found.into_iter().flatten().collect()
    }
}

/// Ranges of all sizes, aligned and not, up to the last byte.
fn ranges() -> Vec<(u64, usize)> {
    let mut ranges =
        vec![(0, 1), (0, 4096), (4096, 8192), (FILE_BYTES as u64 - 1, 1), (FILE_BYTES as u64 - 5000, 5000)];
    ranges.extend((0..40_u64).map(|n| (n * 7001, 1 + (n as usize * 977) % 9000)));
    ranges
}

fn expect_bytes(data: &Data, rig: &mut Rig, what: &str) {
    let ranges = ranges();
    for ((offset, len), found) in ranges.iter().zip(rig.read(&ranges)) {
        let at = *offset as usize;
        assert!(found.expect("bytes") == data.bytes[at..at + len], "{what}: {len} bytes at {offset}");
    }
}

#[test]
fn every_interface_reads_the_files_bytes_whatever_the_order_they_come_in() {
    let data = Data::new();
    let stand = stand(0);
    for api in APIS {
        for seed in 0..10 {
            stand.restart(seed);
            let mut rig = rig(&data.path, options(api), RequirePath::Any).expect("engine");
            expect_bytes(&data, &mut rig, &format!("{api}, seed {seed}"));
            let receipts = rig.cufile.receipts();
            let expected: usize = ranges().iter().map(|(_, len)| len).sum();
            assert_eq!(receipts.of(ReadPath::Nvfs).bytes, expected as u64, "{api}");
            assert_eq!(receipts.of(ReadPath::Nvfs).reads, ranges().len() as u64, "{api}");
            assert_eq!((receipts.taken().count(), receipts.bounced_reads), (1, 0), "{api}");
            drop(rig);
            assert_eq!(stand.reports(), Vec::<String>::new(), "{api}, seed {seed}");
        }
    }
}

#[test]
fn receipts_say_the_path_that_was_taken() {
    let data = Data::new();
    let stand = stand(1);
    for (name, path) in [("nvfs", ReadPath::Nvfs), ("p2p", ReadPath::P2pDma), ("posix", ReadPath::Posix)] {
        for api in APIS {
            stand.set("path", name);
            stand.restart(1);
            let mut rig = rig(&data.path, options(api), RequirePath::Any).expect("engine");
            expect_bytes(&data, &mut rig, name);
            let receipts = rig.cufile.receipts();
            assert_eq!(receipts.of(path).reads, ranges().len() as u64, "{api}: {receipts}");
            assert_eq!(receipts.taken().count(), 1, "{api}: {receipts}");
        }
    }
    // Some of each: the reads are told apart, and no byte is put down to a path that it may not have taken.
    stand.set("path", "nvfs,posix:3");
    stand.restart(1);
    let mut rig = rig(&data.path, options(CuFileApi::Threads), RequirePath::Any).expect("engine");
    expect_bytes(&data, &mut rig, "some of each");
    let receipts = rig.cufile.receipts();
    assert!(receipts.of(ReadPath::Posix).reads > 0 && receipts.of(ReadPath::Nvfs).reads > 0, "{receipts}");
}

#[test]
fn what_an_old_library_does_not_count_is_told_by_its_properties() {
    let data = Data::new();
    let stand = stand(1);
    stand.set("version", "1.13.0");
    for (path, expected) in [("posix", ReadPath::Posix), ("nvfs", ReadPath::Unstated)] {
        stand.set("path", path);
        stand.restart(1);
        let mut rig = rig(&data.path, options(CuFileApi::Batch), RequirePath::Any).expect("engine");
        expect_bytes(&data, &mut rig, path);
        assert!(rig.cufile.uncounted().is_some());
        assert_eq!(rig.cufile.receipts().of(expected).reads, ranges().len() as u64, "{path}");
    }
}

#[test]
fn a_path_that_is_not_direct_is_refused_where_direct_is_required() {
    let data = Data::new();
    let stand = stand(1);
    for path in ["nvfs", "p2p"] {
        stand.set("path", path);
        stand.restart(1);
        let mut rig = rig(&data.path, options(CuFileApi::Batch), RequirePath::Direct).expect("engine");
        expect_bytes(&data, &mut rig, path);
    }
    stand.set("path", "posix");
    stand.restart(1);
    let refused = rig(&data.path, options(CuFileApi::Batch), RequirePath::Direct)
        .and_then(|mut rig| rig.read(&[(0, 10)]).remove(0).map(drop));
    let error = refused.expect_err("compatibility mode");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.remedy().is_some(), "{error}");
    // A library that cannot be told to forbid it, and does not say what its reads take: they are errors, by every interface.
    stand.set("path", "nvfs,posix:3");
    stand.set("version", "1.13.0");
    for api in APIS {
        stand.restart(1);
        let mut rig = rig(&data.path, options(api), RequirePath::Direct).expect("engine");
        for result in rig.read(&[(0, 10), (0, 20), (0, 30)]) {
            let error = result.map(drop).expect_err("a path that is not stated");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{api}: {error}");
        }
    }
}

#[test]
fn a_short_read_goes_on_and_an_error_is_tried_once_more() {
    let data = Data::new();
    let stand = stand(1);
    for api in APIS {
        for (setting, value) in
            [("short", "3:4096"), ("short", "5:0"), ("short", "7:100"), ("fail", "4:5"), ("fail", "6:5044")]
        {
            stand.set(setting, value);
            stand.restart(2);
            let mut rig = rig(&data.path, options(api), RequirePath::Any).expect("engine");
            let ranges = ranges();
            let found = rig.read(&ranges);
            // A read that gives nothing is the end of the file, which nobody else can tell better.
            let (fails, is_end) = (found.iter().filter(|read| read.is_err()).count(), value.ends_with(":0"));
            assert_eq!(fails, usize::from(is_end), "{api}: {setting} {value}: {found:?}");
            for ((offset, len), found) in ranges.iter().zip(found) {
                match found {
                    Ok(bytes) => assert!(bytes == data.bytes[*offset as usize..][..*len], "{api}: {setting} {value}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Truncated, "{error}"),
                }
            }
            assert_eq!(rig.engine.counters().retries, u64::from(setting == "fail"), "{api}: {value}");
            stand.set(setting, "");
        }
    }
}

#[test]
fn an_error_that_stays_names_file_offset_and_cause_and_others_are_untouched() {
    let data = Data::new();
    let stand = stand(1);
    for api in APIS {
        // Every read of one alone: the others are read before.
        stand.set("fail", "");
        stand.restart(3);
        let mut rig = rig(&data.path, options(api), RequirePath::Any).expect("engine");
        assert!(rig.read(&[(0, 100)]).remove(0).is_ok());
        stand.set("fail", "2:5,3:5");
        let error = rig.read(&[(8192, 100)]).remove(0).expect_err("an error that stays");
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Io, "{api}: {text}");
        assert!(text.contains("samples") && text.contains("8192") && text.contains("error 5"), "{api}: {text}");
        assert!(rig.read(&[(8192, 100)]).remove(0).is_ok(), "{api}");
    }
    stand.set("fail", "");
}

#[test]
fn a_file_that_ends_early_is_truncated() {
    let data = Data::new();
    let _stand = stand(1);
    for api in APIS {
        let mut rig = rig(&data.path, options(api), RequirePath::Any).expect("engine");
        let error = rig.read(&[(FILE_BYTES as u64 - 10, 11)]).remove(0).expect_err("past the end");
        assert_eq!(error.kind(), ErrorKind::Truncated, "{api}: {error}");
    }
}

#[test]
fn an_engine_that_is_dropped_with_reads_in_flight_lets_go_of_everything() {
    let data = Data::new();
    let stand = stand(1);
    for api in APIS {
        for seed in 0..4 {
            stand.restart(seed);
            let mut rig = rig(&data.path, options(api), RequirePath::Any).expect("engine");
            for n in 0..DEPTH as u64 {
                let region = rig.device.alloc(8192).expect("room").expect("room");
                rig.engine.read_device(n, &rig.file, n * 4096, 4096, region);
            }
            rig.engine.reap(seed as usize, TIMEOUT, &mut Vec::new()).expect("an engine");
            let Rig { engine, cufile, device, file } = rig;
            drop(engine);
            assert_eq!(device.used_bytes(), 0, "{api}, seed {seed}: regions are left");
            drop((cufile, file, device));
            assert_eq!(stand.reports(), Vec::<String>::new(), "{api}, seed {seed}");
        }
    }
}

#[test]
fn what_is_missing_or_contradicts_itself_is_named() {
    let data = Data::new();
    let stand: Stand = stand(1);
    let refused = |options| rig(&data.path, options, RequirePath::Any).map(drop).expect_err("refused");
    let error = refused(EngineOptions { direct: Direct::Off, ..options(CuFileApi::Auto) });
    assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
    let error = CuFile::open(&[], RequirePath::Any).map(drop).expect_err("no arena");
    assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
    stand.session.set("fail", "cuFileBatchIOSetUp:5022");
    stand.restart(1);
    let error = refused(options(CuFileApi::Batch));
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("cuFileBatchIOSetUp"), "{error}");
    // By itself it takes threads, and says so.
    let mut rig = rig(&data.path, options(CuFileApi::Auto), RequirePath::Any).expect("threads");
    expect_bytes(&data, &mut rig, "threads");
    assert!(rig.engine.fallbacks().iter().any(|fallback| fallback.instead == "cuFile on threads"));
    drop(rig);
    stand.session.set("fail", "cuFileDriverOpen:5001");
    stand.restart(1);
    let error = refused(options(CuFileApi::Auto));
    assert!(error.to_string().contains("CU_FILE_DRIVER_NOT_INITIALIZED"), "{error}");
    assert!(error.remedy().is_some_and(|remedy| remedy.contains("nvidia-fs")), "{error}");
    stand.session.set("fail", "");
}

#[test]
fn memory_that_cufile_was_not_opened_with_is_refused() {
    let data = Data::new();
    let _stand = stand(1);
    let mut rig = rig(&data.path, options(CuFileApi::Batch), RequirePath::Any).expect("engine");
    let other = DeviceArena::new(Device::Cuda(0), 1 << 16).expect("memory");
    let region = other.alloc(4096).expect("room").expect("room");
    rig.engine.read_device(1, &rig.file, 0, 100, region);
    let mut completions = Vec::new();
    rig.engine.reap(1, TIMEOUT, &mut completions).expect("an engine");
    let error = completions.remove(0).result.map(drop).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
}
