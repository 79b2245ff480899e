//! What the simulated storage does, and what can go wrong with it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Something that goes wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SimFault {
    /// Answers that end at any byte.
    Short,
    /// EINTR and EAGAIN.
    Interrupted,
    /// EIO from one answer.
    Eio,
    /// EIO from every answer.
    EioSticky,
    /// ENOMEM from one answer.
    NoMemory,
    /// The file ends earlier than when it was opened.
    Truncated,
    /// The path leads to another file than the one that was listed: another inode, another time.
    Replaced,
    /// O_DIRECT is refused when the file is opened.
    DirectOpen,
    /// O_DIRECT is taken then, and refused when the file is read.
    DirectRead,
    /// The file cannot be opened.
    Open,
    /// An open or a read never completes, or only after it was given up.
    Hang,
}

impl SimFault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Short,
        Self::Interrupted,
        Self::Eio,
        Self::EioSticky,
        Self::NoMemory,
        Self::Truncated,
        Self::Replaced,
        Self::DirectOpen,
        Self::DirectRead,
        Self::Open,
        Self::Hang,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Interrupted => "interrupted",
            Self::Eio => "eio",
            Self::EioSticky => "eio-sticky",
            Self::NoMemory => "enomem",
            Self::Truncated => "truncated",
            Self::Replaced => "replaced",
            Self::DirectOpen => "direct-open",
            Self::DirectRead => "direct-read",
            Self::Open => "open",
            Self::Hang => "hang",
        }
    }

    /// Whether an engine gets over it, so that the bytes come all the same: without a required index or O_DIRECT.
    pub const fn is_survived(self) -> bool {
        !matches!(self, Self::EioSticky | Self::Truncated | Self::Open | Self::Hang)
    }
}

/// A set of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimFaults(u16);

impl SimFaults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self(0);

    /// The set with one more.
    pub const fn with(self, fault: SimFault) -> Self {
        Self(self.0 | 1 << fault as u16)
    }

    /// Whether a fault is among them.
    pub const fn has(self, fault: SimFault) -> bool {
        self.0 & 1 << fault as u16 != 0
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = SimFault> {
        SimFault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }
}

impl FromIterator<SimFault> for SimFaults {
    fn from_iter<I: IntoIterator<Item = SimFault>>(faults: I) -> Self {
        faults.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for SimFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("none");
        }
        for (i, fault) in self.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "," }, fault.name())?;
        }
        Ok(())
    }
}

impl FromStr for SimFaults {
    type Err = Error;

    /// Names with commas between, `none` or `all`.
    fn from_str(names: &str) -> Result<Self> {
        match names {
            "none" => return Ok(Self::NONE),
            "all" => return Ok(SimFault::ALL.into_iter().collect()),
            _ => {}
        }
        let faults = names.split(',').map(|name| SimFault::ALL.into_iter().find(|fault| fault.name() == name));
        faults.collect::<Option<_>>().ok_or_else(|| {
            let known = Self::from_iter(SimFault::ALL);
            Error::invalid_parameter("sim-faults", names, &format!("none, all, or some of {known}"))
        })
    }
}

/// The storage that the engine [`Sim`](super::super::EngineKind::Sim) makes up.
///
/// What becomes of an operation depends on these, the file's name and the range that is read, and on nothing else: neither
/// on the order in which operations are begun nor on any clock. So a seed fails again as it failed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimOptions {
    /// What everything is drawn from. Default 0.
    pub seed: u64,
    /// What can go wrong. Default nothing: answers come in any order, whole.
    pub faults: SimFaults,
    /// Of how many operations each fault strikes one, on average. Default 8; 1 strikes all, and 0 counts as 1.
    pub one_in: u32,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self { seed: 0, faults: SimFaults::NONE, one_in: 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let all: SimFaults = "all".parse().unwrap();
        assert_eq!(all.iter().count(), SimFault::ALL.len());
        assert_eq!(all.to_string().parse::<SimFaults>().unwrap(), all);
        assert_eq!("none".parse::<SimFaults>().unwrap(), SimFaults::NONE);
        assert_eq!(SimFaults::NONE.to_string(), "none");
        let two: SimFaults = "hang,eio".parse().unwrap();
        assert!(two.has(SimFault::Hang) && two.has(SimFault::Eio) && !two.has(SimFault::EioSticky));
        for unknown in ["", "eio,", "EIO", "eio hang", "all,eio"] {
            let error = unknown.parse::<SimFaults>().unwrap_err();
            assert!(error.to_string().contains("eio-sticky"), "{error}");
        }
    }
}
