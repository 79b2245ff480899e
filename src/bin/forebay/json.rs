//! What several results have in common as JSON.

use forebay::engine::cufile::Receipts;
use forebay::memory::{Pages, Placement};
use forebay::report::Fallback;
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
