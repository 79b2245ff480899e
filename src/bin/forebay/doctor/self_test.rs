//! `forebay doctor --gpu`: every way to decode on a device, beside the host's decoder, over photos made on the spot.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay::decode::{DecoderKind, Route};
use forebay::device::cuda::{Bandwidth, CudaDevice, bandwidth};
use forebay::device::{Device, DeviceChoice};
use forebay::jpeg::Grain;
use forebay::order::Shuffle;
use forebay::report::Report;
use forebay::source::index::{BuildOptions, Part, build};
use forebay::{Augment, DType, Error, ErrorKind, Loader, LoaderBuilder, Result};
use serde::Serialize;

use super::human_bytes;
use crate::datagen::{self, Options};
use crate::ui;

/// Everything that the self-test found.
#[derive(Serialize)]
pub struct SelfTest {
    device: String,
    name: String,
    /// Whether the driver is a simulated one, and figures of speed mean nothing.
    simulated: bool,
    /// From page-locked host memory to the device.
    upload_bytes_per_second: f64,
    /// Within the device's memory, read and written.
    copy_bytes_per_second: f64,
    photos: u64,
    paths: Vec<Trial>,
}

/// How one way to decode did.
#[derive(Serialize)]
struct Trial {
    path: &'static str,
    /// Whether its pixels are to be the host's to the bit.
    exact: bool,
    verdict: Verdict,
    /// Photos that went this way; the others fell back to another.
    photos: u64,
    /// In levels of 255, of any channel of any pixel.
    max_difference: u8,
    mean_difference: f64,
    images_per_second: f64,
    /// Why it is not all well, and what to do.
    cause: Option<String>,
    remedy: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Differs,
    NotAvailable,
}

/// A way to decode, and how far its pixels may be from the host's.
struct Way {
    name: &'static str,
    decoder: DecoderKind,
    route: Route,
    max_difference: u8,
    mean_difference: f64,
}

/// The kernels and the host promise the same bits. nvJPEG rounds in its own way, within the bound of src/decode/nvjpeg and
/// one level more for the resampling.
const WAYS: [Way; 4] = [
    Way {
        name: "kernels",
        decoder: DecoderKind::Kernels,
        route: Route::Kernels,
        max_difference: 0,
        mean_difference: 0.0,
    },
    Way { name: "nvJPEG", decoder: DecoderKind::NvJpeg, route: Route::NvJpeg, max_difference: 6, mean_difference: 1.0 },
    Way {
        name: "nvJPEG, device files",
        decoder: DecoderKind::NvJpegDevice,
        route: Route::NvJpeg,
        max_difference: 6,
        mean_difference: 1.0,
    },
    Way { name: "host", decoder: DecoderKind::Host, route: Route::Jpeg, max_difference: 0, mean_difference: 0.0 },
];

/// How much is tried, by what runs it.
struct Effort {
    photos: u64,
    long_side: u32,
    batch: u64,
    /// How long each way is timed after it was compared.
    timed: Duration,
    bandwidth_bytes: usize,
}

impl Effort {
    fn of(device: &CudaDevice) -> Self {
        match device.is_simulated() {
            true => Self { photos: 8, long_side: 100, batch: 4, timed: Duration::ZERO, bandwidth_bytes: 1 << 16 },
            false => Self {
                photos: 128,
                long_side: 500,
                batch: 32,
                timed: Duration::from_millis(800),
                bandwidth_bytes: 64 << 20,
            },
        }
    }
}

impl SelfTest {
    /// Tries the device `ordinal` of those that the driver offers.
    pub fn run(ordinal: u32, device: &CudaDevice) -> Result<Self> {
        let effort = Effort::of(device);
        let Bandwidth { upload, copy, .. } = bandwidth(ordinal, effort.bandwidth_bytes)?;
        let folder = Folder::new()?;
        let options = Options { count: effort.photos, long_side: effort.long_side, ..Options::default() };
        datagen::generate(&folder.0, &options, ui::threads(None)?)?;
        let grain = Grain::default();
        let threads = ui::threads(None)?;
        build(&folder.0, &BuildOptions { grain, part: Part::WHOLE, dir: None, threads, force: false }, &|_, _| {})?;
        let reference = Pixels::of(&mut on(&folder.0, &effort, Device::Host, DecoderKind::Host)?.build()?)?;
        let device_of = Device::Cuda(ordinal);
        let tried = WAYS.iter().map(|way| way.try_on(&folder.0, &effort, device_of, &reference));
        Ok(Self {
            device: device_of.to_string(),
            name: device.name.clone(),
            simulated: device.is_simulated(),
            upload_bytes_per_second: upload,
            copy_bytes_per_second: copy,
            photos: effort.photos,
            paths: tried.collect(),
        })
    }

    /// An error if a way that is to be exact is not.
    pub fn judge(&self) -> Result<()> {
        let wrong: Vec<_> =
            self.paths.iter().filter(|trial| trial.exact && trial.verdict == Verdict::Differs).collect();
        let Some(first) = wrong.first() else { return Ok(()) };
        let names: Vec<_> = wrong.iter().map(|trial| trial.path).collect();
        let cause = first.cause.as_deref().unwrap_or("its pixels are not the host's");
        let message = format!("{} on {}: {cause}", names.join(", "), self.device);
        Err(Error::new(ErrorKind::Internal, message).with_remedy(
            "decode otherwise until it is found out (--decoder), and report this with the driver's version",
        ))
    }

    /// Ways that are not there or not right.
    pub fn shortfalls(&self) -> usize {
        self.paths.iter().filter(|trial| !trial.is_well()).count()
    }

    /// As text, in the manner of the other sections.
    pub fn to_text(&self) -> String {
        let mut text = format!("self-test of {}, {}\n", self.device, self.name);
        let rate = |bytes: f64| format!("{}/s", human_bytes(bytes as u64));
        // Writing to a String cannot fail.
        let mut line = |mark: char, name: &str, value: String| {
            let _ = writeln!(text, " {mark} {name:<18} {value}");
        };
        if self.simulated {
            line(
                ' ',
                "simulated",
                "the driver is a simulation: what is exact counts, what is fast means nothing".into(),
            );
        }
        line(' ', "upload", format!("{} from page-locked host memory", rate(self.upload_bytes_per_second)));
        line(' ', "copy", format!("{} read and written within the device", rate(self.copy_bytes_per_second)));
        for trial in &self.paths {
            line(if trial.is_well() { ' ' } else { '!' }, trial.path, trial.value(self.photos));
            if let Some(cause) = &trial.cause {
                line(' ', "", format!("cause:  {cause}"));
            }
            if let Some(remedy) = &trial.remedy {
                line(' ', "", format!("remedy: {remedy}"));
            }
        }
        text.push('\n');
        text
    }
}

impl Trial {
    fn is_well(&self) -> bool {
        self.verdict == Verdict::Ok && self.cause.is_none()
    }

    fn value(&self, photos: u64) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Differs => "differs",
            Verdict::NotAvailable => return "not available".into(),
        };
        let pixels = match self.max_difference {
            0 => "the host's pixels to the bit".to_owned(),
            max => format!("at most {max} of 255 from the host's pixels, {:.3} on average", self.mean_difference),
        };
        let some = if self.photos < photos { format!(", {} of {photos} photos", self.photos) } else { String::new() };
        let speed = match self.images_per_second {
            0.0 => String::new(),
            speed => format!(", {speed:.0} images/s"),
        };
        format!("{verdict}: {pixels}{speed}{some}")
    }
}

impl Way {
    fn is_exact(&self) -> bool {
        self.max_difference == 0
    }

    /// Compares, then times. Whatever goes wrong is the trial's verdict.
    fn try_on(&self, folder: &Path, effort: &Effort, device: Device, reference: &Pixels) -> Trial {
        let tried = on(folder, effort, device, self.decoder).and_then(|builder| {
            let mut loader = builder.build()?;
            let pixels = Pixels::of(&mut loader)?;
            let report = loader.report();
            Ok(self.judged(&pixels, reference, &report, speed(&mut loader, effort.timed)?))
        });
        tried.unwrap_or_else(|error| Trial {
            path: self.name,
            exact: self.is_exact(),
            // What is there and fails is not what was asked about.
            verdict: if error.kind() == ErrorKind::Unavailable { Verdict::NotAvailable } else { Verdict::Differs },
            photos: 0,
            max_difference: 0,
            mean_difference: 0.0,
            images_per_second: 0.0,
            remedy: error.remedy().map(str::to_owned),
            cause: Some(text_of(&error)),
        })
    }

    fn judged(&self, pixels: &Pixels, reference: &Pixels, report: &Report, images_per_second: f64) -> Trial {
        let (max_difference, mean_difference) = pixels.difference(reference);
        let same = max_difference <= self.max_difference && mean_difference <= self.mean_difference;
        let went = |route| report.routes.iter().filter(|(there, _)| *there == route).map(|(_, count)| *count).sum();
        let photos = went(self.route);
        let elsewhere = report.images - photos;
        let why = report.fallbacks.iter().find(|fallback| fallback.count > 0);
        let cause = match (same, elsewhere) {
            (false, _) => Some(format!(
                "pixels are up to {max_difference} of 255 from the host's, {mean_difference:.3} on average; allowed are \
                 {} and {:.3}",
                self.max_difference, self.mean_difference
            )),
            (true, 0) => None,
            (true, count) => Some(match why {
                Some(fallback) => format!("{count} photos went elsewhere: {}", fallback.cause),
                None => format!("{count} photos went elsewhere"),
            }),
        };
        Trial {
            path: self.name,
            exact: self.is_exact(),
            verdict: if same { Verdict::Ok } else { Verdict::Differs },
            photos,
            max_difference,
            mean_difference,
            images_per_second,
            remedy: cause.is_some().then(|| why.map(|fallback| fallback.remedy.clone())).flatten(),
            cause,
        }
    }
}

/// An error's text without its remedy, which stands below it.
fn text_of(error: &Error) -> String {
    let text = error.to_string();
    let suffix = error.remedy().map(|remedy| format!(" ({remedy})")).unwrap_or_default();
    text.strip_suffix(&suffix).unwrap_or(&text).to_owned()
}

/// A loader of the photos as random crops of bytes, so that a difference is one of pixels.
fn on(folder: &Path, effort: &Effort, device: impl Into<DeviceChoice>, decoder: DecoderKind) -> Result<LoaderBuilder> {
    let side = if effort.long_side < 224 { 32 } else { 224 };
    let augment = Augment::imagenet_train(side).without_normalize().dtype(DType::U8).build()?;
    let builder = Loader::open(folder).augment(augment).batch_size(effort.batch).shuffle(Shuffle::Sequential);
    Ok(builder.device(device).decoder(decoder))
}

/// Images a second of whole epochs, the last of which ends after `timed`; 0 where there is no time.
fn speed(loader: &mut Loader, timed: Duration) -> Result<f64> {
    let (started, mut images, mut epoch) = (Instant::now(), 0_usize, 1);
    while started.elapsed() < timed {
        for batch in loader.epoch(epoch) {
            images += batch?.len();
        }
        epoch += 1;
    }
    Ok(if images == 0 { 0.0 } else { images as f64 / started.elapsed().as_secs_f64() })
}

/// All tensors of an epoch, one after another.
struct Pixels(Vec<u8>);

impl Pixels {
    fn of(loader: &mut Loader) -> Result<Self> {
        let mut bytes = Vec::new();
        for batch in loader.epoch(0) {
            let batch = batch?;
            let images = batch.to_host()?;
            for index in 0..batch.len() {
                bytes.extend_from_slice(images.image(index).bytes);
            }
        }
        Ok(Self(bytes))
    }

    /// The largest and the mean difference. Tensors of other lengths differ wholly.
    fn difference(&self, other: &Self) -> (u8, f64) {
        if self.0.len() != other.0.len() || self.0.is_empty() {
            return (u8::MAX, f64::from(u8::MAX));
        }
        let (mut max, mut sum) = (0, 0_u64);
        for (one, other) in self.0.iter().zip(&other.0) {
            let difference = one.abs_diff(*other);
            max = max.max(difference);
            sum += u64::from(difference);
        }
        (max, sum as f64 / self.0.len() as f64)
    }
}

/// A new folder that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("forebay-doctor-{}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(Error::io(format!("making {}", path.display()), error)
                .with_remedy("set TMPDIR to a folder that can be written")),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left over is a few megabytes in the folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_the_largest_and_the_mean() {
        let reference = Pixels(vec![10, 20, 30, 40]);
        assert_eq!(Pixels(vec![10, 20, 30, 40]).difference(&reference), (0, 0.0));
        assert_eq!(Pixels(vec![10, 23, 30, 39]).difference(&reference), (3, 1.0));
        assert_eq!(Pixels(vec![10]).difference(&reference), (255, 255.0));
        assert_eq!(Pixels(vec![]).difference(&Pixels(vec![])), (255, 255.0), "nothing delivered is nothing shown");
    }
}
