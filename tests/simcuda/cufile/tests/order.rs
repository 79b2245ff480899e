//! A read is ordered with nothing until the program learns of its end.

mod program;

use cudarc::driver::result;
use program::*;

/// Copies a page of the buffer to the next but one in the device's stream, and waits.
fn use_page(device: &Device, page: usize) {
    let from = device.base + (page * PAGE) as u64;
    // SAFETY: both ranges are within the buffer.
    unsafe { result::memcpy_dtod_async(from + 2 * PAGE as u64, from, PAGE, device.stream.cu_stream()) }.unwrap();
    device.stream.synchronize().unwrap();
}

#[test]
fn memory_may_be_used_once_the_end_of_its_read_was_taken() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    let program = |stand: &Stand, waits: bool| {
        with_file(stand, &path, |device, handle| {
            let batch = device.batch(PAGES);
            device.submit(batch, &mut [device.entry(handle, 0), device.entry(handle, 1)]).unwrap();
            let early = if waits { device.all_ends(batch, 2).len() } else { 0 };
            use_page(device, 0);
            device.all_ends(batch, 2 - early);
            device.destroy(batch);
        });
    };
    passes(|stand| program(stand, true));
    caught("nothing orders it with", |stand| program(stand, false));
}

#[test]
fn the_end_of_one_read_says_nothing_of_another() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    caught("nothing orders it with", |stand| {
        with_file(stand, &path, |device, handle| {
            let batch = device.batch(PAGES);
            device.submit(batch, &mut [device.entry(handle, 0), device.entry(handle, 1)]).unwrap();
            let first = device.ends(batch, 1, None).unwrap();
            use_page(device, 0);
            use_page(device, 1);
            device.all_ends(batch, 2 - first.len());
            device.destroy(batch);
        });
    });
}

#[test]
fn a_read_does_not_wait_for_work_that_the_host_does_not_know_to_be_over() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    let program = |stand: &Stand, waits: bool| {
        with_file(stand, &path, |device, handle| {
            // SAFETY: the range is within the buffer.
            unsafe { result::memset_d8_async(device.base, 7, PAGE, device.stream.cu_stream()) }.unwrap();
            if waits {
                device.stream.synchronize().unwrap();
            }
            device.read(handle, 0, 1).unwrap();
            device.stream.synchronize().unwrap();
        });
    };
    passes(|stand| program(stand, true));
    caught("nothing orders it with", |stand| program(stand, false));
}

#[test]
fn a_read_that_has_returned_is_over() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    passes(|stand| {
        with_file(stand, &path, |device, handle| {
            device.read(handle, 0, 1).unwrap();
            use_page(device, 0);
            assert_eq!(device.bytes(2, 1), noise(1)[..PAGE]);
        });
    });
}

#[test]
fn a_read_in_a_stream_is_ordered_with_that_stream_only() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    let program = |stand: &Stand, same: bool| {
        with_file(stand, &path, |device, handle| {
            let stream = if same { device.stream.clone() } else { device.context.new_stream().unwrap() };
            let mut numbers = page_in_stream(0);
            device.read_async(handle, &mut numbers, &stream).unwrap();
            use_page(device, 0);
            stream.synchronize().unwrap();
            assert_eq!(numbers.read, PAGE as isize);
        });
    };
    passes(|stand| program(stand, true));
    caught("nothing orders it with", |stand| program(stand, false));
}

#[test]
fn waiting_for_the_context_waits_for_no_read() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    caught("nothing orders it with", |stand| {
        with_file(stand, &path, |device, handle| {
            let batch = device.batch(PAGES);
            device.submit(batch, &mut [device.entry(handle, 0)]).unwrap();
            device.context.synchronize().unwrap();
            use_page(device, 0);
            device.all_ends(batch, 1);
            device.destroy(batch);
        });
    });
}

#[test]
fn a_batch_ends_in_an_order_of_the_seed_and_a_few_at_a_time() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    let path = folder.path().join("file");
    let order = |seed: u64| {
        stand.restart(seed);
        let order = std::cell::RefCell::new(Vec::new());
        with_file(&stand, &path, |device, handle| {
            let batch = device.batch(PAGES);
            let mut entries: Vec<_> = (0..PAGES).map(|page| device.entry(handle, page)).collect();
            device.submit(batch, &mut entries).unwrap();
            let mut left = PAGES;
            while left > 0 {
                let ends = device.ends(batch, 1, None).unwrap();
                left -= ends.len();
                order.borrow_mut().push(ends.iter().map(|end| end.0).collect::<Vec<_>>());
            }
            device.destroy(batch);
            assert_eq!(device.bytes(0, PAGES), noise(1));
        });
        order.into_inner()
    };
    let orders: Vec<_> = (1..=20).map(order).collect();
    let in_order = |order: &Vec<Vec<usize>>| order.concat().is_sorted();
    assert!(orders.iter().any(|order| !in_order(order)) && orders.iter().any(|order| order.len() > 2), "{orders:?}");
    assert!((1..=20).all(|seed| order(seed) == orders[seed as usize - 1]));
}

#[test]
fn the_least_that_is_asked_for_comes_unless_its_time_passes() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    let path = folder.path().join("file");
    let mut impatient = 0;
    for seed in 1..=40 {
        stand.restart(seed);
        with_file(&stand, &path, |device, handle| {
            let batch = device.batch(PAGES);
            let mut entries: Vec<_> = (0..PAGES).map(|page| device.entry(handle, page)).collect();
            device.submit(batch, &mut entries).unwrap();
            assert!(device.ends(batch, PAGES, None).unwrap().len() == PAGES);
            device.destroy(batch);
        });
        stand.restart(seed);
        let short = std::cell::Cell::new(false);
        with_file(&stand, &path, |device, handle| {
            let batch = device.batch(PAGES);
            let mut entries: Vec<_> = (0..PAGES).map(|page| device.entry(handle, page)).collect();
            device.submit(batch, &mut entries).unwrap();
            let ends = device.ends(batch, PAGES, Some(std::time::Duration::from_secs(1))).unwrap();
            short.set(ends.len() < PAGES);
            device.all_ends(batch, PAGES - ends.len());
            device.destroy(batch);
        });
        impatient += usize::from(short.get());
    }
    assert!((1..40).contains(&impatient), "{impatient}");
}
