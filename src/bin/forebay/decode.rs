//! `forebay decode`: one image through the decode path: facts, verdict, picture.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use forebay::decode::{Decoder, ImageInfo, Route};
use forebay::jpeg::{ColourModel, Header, Process};
use forebay::raw::Shape;
use forebay::{Error, Limits, Rect, Result, Scale, View};

use crate::picture::{self, Interleaved};
use crate::ui;

/// Decodes one image as the loader would and says what it is, which decoder took it and how long that took.
#[derive(Args)]
pub struct Decode {
    /// JPEG, PNG, WebP, .npy, or pixels without a header with --raw-shape
    pub file: PathBuf,
    /// Write the pixels; the extension .ppm or .png decides the format
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Decode only this rectangle of the stored image, in pixels; of the scaled image with --scale
    #[arg(long, value_name = "X,Y,W,H", value_parser = parse_region)]
    pub region: Option<Rect>,
    /// Take the file as pixels without a header, of these dimensions
    #[arg(long, value_name = "HEIGHTxWIDTHx3")]
    pub raw_shape: Option<Shape>,
    /// Scale a JPEG down while decoding: 1/1, 1/2, 1/4 or 1/8
    #[arg(long, value_name = "1/N", default_value = "1/1", value_parser = parse_scale)]
    pub scale: Scale,
}

/// For how long the decoding is repeated to tell its usual time.
const REPEAT: Duration = Duration::from_millis(150);

impl Decode {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        if let Some(output) = &self.output {
            picture::check_extension(output)?;
        }
        let bytes = self.read()?;
        let named = |error: Error| error.with_sample(self.file.display().to_string());
        let mut decoder = Decoder::new(Limits::default());
        let info = match self.raw_shape {
            Some(shape) => decoder.inspect_headerless(&bytes, Some(shape)),
            None => decoder.inspect(&bytes),
        };
        let info = info.map_err(named)?;
        ui::print(&facts(&info, decoder.jpeg_header(), bytes.len()))?;

        let scale = self.scale;
        let (width, height) = (scale.len(info.width), scale.len(info.height));
        let region = self.region.unwrap_or(Rect::whole(width, height));
        if !region.fits(width, height) {
            let allowed = format!("it must lie inside the image of {width}x{height}");
            let Rect { x, y, width, height } = region;
            return Err(Error::invalid_parameter("--region", format_args!("{x},{y},{width},{height}"), &allowed).into());
        }
        let mut rgb = Interleaved::new(region);
        let times = match time(&mut decoder, &bytes, &info, View { scale, region }, &mut rgb) {
            Ok(times) => times,
            Err(error) => {
                ui::print(&format!("verdict      refused by the {}\n", info.route.name()))?;
                return Err(named(error).into());
            }
        };
        ui::print(&verdict(&info, region, &times))?;
        if let Some(output) = &self.output {
            picture::write_rgb8(output, &rgb.pixels, region.width, region.height)?;
            ui::print(&format!("written      {}\n", output.display()))?;
        }
        Ok(())
    }

    fn read(&self) -> Result<Vec<u8>> {
        let cannot = |error| {
            Error::io(self.file.display(), error)
                .with_remedy("name an image file that exists and that this user can read")
        };
        let metadata = std::fs::metadata(&self.file).map_err(cannot)?;
        // Checked before memory is taken; directories and devices are refused by reading them.
        Limits::default().check_bytes(metadata.len())?;
        std::fs::read(&self.file).map_err(cannot)
    }
}

/// Decodes once, then again for a while, and returns the times sorted but for the first.
fn time(
    decoder: &mut Decoder,
    bytes: &[u8],
    info: &ImageInfo,
    view: View,
    rgb: &mut Interleaved,
) -> Result<Vec<Duration>> {
    let mut times = vec![];
    let started = Instant::now();
    while times.is_empty() || (started.elapsed() < REPEAT && times.len() < 1000) {
        rgb.pixels.clear();
        let began = Instant::now();
        decoder.decode(bytes, info, view, rgb)?;
        times.push(began.elapsed());
    }
    times[1..].sort();
    Ok(times)
}

fn facts(info: &ImageInfo, header: Option<&Header>, len_bytes: usize) -> String {
    let mut text = String::new();
    let pixels = f64::from(info.width) * f64::from(info.height);
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("dimensions", format!("{}x{}", info.width, info.height));
    line("bytes", format!("{len_bytes} ({:.2} bits per pixel)", len_bytes as f64 * 8.0 / pixels));
    let is_jpeg = matches!(info.route, Route::Jpeg | Route::OtherJpeg);
    if let Some(header) = header.filter(|_| is_jpeg) {
        line("process", process(header));
        line("colour", format!("{}, {}", colour(header), sampling(header)));
        line("tables", tables(header));
        line(
            "restart",
            match header.tables.restart_interval {
                0 => "none".into(),
                interval => format!("every {interval} MCUs"),
            },
        );
        line(
            "orientation",
            match header.orientation {
                1 => "1 (as stored)".into(),
                other => format!("{other} (Exif; not applied)"),
            },
        );
    }
    text
}

fn verdict(info: &ImageInfo, region: Rect, times: &[Duration]) -> String {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let first = milliseconds(times[0]);
    let usual = milliseconds(*times.get(1 + (times.len() - 1) / 2).unwrap_or(&times[0]));
    let megapixels = f64::from(region.width) * f64::from(region.height) / 1e6;
    format!(
        "verdict      decoded by the {}\ntime         {usual:.2} ms ({:.0} megapixels/s), {first:.2} ms the first time\n",
        info.route.name(),
        megapixels / usual * 1e3,
    )
}

fn process(header: &Header) -> String {
    let name = match header.process {
        Process::Baseline => "baseline",
        Process::Extended => "extended sequential",
        Process::Progressive => "progressive",
        Process::Lossless => "lossless",
        Process::Arithmetic => "arithmetic coding",
        Process::Hierarchical => "hierarchical",
        _ => "other",
    };
    let several = header.scan.components().len() < header.components().len();
    let scans = if several { ", components in several scans" } else { "" };
    format!("{name}, {} bits a sample{scans}", header.precision)
}

fn colour(header: &Header) -> &'static str {
    match header.colour {
        ColourModel::Grey => "grey",
        ColourModel::YCbCr => "YCbCr",
        ColourModel::Rgb => "RGB",
        ColourModel::Cmyk => "CMYK",
        ColourModel::Ycck => "YCCK",
        _ => "unknown",
    }
}

/// The usual name of the sampling, and the factors.
fn sampling(header: &Header) -> String {
    let factors: Vec<(u8, u8)> = header.components().iter().map(|component| (component.h, component.v)).collect();
    let name = match factors[..] {
        [_] => "one component",
        [luma, (1, 1), (1, 1)] => match luma {
            (1, 1) => "4:4:4",
            (2, 1) => "4:2:2",
            (2, 2) => "4:2:0",
            (1, 2) => "4:4:0",
            (4, 1) => "4:1:1",
            (4, 2) => "4:1:0",
            _ => "unusual sampling",
        },
        _ => "unusual sampling",
    };
    let factors: Vec<String> = factors.iter().map(|(h, v)| format!("{h}x{v}")).collect();
    format!("{name} ({})", factors.join(" "))
}

fn tables(header: &Header) -> String {
    let tables = &header.tables;
    let quantisation = tables.quant.iter().flatten().count();
    let (dc, ac) = (tables.dc.iter().flatten().count(), tables.ac.iter().flatten().count());
    if dc + ac == 0 {
        return format!("{quantisation} quantisation; no Huffman tables before the first scan");
    }
    format!("{quantisation} quantisation, {dc} DC and {ac} AC Huffman")
}

fn parse_region(text: &str) -> std::result::Result<Rect, String> {
    let numbers: Vec<u32> = text.split(',').map_while(|number| number.trim().parse().ok()).collect();
    match numbers[..] {
        [x, y, width, height] if text.split(',').count() == 4 => Ok(Rect { x, y, width, height }),
        _ => Err("expected X,Y,W,H: four whole numbers, such as 0,0,224,224".into()),
    }
}

fn parse_scale(text: &str) -> std::result::Result<Scale, String> {
    let named = |scale: &Scale| text == format!("1/{}", scale.denominator());
    Scale::ALL.into_iter().find(named).ok_or_else(|| "expected 1/1, 1/2, 1/4 or 1/8".into())
}
