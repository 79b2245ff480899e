//! Random reads of the size of an ImageNet photo from one large file: both engines, around the page cache and
//! through it (warm), by operations in flight.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::engine::{Direct, Engine, EngineKind, EngineOptions, OpenFile, Outcome};
use forebay::memory::Arena;

const FILE_BYTES: usize = 256 << 20;
/// The mean size of an ImageNet photo.
const READ_BYTES: usize = 110_000;
const ARENA_BYTES: usize = 64 << 20;

fn random_reads(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the file to read");
    let path = folder.path().join("shard");
    let mut file = File::create(&path).expect("the file to read");
    let block: Vec<u8> = (0..1 << 20).map(|at| (at % 251) as u8).collect();
    (0..FILE_BYTES >> 20).for_each(|_| file.write_all(&block).expect("room for the file"));
    file.sync_all().expect("the file on its disk");

    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Bytes(READ_BYTES as u64)).sample_size(20).measurement_time(Duration::from_secs(3));
    for depth in [1, 8, 32] {
        for direct in [Direct::Off, Direct::Preferred] {
            for kind in [EngineKind::Uring, EngineKind::Pread] {
                let arena = Arena::new(ARENA_BYTES).expect("memory for the arena");
                let options = EngineOptions { direct, ..Default::default() };
                let Ok((mut engine, _)) = Engine::new(kind, &arena, depth, options) else {
                    eprintln!("{kind} is not to be had here");
                    continue;
                };
                let file = engine.open_now(&path).expect("the file just written");
                let through = if file.is_direct() { "direct" } else { "page_cache" };
                group.bench_function(format!("{kind}/{through}/depth_{depth}"), |bencher| {
                    bencher.iter_custom(|reads| read(&mut engine, &file, reads));
                });
            }
        }
    }
    group.finish();
}

/// Reads at random offsets with as many in flight as the engine takes: how long that took.
fn read(engine: &mut Engine, file: &Arc<OpenFile>, reads: u64) -> Duration {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let (mut submitted, mut completed, mut completions) = (0, 0, Vec::new());
    let begin = Instant::now();
    while completed < reads {
        while submitted < reads && engine.room() > 0 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let offset = (random >> 16) % (FILE_BYTES - READ_BYTES) as u64;
            let needed = engine.region_len(file, offset, READ_BYTES);
            let Some(region) = engine.arena().alloc(needed).expect("smaller than the arena") else { break };
            engine.read(submitted, file, offset, READ_BYTES, region);
            submitted += 1;
        }
        engine.reap(1, Duration::from_secs(10), &mut completions).expect("a working engine");
        for completion in completions.drain(..) {
            assert!(matches!(completion.result, Ok(Outcome::Read(_))), "{completion:?}");
            completed += 1;
        }
    }
    begin.elapsed()
}

criterion_group!(benches, random_reads);
criterion_main!(benches);
