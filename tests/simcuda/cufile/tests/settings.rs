//! What the stand-in is told to do, it does, and says so where the real library would.

mod program;

use std::time::Duration;

use cufile_sys::Error;
use cufile_sys::sys::*;
use program::*;

/// A file read whole, by three single reads, two of them in a stream, and four of a batch. What the library says of the single
/// ones, and of the batch: entries by nvidia-fs, by peer-to-peer DMA, through the host, and bytes.
fn receipts(stand: &Stand) -> (cufile_sys::GpuReads, [u64; 4]) {
    let folder = folder().unwrap();
    let file = direct(&folder.path().join("file")).unwrap();
    let device = stand.open();
    device.count();
    device.register();
    let handle = device.handle(&file).unwrap();
    assert_eq!(device.read(handle, 0, 2), Ok(2 * PAGE));
    let batch = device.batch(PAGES);
    let mut entries: Vec<_> = (2..6).map(|page| device.entry(handle, page)).collect();
    device.submit(batch, &mut entries).unwrap();
    let mut ends = device.all_ends(batch, 4);
    ends.sort_by_key(|end| end.0);
    assert_eq!(ends, (2..6).map(|page| (page, CUfileStatus_t::CUFILE_COMPLETE, PAGE as isize)).collect::<Vec<_>>());
    device.destroy(batch);
    let mut numbers = [page_in_stream(6), page_in_stream(7)];
    for numbers in &mut numbers {
        device.read_async(handle, numbers, &device.stream).unwrap();
    }
    device.stream.synchronize().unwrap();
    assert_eq!(numbers.map(|numbers| numbers.read), [PAGE as isize; 2]);
    assert_eq!(device.bytes(0, PAGES), noise(1));
    let reads = device.cufile().gpu_reads().unwrap();
    let batches = device.cufile().batch_reads().unwrap();
    let batches = [batches.nvfs, batches.p2p, batches.posix, batches.bytes];
    device.forget(handle);
    device.deregister();
    device.close();
    device.free();
    (reads.into_iter().next().unwrap(), batches)
}

#[test]
fn a_file_comes_by_the_way_that_is_set_and_the_statistics_say_so() {
    if folder().is_none() {
        return;
    }
    let stand = stand();
    let ways = [
        ("nvfs", [3, 0, 0], [4, 0, 0]),
        ("p2p", [0, 3, 0], [0, 4, 0]),
        ("posix", [0, 0, 3], [0, 0, 4]),
        ("nvfs,posix:3", [2, 0, 1], [3, 0, 1]),
        ("nvfs,posix:7", [2, 0, 1], [4, 0, 0]),
    ];
    for (seed, (way, [nvfs, p2p, posix], batch)) in (1..).zip(ways) {
        stand.set("path", way);
        stand.restart(seed);
        let (reads, batches) = receipts(&stand);
        assert_eq!((reads.total, reads.nvfs, reads.p2p, reads.posix), (3, nvfs, p2p, posix), "{way}");
        assert_eq!((reads.bytes, reads.errors, reads.unaligned), (4 * PAGE as u64, 0, 0));
        assert_eq!((&batches[..3], batches[3]), (&batch[..], 4 * PAGE as u64), "{way}");
        assert_eq!(&reads.uuid, b"simcuda-device-0");
        stand.finish();
        assert_eq!(stand.session.reports(), Vec::<String>::new(), "{way}");
    }
}

#[test]
fn entries_that_are_not_aligned_are_counted_among_those_of_the_library_s_threads() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    for (way, [direct, aio, mixed, enqueued]) in [("nvfs", [1, 0, 1, 0]), ("posix", [0, 1, 1, 1])] {
        stand.set("path", way);
        stand.restart(1);
        with_file(&stand, &folder.path().join("file"), |device, handle| {
            device.count();
            let batch = device.batch(2);
            let mut short = device.entry(handle, 1);
            short.u.batch.size = 100;
            device.submit(batch, &mut [device.entry(handle, 0), short]).unwrap();
            device.all_ends(batch, 2);
            device.destroy(batch);
            let mut stats = std::mem::MaybeUninit::<CUfileStatsLevel1_t>::zeroed();
            // SAFETY: it is the longest of all versions' structs, and numbers alone, of which 0 is one.
            let stats = unsafe {
                device.cufile().cuFileGetStatsL1(stats.as_mut_ptr()).unwrap();
                stats.assume_init()
            };
            let counts = [stats.batch_nvfs_submit_ops, stats.batch_aio_submit_ops, stats.batch_mixed_io_submit_ops];
            assert_eq!(counts.map(|count| count.ok), [direct, aio, mixed], "{way}");
            assert_eq!((stats.batch_posix_enqueued_ops.ok, stats.batch_total_submit_ops.ok), (enqueued, 2), "{way}");
            assert_eq!(stats.batch_read_bytes, PAGE as u64 + 100);
        });
    }
}

#[test]
fn files_beneath_a_folder_may_go_another_way() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    stand.set("path", format!("p2p,posix:{}", folder.path().display()));
    let file = direct(&folder.path().join("file")).unwrap();
    let device = stand.open();
    device.count();
    device.register();
    let handle = device.handle(&file).unwrap();
    device.read(handle, 0, 1).unwrap();
    let reads = &device.cufile().gpu_reads().unwrap()[0];
    assert_eq!((reads.p2p, reads.posix), (0, 1));
    device.deregister();
    device.forget(handle);
    device.close();
    device.free();
    // Without compatibility mode there is no way for such a file.
    // SAFETY: the library is not open.
    unsafe { forbid_compatibility(&stand) };
    let device = stand.open();
    let error = device.handle(&file).unwrap_err();
    assert_eq!(error.code(), Some(CUfileOpError::CU_FILE_IO_NOT_SUPPORTED));
    device.close();
    device.free();
    assert_eq!(stand.session.reports(), Vec::<String>::new());
}

/// # Safety
/// The library is not open.
unsafe fn forbid_compatibility(stand: &Stand) {
    let parameter = CUFileBoolConfigParameter_t::CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE;
    // SAFETY: as this function demands.
    unsafe { stand.cufile.cuFileSetParameterBool(parameter, false) }.unwrap();
}

#[test]
fn without_a_direct_path_and_without_compatibility_mode_nothing_opens() {
    let stand = stand();
    stand.set("path", "posix");
    // SAFETY: the library is not open.
    unsafe { forbid_compatibility(&stand) };
    // SAFETY: the stand-in needs no /proc/modules.
    let error = unsafe { stand.cufile.cuFileDriverOpen() }.unwrap_err();
    assert_eq!(error.code(), Some(CUfileOpError::CU_FILE_DRIVER_NOT_INITIALIZED));
    // SAFETY: no precondition.
    assert_eq!(unsafe { stand.cufile.cuFileUseCount() }, Ok(0));
}

#[test]
fn a_descriptor_without_direct_io_goes_through_the_host_or_is_refused() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    let file = std::fs::File::open(folder.path().join("file")).unwrap();
    let device = stand.open();
    device.count();
    device.register();
    let handle = device.handle(&file).unwrap();
    device.read(handle, 0, 1).unwrap();
    let reads = &device.cufile().gpu_reads().unwrap()[0];
    assert_eq!((reads.nvfs, reads.posix), (0, 1));
    device.deregister();
    device.forget(handle);
    device.close();
    // SAFETY: the library is not open.
    unsafe { forbid_compatibility(&stand) };
    let again = stand.open();
    let error = again.handle(&file).unwrap_err();
    assert_eq!(error.code(), Some(CUfileOpError::CU_FILE_INVALID_FILE_OPEN_FLAG));
    again.close();
    assert_eq!(stand.session.reports(), Vec::<String>::new());
}

#[test]
fn a_read_that_would_leave_the_direct_path_fails_where_that_is_forbidden() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    stand.set("path", "nvfs,posix:2");
    // SAFETY: the library is not open.
    unsafe { forbid_compatibility(&stand) };
    let file = direct(&folder.path().join("file")).unwrap();
    let device = stand.open();
    device.register();
    let handle = device.handle(&file).unwrap();
    assert_eq!(device.read(handle, 0, 1), Ok(PAGE));
    let error = device.read(handle, 1, 1).unwrap_err();
    assert_eq!(error.code(), Some(CUfileOpError::CU_FILE_IO_NOT_SUPPORTED));
    device.forget(handle);
    device.deregister();
    device.close();
}

#[test]
fn properties_and_flags_say_the_way() {
    let stand = stand();
    let nvme = CUfileDriverStatusFlags::CU_FILE_NVME_SUPPORTED;
    for (way, major, status, features, flags) in
        [("nvfs", 2, 1 << 4, 0, 1 << 1), ("p2p", 0, 1 << 4, 1 << 4, 1 << 0), ("posix", 0, 0, 0, 0)]
    {
        stand.set("path", way);
        stand.restart(1);
        let device = stand.open();
        let properties = device.cufile().properties().unwrap();
        assert_eq!(properties.nvfs.major_version, major, "{way}");
        assert_eq!((properties.nvfs.dstatusflags, properties.fflags & 1 << 4), (status, features), "{way}");
        assert_eq!((properties.max_batch_io_size, properties.max_batch_io_timeout_msecs), (128, 5));
        assert_ne!(properties.nvfs.dcontrolflags & 1 << 1, 0);
        let mut found = CUfileP2PFlags(9);
        // SAFETY: the pointer is valid.
        unsafe { device.cufile().cuFileDriverGetP2PFlags(nvme, &mut found) }.unwrap();
        assert_eq!(found.0, flags, "{way}");
        device.close();
    }
}

#[test]
fn what_came_later_fails_in_earlier_versions_and_statistics_have_their_layout() {
    if folder().is_none() {
        return;
    }
    let stand = stand();
    for (text, number) in [("1.15.1", 1150), ("1.18.0", 1180), ("1.19.0", 1190), ("1.20.0", 1200)] {
        stand.set("version", text);
        stand.restart(1);
        assert_eq!(stand.cufile.version(), Ok(number));
        let (reads, batches) = receipts(&stand);
        assert_eq!((reads.total, reads.nvfs, reads.bytes), (3, 3, 4 * PAGE as u64), "{text}");
        assert_eq!(batches, [4, 0, 0, 4 * PAGE as u64], "{text}");
    }
    stand.set("version", "1.14.1");
    stand.restart(1);
    // SAFETY: no precondition.
    let refused = unsafe { stand.cufile.cuFileSetStatsLevel(3) }.unwrap_err();
    assert_eq!(refused.code(), Some(CUfileOpError::CU_FILE_INVALID_VALUE));
    let parameter = CUFileSizeTConfigParameter_t::CUFILE_PARAM_PROPERTIES_IO_BATCHSIZE;
    // SAFETY: the library is not open.
    unsafe { stand.cufile.cuFileSetParameterSizeT(parameter, 16) }.unwrap();
    assert_eq!(stand.cufile.properties().unwrap().max_batch_io_size, 16);
    stand.set("version", "1.13.0");
    // SAFETY: the library is not open.
    unsafe { stand.cufile.cuFileSetParameterSizeT(parameter, 16) }.unwrap_err();
    stand.set("version", "");
    stand.restart(1);
}

#[test]
fn parameters_are_set_before_the_library_is_opened_only() {
    let stand = stand();
    let parameter = CUFileBoolConfigParameter_t::CUFILE_PARAM_FORCE_COMPAT_MODE;
    let device = stand.open();
    // SAFETY: no other thread is there.
    let error = unsafe { device.cufile().cuFileSetParameterBool(parameter, true) }.unwrap_err();
    assert_eq!(error.code(), Some(CUfileOpError::CU_FILE_DRIVER_ALREADY_OPEN));
    device.close();
    // SAFETY: the library is not open.
    unsafe { stand.cufile.cuFileSetParameterBool(parameter, true) }.unwrap();
    let device = stand.open();
    assert_eq!(device.cufile().properties().unwrap().nvfs.major_version, 0);
    device.close();
}

#[test]
fn the_bytes_may_be_those_of_a_file_behind_the_one_that_is_seen() {
    let (Some(seen), Some(behind), stand) = (folder(), folder(), stand()) else { return };
    std::fs::write(behind.path().join("file"), noise(2)).unwrap();
    stand.set("behind", format!("{}=>{}", seen.path().display(), behind.path().display()));
    let file = direct(&seen.path().join("file")).unwrap();
    let device = stand.open();
    device.register();
    let handle = device.handle(&file).unwrap();
    device.read(handle, 0, PAGES).unwrap();
    assert_eq!(device.bytes(0, PAGES), noise(2));
    device.forget(handle);
    device.deregister();
    device.close();
    assert_eq!(stand.session.reports(), Vec::<String>::new());
}

#[test]
fn reads_fail_and_fall_short_by_their_number() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    stand.set("fail", "1:5,3:5030,5:116,7:5044");
    stand.set("short", "2:100,6:1");
    let file = direct(&folder.path().join("file")).unwrap();
    let device = stand.open();
    device.count();
    device.register();
    let handle = device.handle(&file).unwrap();
    assert_eq!(device.read(handle, 0, 1), Err(Error::Os { call: "cuFileRead", errno: 5 }));
    assert_eq!(device.read(handle, 0, 1), Ok(100));
    assert_eq!(device.bytes(0, 1)[..100], noise(1)[..100]);
    let failed = device.read(handle, 0, 1).unwrap_err();
    assert_eq!(failed.code(), Some(CUfileOpError::CU_FILE_INTERNAL_ERROR));
    let batch = device.batch(PAGES);
    let mut entries: Vec<_> = (0..3).map(|page| device.entry(handle, page)).collect();
    device.submit(batch, &mut entries).unwrap();
    let mut ends = device.all_ends(batch, 3);
    ends.sort_by_key(|end| end.0);
    let (complete, failed) = (CUfileStatus_t::CUFILE_COMPLETE, CUfileStatus_t::CUFILE_FAILED);
    assert_eq!(ends, [(0, complete, PAGE as isize), (1, failed, -116), (2, complete, 1)]);
    device.destroy(batch);
    let mut numbers = page_in_stream(0);
    device.read_async(handle, &mut numbers, &device.stream).unwrap();
    device.stream.synchronize().unwrap();
    assert_eq!(numbers.read, -5044);
    assert_eq!(device.cufile().gpu_reads().unwrap()[0].errors, 3);
    device.forget(handle);
    device.deregister();
    device.close();
    stand.finish();
}

#[test]
fn the_end_of_a_file_makes_a_read_short() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    std::fs::write(folder.path().join("file"), &noise(1)[..PAGE + 10]).unwrap();
    let file = direct(&folder.path().join("file")).unwrap();
    let device = stand.open();
    device.register();
    let handle = device.handle(&file).unwrap();
    device.count();
    assert_eq!(device.read(handle, 0, 2), Ok(PAGE + 10));
    assert_eq!(device.read(handle, 1, 1), Ok(10));
    assert_eq!(device.read(handle, 2, 1), Ok(0));
    assert_eq!(device.cufile().gpu_reads().unwrap()[0].bytes, 4 * PAGE as u64);
    device.forget(handle);
    device.deregister();
    device.close();
    assert_eq!(stand.session.reports(), Vec::<String>::new());
}

#[test]
fn a_read_that_is_stuck_does_not_end_and_can_be_cancelled() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    stand.set("stuck", "2");
    for seed in 1..20 {
        stand.restart(seed);
        with_file(&stand, &folder.path().join("file"), |device, handle| {
            let batch = device.batch(PAGES);
            let mut entries: Vec<_> = (0..3).map(|page| device.entry(handle, page)).collect();
            device.submit(batch, &mut entries).unwrap();
            let ends = device.all_ends(batch, 2);
            assert!(ends.iter().all(|end| end.0 != 1), "{ends:?}");
            assert_eq!(device.ends(batch, 1, Some(Duration::from_millis(3))).unwrap(), []);
            device.cancel(batch);
            device.destroy(batch);
        });
        stand.finish();
        assert_eq!(stand.session.reports(), Vec::<String>::new());
    }
}

#[test]
fn of_a_batch_that_is_cancelled_no_end_is_told_and_its_memory_is_free() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    let untouched = vec![7; PAGES * PAGE];
    let (mut done, mut not_done) = (0, 0);
    for seed in 1..20 {
        stand.restart(seed);
        let pages = std::cell::RefCell::new(Vec::new());
        with_file(&stand, &folder.path().join("file"), |device, handle| {
            device.write(&untouched);
            let batch = device.batch(PAGES);
            let mut entries: Vec<_> = (0..PAGES).map(|page| device.entry(handle, page)).collect();
            device.submit(batch, &mut entries).unwrap();
            device.cancel(batch);
            assert_eq!(device.ends(batch, 1, None).unwrap(), []);
            *pages.borrow_mut() = device.bytes(0, PAGES);
            device.write(&untouched);
            // It takes reads again.
            device.submit(batch, &mut entries[..1]).unwrap();
            assert_eq!(device.all_ends(batch, 1), [(0, CUfileStatus_t::CUFILE_COMPLETE, PAGE as isize)]);
            device.destroy(batch);
        });
        done += pages.borrow().chunks(PAGE).zip(noise(1).chunks(PAGE)).filter(|(page, file)| page == file).count();
        not_done += pages.borrow().chunks(PAGE).filter(|page| page.iter().all(|byte| *byte == 7)).count();
        stand.finish();
        assert_eq!(stand.session.reports(), Vec::<String>::new());
    }
    assert!(done > 0 && not_done > 0 && done + not_done == 19 * PAGES, "{done}, {not_done}");
}

#[test]
fn more_ends_than_there_are_reads_are_not_waited_for() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    with_file(&stand, &folder.path().join("file"), |device, handle| {
        let batch = device.batch(PAGES);
        assert_eq!(device.ends(batch, PAGES, None).unwrap(), []);
        device.submit(batch, &mut [device.entry(handle, 0)]).unwrap();
        let early = device.ends(batch, 2, None).unwrap().len();
        device.all_ends(batch, 1 - early);
        device.destroy(batch);
    });
    assert_eq!(stand.session.reports(), Vec::<String>::new());
}

#[test]
fn the_rules_of_the_driver_hold_for_these_functions_too() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    stand.session.set("fail", "cuFileBatchIOSubmit#1:5030,cuFileRead#2:5,cuFileBufRegister#2:5036");
    stand.session.set("drop", "cuFileRead#1");
    let file = direct(&folder.path().join("file")).unwrap();
    let device = stand.open();
    device.register();
    let handle = device.handle(&file).unwrap();
    // Dropped: it says success and has read nothing.
    assert_eq!(device.read(handle, 0, 1), Ok(PAGE));
    assert_eq!(device.read(handle, 0, 1), Err(Error::Os { call: "cuFileRead", errno: 5 }));
    let batch = device.batch(1);
    let error = device.submit(batch, &mut [device.entry(handle, 0)]).unwrap_err();
    assert_eq!(error.code(), Some(CUfileOpError::CU_FILE_INTERNAL_ERROR));
    device.submit(batch, &mut [device.entry(handle, 0)]).unwrap();
    assert_eq!(device.all_ends(batch, 1).len(), 1);
    device.destroy(batch);
    // SAFETY: the range is within an allocation.
    unsafe { device.cufile().cuFileBufRegister(device.at(0), PAGE, 0) }.unwrap_err();
    device.forget(handle);
    device.deregister();
    device.close();
    device.free();
    stand.finish();
    assert_eq!(stand.session.reports(), Vec::<String>::new());
    stand.session.set("fail", "");
    stand.session.set("drop", "");
}

#[test]
fn a_planted_read_that_never_came_is_a_fault_of_the_test() {
    let stand = stand();
    stand.set("fail", "9:5");
    stand.finish();
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stand.session.reports()));
    assert!(said.is_err(), "the report of the kind `setting` ends a test");
}
