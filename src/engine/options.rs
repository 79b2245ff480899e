//! What a caller chooses about an engine.

use std::fmt;
use std::str::FromStr;

use super::page_cache;
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
}

impl EngineKind {
    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Pread => "pread",
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
            _ => Err(Error::invalid_parameter("engine", name, "auto, uring and pread are known")),
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
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { direct: Direct::Auto, data_set_bytes: None, threads: 0, read_bytes_max: 1 << 30 }
    }
}

impl EngineOptions {
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
        for kind in [EngineKind::Auto, EngineKind::Uring, EngineKind::Pread] {
            assert_eq!(kind.to_string().parse::<EngineKind>().unwrap(), kind);
        }
        for direct in [Direct::Auto, Direct::Preferred, Direct::Required, Direct::Off] {
            assert_eq!(direct.to_string().parse::<Direct>().unwrap(), direct);
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
