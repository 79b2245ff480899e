//! Whole batches in one call: of files on the host, or in device memory.

use std::sync::{Arc, Mutex, PoisonError};

use nvjpeg_sys::sys::*;

use crate::api::{
    BAD_JPEG, EXECUTION_FAILED, HARDWARE_SALT, HYBRID_SALT, NOT_SUPPORTED, bytes, check_destination, frame, on_device,
    planes_len, queue, region, use_on,
};
use crate::driver::{Range, driver, refuse, report};
use crate::image::{self, Frame, Region};
use crate::objects::{Answer, Buffer, Handle, Objects};
use crate::work::{self, Pending};

const JPEG_NOT_SUPPORTED: nvjpegStatus_t = nvjpegStatus_t::NVJPEG_STATUS_JPEG_NOT_SUPPORTED;

/// The arrays of a batched call.
pub struct Batch<'a> {
    pub data: &'a [*const u8],
    pub lengths: &'a [usize],
    pub destinations: &'a [nvjpegImage_t],
    /// Which parts; whole images without.
    pub params: Option<&'a [nvjpegDecodeParams_t]>,
}

/// A batched call: its name, and the stream that it was given.
#[derive(Clone, Copy)]
pub struct Call {
    pub name: &'static str,
    pub stream: u64,
}

/// Whether a backend's batches are work of the engine, which keeps to no stream's order.
pub fn is_hardware(backend: nvjpegBackend_t) -> bool {
    [nvjpegBackend_t::NVJPEG_BACKEND_HARDWARE, nvjpegBackend_t::NVJPEG_BACKEND_HARDWARE_DEVICE].contains(&backend)
}

/// Whether its batches lie in device memory.
fn is_device(backend: nvjpegBackend_t) -> bool {
    [nvjpegBackend_t::NVJPEG_BACKEND_GPU_HYBRID_DEVICE, nvjpegBackend_t::NVJPEG_BACKEND_HARDWARE_DEVICE]
        .contains(&backend)
}

/// Whether a backend's batches may hold such an image.
pub fn takes(backend: nvjpegBackend_t, frame: &Frame) -> bool {
    match backend {
        backend if is_hardware(backend) => frame.suits_hardware(),
        nvjpegBackend_t::NVJPEG_BACKEND_GPU_HYBRID_DEVICE => frame.process == 0xC0 && !frame.has_restarts,
        _ => false,
    }
}

/// Decodes a batch: as work on the stream, or beside it if the engine's.
pub fn decode(all: &mut Objects, call: Call, handle: usize, state: usize, batch: &Batch<'_>) -> Answer {
    let library = on_device(call.name, all, handle)?;
    let suits = match batch.params {
        Some(_) => library.backend == nvjpegBackend_t::NVJPEG_BACKEND_HARDWARE,
        None => is_hardware(library.backend) || is_device(library.backend),
    };
    if !suits {
        return Err(NOT_SUPPORTED);
    }
    let found = all.state(call.name, state)?;
    if found.pending.is_pending() {
        report("order", &format!("{}: the state still decodes", call.name));
    }
    use_on(call.name, found, call.stream);
    if !is_hardware(library.backend) {
        return decode_on(all, call, &library, state, batch);
    }
    let driver = driver().ok_or(EXECUTION_FAILED)?;
    let side = driver.side_stream(call.stream).ok_or(EXECUTION_FAILED)?;
    let decoded = decode_on(all, Call { stream: side, ..call }, &library, state, batch);
    // Also where it failed, so that the side stream ends.
    if driver.join(call.stream, side) { decoded } else { decoded.and(Err(EXECUTION_FAILED)) }
}

/// A batch that fails at one of its images is decoded up to that one, as a library may that finds out on its way.
fn decode_on(all: &mut Objects, call: Call, library: &Handle, state: usize, batch: &Batch<'_>) -> Answer {
    let frames = match is_device(library.backend) {
        true => frames_on_device(call, batch)?,
        false => {
            let files = batch.data.iter().zip(batch.lengths);
            files.map(|(&data, &length)| frame(call.name, bytes(call.name, (data, length))?)).collect()
        }
    };
    let (mut writes, mut regions, mut outcome) = (Vec::new(), Vec::new(), Ok(()));
    for (i, frame) in frames.iter().enumerate() {
        match image(all, call, library, batch, (i, frame)) {
            Ok((region, rows)) => {
                regions.push((region, rows.len()));
                writes.extend(rows);
            }
            Err(status) => {
                outcome = Err(status);
                break;
            }
        }
    }
    if regions.is_empty() {
        return outcome;
    }
    let files: Vec<_> = ranges(batch).into_iter().take(regions.len()).collect();
    let interpolate = library.interpolate;
    let pending = if is_hardware(library.backend) {
        queue(call.name, call.stream, &files, &writes, move |reads, writes| {
            let all = decode_all(reads, &regions, interpolate, HARDWARE_SALT);
            spread(&all, &regions, writes);
            true
        })?
    } else {
        through_scratch(all, call, library, state, (&files, &writes), regions)?
    };
    all.state(call.name, state)?.pending = pending;
    outcome
}

/// What of an image is decoded, and where its rows go.
fn image(
    all: &mut Objects,
    call: Call,
    library: &Handle,
    batch: &Batch<'_>,
    (i, frame): (usize, &Answer<Frame>),
) -> Answer<(Region, Vec<Range>)> {
    let frame = frame.as_ref().map_err(|status| *status)?;
    let part = match batch.params {
        Some(params) => region(call.name, all.params(call.name, params[i].addr())?, frame)?,
        None => frame.whole(),
    };
    if !takes(library.backend, frame) {
        return Err(JPEG_NOT_SUPPORTED);
    }
    check_destination(call.name, &batch.destinations[i], part)?;
    Ok((part, work::rows(&batch.destinations[i], part)))
}

/// In two steps with memory of the library's own between them, as kernels do it.
fn through_scratch(
    all: &mut Objects,
    call: Call,
    library: &Handle,
    state: usize,
    (files, writes): (&[Range], &[Range]),
    regions: Vec<(Region, usize)>,
) -> Answer<Pending> {
    let (malloc, free, context) = library.device_allocator;
    let fresh = || Buffer::new(malloc, free, context, library.device_padding);
    let mut scratch = all.state(call.name, state)?.scratch.take().unwrap_or_else(fresh);
    let length = regions.iter().map(|&(region, _)| planes_len(region)).sum();
    let grown = scratch.grow(length, call.stream);
    let between = [Range { address: scratch.address.addr() as u64, bytes: length as u64 }];
    all.state(call.name, state)?.scratch = Some(scratch);
    grown?;
    let (interpolate, first) = (library.interpolate, regions.clone());
    queue(call.name, call.stream, files, &between, move |reads, writes| {
        writes[0].copy_from_slice(&decode_all(reads, &first, interpolate, HYBRID_SALT));
        true
    })?;
    queue(call.name, call.stream, &between, writes, move |reads, writes| {
        spread(reads[0], &regions, writes);
        true
    })
}

fn ranges(batch: &Batch<'_>) -> Vec<Range> {
    let files = batch.data.iter().zip(batch.lengths);
    files.map(|(data, &bytes)| Range { address: data.expose_provenance() as u64, bytes: bytes as u64 }).collect()
}

/// Reads the headers within the call, at its turn in the stream; the program does not learn from it that its turn has
/// come.
fn frames_on_device(call: Call, batch: &Batch<'_>) -> Answer<Vec<Answer<Frame>>> {
    let driver = driver().ok_or(EXECUTION_FAILED)?;
    for (data, &length) in batch.data.iter().zip(batch.lengths) {
        if length == 0 || !driver.is_device_memory(data.addr() as u64) {
            return Err(refuse("argument", &format!("{}: no bytes, or not in device memory", call.name)));
        }
    }
    let read: Arc<Mutex<Vec<Option<Frame>>>> = Arc::default();
    let frames = Arc::clone(&read);
    queue(call.name, call.stream, &ranges(batch), &[], move |files, _| {
        *frames.lock().unwrap_or_else(PoisonError::into_inner) = files.iter().map(|file| Frame::parse(file)).collect();
        true
    })?;
    if !driver.run(call.stream) {
        return Err(EXECUTION_FAILED);
    }
    let read = std::mem::take(&mut *read.lock().unwrap_or_else(PoisonError::into_inner));
    let frames = read.into_iter().map(|frame| {
        if frame.is_none() {
            report("input", &format!("{}: a file whose header is malformed", call.name));
        }
        frame.ok_or(BAD_JPEG)
    });
    Ok(frames.collect())
}

/// The planes of all images, one behind the other.
fn decode_all(files: &[&[u8]], regions: &[(Region, usize)], interpolate: bool, salt: u32) -> Vec<u8> {
    let each = files.iter().zip(regions).flat_map(|(file, &(region, _))| {
        // Of an error in the coded data neither hardware nor kernels say anything: grey.
        image::decode(file, region, interpolate, salt).unwrap_or_else(|| vec![128; planes_len(region)])
    });
    each.collect()
}

/// Copies such planes into the rows of each image.
fn spread(planes: &[u8], regions: &[(Region, usize)], mut writes: &mut [&mut [u8]]) {
    let mut planes = planes;
    for &(region, rows) in regions {
        let (now, later) = writes.split_at_mut(rows);
        let (mine, others) = planes.split_at(planes_len(region));
        work::fill(mine, now);
        (planes, writes) = (others, later);
    }
}
