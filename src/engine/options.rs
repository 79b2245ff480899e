//! What a caller chooses about an engine.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{SimOptions, page_cache};
use crate::error::{Error, Result};

/// How bytes are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EngineKind {
    /// io_uring where the kernel allows it, else pread threads, which is reported. The default.
    #[default]
    Auto,
    /// io_uring (Linux 5.11 or later; most container runtimes block it by default).
    Uring,
    /// A thread for each read in flight. Works everywhere.
    Pread,
    /// cuFile, NVIDIA's GPUDirect Storage, into device memory; what the host has to see goes through pread threads.
    /// `Auto` takes it where a direct path to the device is proven by a read.
    CuFile,
    /// Storage that is made up by a seed ([`SimOptions`]): the bytes of real files, in whatever order and pieces, with
    /// whatever faults, on a clock that jumps. For tests; its times say nothing. `Auto` never takes it.
    Sim,
}

impl EngineKind {
    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Pread => "pread",
            Self::CuFile => "cufile",
            Self::Sim => "sim",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "pread" => Ok(Self::Pread),
            "cufile" => Ok(Self::CuFile),
            "sim" => Ok(Self::Sim),
            _ => Err(Error::invalid_parameter("engine", name, "auto, uring, pread, cufile and sim are known")),
        }
    }
}

/// Whether reads go around the page cache (O_DIRECT). The bytes are the same either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direct {
    /// Through the page cache if the data set fits into it, else `Preferred`. The default.
    ///
    /// A data set that fits is read from storage once and from memory in every later epoch. One that does not fit
    /// would only evict itself, page by page, at the price of a copy.
    #[default]
    Auto,
    /// O_DIRECT, and through the page cache where a file system refuses, which is reported.
    Preferred,
    /// O_DIRECT, and an error where a file system refuses.
    Required,
    /// Always through the page cache.
    Off,
}

impl fmt::Display for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Preferred => "preferred",
            Self::Required => "required",
            Self::Off => "off",
        })
    }
}

impl FromStr for Direct {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "preferred" => Ok(Self::Preferred),
            "required" => Ok(Self::Required),
            "off" => Ok(Self::Off),
            _ => Err(Error::invalid_parameter("direct", name, "auto, preferred, required and off are known")),
        }
    }
}

/// What reads into device memory must have come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequirePath {
    /// Whatever cuFile takes, which is in the report. The default.
    #[default]
    Any,
    /// DMA from storage to the device, by nvidia-fs or PCI peer-to-peer, for every encoded byte. Anything else is an error:
    /// cuFile's compatibility mode, a path that cuFile does not state, a sample that only the host could read or decode.
    Direct,
}

impl fmt::Display for RequirePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::Direct => "direct",
        })
    }
}

impl FromStr for RequirePath {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "any" => Ok(Self::Any),
            "direct" => Ok(Self::Direct),
            _ => Err(Error::invalid_parameter("require-path", name, "any and direct are known")),
        }
    }
}

/// Which of cuFile's interfaces reads go through. The bytes are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CuFileApi {
    /// Batches where the library has them, else threads. The default.
    #[default]
    Auto,
    /// `cuFileBatchIOSubmit`: many reads in flight from one thread.
    Batch,
    /// `cuFileReadAsync`: reads in the order of a few CUDA streams. From CUDA 12.2 on.
    Stream,
    /// `cuFileRead` on the threads of the pread engine.
    Threads,
}

impl CuFileApi {
    const ALL: [(Self, &str); 4] =
        [(Self::Auto, "auto"), (Self::Batch, "batch"), (Self::Stream, "stream"), (Self::Threads, "threads")];
}

impl fmt::Display for CuFileApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[*self as usize].1)
    }
}

impl FromStr for CuFileApi {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        let allowed = "auto, batch, stream and threads are known";
        found.map(|(api, _)| *api).ok_or_else(|| Error::invalid_parameter("cufile-api", name, allowed))
    }
}

/// Whether a processor is spent on polling where it would save interrupts or system calls. The bytes are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Polling {
    /// No. The default: a loader's processors have better things to do.
    #[default]
    Off,
    /// Where it is to be had; where not is reported.
    Preferred,
    /// Or an error.
    Required,
}

impl fmt::Display for Polling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Preferred => "preferred",
            Self::Required => "required",
        })
    }
}

impl FromStr for Polling {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "off" => Ok(Self::Off),
            "preferred" => Ok(Self::Preferred),
            "required" => Ok(Self::Required),
            _ => Err(Error::invalid_parameter("polling", name, "off, preferred and required are known")),
        }
    }
}

/// Operations in flight that pay: how [`Engine::wanted`](super::Engine::wanted) is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Depth {
    /// As many as an engine may have.
    Fixed,
    /// From a few up to as many as it may have: more while that makes the storage faster, fewer where it does not.
    Adaptive {
        /// More in flight than this makes an operation take, on average, is not tried where it is queueing that takes
        /// the time.
        latency_max: Duration,
    },
}

impl Depth {
    /// What an operation may take unless told otherwise: longer queues make a run's first and last batch late and keep other
    /// readers of the device waiting.
    pub const LATENCY_MAX: Duration = Duration::from_millis(100);
}

impl Default for Depth {
    /// Adaptive, within [`LATENCY_MAX`](Self::LATENCY_MAX).
    fn default() -> Self {
        Self::Adaptive { latency_max: Self::LATENCY_MAX }
    }
}

/// Options of an engine; the default is right for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Whether reads go around the page cache.
    pub direct: Direct,
    /// The size of the data set, for [`Direct::Auto`]; see
    /// [`estimate_data_set_bytes`](super::estimate_data_set_bytes). Default unknown: taken as larger than memory.
    pub data_set_bytes: Option<u64>,
    /// Threads of the pread engine. Default 0: one for each operation in flight, at most 32.
    pub threads: usize,
    /// The most bytes that one request to the kernel asks for; longer reads take several. Default and maximum
    /// 1 GiB; for O_DIRECT at least the file's alignment.
    pub read_bytes_max: usize,
    /// Which of cuFile's interfaces reads into device memory go through.
    pub cufile_api: CuFileApi,
    /// How long an open or a read may take before it is given up. Default [`READ_TIMEOUT`](Self::READ_TIMEOUT);
    /// [`Duration::MAX`] waits for ever.
    pub read_timeout: Duration,
    /// What the engine [`Sim`](EngineKind::Sim) makes up.
    pub sim: SimOptions,
    /// How many operations in flight pay. Default adaptive.
    pub depth: Depth,
    /// Whether a thread of the kernel polls the submission queue of io_uring (`IORING_SETUP_SQPOLL`), so that no system call
    /// is made for a read. Default off.
    pub sqpoll: Polling,
    /// Whether completions of direct reads are polled for (`IORING_SETUP_IOPOLL`), on devices with queues for that. Default
    /// off.
    pub iopoll: Polling,
    /// Operations that io_uring gathers before the kernel is told of them, unless a wait comes first. Default 1: at once, so
    /// that the device has work. Larger numbers take less CPU time and, with small reads, throughput.
    pub submit_batch: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            direct: Direct::Auto,
            data_set_bytes: None,
            threads: 0,
            read_bytes_max: 1 << 30,
            cufile_api: CuFileApi::Auto,
            read_timeout: Self::READ_TIMEOUT,
            sim: SimOptions::default(),
            depth: Depth::default(),
            sqpoll: Polling::Off,
            iopoll: Polling::Off,
            submit_batch: 1,
        }
    }
}

impl EngineOptions {
    /// Two minutes. Linux gives a command to an NVMe or SCSI drive 30 s before it aborts it, resets the drive and tries again
    /// (`nvme_core.io_timeout`, `/sys/block/*/device/timeout`), and an NFS client takes a minute to send a request once more
    /// (`timeo=600`): what they recover from should not end a run. What takes longer hangs.
    pub const READ_TIMEOUT: Duration = Duration::from_secs(120);

    /// `direct`, with `Auto` decided.
    pub(super) fn resolve_direct(&self) -> Direct {
        match (self.direct, self.data_set_bytes) {
            (Direct::Auto, Some(bytes)) if bytes <= page_cache::budget_bytes() => Direct::Off,
            (Direct::Auto, _) => Direct::Preferred,
            (chosen, _) => chosen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in [EngineKind::Auto, EngineKind::Uring, EngineKind::Pread, EngineKind::CuFile, EngineKind::Sim] {
            assert_eq!(kind.to_string().parse::<EngineKind>().unwrap(), kind);
        }
        for direct in [Direct::Auto, Direct::Preferred, Direct::Required, Direct::Off] {
            assert_eq!(direct.to_string().parse::<Direct>().unwrap(), direct);
        }
        for (api, _) in CuFileApi::ALL {
            assert_eq!(api.to_string().parse::<CuFileApi>().unwrap(), api);
        }
        for path in [RequirePath::Any, RequirePath::Direct] {
            assert_eq!(path.to_string().parse::<RequirePath>().unwrap(), path);
        }
        for polling in [Polling::Off, Polling::Preferred, Polling::Required] {
            assert_eq!(polling.to_string().parse::<Polling>().unwrap(), polling);
        }
        assert!("io_uring".parse::<EngineKind>().unwrap_err().to_string().contains("io_uring"));
        assert!("".parse::<Direct>().is_err());
    }

    #[test]
    fn auto_keeps_a_small_data_set_in_the_page_cache() {
        let sized = |data_set_bytes| EngineOptions { data_set_bytes, ..Default::default() }.resolve_direct();
        assert_eq!(sized(Some(1)), Direct::Off);
        assert_eq!(sized(Some(u64::MAX)), Direct::Preferred);
        assert_eq!(sized(None), Direct::Preferred);
    }
}
