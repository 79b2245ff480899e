//! Compiles the kernels' PTX to native code where asked for; without that the driver does, when it loads the text. Needs no
//! CUDA otherwise, and downloads nothing.
//!
//! `FOREBAY_NVCC=PATH` names the nvcc, `FOREBAY_CUBIN_ARCHS=90,100` what to compile for. kernels/README.md says more.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::{env, fs};

/// What the kernels are compiled for unless `FOREBAY_CUBIN_ARCHS` says otherwise: every architecture since Turing that
/// has its own code.
const ARCHS: &str = "75,80,86,89,90,100,120";

fn main() {
    for name in ["build.rs", "kernels/ptx/forebay.ptx"] {
        println!("cargo::rerun-if-changed={name}");
    }
    for name in ["FOREBAY_NVCC", "FOREBAY_CUBIN_ARCHS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let ptx = directory("CARGO_MANIFEST_DIR").join("kernels/ptx/forebay.ptx");
    let out = directory("OUT_DIR");
    let cubins = match env::var_os("FOREBAY_NVCC") {
        Some(nvcc) => cubins(Path::new(&nvcc), &ptx, &out),
        None => String::new(),
    };
    let code = format!(
        "/// The kernels compiled, by compute capability: 90 is 9.0.\nconst CUBINS: &[(u32, &[u8])] = &[{cubins}];\n"
    );
    fs::write(out.join("cubins.rs"), code).unwrap_or_else(|error| fail(&format!("cannot write to {out:?}: {error}")));
}

/// Compiles the text for every architecture; the entries of a slice.
fn cubins(nvcc: &Path, ptx: &Path, out: &Path) -> String {
    let archs = env::var("FOREBAY_CUBIN_ARCHS").unwrap_or_else(|_| ARCHS.to_string());
    let entry = |arch: &str| {
        let arch: u32 = arch.trim().parse().unwrap_or_else(|_| {
            fail(&format!(
                "FOREBAY_CUBIN_ARCHS={archs}: {arch:?} is no architecture such as 90; separate them with commas"
            ))
        });
        let cubin = out.join(format!("forebay.{arch}.cubin"));
        let mut command = Command::new(nvcc);
        command.args(["-cubin", &format!("-arch=sm_{arch}"), "-o"]).arg(&cubin).arg(ptx);
        match command.status() {
            Ok(status) if status.success() => format!("({arch}, include_bytes!({cubin:?})), "),
            Ok(status) => fail(&format!("{command:?} ended with {status}; leave out FOREBAY_NVCC to do without")),
            Err(error) => fail(&format!("FOREBAY_NVCC={}: cannot run it: {error}", nvcc.display())),
        }
    };
    archs.split(',').map(entry).collect()
}

fn directory(name: &str) -> PathBuf {
    env::var_os(name).unwrap_or_else(|| fail(&format!("cargo does not say {name}"))).into()
}

fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    exit(1)
}
