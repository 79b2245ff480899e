//! What a run of `bench load` came to, for reading and as JSON.

use forebay::memory::Placement;
use forebay::order::Shard;
use forebay::{ErrorBudget, OnError, Report, State};
use serde_json::{Value, json};

use super::beside::Beside;
use crate::environment::{self, Environment};

/// What a run came to.
pub struct Outcome {
    pub report: Report,
    pub digest: Option<String>,
    pub on_error: OnError,
    pub error_budget: ErrorBudget,
    pub shard: Shard,
    pub global_batch_size: u64,
    pub steps_per_epoch: u64,
    /// Views of a sample: how many in each group, and the shape of an image there.
    pub views: Vec<(usize, Option<[usize; 3]>)>,
    /// Samples of the data set at the beginning of the run, and at its end.
    pub samples: (u64, u64),
    /// What it was resumed from.
    pub resumed: Option<State>,
    /// How far it has come.
    pub state: State,
    /// Of both, where there was another beside it.
    pub cpu_ms_per_image: f64,
    /// What the other did.
    pub beside: Option<Beside>,
    /// Where the memory that encoded samples land in lay at the end.
    pub placement: Placement,
}

impl Outcome {
    /// The result as JSON; `schema_version` changes when a field changes its meaning.
    pub fn json(&self) -> Value {
        let report = &self.report;
        let milliseconds = |us: u64| us as f64 / 1e3;
        let roots = report.roots.iter().map(|root| {
            json!({
                "name": root.name,
                "device": format!("{}:{}", root.device.0, root.device.1),
                "reads": root.reads,
                "failed": root.failed,
                "bytes": root.bytes,
                "mbps": root.mbps,
                "latency_p50_us": root.latency_p50_us,
                "latency_p99_us": root.latency_p99_us,
                "busy_s": root.busy.as_secs_f64(),
                "depth_mean": root.depth_mean,
                "depth_max": root.depth_max,
                "limit_mbps": root.limit_mbps,
                "limited_s": root.limited.as_secs_f64(),
            })
        });
        let bad = report.bad.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count)));
        let bad_samples = report.bad_samples.iter().map(|bad| bad.json());
        let parts = report.parts.iter().map(|part| json!({ "name": part.name, "images": part.images }));
        let fallbacks = report.fallbacks.iter().map(crate::json::fallback);
        let routes = report.routes.iter().map(|(route, count)| (route.name().to_owned(), json!(count)));
        json!({
            "schema_version": 1,
            "images": report.images,
            "batches": report.batches,
            "seconds": report.elapsed.as_secs_f64(),
            "images_per_second": report.images_per_second(),
            "cpu_ms_per_image": self.cpu_ms_per_image,
            "bytes_data": report.bytes_data,
            "bytes_needed": report.bytes_needed,
            "bytes_skipped": report.bytes_skipped,
            "bytes_read": report.bytes_read,
            "reads": report.reads,
            "retries": report.retries,
            "timeouts": report.timeouts,
            "depth": report.depth,
            "depth_max": report.depth_max,
            "first_batch_ms": report.first_batch.map(|first| first.as_secs_f64() * 1e3),
            "batch_wait_p50_ms": milliseconds(report.batch_wait_p50_us),
            "batch_wait_p99_ms": milliseconds(report.batch_wait_p99_us),
            "peak_rss_bytes": environment::peak_rss_bytes(),
            "memory_bound_bytes": report.memory_bound_bytes,
            "arena": crate::json::placement(&self.placement),
            "memory": crate::json::memory(&report.memory),
            "large_images": report.large_images,
            "decode_high_water_bytes": report.decode_high_water_bytes,
            "device": report.device.to_string(),
            "device_bound_bytes": report.device_bound_bytes,
            "bytes_uploaded": report.bytes_uploaded,
            "digest": self.digest,
            "beside": self.beside.as_ref().map(|beside| beside.json(report)),
            "pinned": report.pinned.map(|pinned| json!({ "node": pinned.node, "processors": pinned.processors })),
            "rank": self.shard.rank(),
            "world_size": self.shard.world_size(),
            "global_batch_size": self.global_batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "views": self.views.iter().map(|(count, shape)| json!({ "count": count, "shape": shape })).collect::<Vec<_>>(),
            "on_error": self.on_error.name(),
            "error_budget": self.error_budget.to_string(),
            "bad": serde_json::Map::from_iter(bad),
            "replaced": report.replaced,
            "skipped": report.skipped,
            "bad_samples": bad_samples.collect::<Vec<_>>(),
            "parts": parts.collect::<Vec<_>>(),
            "samples_at_first": self.samples.0,
            "samples_at_last": self.samples.1,
            "resumed_from": self.resumed,
            "state": self.state,
            "engine": report.engine,
            "receipts": crate::json::receipts(&report.receipts),
            "roots": roots.collect::<Vec<_>>(),
            "skew": report.skew(),
            "held_up_by": report.held_up_by().map(|root| &root.name),
            "images_indexed": report.indexed,
            "images_not_indexed": report.images.saturating_sub(report.indexed),
            "index_fallbacks": report.index_fallbacks,
            "decoders": serde_json::Map::from_iter(routes),
            "stages": crate::json::stages(&report.stages),
            "bottleneck": report.bottleneck().name(),
            "verdict": report.verdict(),
            "fallbacks": fallbacks.collect::<Vec<_>>(),
            "notes": report.notes,
            "environment": Environment::new(),
            "command": std::env::args().collect::<Vec<_>>(),
        })
    }
}
