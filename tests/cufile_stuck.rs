//! A read that never ends, fault row 10: in a process of its own, since what the library still has stays with it for good.

mod cuda_support;
mod cufile_support;

use std::time::{Duration, Instant};

use cufile_support::stand;
use forebay::ErrorKind;
use forebay::device::Device;
use forebay::engine::{CuFile, CuFileApi, Engine, EngineOptions, RequirePath};
use forebay::memory::{Arena, DeviceArena};

#[test]
fn fault_10_an_engine_whose_read_hangs_ends_and_leaves_the_read_its_memory() {
    let root = tempfile::tempdir().expect("folder");
    let path = root.path().join("samples");
    std::fs::write(&path, vec![7; 1 << 16]).expect("file");
    let stand = stand(1);
    stand.set("stuck", 3);
    stand.restart(1);
    let device = DeviceArena::new(Device::Cuda(0), 1 << 20).expect("memory");
    let cufile = CuFile::open(std::slice::from_ref(&device), RequirePath::Any).expect("cuFile");
    let read_timeout = Duration::from_secs(2);
    let options = EngineOptions { cufile_api: CuFileApi::Batch, read_timeout, ..EngineOptions::default() };
    let arena = Arena::new(4096).expect("memory");
    let (mut engine, _) = Engine::with_cufile(&cufile, &arena, 8, options).expect("engine");
    let file = engine.open_now(&path).expect("file");
    for n in 0..8_u64 {
        let region = device.alloc(4096).expect("room").expect("room");
        engine.read_device(n, &file, n * 4096, 4096, region);
    }
    let mut completions = Vec::new();
    engine.reap(7, Duration::from_secs(60), &mut completions).expect("an engine");
    assert_eq!((completions.len(), engine.in_flight()), (7, 1), "the others have come");
    completions.clear();
    engine.reap(1, Duration::from_secs(60), &mut completions).expect("an engine");
    let error = completions.remove(0).result.expect_err("it was given up");
    assert!(error.kind() == ErrorKind::TimedOut && error.to_string().contains("within 2s"), "{error}");
    assert_eq!((engine.in_flight(), engine.overdue(), engine.room()), (0, 1, 7));
    let started = Instant::now();
    drop(engine);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(device.used_bytes(), 4096, "the library may still write there");
    for _ in 0..10 {
        assert!(device.alloc(1 << 19).expect("it fits beside it").is_some(), "and others go round without it");
    }
}
