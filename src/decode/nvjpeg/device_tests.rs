//! The decoder for files in device memory over the stand-in for nvJPEG, on the simulated driver. Each test runs
//! [`batches`] in a process of its own and looks at what it prints and at what the simulation reports.

use std::process::Output;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, sys};
use jpeg_encoder::SamplingFactor;

use super::device::{DeviceImage, NvJpegDevice};
use super::facts::tests::with_record;
use super::tests::{Decoded, file, program, said, succeeded, with_nvjpeg};
use super::{Refusal, Verdict};
use crate::device::cuda::support::{Simulator, simulator};
use crate::device::cuda::{Gpu, Registered, download, error, upload, zero};
use crate::error::Result;
use crate::jpeg::Header;
use crate::pixels::Rect;

const ENGINES: [Option<&str>; 3] = [None, Some("1x5"), Some("2x1")];
/// Batches that the process decodes, on so many streams in turn: more than a backend has states.
const BATCHES: usize = 6;
const STREAMS: usize = 3;
const SAMPLES_BYTES: usize = 1 << 18;
const FILES_BYTES: usize = 1 << 17;

/// What the process does to one file of each batch after the index has described it.
const DAMAGE: &str = "FOREBAY_TEST_DAMAGE";
const DAMAGED: usize = 4;

fn run(simulator: &Simulator, engines: Option<&str>, damage: &str) -> Output {
    program(simulator, "device_tests::batches", engines).env(DAMAGE, damage).output().unwrap()
}

fn run_opens(simulator: &Simulator, engines: Option<&str>) -> Output {
    program(simulator, "device_tests::opens", engines).output().unwrap()
}

#[test]
fn every_schedule_gives_planes_within_the_bound_and_no_reports() {
    for seed in 0..20 {
        for engines in ENGINES {
            let simulator = with_nvjpeg(seed);
            let output = run(&simulator, engines, "");
            succeeded(&output);
            assert_eq!(simulator.reports(), Vec::<String>::new(), "seed {seed}, engines {engines:?}");
            let count = |word: &str| said(&output, word).len() / BATCHES;
            // Six without restart markers, five with; 4:1:1 is not for the hardware, markers are not for the kernels.
            let expected = if engines.is_some() { (10, 1, 0) } else { (0, 6, 5) };
            assert_eq!((count("Hardware"), count("Kernels"), count("untaken")), expected, "engines {engines:?}");
            assert_eq!(said(&output, "refused"), Vec::<String>::new());
            assert_eq!(said(&output, "drained"), [""]);
        }
    }
}

#[test]
fn a_batch_that_fails_is_halved_and_no_image_is_lost() {
    for engines in ENGINES {
        for calls in ["#1:6", "#1:8,nvjpegDecodeBatched#2:3"] {
            let simulator = with_nvjpeg(4).fail(&format!("nvjpegDecodeBatched{calls}"));
            let output = run(&simulator, engines, "");
            succeeded(&output);
            assert_eq!(simulator.reports(), Vec::<String>::new(), "{calls}, engines {engines:?}");
            assert_eq!(said(&output, "refused"), Vec::<String>::new(), "{calls}, engines {engines:?}");
            assert_eq!(
                said(&output, "Hardware").len() + said(&output, "Kernels").len() + said(&output, "untaken").len(),
                BATCHES * files().len()
            );
        }
    }
}

/// What an index did not see: a header that was damaged since, and a process that facts do not tell.
#[test]
fn an_image_that_fails_fails_alone() {
    for engines in ENGINES {
        for (damage, status) in [("malformed", "BAD_JPEG"), ("extended", "JPEG_NOT_SUPPORTED")] {
            let simulator = with_nvjpeg(5).set("IGNORE", "nvjpeg-input");
            let output = run(&simulator, engines, damage);
            succeeded(&output);
            let expected = format!("nvjpegDecodeBatched says NVJPEG_STATUS_{status}");
            assert_eq!(said(&output, "refused"), vec![expected; BATCHES], "{damage}, engines {engines:?}");
            let decoded = said(&output, "Hardware").len() + said(&output, "Kernels").len();
            let untaken = said(&output, "untaken").len();
            assert_eq!(decoded + untaken, BATCHES * (files().len() - 1), "{damage}, engines {engines:?}");
            assert_eq!(simulator.reports(), Vec::<String>::new(), "{damage}, engines {engines:?}");
        }
    }
}

#[test]
fn an_image_that_the_hardware_refuses_goes_to_the_kernels() {
    // The batch of ten is halved: 10, 5, 2, 1. The fourth call has one image, which the kernels are asked for with the
    // 4:1:1.
    let calls = [1, 2, 3, 4].map(|call| format!("nvjpegDecodeBatched#{call}:3")).join(",");
    let simulator = with_nvjpeg(6).fail(&calls);
    let output = run(&simulator, Some("1x5"), "");
    succeeded(&output);
    assert_eq!(simulator.reports(), Vec::<String>::new());
    assert_eq!(said(&output, "refused"), Vec::<String>::new());
    assert_eq!(said(&output, "Hardware").len(), BATCHES * 10 - 1);
    assert_eq!(said(&output, "Kernels").len(), BATCHES + 1);
}

#[test]
fn want_of_memory_is_an_error_that_says_how_much() {
    for call in ["cuMemAlloc#1:2", "cuMemAlloc#2:2"] {
        let simulator = with_nvjpeg(7).fail(call);
        let output = run(&simulator, None, "");
        succeeded(&output);
        let errors = said(&output, "error");
        assert!(
            errors.iter().any(|error| error.starts_with("OutOfMemory: nvJPEG got no 4194304 bytes on cuda:0: ")),
            "{errors:?}"
        );
        assert_eq!(simulator.reports(), Vec::<String>::new(), "{call}");
    }
}

#[test]
fn a_device_that_is_lost_is_an_error_and_dropping_never_panics() {
    for engines in ENGINES {
        for call in
            ["cuStreamWaitEvent#2:700", "cuEventRecord#4:700", "cuEventSynchronize#5:719", "cuMemcpyHtoDAsync#3:700"]
        {
            let simulator = with_nvjpeg(8).sticky(call).set("IGNORE", "leak,nvjpeg-lifetime");
            let output = run(&simulator, engines, "");
            succeeded(&output);
            let errors = said(&output, "error");
            assert!(errors.iter().any(|error| error.starts_with("DeviceLost")), "{call}: {errors:?}");
        }
    }
}

#[test]
fn a_device_with_one_of_the_backends_has_that() {
    let opened = |simulator: &Simulator, engines| {
        let output = run_opens(simulator, engines);
        succeeded(&output);
        assert_eq!(simulator.reports(), Vec::<String>::new());
        said(&output, "opened")
    };
    assert_eq!(opened(&with_nvjpeg(9), None), ["nvJPEG 12.4.0 from device memory, kernels"]);
    assert_eq!(opened(&with_nvjpeg(9), Some("0x0")), ["nvJPEG 12.4.0 from device memory, kernels"]);
    assert_eq!(opened(&with_nvjpeg(9), Some("1x5")), ["nvJPEG 12.4.0 from device memory, hardware and kernels"]);
    let without_kernels = with_nvjpeg(9).fail("nvjpegCreateExV2#2:2");
    assert_eq!(opened(&without_kernels, Some("1x5")), ["nvJPEG 12.4.0 from device memory, hardware"]);
}

#[test]
fn a_device_without_either_is_unavailable_and_says_why() {
    let asked_in_vain = |simulator: &Simulator| {
        let output = run_opens(simulator, None);
        succeeded(&output);
        said(&output, "error")
    };
    let refused = asked_in_vain(&with_nvjpeg(10).fail("nvjpegCreateExV2#2:7"));
    let expected = "Unavailable: nvJPEG cannot decode from device memory: nvJPEG 12.4.0 decodes nothing from the \
                    memory of cuda:0: \
                    for HARDWARE_DEVICE nvjpegCreateExV2 says NVJPEG_STATUS_ARCH_MISMATCH, \
                    for GPU_HYBRID_DEVICE nvjpegCreateExV2 says NVJPEG_STATUS_ARCH_MISMATCH";
    assert!(refused.len() == 1 && refused[0].starts_with(expected), "{refused:?}");
    assert!(refused[0].contains("--decoder auto"), "{refused:?}");
    let useless = asked_in_vain(&with_nvjpeg(10).fail("nvjpegDecodeBatchedSupported:8"));
    assert!(useless.len() == 1 && useless[0].contains("GPU_HYBRID_DEVICE takes no kind of image"), "{useless:?}");
    let missing = asked_in_vain(&simulator());
    if missing.is_empty() {
        return eprintln!("skipped: this machine has an nvJPEG of its own");
    }
    assert!(missing[0].contains("no nvJPEG library can be opened, tried libnvjpeg.so"), "{missing:?}");
}

/// A wait that is missing: some schedule shows it.
#[test]
fn a_missing_wait_is_caught() {
    let engines = Some("1x5");
    for (planted, engines) in [
        // The host's for what comes before, the caller's for the decoder.
        ("cuEventSynchronize#1", None),
        ("cuStreamWaitEvent#1", None),
        // The same with hardware, and the host's before the hardware's state is used again, in the third batch.
        ("cuEventSynchronize#1", engines),
        ("cuEventSynchronize#8", engines),
        ("cuStreamWaitEvent#1", engines),
        ("cuStreamWaitEvent#2", engines),
    ] {
        let caught = (0..20).any(|seed| {
            let simulator = with_nvjpeg(seed).drop(planted);
            let output = run(&simulator, engines, "");
            !output.status.success() || !simulator.reports().is_empty()
        });
        assert!(caught, "{planted}, engines {engines:?}");
    }
}

#[test]
#[ignore = "run by the tests here, in a process of its own"]
fn opens() {
    let gpu = Gpu::open(0).unwrap();
    match NvJpegDevice::new(&gpu, 4) {
        Ok(nvjpeg) => println!("\nopened {nvjpeg}"),
        Err(error) => println!("\nerror {}: {error}", error.kind().name()),
    }
}

/// Decodes the same files again and again, in another order each time.
#[test]
#[ignore = "run by the tests here, in a process of its own"]
fn batches() {
    println!();
    if let Err(error) = decode_batches() {
        println!("error {}: {error}", error.kind().name());
    }
}

/// What one stream works with, batch after batch.
struct Slot {
    stream: Arc<CudaStream>,
    files: CudaSlice<u8>,
    samples: CudaSlice<u8>,
}

/// A batch that was handed over: its files in their order, the images, and what became of them.
struct Given {
    order: Vec<usize>,
    images: Vec<DeviceImage>,
    verdicts: Vec<Verdict>,
}

fn decode_batches() -> Result<()> {
    let gpu = Gpu::open(0)?;
    let files = files();
    let mut nvjpeg = NvJpegDevice::new(&gpu, files.len())?;
    // One behind the other, as batches need them: each begins a file later.
    let mut landing: Vec<u8> = (0..BATCHES).flat_map(|batch| landed(&files, batch)).collect();
    let batch_bytes = landing.len() / BATCHES;
    assert!(batch_bytes <= FILES_BYTES);
    // SAFETY: the bytes outlive the registration, and copies have ended by then.
    let registered = unsafe { Registered::new(&gpu, NonNull::new(landing.as_mut_ptr()).unwrap(), landing.len()) }?;
    let mut slots = Vec::new();
    for _ in 0..STREAMS {
        let stream = gpu.stream()?;
        let (files, samples) = (gpu.alloc(&stream, FILES_BYTES)?, gpu.alloc(&stream, SAMPLES_BYTES)?);
        slots.push(Slot { stream, files, samples });
    }
    let results = gpu.alloc(&slots[0].stream, BATCHES * SAMPLES_BYTES)?;
    slots[0].stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))?;
    let mut given = Vec::new();
    let mut outcome = Ok(());
    for (batch, bytes) in landing.chunks(batch_bytes).enumerate() {
        let slot = &mut slots[batch % STREAMS];
        match hand_over(&mut nvjpeg, slot, bytes, &results, &files, batch) {
            Ok(batch) => given.push(batch),
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    for slot in &slots {
        let _ = slot.stream.synchronize();
    }
    let checked = if outcome.is_ok() { check(&slots[0].stream, &results, &files, &given) } else { Ok(()) };
    assert!(outcome.is_err() || nvjpeg.held_bytes().0 > 0 || std::env::var("SIMNVJPEG_ENGINES").is_ok());
    drop(nvjpeg);
    drop(registered);
    println!("drained");
    outcome.and(checked)
}

/// The files of a batch in its order.
fn landed(files: &[Vec<u8>], batch: usize) -> Vec<u8> {
    let damage = std::env::var(DAMAGE).unwrap_or_default();
    let each = order(files, batch).into_iter().map(|number| {
        let mut bytes = files[number].clone();
        let frame = bytes.windows(2).position(|window| window == [0xFF, 0xC0]).unwrap();
        match damage.as_str() {
            // A segment that ends before it begins.
            "malformed" if number == DAMAGED => bytes[frame + 2..frame + 4].fill(0),
            "extended" if number == DAMAGED => bytes[frame + 1] = 0xC1,
            _ => {}
        }
        bytes
    });
    each.collect::<Vec<_>>().concat()
}

fn order(files: &[Vec<u8>], batch: usize) -> Vec<usize> {
    (0..files.len()).map(|place| (place + batch) % files.len()).collect()
}

/// Uploads a batch's files on a stream, has them decoded and copies the planes to the batch's results, without waiting
/// for anything.
fn hand_over(
    nvjpeg: &mut NvJpegDevice,
    slot: &mut Slot,
    landed: &[u8],
    results: &CudaSlice<u8>,
    files: &[Vec<u8>],
    batch: usize,
) -> Result<Given> {
    // SAFETY: the stream alone works with both, and the bytes are page-locked until the process has waited for all.
    unsafe {
        zero(&slot.stream, &mut slot.samples, 0..SAMPLES_BYTES)?;
        upload(&slot.stream, &mut slot.files, 0, landed)?;
    }
    let (mut address, _no_event) = slot.files.device_ptr(&slot.stream);
    let (start, _no_event) = slot.samples.device_ptr(&slot.stream);
    let mut at = start;
    let (order, kinds) = (order(files, batch), nvjpeg.kinds());
    let mut given = Given { order: Vec::new(), images: Vec::new(), verdicts: Vec::new() };
    for (place, number) in order.into_iter().enumerate() {
        let bytes = &files[number];
        let header = Header::parse(bytes)?;
        let (width, height) = (header.width, header.height);
        let pitch = width as usize + 8 * (place % 2);
        let plane = pitch as u64 * u64::from(height);
        match with_record(bytes, |record| kinds.takes(record, bytes.len() as u64)) {
            Ok(eligible) => {
                assert_eq!(eligible.len_bytes, bytes.len() as u64);
                let planes = [at, at + plane, at + 2 * plane];
                let len_bytes = bytes.len();
                given.order.push(number);
                given.images.push(DeviceImage {
                    address,
                    len_bytes,
                    kind: eligible.kind,
                    width,
                    height,
                    planes,
                    pitch,
                });
            }
            Err(_) => println!("untaken {width}x{height}"),
        }
        address += bytes.len() as u64;
        at += 3 * plane;
    }
    assert!(at <= start + SAMPLES_BYTES as u64);
    given.verdicts = vec![Err(Refusal::unsupported("nobody")); given.images.len()];
    // SAFETY: the streams are waited for before anything is touched.
    unsafe { nvjpeg.decode(&slot.stream, &given.images, &mut given.verdicts) }?;
    let result = results.device_ptr(&slot.stream).0 + (batch * SAMPLES_BYTES) as u64;
    // SAFETY: the part of the results is this batch's alone.
    let copied = unsafe { sys::cuMemcpyDtoDAsync_v2(result, start, SAMPLES_BYTES, slot.stream.cu_stream()) };
    copied.result().map_err(|code| error("cuMemcpyDtoDAsync", code))?;
    given.images.iter_mut().flat_map(|image| &mut image.planes).for_each(|plane| *plane += result - start);
    Ok(given)
}

fn check(stream: &CudaStream, results: &CudaSlice<u8>, files: &[Vec<u8>], given: &[Given]) -> Result<()> {
    let start = results.device_ptr(stream).0;
    for Given { order, images, verdicts } in given {
        for ((&number, image), verdict) in order.iter().zip(images).zip(verdicts) {
            let engine = match verdict {
                Ok(engine) => engine,
                Err(refusal) => {
                    println!("refused {refusal}");
                    continue;
                }
            };
            println!("{engine:?} {}x{}", image.width, image.height);
            let mut planes = vec![0; 3 * image.pitch * image.height as usize];
            let from = (image.planes[0] - start) as usize;
            // SAFETY: the planes outlive the wait below.
            unsafe { download(stream, results, from..from + planes.len(), planes.as_mut_ptr()) }?;
            stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))?;
            let whole = Rect::whole(image.width, image.height);
            let plane = |number| &planes[number * image.pitch * image.height as usize..];
            let (bytes, planes) = (&files[number], [plane(0), plane(1), plane(2)]);
            Decoded { bytes, area: whole, planes, pitch: image.pitch }.compare(whole);
        }
    }
    Ok(())
}

/// A file of each sampling, and grey, with restart markers and without, but for 4:1:1, whose only file has none.
fn files() -> Vec<Vec<u8>> {
    use SamplingFactor::*;
    let samplings = [Some(R_4_4_4), Some(R_4_2_0), Some(R_4_2_2), Some(R_4_4_0), None];
    let kinds = samplings.into_iter().flat_map(|sampling| [0, 3].map(|interval| (sampling, interval)));
    let files = kinds.zip(0_u16..).map(|((sampling, interval), i)| file(41 + 7 * i, 30 + 5 * i, sampling, interval));
    files.chain([include_bytes!("../../../tests/fixtures/jpeg/411_33x31.jpg").to_vec()]).collect()
}
