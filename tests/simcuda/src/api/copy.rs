//! Copies.

use std::ffi::c_void;

use super::{In, entries};
use crate::companion::Input;
use crate::driver::Locked;
use crate::host_bytes;
use crate::memory::Allocation;
use crate::race;
use crate::ranges::Ranges;
use crate::result::{Code, Outcome};
use crate::stream::{Op, Source, Target, Work};

/// What a program says of an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Host memory.
    Host,
    /// Device memory.
    Device,
    /// Whatever the address says.
    Either,
}

/// A copy as an entry point describes it.
#[derive(Clone, Copy)]
struct Request {
    name: &'static str,
    to: (Side, u64),
    from: (Side, u64),
    len: usize,
}

impl Locked {
    /// A copy that the call waits for, in the legacy stream. One within the device is not waited for.
    fn copy_now(&mut self, request: Request) -> Outcome {
        let stream = self.stream(0)?;
        self.copy_in(stream, request)?;
        if self.is_host(request.to)? || self.is_host(request.from)? { self.synchronize_stream(stream) } else { Ok(()) }
    }

    /// A copy in a stream's turn. One to pageable memory is waited for, as the reference has it.
    fn copy_later(&mut self, stream: u64, request: Request) -> Outcome {
        let stream = self.stream(stream)?;
        if self.copy_in(stream, request)? { self.synchronize_stream(stream) } else { Ok(()) }
    }

    /// Queues a copy, and says whether its target is pageable.
    fn copy_in(&mut self, stream: u64, request: Request) -> Outcome<bool> {
        let Request { name, to, from, len } = request;
        if len == 0 {
            return Ok(false);
        }
        if to.1 == 0 || from.1 == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let len = len as u64;
        if (to.0, from.0) == (Side::Device, Side::Device) && to.1 < from.1 + len && from.1 < to.1 + len {
            self.report("address", &format!("{name}: {len} bytes at {:#x} and {:#x} overlap", from.1, to.1));
        }
        let source = match self.is_pageable(name, from, len)? {
            // SAFETY: by the entry point's contract the program may read what it wants copied.
            true => Source::Staged(unsafe { std::slice::from_raw_parts(from.1 as *const u8, len as usize) }.to_vec()),
            false => Source::Memory(from.1, self.digest_now(from.1, len)),
        };
        let pageable = self.is_pageable(name, to, len)?;
        let target = if pageable { Target::Pageable(to.1) } else { Target::Memory(to.1, None) };
        self.queue(stream, name, Work::Copy { from: source, to: target, len })?;
        if !pageable {
            self.poison_target(stream, to.1, len);
        }
        Ok(pageable)
    }

    /// Whether an address is of host memory that is not page-locked.
    fn is_pageable(&mut self, name: &str, (side, address): (Side, u64), len: u64) -> Outcome<bool> {
        let memory = self.memory()?;
        let known = memory.at(address).map(|index| memory.get(index));
        let end = known.map_or(0, |allocation| allocation.base + allocation.len);
        let pageable = match (side, known.map(|allocation| allocation.is_host())) {
            (Side::Host, Some(false)) => false,
            (_, Some(true)) if address + len > end => {
                let what = known.map(|allocation| allocation.describe()).unwrap_or_default();
                let text = format!("{name}: {len} bytes at {address:#x} lie only partly in page-locked memory: {what}");
                self.report("address", &text);
                return Err(Code::INVALID_VALUE);
            }
            (_, Some(_)) => false,
            (Side::Device, None) => false,
            (Side::Host | Side::Either, None) => !memory.is_device(address),
        };
        if side == Side::Device && !pageable && known.is_none() && !memory.is_device(address) {
            self.report("address", &format!("{name}: {address:#x} is no device address"));
            return Err(Code::INVALID_VALUE);
        }
        Ok(pageable)
    }

    fn is_host(&self, (_, address): (Side, u64)) -> Outcome<bool> {
        let memory = self.memory()?;
        Ok(memory.at(address).map_or(!memory.is_device(address), |index| memory.get(index).is_host()))
    }

    /// The digest of page-locked memory, if only the host can change it before it is read.
    pub fn digest_now(&self, at: u64, len: u64) -> Option<u64> {
        let (allocation, offset) = self.host_memory(at, len)?;
        let bytes = Ranges::all(offset, offset + len);
        let written = self.queued_ops().any(|op| overlaps(&op.touches().1, at, len) || mentions(op, allocation));
        let unsettled = race::unfinished(allocation, &self.host, &bytes).any(|access| access.write);
        (!written && !unsettled).then(|| host_bytes::digest(allocation.bytes(offset), len))
    }

    /// What a companion library reads, as it is at the call.
    ///
    /// # Errors
    /// `NOT_INITIALIZED`.
    pub fn companion_input(&mut self, range: std::ops::Range<u64>) -> Outcome<Input> {
        let len = range.end - range.start;
        if len > 0 && self.is_pageable("simcuda_enqueue", (Side::Either, range.start), len)? {
            // SAFETY: the caller of `simcuda_enqueue` promised that pageable memory is readable.
            let bytes = unsafe { std::slice::from_raw_parts(range.start as *const u8, len as usize) };
            return Ok(Input::Staged(bytes.to_vec()));
        }
        let digest = self.digest_now(range.start, len);
        Ok(Input::Memory(range, digest))
    }

    /// Fills page-locked memory that the copy just queued will write, if nothing else can use it before.
    fn poison_target(&mut self, stream: u64, at: u64, len: u64) {
        let number = self.operations;
        let Some((allocation, offset)) = self.host_memory(at, len) else { return };
        let used = self.queued_ops().filter(|op| op.number != number).any(|op| {
            let (reads, writes) = op.touches();
            overlaps(&reads, at, len) || overlaps(&writes, at, len) || mentions(op, allocation)
        });
        let bytes = Ranges::all(offset, offset + len);
        if used || race::unfinished(allocation, &self.host, &bytes).next().is_some() {
            return;
        }
        // SAFETY: the range is in live page-locked memory that the program wants overwritten, and may not read before.
        let digest = unsafe { host_bytes::poison(allocation.bytes(offset), len, number) };
        let last = self.streams.get_mut(&stream).and_then(|stream| stream.queue.back_mut());
        if let Some(Op { work: Work::Copy { to: Target::Memory(_, poison), .. }, .. }) = last {
            *poison = Some(digest);
        }
    }

    /// Page-locked memory that these bytes lie in, and where, unless kernels use it, so that anything may happen there.
    fn host_memory(&self, at: u64, len: u64) -> Option<(&Allocation, u64)> {
        let memory = self.memory().ok()?;
        let allocation = memory.get(memory.find(at, len).ok()?);
        let foreseeable = allocation.is_host() && !allocation.used_by_kernels;
        foreseeable.then(|| (allocation, at - allocation.base))
    }

    fn queued_ops(&self) -> impl Iterator<Item = &Op> {
        self.streams.values().flat_map(|stream| &stream.queue)
    }
}

fn overlaps(ranges: &[std::ops::Range<u64>], at: u64, len: u64) -> bool {
    ranges.iter().any(|range| range.start < at + len && at < range.end)
}

/// Whether an operation may use an allocation in ways that are not known before it runs: a kernel given its address.
fn mentions(op: &Op, allocation: &Allocation) -> bool {
    match &op.work {
        Work::Launch(launch) => launch.params.chunks_exact(8).any(|word| {
            let word = u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
            (allocation.base..allocation.base + allocation.len).contains(&word)
        }),
        _ => false,
    }
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copy2d {
    from: Plane,
    to: Plane,
    width: usize,
    height: usize,
}

/// One side of it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Plane {
    x: usize,
    y: usize,
    kind: u32,
    host: u64,
    device: u64,
    array: u64,
    pitch: usize,
}

impl Plane {
    fn row(&self, row: usize) -> Outcome<(Side, u64)> {
        let (side, base) = match self.kind {
            1 => (Side::Host, self.host),
            2 => (Side::Device, self.device),
            4 => (Side::Either, self.device),
            _ => return Err(Code::NOT_SUPPORTED),
        };
        Ok((side, base + ((self.y + row) * self.pitch + self.x) as u64))
    }
}

impl Locked {
    /// A copy of rows: one copy each.
    fn copy_2d(&mut self, name: &'static str, stream: u64, copy: In<Copy2d>) -> Outcome<bool> {
        let Copy2d { from, to, width, height } = copy.get()?;
        if width > from.pitch && height > 1 && from.pitch != 0 || width > to.pitch && height > 1 && to.pitch != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let mut pageable = false;
        for row in 0..height {
            pageable |= self.copy_in(stream, Request { name, to: to.row(row)?, from: from.row(row)?, len: width })?;
        }
        Ok(pageable)
    }
}

entries! {
    fn cuMemcpy(to: u64, from: u64, len: usize) |d| {
        d.copy_now(Request { name: "cuMemcpy", to: (Side::Either, to), from: (Side::Either, from), len })
    }
    fn cuMemcpyAsync(to: u64, from: u64, len: usize, stream: u64) |d| {
        let request = Request { name: "cuMemcpyAsync", to: (Side::Either, to), from: (Side::Either, from), len };
        d.copy_later(stream, request)
    }
    fn cuMemcpyHtoD_v2(to: u64, from: u64, len: usize) |d| {
        d.copy_now(Request { name: "cuMemcpyHtoD", to: (Side::Device, to), from: (Side::Host, from), len })
    }
    fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, len: usize, stream: u64) |d| {
        let request = Request { name: "cuMemcpyHtoDAsync", to: (Side::Device, to), from: (Side::Host, from), len };
        d.copy_later(stream, request)
    }
    fn cuMemcpyDtoH_v2(to: u64, from: u64, len: usize) |d| {
        d.copy_now(Request { name: "cuMemcpyDtoH", to: (Side::Host, to), from: (Side::Device, from), len })
    }
    fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, len: usize, stream: u64) |d| {
        let request = Request { name: "cuMemcpyDtoHAsync", to: (Side::Host, to), from: (Side::Device, from), len };
        d.copy_later(stream, request)
    }
    fn cuMemcpyDtoD_v2(to: u64, from: u64, len: usize) |d| {
        d.copy_now(Request { name: "cuMemcpyDtoD", to: (Side::Device, to), from: (Side::Device, from), len })
    }
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, len: usize, stream: u64) |d| {
        let request = Request { name: "cuMemcpyDtoDAsync", to: (Side::Device, to), from: (Side::Device, from), len };
        d.copy_later(stream, request)
    }
    fn cuMemcpyPeer(to: u64, _to_context: u64, from: u64, _from_context: u64, len: usize) |d| {
        d.copy_now(Request { name: "cuMemcpyPeer", to: (Side::Device, to), from: (Side::Device, from), len })
    }
    fn cuMemcpyPeerAsync(to: u64, _to_context: u64, from: u64, _from_context: u64, len: usize, stream: u64) |d| {
        let request = Request { name: "cuMemcpyPeerAsync", to: (Side::Device, to), from: (Side::Device, from), len };
        d.copy_later(stream, request)
    }
    fn cuMemcpy2D_v2(copy: In<Copy2d>) |d| {
        let stream = d.stream(0)?;
        d.copy_2d("cuMemcpy2D", stream, copy)?;
        d.synchronize_stream(stream)
    }
    fn cuMemcpy2DUnaligned_v2(copy: In<Copy2d>) |d| {
        let stream = d.stream(0)?;
        d.copy_2d("cuMemcpy2DUnaligned", stream, copy)?;
        d.synchronize_stream(stream)
    }
    fn cuMemcpy2DAsync_v2(copy: In<Copy2d>, stream: u64) |d| {
        let stream = d.stream(stream)?;
        if d.copy_2d("cuMemcpy2DAsync", stream, copy)? { d.synchronize_stream(stream) } else { Ok(()) }
    }
}

const _: () = assert!(size_of::<Copy2d>() == 16 * 8 && size_of::<*mut c_void>() == 8);
