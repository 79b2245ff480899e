//! The device that tensors are born on.
//!
//! [`Device`] names one, [`DeviceChoice`] is what a user asks for. Naming a device asks nobody whether it is there:
//! it is opened when a [`Loader`](crate::Loader) is built.
//!
//! ```
//! use forebay::device::{Device, DeviceChoice};
//!
//! assert_eq!("cuda".parse::<Device>()?, Device::Cuda(0));
//! assert_eq!("cuda:3".parse::<DeviceChoice>()?, DeviceChoice::Exactly(Device::Cuda(3)));
//! assert_eq!("auto".parse::<DeviceChoice>()?, DeviceChoice::Auto);
//! # Ok::<(), forebay::Error>(())
//! ```

pub mod cuda;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::report::Fallback;
use cuda::Gpu;

/// Where the tensors of a batch lie. As text: `host`, `cuda:N`, or `cuda` for `cuda:0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// Host memory; everything is computed on the CPU.
    #[default]
    Host,
    /// A CUDA device by its ordinal among those that `CUDA_VISIBLE_DEVICES` leaves.
    Cuda(u32),
}

/// The device that is asked for. As text: that of a [`Device`], or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// `cuda:0` if it works, else the host, and the report says why.
    Auto,
    /// This one and no other.
    Exactly(Device),
}

impl DeviceChoice {
    /// Which device it is on this machine, now, and for [`Auto`](Self::Auto) that came to the host the reason. Opens the
    /// device, which takes up to a second, and closes it again.
    ///
    /// # Errors
    ///
    /// `Unavailable`, naming what is missing, for a device asked for by name; `OutOfMemory`, `DeviceLost`.
    pub fn resolve(self) -> Result<(Device, Option<Fallback>)> {
        let (gpu, fallback) = self.open()?;
        Ok((gpu.map_or(Device::Host, |gpu| Device::Cuda(gpu.ordinal())), fallback))
    }

    /// Opens the device; none is the host.
    pub(crate) fn open(self) -> Result<(Option<Gpu>, Option<Fallback>)> {
        match self {
            Self::Exactly(Device::Host) => Ok((None, None)),
            Self::Exactly(Device::Cuda(ordinal)) => Ok((Some(Gpu::open(ordinal)?), None)),
            Self::Auto => Ok(match Gpu::open(0) {
                Ok(gpu) => (Some(gpu), None),
                Err(error) => (None, Some(Fallback::host_device(&error))),
            }),
        }
    }
}

impl Default for DeviceChoice {
    fn default() -> Self {
        Self::Exactly(Device::Host)
    }
}

impl From<Device> for DeviceChoice {
    fn from(device: Device) -> Self {
        Self::Exactly(device)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(device) => device.fmt(f),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// # Errors
    ///
    /// `InvalidParameter` for what is no device.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| no_device(text, "host or cuda:N is allowed"))
    }
}

impl FromStr for DeviceChoice {
    type Err = Error;

    /// # Errors
    ///
    /// `InvalidParameter` for what is neither a device nor `auto`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => parse(text).map(Self::Exactly).ok_or_else(|| no_device(text, "host, auto or cuda:N is allowed")),
        }
    }
}

fn parse(text: &str) -> Option<Device> {
    match text {
        "host" => Some(Device::Host),
        "cuda" => Some(Device::Cuda(0)),
        _ => {
            let number = text.strip_prefix("cuda:")?;
            // `parse` takes a sign, which is part of no ordinal.
            number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok().map(Device::Cuda))?
        }
    }
}

fn no_device(text: &str, allowed: &str) -> Error {
    Error::invalid_parameter("device", format_args!("{text:?}"), allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn devices_are_what_their_names_say() {
        for (text, device) in [("host", Device::Host), ("cuda:0", Device::Cuda(0)), ("cuda:17", Device::Cuda(17))] {
            assert_eq!(text.parse::<Device>().unwrap(), device);
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), device.into());
            assert_eq!(device.to_string(), text);
            assert_eq!(DeviceChoice::from(device).to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        assert_eq!("auto".parse::<DeviceChoice>().unwrap(), DeviceChoice::Auto);
        assert_eq!(DeviceChoice::Auto.to_string(), "auto");
    }

    #[test]
    fn a_name_that_is_no_device_is_an_invalid_parameter() {
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "HOST", "cuda0", "cuda:4294967296"] {
            assert_eq!(text.parse::<Device>().unwrap_err().kind(), ErrorKind::InvalidParameter, "{text:?}");
            assert_eq!(text.parse::<DeviceChoice>().unwrap_err().kind(), ErrorKind::InvalidParameter, "{text:?}");
        }
        assert_eq!("auto".parse::<Device>().unwrap_err().kind(), ErrorKind::InvalidParameter, "no device but a choice");
    }

    #[test]
    fn a_device_that_is_not_there_is_refused_when_it_is_opened_and_auto_never_is() {
        let session = cuda::support::session(0);
        let device: DeviceChoice = "cuda:4000000000".parse().unwrap();
        let error = device.resolve().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("cuda:4000000000") && error.remedy().is_some(), "{error}");

        assert_eq!(DeviceChoice::Auto.resolve().unwrap(), (Device::Cuda(0), None));
        session.set("devices", 0);
        session.restart(0);
        let (device, fallback) = DeviceChoice::Auto.resolve().unwrap();
        assert_eq!(device, Device::Host);
        assert!(fallback.is_some_and(|why| why.cause.contains("cuda:0") && !why.remedy.is_empty()));
    }
}
