//! `forebay doctor`: facts that programs can read, and a GPU that is required and missing is a failure.

use crate::cli_support::{fails, forebay, runs};
use serde_json::Value;

fn examination(paths: &[&std::path::Path]) -> Value {
    serde_json::from_str(&runs(forebay().args(["doctor", "--json"]).args(paths))).unwrap()
}

#[test]
fn json_holds_the_environment_the_engine_and_a_section_for_each_path() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("deep")).unwrap();
    std::fs::write(dir.path().join("deep/file"), [1; 5000]).unwrap();
    let found = examination(&[dir.path()]);
    assert_eq!(found["schema_version"], 1);
    assert!(found["environment"]["cores"].as_u64().unwrap() >= 1);
    assert!(["uring", "pread"].contains(&found["engine"].as_str().unwrap()));

    let sections = found["sections"].as_array().unwrap();
    let titles: Vec<_> = sections.iter().map(|section| section["title"].as_str().unwrap()).collect();
    assert_eq!(titles[..4], ["machine", "storage engine", "CUDA", dir.path().to_str().unwrap()]);
    assert!(titles[4..].iter().all(|title| title.starts_with("GPUDirect Storage")), "{titles:?}");
    let names: Vec<_> = sections[3]["facts"].as_array().unwrap().iter().map(|fact| fact["name"].clone()).collect();
    assert_eq!(names[..3], ["file system", "free space", "O_DIRECT"]);
    let named = |section: usize, name: &str| {
        sections[section]["facts"].as_array().unwrap().iter().any(|fact| fact["name"] == name)
    };
    assert!(["kernel", "huge pages", "NUMA", "locked memory"].iter().all(|name| named(0, name)));
    assert!(named(1, "io_uring") && (named(1, "registered memory") || found["engine"] == "pread"));
    for fact in sections.iter().flat_map(|section| section["facts"].as_array().unwrap()) {
        assert!(!fact["value"].as_str().unwrap().is_empty(), "{fact}");
        let shortfall = &fact["shortfall"];
        let complete = |key: &str| shortfall[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(shortfall.is_null() || (complete("cost") && complete("remedy")), "{fact}");
    }
}

#[test]
fn a_file_system_without_direct_reads_is_a_shortfall_with_a_remedy() {
    // The kernel's own files take no O_DIRECT.
    let found = examination(&["/proc/cmdline".as_ref()]);
    let fact = &found["sections"][3]["facts"][2];
    assert_eq!(fact["name"], "O_DIRECT");
    assert!(fact["shortfall"]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{fact}");
}

#[test]
fn a_required_gpu_that_is_missing_fails_and_one_that_is_there_does_not() {
    if examination(&[])["cuda_devices"] == 0 {
        let stderr = fails(forebay().args(["doctor", "--require-gpu"]), 1);
        assert!(stderr.contains("CUDA device is required") && stderr.contains("help: "), "{stderr}");
    } else {
        runs(forebay().args(["doctor", "--require-gpu"]));
    }
}

#[test]
fn gpudirect_storage_is_explained_for_each_path_and_in_one_line_where_there_is_no_driver() {
    let dir = tempfile::tempdir().unwrap();
    let found = examination(&[dir.path(), "/proc".as_ref()]);
    let sections = found["sections"].as_array().unwrap();
    let about: Vec<_> =
        sections.iter().filter(|section| section["title"].as_str().unwrap().starts_with("GPUDirect Storage")).collect();
    for section in &about {
        assert_eq!(section["facts"][0]["name"], "direct path");
    }
    if std::path::Path::new("/proc/driver/nvidia/version").exists() {
        assert_eq!(about.len(), 2);
        let proc = about[1]["facts"].as_array().unwrap();
        assert!(about[1]["title"].as_str().unwrap().ends_with("/proc"));
        let file_system = proc.iter().find(|fact| fact["name"] == "file system").unwrap();
        assert!(file_system["shortfall"]["remedy"].is_string(), "{file_system}");
    } else {
        let facts = about[0]["facts"].as_array().unwrap();
        assert_eq!((about.len(), facts.len()), (1, 1), "{about:?}");
        assert!(facts[0]["value"].as_str().unwrap().starts_with("none: ") && facts[0]["shortfall"].is_null());
        // Of the machine alone it says the same.
        let found = examination(&[]);
        assert_eq!(found["sections"].as_array().unwrap().last().unwrap()["facts"], about[0]["facts"]);
    }
}

#[test]
fn a_limit_on_locked_memory_is_measured_and_mended() {
    use std::os::unix::process::CommandExt;

    let is_root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    if !is_root {
        eprintln!("skipped: only root can become a user whose limit is enforced");
        return;
    }
    let mut command = std::process::Command::new("sh");
    let limited = "ulimit -l 5000 && exec \"$0\" doctor --json";
    let output = command.args(["-c", limited, env!("CARGO_BIN_EXE_forebay")]).current_dir("/").uid(65_534).output();
    let output = match output {
        // 126 and 127 are the shell's, which could not start it.
        Ok(output) if !matches!(output.status.code(), Some(126 | 127)) => output,
        other => {
            eprintln!("skipped: nobody cannot run the binary: {other:?}");
            return;
        }
    };
    assert!(output.status.success(), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    if found["engine"] != "uring" {
        eprintln!("skipped: io_uring is refused here");
        return;
    }
    let facts = found["sections"][1]["facts"].as_array().unwrap();
    let fact = facts.iter().find(|fact| fact["name"] == "registered memory").unwrap();
    // Five megabytes, less what rings and others of this user take; of huge pages only whole ones count.
    let value = fact["value"].as_str().unwrap();
    let mebibytes: f64 = value.split(' ').next().unwrap().parse().unwrap();
    assert!(value.contains(" of the 64.0 MiB") && mebibytes < 5.0, "{fact}");
    assert!(fact["shortfall"]["remedy"].as_str().unwrap().contains("ulimit -l"), "{fact}");
}
