//! A device that is open: context, kernels, streams, events, memory.

use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags::{CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING};
use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream};

use super::error::{OUT_OF_MEMORY, OUT_OF_MEMORY_REMEDY, error};
use super::module::{Kernel, KernelName, Module};
use super::probe::{CudaProbe, probe};
use crate::error::{Error, ErrorKind, Result};

/// The oldest compute capability that the kernels are built for.
const CAPABILITY_MIN: (u32, u32) = (7, 5);
/// The oldest driver: the first whose compiler reads the kernels' PTX.
const DRIVER_MIN: (u32, u32) = (12, 0);

/// A device with its context and our kernels loaded. Cloning clones a handle; any thread may use it.
///
/// The context is the device's primary one, which CUDA programs share, so that its memory is theirs to read.
#[derive(Clone)]
pub(crate) struct Gpu(Arc<Inner>);

struct Inner {
    // Before the context, which it lives in.
    module: Module,
    context: Arc<CudaContext>,
}

impl Gpu {
    /// Opens a device by its ordinal.
    ///
    /// # Errors
    ///
    /// `Unavailable` where there is no driver, no such device, or one that is too old; `OutOfMemory`.
    pub(crate) fn open(ordinal: u32) -> Result<Self> {
        check(ordinal, &probe())?;
        let context = CudaContext::new(ordinal as usize).map_err(|code| {
            error("cuDevicePrimaryCtxRetain", code).with_remedy("see what `nvidia-smi` says of the device")
        })?;
        // SAFETY: `Output` orders what several streams touch; every other allocation belongs to one stream.
        unsafe { context.disable_event_tracking() };
        let module = Module::load(&context)?;
        Ok(Self(Arc::new(Inner { module, context })))
    }

    /// cudarc's context, which tracks no events.
    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    /// The device's ordinal.
    pub(crate) fn ordinal(&self) -> u32 {
        self.0.context.ordinal() as u32
    }

    /// Its place on the PCI bus, as sysfs names it: `0000:17:00.0`.
    pub(crate) fn pci_place(&self) -> Option<String> {
        use cudarc::driver::sys::CUdevice_attribute as Attribute;
        let attribute = |which| self.0.context.attribute(which).ok();
        let domain = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?;
        let bus = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?;
        let device = attribute(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?;
        Some(format!("{domain:04x}:{bus:02x}:{device:02x}.0"))
    }

    /// Whether it is the simulated driver's of tests/simcuda.
    pub(crate) fn is_simulated(&self) -> bool {
        self.0.context.name().is_ok_and(|name| name == super::probe::SIMULATED)
    }

    /// One of our kernels.
    pub(crate) fn kernel(&self, which: KernelName) -> &Kernel {
        self.0.module.kernel(which)
    }

    /// A new stream that does not wait for the default stream.
    pub(crate) fn stream(&self) -> Result<Arc<CudaStream>> {
        self.0.context.new_stream().map_err(|code| error("cuStreamCreate", code))
    }

    /// A new event for streams to wait for.
    pub(crate) fn event(&self) -> Result<CudaEvent> {
        let event = self.0.context.new_event(Some(CU_EVENT_DISABLE_TIMING));
        event.map_err(|code| error("cuEventCreate", code))
    }

    /// A new event for a thread to wait for, which sleeps meanwhile. (cudarc's flags cannot be joined, so it takes
    /// the time as well, which costs a stream nothing that can be seen once a batch.)
    pub(crate) fn host_event(&self) -> Result<CudaEvent> {
        let event = self.0.context.new_event(Some(CU_EVENT_BLOCKING_SYNC));
        event.map_err(|code| error("cuEventCreate", code))
    }

    /// Memory to be used in the stream's order, freed in it too. Its content is whatever was there.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` says how much was requested and how much is free.
    pub(crate) fn alloc(&self, stream: &Arc<CudaStream>, len_bytes: usize) -> Result<CudaSlice<u8>> {
        // The driver refuses to allocate nothing.
        // SAFETY: bytes have no invalid values; who reads them before they are written reads old bytes of the device.
        let slice = unsafe { stream.alloc::<u8>(len_bytes.max(1)) };
        slice.map_err(|code| match code.0 as u32 {
            OUT_OF_MEMORY => self.out_of_memory(len_bytes),
            _ => error("cuMemAllocAsync", code),
        })
    }

    /// The error of an allocation that found no room.
    pub(super) fn out_of_memory(&self, len_bytes: usize) -> Error {
        let free = match self.memory() {
            Ok((free, total)) => format!("{free} of its {total} are free"),
            Err(_) => "it does not say how many are free".to_owned(),
        };
        let message = format!("device cuda:{} has no {len_bytes} bytes: {free}", self.ordinal());
        Error::new(ErrorKind::OutOfMemory, message).with_remedy(OUT_OF_MEMORY_REMEDY)
    }

    /// Bytes of its memory: free, and in all.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let (free, total) = self.0.context.mem_get_info().map_err(|code| error("cuMemGetInfo", code))?;
        Ok((free as u64, total as u64))
    }
}

/// Whether the driver has this device, and both are new enough.
fn check(ordinal: u32, probe: &CudaProbe) -> Result<()> {
    let unavailable = |cause: String, remedy: &str| {
        let message = format!("device cuda:{ordinal} is not available: {cause}");
        Err(Error::new(ErrorKind::Unavailable, message).with_remedy(remedy))
    };
    let (version, devices) = match probe {
        CudaProbe::Devices { version, devices } => (*version, devices),
        CudaProbe::NoDriver => {
            return unavailable(
                probe.to_string(),
                "install NVIDIA's driver; in a container, start it with --gpus all; or use the device host or auto",
            );
        }
        CudaProbe::Failed { .. } => {
            return unavailable(
                probe.to_string(),
                "see what `nvidia-smi` says; after a driver update, reboot; in a container, start it with --gpus all; \
                 or use the device host or auto",
            );
        }
    };
    let Some(device) = devices.get(ordinal as usize) else {
        let cause = match devices.len() {
            0 => "the driver offers none".to_owned(),
            count => format!("the driver offers {count}, the last is cuda:{}", count - 1),
        };
        return unavailable(cause, "look at CUDA_VISIBLE_DEVICES and `nvidia-smi -L`, or use the device host or auto");
    };
    if version < DRIVER_MIN {
        let ((major, minor), (needed, _)) = (version, DRIVER_MIN);
        let cause = format!("its driver supports CUDA {major}.{minor}, and the kernels need {needed}.0");
        return unavailable(cause, "update NVIDIA's driver to 525 or later, or use the device host or auto");
    }
    if device.compute_capability < CAPABILITY_MIN {
        let ((major, minor), (needed, needed_minor)) = (device.compute_capability, CAPABILITY_MIN);
        let cause = format!(
            "{} has compute capability {major}.{minor}, and the kernels need {needed}.{needed_minor}",
            device.name
        );
        return unavailable(cause, "use a device of the Turing generation or later, or the device host or auto");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::CudaDevice;

    fn devices(version: (u32, u32), compute_capability: (u32, u32)) -> CudaProbe {
        let device = CudaDevice { name: "Some GPU".into(), memory_bytes: 1 << 34, compute_capability };
        CudaProbe::Devices { version, devices: vec![device] }
    }

    #[test]
    fn what_is_missing_or_too_old_is_named_with_a_remedy() {
        let failed = CudaProbe::Failed { call: "cuInit", error: "CUDA_ERROR_NO_DEVICE".into() };
        let none = CudaProbe::Devices { version: (12, 4), devices: Vec::new() };
        for (ordinal, probe, cause) in [
            (0, CudaProbe::NoDriver, "libcuda.so.1"),
            (0, failed, "CUDA_ERROR_NO_DEVICE"),
            (0, none, "offers none"),
            (1, devices((12, 4), (8, 0)), "the last is cuda:0"),
            (0, devices((11, 8), (8, 0)), "CUDA 11.8"),
            (0, devices((12, 4), (7, 0)), "compute capability 7.0"),
        ] {
            let error = check(ordinal, &probe).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let text = error.to_string();
            assert!(text.contains(cause) && text.contains(&format!("cuda:{ordinal}")), "{text}");
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("host")), "{text}");
        }
        assert!(check(0, &devices((12, 0), (7, 5))).is_ok());
    }
}
