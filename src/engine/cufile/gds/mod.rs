//! Whether bytes can go from storage to a GPU without passing through host memory, and what is missing if not.
//!
//! cuFile works everywhere: where a piece of the direct path is missing it reads into host memory and copies, and
//! says nothing. This module looks for each of the pieces as NVIDIA's `gdscheck` does, but without cuFile, without a CUDA
//! context and without root: it reads files below /proc, /sys, /dev and /etc, and nothing else. Sources: NVIDIA's
//! GPUDirect Storage Installation and Troubleshooting Guide, its release notes up to 1.20, "GDS Support for NVMe Drives
//! Using Linux PCI P2PDMA Support", and the kernel driver's published source (nvidia-fs) for the files that it offers.
//!
//! There are two direct routes. [`Route::Nvfs`] is the kernel module nvidia-fs, for which the driver of the storage has
//! to be one that knows it. [`Route::P2pDma`] is Linux's own peer-to-peer DMA (cuFile of CUDA 12.8 or later, Linux 6.2 or
//! later), for local NVMe drives alone.
//!
//! What is found here is what can be seen from outside. Whether a read really took the direct path is known only to
//! cuFile's own statistics.
//!
//! ```
//! use forebay::engine::cufile::gds::Gds;
//!
//! let gds = Gds::examine("/".as_ref());
//! if let Some((cause, remedy)) = gds.why_host_memory() {
//!     println!("{cause} ({remedy})");
//! }
//! ```

mod block;
mod config;
mod driver;
mod pci;
mod routes;
mod volume;

use std::fmt;
use std::path::Path;

use config::Config;
use driver::Driver;
use volume::Volume;

pub use crate::storage::Machine;

/// What stands between storage and the memory of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gds {
    /// How bytes would go.
    pub verdict: Verdict,
    /// Whether there is a kernel driver of NVIDIA's at all. Without one nothing else was looked at.
    pub has_driver: bool,
    /// What was looked at: first what prevents the direct path, in the order to mend it, then what slows it, then what
    /// is as it should be.
    pub findings: Vec<Finding>,
}

/// How bytes would go from storage to a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Directly, as far as can be seen from outside.
    Direct(Route),
    /// Through host memory.
    HostMemory,
}

/// A way past host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// By NVIDIA's kernel module nvidia-fs.
    Nvfs,
    /// By the kernel's PCI peer-to-peer DMA.
    P2pDma,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The thing, as a stable name: `nvidia-fs`, `file system`, `IOMMU`.
    pub what: &'static str,
    /// What it was found to be.
    pub found: String,
    /// What is less than it should be; none where all is well.
    pub shortfall: Option<Shortfall>,
}

/// What a finding costs, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Whether the direct path is impossible with it, and not only slower.
    pub prevents: bool,
    /// What is lost by it.
    pub cost: String,
    /// What to do about it.
    pub remedy: String,
}

impl Gds {
    /// Looks at this machine, and at where a file or directory lies.
    ///
    /// Reads a few dozen small files, and the list of the kernel's symbols where P2PDMA is to be used. Never fails: what
    /// cannot be read is a finding.
    pub fn examine(path: &Path) -> Self {
        let machine = Machine::this();
        match path.canonicalize() {
            Ok(path) => machine.examine(Some(&path)),
            Err(error) => {
                let mut gds = machine.examine(None);
                let found = format!("{} cannot be reached: {error}", path.display());
                gds.verdict = Verdict::HostMemory;
                let remedy = "name a file or directory that exists and that this user can read";
                gds.findings.insert(0, Finding::prevents("path", found, remedy));
                gds
            }
        }
    }

    /// Looks at this machine alone, as if the data lay on a local NVMe drive with a file system that cuFile takes.
    pub fn examine_machine() -> Self {
        Machine::this().examine(None)
    }

    /// Why bytes would go through host memory, and what would mend that: what to say where cuFile is not used. None where
    /// the direct path is possible.
    pub fn why_host_memory(&self) -> Option<(String, String)> {
        if matches!(self.verdict, Verdict::Direct(_)) {
            return None;
        }
        let first = self.findings.iter().find_map(|finding| {
            let shortfall = finding.shortfall.as_ref().filter(|shortfall| shortfall.prevents)?;
            Some((format!("{}: {}", finding.what, finding.found), shortfall.remedy.clone()))
        });
        let (cause, remedy) = first.unwrap_or_else(|| ("nothing names a direct path".into(), REMEDY_DOCTOR.into()));
        Some((format!("cuFile would go through host memory: {cause}"), remedy))
    }
}

/// Where there is nothing better to say.
const REMEDY_DOCTOR: &str = "see what `forebay doctor PATH` and NVIDIA's `gdscheck -p` say";

impl Machine {
    /// Looks at this machine, and at where `path` lies, which is a canonical path on it.
    pub fn examine(&self, path: Option<&Path>) -> Gds {
        let Some(driver) = Driver::look(self) else {
            let found = "/proc/driver/nvidia is missing: there is no kernel driver of NVIDIA's, or a sandbox hides it";
            let remedy = "install NVIDIA's open kernel modules; in a container, start it with --gpus all";
            let findings = vec![Finding::prevents("NVIDIA driver", found, remedy)];
            return Gds { verdict: Verdict::HostMemory, has_driver: false, findings };
        };
        let config = Config::look(self);
        let volume = path.map(|path| Volume::look(self, path));
        let mut common = self.guards();
        common.extend(driver.findings());
        common.extend(config.findings());
        common.extend(volume.iter().flat_map(|volume| volume.findings(&config)));
        let routes = routes::look(self, &driver, &config, volume.as_ref());
        let (verdict, mut findings) = routes.decide(common);
        findings.extend(pci::look(self, &driver, volume.as_ref()));
        findings.sort_by_key(Finding::rank);
        Gds { verdict, has_driver: true, findings }
    }

    /// What cuFile reads when it starts, without which it hangs or knows no disk.
    fn guards(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(error) = self.text("/proc/modules") {
            let found = format!("/proc/modules: {error}; cuFile reads it for ever where it is missing");
            let remedy = "run on a kernel with loadable modules, outside of a sandbox that hides them";
            findings.push(Finding::prevents("kernel modules", found, remedy));
        }
        if !self.is_dir("/run/udev/data") {
            let found = "/run/udev/data is missing, from which cuFile learns what a disk is";
            let remedy = "in a container, start it with --volume /run/udev:/run/udev:ro; elsewhere run udev";
            findings.push(Finding::prevents("udev", found, remedy));
        }
        findings
    }
}

impl Finding {
    fn well(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, found: found.into(), shortfall: None }
    }

    /// Something without which there is no direct path.
    fn prevents(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let cost = "every byte is read into host memory and copied from there".to_owned();
        Self { what, found: found.into(), shortfall: Some(Shortfall { prevents: true, cost, remedy: remedy.into() }) }
    }

    /// Something that makes the direct path slower.
    fn slows(what: &'static str, found: impl Into<String>, cost: &str, remedy: impl Into<String>) -> Self {
        let shortfall = Shortfall { prevents: false, cost: cost.to_owned(), remedy: remedy.into() };
        Self { what, found: found.into(), shortfall: Some(shortfall) }
    }

    fn is_preventing(&self) -> bool {
        self.shortfall.as_ref().is_some_and(|shortfall| shortfall.prevents)
    }

    /// What comes first.
    fn rank(&self) -> u8 {
        match &self.shortfall {
            Some(shortfall) if shortfall.prevents => 0,
            Some(_) => 1,
            None => 2,
        }
    }
}

impl Route {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nvfs => "nvidia-fs",
            Self::P2pDma => "P2PDMA",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(route) => write!(f, "possible by {}", route.name()),
            Self::HostMemory => f.write_str("none: bytes go through host memory"),
        }
    }
}

#[cfg(test)]
mod tests;
