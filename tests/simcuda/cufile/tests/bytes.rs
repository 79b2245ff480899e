//! What reads leave in memory, and bytes that are where they should never be.

mod program;

use cudarc::driver::{result, sys};
use cufile_sys::sys::CUfileHandle_t;
use program::*;

/// What is done with a file and a device.
type Program = fn(&Device, CUfileHandle_t);

#[test]
fn page_locked_memory_is_a_target_too() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    passes(|stand| {
        with_file(stand, &path, |device, handle| {
            // SAFETY: a context is current, the memory lives as long as it is registered, and nothing else uses it.
            let bytes = unsafe {
                let memory = result::malloc_host(PAGE, sys::CU_MEMHOSTALLOC_PORTABLE).unwrap();
                device.cufile().cuFileBufRegister(memory, PAGE, 0).unwrap();
                assert_eq!(device.cufile().cuFileRead(handle, memory, PAGE, PAGE as i64, 0), Ok(PAGE));
                let bytes = std::slice::from_raw_parts(memory.cast::<u8>(), PAGE).to_vec();
                device.cufile().cuFileBufDeregister(memory).unwrap();
                result::free_host(memory).unwrap();
                bytes
            };
            assert_eq!(bytes, noise(1)[PAGE..2 * PAGE]);
        });
    });
}

#[test]
fn what_a_read_that_failed_leaves_is_garbage() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    stand.set("fail", "1:5");
    with_file(&stand, &folder.path().join("file"), |device, handle| {
        device.read(handle, 0, 1).unwrap_err();
        assert_eq!(device.bytes(0, 1), [0xEE; PAGE]);
    });
}

#[test]
fn what_a_short_read_does_not_give_was_never_written() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    caught("uninitialised", |stand| {
        std::fs::write(&path, &noise(1)[..PAGE]).unwrap();
        with_file(stand, &path, |device, handle| {
            assert_eq!(device.read(handle, 0, 2), Ok(PAGE));
            device.bytes(0, 2);
        });
    });
}

#[test]
fn bytes_that_were_read_directly_are_found_in_the_host_s_memory() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    let path = folder.path().join("file");
    stand.set("watch", "1");
    let copied: Program = |device, handle| {
        device.read(handle, 0, 1).unwrap();
        let bytes = noise(1);
        // SAFETY: the range is within the buffer.
        unsafe { result::memcpy_htod_sync(device.base + 3 * PAGE as u64, &bytes[100..PAGE]) }.unwrap();
    };
    let page_locked: Program = |device, handle| {
        // SAFETY: a context is current; the memory is written before it is freed.
        unsafe {
            let memory = result::malloc_host(PAGE, sys::CU_MEMHOSTALLOC_PORTABLE).unwrap().cast::<u8>();
            memory.copy_from_nonoverlapping(noise(1).as_ptr(), PAGE);
            device.read(handle, 0, 1).unwrap();
            result::free_host(memory.cast()).unwrap();
        }
    };
    let left: Program = |device, handle| {
        // SAFETY: as above; it is left to the end of the process.
        unsafe {
            let memory = result::malloc_host(PAGE, sys::CU_MEMHOSTALLOC_PORTABLE).unwrap().cast::<u8>();
            memory.copy_from_nonoverlapping(noise(1).as_ptr(), PAGE);
        }
        device.read(handle, 0, 1).unwrap();
    };
    let clean: Program = |device, handle| {
        device.read(handle, 0, 1).unwrap();
        // Other bytes, in a copy and in page-locked memory.
        // SAFETY: as above.
        unsafe {
            result::memcpy_htod_sync(device.base + 3 * PAGE as u64, &noise(3)[..PAGE]).unwrap();
            let memory = result::malloc_host(PAGE, sys::CU_MEMHOSTALLOC_PORTABLE).unwrap().cast::<u8>();
            memory.copy_from_nonoverlapping(noise(3).as_ptr(), PAGE);
            result::free_host(memory.cast()).unwrap();
        }
    };
    for (words, fault) in [
        ("host-bytes: cuMemcpyHtoD", Some(copied)),
        ("host-bytes: page-locked memory", Some(page_locked)),
        ("host-bytes: page-locked memory", Some(left)),
        ("", None),
    ] {
        // The memory that is left is what one of them is about.
        stand.session.set("ignore", "leak");
        stand.restart(1);
        with_file(&stand, &path, fault.unwrap_or(clean));
        stand.finish();
        let reports = stand.session.reports();
        assert_eq!(!reports.is_empty(), fault.is_some(), "{reports:?}");
        assert!(reports.iter().all(|report| report.starts_with(words)), "{reports:?}");
    }
    // What went through the host's memory anyhow is not looked for.
    stand.set("path", "posix");
    stand.restart(1);
    with_file(&stand, &path, copied);
    assert_eq!(stand.session.reports(), Vec::<String>::new());
    stand.set("watch", "");
    stand.session.set("ignore", "");
}
