//! Each report, planted once.

mod program;

use std::ptr;
use std::time::Duration;

use cufile_sys::sys::*;
use program::*;

/// What a program changes too early.
type Change = fn(&mut InStream);

/// A fault that a program commits.
type Fault = fn(&Device, CUfileHandle_t);

/// Opens all, lets `fault` happen, and gives back what that left. A report must have these words.
fn reported(words: &str, fault: Fault) {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    caught(words, |stand| with_file(stand, &path, fault));
}

fn submit_two(device: &Device, handle: CUfileHandle_t) -> CUfileBatchHandle_t {
    let batch = device.batch(PAGES);
    device.submit(batch, &mut [device.entry(handle, 0), device.entry(handle, 1)]).unwrap();
    batch
}

/// Reads so many bytes from a place in the file to one in a buffer.
fn read(device: &Device, handle: CUfileHandle_t, base: usize, size: usize, file_offset: i64, base_offset: i64) {
    // SAFETY: the stand-in checks what it is given.
    let _ = unsafe { device.cufile().cuFileRead(handle, device.at(base), size, file_offset, base_offset) };
}

#[test]
fn lifetimes_of_handles() {
    reported("cufile-lifetime: cuFileHandleDeregister of", |device, handle| {
        let batch = submit_two(device, handle);
        device.forget(handle);
        device.all_ends(batch, 2);
        device.destroy(batch);
    });
    reported("a handle that was given back", |device, handle| {
        device.forget(handle);
        device.read(handle, 0, 1).unwrap_err();
    });
    reported("0x10 is no handle", |device, _| {
        device.read(ptr::without_provenance_mut(16), 0, 1).unwrap_err();
    });
    reported("still registered when the driver was closed", |device, _| device.close());
    reported("cuFileDriverClose: 2 reads are in flight", |device, handle| {
        let batch = submit_two(device, handle);
        // SAFETY: the stand-in checks what it is given.
        let error = unsafe { device.cufile().cuFileDriverClose_v2() }.unwrap_err();
        assert_eq!(error.code(), Some(CUfileOpError::CU_FILE_DRIVER_CLOSING));
        device.all_ends(batch, 2);
        device.destroy(batch);
    });
}

#[test]
fn lifetimes_of_descriptors() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    caught("was closed while registered, found when read 1 (cuFileRead) began", |stand| {
        let file = direct(&path).unwrap();
        let device = stand.open();
        device.register();
        let handle = device.handle(&file).unwrap();
        drop(file);
        let error = device.read(handle, 0, 1).unwrap_err();
        assert_eq!(error, cufile_sys::Error::Os { call: "cuFileRead", errno: libc::EBADF });
        device.forget(handle);
        device.deregister();
        device.close();
    });
}

#[test]
fn lifetimes_of_buffers() {
    reported("cufile-lifetime: cuFileBufDeregister of", |device, handle| {
        let batch = submit_two(device, handle);
        device.deregister();
        device.all_ends(batch, 2);
        device.destroy(batch);
    });
    reported("race: cuMemFree ends", |device, handle| {
        let batch = submit_two(device, handle);
        device.free();
        device.all_ends(batch, 2);
        device.destroy(batch);
    });
    reported("its memory was freed while it was registered", |device, _| device.free());
    reported("is freed", |device, handle| {
        device.free();
        device.read(handle, 0, 1).unwrap_err();
    });
    reported("is not where a registered buffer begins", |device, _| {
        // SAFETY: the stand-in checks what it is given.
        unsafe { device.cufile().cuFileBufDeregister(device.at(PAGE)) }.unwrap_err();
    });
    reported("some of it is registered already", |device, _| {
        // SAFETY: as above.
        unsafe { device.cufile().cuFileBufRegister(device.at(PAGE), PAGE, 0) }.unwrap_err();
    });
    reported("its allocation ends before", |device, _| {
        device.deregister();
        // SAFETY: as above.
        unsafe { device.cufile().cuFileBufRegister(device.at(0), 1 << 30, 0) }.unwrap_err();
    });
}

#[test]
fn lifetimes_of_batches_and_streams() {
    reported("cuFileBatchIODestroy with 2 reads in flight", |device, handle| {
        let batch = submit_two(device, handle);
        device.destroy(batch);
    });
    reported("1 batches are not destroyed when the driver was closed", |device, handle| {
        device.batch(1);
        device.forget(handle);
        device.deregister();
        device.close();
    });
    reported("cuFileBatchIOGetStatus: a handle that was given back", |device, _| {
        let batch = device.batch(1);
        device.destroy(batch);
        device.ends(batch, 0, None).unwrap_err();
    });
    reported("cuFileStreamDeregister with 1 reads in flight in the stream", |device, handle| {
        let mut numbers = page_in_stream(0);
        // SAFETY: the stream is live; the stand-in checks the rest.
        unsafe {
            device.cufile().cuFileStreamRegister(device.stream.cu_stream().cast(), 0).unwrap();
            device.read_async(handle, &mut numbers, &device.stream).unwrap();
            device.cufile().cuFileStreamDeregister(device.stream.cu_stream().cast()).unwrap();
        }
        device.stream.synchronize().unwrap();
    });
    reported("1 streams are still registered when the driver was closed", |device, _| {
        // SAFETY: the stream is live.
        unsafe { device.cufile().cuFileStreamRegister(device.stream.cu_stream().cast(), 0) }.unwrap();
        device.close();
    });
}

#[test]
fn a_read_in_a_stream_is_in_flight_until_the_host_knows_that_it_is_over() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    for seed in 1..=20 {
        for waits in [false, true] {
            stand.restart(seed);
            with_file(&stand, &folder.path().join("file"), |device, handle| {
                let mut numbers = page_in_stream(0);
                device.read_async(handle, &mut numbers, &device.stream).unwrap();
                if waits {
                    device.stream.synchronize().unwrap();
                }
                device.forget(handle);
                device.stream.synchronize().unwrap();
            });
            let reports = stand.session.reports();
            let early = reports.iter().any(|report| report.contains("file with 1 reads in flight"));
            assert_eq!(early, !waits, "seed {seed}: {reports:?}");
        }
    }
}

#[test]
fn what_is_left_when_the_process_ends() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    caught("is still registered when the process ended", |stand| {
        let file = direct(&path).unwrap();
        let device = stand.open();
        device.handle(&file).unwrap();
    });
    caught("the buffer of 32768 bytes", |stand| stand.open().register());
}

#[test]
fn use_before_the_driver_is_open() {
    caught("cufile-lifetime: cuFileBufRegister: the driver is not open", |stand| {
        let device = stand.open();
        device.close();
        // SAFETY: the stand-in checks what it is given.
        unsafe { device.cufile().cuFileBufRegister(device.at(0), PAGE, 0) }.unwrap_err();
        device.free();
    });
}

#[test]
fn the_order_of_batches() {
    reported("cufile-resubmit: cuFileBatchIOSubmit: the end of 2 reads", |device, handle| {
        let batch = submit_two(device, handle);
        device.submit(batch, &mut [device.entry(handle, 3)]).unwrap();
        device.all_ends(batch, 3);
        device.destroy(batch);
    });
    reported("1 entries beside 2 of a batch that was set up for 2", |device, handle| {
        let batch = device.batch(2);
        device.submit(batch, &mut [device.entry(handle, 0), device.entry(handle, 1)]).unwrap();
        let error = device.submit(batch, &mut [device.entry(handle, 3)]).unwrap_err();
        assert_eq!(error.code(), Some(CUfileOpError::CU_FILE_BATCH_FULL));
        assert_eq!(device.ends(batch, 1, None).unwrap(), []);
        device.destroy(batch);
    });
    reported("cufile-order: cuFileBatchIOSubmit is refused, by which the ends of 1 reads", |device, handle| {
        let batch = device.batch(2);
        device.submit(batch, &mut [device.entry(handle, 0)]).unwrap();
        device.submit(batch, &mut [device.entry(ptr::null_mut(), 1)]).unwrap_err();
        assert_eq!(device.ends(batch, 1, None).unwrap(), []);
        device.destroy(batch);
    });
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    let stuck = stand();
    stuck.set("stuck", "1");
    with_file(&stuck, &path, |device, handle| {
        let batch = device.batch(1);
        device.submit(batch, &mut [device.entry(handle, 0)]).unwrap();
        assert_eq!(device.ends(batch, 1, Some(Duration::ZERO)).unwrap(), []);
        device.ends(batch, 1, None).unwrap_err();
        device.cancel(batch);
        device.destroy(batch);
    });
    let reports = stuck.session.reports();
    assert!(reports.len() == 1 && reports[0].contains("waits for ever"), "{reports:?}");
}

#[test]
fn numbers_of_a_read_in_a_stream() {
    let changed: [(&str, Change); 4] = [
        ("cufile-order: read 1 (cuFileReadAsync): its size was changed", |numbers| numbers.size = 1),
        ("its file offset was changed", |numbers| numbers.file_offset = 0),
        ("its buffer offset was changed", |numbers| numbers.base_offset = 0),
        ("the host wrote to its count of bytes", |numbers| numbers.read = 0),
    ];
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    for (words, change) in changed {
        for fixed in [false, true] {
            let program = |stand: &Stand| {
                let file = direct(&path).unwrap();
                let device = stand.open();
                device.register();
                let handle = device.handle(&file).unwrap();
                let stream: CUstream = device.stream.cu_stream().cast();
                let mut numbers = page_in_stream(1);
                // SAFETY: the stream is live.
                unsafe { device.cufile().cuFileStreamRegister(stream, if fixed { 15 } else { 0 }) }.unwrap();
                device.read_async(handle, &mut numbers, &device.stream).unwrap();
                change(&mut numbers);
                device.stream.synchronize().unwrap();
                assert_eq!(device.bytes(1, 1), noise(1)[PAGE..2 * PAGE]);
                // SAFETY: as above.
                unsafe { device.cufile().cuFileStreamDeregister(stream) }.unwrap();
                device.forget(handle);
                device.deregister();
                device.close();
                device.free();
            };
            match fixed && !words.contains("count of bytes") {
                true => passes(program),
                false => caught(words, program),
            }
        }
    }
}

#[test]
fn a_count_of_bytes_that_is_looked_at_early_is_none() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    let path = folder.path().join("file");
    let mut early = Vec::new();
    for seed in 1..=10 {
        stand.restart(seed);
        let file = direct(&path).unwrap();
        let device = stand.open();
        device.register();
        let handle = device.handle(&file).unwrap();
        let mut numbers = page_in_stream(0);
        device.read_async(handle, &mut numbers, &device.stream).unwrap();
        // SAFETY: the number lives; it is changed by the stand-in.
        early.push(unsafe { ptr::read_volatile(&numbers.read) });
        device.stream.synchronize().unwrap();
        device.forget(handle);
        device.deregister();
        device.close();
    }
    assert!(early.iter().any(|read| *read < -10_000), "{early:?}");
}

#[test]
fn arguments_of_reads() {
    reported("leaves the registered buffer", |device, handle| {
        read(device, handle, 0, 2 * PAGE, 0, ((PAGES - 1) * PAGE) as i64);
    });
    reported("leaves the registered buffer at", |device, handle| {
        read(device, handle, 0, PAGE, 0, (PAGES * PAGE) as i64);
    });
    reported("is not where the registered buffer at", |device, handle| read(device, handle, PAGE, PAGE, 0, 0));
    reported("is in no registered buffer", |device, handle| {
        device.deregister();
        assert_eq!(device.read(handle, 0, 1), Ok(PAGE));
    });
    reported("is no memory of a device", |device, handle| {
        let mut memory = vec![0_u8; PAGE];
        let at = memory.as_mut_ptr().cast();
        // SAFETY: the stand-in checks what it is given.
        unsafe { device.cufile().cuFileRead(handle, at, PAGE, 0, 0) }.unwrap_err();
    });
    reported("cufile-argument: read 1 (cuFileRead): Request", |device, handle| read(device, handle, 0, 0, 0, 0));
    reported("file_offset: -4096", |device, handle| read(device, handle, 0, PAGE, -4096, 0));
    for misplaced in [
        (|device, handle| read(device, handle, 0, PAGE - 1, 0, 0)) as Fault,
        |device, handle| read(device, handle, 0, PAGE, 512, 0),
        |device, handle| read(device, handle, 0, PAGE, 0, 512),
    ] {
        reported("cufile-unaligned: read 1", misplaced);
    }
}

#[test]
fn an_unaligned_read_is_counted_and_reported_only_where_it_loses_the_direct_path() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    let path = folder.path().join("file");
    for way in ["nvfs", "p2p", "posix"] {
        stand.set("path", way);
        stand.restart(1);
        let file = direct(&path).unwrap();
        let device = stand.open();
        device.count();
        device.register();
        let handle = device.handle(&file).unwrap();
        read(&device, handle, 0, 100, 0, 0);
        assert_eq!(device.cufile().gpu_reads().unwrap()[0].unaligned, 1, "{way}");
        assert_eq!(device.bytes(0, 1)[..100], noise(1)[..100]);
        device.forget(handle);
        device.deregister();
        device.close();
        let reports = stand.session.reports();
        let unaligned = reports.iter().filter(|report| report.starts_with("cufile-unaligned: read 1"));
        assert_eq!(unaligned.count(), usize::from(way != "posix"), "{way}: {reports:?}");
    }
}

#[test]
fn arguments_of_batches() {
    reported("has the cookie of an earlier one", |device, handle| {
        let batch = device.batch(2);
        let [first, mut second] = [device.entry(handle, 0), device.entry(handle, 1)];
        second.cookie = first.cookie;
        device.submit(batch, &mut [first, second]).unwrap();
        device.all_ends(batch, 2);
        device.destroy(batch);
    });
    reported("2 entries of a batch that was set up for 1", |device, handle| {
        let batch = device.batch(1);
        device.submit(batch, &mut [device.entry(handle, 0), device.entry(handle, 1)]).unwrap_err();
        device.destroy(batch);
    });
    reported("1000 entries where 1 to 128 can be had", |device, _| {
        let mut batch = ptr::null_mut();
        // SAFETY: the pointer is valid.
        unsafe { device.cufile().cuFileBatchIOSetUp(&mut batch, 1000) }.unwrap_err();
    });
    reported("is no read of a batch", |device, handle| {
        let batch = device.batch(1);
        let mut entry = device.entry(handle, 0);
        entry.opcode = CUfileOpcode_t::CUFILE_WRITE;
        device.submit(batch, &mut [entry]).unwrap_err();
        device.destroy(batch);
    });
    reported("is registered already", |device, _| {
        // SAFETY: the stream is live.
        unsafe {
            let stream: CUstream = device.stream.cu_stream().cast();
            device.cufile().cuFileStreamRegister(stream, 0).unwrap();
            device.cufile().cuFileStreamRegister(stream, 0).unwrap();
            device.cufile().cuFileStreamDeregister(stream).unwrap();
        }
    });
    reported("in a stream of aligned reads", |device, handle| {
        let mut numbers = page_in_stream(0);
        numbers.size = 7;
        // SAFETY: the stream is live.
        unsafe {
            let stream: CUstream = device.stream.cu_stream().cast();
            device.cufile().cuFileStreamRegister(stream, CU_FILE_STREAM_PAGE_ALIGNED_INPUTS).unwrap();
            let error = device.read_async(handle, &mut numbers, &device.stream).unwrap_err();
            assert_eq!((error.code(), numbers.read), (Some(CUfileOpError::CU_FILE_INVALID_VALUE), -22));
            device.cufile().cuFileStreamDeregister(stream).unwrap();
        }
    });
}

#[test]
fn a_read_that_leaves_its_buffer_is_refused_in_each_call_s_own_words() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    with_file(&stand, &folder.path().join("file"), |device, handle| {
        let error = device.read(handle, PAGES - 1, 2).unwrap_err();
        assert_eq!(error, cufile_sys::Error::Os { call: "cuFileRead", errno: libc::EINVAL });
        let batch = device.batch(1);
        let error = device.submit(batch, &mut [device.entry(handle, PAGES)]).unwrap_err();
        assert_eq!(error.code(), Some(CUfileOpError::CU_FILE_INVALID_MAPPING_RANGE));
        device.destroy(batch);
        let mut numbers = page_in_stream(PAGES);
        let error = device.read_async(handle, &mut numbers, &device.stream).unwrap_err();
        assert_eq!((error.code(), numbers.read), (Some(CUfileOpError::CU_FILE_INVALID_MAPPING_SIZE), -5016));
    });
    assert!(stand.session.reports().iter().all(|report| report.contains("leaves the registered buffer")));
}

#[test]
fn a_batch_that_fails_its_checks_begins_nothing() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    with_file(&stand, &folder.path().join("file"), |device, handle| {
        let batch = device.batch(2);
        let mut stale = device.entry(handle, 1);
        stale.fh = ptr::null_mut();
        device.submit(batch, &mut [device.entry(handle, 0), stale]).unwrap_err();
        assert_eq!(device.ends(batch, 0, None).unwrap(), []);
        device.destroy(batch);
    });
    stand.finish();
    let reports = stand.session.reports();
    assert!(reports.len() == 1 && reports[0].contains("0x0 is no handle"), "{reports:?}");
}
