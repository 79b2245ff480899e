//! What the contenders came to: a table for people, JSON for programs.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::contenders::{self, Contender, Pixels, Work};
use super::samples::Samples;
use crate::environment::Environment;

/// What a contender has shown.
#[derive(Default)]
pub struct Score {
    rounds: Vec<Round>,
    /// CPU time of every image of every round.
    times: Vec<Duration>,
    /// How far its pixels are from the reference's at most, where it makes any.
    difference: Option<u8>,
}

/// One pass over the samples.
struct Round {
    cpu: Duration,
    images_per_second: f64,
    megabytes_per_second: f64,
    megapixels_per_second: f64,
}

/// A line of the result.
struct Row {
    contender: Contender,
    images_per_second: f64,
    megabytes_per_second: f64,
    megapixels_per_second: f64,
    cpu_ms_per_image_p50: f64,
    /// The reference's CPU time over this one's.
    speed: f64,
    difference: Option<u8>,
}

/// The result.
pub struct Outcome {
    samples: usize,
    len_bytes: u64,
    pixels: u64,
    threads: usize,
    rounds: u64,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Score {
    /// Takes in how far pixels are from those of the whole image.
    pub fn compare(&mut self, pixels: &Pixels, whole: &Pixels) {
        let (region, stride) = (pixels.region, whole.region.width as usize * 3);
        let mut difference = 0;
        for (y, row) in pixels.samples.chunks_exact(region.width as usize * pixels.channels).enumerate() {
            let start = (region.y as usize + y) * stride + region.x as usize * 3;
            let expected = whole.samples[start..].chunks_exact(3);
            for (pixel, expected) in row.chunks_exact(pixels.channels).zip(expected) {
                let channels = pixel.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
                difference = channels.fold(difference, u8::max);
            }
        }
        self.difference = Some(self.difference.unwrap_or(0).max(difference));
    }

    /// Takes in a round.
    pub fn add(&mut self, wall: Duration, times: Vec<Duration>, len_bytes: u64, pixels: u64) {
        let seconds = wall.as_secs_f64();
        self.rounds.push(Round {
            cpu: times.iter().sum(),
            images_per_second: times.len() as f64 / seconds,
            megabytes_per_second: len_bytes as f64 / 1e6 / seconds,
            megapixels_per_second: pixels as f64 / 1e6 / seconds,
        });
        self.times.extend(times);
    }

    fn row(mut self, contender: Contender, reference: &[Duration]) -> Row {
        let over_rounds = |value: fn(&Round) -> f64| median(self.rounds.iter().map(value).collect());
        let speeds = self.rounds.iter().zip(reference).map(|(round, cpu)| cpu.as_secs_f64() / round.cpu.as_secs_f64());
        let speed = median(speeds.collect());
        let images_per_second = over_rounds(|round| round.images_per_second);
        let megabytes_per_second = over_rounds(|round| round.megabytes_per_second);
        let megapixels_per_second = over_rounds(|round| round.megapixels_per_second);
        self.times.sort_unstable();
        let cpu_ms_per_image_p50 = self.times.get(self.times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        Row {
            contender,
            images_per_second,
            megabytes_per_second,
            megapixels_per_second,
            cpu_ms_per_image_p50,
            speed,
            difference: self.difference,
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Outcome {
    /// Of a run that is about to begin.
    pub fn new(samples: &Samples, threads: usize, rounds: u64) -> Self {
        let pixels = |sample: &super::Sample| u64::from(sample.header.width) * u64::from(sample.header.height);
        let mut notes = samples.notes.clone();
        notes.extend(Some(contenders::MISSING.to_owned()).filter(|missing| !missing.is_empty()));
        Self {
            samples: samples.list.len(),
            len_bytes: samples.len_bytes,
            pixels: samples.list.iter().map(pixels).sum(),
            threads,
            rounds,
            rows: Vec::new(),
            notes,
        }
    }

    /// Notes that a contender does not take part.
    pub fn withdrawn(&mut self, contender: Contender, error: &anyhow::Error) {
        self.notes.push(format!("{}, {}: {error:#}", contender.decoder, contender.work.name()));
    }

    /// Takes in the scores, the reference's first.
    pub fn rank(&mut self, scores: impl Iterator<Item = (Contender, Score)>) {
        let mut reference: Option<Vec<Duration>> = None;
        for (contender, score) in scores {
            let reference = reference.get_or_insert_with(|| score.rounds.iter().map(|round| round.cpu).collect());
            self.rows.push(score.row(contender, reference));
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "photos        {}: {:.1} MB, {:.1} megapixels\nthreads       {}\nrounds        {}, in turn; medians\n\n",
            self.samples,
            self.len_bytes as f64 / 1e6,
            self.pixels as f64 / 1e6,
            self.threads,
            self.rounds,
        );
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<17} {:<17} {:>9} {:>8} {:>8} {:>8} {:>7}   pixels",
            "decoder", "work", "images/s", "MB/s", "MP/s", "CPU ms", "speed"
        );
        for row in &self.rows {
            let Row { contender, images_per_second, megabytes_per_second, cpu_ms_per_image_p50, speed, .. } = row;
            let _ = writeln!(
                text,
                "{:<17} {:<17} {images_per_second:>9.0} {megabytes_per_second:>8.0} {:>8} {cpu_ms_per_image_p50:>8.3} {speed:>6.2}x   {}",
                contender.decoder,
                contender.work.name(),
                if row.difference.is_some() { format!("{:.0}", row.megapixels_per_second) } else { "-".into() },
                match row.difference {
                    None => "-".into(),
                    Some(0) => "the same".into(),
                    Some(levels) => format!("up to {levels} levels off"),
                },
            );
        }
        text.push('\n');
        for note in &self.notes {
            let _ = writeln!(text, "note          {note}");
        }
        text
    }

    /// For programs; `schema_version` changes when a field changes its meaning.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "decoder": row.contender.decoder,
                "work": match row.contender.work {
                    Work::Whole => "whole",
                    Work::Crop => "crop",
                    Work::IndexedCrop => "crop_indexed",
                    Work::Index => "index",
                },
                "images_per_second": row.images_per_second,
                "megabytes_per_second": row.megabytes_per_second,
                "megapixels_per_second": row.megapixels_per_second,
                "cpu_ms_per_image_p50": row.cpu_ms_per_image_p50,
                "speed": row.speed,
                "difference_levels_max": row.difference,
            })
        });
        json!({
            "schema_version": 1,
            "samples": self.samples,
            "len_bytes": self.len_bytes,
            "pixels": self.pixels,
            "threads": self.threads,
            "rounds": self.rounds,
            "results": rows.collect::<Vec<_>>(),
            "notes": self.notes,
            "environment": Environment::new(),
            "command": std::env::args().collect::<Vec<_>>(),
        })
    }
}
