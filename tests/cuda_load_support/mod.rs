//! Small data sets for a simulated device, and runs over them.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use cudarc::driver::{CudaContext, CudaSlice};
use forebay::batch::Digest;
use forebay::device::Device;
use forebay::jpeg::Grain;
use forebay::order::LastBatch;
use forebay::report::Fallback;
use forebay::source::index::{BuildOptions, Part, build};
use forebay::{Augment, Batch, Loader, LoaderBuilder, Report, Result};

/// Pictures of every sampling, with restart markers and without, of odd sizes.
pub const FIXTURES: [&str; 24] = [
    "444_131x97",
    "422_131x97",
    "420_131x97",
    "440_131x97",
    "411_131x97",
    "410_33x31",
    "grey_131x97",
    "rgb_131x97",
    "311_33x31",
    "141_17x16",
    "crossed_33x31",
    "mixed_hv_33x31",
    "mixed_lone_33x31",
    "grey_2x2_factors",
    "rgb_subsampled",
    "restart_every_mcu",
    "restart_rows_422",
    "restart_blocks_420",
    "restart_blocks_411",
    "quality_100_420",
    "coarse_luma_33x31",
    "444_1x1",
    "420_3x2",
    "422_5x9",
];

/// The few that a schedule is tried with: enough for three batches.
pub const FEW: [&str; 6] = ["420_17x16", "444_5x9", "restart_every_mcu", "422_33x31", "grey_33x31", "440_3x2"];

pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/jpeg/{name}.jpg", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("fixture")
}

/// Samples of two classes: name, label, bytes.
pub fn samples(names: &[&str]) -> Vec<(String, usize, Vec<u8>)> {
    names.iter().enumerate().map(|(n, name)| (format!("class{}/{name}", n % 2), n % 2, fixture(name))).collect()
}

/// The same picture with an EXIF orientation.
pub fn turned(bytes: &[u8], orientation: u8) -> Vec<u8> {
    let exif =
        [b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[orientation, 0, 0, 0][..], &[0; 4]].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&bytes[..2], &[0xFF, 0xE1], &length, &exif, &bytes[2..]].concat()
}

/// Indexes a data set beside its files.
pub fn index(data_set: impl AsRef<Path>) {
    let options = BuildOptions { grain: Grain::Bits(400), part: Part::WHOLE, dir: None, threads: 1, force: false };
    build(data_set, &options, &|_, _| {}).expect("index");
}

/// A folder of fixtures with its index.
pub fn indexed_folder(root: &Path, names: &[&str]) -> PathBuf {
    let folder = super::common::folder(root, &samples(names));
    index(&folder);
    folder
}

/// A loader with little memory of everything.
pub fn load(data_set: impl AsRef<Path>) -> LoaderBuilder {
    small(Loader::open(data_set))
}

pub fn small(builder: LoaderBuilder) -> LoaderBuilder {
    let augment = Augment::imagenet_train(20).build().expect("augmentation");
    builder
        .augment(augment)
        .batch_size(7)
        .last_batch(LastBatch::Partial)
        .threads(2)
        .arena_bytes(4 << 20)
        .landing_bytes(1 << 20)
        .scratch_bytes(4 << 20)
        .held_timeout(Duration::from_secs(5))
}

pub fn on_device(builder: LoaderBuilder) -> LoaderBuilder {
    builder.device(Device::Cuda(0))
}

/// The digest of two epochs, and what they cost. Ends the test where the loader hangs.
pub fn run(builder: LoaderBuilder) -> Result<(String, Report)> {
    within(Duration::from_secs(120), move || {
        let mut loader = builder.build()?;
        let mut digest = Digest::default();
        for batch in loader.epochs(0..2) {
            digest.update(&batch?)?;
        }
        Ok((digest.hex(), loader.report()))
    })
}

/// The tensors of two epochs as a consumer sees them that copies each on a stream of its own and drops the batch at
/// once; and what the loader fell back to.
pub fn consume(builder: LoaderBuilder) -> Result<(Vec<Vec<f32>>, Vec<Fallback>)> {
    within(Duration::from_secs(60), move || {
        let mut loader = builder.build()?;
        let context = CudaContext::new(0).expect("context");
        // SAFETY: everything here is on one stream. cudarc would wait for its own events too, which are not at issue.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().expect("stream");
        let mut copies: Vec<CudaSlice<f32>> = vec![];
        for batch in loader.epochs(0..2) {
            let batch = batch?;
            let images = batch.on(&stream)?;
            let images = images.view::<f32>().expect("floats");
            let mut copy = stream.alloc_zeros::<f32>(images.len()).expect("memory");
            stream.memcpy_dtod(&images, &mut copy).expect("copy");
            copies.push(copy);
        }
        let fallbacks = fallbacks(&loader.report()).into_iter().cloned().collect();
        drop(loader);
        Ok((copies.iter().map(|copy| stream.clone_dtoh(copy).expect("copy")).collect(), fallbacks))
    })
}

/// What a function returns, which must not take longer.
pub fn within<T: Send + 'static>(timeout: Duration, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(body()).ok());
    match result.recv_timeout(timeout) {
        Ok(value) => {
            thread.join().expect("the thread has sent its result");
            value
        }
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("still running after {timeout:?}"),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("it sent nothing and did not panic"),
        },
    }
}

/// What was not to be had, but for cuFile, which is there in some tests alone.
pub fn fallbacks(report: &Report) -> Vec<&Fallback> {
    report.fallbacks.iter().filter(|fallback| fallback.what != Fallback::CUFILE).collect()
}

/// How many images a route took.
pub fn routed(report: &Report, route: forebay::decode::Route) -> u64 {
    report.routes.iter().find(|(known, _)| *known == route).map_or(0, |(_, count)| *count)
}

/// The tensor of a batch, wherever it lies.
pub fn tensor(batch: &Batch) -> Vec<u8> {
    batch.to_host().expect("a copy").tensor().expect("one size").bytes.to_vec()
}
