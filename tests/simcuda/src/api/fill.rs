//! Filling memory. Neither kind of call waits for the device, unless the memory is the host's.

use super::entries;
use crate::driver::Locked;
use crate::result::{Code, Outcome};
use crate::stream::Work;

impl Locked {
    fn fill_now(&mut self, name: &str, at: u64, pattern: &[u8], count: usize) -> Outcome {
        let stream = self.stream(0)?;
        self.fill_rows(name, stream, at, pattern, [0, count, 1])?;
        let memory = self.memory()?;
        let host = memory.at(at).is_some_and(|index| memory.get(index).is_host());
        if host { self.synchronize_stream(stream) } else { Ok(()) }
    }

    fn fill_later(&mut self, name: &str, at: u64, pattern: &[u8], count: usize, stream: u64) -> Outcome {
        let stream = self.stream(stream)?;
        self.fill_rows(name, stream, at, pattern, [0, count, 1])
    }

    /// Fills rows of elements: pitch in bytes, width, height.
    fn fill_rows(
        &mut self,
        name: &str,
        stream: u64,
        at: u64,
        pattern: &[u8],
        [pitch, width, height]: [usize; 3],
    ) -> Outcome {
        let len = width.checked_mul(pattern.len()).ok_or(Code::INVALID_VALUE)? as u64;
        if len == 0 || height == 0 {
            return Ok(());
        }
        if at == 0 || !at.is_multiple_of(pattern.len() as u64) || height > 1 && (pitch as u64) < len {
            return Err(Code::INVALID_VALUE);
        }
        for row in 0..height {
            let at = at + (row * pitch) as u64;
            self.queue(stream, name, Work::Fill { at, pattern: pattern.to_vec(), len })?;
        }
        Ok(())
    }
}

entries! {
    fn cuMemsetD8_v2(at: u64, value: u8, count: usize) |d| {
        d.fill_now("cuMemsetD8", at, &value.to_le_bytes(), count)
    }
    fn cuMemsetD16_v2(at: u64, value: u16, count: usize) |d| {
        d.fill_now("cuMemsetD16", at, &value.to_le_bytes(), count)
    }
    fn cuMemsetD32_v2(at: u64, value: u32, count: usize) |d| {
        d.fill_now("cuMemsetD32", at, &value.to_le_bytes(), count)
    }
    fn cuMemsetD8Async(at: u64, value: u8, count: usize, stream: u64) |d| {
        d.fill_later("cuMemsetD8Async", at, &value.to_le_bytes(), count, stream)
    }
    fn cuMemsetD16Async(at: u64, value: u16, count: usize, stream: u64) |d| {
        d.fill_later("cuMemsetD16Async", at, &value.to_le_bytes(), count, stream)
    }
    fn cuMemsetD32Async(at: u64, value: u32, count: usize, stream: u64) |d| {
        d.fill_later("cuMemsetD32Async", at, &value.to_le_bytes(), count, stream)
    }
    fn cuMemsetD2D8_v2(at: u64, pitch: usize, value: u8, width: usize, height: usize) |d| {
        let stream = d.stream(0)?;
        d.fill_rows("cuMemsetD2D8", stream, at, &value.to_le_bytes(), [pitch, width, height])
    }
    fn cuMemsetD2D16_v2(at: u64, pitch: usize, value: u16, width: usize, height: usize) |d| {
        let stream = d.stream(0)?;
        d.fill_rows("cuMemsetD2D16", stream, at, &value.to_le_bytes(), [pitch, width, height])
    }
    fn cuMemsetD2D32_v2(at: u64, pitch: usize, value: u32, width: usize, height: usize) |d| {
        let stream = d.stream(0)?;
        d.fill_rows("cuMemsetD2D32", stream, at, &value.to_le_bytes(), [pitch, width, height])
    }
    fn cuMemsetD2D8Async(at: u64, pitch: usize, value: u8, width: usize, height: usize, stream: u64) |d| {
        let stream = d.stream(stream)?;
        d.fill_rows("cuMemsetD2D8Async", stream, at, &value.to_le_bytes(), [pitch, width, height])
    }
    fn cuMemsetD2D16Async(at: u64, pitch: usize, value: u16, width: usize, height: usize, stream: u64) |d| {
        let stream = d.stream(stream)?;
        d.fill_rows("cuMemsetD2D16Async", stream, at, &value.to_le_bytes(), [pitch, width, height])
    }
    fn cuMemsetD2D32Async(at: u64, pitch: usize, value: u32, width: usize, height: usize, stream: u64) |d| {
        let stream = d.stream(stream)?;
        d.fill_rows("cuMemsetD2D32Async", stream, at, &value.to_le_bytes(), [pitch, width, height])
    }
}
