//! The numbers of an asynchronous read, which the library takes when the read has its turn in its stream, and where it puts
//! how many bytes were read.

use std::ffi::c_uint;

use cufile_sys::sys::*;

use crate::driver::report;
use crate::read::{Outcome, Request};

/// What is found where the bytes that were read will be told, until they are.
const NOT_YET: isize = isize::MIN + 0x5EED;

/// Where they are, and what they were at the call.
pub struct Numbers {
    size: *mut usize,
    file_offset: *mut off_t,
    base_offset: *mut off_t,
    bytes_read: *mut isize,
    at_call: (usize, off_t, off_t),
    /// Of the stream: which of them were taken at the call.
    flags: c_uint,
}

// SAFETY: the program promised that they stay until its stream has come past the read.
unsafe impl Send for Numbers {}

impl Numbers {
    /// Takes them; none if one is null.
    ///
    /// # Safety
    /// Those that are not null are valid until the stream has come past the read.
    pub unsafe fn take(
        size: *mut usize,
        file_offset: *mut off_t,
        base_offset: *mut off_t,
        bytes_read: *mut isize,
        flags: c_uint,
    ) -> Option<Self> {
        if size.is_null() || file_offset.is_null() || base_offset.is_null() || bytes_read.is_null() {
            return None;
        }
        // SAFETY: as this function demands.
        let at_call = unsafe { (*size, *file_offset, *base_offset) };
        Some(Self { size, file_offset, base_offset, bytes_read, at_call, flags })
    }

    /// What is asked for.
    pub fn request(&self, handle: usize, base: u64) -> Request {
        let (size, file_offset, base_offset) = self.at_call;
        Request { handle, base, base_offset, file_offset, size }
    }

    /// Makes it known that nothing was read yet.
    pub fn mark(&self) {
        self.tell(NOT_YET);
    }

    /// Tells what was read, or why nothing was.
    pub fn tell(&self, answer: isize) {
        // SAFETY: as `take` demands.
        unsafe { self.bytes_read.write_volatile(answer) };
    }

    /// Reports numbers that changed since the call, and tells what was read.
    pub fn finish(&self, name: &str, outcome: Outcome) {
        // SAFETY: as `take` demands.
        let now =
            unsafe { (self.size.read_volatile(), self.file_offset.read_volatile(), self.base_offset.read_volatile()) };
        let changed = [
            (now.0 != self.at_call.0, CU_FILE_STREAM_FIXED_FILE_SIZE, "size"),
            (now.1 != self.at_call.1, CU_FILE_STREAM_FIXED_FILE_OFFSET, "file offset"),
            (now.2 != self.at_call.2, CU_FILE_STREAM_FIXED_BUF_OFFSET, "buffer offset"),
        ];
        for (_, _, what) in changed.iter().filter(|(changed, fixed, _)| *changed && self.flags & fixed == 0) {
            report("order", &format!("{name}: its {what} was changed before its turn in the stream"));
        }
        // SAFETY: as `take` demands.
        if unsafe { self.bytes_read.read_volatile() } != NOT_YET {
            report("order", &format!("{name}: the host wrote to its count of bytes before its turn in the stream"));
        }
        self.tell(outcome.in_stream());
    }
}

impl Outcome {
    /// As asynchronous reads tell it.
    fn in_stream(self) -> isize {
        match self {
            Self::Bytes(bytes) => bytes as isize,
            Self::Os(errno) => -(errno as isize),
            Self::Failed(code) => -(code.0 as isize),
            Self::Cancelled => -(CUfileOpError::CU_FILE_INTERNAL_ERROR.0 as isize),
        }
    }
}
