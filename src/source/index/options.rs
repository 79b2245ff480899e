//! Whether and where indexes are looked for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Whether an index is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexMode {
    /// Where there is one that fits the data; samples without are read whole. An index that does not fit is
    /// reported as a fallback.
    #[default]
    Auto,
    /// Never.
    Off,
    /// It must be there for every shard and fit.
    Required,
    /// As `Auto`, and what is missing is recorded during the first epoch and written at its end.
    Build,
}

/// Where indexes lie and whether they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexOptions {
    /// Whether they are used.
    pub mode: IndexMode,
    /// The folder they lie in; beside the data where there is none.
    pub dir: Option<PathBuf>,
}

impl IndexMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Off, Self::Required, Self::Build];

    /// The word that options, reports and JSON use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Required => "required",
            Self::Build => "build",
        }
    }
}

impl fmt::Display for IndexMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for IndexMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| Error::invalid_parameter("index", name, "auto, off, required or build"))
    }
}
