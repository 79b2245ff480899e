//! What the CUDA driver of this machine offers, found at run time and without a panic where it is missing.

use std::fmt;

use cudarc::driver::{result, sys};

/// The name of the simulated driver's devices.
pub(super) const SIMULATED: &str = "simcuda";

/// How far the CUDA driver got.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CudaProbe {
    /// The dynamic linker finds no `libcuda.so.1`.
    NoDriver,
    /// The library is there, but a call to it failed: no device, or a kernel module of another version.
    Failed {
        /// The call.
        call: &'static str,
        /// Its result, such as `CUDA_ERROR_NO_DEVICE`.
        error: String,
    },
    /// The driver works.
    Devices {
        /// The CUDA version that the driver supports: major and minor.
        version: (u32, u32),
        /// The devices by ordinal; may be none.
        devices: Vec<CudaDevice>,
    },
}

/// One device as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaDevice {
    /// The product's name.
    pub name: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Compute capability: major and minor.
    pub compute_capability: (u32, u32),
}

impl CudaDevice {
    /// Whether it is the simulated driver's of tests/simcuda, whose pixels are right and whose speed means nothing.
    pub fn is_simulated(&self) -> bool {
        self.name == SIMULATED
    }
}

impl CudaProbe {
    /// The devices, none where the driver does not work.
    pub fn devices(&self) -> &[CudaDevice] {
        match self {
            Self::Devices { devices, .. } => devices,
            _ => &[],
        }
    }
}

impl fmt::Display for CudaProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str("no CUDA driver is installed (libcuda.so.1 is not found)"),
            Self::Failed { call, error } => write!(f, "the CUDA driver is installed, but {call} says {error}"),
            Self::Devices { version: (major, minor), devices } => {
                write!(f, "CUDA {major}.{minor} driver, {} device(s)", devices.len())
            }
        }
    }
}

/// Asks the driver. Loads `libcuda` and initialises it, which takes up to a second where there is a
/// device; creates no context. From any thread, as often as wanted.
pub fn probe() -> CudaProbe {
    // SAFETY: loads the driver's library, whose initialisers any CUDA program runs, and closes it.
    if !unsafe { sys::is_culib_present() } {
        return CudaProbe::NoDriver;
    }
    // From here on cudarc finds the library, so none of its calls panics for want of it. Errors are named
    // by their code alone: asking the driver for words is one more call that may fail.
    match ask() {
        Ok(devices) => devices,
        Err((call, error)) => CudaProbe::Failed { call, error: format!("{:?}", error.0) },
    }
}

type Failure = (&'static str, result::DriverError);

fn ask() -> Result<CudaProbe, Failure> {
    let failed = |call| move |error| (call, error);
    result::init().map_err(failed("cuInit"))?;
    let mut version = 0;
    // SAFETY: the argument is valid for writing an int, all that the call asks for.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    let devices = (0..count).map(describe).collect::<Result<_, _>>()?;
    Ok(CudaProbe::Devices { version: (version as u32 / 1000, version as u32 % 1000 / 10), devices })
}

fn describe(ordinal: i32) -> Result<CudaDevice, Failure> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let failed = |call| move |error| (call, error);
    let device = result::device::get(ordinal).map_err(failed("cuDeviceGet"))?;
    let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
    // SAFETY: `device` came from cuDeviceGet.
    let memory_bytes = unsafe { result::device::total_mem(device) }.map_err(failed("cuDeviceTotalMem"))? as u64;
    let attribute = |which| {
        // SAFETY: `device` came from cuDeviceGet.
        let value = unsafe { result::device::get_attribute(device, which) };
        value.map(|value| value as u32).map_err(failed("cuDeviceGetAttribute"))
    };
    Ok(CudaDevice { name, memory_bytes, compute_capability: (attribute(MAJOR)?, attribute(MINOR)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_never_panics_and_always_says_something() {
        let _driver = crate::device::cuda::support::session(0);
        let first = probe();
        assert_eq!(first, probe(), "asking again gives the same answer");
        assert!(!first.to_string().is_empty());
    }

    #[test]
    fn a_driver_that_fails_is_told_from_one_that_is_missing() {
        let failed = CudaProbe::Failed { call: "cuInit", error: "CUDA_ERROR_NO_DEVICE".into() };
        assert!(failed.to_string().contains("cuInit says CUDA_ERROR_NO_DEVICE"), "{failed}");
        assert!(CudaProbe::NoDriver.to_string().contains("libcuda.so.1"));
        assert!(failed.devices().is_empty());
    }
}
