//! What measurements came to, for people and for programs.

use std::fmt::Write;
use std::path::PathBuf;

use forebay::Error;
use forebay::report::Fallback;
use forebay::storage::RateLimits;
use serde_json::{Value, json};

use super::cache::Cached;
use super::measure::Measured;
use super::{Destination, Pattern};
use crate::environment::Environment;

/// The result.
pub struct Outcome {
    paths: Vec<PathBuf>,
    limits: RateLimits,
    /// What was measured, in that order.
    pub rows: Vec<Row>,
    /// Where bytes could not be made to go, and why.
    pub not_run: Vec<(Destination, Error)>,
    /// Whether the GPU is the simulated driver's, whose speed means nothing.
    pub is_simulated: bool,
}

/// One measurement with its circumstances.
pub struct Row {
    pub to: Destination,
    pub pattern: Pattern,
    /// Bytes of a read; none where samples have their own sizes.
    pub block: Option<u64>,
    pub depth: usize,
    pub cached: Cached,
    pub measured: Measured,
}

impl Outcome {
    /// Of a run that is about to begin.
    pub fn new(paths: &[PathBuf], limits: &RateLimits) -> Self {
        Self {
            paths: paths.to_vec(),
            limits: limits.clone(),
            rows: Vec::new(),
            not_run: Vec::new(),
            is_simulated: false,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |name: &str, value: String| _ = writeln!(text, "{name:<13} {value}");
        line("read", self.paths_text());
        if let Some(Row { pattern, measured, cached, .. }) = self.rows.first() {
            let cache = if measured.is_direct { "around the page cache" } else { "through the page cache" };
            line("engine", format!("{}, {cache}, pattern {}", measured.engine, pattern.name()));
            line("page cache", cached.to_text());
        }
        if !self.limits.is_empty() {
            let held: f64 = self.rows.iter().map(|row| row.measured.limited.as_secs_f64()).sum();
            line("limit", format!("{} MB/s, which held reads back for {held:.2} s", self.limits));
        }
        for fallback in self.fallbacks() {
            line("fallback", fallback.to_string());
        }
        let _ = writeln!(
            text,
            "\n{:<13} {:>9} {:>6} {:>10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9}",
            "to", "block", "depth", "MB/s", "IOPS", "p50 us", "p90 us", "p99 us", "p99.9 us", "CPU s/GB"
        );
        for row in &self.rows {
            let Measured { latency, .. } = &row.measured;
            let [p50, p90, p99, p999] = QUANTILES.map(|(_, quantile)| latency.quantile_us(quantile));
            let _ = writeln!(
                text,
                "{:<13} {:>9} {:>6} {:>10.1} {:>9.0} {p50:>8} {p90:>8} {p99:>8} {p999:>8} {:>9.4}",
                row.to.name(),
                row.block.map_or("samples".into(), size),
                row.depth,
                row.measured.bytes_per_second() / 1e6,
                row.measured.iops(),
                row.measured.cpu_seconds_per_gb(),
            );
        }
        for (to, error) in &self.not_run {
            let _ = writeln!(text, "{:<13} not run: {error}", to.name());
        }
        for row in self.rows.iter().filter(|row| !row.measured.receipts.is_empty()) {
            let _ = writeln!(text, "\nto the device {}", row.measured.receipts);
        }
        if self.is_simulated {
            let _ = writeln!(
                text,
                "\nnote          the GPU is a simulated one: its bytes are right and its speed means nothing"
            );
        }
        let checked: u64 = self.rows.iter().map(|row| row.measured.verified_blocks).sum();
        if checked > 0 {
            let _ = writeln!(text, "\nchecked       {checked} blocks of 4 KiB, all where they belong");
        }
        text
    }

    /// For programs; `schema_version` changes when a field changes its meaning. The fields of a single measurement stand at
    /// the outermost level too.
    pub fn json(&self) -> Value {
        let results: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let not_run = self
            .not_run
            .iter()
            .map(|(to, error)| json!({ "to": to.name(), "cause": error.to_string(), "remedy": error.remedy() }));
        let mut result = json!({
            "schema_version": 1,
            "path": self.paths_text(),
            "limit_mbps": (!self.limits.is_empty()).then(|| self.limits.to_string()),
            "results": results,
            "not_run": not_run.collect::<Vec<_>>(),
            "gpu_is_simulated": self.is_simulated,
            "fallbacks": self.fallbacks().map(crate::json::fallback).collect::<Vec<_>>(),
            "environment": Environment::new(),
            "command": std::env::args().collect::<Vec<_>>(),
        });
        if let ([Value::Object(single)], Some(result)) = (&results[..], result.as_object_mut()) {
            for (key, value) in single {
                result.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        result
    }

    fn paths_text(&self) -> String {
        self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    /// Every kind of fallback, as it was first told.
    fn fallbacks(&self) -> impl Iterator<Item = &Fallback> {
        let mut told = Vec::new();
        self.rows.iter().flat_map(|row| &row.measured.fallbacks).filter(move |fallback| {
            let is_new = !told.contains(&(fallback.what, fallback.cause.clone()));
            told.push((fallback.what, fallback.cause.clone()));
            is_new
        })
    }
}

/// The percentiles that are told, by their names in results.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

impl Row {
    fn json(&self) -> Value {
        let Self { to, pattern, block, depth, cached, measured } = self;
        let latency =
            QUANTILES.map(|(name, quantile)| (name.to_owned(), json!(measured.latency.quantile_us(quantile))));
        json!({
            "to": to.name(),
            "engine": measured.engine,
            "direct": measured.is_direct,
            "pattern": pattern.name(),
            "block_bytes": block,
            "depth": depth,
            "depth_reached": measured.depth,
            "seconds": measured.elapsed.as_secs_f64(),
            "reads": measured.reads,
            "bytes": measured.bytes,
            "bytes_per_second": measured.bytes_per_second(),
            "iops": measured.iops(),
            "latency_us": serde_json::Map::from_iter(latency),
            "limited_seconds": measured.limited.as_secs_f64(),
            "cpu_seconds": measured.cpu.as_secs_f64(),
            "cpu_seconds_per_gb": measured.cpu_seconds_per_gb(),
            "cold": cached.is_cold,
            "cached_before": cached.before,
            "cached_after": cached.after,
            "verified_blocks": measured.verified_blocks,
            "receipts": crate::json::receipts(&measured.receipts),
            "fallbacks": measured.fallbacks.iter().map(crate::json::fallback).collect::<Vec<_>>(),
        })
    }
}

impl Cached {
    fn to_text(self) -> String {
        let share = |share: Option<f64>| match share {
            Some(share) => format!("{:.1} %", share * 100.0),
            None => "an unknown part".into(),
        };
        let dropped = if self.is_cold { ", after it was told to drop them" } else { "" };
        format!("held {} of the data before{dropped}, {} after", share(self.before), share(self.after))
    }
}

/// A size as it is given: 128KiB.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}
