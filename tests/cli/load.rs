//! `bench load` and `demo` as their user meets them: results, exit codes, messages.

use std::path::Path;
use std::process::{Command, Output};

use crate::common;
use crate::loader_index_support::photos;
use forebay::batch::Digest;
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
fn data_sets_are_mixed_by_weights() {
    let root = tempfile::tempdir().expect("folder");
    let parts = [data_set(root.path()), common::shards(root.path(), &common::samples(6, 2), 6)];
    let result = root.path().join("result.json").display().to_string();
    let run = |more: &[&str]| -> Value {
        let common = [parts[1].as_str(), "--mix", "0.75,0.25", "--mix-epoch", "64", "--digest", "--json", &result];
        let output = load(&parts[0], &[&common, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("part          48, 75.0 %, of {}", parts[0])), "{text}");
        serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON")
    };
    let json = run(&[]);
    assert_eq!((json["images"].as_u64(), json["parts"][1]["images"].as_u64()), (Some(64), Some(16)));
    assert_eq!(run(&["--engine", "pread", "--threads", "1"])["digest"], json["digest"]);
    let refused = |more: &[&str], code, words: &[&str]| {
        assert_refused(&load(&parts[0], &[&[parts[1].as_str()], more].concat()), code, words);
    };
    refused(&["--mix", "1"], 2, &["--mix is 1", "each of the 2 data sets"]);
    refused(&["--mix", "1,0.0001"], 2, &["7 of 65536 places", "6.8 % off", "help:"]);
    refused(&["--mix", "1,1", "--balanced"], 2, &["--balanced"]);
    refused(&["--mix-epoch", "9"], 2, &["--mix"]);
    refused(&["--mix", "1,1", "--refresh"], 2, &["--refresh"]);
}

#[test]
fn what_was_added_since_joins_a_run_that_is_resumed() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    let paths = ["state.json", "result.json"].map(|name| root.path().join(name).display().to_string());
    let run = |more: &[&str]| -> Value {
        let output = load(&data_set, &[&["--refresh", "--partial", "--digest", "--json", &paths[1]], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&std::fs::read(&paths[1]).expect("result")).expect("JSON")
    };
    let whole = run(&["--epochs", "2"]);
    assert_eq!(whole["images"].as_u64(), Some(20), "nothing new");
    let first = run(&["--epochs", "2", "--steps", "4", "--save-state", &paths[0]]);
    assert_eq!((first["images"].as_u64(), first["state"]["epoch"].as_u64()), (Some(14), Some(1)));
    std::fs::write(Path::new(&data_set).join("class1/x.jpg"), common::jpeg(4)).expect("sample");
    // What is left of the epoch that was begun, without it, and an epoch with it.
    let rest = run(&["--epochs", "3", "--resume", &paths[0]]);
    assert_eq!(rest["images"].as_u64(), Some(6 + 11));
    assert_eq!((rest["samples_at_first"].as_u64(), rest["samples_at_last"].as_u64()), (Some(10), Some(11)));
    std::fs::write(Path::new(&data_set).join("class0/x.jpg"), common::jpeg(4)).expect("sample");
    let output = load(&data_set, &["--refresh", "--resume", &paths[0]]);
    assert_refused(&output, 2, &["other keys"]);
    assert_refused(&load(&data_set, &["--refresh", "--rank", "0", "--world", "2"]), 2, &["--refresh"]);
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
fn bad_samples_are_passed_over_within_a_budget_and_named() {
    let root = tempfile::tempdir().expect("folder");
    let folder = data_set(root.path());
    std::fs::write(Path::new(&folder).join("class0/00003.jpg"), "no picture").expect("bad sample");
    let [result, bad] = ["result.json", "bad.jsonl"].map(|name| root.path().join(name).display().to_string());
    assert_refused(&load(&folder, &["--partial"]), 1, &["class0/00003", "no JPEG"]);
    for (policy, images) in [("replace", 20), ("skip", 18)] {
        let more = ["--partial", "--epochs", "2", "--on-error", policy, "--error-budget", "1", "--bad-samples", &bad];
        let output = load(&folder, &[&more[..], &["--json", &result]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("bad samples   2 (2 NotAnImage)") && text.contains("class0/00003"), "{text}");
        let json: Value = serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON");
        assert_eq!((json["images"].as_u64(), &json["on_error"]), (Some(images), &Value::from(policy)), "{json}");
        assert_eq!((json["bad"]["NotAnImage"].as_u64(), json["error_budget"].as_str()), (Some(2), Some("1")), "{json}");
        let counts = if policy == "skip" { [0, 2] } else { [2, 0] };
        assert_eq!(["replaced", "skipped"].map(|key| json[key].as_u64()), counts.map(Some), "{json}");
        assert_eq!(json["bad_samples"][1]["sample"], 3, "{json}");
    }
    // Of both runs, two epochs each.
    let lines = std::fs::read_to_string(&bad).expect("a file");
    assert_eq!(lines.lines().filter(|line| line.contains("class0/00003")).count(), 4, "{lines}");
    let none = ["--partial", "--on-error", "skip", "--error-budget", "0%"];
    assert_refused(&load(&folder, &none), 1, &["error budget 0% allows 0", "class0/00003"]);
    assert_refused(&load(&folder, &["--error-budget", "2"]), 2, &["on_error"]);
    assert_refused(&load(&folder, &["--on-error", "skip", "--error-budget", "lots"]), 2, &["error-budget"]);
}

#[test]
fn a_load_beside_another_is_measured_with_it() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    let result = root.path().join("result.json").display().to_string();
    let run = |more: &[&str]| -> (String, Value) {
        let common = ["--beside", &data_set, "--seconds", "0.5", "--epochs", "100000", "--digest", "--json", &result];
        let output = load(&data_set, &[&common, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json = serde_json::from_slice(&std::fs::read(&result).expect("result")).expect("JSON");
        (String::from_utf8_lossy(&output.stdout).into_owned(), json)
    };
    let (text, json) = run(&["--threads", "1", "--depth", "6", "--pool-weight", "2"]);
    assert!(text.contains("together") && text.contains("1 decode threads and 6 reads shared"), "{text}");
    let beside = &json["beside"];
    assert!(beside["images"].as_u64() > Some(0) && beside["images_per_second"].as_f64() > Some(0.0), "{json}");
    assert_eq!((&beside["pool"]["threads"], &beside["pool"]["depth"]), (&1.into(), &6.into()));
    let share = beside["decode_share_of_first"].as_f64().expect("a share");
    assert!((share + beside["decode_share"].as_f64().expect("a share") - 1.0).abs() < 1e-9 && share > 0.0, "{json}");
    assert!(json["stages"][1]["shared_s"].as_f64() > Some(0.0), "{json}");
    let (text, json) = run(&["--no-pool", "--beside-augment", "imagenet-train", "--pin", "off"]);
    assert!(text.contains("nothing shared") && json["beside"]["pool"].is_null() && json["pinned"].is_null(), "{text}");
    assert_refused(&load(&data_set, &["--pool-weight", "2"]), 2, &["--beside"]);
    assert_refused(&load(&data_set, &["--beside", &data_set, "--pool-weight", "0"]), 2, &["pool_weight"]);
    assert_refused(&load(&data_set, &["--pin", "everywhere"]), 2, &["pin"]);
    assert_refused(&load(&data_set, &["--pin", "255"]), 1, &["node 255"]);
}

#[test]
fn a_limit_of_memory_is_planned_for_kept_and_refused_with_numbers() {
    let root = tempfile::tempdir().expect("folder");
    let data_set = data_set(root.path());
    let path = root.path().join("result.json");
    let path = path.to_str().expect("a name");
    let digest_of = |more: &[&str]| {
        let output = load(&data_set, &[&["--threads", "2", "--digest", "--json", path], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&std::fs::read(path).expect("result")).expect("JSON");
        let number = |key: &str| json["memory"][key].as_u64();
        (json["digest"].clone(), number("limit_bytes"), number("total_bytes").expect("a sum"), number("slots"))
    };
    let (digest, limit, ..) = digest_of(&[]);
    assert_eq!(limit, None);
    let (limited, limit, total, slots) = digest_of(&["--memory-mib", "64"]);
    assert_eq!((&limited, limit), (&digest, Some(64 << 20)));
    assert!(total <= 64 << 20, "{total}");
    assert!(slots == Some(2) || slots == Some(3));
    assert_eq!(digest_of(&["--memory-mib", "100", "--slots", "5"]).3, Some(5));
    let refused = load(&data_set, &["--memory-mib", "10"]);
    assert_refused(&refused, 1, &["10 MiB are too few", "2 slots of", "MiB of arena", "--memory-mib "]);
    let refused = load(&data_set, &["--memory-mib", "64", "--index", "build"]);
    assert_refused(&refused, 2, &["forebay index"]);
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
