//! A loader on a device under every schedule, with faults of the driver, of the data and of its consumer.

mod common;
mod cuda_load_support;
mod cuda_support;
mod loader_index_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cuda_load_support::{FEW, FIXTURES, consume, indexed_folder, load, on_device, run, samples, small, tensor, within};
use forebay::decode::DecoderKind;
use forebay::jpeg::Grain;
use forebay::{ErrorKind, Loader, LoaderBuilder, Result};
use loader_index_support::Indexed;

/// Three batches of two an epoch.
fn few(folder: &Path) -> LoaderBuilder {
    load(folder).batch_size(2).decoder(DecoderKind::Auto)
}

fn few_samples() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().expect("folder");
    let folder = indexed_folder(root.path(), &FEW);
    (root, folder)
}

fn on_host(folder: &Path) -> Vec<Vec<f32>> {
    let mut loader = few(folder).build().expect("loader");
    let batches = loader.epochs(0..2).map(|batch| batch.expect("batch"));
    batches.map(|batch| batch.images().and_then(|images| images.as_f32()).expect("floats").to_vec()).collect()
}

#[test]
fn every_schedule_gives_the_hosts_tensors_without_a_report() {
    let session = cuda_support::session(0);
    let (_root, folder) = few_samples();
    let expected = on_host(&folder);
    for seed in 0..100 {
        session.restart(seed);
        // Every third time in waves of one picture.
        let scratch_bytes = if seed % 3 == 0 { 64 * 192 } else { 1 << 20 };
        let (found, fallbacks) = consume(on_device(few(&folder)).scratch_bytes(scratch_bytes)).expect("tensors");
        session.finish();
        assert_eq!(session.reports(), Vec::<String>::new(), "seed {seed}");
        assert!(found == expected && fallbacks.is_empty(), "seed {seed}: {fallbacks:?}");
    }
}

/// What the order rests on, left out one at a time.
#[test]
fn a_wait_that_is_left_out_is_caught() {
    let session = cuda_support::session(0);
    let (_root, folder) = few_samples();
    let expected = on_host(&folder);
    for fault in [
        "cuStreamWaitEvent#1",  // the consumer reads before the tensor is written
        "cuStreamWaitEvent#4",  // as above, or a slot is written again while it is read
        "cuStreamWaitEvent",    // both
        "cuEventSynchronize#1", // the host fills an upload again that is being copied, and trusts old statuses
        "cuEventRecord#2",
        "cuMemFreeAsync#3",
    ] {
        session.set("drop", fault);
        let is_caught = (0..20).any(|seed| {
            session.restart(seed);
            let found = consume(on_device(few(&folder)));
            session.finish();
            // Statuses that are read too early make samples look bad, which are then decoded on the host.
            let differs = |(tensors, fallbacks): (Vec<_>, Vec<_>)| tensors != expected || !fallbacks.is_empty();
            !session.reports().is_empty() || found.is_ok_and(differs)
        });
        assert!(is_caught, "{fault} goes unnoticed under 20 schedules");
    }
    session.set("drop", "");
}

#[test]
fn memory_that_is_not_to_be_had_is_an_error_or_fewer_slots() {
    let (_root, folder) = few_samples();
    let session = cuda_support::session(1);
    // Six and one a slot, of which there are three.
    for (call, expected) in [("cuMemAllocAsync", 18), ("cuMemAlloc", 3)] {
        let mut allocations = 0;
        for number in 1.. {
            session.set("fail", format!("{call}#{number}:2"));
            session.restart(1);
            let built = on_device(few(&folder)).build();
            let Err(error) = built else { break };
            session.finish();
            assert_eq!(session.reports(), Vec::<String>::new(), "{call} {number}");
            assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
            assert!(error.to_string().contains("are free") && error.remedy().is_some(), "{error}");
            allocations = number;
        }
        assert_eq!(allocations, expected, "{call}");
    }
    for number in [1, 12, 13, 18] {
        session.set("fail", format!("cuMemAllocAsync#{number}:2"));
        session.restart(1);
        let built = on_device(few(&folder)).fewer_slots(true).build();
        if number <= 12 {
            assert_eq!(built.err().expect("an error").kind(), ErrorKind::OutOfMemory);
            continue;
        }
        let mut loader = built.expect("two slots");
        assert_eq!(loader.memory().slots, 2);
        assert_eq!(loader.epoch(0).map(|batch| batch.expect("batch").len()).sum::<usize>(), FEW.len());
        let fallbacks = loader.report().fallbacks;
        assert!(fallbacks.iter().any(|fallback| fallback.instead == "fewer slots"), "{fallbacks:?}");
    }
    for call in ["cuMemHostRegister#1:2", "cuStreamCreate#2:2", "cuEventCreate#3:2", "cuMemsetD8Async#4:2"] {
        session.set("fail", call);
        session.restart(1);
        let error = on_device(few(&folder)).build().err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{call}: {error}");
        session.finish();
        assert_eq!(session.reports(), Vec::<String>::new(), "{call}");
    }
    session.set("fail", "");
}

#[test]
fn a_lost_device_ends_the_run_at_once_and_for_good() {
    let (_root, folder) = few_samples();
    let session = cuda_support::session(1);
    for fault in [
        "cuLaunchKernel#1:700",
        "cuLaunchKernel#3:719",
        "cuLaunchKernel#5:700",
        "cuLaunchKernel#14:719",
        "cuMemcpyHtoDAsync#2:700",
        "cuEventSynchronize#1:700",
        "cuEventRecord#4:719",
    ] {
        session.set("sticky", fault);
        session.restart(1);
        let folder = folder.clone();
        let (first, second) = within(Duration::from_secs(60), move || {
            let mut loader = on_device(few(&folder)).build().expect("loader");
            let mut first = loader.epochs(0..2);
            let error = first.find_map(|batch| batch.and_then(|batch| batch.to_host().map(drop)).err());
            drop(first);
            (error, loader.epoch(0).find_map(Result::err))
        });
        let first = first.unwrap_or_else(|| panic!("{fault} goes unnoticed"));
        assert_eq!(first.kind(), ErrorKind::DeviceLost, "{fault}: {first}");
        assert!(!first.is_retryable() && first.remedy().is_some());
        assert_eq!(second.map(|error| error.kind()), Some(ErrorKind::DeviceLost), "{fault}: the next epoch");
    }
    session.set("sticky", "");
}

#[test]
fn a_call_that_fails_once_ends_the_run_and_not_the_loader() {
    let session = cuda_support::session(1);
    let (_root, folder) = few_samples();
    let expected = on_host(&folder);
    for fault in ["cuLaunchKernel#1:701", "cuLaunchKernel#8:701", "cuMemcpyHtoDAsync#3:1", "cuMemsetD8Async#25:1"] {
        session.set("fail", fault);
        session.restart(1);
        let folder = folder.clone();
        let (error, tensors) = within(Duration::from_secs(60), move || {
            let mut loader = on_device(few(&folder)).build().expect("loader");
            let error = loader.epochs(0..2).find_map(Result::err);
            let tensors: Vec<_> = loader.epochs(0..2).map(|batch| tensor(&batch.expect("batch"))).collect();
            (error, tensors)
        });
        session.finish();
        assert_eq!(session.reports(), Vec::<String>::new(), "{fault}");
        assert!(error.is_some_and(|error| error.to_string().contains("says CUDA_ERROR")), "{fault}");
        let expected: Vec<_> = expected.iter().map(|tensor| bytemuck::cast_slice::<f32, u8>(tensor).to_vec()).collect();
        assert!(tensors == expected, "{fault}");
    }
    session.set("fail", "");
}

/// One bad file of a batch is that sample's error, the one that the host has.
#[test]
fn a_corrupt_sample_is_named_as_on_the_host() {
    let session = cuda_support::session(1);
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(&FIXTURES[..7]));
    // Its index is that of the file as it was.
    let open = || {
        let mut source = Indexed::open(&folder, Grain::Bits(400));
        source.records.iter_mut().flatten().for_each(|row| row.modified = None);
        source
    };
    let sound = Arc::new(open());
    let path = folder.join("class1/422_131x97.jpg");
    let mut bytes = std::fs::read(&path).expect("sample");
    let (start, len) = (bytes.len() / 2, bytes.len());
    // Ones only: no code of any table.
    bytes[start..len - 2].fill(0xFE);
    std::fs::write(&path, &bytes).expect("sample");
    let load = |source: &Arc<Indexed>| small(Loader::of(Arc::clone(source) as Arc<dyn forebay::source::Source>));
    let expected = run(load(&sound)).expect_err("a corrupt sample");
    assert!(expected.sample().is_some_and(|sample| sample.contains("422_131x97")), "{expected}");
    let found = run(on_device(load(&sound)).decoder(DecoderKind::Kernels)).expect_err("a corrupt sample");
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
    assert_eq!((found.kind(), found.sample()), (expected.kind(), expected.sample()), "{found}");
}

#[test]
fn a_consumer_may_leave_at_any_time() {
    let (_root, folder) = few_samples();
    let session = cuda_support::session(1);
    for taken in 0..=6 {
        session.restart(taken);
        let folder = folder.clone();
        within(Duration::from_secs(60), move || {
            let mut loader = on_device(few(&folder)).build().expect("loader");
            let kept: Vec<_> = loader.epochs(0..2).take(taken as usize).step_by(3).collect();
            let first = loader.epoch(0).next();
            drop(loader);
            assert!(kept.iter().chain(&first).all(|batch| batch.is_ok()));
        });
        session.finish();
        assert_eq!(session.reports(), Vec::<String>::new(), "after {taken} batches");
        // No other test has a loader while this one has the driver.
        assert_eq!(common::loader_threads(), Vec::<String>::new(), "after {taken} batches");
    }
}

#[test]
fn a_consumer_that_holds_every_batch_is_told_so() {
    let session = cuda_support::session(1);
    let (_root, folder) = few_samples();
    let expected = on_host(&folder);
    within(Duration::from_secs(60), move || {
        let held = on_device(few(&folder)).held_timeout(Duration::from_millis(100));
        let mut loader = held.build().expect("loader");
        let mut epochs = loader.epochs(0..2);
        let mut batches: Vec<_> = epochs.by_ref().take(3).map(|batch| batch.expect("batch")).collect();
        let error = epochs.next().expect("an error").err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::BatchesHeld);
        // Nobody wrote what was held meanwhile, and the run goes on.
        assert!(tensor(&batches[0]) == bytemuck::cast_slice::<f32, u8>(&expected[0]));
        batches.remove(0);
        let next = epochs.next().expect("a batch").expect("a batch");
        assert!(tensor(&next) == bytemuck::cast_slice::<f32, u8>(&expected[3]));
    });
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
}
