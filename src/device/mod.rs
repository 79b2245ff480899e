//! The device that tensors are born on.

pub mod cuda;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Where the tensors of a batch lie.
///
/// As text: `host`, or `auto` for the best there is. `cuda:N` is understood, and refused as long as the
/// CUDA path is not part of this build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// Host memory; everything is computed on the CPU.
    #[default]
    Host,
}

impl Device {
    /// The best device that this build can use on this machine: at present always the host.
    pub fn auto() -> Self {
        Self::Host
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// # Errors
    ///
    /// `InvalidParameter` for what is no device at all; `Unavailable` for a CUDA device that this machine
    /// lacks; `Unsupported` for one that is there.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "host" => return Ok(Self::Host),
            "auto" => return Ok(Self::auto()),
            _ => {}
        }
        let ordinal = match text.strip_prefix("cuda") {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix(':').and_then(|number| number.parse::<u32>().ok()),
            None => None,
        };
        match ordinal {
            Some(ordinal) => Err(no_cuda(ordinal)),
            None => {
                Err(Error::invalid_parameter("device", format_args!("{text:?}"), "host, auto or cuda:N is allowed"))
            }
        }
    }
}

fn no_cuda(ordinal: u32) -> Error {
    let remedy = "use the device host or auto";
    match cuda::probe() {
        cuda::CudaProbe::Devices { devices, .. } if (ordinal as usize) < devices.len() => Error::new(
            ErrorKind::Unsupported,
            format!("device cuda:{ordinal} is there, but this version computes on the host only"),
        ),
        cuda::CudaProbe::Devices { devices, .. } => Error::new(
            ErrorKind::Unavailable,
            format!("device cuda:{ordinal} does not exist: this machine has {}", devices.len()),
        ),
        missing => Error::new(ErrorKind::Unavailable, format!("device cuda:{ordinal} is not available: {missing}")),
    }
    .with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_what_their_names_say() {
        assert_eq!("host".parse::<Device>().unwrap(), Device::Host);
        assert_eq!("auto".parse::<Device>().unwrap(), Device::Host);
        assert_eq!(Device::Host.to_string().parse::<Device>().unwrap(), Device::Host);
    }

    #[test]
    fn a_name_that_is_no_device_is_an_invalid_parameter() {
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "HOST", "cuda0"] {
            assert_eq!(text.parse::<Device>().unwrap_err().kind(), ErrorKind::InvalidParameter, "{text:?}");
        }
    }

    #[test]
    fn a_cuda_device_is_refused_with_cause_and_remedy() {
        let error = "cuda:4000000000".parse::<Device>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("cuda:4000000000") && error.remedy().is_some(), "{error}");
    }
}
