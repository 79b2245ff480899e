//! `bench decode` as its user meets it: results, exit codes, messages.

use crate::cli_support::{fails, forebay, runs};
use crate::common;
use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/jpeg");

fn result(arguments: &[&str]) -> (String, Value) {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("result.json");
    let mut command = forebay();
    command.args(["bench", "decode", "--rounds", "2", "--size", "32", "--json"]).arg(&file).args(arguments);
    let text = runs(&mut command);
    (text, serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
}

fn row<'a>(json: &'a Value, decoder: &str, work: &str) -> Option<&'a Value> {
    let rows = json["results"].as_array().unwrap();
    rows.iter().find(|row| row["decoder"] == decoder && row["work"] == work)
}

#[test]
fn decoders_are_compared_on_files() {
    let files =
        ["420_131x97", "444_131x97", "restart_blocks_420", "grey_33x31"].map(|name| format!("{FIXTURES}/{name}.jpg"));
    let (text, json) = result(&files.each_ref().map(String::as_str));
    for key in ["schema_version", "samples", "len_bytes", "pixels", "threads", "rounds", "environment", "command"] {
        assert!(!json[key].is_null(), "{key} is missing in {json}");
    }
    assert_eq!((json["samples"].as_u64(), json["rounds"].as_u64()), (Some(4), Some(2)));
    let whole = row(&json, "forebay", "whole").expect("the reference");
    assert_eq!(whole["speed"].as_f64(), Some(1.0));
    for (decoder, work) in [("forebay", "whole"), ("forebay", "crop"), ("libjpeg-turbo-rs", "whole")] {
        let row = row(&json, decoder, work).unwrap_or_else(|| panic!("no {decoder} {work} in {json}"));
        assert_eq!(row["difference_levels_max"].as_u64(), Some(0), "{row}");
        for key in
            ["images_per_second", "megabytes_per_second", "megapixels_per_second", "cpu_ms_per_image_p50", "speed"]
        {
            assert!(row[key].as_f64().is_some_and(|number| number > 0.0), "{key} of {row}");
        }
        assert!(text.contains(decoder), "{text}");
    }
    // What this build leaves out is said.
    assert_eq!(text.contains("--features bench-peers"), !cfg!(feature = "bench-peers"), "{text}");
    assert_eq!(row(&json, "zune-jpeg", "whole").is_some(), cfg!(feature = "bench-peers"));
}

#[test]
fn a_data_set_is_sampled_and_what_is_no_baseline_jpeg_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    let folder = common::folder(root.path(), &common::samples(10, 2));
    std::fs::write(folder.join("class1/broken.jpg"), "no picture").unwrap();
    let (text, json) = result(&[folder.to_str().unwrap(), "--threads", "2"]);
    assert_eq!(json["samples"].as_u64(), Some(10));
    assert!(text.contains("left out 1 files") && text.contains("class1/broken"), "{text}");
    let shards = common::shards(root.path(), &common::samples(10, 2), 4);
    let (_, json) = result(&[&shards, "--samples", "3"]);
    assert_eq!(json["samples"].as_u64(), Some(3));
}

#[test]
fn wrong_parameters_and_inputs_are_named() {
    let file = format!("{FIXTURES}/420_131x97.jpg");
    let fails_with = |arguments: &[&str], code, word: &str| {
        let text = fails(forebay().args(["bench", "decode"]).args(arguments), code);
        assert!(text.contains(word), "{word:?} is not in {text}");
    };
    fails_with(&[&file, "--rounds", "0"], 2, "--rounds");
    fails_with(&[&file, "--threads", "0"], 2, "--threads");
    fails_with(&[&file, "--scale", "1"], 2, "LOW,HIGH");
    fails_with(&[&file, "--scale", "0.5,NaN"], 2, "scale");
    fails_with(&["/no/such/file.jpg"], 1, "/no/such/file.jpg");
    fails_with(&[&format!("{FIXTURES}/digests.txt")], 1, "help:");
}
