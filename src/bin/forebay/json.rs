//! What several results have in common as JSON.

use forebay::engine::cufile::Receipts;
use forebay::memory::{MemoryPlan, Pages, Placement};
use forebay::report::{Fallback, StageReport};
use serde_json::{Map, Value, json};

/// Something that was not to be had.
pub fn fallback(fallback: &Fallback) -> Value {
    json!({
        "what": fallback.what,
        "instead": fallback.instead,
        "cause": fallback.cause,
        "remedy": fallback.remedy,
        "count": fallback.count,
    })
}

/// The host memory of a loader, part by part.
pub fn memory(plan: &MemoryPlan) -> Value {
    json!({
        "limit_bytes": plan.limit_bytes,
        "total_bytes": plan.total_bytes(),
        "slots": plan.slots,
        "slot_bytes": plan.slot_bytes,
        "upload_bytes": plan.upload_bytes,
        "arena_bytes": plan.arena_bytes,
        "threads": plan.threads,
        "thread_bytes": plan.thread_bytes,
        "decode_bytes": plan.decode_bytes,
        "other_bytes": plan.other_bytes,
        "source_bytes": plan.source_bytes,
    })
}

/// What reads straight to a device took, by path.
pub fn receipts(receipts: &Receipts) -> Value {
    let taken = receipts.taken();
    let by_path = taken.map(|(path, of)| (path.name().to_owned(), json!({ "reads": of.reads, "bytes": of.bytes })));
    json!({
        "by_path": Map::from_iter(by_path),
        "bounced_reads": receipts.bounced_reads,
        "rerouted_reads": receipts.rerouted_reads,
    })
}

/// How the threads of each stage spent their time. A capacity without a bound is null.
pub fn stages(stages: &[StageReport]) -> Vec<Value> {
    let finite = |number: f64| if number.is_finite() { json!(number) } else { Value::Null };
    let stages = stages.iter().map(|stage| {
        json!({
            "stage": stage.stage.name(),
            "threads": stage.threads,
            "busy_s": stage.busy.as_secs_f64(),
            "starved_s": stage.starved.as_secs_f64(),
            "blocked_s": stage.blocked.as_secs_f64(),
            "limited_s": stage.limited.as_secs_f64(),
            "shared_s": stage.shared.as_secs_f64(),
            "capacity_images_per_second": finite(stage.capacity_images_per_second),
        })
    });
    stages.collect()
}

/// Where memory lies.
pub fn placement(placement: &Placement) -> Value {
    let pages = match placement.pages {
        Pages::Huge => "huge",
        Pages::Transparent => "transparent",
        _ => "small",
    };
    json!({
        "bytes": placement.len_bytes,
        "resident_bytes": placement.resident_bytes,
        "huge_bytes": placement.huge_bytes,
        "pages": pages,
        "numa_node": placement.node,
    })
}
