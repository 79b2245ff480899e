//! Bad samples on a device: replaced and skipped as on the host, whoever finds out that they are bad.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common;
use crate::cuda_load_support::{FIXTURES, index, load, on_device, run, samples, small, tensor, within};
use crate::cuda_support;
use crate::loader_index_support::Indexed;
use crate::policy_support::spoil;
use cudarc::driver::CudaContext;
use forebay::decode::DecoderKind;
use forebay::jpeg::Grain;
use forebay::plan::Size;
use forebay::report::Fallback;
use forebay::source::Source;
use forebay::{Augment, DType, ErrorBudget, Geometry, Loader, LoaderBuilder, OnError};

const POLICIES: [OnError; 2] = [OnError::Replace, OnError::Skip];

fn under(policy: OnError, builder: LoaderBuilder) -> LoaderBuilder {
    builder.on_error(policy).error_budget(ErrorBudget::count(u64::MAX))
}

fn by_kernels(builder: LoaderBuilder) -> LoaderBuilder {
    on_device(builder).decoder(DecoderKind::Kernels)
}

/// An index of files as they were; since then the entropy-coded data of some became bits of no code.
fn worn(root: &Path, names: &[&str], is_bad: impl Fn(usize) -> bool) -> Arc<Indexed> {
    let folder = common::folder(root, &samples(names));
    let mut source = Indexed::open(&folder, Grain::Bits(400));
    source.records.iter_mut().flatten().for_each(|row| row.modified = None);
    for number in (0..names.len()).filter(|number| is_bad(*number)) {
        let mut key = String::new();
        source.key(number as u64, &mut key).expect("a key");
        let path = folder.join(key).with_extension("jpg");
        let mut bytes = std::fs::read(&path).expect("sample");
        let (start, len) = (bytes.len() * 2 / 3, bytes.len());
        bytes[start..len - 2].fill(0xFE);
        std::fs::write(&path, &bytes).expect("sample");
    }
    Arc::new(source)
}

#[test]
fn what_is_known_to_be_bad_before_the_launch_makes_the_hosts_batches() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &spoil(&samples(&FIXTURES), |number| number % 4 == 1));
    index(&folder);
    let session = cuda_support::session(1);
    for policy in POLICIES {
        let (expected, on_host) = run(under(policy, load(&folder))).expect("on the host");
        for seed in 0..4 {
            session.restart(seed);
            let (found, report) = run(by_kernels(under(policy, load(&folder)))).expect("on the device");
            session.finish();
            assert_eq!(session.reports(), Vec::<String>::new(), "{policy}, seed {seed}");
            assert_eq!(found, expected, "{policy}, seed {seed}");
            assert_eq!((report.replaced, report.skipped), (on_host.replaced, on_host.skipped), "{policy}");
            assert_eq!(report.replaced + report.skipped, 2 * 6);
        }
    }
}

#[test]
fn what_the_kernels_find_bad_makes_the_hosts_batches() {
    let root = tempfile::tempdir().expect("folder");
    // Neighbours in the order of the data set are bad too, so that stand-ins are found bad by the kernels.
    let source = worn(root.path(), &FIXTURES[..12], |number| number % 3 != 0);
    let load = |policy| under(policy, small(Loader::of(Arc::clone(&source) as Arc<dyn Source>)));
    let session = cuda_support::session(1);
    for policy in POLICIES {
        let (expected, on_host) = run(load(policy)).expect("on the host");
        assert!(on_host.replaced + on_host.skipped > 4, "{on_host}");
        for seed in 0..8 {
            session.restart(seed);
            // Every third time in waves of few pictures.
            let builder = by_kernels(load(policy)).scratch_bytes(if seed % 3 == 0 { 500 * 192 } else { 4 << 20 });
            let (found, report) = run(builder).expect("on the device");
            session.finish();
            assert_eq!(session.reports(), Vec::<String>::new(), "{policy}, seed {seed}");
            assert_eq!(found, expected, "{policy}, seed {seed}: {report}");
            assert_eq!((report.replaced, report.skipped), (on_host.replaced, on_host.skipped), "{policy}");
        }
    }
}

/// Of several views each, the smallest first: what follows it moves by less than its own length where others are skipped.
#[test]
fn bad_samples_have_no_views_and_leave_no_gaps() {
    let crops = |side, scale, dtype| {
        let geometry = Geometry::RandomResizedCrop { size: Size::square(side), scale, ratio: [0.75, 1.4] };
        Augment::builder(geometry).dtype(dtype).build().expect("augmentation")
    };
    let groups = [
        (crops(5, [0.4, 1.0], DType::U8), 2),
        (crops(24, [0.4, 1.0], DType::F32), 1),
        (crops(9, [0.1, 1.0], DType::BF16), 3),
    ];
    let root = tempfile::tempdir().expect("folder");
    let spoilt =
        common::folder(&root.path().join("spoilt"), &spoil(&samples(&FIXTURES[..12]), |number| number % 4 == 1));
    index(&spoilt);
    let worn = worn(root.path(), &FIXTURES[..12], |number| number % 3 == 1);
    let session = cuda_support::session(1);
    for policy in POLICIES {
        for (name, bad) in [("spoilt", 3), ("worn", 4)] {
            let load = || {
                let builder = if name == "spoilt" {
                    load(&spoilt)
                } else {
                    small(Loader::of(Arc::clone(&worn) as Arc<dyn Source>))
                };
                under(policy, builder.views(groups)).batch_size(5)
            };
            let (expected, on_host) = run(load()).expect("on the host");
            assert_eq!(on_host.replaced + on_host.skipped, 2 * bad, "{policy}, {name}: {on_host}");
            for seed in 0..3 {
                session.restart(seed);
                // Once in waves of few pictures.
                let (found, report) =
                    run(by_kernels(load()).scratch_bytes(if seed == 0 { 500 * 192 } else { 4 << 20 }))
                        .expect("on the device");
                session.finish();
                assert_eq!(session.reports(), Vec::<String>::new(), "{policy}, {name}, seed {seed}");
                assert_eq!(found, expected, "{policy}, {name}, seed {seed}: {report}");
                assert_eq!((report.replaced, report.skipped), (on_host.replaced, on_host.skipped), "{policy}, {name}");
            }
        }
    }
}

#[test]
fn labels_on_the_device_are_those_of_what_is_there() {
    let root = tempfile::tempdir().expect("folder");
    let source = worn(root.path(), &FIXTURES[..12], |number| number % 3 == 1);
    let session = cuda_support::session(1);
    for policy in POLICIES {
        for seed in 0..4 {
            session.restart(seed);
            let builder = by_kernels(under(policy, small(Loader::of(Arc::clone(&source) as Arc<dyn Source>))));
            within(Duration::from_secs(60), move || {
                let mut loader = builder.build().expect("loader");
                let context = CudaContext::new(0).expect("context");
                // SAFETY: everything here is on one stream.
                unsafe { context.disable_event_tracking() };
                let stream = context.new_stream().expect("stream");
                for batch in loader.epochs(0..2) {
                    let batch = batch.expect("batch");
                    let labels = batch.labels_on(&stream).expect("labels");
                    assert_eq!(stream.clone_dtoh(&labels).expect("a copy"), batch.labels());
                    assert_eq!(tensor(&batch).len(), batch.len() * 3 * 20 * 20 * 4);
                }
            });
            session.finish();
            assert_eq!(session.reports(), Vec::<String>::new(), "{policy}, seed {seed}");
        }
    }
}

#[test]
fn a_batch_of_which_all_is_bad_is_empty_or_an_error() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &spoil(&samples(&FIXTURES[..9]), |_| true));
    index(&folder);
    let session = cuda_support::session(1);
    let skip = by_kernels(under(OnError::Skip, load(&folder).decoder(DecoderKind::Auto)));
    let replace = by_kernels(under(OnError::Replace, load(&folder)));
    within(Duration::from_secs(60), move || {
        // The kernels need an index; of what is all bad there is none to plan by.
        for (builder, is_error) in [(skip, false), (replace, true)] {
            let Ok(mut loader) = builder.decoder(DecoderKind::Host).build() else { continue };
            let batches: Vec<_> = loader.epoch(0).collect();
            assert_eq!(batches.iter().any(Result::is_err), is_error);
            assert!(batches.iter().flatten().all(|batch| batch.is_empty() && batch.to_host().is_ok()));
        }
    });
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
}

#[test]
fn a_consumer_may_leave_while_batches_go_round_again() {
    let root = tempfile::tempdir().expect("folder");
    let source = worn(root.path(), &FIXTURES[..12], |number| number % 3 != 0);
    let session = cuda_support::session(1);
    for policy in POLICIES {
        for taken in 0..=4 {
            session.restart(taken);
            let builder = by_kernels(under(policy, small(Loader::of(Arc::clone(&source) as Arc<dyn Source>))));
            within(Duration::from_secs(60), move || {
                let mut loader = builder.build().expect("loader");
                let kept: Vec<_> = loader.epochs(0..2).take(taken as usize).step_by(3).collect();
                assert!(loader.epoch(0).next().is_some_and(|batch| batch.is_ok()));
                drop(loader);
                assert!(kept.iter().all(|batch| batch.is_ok()));
            });
            session.finish();
            assert_eq!(session.reports(), Vec::<String>::new(), "{policy}, after {taken} batches");
        }
    }
}

#[test]
fn what_the_host_can_decode_after_all_is_no_bad_sample() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(&FIXTURES[..8]));
    // Entry points that lie: the kernels stumble, and the file is sound.
    let mut source = Indexed::open(&folder, Grain::Bits(400));
    let row = source.row(2);
    row.entries.iter_mut().skip(4).step_by(12).for_each(|byte| *byte ^= 0x55);
    let source: Arc<dyn Source> = Arc::new(source);
    let expected = run(load(&folder)).expect("on the host").0;
    let session = cuda_support::session(1);
    for policy in POLICIES {
        session.restart(1);
        let (found, report) =
            run(by_kernels(under(policy, small(Loader::of(Arc::clone(&source)))))).expect("on the device");
        session.finish();
        assert_eq!(session.reports(), Vec::<String>::new());
        assert_eq!(found, expected, "{policy}: {report}");
        assert_eq!((report.replaced, report.skipped), (0, 0), "{policy}");
        let named = [Fallback::KERNELS, Fallback::INDEX];
        assert!(report.fallbacks.iter().any(|fallback| named.contains(&fallback.what)), "{report}");
    }
}
