//! What the driver's result codes mean to a caller.

use cudarc::driver::DriverError;

use crate::error::{Error, ErrorKind};

/// The error of a call. It names the code alone: cudarc would ask the driver for words, one more call that may fail
/// and that panics where there is no driver.
pub(crate) fn error(call: &str, DriverError(code): DriverError) -> Error {
    let message = format!("{call} says {code:?}");
    match code as u32 {
        OUT_OF_MEMORY => Error::new(ErrorKind::OutOfMemory, message).with_remedy(OUT_OF_MEMORY_REMEDY),
        lost if is_sticky(lost) => Error::new(ErrorKind::DeviceLost, message).with_remedy(
            "start the process again, since no CUDA call of this one can succeed any more; \
             `dmesg` and `nvidia-smi -q` tell a failed device from a failed kernel",
        ),
        _ => Error::new(ErrorKind::Internal, message),
    }
}

/// What to do where device memory does not suffice.
pub(super) const OUT_OF_MEMORY_REMEDY: &str =
    "use a smaller batch, fewer slots or smaller outputs, or end what else uses the device";

pub(super) const OUT_OF_MEMORY: u32 = 2;

/// Codes after which every call in the context fails: the driver's documentation says of each that the
/// process must be started again. By number, since cudarc's enumeration depends on the version it is built for.
fn is_sticky(code: u32) -> bool {
    matches!(
        code,
        46        // DEVICE_UNAVAILABLE
        | 214     // ECC_UNCORRECTABLE
        | 220     // NVLINK_UNCORRECTABLE
        | 700     // ILLEGAL_ADDRESS
        | 702     // LAUNCH_TIMEOUT
        | 709     // CONTEXT_IS_DESTROYED
        | 710     // ASSERT
        | 714
            ..=719 // HARDWARE_STACK_ERROR, ILLEGAL_INSTRUCTION, MISALIGNED_ADDRESS, INVALID_ADDRESS_SPACE, INVALID_PC,
                   // LAUNCH_FAILED
        | 721 // CONTAINED
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cudarc::driver::sys::CUresult;

    #[test]
    fn codes_become_kinds_and_no_driver_is_needed_to_name_them() {
        for (code, kind) in [
            (CUresult::CUDA_ERROR_OUT_OF_MEMORY, ErrorKind::OutOfMemory),
            (CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, ErrorKind::DeviceLost),
            (CUresult::CUDA_ERROR_LAUNCH_FAILED, ErrorKind::DeviceLost),
            (CUresult::CUDA_ERROR_ECC_UNCORRECTABLE, ErrorKind::DeviceLost),
            (CUresult::CUDA_ERROR_INVALID_VALUE, ErrorKind::Internal),
            (CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, ErrorKind::Internal),
        ] {
            let error = error("cuLaunchKernel", DriverError(code));
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains("cuLaunchKernel says CUDA_ERROR_"), "{error}");
            assert!(!error.is_retryable(), "{error}");
        }
    }
}
