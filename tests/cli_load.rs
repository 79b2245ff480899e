//! `bench load` and `demo` as their user meets them: results, exit codes, messages.
#![cfg(feature = "cli")]

mod common;
mod loader_index_support;

use std::path::Path;
use std::process::{Command, Output};

use forebay::batch::Digest;
use loader_index_support::photos;
use serde_json::Value;

fn forebay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay")).args(arguments).output().expect("the binary runs")
}

fn load(data_set: &str, more: &[&str]) -> Output {
    forebay(&[&["bench", "load", data_set, "--batch", "4", "--size", "32"], more].concat())
}

fn data_set(root: &Path) -> String {
    common::folder(root, &common::samples(10, 2)).display().to_string()
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn the_result_holds_what_its_schema_promises() {
    let root = tempfile::tempdir().expect("folder");
    let result = root.path().join("result.json");
    let preview = root.path().join("first.png");
    let paths = [result.display().to_string(), preview.display().to_string()];
    let more = ["--epochs", "2", "--digest", "--partial", "--json", &paths[0], "--preview", &paths[1]];
    let output = load(&data_set(root.path()), &more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON");
    for key in [
        "schema_version",
        "images",
        "images_per_second",
        "cpu_ms_per_image",
        "bytes_data",
        "bytes_needed",
        "bytes_read",
        "reads",
        "retries",
        "timeouts",
        "bytes_skipped",
        "images_indexed",
        "images_not_indexed",
        "index_fallbacks",
        "first_batch_ms",
        "batch_wait_p50_ms",
        "batch_wait_p99_ms",
        "peak_rss_bytes",
        "digest",
        "fallbacks",
        "environment",
        "command",
    ] {
        assert!(!json[key].is_null(), "{key} is missing in {json}");
    }
    assert_eq!((json["images"].as_u64(), json["batches"].as_u64()), (Some(20), Some(6)));
    let root_of_all = &json["roots"][0];
    assert_eq!(
        (root_of_all["reads"].clone(), root_of_all["bytes"].clone()),
        (json["reads"].clone(), json["bytes_read"].clone())
    );
    assert!(json["skew"].is_null() && json["held_up_by"].is_null() && root_of_all["limit_mbps"].is_null(), "{json}");
    assert_eq!(&std::fs::read(&preview).expect("preview")[1..4], b"PNG");
    let again = load(
        &data_set(root.path()),
        &["--epochs", "2", "--digest", "--partial", "--engine", "pread", "--threads", "1"],
    );
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(text.contains(json["digest"].as_str().expect("a digest")), "{text}");
}

#[test]
fn an_index_is_built_by_one_run_and_used_by_the_next() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = common::folder(root.path(), &photos(10, (90, 70), false)).display().to_string();
    let index = root.path().join("indexes").display().to_string();
    let result = root.path().join("result.json").display().to_string();
    assert_refused(&load(&data_set, &["--index", "required", "--index-dir", &index]), 1, &["index", "help:"]);
    let run = |mode| -> Value {
        let output = load(&data_set, &["--index", mode, "--index-dir", &index, "--digest", "--json", &result]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON")
    };
    let first = run("build");
    assert_eq!((first["images_indexed"].as_u64(), first["bytes_skipped"].as_u64()), (Some(0), Some(0)));
    for mode in ["auto", "required", "build"] {
        let next = run(mode);
        assert_eq!(
            (next["images_indexed"].as_u64(), next["images_not_indexed"].as_u64()),
            (Some(8), Some(0)),
            "{mode}"
        );
        assert!(next["bytes_skipped"].as_u64() > Some(0), "{mode}: {next}");
        assert_eq!(next["digest"], first["digest"], "{mode}");
    }
}

#[test]
fn ranks_and_parts_of_a_run_add_up_to_the_whole() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    let (state, result) = (root.path().join("state.json"), root.path().join("result.json"));
    let (state, result) = (state.display().to_string(), result.display().to_string());
    let run = |more: &[&str]| -> Value {
        let common = ["bench", "load", &data_set, "--size", "32", "--epochs", "2", "--global-batch", "4", "--digest"];
        let output = forebay(&[&common[..], &["--json", &result], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON")
    };
    let sum = |parts: &[Value]| {
        let digest = |json: &Value| json["digest"].as_str().expect("a digest").parse::<Digest>().expect("a digest");
        parts.iter().map(digest).fold(Digest::default(), |sum, part| sum + part).hex()
    };
    let whole = run(&["--pad"]);
    assert_eq!((whole["rank"].as_u64(), whole["world_size"].as_u64()), (Some(0), Some(1)));
    assert_eq!((whole["steps_per_epoch"].as_u64(), &whole["resumed_from"]), (Some(3), &Value::Null));
    // Two ranks for four steps; then one, to the end.
    let of_rank = |rank| run(&["--pad", "--rank", rank, "--world", "2", "--steps", "4", "--save-state", &state]);
    let mut parts = vec![of_rank("0")];
    let after = parts[0]["state"].clone();
    assert_eq!((after["epoch"].as_u64(), after["position"].as_u64()), (Some(1), Some(4)));
    parts.push(of_rank("1"));
    assert_eq!((parts[1]["rank"].as_u64(), parts[1]["world_size"].as_u64()), (Some(1), Some(2)));
    assert_eq!((&parts[1]["state"], parts[1]["images"].as_u64()), (&after, Some(8)));
    assert_ne!(sum(&parts), whole["digest"]);
    let resumed = run(&["--pad", "--resume", &state, "--engine", "pread", "--threads", "1"]);
    assert_eq!((&resumed["resumed_from"], resumed["state"]["epoch"].as_u64()), (&after, Some(2)));
    parts.push(resumed);
    assert_eq!(sum(&parts), whole["digest"]);
    // Another run's state, and what is none.
    let load = |more: &[&str]| load(&data_set, &[&["--resume", &state], more].concat());
    assert_refused(&load(&["--seed", "1"]), 2, &["seed was 0 and is 1", "help:"]);
    std::fs::write(&state, "{}").expect("file");
    assert_refused(&load(&[]), 1, &["state.json", "holds no state"]);
    std::fs::remove_file(&state).expect("file");
    assert_refused(&load(&[]), 1, &["reading", "state.json"]);
}

#[test]
fn the_rank_is_given_or_the_launchers() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    let result = root.path().join("result.json").display().to_string();
    let launched = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        let common = ["bench", "load", &data_set, "--batch", "2", "--size", "32", "--rank-from-env"];
        command.args(common).args(["--json", &result]).env_clear().envs(variables.iter().copied());
        command.output().expect("the binary runs")
    };
    for (variables, rank, world_size) in [
        (&[][..], 0, 1),
        (&[("RANK", "1"), ("WORLD_SIZE", "2")], 1, 2),
        (&[("SLURM_PROCID", "2"), ("SLURM_NTASKS", "3")], 2, 3),
    ] {
        let output = launched(variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON");
        assert_eq!((json["rank"].as_u64(), json["world_size"].as_u64()), (Some(rank), Some(world_size)));
    }
    assert_refused(&launched(&[("RANK", "1")]), 2, &["RANK=1", "WORLD_SIZE=(not set)", "help:"]);
    assert_refused(&load(&data_set, &["--rank", "2", "--world", "2"]), 2, &["rank is 2", "0 to 1"]);
    assert_refused(&load(&data_set, &["--rank", "0"]), 2, &["--world"]);
}

#[test]
fn every_preset_type_and_layout_runs() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    for augment in ["imagenet-train", "imagenet-val", "none"] {
        for (dtype, layout) in [("u8", "nhwc"), ("f16", "nchw"), ("bf16", "nhwc"), ("f32", "nchw")] {
            let output = load(&data_set, &["--augment", augment, "--dtype", dtype, "--layout", layout]);
            assert!(output.status.success(), "{augment} {dtype}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn scaling_is_asked_for_and_changes_the_digest() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    let digest = |more: &[&str]| {
        let output =
            forebay(&[&["bench", "load", &data_set, "--batch", "4", "--size", "12", "--digest"], more].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find(|line| line.starts_with("digest")).expect("a digest").to_owned()
    };
    let scaled = digest(&["--dct-scaling"]);
    assert_ne!(scaled, digest(&[]));
    assert_eq!(scaled, digest(&["--dct-scaling", "--engine", "pread", "--threads", "1"]));
}

#[test]
fn an_image_is_decoded_at_a_scale() {
    let root = tempfile::tempdir().expect("folder");
    let (file, out) = (root.path().join("a.jpg"), root.path().join("a.ppm"));
    std::fs::write(&file, common::jpeg(5)).expect("sample");
    let (file, out) = (file.display().to_string(), out.display().to_string());
    let decode = |scale: &str| forebay(&["decode", &file, "--scale", scale, "-o", &out]);
    assert!(decode("1/4").status.success());
    // 95x75: a quarter, rounded up.
    assert!(std::fs::read(&out).expect("picture").starts_with(b"P6\n24 19\n255\n"));
    assert_refused(&decode("1/3"), 2, &["1/3", "1/8"]);
}

#[test]
fn wrong_parameters_are_usage_errors() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    assert_refused(&load(&data_set, &["--batch", "0"]), 2, &["batch"]);
    assert_refused(&load(&data_set, &["--batch", "11"]), 2, &["11", "10"]);
    assert_refused(&load(&data_set, &["--size", "0"]), 2, &["size"]);
    assert_refused(&load(&data_set, &["--seconds", "NaN"]), 2, &["seconds"]);
    assert_refused(&load(&data_set, &["--threads", "0"]), 2, &["threads"]);
    assert_refused(&load(&data_set, &["--engine", "magic"]), 2, &["magic", "uring"]);
    assert_refused(&load(&data_set, &["--index", "maybe"]), 2, &["maybe", "required"]);
    assert_refused(&forebay(&["bench", "load"]), 2, &["DATASET"]);
}

#[test]
fn samples_are_chosen_labelled_and_balanced() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    let result = root.path().join("result.json").display().to_string();
    let run = |more: &[&str]| -> Value {
        let output = load(&data_set, &[&["--partial", "--digest", "--json", &result], more].concat());
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON")
    };
    let images = |json: &Value| json["images"].as_u64().expect("images");
    assert_eq!(images(&run(&["--filter", "label = 1"])), 5);
    let both = run(&["--filter", "label in 1", "--filter", "key != */00007"]);
    assert_eq!(images(&both), 4);
    assert!(both["notes"].to_string().contains("4 of 10"), "{both}");
    assert_ne!(run(&["--balanced"])["digest"], run(&[])["digest"]);
    // By the labels of a table, not of the folder.
    let table = root.path().join("t.csv").display().to_string();
    std::fs::write(&table, "id,what\nclass0/00000,dog\nclass1/00009,dog\nclass0/00003,cat\n").expect("table");
    let labels = ["--labels", &table, "--label-columns", "id,what"];
    assert_refused(&load(&data_set, &labels), 2, &["t.csv", "class0/00001", "help:"]);
    let dogs = run(&[&labels[..], &["--labels-partial", "--filter", "class = dog"]].concat());
    assert_eq!(images(&dogs), 2);
    assert!(dogs["notes"].to_string().contains("without a label: 7"), "{dogs}");
    for (more, words) in [
        (&["--filter", "size > 3"][..], &["size", "width"][..]),
        (&["--filter", "class = fish"], &["fish", "class0"]),
        (&["--labels", &table], &["\"key\"", "id, what"]),
        (&["--labels", &table, "--label-columns", "id"], &["two columns"]),
        (&["--label-columns", "id,what"], &["--labels"]),
        (&["--balanced", "--shuffle-block", "4"], &["--shuffle-block"]),
    ] {
        assert_refused(&load(&data_set, more), 2, words);
    }
    assert_refused(&load(&data_set, &["--filter", "label = 3"]), 1, &["label = 3", "10 samples", "help:"]);
    assert_refused(&load(&data_set, &["--filter", "width > 3"]), 1, &["index", "forebay index", "class0/00000"]);
    assert_refused(&load(&data_set, &["--labels", "none.csv"]), 1, &["none.csv", "help:"]);
}

#[test]
fn bad_data_are_named_with_cause_and_remedy() {
    let root = tempfile::tempdir().expect("folder");
    let missing = root.path().join("nowhere").display().to_string();
    assert_refused(&load(&missing, &[]), 1, &["nowhere"]);
    let empty = root.path().join("empty");
    std::fs::create_dir(&empty).expect("folder");
    assert_refused(&load(&empty.display().to_string(), &[]), 1, &["empty", "help:"]);
    let folder = data_set(root.path());
    std::fs::write(Path::new(&folder).join("class0/00002.JPEG"), "no picture\n").expect("text");
    assert_refused(&load(&folder, &["--partial"]), 1, &["class0/00002", "00002.JPEG", "no pictu", "help:"]);
}

#[test]
fn a_shard_that_is_cut_short_is_named() {
    let root = tempfile::tempdir().expect("folder");
    let pattern = common::shards(root.path(), &common::samples(10, 2), 10);
    let shard = root.path().join("train-000.tar");
    let bytes = std::fs::read(&shard).expect("shard");
    std::fs::write(&shard, &bytes[..bytes.len() / 2]).expect("cut");
    assert_refused(&load(&pattern, &[]), 1, &["train-000.tar"]);
}

#[test]
fn the_demo_ends_with_a_report_and_a_picture() {
    let root = tempfile::tempdir().expect("folder");
    let output = forebay(&["demo", "--dir", &root.path().display().to_string()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("verdict") && text.contains("digest"), "{text}");
    assert!(root.path().join("first-batch.png").is_file());
}

#[test]
fn data_sets_are_loaded_as_one_within_a_limit() {
    let (one, two) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let [first, second] = [&one, &two].map(|root| data_set(root.path()));
    let result = one.path().join("result.json");
    let paths = [second.clone(), result.display().to_string()];
    let output = load(&first, &[&paths[0], "--limit-mbps", "50,/=40", "--json", &paths[1], "--partial"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON");
    assert_eq!(json["images"], 20, "ten of each");
    let limit = json["roots"][0]["limit_mbps"].as_f64().expect("a limit");
    assert!(limit == 40.0 || limit == 50.0, "{json}");
    let limits = json["stages"].as_array().expect("stages").iter().filter(|stage| stage["stage"] == "rate limit");
    assert_eq!(limits.count(), 1, "{json}");
    let output = load(&first, &["--limit-mbps", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("limit-mbps"));
}

#[test]
fn several_views_are_asked_for_by_their_sizes_or_their_number() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    let (result, preview) = (root.path().join("result.json"), root.path().join("first.png"));
    let paths = [result.display().to_string(), preview.display().to_string()];
    let run = |more: &[&str]| -> Value {
        let common =
            ["bench", "load", &data_set, "--batch", "4", "--digest", "--json", &paths[0], "--preview", &paths[1]];
        let output = forebay(&[&common[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON")
    };
    let sheet = || image::open(&preview).expect("a picture").to_rgb8();
    let one = run(&["--size", "32"]);
    let small_sheet = sheet();
    assert_eq!(one["views"], serde_json::json!([{ "count": 1, "shape": [3, 32, 32] }]));
    assert_eq!(run(&["--crops", "1x32"])["digest"], one["digest"]);
    let crops = run(&["--crops", "2x32@0.4-1,6x16@0.05-0.4"]);
    assert_eq!(crops["views"][1], serde_json::json!({ "count": 6, "shape": [3, 16, 16] }));
    assert_eq!(crops["images"], one["images"]);
    assert!(sheet().as_raw().len() > 4 * small_sheet.as_raw().len(), "all views are on the sheet");
    let repeated = run(&["--size", "32", "--repeat", "3"]);
    assert_eq!(repeated["digest"], run(&["--crops", "3x32"])["digest"]);
    assert_ne!(repeated["digest"], one["digest"]);
    for (arguments, words) in [
        (&["--crops", "224"][..], "--crops"),
        (&["--crops", "2x0"], "--crops"),
        (&["--crops", "2x32@0.5-0.1"], "scale"),
        (&["--crops", "99x32"], "views"),
        (&["--repeat", "0"], "views"),
        (&["--crops", "2x32", "--size", "64"], "--size"),
        (&["--augment", "none", "--repeat", "2"], "views"),
        (&["--augment", "imagenet-val", "--crops", "1x32@0.1-1"], "imagenet-train"),
    ] {
        let output = forebay(&[&["bench", "load", &data_set, "--batch", "4"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(words), "{arguments:?}: {text}");
    }
}
