//! The exported functions.

use std::ffi::{c_int, c_uint};
use std::ptr;
use std::slice;

use nvjpeg_sys::sys::*;

use crate::batch::{self, Batch, Call};
use crate::driver::{self, Range, driver, refuse, report};
use crate::image::{self, Frame, Region};
use crate::objects::{Answer, Buffer, Handle, Object, Objects, Params, Parsed, Phase, State, objects};
use crate::work::{self, Pending, enqueue};

const SUCCESS: nvjpegStatus_t = nvjpegStatus_t::NVJPEG_STATUS_SUCCESS;
pub const BAD_JPEG: nvjpegStatus_t = nvjpegStatus_t::NVJPEG_STATUS_BAD_JPEG;
pub const EXECUTION_FAILED: nvjpegStatus_t = nvjpegStatus_t::NVJPEG_STATUS_EXECUTION_FAILED;
const ARCH_MISMATCH: nvjpegStatus_t = nvjpegStatus_t::NVJPEG_STATUS_ARCH_MISMATCH;
pub const NOT_SUPPORTED: nvjpegStatus_t = nvjpegStatus_t::NVJPEG_STATUS_IMPLEMENTATION_NOT_SUPPORTED;

/// What tells the backends' rounding apart.
pub const HYBRID_SALT: u32 = 1;
pub const HARDWARE_SALT: u32 = 2;

/// Exports functions of NVIDIA's types. Each is counted by the driver, whose rules may answer in its place.
macro_rules! export {
    ($($name:ident($($argument:ident: $kind:ty),*) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $kind),*) -> nvjpegStatus_t {
                if let Some(answer) = driver().and_then(|driver| driver.call(stringify!($name))) {
                    return nvjpegStatus_t(answer as c_uint);
                }
                #[allow(non_upper_case_globals, dead_code)]
                const $name: &str = stringify!($name);
                #[allow(clippy::redundant_closure_call)]
                let answer = (|| -> Answer { $body })();
                answer.err().unwrap_or(SUCCESS)
            }
            // That its type is the header's.
            const _: nvjpeg_sys::sys::$name = $name;
        )*
    };
}

/// Writes through a pointer of the program's.
fn give<T>(call: &str, to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(refuse("argument", &format!("{call}: a null pointer for its answer")));
    }
    // SAFETY: the program's pointer is valid for a write, as NVIDIA's documentation demands.
    unsafe { to.write(value) };
    Ok(())
}

/// Makes a handle and writes it.
fn make<T>(call: &str, to: *mut *mut T, objects: &mut Objects, parent: usize, object: Object) -> Answer {
    give(call, to, ptr::without_provenance_mut(objects.insert(parent, object)))
}

export! {
    nvjpegGetProperty(property: libraryPropertyType, value: *mut c_int) {
        let number = driver::version().get(property.0 as usize).copied();
        give(nvjpegGetProperty, value, number.ok_or(nvjpegStatus_t::NVJPEG_STATUS_INVALID_PARAMETER)?)
    }

    nvjpegGetCudartProperty(property: libraryPropertyType, value: *mut c_int) {
        let number = [12, 9, 0].get(property.0 as usize).copied();
        give(nvjpegGetCudartProperty, value, number.ok_or(nvjpegStatus_t::NVJPEG_STATUS_INVALID_PARAMETER)?)
    }

    nvjpegCreateExV2(backend: nvjpegBackend_t, device: *mut nvjpegDevAllocatorV2_t,
                     pinned: *mut nvjpegPinnedAllocatorV2_t, flags: c_uint, handle: *mut nvjpegHandle_t) {
        let driver = driver().ok_or(EXECUTION_FAILED)?;
        let context = driver.current_context();
        if context == 0 {
            return Err(refuse("argument", "nvjpegCreateExV2: no context is current"));
        }
        if batch::is_hardware(backend) && driver::engines().is_none() {
            return Err(ARCH_MISMATCH);
        }
        if device.is_null() || pinned.is_null() {
            return Err(refuse("argument", "nvjpegCreateExV2: this stand-in needs both allocators"));
        }
        let interpolate = flags & NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION != 0;
        if interpolate && driver::version() < [12, 1, 0] {
            return Err(refuse("argument", "nvjpegCreateExV2: a flag that this version does not know"));
        }
        // SAFETY: the program's pointer is valid and not null.
        let allocator = unsafe { &*device };
        let device_allocator = (allocator.dev_malloc, allocator.dev_free, allocator.dev_ctx);
        let made = Handle { backend, interpolate, device_padding: 1, pinned_padding: 1, context, device_allocator };
        make(nvjpegCreateExV2, handle, &mut objects(), 0, Object::Handle(made))
    }

    nvjpegDestroy(handle: nvjpegHandle_t) {
        objects().remove(nvjpegDestroy, handle.addr()).map(drop)
    }

    nvjpegSetDeviceMemoryPadding(padding: usize, handle: nvjpegHandle_t) {
        objects().handle(nvjpegSetDeviceMemoryPadding, handle.addr())?.device_padding = padding;
        Ok(())
    }

    nvjpegSetPinnedMemoryPadding(padding: usize, handle: nvjpegHandle_t) {
        objects().handle(nvjpegSetPinnedMemoryPadding, handle.addr())?.pinned_padding = padding;
        Ok(())
    }

    nvjpegGetHardwareDecoderInfo(handle: nvjpegHandle_t, engines: *mut c_uint, cores: *mut c_uint) {
        objects().handle(nvjpegGetHardwareDecoderInfo, handle.addr())?;
        let (count, each) = driver::engines().unwrap_or_default();
        give(nvjpegGetHardwareDecoderInfo, engines, count)?;
        give(nvjpegGetHardwareDecoderInfo, cores, each)
    }

    nvjpegJpegStateCreate(handle: nvjpegHandle_t, state: *mut nvjpegJpegState_t) {
        let mut objects = objects();
        objects.handle(nvjpegJpegStateCreate, handle.addr())?;
        make(nvjpegJpegStateCreate, state, &mut objects, handle.addr(), Object::State(Box::default()))
    }

    nvjpegJpegStateDestroy(state: nvjpegJpegState_t) {
        let removed = objects().remove(nvjpegJpegStateDestroy, state.addr())?;
        let Object::State(mut state) = removed else {
            return Err(refuse("lifetime", "nvjpegJpegStateDestroy: something else than a state"));
        };
        let is_pending = state.pending.is_pending();
        if let Some(scratch) = &mut state.scratch {
            scratch.release(0);
        }
        if is_pending { Err(refuse("lifetime", "nvjpegJpegStateDestroy: a state that still decodes")) } else { Ok(()) }
    }

    nvjpegDecoderCreate(handle: nvjpegHandle_t, backend: nvjpegBackend_t, decoder: *mut nvjpegJpegDecoder_t) {
        let mut objects = objects();
        objects.handle(nvjpegDecoderCreate, handle.addr())?;
        make(nvjpegDecoderCreate, decoder, &mut objects, handle.addr(), Object::Decoder(backend))
    }

    nvjpegDecoderDestroy(decoder: nvjpegJpegDecoder_t) {
        objects().remove(nvjpegDecoderDestroy, decoder.addr()).map(drop)
    }

    nvjpegDecoderStateCreate(handle: nvjpegHandle_t, decoder: nvjpegJpegDecoder_t, state: *mut nvjpegJpegState_t) {
        let mut objects = objects();
        objects.handle(nvjpegDecoderStateCreate, handle.addr())?;
        objects.decoder(nvjpegDecoderStateCreate, decoder.addr())?;
        let made = State { decoder: Some(decoder.addr()), ..State::default() };
        make(nvjpegDecoderStateCreate, state, &mut objects, decoder.addr(), Object::State(Box::new(made)))
    }

    nvjpegBufferPinnedCreateV2(handle: nvjpegHandle_t, allocator: *mut nvjpegPinnedAllocatorV2_t,
                               buffer: *mut nvjpegBufferPinned_t) {
        let mut objects = objects();
        let padding = objects.handle(nvjpegBufferPinnedCreateV2, handle.addr())?.pinned_padding;
        // SAFETY: the program's pointer is valid or null, as NVIDIA's documentation demands.
        let Some(allocator) = (unsafe { allocator.as_ref() }) else {
            return Err(refuse("argument", "nvjpegBufferPinnedCreateV2: this stand-in needs an allocator"));
        };
        let made = Buffer::new(allocator.pinned_malloc, allocator.pinned_free, allocator.pinned_ctx, padding);
        make(nvjpegBufferPinnedCreateV2, buffer, &mut objects, handle.addr(), Object::Pinned(made))
    }

    nvjpegBufferPinnedDestroy(buffer: nvjpegBufferPinned_t) {
        destroy_buffer(nvjpegBufferPinnedDestroy, buffer.addr())
    }

    nvjpegBufferDeviceCreateV2(handle: nvjpegHandle_t, allocator: *mut nvjpegDevAllocatorV2_t,
                               buffer: *mut nvjpegBufferDevice_t) {
        let mut objects = objects();
        let padding = objects.handle(nvjpegBufferDeviceCreateV2, handle.addr())?.device_padding;
        // SAFETY: the program's pointer is valid or null, as NVIDIA's documentation demands.
        let Some(allocator) = (unsafe { allocator.as_ref() }) else {
            return Err(refuse("argument", "nvjpegBufferDeviceCreateV2: this stand-in needs an allocator"));
        };
        let made = Buffer::new(allocator.dev_malloc, allocator.dev_free, allocator.dev_ctx, padding);
        make(nvjpegBufferDeviceCreateV2, buffer, &mut objects, handle.addr(), Object::Device(made))
    }

    nvjpegBufferDeviceDestroy(buffer: nvjpegBufferDevice_t) {
        destroy_buffer(nvjpegBufferDeviceDestroy, buffer.addr())
    }

    nvjpegStateAttachPinnedBuffer(state: nvjpegJpegState_t, buffer: nvjpegBufferPinned_t) {
        let mut objects = objects();
        objects.pinned(nvjpegStateAttachPinnedBuffer, buffer.addr())?;
        objects.state(nvjpegStateAttachPinnedBuffer, state.addr())?.pinned = Some(buffer.addr());
        Ok(())
    }

    nvjpegStateAttachDeviceBuffer(state: nvjpegJpegState_t, buffer: nvjpegBufferDevice_t) {
        let mut objects = objects();
        objects.device(nvjpegStateAttachDeviceBuffer, buffer.addr())?;
        objects.state(nvjpegStateAttachDeviceBuffer, state.addr())?.device = Some(buffer.addr());
        Ok(())
    }

    nvjpegJpegStreamCreate(handle: nvjpegHandle_t, stream: *mut nvjpegJpegStream_t) {
        let mut objects = objects();
        objects.handle(nvjpegJpegStreamCreate, handle.addr())?;
        make(nvjpegJpegStreamCreate, stream, &mut objects, handle.addr(), Object::Parsed(None))
    }

    nvjpegJpegStreamDestroy(stream: nvjpegJpegStream_t) {
        objects().remove(nvjpegJpegStreamDestroy, stream.addr()).map(drop)
    }

    nvjpegJpegStreamParse(handle: nvjpegHandle_t, data: *const u8, length: usize, _metadata: c_int, copy: c_int,
                          stream: nvjpegJpegStream_t) {
        if copy != 0 {
            return Err(NOT_SUPPORTED);
        }
        parse(nvjpegJpegStreamParse, handle, (data, length), false, stream)
    }

    nvjpegJpegStreamParseHeader(handle: nvjpegHandle_t, data: *const u8, length: usize, stream: nvjpegJpegStream_t) {
        parse(nvjpegJpegStreamParseHeader, handle, (data, length), true, stream)
    }

    nvjpegDecodeParamsCreate(handle: nvjpegHandle_t, params: *mut nvjpegDecodeParams_t) {
        let mut objects = objects();
        objects.handle(nvjpegDecodeParamsCreate, handle.addr())?;
        make(nvjpegDecodeParamsCreate, params, &mut objects, handle.addr(), Object::Params(Params::default()))
    }

    nvjpegDecodeParamsDestroy(params: nvjpegDecodeParams_t) {
        objects().remove(nvjpegDecodeParamsDestroy, params.addr()).map(drop)
    }

    nvjpegDecodeParamsSetOutputFormat(params: nvjpegDecodeParams_t, format: nvjpegOutputFormat_t) {
        let mut objects = objects();
        let params = objects.params(nvjpegDecodeParamsSetOutputFormat, params.addr())?;
        params.planes = format == nvjpegOutputFormat_t::NVJPEG_OUTPUT_RGB;
        if params.planes { Ok(()) } else { Err(NOT_SUPPORTED) }
    }

    nvjpegDecodeParamsSetROI(params: nvjpegDecodeParams_t, x: c_int, y: c_int, width: c_int, height: c_int) {
        let mut objects = objects();
        let params = objects.params(nvjpegDecodeParamsSetROI, params.addr())?;
        params.region = match [x, y, width, height] {
            [0, 0, -1, -1] => None,
            [x, y, width, height] if x >= 0 && y >= 0 && width > 0 && height > 0 => {
                Some(Region { x: x as u32, y: y as u32, width: width as u32, height: height as u32 })
            }
            _ => return Err(refuse("argument", "nvjpegDecodeParamsSetROI: no rectangle")),
        };
        Ok(())
    }

    nvjpegDecodeParamsSetExifOrientation(params: nvjpegDecodeParams_t, orientation: nvjpegExifOrientation_t) {
        objects().params(nvjpegDecodeParamsSetExifOrientation, params.addr())?;
        if orientation == nvjpegExifOrientation::NVJPEG_ORIENTATION_NORMAL { Ok(()) } else { Err(NOT_SUPPORTED) }
    }

    nvjpegDecoderJpegSupported(decoder: nvjpegJpegDecoder_t, stream: nvjpegJpegStream_t,
                               params: nvjpegDecodeParams_t, supported: *mut c_int) {
        let mut objects = objects();
        objects.decoder(nvjpegDecoderJpegSupported, decoder.addr())?;
        let (parsed, _) = request(nvjpegDecoderJpegSupported, &mut objects, stream, params)?;
        give(nvjpegDecoderJpegSupported, supported, c_int::from(![0xC0, 0xC2].contains(&parsed.frame.process)))
    }

    nvjpegDecodeBatchedSupportedEx(handle: nvjpegHandle_t, stream: nvjpegJpegStream_t,
                                   params: nvjpegDecodeParams_t, supported: *mut c_int) {
        let mut objects = objects();
        let backend = objects.handle(nvjpegDecodeBatchedSupportedEx, handle.addr())?.backend;
        let (parsed, _) = request(nvjpegDecodeBatchedSupportedEx, &mut objects, stream, params)?;
        let suits = backend == nvjpegBackend_t::NVJPEG_BACKEND_HARDWARE && batch::takes(backend, &parsed.frame);
        give(nvjpegDecodeBatchedSupportedEx, supported, c_int::from(!suits))
    }

    nvjpegDecodeBatchedSupported(handle: nvjpegHandle_t, stream: nvjpegJpegStream_t, supported: *mut c_int) {
        let mut objects = objects();
        let backend = objects.handle(nvjpegDecodeBatchedSupported, handle.addr())?.backend;
        let Some(parsed) = objects.parsed(nvjpegDecodeBatchedSupported, stream.addr())?.clone() else {
            return Err(refuse("order", "nvjpegDecodeBatchedSupported: a stream that holds no file"));
        };
        let suits = batch::takes(backend, &parsed.frame);
        give(nvjpegDecodeBatchedSupported, supported, c_int::from(!suits))
    }

    nvjpegDecodeJpegHost(handle: nvjpegHandle_t, decoder: nvjpegJpegDecoder_t, state: nvjpegJpegState_t,
                         params: nvjpegDecodeParams_t, stream: nvjpegJpegStream_t) {
        decode_on_host(handle.addr(), decoder.addr(), state.addr(), params, stream)
    }

    nvjpegDecodeJpegTransferToDevice(handle: nvjpegHandle_t, decoder: nvjpegJpegDecoder_t, state: nvjpegJpegState_t,
                                     parsed: nvjpegJpegStream_t, stream: cudaStream_t) {
        transfer(handle.addr(), decoder.addr(), state.addr(), parsed.addr(), stream.addr() as u64)
    }

    nvjpegDecodeJpegDevice(handle: nvjpegHandle_t, decoder: nvjpegJpegDecoder_t, state: nvjpegJpegState_t,
                           destination: *mut nvjpegImage_t, stream: cudaStream_t) {
        // SAFETY: the program's pointer is valid or null, as NVIDIA's documentation demands.
        let Some(destination) = (unsafe { destination.as_ref() }) else {
            return Err(refuse("argument", "nvjpegDecodeJpegDevice: a null destination"));
        };
        decode_on_device(handle.addr(), decoder.addr(), state.addr(), destination, stream.addr() as u64)
    }

    nvjpegDecodeBatchedPreAllocate(handle: nvjpegHandle_t, state: nvjpegJpegState_t, _batch: c_int, _width: c_int,
                                   _height: c_int, _sampling: nvjpegChromaSubsampling_t,
                                   _format: nvjpegOutputFormat_t) {
        let mut objects = objects();
        objects.handle(nvjpegDecodeBatchedPreAllocate, handle.addr())?;
        objects.state(nvjpegDecodeBatchedPreAllocate, state.addr()).map(drop)
    }

    nvjpegDecodeBatchedInitialize(handle: nvjpegHandle_t, state: nvjpegJpegState_t, batch: c_int, _threads: c_int,
                                  format: nvjpegOutputFormat_t) {
        let mut objects = objects();
        objects.handle(nvjpegDecodeBatchedInitialize, handle.addr())?;
        let state = objects.state(nvjpegDecodeBatchedInitialize, state.addr())?;
        if batch <= 0 || format != nvjpegOutputFormat_t::NVJPEG_OUTPUT_RGB {
            return Err(refuse("argument", "nvjpegDecodeBatchedInitialize: no images, or other than planes"));
        }
        if state.pending.is_pending() {
            report("order", "nvjpegDecodeBatchedInitialize: the state still decodes");
        }
        state.batch = Some(batch as usize);
        Ok(())
    }

    nvjpegDecodeBatchedEx(handle: nvjpegHandle_t, state: nvjpegJpegState_t, data: *const *const u8,
                          lengths: *const usize, destinations: *mut nvjpegImage_t, params: *mut nvjpegDecodeParams_t,
                          stream: cudaStream_t) {
        if params.is_null() {
            return Err(refuse("argument", "nvjpegDecodeBatchedEx: a null pointer"));
        }
        let call = Call { name: nvjpegDecodeBatchedEx, stream: stream.addr() as u64 };
        // SAFETY: the program's arrays, as NVIDIA's documentation demands.
        unsafe { decode_batch(call, handle.addr(), state.addr(), data, lengths, destinations, Some(params)) }
    }

    nvjpegDecodeBatched(handle: nvjpegHandle_t, state: nvjpegJpegState_t, data: *const *const u8,
                        lengths: *const usize, destinations: *mut nvjpegImage_t, stream: cudaStream_t) {
        let call = Call { name: nvjpegDecodeBatched, stream: stream.addr() as u64 };
        // SAFETY: the program's arrays, as NVIDIA's documentation demands.
        unsafe { decode_batch(call, handle.addr(), state.addr(), data, lengths, destinations, None) }
    }
}

/// # Safety
/// The arrays that are not null are as long as the state was prepared for.
unsafe fn decode_batch(
    call: Call,
    handle: usize,
    state: usize,
    data: *const *const u8,
    lengths: *const usize,
    destinations: *mut nvjpegImage_t,
    params: Option<*mut nvjpegDecodeParams_t>,
) -> Answer {
    let mut objects = objects();
    let size = objects.state(call.name, state)?.batch.unwrap_or(0);
    if size == 0 || data.is_null() || lengths.is_null() || destinations.is_null() {
        return Err(refuse("argument", &format!("{}: a state that is not prepared, or a null pointer", call.name)));
    }
    // SAFETY: as the caller promises.
    let batch = unsafe {
        Batch {
            data: slice::from_raw_parts(data, size),
            lengths: slice::from_raw_parts(lengths, size),
            destinations: slice::from_raw_parts(destinations, size),
            params: params.map(|params| slice::from_raw_parts(params, size)),
        }
    };
    let decoded = batch::decode(&mut objects, call, handle, state, &batch);
    if decoded.is_err() {
        // It is to be prepared again, says NVIDIA.
        objects.state(call.name, state)?.batch = None;
    }
    decoded
}

fn destroy_buffer(call: &str, buffer: usize) -> Answer {
    let mut objects = objects();
    if objects.states_with(buffer).any(|state| state.pending.is_pending()) {
        report("lifetime", &format!("{call}: a state that still decodes uses it"));
    }
    let (Object::Pinned(mut removed) | Object::Device(mut removed)) = objects.remove(call, buffer)? else {
        return Err(refuse("lifetime", &format!("{call}: something else than a buffer")));
    };
    // The program's allocator calls the driver, which may be running work of this library.
    drop(objects);
    removed.release(0);
    Ok(())
}

/// The program's bytes.
pub fn bytes<'a>(call: &str, (data, length): (*const u8, usize)) -> Answer<&'a [u8]> {
    if data.is_null() || length == 0 {
        return Err(refuse("argument", &format!("{call}: no bytes")));
    }
    // SAFETY: valid for so long, as NVIDIA's documentation demands.
    Ok(unsafe { slice::from_raw_parts(data, length) })
}

fn parse(
    call: &str,
    handle: nvjpegHandle_t,
    file: (*const u8, usize),
    header_only: bool,
    stream: nvjpegJpegStream_t,
) -> Answer {
    let frame = frame(call, bytes(call, file)?)?;
    let mut objects = objects();
    objects.handle(call, handle.addr())?;
    *objects.parsed(call, stream.addr())? = Some(Parsed { data: file.0.addr(), len: file.1, frame, header_only });
    Ok(())
}

pub fn frame(call: &str, bytes: &[u8]) -> Answer<Frame> {
    let Some(frame) = Frame::parse(bytes) else {
        report("input", &format!("{call}: a file whose header is malformed"));
        return Err(BAD_JPEG);
    };
    if let Some(fault) = frame.fault(bytes) {
        report("input", &format!("{call}: {fault}"));
    }
    Ok(frame)
}

/// What is to be decoded.
fn request(
    call: &str,
    objects: &mut Objects,
    stream: nvjpegJpegStream_t,
    params: nvjpegDecodeParams_t,
) -> Answer<(Parsed, Region)> {
    let params = objects.params(call, params.addr())?.clone();
    let Some(parsed) = objects.parsed(call, stream.addr())?.clone() else {
        return Err(refuse("order", &format!("{call}: a stream that holds no file")));
    };
    let region = region(call, &params, &parsed.frame)?;
    Ok((parsed, region))
}

pub fn region(call: &str, params: &Params, frame: &Frame) -> Answer<Region> {
    let region = params.region.unwrap_or(frame.whole());
    if !params.planes || region.x + region.width > frame.width || region.y + region.height > frame.height {
        return Err(refuse("argument", &format!("{call}: another format than planes, or a region outside the image")));
    }
    Ok(region)
}

/// Decodes into the state's page-locked buffer, without the lock.
fn decode_on_host(
    handle: usize,
    decoder: usize,
    state: usize,
    params: nvjpegDecodeParams_t,
    stream: nvjpegJpegStream_t,
) -> Answer {
    const CALL: &str = "nvjpegDecodeJpegHost";
    let mut all = objects();
    let interpolate = all.handle(CALL, handle)?.interpolate;
    all.decoder(CALL, decoder)?;
    let (parsed, region) = request(CALL, &mut all, stream, params)?;
    let found = all.state(CALL, state)?;
    let (Some(pinned), true, false) = (found.pinned, found.decoder == Some(decoder), parsed.header_only) else {
        let words = "nvjpegDecodeJpegHost: a state of another decoder or without memory, or only a header was parsed";
        return Err(refuse("order", words));
    };
    found.phase = Phase::Host;
    let mut buffer = all.pinned(CALL, pinned)?.clone();
    if buffer.pending.is_pending() {
        report("order", "nvjpegDecodeJpegHost: the transfer from its page-locked buffer has not run");
    }
    let used = [state, pinned, stream.addr()];
    all.set_busy(&used, true);
    drop(all);
    let outcome = fill(&mut buffer, &parsed, region, interpolate);
    let mut all = objects();
    all.set_busy(&used, false);
    *all.pinned(CALL, pinned)? = buffer;
    outcome?;
    all.state(CALL, state)?.phase = Phase::Transfer(region);
    Ok(())
}

/// The host phase itself.
fn fill(buffer: &mut Buffer, parsed: &Parsed, region: Region, interpolate: bool) -> Answer {
    let file = (ptr::with_exposed_provenance(parsed.data), parsed.len);
    let file = bytes("nvjpegDecodeJpegHost", file)?;
    let planes = image::decode(file, region, interpolate, HYBRID_SALT).ok_or(BAD_JPEG)?;
    buffer.grow(planes.len(), 0)?;
    // SAFETY: the buffer has grown to hold them.
    unsafe { ptr::copy_nonoverlapping(planes.as_ptr(), buffer.address.cast(), planes.len()) };
    Ok(())
}

/// The library handle for a call that uses the device, whose context must be current.
pub fn on_device(call: &str, all: &mut Objects, handle: usize) -> Answer<Handle> {
    let library = all.handle(call, handle)?.clone();
    if driver().is_some_and(|driver| driver.current_context() != library.context) {
        return Err(refuse("argument", &format!("{call}: another context is current than when the handle was made")));
    }
    Ok(library)
}

/// Notes that a state is used on a stream.
pub fn use_on(call: &str, state: &mut State, stream: u64) {
    let other = state.stream.replace(stream).filter(|&other| other != stream);
    if other.is_some_and(|other| driver().is_some_and(|driver| !driver.is_stream_done(other))) {
        report("order", &format!("{call}: a state that is in use on another stream"));
    }
}

fn transfer(handle: usize, decoder: usize, state: usize, parsed: usize, stream: u64) -> Answer {
    const CALL: &str = "nvjpegDecodeJpegTransferToDevice";
    let mut all = objects();
    on_device(CALL, &mut all, handle)?;
    all.decoder(CALL, decoder)?;
    all.parsed(CALL, parsed)?;
    let found = all.state(CALL, state)?;
    let (Phase::Transfer(region), Some(pinned), Some(device)) = (found.phase, found.pinned, found.device) else {
        return Err(refuse("order", "nvjpegDecodeJpegTransferToDevice: no host phase before it, or no memory"));
    };
    use_on(CALL, found, stream);
    let length = planes_len(region);
    let source = all.pinned(CALL, pinned)?.address.addr() as u64;
    let mut buffer = all.device(CALL, device)?.clone();
    // The program's allocator calls the driver.
    drop(all);
    buffer.grow(length, stream)?;
    let read = Range { address: source, bytes: length as u64 };
    let written = Range { address: buffer.address.addr() as u64, bytes: length as u64 };
    let pending = queue(CALL, stream, &[read], &[written], |reads, writes| {
        writes[0].copy_from_slice(reads[0]);
        true
    })?;
    let mut all = objects();
    *all.device(CALL, device)? = buffer;
    all.pinned(CALL, pinned)?.pending = pending.clone();
    let found = all.state(CALL, state)?;
    (found.pending, found.phase) = (pending, Phase::Device(region));
    Ok(())
}

fn decode_on_device(handle: usize, decoder: usize, state: usize, to: &nvjpegImage_t, stream: u64) -> Answer {
    const CALL: &str = "nvjpegDecodeJpegDevice";
    let mut all = objects();
    on_device(CALL, &mut all, handle)?;
    all.decoder(CALL, decoder)?;
    let found = all.state(CALL, state)?;
    let (Phase::Device(region), Some(device)) = (found.phase, found.device) else {
        return Err(refuse("order", "nvjpegDecodeJpegDevice: no transfer before it"));
    };
    use_on(CALL, found, stream);
    let address = all.device(CALL, device)?.address.addr() as u64;
    drop(all);
    check_destination(CALL, to, region)?;
    let read = Range { address, bytes: planes_len(region) as u64 };
    let pending = queue(CALL, stream, &[read], &work::rows(to, region), |reads, writes| {
        work::fill(reads[0], writes);
        true
    })?;
    let mut all = objects();
    let found = all.state(CALL, state)?;
    (found.pending, found.phase) = (pending, Phase::Host);
    Ok(())
}

pub fn planes_len(region: Region) -> usize {
    (region.width * region.height * 3) as usize
}

pub fn check_destination(call: &str, to: &nvjpegImage_t, region: Region) -> Answer {
    let fits = |channel: usize| !to.channel[channel].is_null() && to.pitch[channel] >= region.width as usize;
    if (0..3).all(fits) {
        Ok(())
    } else {
        Err(refuse("argument", &format!("{call}: a plane that is null or too narrow")))
    }
}

pub fn queue(
    call: &str,
    stream: u64,
    reads: &[Range],
    writes: &[Range],
    body: impl FnOnce(&[&[u8]], &mut [&mut [u8]]) -> bool + Send + 'static,
) -> Answer<Pending> {
    let driver = driver().ok_or(EXECUTION_FAILED)?;
    enqueue(driver, stream, call, (reads, writes), Box::new(body)).map_err(|code| {
        if code == 1 {
            report("argument", &format!("{call}: the driver does not know the stream, or an address"));
        }
        EXECUTION_FAILED
    })
}
