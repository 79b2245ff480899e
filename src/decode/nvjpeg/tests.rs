//! The decoder over the stand-in for nvJPEG, on the simulated driver. Each test runs [`batches`] in a process of its own
//! and looks at what it prints and at what the simulation reports.

use std::process::{Command, Output};
use std::ptr::NonNull;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::*;
use crate::device::cuda::{Registered, download, zero};
use crate::jpeg::{Decoder, Header};
use crate::pixels::RowSink;

use crate::device::cuda::support::{Simulator, simulator};

/// How far a sample of nvJPEG's may be from libjpeg-turbo's (see the module's documentation).
const DIFFERENCE_MAX: u8 = 5;
const DIFFERENCE_MEAN: f64 = 1.0;

/// Batches that the process decodes.
const BATCHES: usize = 4;
const THREADS: usize = 2;
/// Bytes between the rows of every second image.
const ROW_GAP: usize = 8;

pub(super) fn with_nvjpeg(seed: u64) -> Simulator {
    simulator().library("libsimnvjpeg.so", &["libnvjpeg.so", "libnvjpeg.so.12"]).seed(seed)
}

/// Runs [`batches`] on the simulator, with engines or without.
fn run(simulator: &Simulator, engines: Option<&str>) -> Output {
    program(simulator, "tests::batches", engines).output().unwrap()
}

/// A test of this module as a program on the simulator, with engines or without.
pub(super) fn program(simulator: &Simulator, name: &str, engines: Option<&str>) -> Command {
    let mut command = simulator.command(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("decode::nvjpeg::{name}"), "--ignored", "--nocapture"]);
    match engines {
        Some(engines) => command.env("SIMNVJPEG_ENGINES", engines),
        None => command.env_remove("SIMNVJPEG_ENGINES"),
    };
    command
}

/// Runs [`opens`] on the simulator, with a library of this version if it has one.
fn run_opens(simulator: &Simulator, version: &str) -> Output {
    program(simulator, "tests::opens", None).env("SIMNVJPEG_VERSION", version).output().unwrap()
}

/// The lines that it printed which begin with a word, without it.
pub(super) fn said(output: &Output, word: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.strip_prefix(word)).map(|line| line.trim().to_owned()).collect()
}

pub(super) fn succeeded(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn every_schedule_gives_planes_within_the_bound_and_no_reports() {
    for seed in 0..20 {
        for engines in [None, Some("1x5"), Some("2x1")] {
            let simulator = with_nvjpeg(seed);
            let output = run(&simulator, engines);
            succeeded(&output);
            assert_eq!(simulator.reports(), Vec::<String>::new(), "seed {seed}, engines {engines:?}");
            let (hardware, hybrid) = (said(&output, "Hardware"), said(&output, "Hybrid"));
            assert_eq!(hardware.len() + hybrid.len(), BATCHES * files().len());
            assert_eq!(hardware.is_empty(), engines.is_none(), "seed {seed}");
            assert!(!hybrid.is_empty() && said(&output, "refused").is_empty());
        }
    }
}

#[test]
fn an_image_that_fails_fails_alone() {
    for call in
        ["nvjpegDecodeJpegHost", "nvjpegJpegStreamParse", "nvjpegDecodeJpegTransferToDevice", "nvjpegDecodeJpegDevice"]
    {
        let simulator = with_nvjpeg(3).fail(&format!("{call}#5:3"));
        let output = run(&simulator, None);
        succeeded(&output);
        assert_eq!(said(&output, "refused"), [format!("{call} says NVJPEG_STATUS_BAD_JPEG")]);
        assert_eq!(said(&output, "Hybrid").len(), BATCHES * files().len() - 1);
        assert_eq!(simulator.reports(), Vec::<String>::new());
    }
}

#[test]
fn a_batch_that_the_hardware_refuses_goes_to_the_hybrid() {
    let simulator = with_nvjpeg(4).fail("nvjpegDecodeBatchedEx#2:6");
    let output = run(&simulator, Some("1x5"));
    succeeded(&output);
    assert!(said(&output, "refused").is_empty());
    assert_eq!(said(&output, "Hardware").len() + said(&output, "Hybrid").len(), BATCHES * files().len());
    assert_eq!(simulator.reports(), Vec::<String>::new());
}

#[test]
fn want_of_memory_is_an_error_that_says_how_much() {
    for call in ["cuMemHostAlloc#1:2", "cuMemHostAlloc#3:2", "cuMemAlloc#2:2"] {
        let simulator = with_nvjpeg(5).fail(call);
        let output = run(&simulator, None);
        succeeded(&output);
        let errors = said(&output, "error");
        assert!(errors.iter().any(|error| error.starts_with("OutOfMemory: nvJPEG got no 4194304 bytes on cuda:0: ")));
        assert_eq!(simulator.reports(), Vec::<String>::new(), "{call}");
    }
}

#[test]
fn a_device_that_is_lost_is_an_error_and_dropping_never_panics() {
    for call in ["cuStreamWaitEvent#4:700", "cuEventRecord#5:700", "cuEventSynchronize#9:719"] {
        let output = run(&with_nvjpeg(6).sticky(call).set("IGNORE", "leak,nvjpeg-lifetime"), Some("1x5"));
        succeeded(&output);
        assert!(said(&output, "error").iter().any(|error| error.starts_with("DeviceLost")), "{call}: {output:?}");
    }
}

#[test]
fn a_library_that_refuses_the_device_is_unavailable() {
    let output = run(&with_nvjpeg(7).fail("nvjpegCreateExV2#1:7"), None);
    succeeded(&output);
    let errors = said(&output, "error");
    let expected = "Unavailable: nvJPEG cannot be used: on cuda:0 nvjpegCreateExV2 says NVJPEG_STATUS_ARCH_MISMATCH";
    assert!(
        errors.len() == 1 && errors[0].starts_with(expected) && errors[0].contains("LD_LIBRARY_PATH"),
        "{errors:?}"
    );
}

#[test]
fn a_library_that_is_missing_is_unavailable_and_names_what_was_tried() {
    let output = run_opens(&simulator(), "12.4.0");
    succeeded(&output);
    if !said(&output, "opened").is_empty() {
        return eprintln!("skipped: this machine has an nvJPEG of its own");
    }
    let expected = "Unavailable: nvJPEG cannot be used: no nvJPEG library can be opened, \
                    tried libnvjpeg.so, libnvjpeg.so.12, libnvjpeg.so.13, libnvjpeg.so.11";
    let errors = said(&output, "error");
    assert!(errors.len() == 1 && errors[0].starts_with(expected), "{errors:?}");
}

#[test]
fn an_older_library_decodes_without_its_newer_flags() {
    let output = run_opens(&with_nvjpeg(8), "11.9.0");
    succeeded(&output);
    assert_eq!(said(&output, "opened"), ["nvJPEG 11.9.0, hybrid"]);
}

/// A wait that is missing: some schedule shows it.
#[test]
fn a_missing_wait_is_caught() {
    let engines = Some("1x5");
    for (planted, engines) in [
        // A lane's wait for the caller's stream, the caller's for a lane, the host's for transfers.
        ("cuStreamWaitEvent#1", None),
        ("cuStreamWaitEvent#4", None),
        ("cuEventSynchronize", None),
        // The host's for what comes before the hardware, the caller's for that.
        ("cuEventSynchronize#1", engines),
        ("cuStreamWaitEvent#1", engines),
    ] {
        let caught = (0..20).any(|seed| {
            let simulator = with_nvjpeg(seed).drop(planted);
            let output = run(&simulator, engines);
            !output.status.success() || !simulator.reports().is_empty()
        });
        assert!(caught, "{planted}, engines {engines:?}");
    }
}

#[test]
#[ignore = "run by the tests here, in a process of its own"]
fn opens() {
    let gpu = Gpu::open(0).unwrap();
    match NvJpeg::new(&gpu, 4, 1) {
        Ok(nvjpeg) => println!("\nopened {nvjpeg}"),
        Err(error) => println!("\nerror {}: {error}", error.kind().name()),
    }
}

/// Decodes the same files again and again, other parts each time, and compares the planes.
#[test]
#[ignore = "run by the tests here, in a process of its own"]
fn batches() {
    println!();
    if let Err(error) = decode_batches() {
        println!("error {}: {error}", error.kind().name());
    }
}

fn decode_batches() -> Result<()> {
    let gpu = Gpu::open(0)?;
    let stream = gpu.stream()?;
    let files = files();
    let mut nvjpeg = NvJpeg::new(&gpu, files.len(), THREADS)?;
    let mut landed = files.concat();
    // SAFETY: the bytes outlive the registration, and copies have ended by then.
    let registered = unsafe { Registered::new(&gpu, NonNull::new(landed.as_mut_ptr()).unwrap(), landed.len()) }?;
    let mut samples = gpu.alloc(&stream, 8 << 20)?;
    let mut outcome = Ok(());
    for batch in 0..BATCHES {
        outcome = outcome.and(decode_batch(&mut nvjpeg, &stream, &landed, &mut samples, batch));
    }
    let _ = stream.synchronize();
    assert!(outcome.is_err() || nvjpeg.held_bytes().1 > 0, "{:?}", nvjpeg.held_bytes());
    drop(nvjpeg);
    drop(registered);
    outcome
}

fn decode_batch(
    nvjpeg: &mut NvJpeg,
    stream: &Arc<CudaStream>,
    landed: &[u8],
    samples: &mut cudarc::driver::CudaSlice<u8>,
    batch: usize,
) -> Result<()> {
    use cudarc::driver::DevicePtr;
    let len = samples.len();
    // SAFETY: nothing else is under way.
    unsafe { zero(stream, samples, 0..len) }?;
    let (start, _no_event) = samples.device_ptr(stream);
    let (mut at, mut file_at, mut images) = (start, 0, Vec::new());
    for (place, file) in files().iter().enumerate() {
        let bytes = &landed[file_at..file_at + file.len()];
        file_at += file.len();
        let header = Header::parse(bytes)?;
        assert_eq!(takes(&header, bytes), Ok(bytes.len()));
        let (width, height) = (header.width, header.height);
        // The whole, and smaller and smaller parts.
        let part = |of: u32| of / (1 + (batch + place) as u32 % 4);
        let region = Rect { x: width / 3 - part(width) / 3, y: 0, width: part(width), height: part(height) };
        let area = area(region, width, height);
        let pitch = area.width as usize + ROW_GAP * (place % 2);
        let plane = (pitch * area.height as usize).next_multiple_of(64) as u64;
        images.push((Image { bytes, width, height, area, planes: [at, at + plane, at + 2 * plane], pitch }, region));
        at += 3 * plane;
    }
    assert!(at - start <= samples.len() as u64);
    let requests: Vec<_> = images.iter().map(|&(image, _)| image).collect();
    let mut verdicts = vec![Err(Refusal::unsupported("nobody")); images.len()];
    // SAFETY: the stream is waited for before anything is touched.
    let decoded = unsafe { nvjpeg.decode(stream, &requests, &mut verdicts) };
    let mut planes = vec![0; samples.len()];
    for ((image, _), _) in images.iter().zip(&verdicts).filter(|(_, verdict)| decoded.is_ok() && verdict.is_ok()) {
        for rows in image.planes.map(|plane| (plane - start) as usize) {
            for row in (0..image.area.height as usize).map(|row| rows + row * image.pitch) {
                let at = row..row + image.area.width as usize;
                // SAFETY: the bytes outlive the wait below.
                unsafe { download(stream, samples, at, planes[row..].as_mut_ptr()) }?;
            }
        }
    }
    stream.synchronize().map_err(|code| error("cuStreamSynchronize", code))?;
    decoded?;
    for ((image, region), verdict) in images.iter().zip(&verdicts) {
        match verdict {
            Ok(engine) => {
                println!("{engine:?} {}x{}", image.width, image.height);
                let (bytes, area, pitch) = (image.bytes, image.area, image.pitch);
                let planes = image.planes.map(|plane| &planes[(plane - start) as usize..]);
                Decoded { bytes, area, planes, pitch }.compare(*region);
            }
            Err(refusal) => println!("refused {refusal}"),
        }
    }
    Ok(())
}

/// Decoded pixels: an area of an image, and where its planes are.
pub(super) struct Decoded<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) area: Rect,
    pub(super) planes: [&'a [u8]; 3],
    pub(super) pitch: usize,
}

impl Decoded<'_> {
    /// A region of them against the host's decoder.
    pub(super) fn compare(&self, region: Rect) {
        let header = Header::parse(self.bytes).unwrap();
        let mut sink = Rows { width: region.width as usize, planes: Default::default() };
        Decoder::new().decode(self.bytes, &header, region, &mut sink).unwrap();
        let (mut sum, mut count) = (0, 0);
        for (plane, expected) in self.planes.iter().zip(&sink.planes) {
            for (row, expected) in expected.chunks(sink.width + crate::pixels::ROW_PADDING_BYTES).enumerate() {
                let (y, x) = (row + (region.y - self.area.y) as usize, (region.x - self.area.x) as usize);
                let got = &plane[y * self.pitch + x..][..sink.width];
                for (&got, &expected) in got.iter().zip(expected) {
                    let difference = got.abs_diff(expected);
                    assert!(difference <= DIFFERENCE_MAX, "{got} for {expected} of {:?} at {row}", self.area);
                    sum += u64::from(difference);
                    count += 1;
                }
            }
        }
        assert!(sum as f64 <= DIFFERENCE_MEAN * count as f64, "{sum} over {count} samples");
        assert!(sum > 0, "the stand-in is less exact than this");
    }
}

/// Rows one behind the other, with their padding.
struct Rows {
    width: usize,
    planes: [Vec<u8>; 3],
}

impl RowSink for Rows {
    fn row(&mut self) -> [&mut [u8]; 3] {
        let len = self.width + crate::pixels::ROW_PADDING_BYTES;
        self.planes.each_mut().map(|plane| {
            let start = plane.len();
            plane.resize(start + len, 0);
            &mut plane[start..]
        })
    }

    fn commit(&mut self) {}
}

/// One file of each sampling, and grey, of sizes that fill no MCU.
fn files() -> Vec<Vec<u8>> {
    use SamplingFactor::*;
    let samplings = [Some(R_4_4_4), Some(R_4_2_0), Some(R_4_2_2), Some(R_4_4_0), None, Some(R_4_2_0)];
    let files = samplings.into_iter().zip(0_u16..).map(|(sampling, i)| file(90 + 33 * i, 70 + 21 * i, sampling, i));
    // The encoder writes 4:1:1 in several scans.
    files.chain([include_bytes!("../../../tests/fixtures/jpeg/411_33x31.jpg").to_vec()]).collect()
}

pub(super) fn file(width: u16, height: u16, sampling: Option<SamplingFactor>, restarts: u16) -> Vec<u8> {
    let channels = if sampling.is_some() { 3 } else { 1 };
    let sample = |x: f32, y: f32, channel: f32| {
        128.0 + 60.0 * (x / 9.0 + channel).sin() + 50.0 * (y / 13.0 - channel).cos() + (x * 7.0 + y * 5.0) % 9.0
    };
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (f32::from(x), f32::from(y))));
    let pixels: Vec<u8> =
        places.flat_map(|(x, y)| (0..channels).map(move |channel| sample(x, y, channel as f32) as u8)).collect();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 88);
    encoder.set_restart_interval(restarts);
    let colour = match sampling {
        Some(sampling) => {
            encoder.set_sampling_factor(sampling);
            ColorType::Rgb
        }
        None => ColorType::Luma,
    };
    encoder.encode(&pixels, width, height, colour).unwrap();
    bytes
}
