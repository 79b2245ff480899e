//! `forebay doctor --gpu` on the simulated driver: every way to decode is judged by its pixels.

use crate::cli_support::runs;
use crate::cuda_support::{Simulator, simulator};
use serde_json::Value;

fn examined(simulator: &Simulator) -> Value {
    let mut command = simulator.command(env!("CARGO_BIN_EXE_forebay"));
    serde_json::from_str(&runs(command.args(["doctor", "--gpu", "--json"]))).unwrap()
}

#[test]
fn paths_that_are_there_give_the_hosts_pixels_and_others_are_named() {
    let simulator = simulator();
    let found = examined(&simulator);
    assert_eq!(simulator.reports(), [""; 0]);
    let test = &found["self_test"];
    assert_eq!((test["device"].as_str(), test["simulated"].as_bool()), (Some("cuda:0"), Some(true)));
    assert!(test["upload_bytes_per_second"].as_f64().unwrap() > 0.0);
    let paths = test["paths"].as_array().unwrap();
    assert_eq!(
        paths.iter().map(|path| path["path"].as_str().unwrap()).collect::<Vec<_>>(),
        ["kernels", "nvJPEG", "nvJPEG, device files", "host"]
    );
    for path in paths {
        let is_nvjpeg = path["path"].as_str().unwrap().starts_with("nvJPEG");
        let filled = |key: &str| path[key].as_str().is_some_and(|text| !text.is_empty());
        match path["verdict"].as_str().unwrap() {
            "not_available" => assert!(is_nvjpeg && filled("cause") && filled("remedy"), "{path}"),
            verdict => {
                assert_eq!(verdict, "ok", "{path}");
                assert_eq!(
                    (path["photos"].as_u64(), &path["cause"]),
                    (test["photos"].as_u64(), &Value::Null),
                    "{path}"
                );
                assert!(is_nvjpeg || path["max_difference"] == 0, "{path}");
            }
        }
    }
}

#[test]
fn nvjpeg_is_judged_where_its_library_is_there() {
    let simulator = simulator().library("libsimnvjpeg.so", &["libnvjpeg.so", "libnvjpeg.so.12"]);
    let found = examined(&simulator);
    assert_eq!(simulator.reports(), [""; 0]);
    let path = &found["self_test"]["paths"][1];
    assert_eq!((path["path"].as_str(), path["verdict"].as_str()), (Some("nvJPEG"), Some("ok")), "{path}");
    assert_eq!((&path["photos"], path["exact"].as_bool()), (&found["self_test"]["photos"], Some(false)), "{path}");
}

#[test]
fn kernels_with_wrong_pixels_are_told_and_fail_the_command() {
    // A device whose arithmetic is off: bytes end at 120 in place of 255.
    let simulator = simulator().ptx_edit("0f437F0000=>0f42F00000");
    let output = simulator.command(env!("CARGO_BIN_EXE_forebay")).args(["doctor", "--gpu"]).output().unwrap();
    let (text, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}{stderr}");
    assert!(text.contains("! kernels            differs"), "{text}");
    assert!(stderr.starts_with("error: kernels on cuda:0: pixels are up to"), "{stderr}");
}
