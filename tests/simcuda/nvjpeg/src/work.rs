//! Host code at its turn in a stream.

use std::ffi::{c_int, c_void};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nvjpeg_sys::sys::nvjpegImage_t;

use crate::driver::{Driver, Range};
use crate::image::Region;

/// Whether queued work has run.
#[derive(Clone, Debug, Default)]
pub struct Pending(Option<Arc<AtomicBool>>);

impl Pending {
    /// Whether work was queued that has not run.
    pub fn is_pending(&self) -> bool {
        self.0.as_ref().is_some_and(|run| !run.load(Ordering::SeqCst))
    }
}

/// What to do with the bytes that are read and the memory that is written, one slice a range. False breaks the context.
pub type Body = Box<dyn FnOnce(&[&[u8]], &mut [&mut [u8]]) -> bool + Send>;

struct Job {
    body: Body,
    reads: Vec<usize>,
    writes: Vec<usize>,
    run: Arc<AtomicBool>,
}

/// Queues work; the driver's code if it refuses.
pub fn enqueue(
    driver: &Driver,
    stream: u64,
    name: &str,
    (reads, writes): (&[Range], &[Range]),
    body: Body,
) -> Result<Pending, c_int> {
    let run = Arc::new(AtomicBool::new(false));
    let lengths = |ranges: &[Range]| ranges.iter().map(|range| range.bytes as usize).collect();
    let job = Job { body, reads: lengths(reads), writes: lengths(writes), run: Arc::clone(&run) };
    let argument = Box::into_raw(Box::new(job)).cast();
    // SAFETY: `perform` takes the job that the argument points to, once.
    match unsafe { driver.enqueue(stream, name, perform, argument, reads, writes) } {
        0 => Ok(Pending(Some(run))),
        code => {
            // SAFETY: the driver did not take it.
            drop(unsafe { Box::from_raw(argument.cast::<Job>()) });
            Err(code)
        }
    }
}

unsafe extern "C" fn perform(argument: *mut c_void, reads: *const *const c_void, writes: *const *mut c_void) -> c_int {
    // SAFETY: `enqueue` made it, and the driver calls once.
    let job = unsafe { Box::from_raw(argument.cast::<Job>()) };
    let mut good = true;
    // Null where the context is lost; an array of nothing may be null too.
    if !(reads.is_null() && writes.is_null()) {
        // SAFETY: the driver gives a pointer for each range, valid for its length.
        let read =
            job.reads.iter().enumerate().map(|(i, &len)| unsafe { slice::from_raw_parts((*reads.add(i)).cast(), len) });
        let read: Vec<&[u8]> = read.collect();
        let written = job.writes.iter().enumerate();
        // SAFETY: as above; ranges that are written do not overlap.
        let written = written.map(|(i, &len)| unsafe { slice::from_raw_parts_mut((*writes.add(i)).cast(), len) });
        let mut written: Vec<&mut [u8]> = written.collect();
        good = (job.body)(&read, &mut written);
    }
    job.run.store(true, Ordering::SeqCst);
    if good { 0 } else { 719 }
}

/// The rows of an image's planes, as few ranges as they make.
pub fn rows(image: &nvjpegImage_t, region: Region) -> Vec<Range> {
    let (width, height) = (u64::from(region.width), u64::from(region.height));
    let plane = |channel: usize| {
        let (start, pitch) = (image.channel[channel].addr() as u64, image.pitch[channel] as u64);
        let (count, bytes) = if pitch == width { (1, width * height) } else { (height, width) };
        (0..count).map(move |row| Range { address: start + row * pitch, bytes })
    };
    (0..3).flat_map(plane).collect()
}

/// Copies planes that lie one behind the other into such rows.
pub fn fill(planes: &[u8], rows: &mut [&mut [u8]]) {
    let mut rest = planes;
    for row in rows {
        let (now, later) = rest.split_at(row.len().min(rest.len()));
        row[..now.len()].copy_from_slice(now);
        rest = later;
    }
}
