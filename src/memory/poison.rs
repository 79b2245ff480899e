//! Tells AddressSanitizer which bytes are nobody's, so that a use of a region after its release shows although its memory
//! stays mapped. Does nothing where the build is not one of .ci/asan.

use std::ptr::NonNull;

#[cfg(forebay_asan)]
unsafe extern "C" {
    /// Of the sanitizer's runtime (sanitizer/asan_interface.h).
    fn __asan_poison_memory_region(start: *const std::ffi::c_void, len_bytes: usize);
    /// Likewise.
    fn __asan_unpoison_memory_region(start: *const std::ffi::c_void, len_bytes: usize);
}

/// Marks memory that is mapped as nobody's.
#[inline]
pub(super) fn poison(start: NonNull<u8>, len_bytes: usize) {
    #[cfg(forebay_asan)]
    // SAFETY: the runtime changes its own notes alone.
    unsafe {
        __asan_poison_memory_region(start.as_ptr().cast(), len_bytes);
    }
    let _ = (start, len_bytes);
}

/// Marks it as somebody's.
#[inline]
pub(super) fn unpoison(start: NonNull<u8>, len_bytes: usize) {
    #[cfg(forebay_asan)]
    // SAFETY: as in `poison`.
    unsafe {
        __asan_unpoison_memory_region(start.as_ptr().cast(), len_bytes);
    }
    let _ = (start, len_bytes);
}
