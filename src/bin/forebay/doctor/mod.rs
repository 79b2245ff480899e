//! `forebay doctor`: what this machine offers, what will be used of it, and what to do about the rest.

mod gds;
mod gpu;
mod machine;
mod self_test;
mod storage;
mod volume;

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use forebay::device::cuda::{self, CudaProbe};
use forebay::device::{Device, DeviceChoice};
use forebay::{Error, ErrorKind};
use self_test::SelfTest;
use serde::Serialize;

use crate::environment::Environment;
use crate::ui;

/// Says what this machine offers, what will be used, and for each shortfall its cost and its remedy.
#[derive(Args)]
pub struct Doctor {
    /// Data sets or directories whose storage is looked at
    pub paths: Vec<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Exit with 1 if no CUDA device can be used, for jobs that must not run without one
    #[arg(long)]
    pub require_gpu: bool,
    /// Try every way to decode on a CUDA device, for some seconds: its pixels beside the host's, and its speed. Exit
    /// with 1 if there is no device, or pixels are wrong
    #[arg(long)]
    pub gpu: bool,
    /// The device that is tried
    #[arg(long, value_name = "cuda:N", default_value = "cuda:0", requires = "gpu")]
    pub device: Device,
}

/// Everything found, as printed with `--json`.
#[derive(Serialize)]
struct Examination {
    schema_version: u32,
    command: Vec<String>,
    environment: Environment,
    /// The engine that `--engine auto` takes here.
    engine: String,
    /// CUDA devices that the driver offers.
    cuda_devices: usize,
    sections: Vec<Section>,
    /// What `--gpu` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    self_test: Option<SelfTest>,
}

/// Facts that belong together.
#[derive(Serialize)]
struct Section {
    title: String,
    facts: Vec<Fact>,
}

/// One thing looked at.
#[derive(Serialize)]
struct Fact {
    name: &'static str,
    value: String,
    /// What is less than it should be; absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    shortfall: Option<Shortfall>,
}

/// What a fact costs, and what mends it.
#[derive(Serialize)]
struct Shortfall {
    cost: String,
    remedy: String,
}

impl Doctor {
    /// Runs the command.
    pub fn run(self) -> anyhow::Result<()> {
        let probe = cuda::probe();
        let (engine, engine_facts) = storage::engine();
        let environment = Environment::new();
        let mut sections = vec![
            Section { title: "machine".into(), facts: machine::facts(&environment) },
            Section { title: "storage engine".into(), facts: engine_facts },
            Section { title: "CUDA".into(), facts: gpu::facts(&probe) },
        ];
        for path in &self.paths {
            sections.push(Section { title: path.display().to_string(), facts: storage::facts(path)? });
        }
        sections.extend(gds::sections(&self.paths));
        let self_test = if self.gpu { Some(self.self_test(&probe)?) } else { None };
        let examination = Examination {
            schema_version: 1,
            command: std::env::args().collect(),
            environment,
            engine,
            cuda_devices: probe.devices().len(),
            sections,
            self_test,
        };
        if self.json {
            ui::print(&format!("{}\n", serde_json::to_string_pretty(&examination)?))?;
        } else {
            ui::print(&examination.to_text())?;
        }
        if let Some(self_test) = &examination.self_test {
            self_test.judge()?;
        }
        if self.require_gpu { require_gpu(&probe) } else { Ok(()) }
    }

    fn self_test(&self, probe: &CudaProbe) -> forebay::Result<SelfTest> {
        let Device::Cuda(ordinal) = self.device else {
            return Err(Error::invalid_parameter("--device", self.device, "cuda:N is allowed, since a GPU is tried"));
        };
        // Opening it says what is missing.
        DeviceChoice::Exactly(self.device).resolve()?;
        match probe.devices().get(ordinal as usize) {
            Some(device) => SelfTest::run(ordinal, device),
            None => Err(Error::new(ErrorKind::Unavailable, format!("{} was there and is gone", self.device))),
        }
    }
}

fn require_gpu(probe: &CudaProbe) -> anyhow::Result<()> {
    if !probe.devices().is_empty() {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unavailable, format!("a CUDA device is required and there is none: {probe}"));
    Err(error.with_remedy("run where `nvidia-smi` lists a device; in a container, start it with --gpus all").into())
}

impl Fact {
    fn new(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: value.into(), shortfall: None }
    }

    fn short(self, cost: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { shortfall: Some(Shortfall { cost: cost.into(), remedy: remedy.into() }), ..self }
    }

    fn short_if(self, short: bool, cost: &str, remedy: &str) -> Self {
        if short { self.short(cost, remedy) } else { self }
    }
}

impl Examination {
    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut shortfalls = 0;
        for Section { title, facts } in &self.sections {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{title}");
            for Fact { name, value, shortfall } in facts {
                let mark = if shortfall.is_some() { '!' } else { ' ' };
                let _ = writeln!(text, " {mark} {name:<18} {value}");
                if let Some(Shortfall { cost, remedy }) = shortfall {
                    let _ = writeln!(text, "   {:<18} cost:   {cost}\n   {:<18} remedy: {remedy}", "", "");
                    shortfalls += 1;
                }
            }
            text.push('\n');
        }
        if let Some(self_test) = &self.self_test {
            text += &self_test.to_text();
            shortfalls += self_test.shortfalls();
        }
        let _ = match shortfalls {
            0 => writeln!(text, "Nothing stands in the way."),
            1 => writeln!(text, "One shortfall, marked with !"),
            _ => writeln!(text, "{shortfalls} shortfalls, marked with !"),
        };
        text
    }
}

/// Bytes for people: binary units, one decimal.
fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", UNITS[unit]) }
}
