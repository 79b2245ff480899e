//! The promises of a pool: time shared evenly and not wasted, nobody held up, nothing left behind, the batches the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use forebay::batch::Digest;
use forebay::engine::{Direct, EngineKind, SimFault, SimFaults, SimOptions};
use forebay::pool::PoolUse;
use forebay::report::{Report, Stage, StageReport};
use forebay::{Augment, ErrorKind, Loader, LoaderBuilder, Pool, PoolOptions};
use jpeg_encoder::{ColorType, Encoder};

use crate::common;

fn pool(threads: usize, depth: usize) -> Pool {
    Pool::new(PoolOptions { threads, depth }).expect("a pool")
}

/// A folder of photos of a size.
struct Photos {
    _root: tempfile::TempDir,
    folder: String,
}

impl Photos {
    fn new(count: usize, (width, height): (u16, u16)) -> Self {
        let root = tempfile::tempdir().expect("folder");
        let jpegs = (0..4).map(|number| {
            let mut bytes = vec![];
            let rgb = common::pixels(number, width.into(), height.into());
            Encoder::new(&mut bytes, 90).encode(&rgb, width, height, ColorType::Rgb).expect("encoding");
            bytes
        });
        let jpegs: Vec<_> = jpegs.collect();
        let samples: Vec<_> = (0..count).map(|n| (format!("class0/{n:05}"), 0, jpegs[n % 4].clone())).collect();
        let folder = common::folder(root.path(), &samples).display().to_string();
        Self { _root: root, folder }
    }

    fn open(&self) -> LoaderBuilder {
        let augment = Augment::imagenet_train(64).build().expect("augmentation");
        Loader::open(&self.folder).augment(augment).batch_size(8).slots(16).arena_bytes(16 << 20).direct(Direct::Off)
    }
}

/// Loads from each of several loaders at once, each by a thread of its own, for some time. Those that end last end together,
/// when each of them has ended a batch, so that none is alone for the length of its last one.
fn load_at_once(loaders: &mut [Loader], ends: &[Duration]) -> Vec<Report> {
    let started = Instant::now();
    let last = ends.iter().max().copied().unwrap_or_default();
    let going_on = AtomicUsize::new(ends.iter().filter(|end| **end == last).count());
    std::thread::scope(|scope| {
        let loads: Vec<_> = loaders
            .iter_mut()
            .enumerate()
            .map(|(number, loader)| {
                let (end, going_on) = (ends[number], &going_on);
                scope.spawn(move || {
                    let mut is_at_end = false;
                    for batch in loader.epochs(0..u64::MAX) {
                        batch.expect("batch");
                        if !is_at_end && started.elapsed() > end {
                            is_at_end = true;
                            going_on.fetch_sub(usize::from(end == last), Relaxed);
                        }
                        if is_at_end && (end < last || going_on.load(Relaxed) == 0) {
                            break;
                        }
                    }
                    loader.report()
                })
            })
            .collect();
        loads.into_iter().map(|load| load.join().expect("no panic")).collect()
    })
}

fn stage(report: &Report, stage: Stage) -> StageReport {
    *report.stages.iter().find(|of| of.stage == stage).expect("a stage")
}

fn decode_s(report: &Report) -> f64 {
    stage(report, Stage::Decode).busy.as_secs_f64()
}

/// The parts of the decode time; rates are printed, since other tests run beside this one.
fn shares(reports: &[Report]) -> Vec<f64> {
    let all: f64 = reports.iter().map(decode_s).sum();
    let rates: Vec<_> = reports.iter().map(|report| report.images_per_second() as u64).collect();
    let shares = reports.iter().map(|report| decode_s(report) / all).collect();
    println!("decode time {shares:.2?}, images/s {rates:?}");
    shares
}

const LENGTH: Duration = Duration::from_millis(2500);

#[test]
fn two_loaders_get_the_same_decode_time_whatever_their_samples() {
    let (small, large) = (Photos::new(64, (400, 300)), Photos::new(24, (1600, 1200)));
    for (name, first, second) in [("alike", &small, &small), ("small and large", &small, &large)] {
        for threads in [1, 2] {
            let pool = pool(threads, 32);
            let mut loaders = [first, second].map(|photos| photos.open().pool(&pool).build().expect("loader"));
            let reports = load_at_once(&mut loaders, &[LENGTH; 2]);
            println!("{name}, {threads} threads:");
            assert!(shares(&reports).iter().all(|share| *share >= 0.4), "{name}\n{}\n{}", reports[0], reports[1]);
            let waited = reports.iter().map(|report| stage(report, Stage::Decode).shared).sum::<Duration>();
            assert!(waited > LENGTH / 100, "{waited:?}");
        }
    }
}

#[test]
fn a_weight_is_a_larger_share_and_the_report_says_who_has_the_rest() {
    let photos = Photos::new(32, (1200, 900));
    let pool = pool(1, 32);
    let mut loaders = [3, 1].map(|weight| photos.open().pool(&pool).pool_weight(weight).build().expect("loader"));
    let reports = load_at_once(&mut loaders, &[LENGTH; 2]);
    let shares = shares(&reports);
    assert!((0.65..0.85).contains(&shares[0]), "{shares:?}");
    let poor = &reports[1];
    assert_eq!(poor.bottleneck(), Stage::Share, "{poor}");
    assert!(poor.verdict().contains("another loader of this pool"), "{poor}");
    assert!(poor.to_string().contains("others had its share for"), "{poor}");
    // Alone it has everything, and nobody to name.
    let report = &load_at_once(&mut [photos.open().pool(&pool).build().expect("loader")], &[LENGTH / 4])[0];
    assert!(report.stages.iter().all(|stage| stage.stage != Stage::Share), "{report}");
    assert!(!report.verdict().contains("pool"), "{report}");
}

#[test]
fn what_one_of_three_leaves_is_the_others() {
    let photos = Photos::new(32, (800, 600));
    let pool = pool(2, 24);
    let mut loaders = [(); 3].map(|()| photos.open().pool(&pool).build().expect("loader"));
    // The last one ends early, by dropping its iterator.
    let reports = load_at_once(&mut loaders, &[LENGTH, LENGTH, LENGTH / 3]);
    let shares = shares(&reports);
    // A ninth, and half of the rest each.
    assert!(shares[..2].iter().all(|share| *share >= 0.35) && shares[2] < 0.2, "{shares:?}");
    let used: f64 = reports.iter().map(decode_s).sum();
    assert!(used >= 0.7 * 2.0 * LENGTH.as_secs_f64(), "{used} s of two threads in {LENGTH:?}");
    assert_eq!(pool.in_use(), PoolUse { loaders: 3, threads: 0, threads_waiting: 0, reads: 0 });
    drop(loaders);
    assert_eq!(pool.in_use().loaders, 0);
}

#[test]
fn neither_a_drop_nor_a_panic_nor_an_error_keeps_what_it_had() {
    let photos = Photos::new(32, (400, 300));
    let bad = Photos::new(16, (400, 300));
    std::fs::write(format!("{}/class0/00009.jpg", bad.folder), "no picture").expect("bad sample");
    let pool = pool(2, 8);
    let is_over = AtomicBool::new(false);
    let batches = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // Always at work beside the others.
        scope.spawn(|| {
            let mut loader = photos.open().pool(&pool).build().expect("loader");
            for batch in loader.epochs(0..u64::MAX).take_while(|_| !is_over.load(Relaxed)) {
                batch.expect("batch");
                batches.fetch_add(1, Relaxed);
            }
        });
        let mut loader = photos.open().pool(&pool).build().expect("loader");
        for round in 0..12 {
            assert_eq!(loader.epochs(0..9).take(round % 4).filter(Result::is_ok).count(), round % 4);
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _batch = loader.epoch(0).next().expect("a batch").expect("batch");
                panic!("the training step failed");
            }));
            assert!(panicked.is_err());
            let mut fails = bad.open().pool(&pool).batch_size(16).build().expect("loader");
            assert_eq!(fails.epoch(0).next().expect("an error").err().expect("an error").kind(), ErrorKind::NotAnImage);
            let now = pool.in_use();
            assert!(now.threads <= 2 && now.threads_waiting <= 2 && now.reads <= 8, "{now:?}");
        }
        let before = batches.load(Relaxed);
        while batches.load(Relaxed) < before + 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
        is_over.store(true, Relaxed);
    });
    assert_eq!(pool.in_use(), PoolUse { loaders: 0, threads: 0, threads_waiting: 0, reads: 0 });
}

#[test]
fn a_mount_that_hangs_holds_up_nobody_else() {
    let photos = Photos::new(24, (200, 150));
    let pool = pool(2, 4);
    let faults = SimFaults::NONE.with(SimFault::Hang);
    // Every operation hangs, for ten hours of a clock that runs while the engine looks at it.
    let sim = SimOptions { seed: 1, faults, one_in: 1 };
    let builder = photos.open().pool(&pool).engine(EngineKind::Sim).sim(sim);
    let mut hangs = builder.read_timeout(Duration::from_secs(36_000)).build().expect("loader");
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| {
            let error = hangs.epoch(0).next().expect("an error").err().expect("an error");
            (error.kind(), Instant::now())
        });
        while pool.in_use().reads < 4 && !hung.is_finished() {
            std::thread::yield_now();
        }
        let mut loader = photos.open().pool(&pool).build().expect("loader");
        let loaded = loader.epochs(0..3).filter(Result::is_ok).count();
        let done = Instant::now();
        assert_eq!(loaded, 9);
        let (kind, gave_up) = hung.join().expect("no panic");
        assert_eq!(kind, ErrorKind::TimedOut);
        println!("done {:?} before the other gave up", gave_up.saturating_duration_since(done));
        assert!(gave_up > done, "the other has hung all the time");
    });
    assert_eq!(pool.in_use().reads, 0);
}

#[test]
fn a_pool_changes_no_batch() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(60, 3)).display().to_string();
    let open = |seed| {
        let augment = Augment::imagenet_train(32).build().expect("augmentation");
        Loader::open(&folder).augment(augment).batch_size(8).threads(3).seed(seed).arena_bytes(1 << 20)
    };
    let digest = |builder: LoaderBuilder| {
        let mut digest = Digest::default();
        for batch in builder.build().expect("loader").epochs(0..2) {
            digest.update(&batch.expect("batch")).expect("on the host");
        }
        digest.hex()
    };
    let expected = [0, 1, 2].map(|seed| digest(open(seed)));
    for (threads, depth, engine) in [(1, 1, EngineKind::Auto), (2, 7, EngineKind::Pread), (5, 64, EngineKind::Auto)] {
        let pool = pool(threads, depth);
        std::thread::scope(|scope| {
            let runs = [0, 1, 2].map(|seed| {
                let builder = open(seed).pool(&pool).engine(engine);
                scope.spawn(|| digest(builder))
            });
            let got = runs.map(|run| run.join().expect("no panic"));
            assert_eq!(got, expected, "{threads} threads, {depth} reads, {engine}");
        });
    }
}

#[test]
fn many_short_runs_at_once_all_end() {
    let photos = Photos::new(16, (64, 48));
    for threads in [1, 3] {
        let pool = pool(threads, 3);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (pool, photos) = (&pool, &photos);
                scope.spawn(move || {
                    let mut loader = photos.open().pool(pool).threads(2).batch_size(4).build().expect("loader");
                    for run in 0..60 {
                        let batches = (run + number) % 6;
                        assert_eq!(loader.epochs(0..2).take(batches).filter(Result::is_ok).count(), batches);
                    }
                });
            }
        });
        assert_eq!(pool.in_use(), PoolUse { loaders: 0, threads: 0, threads_waiting: 0, reads: 0 });
    }
}

#[test]
fn a_loader_takes_no_more_threads_and_reads_than_its_pool_has() {
    let photos = Photos::new(16, (64, 48));
    let pool = pool(2, 5);
    for (builder, threads, depth) in [
        (photos.open().pool(&pool), None, 5),
        (photos.open().pool(&pool).threads(7).depth(9), Some(2), 5),
        (photos.open().pool(&pool).threads(1).depth(3), Some(1), 3),
        (photos.open().threads(7), Some(7), 32),
    ] {
        let report = builder.build().expect("loader").report();
        let of_decode = stage(&report, Stage::Decode).threads;
        assert!(threads.is_none_or(|threads| threads == of_decode) && report.depth_max == depth, "{report}");
    }
    for weight in [0, 1001] {
        let error = photos.open().pool(&pool).pool_weight(weight).build().err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    }
}
