//! NVIDIA's own library, which needs no driver to be opened and asked. `.ci/real-libraries` fetches it and says which version
//! it is by `FOREBAY_NVJPEG_VERSION`; without that there is nothing to test.

use std::ffi::{c_int, c_void};
use std::ptr;

use nvjpeg_sys::sys::*;
use nvjpeg_sys::{Error, Library};

fn library() -> Option<(&'static Library, String)> {
    let Ok(version) = std::env::var("FOREBAY_NVJPEG_VERSION") else {
        eprintln!("skipped: FOREBAY_NVJPEG_VERSION is not set");
        return None;
    };
    Some((Library::open().unwrap_or_else(|error| panic!("{error}")), version))
}

#[test]
fn it_is_found_by_name_and_has_every_function() {
    let Some((library, expected)) = library() else { return };
    assert_eq!(library.missing(), Vec::<&str>::new());
    assert_eq!(library.version().map(|numbers| numbers.map(|number| number.to_string()).join(".")), Ok(expected));
}

#[test]
fn without_a_driver_it_refuses_by_a_status_with_a_name() {
    let Some((library, _)) = library() else { return };
    let context = ptr::null_mut();
    let mut device =
        nvjpegDevAllocatorV2_t { dev_malloc: Some(no_memory), dev_free: Some(free_nothing), dev_ctx: context };
    let mut pinned = nvjpegPinnedAllocatorV2_t {
        pinned_malloc: Some(no_memory),
        pinned_free: Some(free_nothing),
        pinned_ctx: context,
    };
    for backend in [
        nvjpegBackend_t::NVJPEG_BACKEND_HYBRID,
        nvjpegBackend_t::NVJPEG_BACKEND_HARDWARE,
        nvjpegBackend_t::NVJPEG_BACKEND_GPU_HYBRID_DEVICE,
        nvjpegBackend_t::NVJPEG_BACKEND_HARDWARE_DEVICE,
    ] {
        let mut handle = ptr::null_mut();
        // SAFETY: the allocators outlive the handle, which is valid for a write.
        let made = unsafe { library.nvjpegCreateExV2(backend, &mut device, &mut pinned, 0, &mut handle) };
        match made {
            // SAFETY: the handle is live, and nothing was made with it.
            Ok(()) => unsafe { library.nvjpegDestroy(handle) }.unwrap(),
            Err(error @ Error::Failed { call: "nvjpegCreateExV2", status }) => {
                assert_ne!(status, nvjpegStatus_t::NVJPEG_STATUS_SUCCESS);
                assert_ne!(status, nvjpegStatus_t::NVJPEG_STATUS_INVALID_PARAMETER);
                assert!(error.to_string().contains("NVJPEG_STATUS_"), "{error}");
                println!("{error}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

unsafe extern "C" fn no_memory(_: *mut c_void, _: *mut *mut c_void, _: usize, _: cudaStream_t) -> c_int {
    2 // cudaErrorMemoryAllocation
}

unsafe extern "C" fn free_nothing(_: *mut c_void, _: *mut c_void, _: usize, _: cudaStream_t) -> c_int {
    0
}
