//! A loader whose samples go straight to the device: the host's tensors, receipts, and no byte of theirs on the host where
//! that is required.

use std::path::{Path, PathBuf};

use crate::common;
use crate::cuda_load_support::{self, FEW, FIXTURES, consume, index, load, on_device, routed, run, samples, within};
use crate::cufile_support::{Stand, stand};
use crate::raw_support::{self, Stored};
use forebay::batch::Digest;
use forebay::decode::{DecoderKind, Route};
use forebay::device::Device;
use forebay::engine::cufile::ReadPath;
use forebay::engine::{CuFileApi, EngineKind, RequirePath};
use forebay::raw::Shape;
use forebay::report::Fallback;
use forebay::source::IndexMode;
use forebay::{ErrorBudget, ErrorKind, LoaderBuilder, OnError, Report, Result};

/// A shard of fixtures.
fn bare_shard(root: &Path, names: &[&str]) -> PathBuf {
    std::fs::create_dir_all(root).expect("folder");
    common::shards(root, &samples(names), names.len());
    root.join("train-000.tar")
}

/// The same with its index.
fn indexed_shard(root: &Path, names: &[&str]) -> PathBuf {
    let shard = bare_shard(root, names);
    index(&shard);
    shard
}

fn by_cufile(builder: LoaderBuilder) -> LoaderBuilder {
    on_device(builder).engine(EngineKind::CuFile).decoder(DecoderKind::Kernels)
}

fn fallback<'a>(report: &'a Report, what: &str) -> Option<&'a Fallback> {
    report.fallbacks.iter().find(|fallback| fallback.what == what)
}

#[test]
fn folders_and_shards_give_the_hosts_digest_through_every_interface() {
    let root = tempfile::tempdir().expect("folder");
    let folder = cuda_load_support::indexed_folder(root.path(), &FIXTURES);
    let shard = indexed_shard(root.path(), &FIXTURES);
    let stand = stand(0);
    for (number, data_set) in [folder, shard].iter().enumerate() {
        let (expected, _) = run(load(data_set)).expect("the host's");
        for (seed, api) in [CuFileApi::Batch, CuFileApi::Stream, CuFileApi::Threads, CuFileApi::Auto].iter().enumerate()
        {
            stand.set("path", ["nvfs", "p2p"][number]);
            stand.restart(seed as u64);
            let builder = by_cufile(load(data_set)).cufile_api(*api).require_path(RequirePath::Direct);
            let (found, report) = run(builder).expect("tensors");
            assert_eq!(stand.reports(), Vec::<String>::new(), "{api}");
            assert!(found == expected, "{api}: {report}");
            let path = [ReadPath::Nvfs, ReadPath::P2pDma][number];
            assert_eq!(report.receipts.taken().map(|(path, _)| path).collect::<Vec<_>>(), [path], "{api}");
            assert_eq!((report.engine, report.receipts.bounced_reads), ("cufile", 0), "{api}");
            assert_eq!(routed(&report, Route::Kernels), report.images, "{api}");
            assert_eq!(report.fallbacks, [], "{api}");
        }
    }
}

/// The files that the loader sees hold nothing but one letter. What cuFile reads lies behind them.
#[test]
fn no_byte_of_a_sample_passes_through_the_host() {
    let root = tempfile::tempdir().expect("folder");
    let truth = root.path().join("truth");
    std::fs::create_dir(&truth).expect("folder");
    let shard = indexed_shard(&truth, &FIXTURES);
    let (expected, _) = run(load(&shard)).expect("the host's");
    let seen = poisoned(root.path(), &truth);
    let stand = stand(4);
    stand.set("behind", format!("{}=>{}", seen.display(), truth.display()));
    stand.set("watch", "1");
    stand.restart(4);
    let shard = seen.join(shard.file_name().expect("a name"));
    let (found, report) = run(by_cufile(load(&shard)).require_path(RequirePath::Direct)).expect("tensors");
    assert_eq!(stand.reports(), Vec::<String>::new());
    assert!(found == expected, "{report}");
    // The same by io_uring or threads, which see what there is to be seen.
    let by_host = run(on_device(load(&shard)).decoder(DecoderKind::Kernels).engine(EngineKind::Pread));
    assert!(by_host.is_err(), "the poison is none");
    stand.set("behind", "");
    stand.set("watch", "");
}

/// A copy whose files have the same names, lengths and times, and another content.
fn poisoned(root: &Path, truth: &Path) -> PathBuf {
    let copy = root.join("poisoned");
    std::fs::create_dir(&copy).expect("folder");
    for entry in std::fs::read_dir(truth).expect("folder") {
        let entry = entry.expect("entry");
        let (from, to) = (entry.path(), copy.join(entry.file_name()));
        let bytes = std::fs::read(&from).expect("file");
        let is_data = from.extension().is_some_and(|extension| extension == "tar");
        std::fs::write(&to, if is_data { vec![b'x'; bytes.len()] } else { bytes }).expect("file");
        let modified = entry.metadata().and_then(|metadata| metadata.modified()).expect("a time");
        let file = std::fs::File::options().write(true).open(&to).expect("file");
        file.set_modified(modified).expect("a time");
    }
    copy
}

#[test]
fn every_schedule_gives_the_hosts_digest_without_a_report() {
    let root = tempfile::tempdir().expect("folder");
    let shard = indexed_shard(root.path(), &FEW);
    let (expected, _) = run(load(&shard).batch_size(2)).expect("the host's");
    let stand = stand(0);
    for seed in 0..40 {
        stand.restart(seed);
        let api = [CuFileApi::Batch, CuFileApi::Stream, CuFileApi::Threads][seed as usize % 3];
        let (found, report) = run(by_cufile(load(&shard)).batch_size(2).cufile_api(api)).expect("tensors");
        assert_eq!(stand.reports(), Vec::<String>::new(), "seed {seed}");
        assert!(found == expected, "seed {seed}: {report}");
    }
}

#[test]
fn compatibility_mode_is_in_the_report_and_an_error_where_direct_is_required() {
    let root = tempfile::tempdir().expect("folder");
    let shard = indexed_shard(root.path(), &FEW);
    let (expected, _) = run(load(&shard)).expect("the host's");
    let stand = stand(1);
    stand.set("path", "posix");
    stand.restart(1);
    let (found, report) = run(by_cufile(load(&shard))).expect("tensors");
    assert!(found == expected);
    assert!(report.receipts.of(ReadPath::Posix).bytes > 0, "{report}");
    assert!(report.to_string().contains("reads by posix"), "{report}");
    stand.restart(1);
    let error = run(by_cufile(load(&shard)).require_path(RequirePath::Direct)).map(drop).expect_err("compatibility");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.remedy().is_some(), "{error}");
}

#[test]
fn auto_takes_cufile_where_a_read_proves_it_direct_and_else_says_why_not() {
    let root = tempfile::tempdir().expect("folder");
    let shard = indexed_shard(root.path(), &FEW);
    let (expected, _) = run(load(&shard)).expect("the host's");
    let stand = stand(1);
    for path in ["nvfs", "p2p", "posix", "missing"] {
        stand.session.set("fail", if path == "missing" { "cuFileDriverOpen:5001" } else { "" });
        stand.set("path", if path == "missing" { "posix" } else { path });
        stand.restart(1);
        let (found, report) = run(on_device(load(&shard))).expect("tensors");
        assert!(found == expected, "{path}");
        let is_direct = matches!(path, "nvfs" | "p2p");
        assert_eq!(report.engine == "cufile", is_direct, "{path}: {report}");
        let why = fallback(&report, Fallback::CUFILE);
        assert_eq!(why.is_none(), is_direct, "{path}: {report}");
        assert!(why.is_none_or(|why| !why.remedy.is_empty() && !why.cause.is_empty()), "{path}: {report}");
        // A host that was asked for by name never hears of it.
        assert_eq!(run(load(&shard)).expect("the host's").1.fallbacks, []);
    }
    stand.session.set("fail", "");
}

#[test]
fn reads_that_fail_come_from_the_host_and_are_counted_or_are_errors_where_direct_is_required() {
    let root = tempfile::tempdir().expect("folder");
    let shard = indexed_shard(root.path(), &FIXTURES);
    let (expected, _) = run(load(&shard)).expect("the host's");
    let stand = stand(1);
    for api in [CuFileApi::Batch, CuFileApi::Stream, CuFileApi::Threads] {
        for (fault, is_mended) in [("5:5", true), ("5:5,6:5,7:5,8:5,9:5", false), ("0:5", false), ("0:5044", false)] {
            let run_with = |require| {
                stand.set("fail", fault);
                stand.restart(3);
                let result = run(by_cufile(load(&shard)).cufile_api(api).require_path(require).depth(1));
                stand.set("fail", "");
                result
            };
            let (found, report) = run_with(RequirePath::Any).expect("tensors");
            assert!(found == expected, "{api} {fault}: {report}");
            let counted = fallback(&report, Fallback::CUFILE).map_or(0, |fallback| fallback.count);
            assert_eq!(counted == 0, is_mended, "{api} {fault}: {report}");
            assert_eq!(stand.reports(), Vec::<String>::new(), "{api} {fault}");
            if !is_mended {
                let error = run_with(RequirePath::Direct).map(drop).expect_err("a read that fails");
                assert!(error.sample().is_some() || fault.starts_with('0'), "{api} {fault}: {error}");
            }
        }
    }
}

/// Under a required path a bad sample is the kernels' to find, and what stands in for it comes by the same path.
#[test]
fn bad_samples_are_replaced_and_skipped_by_the_path_that_is_required() {
    let root = tempfile::tempdir().expect("folder");
    let shard = indexed_shard(root.path(), &FIXTURES);
    let modified = std::fs::metadata(&shard).and_then(|shard| shard.modified()).expect("a time");
    let mut bytes = std::fs::read(&shard).expect("shard");
    for name in ["422_131x97", "420_131x97", "411_131x97"] {
        let sample = cuda_load_support::fixture(name);
        let at = bytes.windows(sample.len()).position(|window| window == sample).expect("it is there");
        // Ones only: no code of any table.
        bytes[at + sample.len() / 2..at + sample.len() - 2].fill(0xFE);
    }
    std::fs::write(&shard, &bytes).expect("shard");
    let file = std::fs::File::options().write(true).open(&shard).expect("shard");
    file.set_modified(modified).expect("a time");
    let stand = stand(1);
    for policy in [OnError::Replace, OnError::Skip] {
        let load = || load(&shard).on_error(policy).error_budget(ErrorBudget::count(u64::MAX));
        let (expected, on_host) = run(load()).expect("the host's");
        assert!(on_host.replaced + on_host.skipped > 2, "{on_host}");
        for seed in 0..6 {
            stand.restart(seed);
            let api = [CuFileApi::Batch, CuFileApi::Stream, CuFileApi::Threads][seed as usize % 3];
            let direct = by_cufile(load()).cufile_api(api).require_path(RequirePath::Direct);
            let (found, report) = run(direct).expect("tensors");
            assert_eq!(stand.reports(), Vec::<String>::new(), "{policy}, seed {seed}");
            assert!(found == expected, "{policy}, seed {seed}: {report}");
            assert_eq!((report.replaced, report.skipped), (on_host.replaced, on_host.skipped), "{policy}");
            assert_eq!(
                (routed(&report, Route::Kernels), report.receipts.bounced_reads),
                (report.images, 0),
                "{policy}"
            );
            assert_eq!(report.receipts.taken().map(|(path, _)| path).collect::<Vec<_>>(), [ReadPath::Nvfs]);
        }
    }
}

#[test]
fn what_does_not_fit_or_is_not_indexed_goes_by_the_host_or_is_an_error() {
    let root = tempfile::tempdir().expect("folder");
    let shard = indexed_shard(root.path(), &FIXTURES);
    let (expected, _) = run(load(&shard)).expect("the host's");
    let stand = stand(1);
    // A landing area of two pages.
    let (found, report) = run(by_cufile(load(&shard)).landing_bytes(8192)).expect("tensors");
    assert!(found == expected && fallback(&report, Fallback::UPLOAD).is_some(), "{report}");
    stand.restart(1);
    let builder = by_cufile(load(&shard)).landing_bytes(8192).require_path(RequirePath::Direct);
    let error = run(builder).map(drop).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    // A data set of which a shard has no index.
    let bare = bare_shard(&root.path().join("bare"), &FEW);
    let shards = root.path().join("both");
    std::fs::create_dir(&shards).expect("folder");
    let copy = shards.join("a.tar");
    std::fs::copy(&shard, &copy).expect("copy");
    index(&copy);
    std::fs::copy(&bare, shards.join("b.tar")).expect("copy");
    let (expected, _) = run(load(&shards).index(IndexMode::Off)).expect("the host's");
    stand.restart(1);
    let (found, report) = run(by_cufile(load(&shards))).expect("tensors");
    assert!(found == expected && routed(&report, Route::Jpeg) > 0 && routed(&report, Route::Kernels) > 0, "{report}");
    stand.restart(1);
    let error = run(by_cufile(load(&shards)).require_path(RequirePath::Direct)).map(drop).expect_err("no index");
    assert!(error.sample().is_some() && error.to_string().contains("no index"), "{error}");
}

#[test]
fn a_sample_that_the_kernels_cannot_decode_is_looked_at_by_the_host_unless_direct_is_required() {
    let root = tempfile::tempdir().expect("folder");
    let names = FEW;
    let shard = indexed_shard(root.path(), &names);
    let broken = broken(&shard, "420_17x16");
    let stand = stand(1);
    let host = run(load(&shard).batch_size(1)).map(drop).expect_err("broken");
    stand.restart(1);
    let found = run(by_cufile(load(&shard)).batch_size(1)).map(drop).expect_err("broken");
    assert_eq!((found.kind(), found.to_string()), (host.kind(), host.to_string()), "{broken}");
    stand.restart(1);
    let builder = by_cufile(load(&shard)).batch_size(1).require_path(RequirePath::Direct);
    let found = run(builder).map(drop).expect_err("broken");
    assert!(found.sample().is_some() && found.to_string().contains("kernels found"), "{found}");
}

/// Breaks the entropy-coded data of a sample in a shard, whose time stays: where.
fn broken(shard: &Path, name: &str) -> String {
    let modified = std::fs::metadata(shard).and_then(|metadata| metadata.modified()).expect("a time");
    let mut bytes = std::fs::read(shard).expect("file");
    let sample = cuda_load_support::fixture(name);
    let at = bytes.windows(sample.len()).position(|window| window == sample).expect("the sample");
    // The last third, without new markers.
    let (start, end) = (at + sample.len() * 2 / 3, at + sample.len() - 2);
    bytes[start..end].fill(0x55);
    std::fs::write(shard, &bytes).expect("file");
    std::fs::File::options().write(true).open(shard).and_then(|file| file.set_modified(modified)).expect("a time");
    format!("{start}..{end}")
}

#[test]
fn a_run_may_end_after_any_batch() {
    let root = tempfile::tempdir().expect("folder");
    let shard = indexed_shard(root.path(), &FEW);
    let stand = stand(0);
    for taken in 0..4 {
        for (seed, api) in [CuFileApi::Batch, CuFileApi::Stream, CuFileApi::Threads].into_iter().enumerate() {
            stand.restart(seed as u64);
            let builder = by_cufile(load(&shard)).batch_size(2).cufile_api(api);
            within(std::time::Duration::from_secs(60), move || -> Result<()> {
                let mut loader = builder.build()?;
                let mut digest = Digest::default();
                for batch in loader.epochs(0..2).take(taken) {
                    digest.update(&batch?)?;
                }
                // And another run of the same loader.
                loader.epoch(0).try_for_each(|batch| batch.map(drop))
            })
            .expect("a run");
            assert_eq!(stand.reports(), Vec::<String>::new(), "{taken} batches, {api}");
        }
    }
}

#[test]
fn what_contradicts_the_path_to_the_device_is_refused() {
    let root = tempfile::tempdir().expect("folder");
    let shard = indexed_shard(root.path(), &FEW);
    let _stand: Stand = stand(1);
    let direct = |builder: LoaderBuilder| builder.require_path(RequirePath::Direct);
    for (builder, name) in [
        (load(&shard).engine(EngineKind::CuFile), "device"),
        (direct(load(&shard)), "device"),
        (direct(on_device(load(&shard))).engine(EngineKind::Uring), "engine"),
        (on_device(load(&shard)).engine(EngineKind::CuFile).decoder(DecoderKind::Host), "decoder"),
        (on_device(load(&shard)).engine(EngineKind::CuFile).decoder(DecoderKind::NvJpeg), "decoder"),
        (on_device(load(&shard)).engine(EngineKind::CuFile).index(IndexMode::Off), "index"),
    ] {
        let error = builder.build().map(drop).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        assert!(error.to_string().starts_with(name), "{error}");
    }
    assert_eq!(on_device(load(&shard)).build().expect("a loader").device(), Device::Cuda(0));
}

/// Pictures of one shape as NumPy files, which an index describes, and as bare pixels, whose shape is told.
fn raw_sets(root: &Path) -> (PathBuf, PathBuf, Shape) {
    let shape = Shape { height: 60, width: 83, channels: 3 };
    let pictures = raw_support::pictures(9, Some(shape));
    let npy = raw_support::folder(root, &pictures, Stored::Npy);
    index(&npy);
    (npy, raw_support::folder(root, &pictures, Stored::Raw), shape)
}

#[test]
fn raw_pixels_land_on_the_device_and_give_the_hosts_digest() {
    let root = tempfile::tempdir().expect("folder");
    let (npy, raw, shape) = raw_sets(root.path());
    let stand = stand(0);
    for (data_set, is_headerless) in [(&npy, false), (&raw, true)] {
        let builder = || if is_headerless { load(data_set).raw_shape(shape) } else { load(data_set) };
        let (expected, _) = run(builder()).expect("the host's");
        for seed in 0..12 {
            stand.restart(seed);
            let api = [CuFileApi::Batch, CuFileApi::Stream, CuFileApi::Threads][seed as usize % 3];
            let by_cufile = by_cufile(builder()).cufile_api(api).require_path(RequirePath::Direct).batch_size(2);
            let (found, report) = run(by_cufile).expect("tensors");
            assert_eq!(stand.reports(), Vec::<String>::new(), "seed {seed}");
            let (smaller, _) = run(builder().batch_size(2)).expect("the host's");
            assert!(found == smaller, "seed {seed}: {report}");
            assert_eq!(routed(&report, Route::Kernels), report.images);
            assert_eq!(report.indexed, if is_headerless { 0 } else { report.images });
            stand.restart(seed);
            let (uploaded, report) = run(on_device(builder()).engine(EngineKind::Pread)).expect("tensors");
            assert_eq!(stand.reports(), Vec::<String>::new(), "seed {seed}");
            assert!(uploaded == expected && routed(&report, Route::Kernels) == report.images, "seed {seed}: {report}");
        }
    }
}

/// Reads of the next round go where the last round's kernels may still look: without the wait between them the driver says
/// so.
#[test]
fn a_slot_that_is_landed_in_again_too_early_is_caught() {
    let root = tempfile::tempdir().expect("folder");
    let (npy, _, _) = raw_sets(root.path());
    let stand = stand(0);
    let builder = || by_cufile(load(&npy)).batch_size(1).slots(2).decoder(DecoderKind::Auto);
    let mut expected = Vec::new();
    for seed in 0..20 {
        stand.restart(seed);
        expected = consume(builder()).expect("tensors").0;
        assert_eq!(stand.reports(), Vec::<String>::new(), "seed {seed}");
    }
    stand.session.set("drop", "cuEventSynchronize");
    let is_caught = (0..20).any(|seed| {
        stand.restart(seed);
        let found = consume(builder());
        !stand.reports().is_empty() || found.is_ok_and(|(found, _)| found != expected)
    });
    stand.session.set("drop", "");
    assert!(is_caught, "20 schedules do not show it");
}
