//! No driver, no device, or one that is too old: the binary starts, says what is missing and what mends it, and
//! `auto` goes on with the host.

use std::path::Path;
use std::process::Command;

use crate::cli_support::{fails, forebay, runs};
use serde_json::Value;

/// A driver that gets as far as its environment lets it. What opening a device asks for beyond is not there.
const DRIVER: &str = r#"
#include <stdlib.h>
#include <string.h>
static int number(const char *name, int otherwise) { const char *text = getenv(name); return text ? atoi(text) : otherwise; }
int cuInit(unsigned flags) { return number("DRIVER_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = number("DRIVER_VERSION", 12020); return 0; }
int cuDeviceGetCount(int *count) { *count = number("DRIVER_DEVICES", 1); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int len, int device) { strncpy(name, "Some GPU", len); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? number("DRIVER_MAJOR", 8) : attribute == 76 ? 0 : 1;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return number("DRIVER_CONTEXT", 999); }
"#;

/// A folder whose libcuda is the one above.
fn with_driver(dir: &Path) {
    let source = dir.join("driver.c");
    std::fs::write(&source, DRIVER).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-w", "-shared", "-fPIC", "-o"]).arg(dir.join("libcuda.so")).arg(&source);
    assert!(compiler.status().expect("a C compiler").success());
}

/// A folder that hides any driver of the machine: what lies there under its names is no library.
fn without_driver(dir: &Path) {
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::fs::write(dir.join(name), "no library").unwrap();
    }
}

fn told(dir: &Path, settings: &[(&str, &str)], device: &str) -> String {
    let mut command = forebay();
    command.args(["doctor", "--gpu", "--device", device]).env("LD_LIBRARY_PATH", dir).envs(settings.iter().copied());
    fails(&mut command, 1)
}

/// What `--device auto` would use.
fn used(dir: &Path, settings: &[(&str, &str)]) -> String {
    let mut command = forebay();
    command.args(["doctor", "--json"]).env("LD_LIBRARY_PATH", dir).envs(settings.iter().copied());
    let found: Value = serde_json::from_str(&runs(&mut command)).unwrap();
    let sections = found["sections"].as_array().unwrap();
    let facts = sections.iter().flat_map(|section| section["facts"].as_array().unwrap());
    facts.filter(|fact| fact["name"] == "used").map(|fact| fact["value"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn without_a_driver_the_error_names_the_library() {
    let dir = tempfile::tempdir().unwrap();
    without_driver(dir.path());
    let stderr = told(dir.path(), &[], "cuda:0");
    assert!(stderr.contains("cuda:0 is not available") && stderr.contains("libcuda.so.1"), "{stderr}");
    assert!(stderr.contains("help: install NVIDIA's driver"), "{stderr}");
    let used = used(dir.path(), &[]);
    assert!(used.starts_with("host") && used.contains("libcuda.so.1"), "{used}");
}

#[test]
fn a_driver_that_fails_has_no_such_device_or_is_too_old_is_named_for_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    with_driver(dir.path());
    for (settings, device, cause) in [
        (&[("DRIVER_INIT", "100")][..], "cuda:0", "cuInit says CUDA_ERROR_NO_DEVICE"),
        (&[("DRIVER_INIT", "803")], "cuda", "cuInit says CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        (&[("DRIVER_INIT", "34")], "cuda:0", "cuInit says CUDA_ERROR_STUB_LIBRARY"),
        (&[("DRIVER_DEVICES", "0")], "cuda:0", "the driver offers none"),
        (&[("DRIVER_DEVICES", "2")], "cuda:2", "the last is cuda:1"),
        (&[("DRIVER_VERSION", "11080")], "cuda:0", "its driver supports CUDA 11.8"),
        (&[("DRIVER_MAJOR", "7")], "cuda:0", "Some GPU has compute capability 7.0"),
    ] {
        let stderr = told(dir.path(), settings, device);
        assert!(stderr.contains("is not available") && stderr.contains(cause), "{settings:?}: {stderr}");
        assert!(stderr.contains("help: "), "{settings:?}: {stderr}");
        if device != "cuda:2" {
            let used = used(dir.path(), settings);
            assert!(used.starts_with("host") && used.contains(cause), "{settings:?}: {used}");
        }
    }
}

#[test]
fn a_device_that_gives_no_context_is_an_error_with_the_drivers_code() {
    let dir = tempfile::tempdir().unwrap();
    with_driver(dir.path());
    for (code, cause) in
        [("2", "CUDA_ERROR_OUT_OF_MEMORY"), ("999", "CUDA_ERROR_UNKNOWN"), ("214", "CUDA_ERROR_ECC_UNCORRECTABLE")]
    {
        let stderr = told(dir.path(), &[("DRIVER_CONTEXT", code)], "cuda:0");
        assert!(stderr.contains("cuDevicePrimaryCtxRetain") && stderr.contains(cause), "{stderr}");
        assert!(stderr.contains("help: "), "{stderr}");
        assert!(used(dir.path(), &[("DRIVER_CONTEXT", code)]).starts_with("host"), "{code}");
    }
}

#[test]
fn a_host_device_is_no_gpu_to_try() {
    let stderr = fails(forebay().args(["doctor", "--gpu", "--device", "host"]), 2);
    assert!(stderr.contains("cuda:N"), "{stderr}");
}
