//! The whole path with NVIDIA's own libcufile, in its compatibility mode on the simulated driver: the digest of every other
//! engine, and receipts that say what it was. `.ci/real-libraries` names the library's folder by `FOREBAY_CUFILE_LIB_DIR`;
//! without that there is nothing to test.

mod common;
mod cuda_load_support;
mod cuda_support;
mod cufile_machine;

use std::path::{Path, PathBuf};
use std::process::Command;

use cuda_support::simulator;
use cufile_machine::{Machine, machine};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_forebay");

/// A folder of pictures with its index, on the machine's disk.
fn data_set(machine: &Machine) -> PathBuf {
    let root = machine.folder.path().join("set");
    std::fs::create_dir(&root).expect("folder");
    cuda_load_support::indexed_folder(&root, &cuda_load_support::FIXTURES)
}

/// What `bench load` says of itself, run by a command.
fn result(mut command: Command, folder: &Path, arguments: &[&str]) -> Result<Value, String> {
    let json = folder.with_file_name("result.json");
    command.args(["bench", "load", "--batch", "8", "--size", "32", "--epochs", "2", "--digest", "--json"]).arg(&json);
    let output = command.args(arguments).arg(folder).output().expect("a program");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = std::fs::read_to_string(json).expect("a result");
    Ok(serde_json::from_str(&text).expect("JSON"))
}

#[test]
fn the_digest_is_every_engines_and_receipts_say_compatibility() {
    let Some(machine) = machine() else { return };
    let folder = data_set(&machine);
    let of_host = result(Command::new(PROGRAM), &folder, &["--engine", "auto"]).expect("the host's");
    let simulator = simulator();
    let by = |arguments: &[&str]| {
        let mut command = machine.command(Path::new(PROGRAM), Some(&simulator));
        command.env("CUFILE_FORCE_COMPAT_MODE", "true");
        let found = result(command, &folder, arguments);
        assert_eq!(simulator.reports(), Vec::<String>::new(), "{arguments:?}");
        found
    };
    let uploaded = by(&["--device", "cuda:0", "--decoder", "kernels", "--engine", "uring"]).expect("by io_uring");
    assert_eq!(uploaded["digest"], of_host["digest"]);
    // Reads in the order of a stream need kernels of the library's own, which the simulated driver has not.
    for api in ["batch", "threads"] {
        let cufile = ["--device", "cuda:0", "--decoder", "kernels", "--engine", "cufile", "--cufile-api", api];
        let found = by(&cufile).expect("by cuFile");
        assert_eq!((&found["digest"], &found["engine"]), (&of_host["digest"], &"cufile".into()), "{api}");
        assert_eq!(found["fallbacks"], Value::Array(vec![]), "{api}");
        let by_path = found["receipts"]["by_path"].as_object().expect("receipts");
        let total: u64 = by_path.values().filter_map(|passage| passage["reads"].as_u64()).sum();
        // Every image is read in one piece or more, all of them through host memory.
        assert!(total >= 48, "{api}: {by_path:?}");
        assert_eq!(by_path.keys().collect::<Vec<_>>(), ["posix"], "{api}");
        assert!(found["bytes_uploaded"].as_u64() < uploaded["bytes_uploaded"].as_u64(), "descriptions alone");
        let refused = by(&[&cufile[..], &["--require-path", "direct"]].concat()).expect_err("compatibility mode");
        assert!(refused.contains("direct") || refused.contains("cuFile cannot be opened"), "{refused}");
    }
    // By itself it is not taken, and the report says why.
    let found = by(&["--device", "cuda:0"]).expect("by io_uring");
    assert_eq!((&found["digest"], found["engine"] != "cufile"), (&of_host["digest"], true));
    let why = found["fallbacks"].as_array().expect("fallbacks").iter().find(|fallback| fallback["what"] == "cuFile");
    assert!(why.is_some_and(|why| why["cause"].as_str().is_some_and(|cause| cause.contains("posix"))), "{found}");
}

#[test]
fn files_that_the_library_does_not_take_come_from_the_host() {
    let Some(machine) = machine() else { return };
    let folder = data_set(&machine);
    let simulator = simulator();
    let machine = machine.without_udev();
    let mut command = machine.command(Path::new(PROGRAM), Some(&simulator));
    command.env("CUFILE_FORCE_COMPAT_MODE", "true");
    // Without udev's word on the disk no file is taken: every sample comes from the host, and is counted.
    let found = result(command, &folder, &["--device", "cuda:0", "--decoder", "kernels", "--engine", "cufile"]);
    let found = found.expect("by the host");
    let why = found["fallbacks"].as_array().expect("fallbacks").iter().find(|fallback| fallback["what"] == "cuFile");
    assert_eq!(why.expect("a fallback")["count"], 48, "{found}");
}
