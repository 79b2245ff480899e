//! `bench load --beside`: a second loader at work at the same time, and what each got of what they share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use forebay::report::{Report, Stage};
use forebay::{Error, ErrorKind, Loader, Pool};
use serde_json::{Value, json};

/// What the second loader did while the first was running.
pub struct Beside {
    dataset: String,
    pub report: Report,
    /// What both share, if they do.
    pool: Option<Pool>,
}

/// A loader that loads on a thread of its own, until it is told to stop.
pub struct Running {
    dataset: String,
    pool: Option<Pool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<forebay::Result<Report>>>,
}

impl Running {
    /// Starts to load, epoch after epoch.
    pub fn start(mut loader: Loader, dataset: String, pool: Option<Pool>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for batch in loader.epochs(0..u64::MAX) {
                batch?;
                if is_over.load(Relaxed) {
                    break;
                }
            }
            Ok(loader.report())
        });
        Self { dataset, pool, stop, thread: Some(thread) }
    }

    /// Stops it: what it did.
    pub fn finish(mut self) -> forebay::Result<Beside> {
        let report = self.join()?;
        Ok(Beside { dataset: std::mem::take(&mut self.dataset), report, pool: self.pool.take() })
    }

    fn join(&mut self) -> forebay::Result<Report> {
        self.stop.store(true, Relaxed);
        let report = self.thread.take().and_then(|thread| thread.join().ok());
        report.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "the load beside it panicked")))
    }
}

impl Drop for Running {
    /// Where the first load has failed, whose error counts.
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.join();
        }
    }
}

impl Beside {
    /// The part that the first loader had of the time of both loaders' decode threads at work.
    fn share(&self, first: &Report) -> f64 {
        let (first, second) = (decode_time(first), decode_time(&self.report));
        first.as_secs_f64() / (first + second).as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Both rates, what each had, and what held the second up.
    pub fn to_text(&self, first: &Report) -> String {
        let Self { dataset, report, pool } = self;
        let (rate, beside) = (first.images_per_second(), report.images_per_second());
        let share = 100.0 * self.share(first);
        let pool = match pool {
            Some(pool) => format!("{} decode threads and {} reads shared", pool.threads(), pool.depth()),
            None => "nothing shared".to_owned(),
        };
        format!(
            "beside        {dataset}: {beside:.0} images/s; {}\n\
             together      {:.0} images/s; decode time {share:.0} % and {:.0} %; {pool}\n",
            report.verdict(),
            rate + beside,
            100.0 - share,
        )
    }

    /// As part of the result of the first.
    pub fn json(&self, first: &Report) -> Value {
        let Self { dataset, report, pool } = self;
        let share = self.share(first);
        json!({
            "dataset": dataset,
            "images": report.images,
            "batches": report.batches,
            "seconds": report.elapsed.as_secs_f64(),
            "images_per_second": report.images_per_second(),
            "images_per_second_of_both": first.images_per_second() + report.images_per_second(),
            "decode_share_of_first": share,
            "decode_share": 1.0 - share,
            "pool": pool.as_ref().map(|pool| json!({ "threads": pool.threads(), "depth": pool.depth() })),
            "stages": crate::json::stages(&report.stages),
            "bottleneck": report.bottleneck().name(),
            "verdict": report.verdict(),
            "fallbacks": report.fallbacks.iter().map(crate::json::fallback).collect::<Vec<_>>(),
        })
    }
}

/// Summed over the threads.
fn decode_time(report: &Report) -> Duration {
    report.stages.iter().filter(|stage| stage.stage == Stage::Decode).map(|stage| stage.busy).sum()
}
