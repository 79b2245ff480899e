//! NVIDIA's kernel driver and the devices that it has.

use super::Finding;
use crate::storage::Machine;

/// The devices that are looked at; more are in no machine.
const GPUS_MAX: usize = 64;

/// The kernel driver, which is loaded.
pub(super) struct Driver {
    /// Its version's first two numbers.
    pub(super) version: Option<(u32, u32)>,
    /// Whether it is of the open kernel modules.
    pub(super) is_open: bool,
    pub(super) gpus: Vec<Gpu>,
}

/// A device.
pub(super) struct Gpu {
    /// The product's name.
    pub(super) model: String,
    /// Its place on the PCI bus, such as `0000:17:00.0`.
    pub(super) place: String,
}

impl Driver {
    /// None where there is no driver.
    pub(super) fn look(machine: &Machine) -> Option<Self> {
        let text = machine.text("/proc/driver/nvidia/version").ok()?;
        let line = text.lines().find(|line| line.starts_with("NVRM version:")).unwrap_or_default();
        let names = machine.names("/proc/driver/nvidia/gpus");
        let gpus = names.into_iter().take(GPUS_MAX).map(|place| Gpu::look(machine, place)).collect();
        Some(Self { version: line.split_whitespace().find_map(version), is_open: line.contains("Open Kernel"), gpus })
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let kind = if self.is_open { "open kernel modules" } else { "proprietary kernel modules" };
        let version = self.version.map_or("of an unknown version".into(), |(major, minor)| format!("{major}.{minor}"));
        let mut findings = vec![Finding::well("NVIDIA driver", format!("{kind} {version}"))];
        if self.gpus.is_empty() {
            let found = "the driver has no device";
            findings.push(Finding::prevents("GPU", found, "see what `nvidia-smi -L` says"));
        } else if self.gpus.iter().all(Gpu::is_geforce) {
            let found =
                format!("{}: NVIDIA supports GPUDirect Storage on data-centre and RTX PRO devices", self.models());
            findings.push(Finding::prevents("GPU", found, "use a device that is supported"));
        } else {
            findings.push(Finding::well("GPU", self.models()));
        }
        findings
    }

    /// The names of the devices, each once, with how many there are.
    pub(super) fn models(&self) -> String {
        let mut models: Vec<(&str, usize)> = Vec::new();
        for gpu in &self.gpus {
            match models.iter_mut().find(|(model, _)| *model == gpu.model) {
                Some((_, count)) => *count += 1,
                None => models.push((&gpu.model, 1)),
            }
        }
        let text = |(model, count): (&str, usize)| if count > 1 { format!("{count} x {model}") } else { model.into() };
        models.into_iter().map(text).collect::<Vec<_>>().join(", ")
    }
}

impl Gpu {
    fn look(machine: &Machine, place: String) -> Self {
        let text = machine.text(format!("/proc/driver/nvidia/gpus/{place}/information")).unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("Model:")).map(str::trim).unwrap_or("unknown model");
        Self { model: model.to_owned(), place }
    }

    fn is_geforce(&self) -> bool {
        self.words().any(|word| word == "GeForce" || word == "TITAN")
    }

    /// Whether it is of the Hopper generation or later, whose peer-to-peer mappings need no further key.
    pub(super) fn is_hopper_or_later(&self) -> bool {
        const LATER: [&str; 12] =
            ["H100", "H200", "H800", "H20", "GH200", "B100", "B200", "B300", "GB200", "GB300", "GB10", "Blackwell"];
        self.words().any(|word| LATER.contains(&word))
    }

    /// Whether NVIDIA lists it for P2PDMA.
    pub(super) fn is_listed_for_p2pdma(&self) -> bool {
        const LISTED: [&str; 9] = ["A100", "A40", "L4", "L40S", "H100", "H200", "B100", "B200", "B300"];
        self.words().any(|word| LISTED.contains(&word))
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.model.split([' ', '-'])
    }
}

/// The first two numbers of a version such as `570.86.15` or `6.8.0-51-generic`.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let digits = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_their_first_two_numbers() {
        assert_eq!(version("570.86.15"), Some((570, 86)));
        assert_eq!(version("6.8.0-51-generic"), Some((6, 8)));
        assert_eq!(version("2.17"), Some((2, 17)));
        for none in ["", "6", "x.1", "1.x", "Kernel", "99999999999.1"] {
            assert_eq!(version(none), None, "{none:?}");
        }
    }
}
