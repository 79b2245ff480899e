//! A read that never ends: in a process of its own, since what the library still has stays with it for good.

mod cuda_support;
mod cufile_support;

use std::time::{Duration, Instant};

use cufile_support::stand;
use forebay::device::Device;
use forebay::engine::{CuFile, CuFileApi, Engine, EngineOptions, RequirePath};
use forebay::memory::{Arena, DeviceArena};

#[test]
fn an_engine_whose_read_hangs_ends_in_bounded_time_and_leaves_the_read_its_memory() {
    let root = tempfile::tempdir().expect("folder");
    let path = root.path().join("samples");
    std::fs::write(&path, vec![7; 1 << 16]).expect("file");
    let stand = stand(1);
    stand.set("stuck", 3);
    stand.restart(1);
    let device = DeviceArena::new(Device::Cuda(0), 1 << 20).expect("memory");
    let cufile = CuFile::open(std::slice::from_ref(&device), RequirePath::Any).expect("cuFile");
    let options = EngineOptions { cufile_api: CuFileApi::Batch, ..EngineOptions::default() };
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
    let started = Instant::now();
    drop(engine);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(device.used_bytes() >= 4096, "the library may still write there");
}
