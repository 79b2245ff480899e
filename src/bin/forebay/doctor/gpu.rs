//! The CUDA driver, its devices and the libraries beside it.

use std::fs;
use std::path::Path;

use forebay::device::DeviceChoice;
use forebay::device::cuda::CudaProbe;

use super::{Fact, human_bytes};

pub fn facts(probe: &CudaProbe) -> Vec<Fact> {
    let mut facts = vec![driver(probe)];
    for device in probe.devices() {
        let (major, minor) = device.compute_capability;
        let memory = human_bytes(device.memory_bytes);
        facts.push(Fact::new("device", format!("{}, {memory}, compute capability {major}.{minor}", device.name)));
    }
    facts.push(library("nvJPEG", "libnvjpeg.so"));
    facts.push(library("cuFile", "libcufile.so"));
    facts.push(used());
    facts
}

/// What `--device auto` takes now.
fn used() -> Fact {
    let value = match DeviceChoice::Auto.resolve() {
        Ok((device, None)) => format!("{device} by --device auto"),
        Ok((device, Some(fallback))) => format!("{device} by --device auto: {}", fallback.cause),
        Err(error) => format!("nothing by --device auto: {error}"),
    };
    Fact::new("used", value)
}

fn driver(probe: &CudaProbe) -> Fact {
    let fact = Fact::new("driver", probe.to_string());
    match probe {
        // A driver that is there and fails was meant to work.
        CudaProbe::Failed { .. } => fact.short(
            "no CUDA program runs here",
            "see what `nvidia-smi` says; after a driver update, reboot; in a container, start it with --gpus all",
        ),
        _ => fact,
    }
}

/// Whether the dynamic linker would find a library, looked up without loading it: its initialisers are
/// none of doctor's business.
fn library(name: &'static str, file: &str) -> Fact {
    let cached =
        fs::read("/etc/ld.so.cache").is_ok_and(|cache| memchr::memmem::find(&cache, file.as_bytes()).is_some());
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let listed = std::env::split_paths(&path).any(|dir| holds(&dir, file));
    let value = match (listed, cached) {
        (true, _) => format!("{file} is on LD_LIBRARY_PATH"),
        (false, true) => format!("{file} is installed"),
        (false, false) => format!("{file} is not found"),
    };
    Fact::new(name, value)
}

fn holds(dir: &Path, file: &str) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(file))
}
