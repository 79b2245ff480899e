//! `bench io` as its user meets it: results, the file that it makes and checks, exit codes, messages.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli_support::{fails, forebay, runs};
use crate::common;
use crate::cuda_support::simulator;
use serde_json::Value;

/// A folder, and what a run in it gives.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, path: &Path, arguments: &[&str]) -> (String, Value) {
        self.run_by(forebay(), path, arguments)
    }

    fn run_by(&self, mut command: Command, path: &Path, arguments: &[&str]) -> (String, Value) {
        let json = self.path("result.json");
        command.args(["bench", "io", "--json"]).arg(&json).args(arguments).arg(path);
        if !arguments.contains(&"--seconds") {
            command.args(["--seconds", "0.1"]);
        }
        let text = runs(&mut command);
        (text, serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap())
    }

    /// A file of 1 MiB that `--create` has made.
    fn file(&self) -> PathBuf {
        let path = self.path("file");
        self.run(&path, &["--create", "1MiB"]);
        path
    }
}

fn check(row: &Value) {
    for key in ["bytes_per_second", "iops", "seconds", "reads", "bytes"] {
        assert!(row[key].as_f64().is_some_and(|number| number > 0.0), "{key} of {row}");
    }
    let quantiles = ["p50", "p90", "p99", "p999"].map(|name| row["latency_us"][name].as_u64().unwrap());
    assert!(quantiles.is_sorted(), "{row}");
    assert!(row["cpu_seconds_per_gb"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{row}");
}

#[test]
fn a_file_is_made_read_and_checked_by_both_engines() {
    let bench = Bench::new();
    let file = bench.path("file");
    for engine in ["pread", "auto"] {
        for pattern in ["random", "sequential"] {
            let arguments =
                ["--create", "1MiB", "--verify", "--engine", engine, "--pattern", pattern, "--block", "64KiB"];
            let (text, json) = bench.run(&file, &[&arguments[..], &["--seed", "3", "--depth", "4"]].concat());
            for key in ["schema_version", "path", "results", "not_run", "fallbacks", "environment", "command"] {
                assert!(!json[key].is_null(), "{key} is missing in {json}");
            }
            let row = &json["results"][0];
            check(row);
            // A single result stands at the outermost level too.
            check(&json);
            assert_eq!((row["to"].as_str(), row["pattern"].as_str()), (Some("host"), Some(pattern)));
            assert_eq!((row["block_bytes"].as_u64(), row["depth"].as_u64()), (Some(65536), Some(4)));
            assert_eq!(row["bytes"].as_u64(), Some(row["reads"].as_u64().unwrap() * 65536));
            assert_eq!(row["verified_blocks"].as_u64(), Some(row["reads"].as_u64().unwrap() * 16));
            assert!(engine == "auto" || row["engine"] == engine);
            assert!(text.contains("all where they belong") && text.contains(pattern), "{text}");
        }
    }
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    // A byte that is wrong is found wherever it is.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[700_001] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let command = |seed: &str| {
        let mut command = forebay();
        command.args(["bench", "io", "--verify", "--block", "64KiB", "--seed", seed]).arg(&file);
        command
    };
    let stderr = fails(&mut command("3"), 1);
    assert!(stderr.contains("the block at 696320") && stderr.contains("help: "), "{stderr}");
    assert!(fails(&mut command("4"), 1).contains("--seed 3"));
}

#[test]
fn sizes_and_depths_are_swept() {
    let bench = Bench::new();
    let file = bench.file();
    let arguments = ["--seconds", "0.02", "--block", "4KiB,5000", "--depth", "1,7", "--direct", "off"];
    let (text, json) = bench.run(&file, &arguments);
    let rows = json["results"].as_array().unwrap();
    rows.iter().for_each(check);
    let cases: Vec<_> = rows.iter().map(|row| (row["block_bytes"].as_u64(), row["depth"].as_u64())).collect();
    let expected = [(4096, 1), (4096, 7), (5000, 1), (5000, 7)];
    assert_eq!(cases, expected.map(|(block, depth)| (Some(block), Some(depth))));
    assert!(rows.iter().all(|row| row["direct"] == false));
    assert!(json["bytes_per_second"].is_null(), "several results have no place at the outermost level");
    assert!(text.contains("4KiB") && text.contains("5000") && text.contains("through the page cache"), "{text}");
    let (_, json) = bench.run(&file, &["--small-pages", "--block", "4KiB"]);
    check(&json["results"][0]);
    let (_, json) = bench.run(&file, &["--seconds", "0.01", "--sweep", "--block", "16k"]);
    assert!(json["results"].as_array().unwrap().len() >= 5);
}

#[test]
fn the_samples_of_a_data_set_are_read_whole() {
    let bench = Bench::new();
    let samples = common::samples(20, 2);
    let sizes: Vec<u64> = samples.iter().map(|sample| sample.2.len() as u64).collect();
    let folder = common::folder(bench.0.path(), &samples);
    let shards = common::shards(bench.0.path(), &samples, 7);
    for engine in ["pread", "auto"] {
        for data_set in [folder.to_str().unwrap(), &shards] {
            let (_, json) = bench.run(data_set.as_ref(), &["--engine", engine, "--depth", "3"]);
            let row = &json["results"][0];
            check(row);
            assert_eq!((row["pattern"].as_str(), &row["block_bytes"]), (Some("dataset"), &Value::Null));
            // Whole epochs and a part of one.
            let mean = row["bytes"].as_u64().unwrap() as f64 / row["reads"].as_u64().unwrap() as f64;
            assert!(
                mean >= *sizes.iter().min().unwrap() as f64 && mean <= *sizes.iter().max().unwrap() as f64,
                "{row}"
            );
        }
    }
}

#[test]
fn what_the_page_cache_held_is_told_and_cold_drops_it() {
    let bench = Bench::new();
    let file = bench.path("file");
    let (_, json) = bench.run(&file, &["--create", "8MiB", "--direct", "off", "--seconds", "0.3"]);
    assert_eq!((json["cold"].as_bool(), json["cached_before"].as_f64()), (Some(false), Some(1.0)), "just written");
    let (text, json) = bench.run(&file, &["--cold", "--direct", "off", "--seconds", "0.3"]);
    let before = json["cached_before"].as_f64().unwrap();
    // A file system in memory drops nothing.
    assert!(before == 0.0 || before == 1.0, "{json}");
    assert!(json["cached_after"].as_f64().unwrap() >= before && json["cold"] == true, "{json}");
    assert!(text.contains("after it was told to drop them"), "{text}");
}

#[test]
fn gpus_that_are_not_there_are_told_in_a_comparison_and_are_errors_by_name() {
    let bench = Bench::new();
    let file = bench.file();
    let (text, json) = bench.run(&file, &["--compare", "--device", "cuda:63"]);
    check(&json["results"][0]);
    let not_run: Vec<_> =
        json["not_run"].as_array().unwrap().iter().map(|entry| entry["to"].as_str().unwrap()).collect();
    assert_eq!(not_run, ["gpu-via-host", "gpu"]);
    for entry in json["not_run"].as_array().unwrap() {
        assert!(entry["cause"].as_str().unwrap().contains("cuda:63") && entry["remedy"].is_string(), "{entry}");
    }
    assert!(text.contains("not run"), "{text}");
    for to in ["gpu-via-host", "gpu"] {
        let stderr = fails(forebay().args(["bench", "io", "--to", to, "--device", "cuda:63"]).arg(&file), 1);
        assert!(stderr.contains("cuda:63") && stderr.contains("help: "), "{stderr}");
    }
}

#[test]
fn bytes_go_through_the_host_to_a_simulated_gpu() {
    let bench = Bench::new();
    let file = bench.file();
    for seed in 0..3 {
        let simulator = simulator().seed(seed);
        let arguments = ["--to", "gpu-via-host", "--depth", "3", "--block", "16KiB"];
        let (_, json) = bench.run_by(simulator.command(env!("CARGO_BIN_EXE_forebay")), &file, &arguments);
        assert_eq!(simulator.reports(), [""; 0], "seed {seed}");
        check(&json);
        assert_eq!((json["to"].as_str(), json["block_bytes"].as_u64()), (Some("gpu-via-host"), Some(16384)));
    }
    // A copy that fails is an error, with nothing in flight left behind.
    let simulator = simulator().fail("cuMemcpyHtoDAsync_v2#5:700");
    let mut command = simulator.command(env!("CARGO_BIN_EXE_forebay"));
    let stderr = fails(command.args(["bench", "io", "--to", "gpu-via-host"]).arg(&file), 1);
    assert!(stderr.contains("cuMemcpyHtoDAsync"), "{stderr}");
}

#[test]
fn cufile_reads_to_a_gpu_and_says_by_which_path() {
    let bench = Bench::new();
    let file = bench.file();
    let simulator = || simulator().library("libsimcufile.so", &["libcufile.so"]);
    let program = |path: &str| {
        let simulator = simulator();
        let mut command = simulator.command(env!("CARGO_BIN_EXE_forebay"));
        command.env("SIMCUFILE_PATH", path);
        (simulator, command)
    };
    for (path, api) in [("nvfs", "batch"), ("p2p", "stream"), ("posix", "threads")] {
        let (simulator, command) = program(path);
        let arguments = ["--engine", "cufile", "--cufile-api", api, "--depth", "3", "--block", "16KiB", "--verify"];
        let (text, json) = bench.run_by(command, &file, &arguments);
        assert_eq!(simulator.reports(), [""; 0], "{path}");
        check(&json);
        assert_eq!((json["to"].as_str(), json["engine"].as_str()), (Some("gpu"), Some("cufile")));
        let name = if path == "p2p" { "p2pdma" } else { path };
        assert_eq!(json["receipts"]["by_path"][name]["bytes"], json["bytes"], "{json}");
        assert!(json["verified_blocks"].as_u64().is_some_and(|blocks| blocks > 0), "{json}");
        assert!(text.contains(&format!("reads by {name}")) && text.contains("simulated"), "{text}");
    }
    let (_simulator, mut command) = program("posix");
    let arguments = ["bench", "io", "--engine", "cufile", "--require-path", "direct"];
    let stderr = fails(command.args(arguments).arg(&file), 1);
    assert!(stderr.contains("cuFile") && stderr.contains("help: "), "{stderr}");
    let (_simulator, command) = program("nvfs");
    let (text, json) = bench.run_by(command, &file, &["--compare", "--block", "16KiB", "--depth", "2"]);
    let to: Vec<_> = json["results"].as_array().unwrap().iter().map(|row| row["to"].as_str().unwrap()).collect();
    assert_eq!(to, ["host", "gpu-via-host", "gpu"], "{text}");
    for (arguments, word) in [
        (["--engine", "cufile", "--to", "host"], "--to"),
        (["--engine", "uring", "--to", "gpu"], "--engine"),
        (["--engine", "cufile", "--direct", "off"], "direct"),
    ] {
        let (_simulator, mut command) = program("nvfs");
        let stderr = fails(command.args(["bench", "io"]).args(arguments).arg(&file), 2);
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
}

#[test]
fn wrong_parameters_and_paths_are_named() {
    let bench = Bench::new();
    let file = bench.file();
    let fails_with = |arguments: &[&str], path: &Path, code, word: &str| {
        let stderr = fails(forebay().args(["bench", "io"]).args(arguments).arg(path), code);
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    };
    fails_with(&["--block", "0"], &file, 2, "--block");
    fails_with(&["--block", "many"], &file, 2, "128KiB");
    fails_with(&["--block", "2MiB"], &file, 2, "--create");
    fails_with(&["--depth", "0"], &file, 2, "depth");
    fails_with(&["--depth", "5000"], &file, 2, "depth");
    fails_with(&["--threads", "0"], &file, 2, "--threads");
    fails_with(&["--seconds", "0"], &file, 2, "--seconds");
    fails_with(&["--seconds", "NaN"], &file, 2, "--seconds");
    fails_with(&["--block", "1GiB", "--depth", "4096", "--create", "4096"], &file, 2, "PATH");
    fails_with(&["--device", "host", "--to", "gpu"], &file, 2, "--device");
    fails_with(&["--verify"], bench.0.path(), 2, "--verify");
    fails_with(&["--block", "4k"], bench.0.path(), 2, "--block");
    fails_with(&["--pattern", "random"], bench.0.path(), 2, "--pattern");
    fails_with(&["--create", "1MiB"], bench.0.path(), 2, "--create");
    fails_with(&["--create", "100"], &file, 2, "--create");
    fails_with(&["--pattern", "random"], &bench.path("none"), 1, "--create SIZE");
    fails_with(&[], &bench.path("none"), 1, "none");
    fails_with(&["--create", "1MiB"], &bench.path("none/none"), 1, "none/none");
    let precious = bench.path("precious");
    std::fs::write(&precious, "not ours").unwrap();
    fails_with(&["--create", "1MiB"], &precious, 2, "has not written");
    assert_eq!(std::fs::read(&precious).unwrap(), b"not ours");
    std::fs::write(&precious, vec![1; 1 << 20]).unwrap();
    fails_with(&["--verify"], &precious, 1, "not what --create wrote");
    let memory = ["--block", "1GiB", "--depth", "4096"];
    let sparse = bench.path("sparse");
    std::fs::File::create(&sparse).unwrap().set_len(1 << 30).unwrap();
    fails_with(&memory, &sparse, 1, "lower --depth");
}

#[test]
fn a_limit_is_held_within_five_percent_and_told_apart_from_slow_storage() {
    let bench = Bench::new();
    let file = bench.file();
    for engine in ["auto", "pread"] {
        let arguments = ["--seconds", "2", "--limit-mbps", "8", "--block", "16KiB", "--engine", engine];
        let (text, json) = bench.run(&file, &arguments);
        let rate = json["bytes_per_second"].as_f64().unwrap() / 8e6;
        assert!((0.95..=1.05).contains(&rate), "{rate} by {engine}: {text}");
        assert!(json["limited_seconds"].as_f64().unwrap() > 1.5 && json["limit_mbps"] == "8", "{json}");
        assert!(json["cpu_seconds"].as_f64().unwrap() < 0.5, "nothing is polled for: {json}");
        assert!(text.contains("limit         8 MB/s, which held reads back"), "{text}");
    }
    // One of another root holds nothing back.
    let (_, json) = bench.run(&file, &["--limit-mbps", "/proc=0.001", "--block", "16KiB"]);
    assert!(json["limited_seconds"] == 0.0 && json["bytes_per_second"].as_f64().unwrap() > 8e6, "{json}");
    for bad in ["0", "many", "5,6", "/no/such/place=5"] {
        let stderr = fails(forebay().args(["bench", "io", "--limit-mbps", bad]).arg(&file), 2);
        assert!(stderr.contains("limit-mbps"), "{stderr}");
    }
}

#[test]
fn a_root_that_has_to_wait_holds_up_no_other() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let device = |path: &Path| path.metadata().map(|file| file.dev()).ok();
    let places = ["/dev/shm", "/run", "/tmp"].map(Path::new);
    let other =
        places.into_iter().find(|place| device(place).is_some_and(|other| Some(other) != device(bench.0.path())));
    let Some(elsewhere) = other.and_then(|place| tempfile::tempdir_in(place).ok()) else {
        return println!("skipped: there is one file system only");
    };
    let samples = common::samples(40, 2);
    let slow = common::folder(bench.0.path(), &samples[..20]);
    let fast = common::folder(elsewhere.path(), &samples[20..]);
    let limit = format!("{}=0.02", slow.display());
    for engine in ["auto", "pread"] {
        let arguments = [fast.to_str().unwrap(), "--engine", engine, "--seconds", "1", "--direct", "off"];
        let (text, json) = bench.run(&slow, &[&arguments[..], &["--limit-mbps", &limit, "--depth", "4"]].concat());
        let bytes_per_second = json["bytes_per_second"].as_f64().unwrap();
        // In turns it would be twice the limit.
        assert!(bytes_per_second > 40.0 * 0.02e6, "{bytes_per_second} by {engine}: {text}");
    }
}

#[test]
fn several_data_sets_are_read_as_one_and_several_files_are_refused() {
    let bench = Bench::new();
    for part in ["a", "b"] {
        std::fs::create_dir(bench.path(part)).unwrap();
        std::fs::write(bench.path(part).join("x.jpg"), vec![7; 5000]).unwrap();
    }
    let (text, json) = bench.run(&bench.path("a"), &[bench.path("b").to_str().unwrap()]);
    assert!(
        json["pattern"] == "dataset"
            && text.contains(&format!("{} {}", bench.path("b").display(), bench.path("a").display()))
    );
    let file = bench.file();
    let stderr = fails(forebay().args(["bench", "io", "--pattern", "random"]).arg(&file).arg(&file), 2);
    assert!(stderr.contains("PATH") && stderr.contains("one file"), "{stderr}");
}
