//! How fast each root may be read.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

const BYTES_PER_MEGABYTE: f64 = 1e6;

/// The fastest limit: beyond any storage, and what the arithmetic bears.
const MEGABYTES_PER_SECOND_MAX: f64 = 1e9;

/// Limits of the bytes that are asked of each root in a second, in megabytes (10^6 bytes). Default: none.
///
/// The text `200,/mnt/slow=50` is a limit of 200 MB/s for each root but that of /mnt/slow, which has one of 50 MB/s;
/// `/mnt/slow=50` alone limits no other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateLimits {
    every: Option<f64>,
    roots: Vec<(PathBuf, f64)>,
}

impl RateLimits {
    /// A limit for each root that has none of its own.
    ///
    /// # Errors
    /// `InvalidParameter` for one that is not positive, or beyond 10^9 MB/s.
    pub fn every(mut self, megabytes_per_second: f64) -> Result<Self> {
        self.every = Some(checked(megabytes_per_second)?);
        Ok(self)
    }

    /// A limit for the root that a path lies on.
    ///
    /// # Errors
    /// As for [`every`](Self::every).
    pub fn root(mut self, path: impl Into<PathBuf>, megabytes_per_second: f64) -> Result<Self> {
        let limit = checked(megabytes_per_second)?;
        self.roots.push((path.into(), limit));
        Ok(self)
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.every.is_none() && self.roots.is_empty()
    }

    /// The same by device numbers.
    ///
    /// # Errors
    /// `InvalidParameter` for a path that does not exist, or two of one root with different limits.
    pub fn resolve(&self) -> Result<ResolvedLimits> {
        let mut devices: Vec<(u64, f64)> = Vec::new();
        for (path, limit) in &self.roots {
            let device = device_of(path)?;
            match devices.iter().find(|(known, _)| *known == device) {
                Some((_, other)) if other != limit => {
                    let allowed = format!("its file system has the limit {other} already: one limit a file system");
                    return Err(Error::invalid_parameter(NAME, format!("{}={limit}", path.display()), &allowed));
                }
                Some(_) => {}
                None => devices.push((device, *limit)),
            }
        }
        Ok(ResolvedLimits { every: self.every, devices })
    }
}

/// Limits by the device numbers of roots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResolvedLimits {
    every: Option<f64>,
    devices: Vec<(u64, f64)>,
}

impl ResolvedLimits {
    /// The limit of a root, in bytes a second.
    pub fn bytes_per_second(&self, device: u64) -> Option<f64> {
        let own = self.devices.iter().find(|(known, _)| *known == device).map(|(_, limit)| *limit);
        own.or(self.every).map(|megabytes| megabytes * BYTES_PER_MEGABYTE)
    }
}

const NAME: &str = "limit-mbps";

impl fmt::Display for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = self.every.iter().map(f64::to_string);
        let roots = self.roots.iter().map(|(path, limit)| format!("{}={limit}", path.display()));
        f.write_str(&every.chain(roots).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for RateLimits {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut limits = Self::default();
        for part in text.split(',') {
            let (path, number) = match part.rsplit_once('=') {
                Some((path, number)) => (Some(path), number),
                None => (None, part),
            };
            let megabytes = number.trim().parse().map_err(|_| {
                Error::invalid_parameter(NAME, part, "megabytes a second, or PATH=megabytes, with commas between")
            })?;
            limits = match path {
                Some("") => return Err(Error::invalid_parameter(NAME, part, "a path stands before =")),
                Some(path) => limits.root(path, megabytes)?,
                None if limits.every.is_some() => {
                    return Err(Error::invalid_parameter(NAME, text, "one limit for all, the others with a path"));
                }
                None => limits.every(megabytes)?,
            };
        }
        Ok(limits)
    }
}

fn checked(megabytes_per_second: f64) -> Result<f64> {
    // Also false for what is no number.
    if megabytes_per_second > 0.0 && megabytes_per_second <= MEGABYTES_PER_SECOND_MAX {
        return Ok(megabytes_per_second);
    }
    Err(Error::invalid_parameter(NAME, megabytes_per_second, "more than 0 and at most 10^9 megabytes a second"))
}

fn device_of(path: &Path) -> Result<u64> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.dev()),
        Err(error) => {
            let allowed = format!("a path on the root that is limited must be reachable: {error}");
            Err(Error::invalid_parameter(NAME, path.display(), &allowed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_written() {
        for text in ["200", "0.5", "200,/mnt/a=50", "/mnt/a=b=3,/mnt/c=4.5"] {
            assert_eq!(text.parse::<RateLimits>().unwrap().to_string(), text);
        }
        for text in ["", "0", "-1", "NaN", "inf", "1e10", "x", "1,2", "=3", "/mnt/a=", "1,", "a=1=b"] {
            let error = text.parse::<RateLimits>().unwrap_err();
            assert!(error.to_string().contains("limit-mbps"), "{text}: {error}");
        }
    }

    #[test]
    fn a_root_has_its_own_limit_or_that_of_all() {
        let here = std::env::temp_dir();
        let device = device_of(&here).unwrap();
        let limits = RateLimits::default().every(200.0).unwrap().root(&here, 50.0).unwrap();
        let resolved = limits.clone().resolve().unwrap();
        assert_eq!(resolved.bytes_per_second(device), Some(5e7));
        assert_eq!(resolved.bytes_per_second(device.wrapping_add(1)), Some(2e8));
        assert_eq!(RateLimits::default().resolve().unwrap().bytes_per_second(device), None);
        limits.clone().root(&here, 50.0).unwrap().resolve().unwrap();
        let error = limits.root(&here, 51.0).unwrap().resolve().unwrap_err();
        assert!(error.to_string().contains("one limit a file system"), "{error}");
        let error = RateLimits::default().root("/no/such/place", 1.0).unwrap().resolve().unwrap_err();
        assert!(error.to_string().contains("/no/such/place"), "{error}");
    }
}
