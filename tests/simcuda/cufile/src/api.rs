//! The exported functions.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void};
use std::slice;
use std::time::Duration;

use cufile_sys::sys::*;

use crate::batch;
use crate::driver::driver;
use crate::library::{Answer, Refusal, library, refuse, set_errno, status};
use crate::numbers::Numbers;
use crate::read::{Outcome, Request};
use crate::settings::settings;
use crate::stats::stats;
use crate::watch;

const INVALID: CUfileOpError = CUfileOpError::CU_FILE_INVALID_VALUE;
/// What a batch says of a read that leaves its buffer. The other calls have other words for it.
const OUT_OF_RANGE: CUfileOpError = CUfileOpError::CU_FILE_INVALID_MAPPING_RANGE;

/// Exports functions of NVIDIA's types, with the version that they came with. Each is counted by the driver, whose rules may
/// answer in its place.
macro_rules! export {
    ($($since:literal $name:ident($($argument:ident: $kind:ty),*) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $kind),*) -> CUfileError_t {
                if let Some(code) = driver().and_then(|driver| driver.call(stringify!($name))) {
                    return CUfileError_t { err: CUfileOpError(code), cu_err: 0 };
                }
                #[allow(clippy::redundant_closure_call)]
                status(if settings().version < $since { Err(INVALID.into()) } else { (|| -> Answer { $body })() })
            }
            // That its type is the header's.
            const _: cufile_sys::sys::$name = $name;
        )*
    };
}

/// Writes through a pointer of the program's.
fn give<T>(call: &str, to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(refuse("argument", &format!("{call}: a null pointer for its answer"), INVALID));
    }
    // SAFETY: the program's pointer is valid for a write, as NVIDIA's documentation demands.
    unsafe { to.write(value) };
    Ok(())
}

/// Counts a call by whether it succeeded.
fn counted(of: fn(&mut CUfileStatsLevel1_t) -> &mut CUfileOpCounter_t, answer: Answer) -> Answer {
    stats().count(|all| {
        let counter = of(&mut all.detailed.basic);
        if answer.is_ok() { counter.ok += 1 } else { counter.err += 1 }
    });
    answer
}

export! {
    1070 cuFileGetVersion(version: *mut c_int) {
        give("cuFileGetVersion", version, settings().version)
    }

    0 cuFileDriverOpen() {
        // The driver may not have been there before.
        let watches = settings().watch;
        watch::set(watches);
        library().open()
    }

    0 cuFileDriverClose() {
        library().close()
    }

    0 cuFileDriverClose_v2() {
        library().close()
    }

    0 cuFileDriverGetProperties(properties: *mut CUfileDrvProps_t) {
        give("cuFileDriverGetProperties", properties, library().properties())
    }

    0 cuFileDriverSetPollMode(poll: bool, threshold_kib: usize) {
        let mut library = library();
        library.set_size(10, threshold_kib)?;
        library.parameters.polls = poll;
        Ok(())
    }

    0 cuFileDriverSetMaxDirectIOSize(kib: usize) {
        library().set_size(5, kib)
    }

    0 cuFileDriverSetMaxCacheSize(kib: usize) {
        library().set_size(6, kib)
    }

    0 cuFileDriverSetMaxPinnedMemSize(kib: usize) {
        library().set_size(8, kib)
    }

    1160 cuFileDriverGetP2PFlags(kind: CUfileDriverStatusFlags_t, flags: *mut CUfileP2PFlags_t) {
        let bits = library().p2p_flags(kind.0)?;
        give("cuFileDriverGetP2PFlags", flags, CUfileP2PFlags(bits))
    }

    1150 cuFileGetBARSizeInKB(gpu: c_int, kib: *mut usize) {
        library().expect_open("cuFileGetBARSizeInKB")?;
        let devices = driver().map_or(0, |driver| driver.devices().len());
        if !usize::try_from(gpu).is_ok_and(|gpu| gpu < devices) {
            return Err(INVALID.into());
        }
        give("cuFileGetBARSizeInKB", kib, 256 << 20)
    }

    0 cuFileHandleRegister(handle: *mut CUfileHandle_t, description: *mut CUfileDescr_t) {
        // SAFETY: the program's pointer is valid or null, as NVIDIA's documentation demands.
        let Some(description) = (unsafe { description.as_ref() }) else {
            return Err(refuse("argument", "cuFileHandleRegister: no description", INVALID));
        };
        if description.type_ != CUfileFileHandleType::CU_FILE_HANDLE_TYPE_OPAQUE_FD || !description.fs_ops.is_null() {
            return Err(refuse("argument", "cuFileHandleRegister: something else than a descriptor", INVALID));
        }
        // SAFETY: the type says that this is the union's member.
        let descriptor = unsafe { description.handle.fd };
        let registered = library().register_file(descriptor);
        counted(|all| &mut all.hdl_register_ops, registered.map(drop).and(Ok(())))?;
        give("cuFileHandleRegister", handle, std::ptr::without_provenance_mut(registered?))
    }

    0 cuFileBufRegister(base: *const c_void, bytes: usize, flags: c_int) {
        let answer = library().register_buffer(base.addr() as u64, bytes as u64, flags);
        counted(|all| &mut all.buf_register_ops, answer)
    }

    0 cuFileBufDeregister(base: *const c_void) {
        let answer = library().deregister_buffer(base.addr() as u64);
        counted(|all| &mut all.buf_deregister_ops, answer)
    }

    1070 cuFileReadAsync(handle: CUfileHandle_t, base: *mut c_void, size: *mut usize, file_offset: *mut off_t,
                         base_offset: *mut off_t, bytes_read: *mut isize, stream: CUstream) {
        const CALL: &str = "cuFileReadAsync";
        let stream = stream.addr() as u64;
        let flags = library().streams.get(&stream).copied().unwrap_or(0);
        // SAFETY: as NVIDIA's documentation demands, they stay until the stream has come past the read.
        let numbers = unsafe { Numbers::take(size, file_offset, base_offset, bytes_read, flags) };
        let numbers = numbers.ok_or_else(|| refuse("argument", &format!("{CALL}: a null pointer"), INVALID))?;
        let request = numbers.request(handle.addr(), base.addr() as u64);
        if flags & CU_FILE_STREAM_PAGE_ALIGNED_INPUTS != 0 && !request.is_aligned() {
            numbers.tell(-(libc::EINVAL as isize));
            return Err(refuse("argument", &format!("{CALL}: {request:?} in a stream of aligned reads"), INVALID));
        }
        let planned = library().plan(CALL, request, Some(stream), false);
        let job = planned.map_err(|mut refusal| {
            if refusal.code == OUT_OF_RANGE {
                refusal.code = CUfileOpError::CU_FILE_INVALID_MAPPING_SIZE;
            }
            numbers.tell(-(refusal.code.0 as isize));
            refusal
        })?;
        numbers.mark();
        job.with_numbers(numbers).begin(CALL).map(drop)
    }

    1070 cuFileStreamRegister(stream: CUstream, flags: c_uint) {
        library().register_stream(stream.addr() as u64, flags)
    }

    1070 cuFileStreamDeregister(stream: CUstream) {
        library().deregister_stream(stream.addr() as u64)
    }

    0 cuFileBatchIOSetUp(batch: *mut CUfileBatchHandle_t, entries_max: c_uint) {
        let made = library().set_up_batch(entries_max as usize);
        counted(|all| &mut all.batch_setup_ops, made.map(drop).and(Ok(())))?;
        give("cuFileBatchIOSetUp", batch, std::ptr::without_provenance_mut(made?))
    }

    0 cuFileBatchIOSubmit(batch: CUfileBatchHandle_t, count: c_uint, entries: *mut CUfileIOParams_t, flags: c_uint) {
        if entries.is_null() {
            return Err(refuse("argument", "cuFileBatchIOSubmit: no entries", INVALID));
        }
        // SAFETY: there are as many, as NVIDIA's documentation demands.
        let entries = unsafe { slice::from_raw_parts(entries, count as usize) };
        batch::submit(batch.addr(), entries, flags)
    }

    0 cuFileBatchIOGetStatus(batch: CUfileBatchHandle_t, count_min: c_uint, count: *mut c_uint,
                             events: *mut CUfileIOEvents_t, timeout: *mut timespec) {
        if count.is_null() || events.is_null() {
            return Err(refuse("argument", "cuFileBatchIOGetStatus: a null pointer", INVALID));
        }
        // SAFETY: valid or null, as NVIDIA's documentation demands.
        let (count_max, timeout) = unsafe { (*count, timeout.as_ref()) };
        let timeout = timeout.map(|timeout| {
            let (seconds, nanoseconds) = (u64::try_from(timeout.tv_sec), u32::try_from(timeout.tv_nsec));
            match (seconds, nanoseconds) {
                (Ok(seconds), Ok(nanoseconds)) if nanoseconds < 1_000_000_000 => Ok(Duration::new(seconds, nanoseconds)),
                _ => Err(refuse("argument", "cuFileBatchIOGetStatus: a time that is none", INVALID)),
            }
        });
        let ended = batch::poll(batch.addr(), count_min as usize, count_max as usize, timeout.transpose()?)?;
        for (index, event) in ended.iter().enumerate() {
            let cookie = std::ptr::with_exposed_provenance_mut(event.cookie);
            // SAFETY: there is room for `count_max`, of which these are no more.
            unsafe { events.add(index).write(CUfileIOEvents { cookie, status: event.status, ret: event.ret }) };
        }
        if ended.iter().any(|event| event.status == CUfileStatus_t::CUFILE_FAILED) {
            // The real library leaves the count as it was, and zeros in the rest.
            // SAFETY: as above; an event is numbers alone, of which 0 is one.
            unsafe { events.add(ended.len()).write_bytes(0, count_max as usize - ended.len()) };
            return Err(match settings().version {
                1200.. => CUfileOpError::CU_FILE_IO_ERROR.into(),
                _ => CUfileOpError::CU_FILE_INTERNAL_ERROR.into(),
            });
        }
        give("cuFileBatchIOGetStatus", count, ended.len() as c_uint)
    }

    0 cuFileBatchIOCancel(batch: CUfileBatchHandle_t) {
        batch::cancel(batch.addr())
    }

    1140 cuFileGetParameterSizeT(parameter: CUFileSizeTConfigParameter_t, value: *mut usize) {
        let size = library().size(parameter.0)?;
        give("cuFileGetParameterSizeT", value, size)
    }

    1140 cuFileGetParameterBool(parameter: CUFileBoolConfigParameter_t, value: *mut bool) {
        let on = library().bool(parameter.0)?;
        give("cuFileGetParameterBool", value, on)
    }

    1140 cuFileGetParameterString(parameter: CUFileStringConfigParameter_t, to: *mut c_char, len: c_int) {
        let text = library().text(parameter.0)?;
        let bytes = text.as_bytes_with_nul();
        if to.is_null() || usize::try_from(len).map_or(true, |len| len < bytes.len()) {
            return Err(INVALID.into());
        }
        // SAFETY: there is room for `len`, which these are not more than.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len()) };
        Ok(())
    }

    1150 cuFileGetParameterMinMaxValue(parameter: CUFileSizeTConfigParameter_t, min: *mut usize, max: *mut usize) {
        let most = crate::library::Library::size_max(parameter.0)?;
        give("cuFileGetParameterMinMaxValue", min, 0)?;
        give("cuFileGetParameterMinMaxValue", max, most)
    }

    1140 cuFileSetParameterSizeT(parameter: CUFileSizeTConfigParameter_t, value: usize) {
        library().set_size(parameter.0, value)
    }

    1140 cuFileSetParameterBool(parameter: CUFileBoolConfigParameter_t, value: bool) {
        library().set_bool(parameter.0, value)
    }

    1140 cuFileSetParameterString(parameter: CUFileStringConfigParameter_t, value: *const c_char) {
        if value.is_null() {
            return Err(INVALID.into());
        }
        // SAFETY: a string, as NVIDIA's documentation demands.
        library().set_text(parameter.0, CString::from(unsafe { CStr::from_ptr(value) }))
    }

    1150 cuFileSetStatsLevel(level: c_int) {
        if !(0..=3).contains(&level) {
            return Err(INVALID.into());
        }
        stats().level = level;
        Ok(())
    }

    1150 cuFileGetStatsLevel(level: *mut c_int) {
        let now = stats().level;
        give("cuFileGetStatsLevel", level, now)
    }

    1150 cuFileStatsStart() {
        library().expect_counting()?;
        stats().running = true;
        Ok(())
    }

    1150 cuFileStatsStop() {
        library().expect_counting()?;
        stats().running = false;
        Ok(())
    }

    1150 cuFileStatsReset() {
        library().expect_counting()?;
        stats().clear();
        Ok(())
    }

    1150 cuFileGetStatsL1(to: *mut CUfileStatsLevel1_t) {
        give_stats(1, to.cast())
    }

    1150 cuFileGetStatsL2(to: *mut CUfileStatsLevel2_t) {
        give_stats(2, to.cast())
    }

    1150 cuFileGetStatsL3(to: *mut CUfileStatsLevel3_t) {
        give_stats(3, to.cast())
    }
}

fn give_stats(level: i32, to: *mut u8) -> Answer {
    library().expect_counting()?;
    let version = settings().version;
    // Asked for before the statistics are locked, which the driver's work does under the driver's lock.
    let devices = driver().map(|driver| driver.devices()).unwrap_or_default();
    // SAFETY: the program's pointer is valid for this version's struct, as NVIDIA's documentation demands.
    unsafe { stats().give(level, version, &devices, to) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFileUseCount() -> c_long {
    library().uses as c_long
}
const _: cufile_sys::sys::cuFileUseCount = cuFileUseCount;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFileHandleDeregister(handle: CUfileHandle_t) {
    if driver().and_then(|driver| driver.call("cuFileHandleDeregister")).is_none() {
        let answer = library().deregister_file(handle.addr());
        // What is wrong was reported; the function says nothing.
        let _ = counted(|all| &mut all.hdl_deregister_ops, answer);
    }
}
const _: cufile_sys::sys::cuFileHandleDeregister = cuFileHandleDeregister;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFileBatchIODestroy(batch: CUfileBatchHandle_t) {
    if driver().and_then(|driver| driver.call("cuFileBatchIODestroy")).is_none() {
        // As above.
        let _ = library().destroy_batch(batch.addr());
    }
}
const _: cufile_sys::sys::cuFileBatchIODestroy = cuFileBatchIODestroy;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFileRead(
    handle: CUfileHandle_t,
    base: *mut c_void,
    size: usize,
    file_offset: off_t,
    base_offset: off_t,
) -> isize {
    const CALL: &str = "cuFileRead";
    let outcome = match driver().and_then(|driver| driver.call(CALL)) {
        // It does nothing and says success.
        Some(0) => Outcome::Bytes(size),
        Some(code) if code > CUFILEOP_BASE_ERR => Outcome::Failed(CUfileOpError(code)),
        Some(errno) => Outcome::Os(errno as c_int),
        None => {
            let request = Request { handle: handle.addr(), base: base.addr() as u64, base_offset, file_offset, size };
            read(CALL, request).unwrap_or_else(|Refusal { code, .. }| match code {
                OUT_OF_RANGE => Outcome::Os(libc::EINVAL),
                code => Outcome::Failed(code),
            })
        }
    };
    match outcome {
        Outcome::Bytes(bytes) => bytes as isize,
        Outcome::Os(errno) => {
            set_errno(errno);
            -1
        }
        Outcome::Failed(code) => -(code.0 as isize),
        Outcome::Cancelled => -(CUfileOpError::CU_FILE_INTERNAL_ERROR.0 as isize),
    }
}
const _: cufile_sys::sys::cuFileRead = cuFileRead;

/// Reads, and waits for that.
fn read(call: &str, request: Request) -> Answer<Outcome> {
    let job = library().plan(call, request, None, false)?;
    let read = job.begin(call)?;
    if let Some(driver) = driver() {
        read.has_ended(driver, true);
    }
    library().end(&read);
    Ok(read.outcome())
}
