//! What no index describes is decoded by nvJPEG on a device: near to the host's pixels, and by the host where it must be.

mod common;
mod cuda_load_support;
mod cuda_support;
mod cufile_support;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use cuda_load_support::{load, on_device, routed, samples, tensor, turned, within};
use forebay::decode::{DecoderKind, Route};
use forebay::engine::EngineKind;
use forebay::plan::Size;
use forebay::report::Fallback;
use forebay::{Augment, DType, ErrorKind, Geometry, LoaderBuilder, Report, Result};

/// How far a sample of nvJPEG's may be from the host's (src/decode/nvjpeg/mod.rs). Resampling averages samples, so it leaves the
/// bound as it is, but for one more rounding.
const DIFFERENCE_MAX: u8 = 5 + 1;
const DIFFERENCE_MEAN: f64 = 1.0;

/// What nvJPEG takes, in each sampling, with restart markers and without.
const TAKEN: [&str; 10] = [
    "444_131x97",
    "422_131x97",
    "420_131x97",
    "440_131x97",
    "411_131x97",
    "grey_131x97",
    "restart_rows_422",
    "restart_blocks_420",
    "restart_every_mcu",
    "444_1x1",
];

/// What it must not see: components that are colours, sampling factors without a name, several scans.
const FOR_THE_HOST: [&str; 5] =
    ["rgb_131x97", "mixed_hv_33x31", "crossed_33x31", "grey_2x2_factors", "scans_single_420"];

/// Loads the stand-in for nvJPEG, which is found by its name from then on, and sets its engines and cores.
fn with_engines(engines: u32, cores: u32) {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    let library = *LIBRARY.get_or_init(|| {
        let path = std::env::current_exe().expect("a path").with_file_name("libsimnvjpeg.so");
        let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
        // SAFETY: the stand-in's initialisers do nothing.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "{path:?} cannot be loaded");
        library.addr()
    });
    // SAFETY: the library is open.
    let set = unsafe { libc::dlsym(std::ptr::without_provenance_mut(library), c"simnvjpeg_engines".as_ptr()) };
    assert!(!set.is_null());
    // SAFETY: the function is the stand-in's, of this signature.
    let set: extern "C" fn(u32, u32) = unsafe { std::mem::transmute(set) };
    set(engines, cores);
}

/// Bytes of the tensors of two epochs, and what they cost.
fn run(builder: LoaderBuilder) -> Result<(Vec<Vec<u8>>, Report)> {
    within(std::time::Duration::from_secs(120), move || {
        let mut loader = builder.build()?;
        let mut tensors = Vec::new();
        for batch in loader.epochs(0..2) {
            tensors.push(tensor(&batch?));
        }
        Ok((tensors, loader.report()))
    })
}

/// Bytes, so that a difference is one of levels.
fn levels(geometry: Geometry) -> Augment {
    Augment::builder(geometry).dtype(DType::U8).build().expect("augmentation")
}

fn crops() -> Augment {
    let size = Size { height: 24, width: 20 };
    levels(Geometry::RandomResizedCrop { size, scale: [0.05, 1.0], ratio: [0.75, 1.4] })
}

#[track_caller]
fn near(found: &[Vec<u8>], expected: &[Vec<u8>]) {
    assert_eq!(found.len(), expected.len());
    let pairs = || found.concat().into_iter().zip(expected.concat()).map(|(found, expected)| found.abs_diff(expected));
    let (sum, count) = (pairs().map(u64::from).sum::<u64>(), pairs().count());
    let most = pairs().max().unwrap_or(0);
    assert!(most <= DIFFERENCE_MAX, "a sample is {most} levels off");
    assert!(sum as f64 <= DIFFERENCE_MEAN * count as f64, "{sum} levels over {count} samples");
    assert!(most > 0, "the stand-in is less exact than this");
}

fn on_nvjpeg(builder: LoaderBuilder) -> LoaderBuilder {
    on_device(builder).decoder(DecoderKind::NvJpeg)
}

#[test]
fn every_schedule_is_near_the_host_and_the_same_again() {
    let root = tempfile::tempdir().expect("folder");
    let mut files = samples(&[&TAKEN[..], &FOR_THE_HOST].concat());
    for (number, (_, _, bytes)) in files.iter_mut().enumerate() {
        *bytes = turned(bytes, (number % 8) as u8 + 1);
    }
    let folder = common::folder(root.path(), &files);
    let builder = || load(&folder).augment(crops()).orientation(true);
    let (expected, _) = run(builder()).expect("on the host");
    for (engines, cores) in [(0, 0), (1, 5)] {
        let mut first = None;
        for seed in 0..10 {
            let session = cuda_support::session(seed);
            with_engines(engines, cores);
            let (found, report) = run(on_nvjpeg(builder().threads(1 + seed as usize % 3))).expect("on the device");
            session.finish();
            assert_eq!(session.reports(), Vec::<String>::new(), "seed {seed}");
            near(&found, &expected);
            let (nvjpeg, host) = (routed(&report, Route::NvJpeg), routed(&report, Route::Jpeg));
            assert_eq!((nvjpeg, host), (2 * TAKEN.len() as u64, 2 * FOR_THE_HOST.len() as u64), "{report}");
            let first = first.get_or_insert_with(|| found.clone());
            assert!(*first == found, "seed {seed}, {} threads: other pixels", 1 + seed % 3);
        }
    }
}

/// Of those that nvJPEG is shown by the index alone, what each of its backends for device memory takes: no restart
/// intervals in its kernels, no 4:1:1 in the hardware.
const FOR_ITS_KERNELS: u64 = TAKEN.len() as u64 - 3;
const FOR_BOTH: u64 = TAKEN.len() as u64;

#[test]
fn files_that_landed_on_the_device_are_decoded_there_by_what_the_index_says() {
    let root = tempfile::tempdir().expect("folder");
    let folder = cuda_load_support::indexed_folder(root.path(), &TAKEN);
    let builder = || load(&folder).augment(crops());
    let (expected, _) = run(builder()).expect("on the host");
    let stand = cufile_support::stand(0);
    for (engines, cores) in [(0, 0), (1, 5)] {
        let mut first = None;
        for seed in 0..12 {
            with_engines(engines, cores);
            stand.restart(seed);
            // By cuFile, of itself or by name, or with the one copy of the upload.
            let engine = [EngineKind::CuFile, EngineKind::Auto, EngineKind::Pread][seed as usize % 3];
            let builder = on_device(builder()).decoder(DecoderKind::NvJpegDevice).engine(engine);
            let (found, report) = run(builder).expect("on the device");
            assert_eq!(stand.reports(), Vec::<String>::new(), "seed {seed}");
            near(&found, &expected);
            let (nvjpeg, host) = (routed(&report, Route::NvJpeg), routed(&report, Route::Jpeg));
            let taken = 2 * if engines > 0 { FOR_BOTH } else { FOR_ITS_KERNELS };
            assert_eq!((nvjpeg, host), (taken, 2 * TAKEN.len() as u64 - taken), "{report}");
            assert_eq!(report.receipts.is_empty(), report.engine != "cufile", "{report}");
            let first = first.get_or_insert_with(|| found.clone());
            assert!(*first == found, "seed {seed}: other pixels");
        }
    }
}

#[test]
fn an_image_that_nvjpeg_refuses_comes_from_the_host_alone() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(&TAKEN));
    let builder = || load(&folder).augment(crops());
    let (expected, _) = run(builder()).expect("on the host");
    let session = cuda_support::session(3);
    with_engines(0, 0);
    session.set("fail", "nvjpegDecodeJpegHost#4:3");
    session.restart(3);
    let (found, report) = run(on_nvjpeg(builder())).expect("on the device");
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
    near(&found, &expected);
    assert_eq!(routed(&report, Route::NvJpeg), 2 * TAKEN.len() as u64 - 1, "{report}");
    let fallback = report.fallbacks.iter().find(|fallback| fallback.what == Fallback::NVJPEG).expect("counted");
    assert!(fallback.count == 1 && fallback.cause.contains("NVJPEG_STATUS_BAD_JPEG"), "{fallback}");
}

#[test]
fn a_file_that_nobody_can_decode_is_an_error_of_its_own() {
    let root = tempfile::tempdir().expect("folder");
    let mut files = samples(&TAKEN);
    files[4].2.truncate(900);
    let folder = common::folder(root.path(), &files);
    let session = cuda_support::session(4);
    with_engines(1, 5);
    let error = run(on_nvjpeg(load(&folder).augment(crops()))).map(|_| ()).expect_err("a truncated file");
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
    assert_eq!(error.kind(), ErrorKind::Truncated);
    assert!(error.sample().is_some_and(|sample| sample.contains("411_131x97")), "{error}");
}

#[test]
fn other_processes_of_jpeg_are_the_hosts() {
    let root = tempfile::tempdir().expect("folder");
    let encode = |configure: &dyn Fn(&mut jpeg_encoder::Encoder<&mut Vec<u8>>), colour, channels: usize| {
        let pixels: Vec<u8> = (0..64 * 48 * channels).map(|i| (i / channels % 200) as u8).collect();
        let mut bytes = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
        configure(&mut encoder);
        encoder.encode(&pixels, 64, 48, colour).expect("a JPEG");
        bytes
    };
    let progressive = encode(&|encoder| encoder.set_progressive(true), jpeg_encoder::ColorType::Rgb, 3);
    let cmyk = encode(&|_| {}, jpeg_encoder::ColorType::Cmyk, 4);
    let mut files = samples(&TAKEN[..3]);
    files.push(("class0/progressive".into(), 0, progressive));
    files.push(("class1/cmyk".into(), 1, cmyk));
    let folder = common::folder(root.path(), &files);
    let builder = || load(&folder).augment(crops());
    let (expected, _) = run(builder()).expect("on the host");
    let session = cuda_support::session(5);
    with_engines(1, 5);
    let (found, report) = run(on_nvjpeg(builder())).expect("on the device");
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
    near(&found, &expected);
    assert_eq!((routed(&report, Route::NvJpeg), routed(&report, Route::OtherJpeg)), (6, 4), "{report}");
}

#[test]
fn device_memory_that_is_short_is_an_error_with_the_sizes() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(&TAKEN));
    let session = cuda_support::session(6);
    with_engines(0, 0);
    session.set("fail", "cuMemHostAlloc#2:2");
    session.restart(6);
    let error = run(on_nvjpeg(load(&folder).augment(crops()))).map(|_| ()).expect_err("no memory");
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    assert!(error.to_string().contains("4194304 bytes"), "{error}");
    session.finish();
    assert_eq!(session.reports(), Vec::<String>::new());
}

/// `bench load` in a process of its own: whether it succeeded, and what it said.
fn bench(command: &mut Command, folder: &Path, decoder: &str) -> (bool, String) {
    let arguments = ["bench", "load", "--device", "cuda:0", "--batch", "5", "--size", "20", "--decoder", decoder];
    let output = command.args(arguments).arg(folder).output().expect("forebay runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn without_the_library_auto_goes_to_the_host_and_says_so_and_a_name_is_an_error() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(&TAKEN));
    let simulator = cuda_support::simulator().seed(7);
    let command = || simulator.command(env!("CARGO_BIN_EXE_forebay"));
    let (succeeded, text) = bench(&mut command(), &folder, "nvjpeg");
    if succeeded {
        return println!("skipped: this machine has an nvJPEG of its own");
    }
    assert!(text.contains("tried libnvjpeg.so, libnvjpeg.so.12, libnvjpeg.so.13, libnvjpeg.so.11"), "{text}");
    let (succeeded, text) = bench(&mut command(), &folder, "auto");
    assert!(succeeded && text.contains("no nvJPEG library can be opened"), "{text}");
}
