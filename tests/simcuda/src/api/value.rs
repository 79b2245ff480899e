//! Stream memory operations: values that a stream waits for, and writes. The names without `_v2` are those of CUDA 11, which
//! wanted a module parameter for them.

use std::ffi::c_uint;

use super::entries;
use crate::driver::Locked;
use crate::result::{Code, Outcome};
use crate::stream::Work;
use crate::value::ValueWait;

/// `CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER`: what the stream did before need not be seen by who sees the value.
const NO_BARRIER: c_uint = 1;

impl Locked {
    fn wait_for_value(&mut self, name: &str, stream: u64, at: u64, bytes: u64, value: u64, flags: c_uint) -> Outcome {
        let stream = self.stream(stream)?;
        let wait = ValueWait::new(at, bytes, value, flags)?;
        self.queue(stream, name, Work::WaitValue(wait))
    }

    fn write_value(&mut self, name: &str, stream: u64, at: u64, bytes: u64, value: u64, flags: c_uint) -> Outcome {
        let stream = self.stream(stream)?;
        if flags & !NO_BARRIER != 0 || at == 0 || !at.is_multiple_of(bytes) {
            return Err(Code::INVALID_VALUE);
        }
        self.queue(stream, name, Work::WriteValue { at, bytes, value, tells: flags & NO_BARRIER == 0 })
    }
}

entries! {
    fn cuStreamWaitValue32(stream: u64, at: u64, value: u32, flags: c_uint) |d| {
        d.wait_for_value("cuStreamWaitValue32", stream, at, 4, value.into(), flags)
    }
    fn cuStreamWaitValue32_v2(stream: u64, at: u64, value: u32, flags: c_uint) |d| {
        d.wait_for_value("cuStreamWaitValue32", stream, at, 4, value.into(), flags)
    }
    fn cuStreamWaitValue64(stream: u64, at: u64, value: u64, flags: c_uint) |d| {
        d.wait_for_value("cuStreamWaitValue64", stream, at, 8, value, flags)
    }
    fn cuStreamWaitValue64_v2(stream: u64, at: u64, value: u64, flags: c_uint) |d| {
        d.wait_for_value("cuStreamWaitValue64", stream, at, 8, value, flags)
    }
    fn cuStreamWriteValue32(stream: u64, at: u64, value: u32, flags: c_uint) |d| {
        d.write_value("cuStreamWriteValue32", stream, at, 4, value.into(), flags)
    }
    fn cuStreamWriteValue32_v2(stream: u64, at: u64, value: u32, flags: c_uint) |d| {
        d.write_value("cuStreamWriteValue32", stream, at, 4, value.into(), flags)
    }
    fn cuStreamWriteValue64(stream: u64, at: u64, value: u64, flags: c_uint) |d| {
        d.write_value("cuStreamWriteValue64", stream, at, 8, value, flags)
    }
    fn cuStreamWriteValue64_v2(stream: u64, at: u64, value: u64, flags: c_uint) |d| {
        d.write_value("cuStreamWriteValue64", stream, at, 8, value, flags)
    }
}
