//! What the library exports, and how programs find it.

mod program;

use std::ffi::{CString, c_char, c_int, c_void};

use cudarc::driver::{CudaContext, sys};
use program::{Library, allocate, caught, free, passes};

const LEN: usize = 4096;

/// Names of the entry points that do nothing, from their list.
fn stubs() -> Vec<&'static str> {
    let list = include_str!("../src/api/stubs.rs").rsplit_once("stubs! {").unwrap().1;
    list.trim_end().trim_end_matches('}').split_whitespace().collect()
}

#[test]
fn what_is_not_simulated_is_there_and_says_so() {
    let session = program::session(1);
    let library = Library::open();
    let stubs = stubs();
    assert!(stubs.len() > 300);
    for name in &stubs {
        // SAFETY: entry points that do nothing look at no argument.
        let entry: extern "C" fn() -> c_int =
            unsafe { std::mem::transmute(library.symbol(&CString::new(*name).unwrap())) };
        assert_eq!(entry(), 801, "{name}");
    }
    let reports = session.reports();
    assert!(stubs.iter().all(|name| reports.contains(&format!("unimplemented: {name} is not simulated"))));
}

#[test]
fn entry_points_are_found_by_name() {
    let session = program::session(1);
    let find = |name: &str| {
        let (name, mut found, mut status) = (CString::new(name).unwrap(), std::ptr::null_mut(), 9);
        // SAFETY: the results are written before they are used.
        let code =
            unsafe { sys::cuGetProcAddress_v2(name.as_ptr(), &raw mut found, 12000, 0, (&raw mut status).cast()) };
        (code as u32, found)
    };
    let library = Library::open();
    for (name, symbol) in
        [("cuMemAlloc", c"cuMemAlloc_v2"), ("cuInit", c"cuInit"), ("cuStreamDestroy", c"cuStreamDestroy_v2")]
    {
        assert_eq!(find(name), (0, library.symbol(symbol)));
    }
    assert_eq!(find("cuMakeCoffee"), (500, std::ptr::null_mut()));
    assert_eq!(session.reports(), Vec::<String>::new());
}

/// `simcuda_range`.
#[repr(C)]
struct Range {
    address: u64,
    bytes: u64,
}

type Run = unsafe extern "C" fn(*mut c_void, *const *const u8, *const *mut u8) -> c_int;
type Enqueue = unsafe extern "C" fn(
    sys::CUstream,
    *const c_char,
    Run,
    *mut c_void,
    *const Range,
    usize,
    *const Range,
    usize,
) -> c_int;

/// Adds one to each byte that it reads, and counts its calls: done, given up.
unsafe extern "C" fn add_one(argument: *mut c_void, reads: *const *const u8, writes: *const *mut u8) -> c_int {
    // SAFETY: the test gives counters that live until the work is over.
    let counts = unsafe { &mut *argument.cast::<[u32; 2]>() };
    if reads.is_null() {
        counts[1] += 1;
        return 0;
    }
    counts[0] += 1;
    for byte in 0..LEN {
        // SAFETY: the driver gives both ranges.
        unsafe { (*writes).add(byte).write((*reads).add(byte).read() + 1) };
    }
    0
}

fn enqueue(stream: sys::CUstream, counts: &mut [u32; 2], from: u64, to: u64) -> c_int {
    // SAFETY: the function is the simulator's, of this signature.
    let enqueue: Enqueue = unsafe { std::mem::transmute(Library::open().symbol(c"simcuda_enqueue")) };
    let [reads, writes] = [from, to].map(|address| Range { address, bytes: LEN as u64 });
    let argument = std::ptr::from_mut(counts).cast();
    // SAFETY: the counters live until the tests waited for the work.
    unsafe { enqueue(stream, c"addOne".as_ptr(), add_one, argument, &raw const reads, 1, &raw const writes, 1) }
}

#[test]
fn a_companion_works_in_stream_order() {
    let program = |wait: bool| {
        let context = CudaContext::new(0).unwrap();
        let (stream, other) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let (from, to) = (stream.clone_htod(&vec![1_u8; LEN]).unwrap(), allocate(&stream, LEN));
        let mut counts = [0; 2];
        if wait {
            other.join(&stream).unwrap();
        }
        let at = cudarc::driver::DevicePtr::device_ptr(&from, &stream).0;
        assert_eq!(enqueue(other.cu_stream(), &mut counts, at, to), 0);
        stream.join(&other).unwrap();
        let mut back = vec![0_u8; LEN];
        // SAFETY: the buffer is as long.
        let code = unsafe { sys::cuMemcpyDtoHAsync_v2(back.as_mut_ptr().cast(), to, LEN, stream.cu_stream()) };
        if wait {
            assert!(code.result().is_ok() && back == [2; LEN] && counts == [1, 0]);
        }
        context.synchronize().ok();
        assert_eq!(counts[0] + counts[1], 1);
        // SAFETY: the driver checks.
        unsafe { sys::cuMemFreeAsync(to, stream.cu_stream()) };
    };
    passes(|_| program(true));
    caught("addOne on stream", |_| program(false));
}

#[test]
fn a_companion_is_told_that_the_context_is_lost() {
    passes(|session| {
        session.set("sticky", "cuMemsetD8Async#1:719");
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let at = allocate(&stream, LEN);
        stream.synchronize().unwrap();
        let mut counts = [0; 2];
        // SAFETY: the range is the allocation's.
        unsafe { sys::cuMemsetD8Async(at, 1, LEN, stream.cu_stream()) };
        let queued = enqueue(stream.cu_stream(), &mut counts, at, at) == 0;
        assert_eq!(context.synchronize().unwrap_err().0 as u32, 719);
        assert_eq!(counts, [0, u32::from(queued)]);
    });
}

#[test]
fn a_companion_reads_what_was_never_written() {
    caught("uninitialised: addOne", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (from, to) = (allocate(&stream, LEN), allocate(&stream, LEN));
        let mut counts = [0; 2];
        enqueue(stream.cu_stream(), &mut counts, from, to);
        stream.synchronize().unwrap();
        free(&stream, from);
        free(&stream, to);
    });
}

/// Work beside a stream: the host has waited for what it reads, or not; the stream waits for what it writes, or not.
#[test]
fn work_on_a_side_stream_is_ordered_by_the_host_and_by_its_join_alone() {
    type SideStream = unsafe extern "C" fn(sys::CUstream, *mut sys::CUstream) -> c_int;
    type Join = unsafe extern "C" fn(sys::CUstream, sys::CUstream) -> c_int;
    let program = |host_waits: bool, reads_after: bool| {
        let library = Library::open();
        // SAFETY: the functions are the simulator's, of these signatures.
        let (side_stream, join, run) = unsafe {
            (
                std::mem::transmute::<*mut c_void, SideStream>(library.symbol(c"simcuda_side_stream")),
                std::mem::transmute::<*mut c_void, Join>(library.symbol(c"simcuda_join")),
                std::mem::transmute::<*mut c_void, extern "C" fn(sys::CUstream) -> c_int>(
                    library.symbol(c"simcuda_run"),
                ),
            )
        };
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (from, to) = (allocate(&stream, LEN), allocate(&stream, LEN));
        stream.synchronize().unwrap();
        // SAFETY: the range is the allocation's.
        unsafe { sys::cuMemsetD8Async(from, 1, LEN, stream.cu_stream()) };
        if host_waits {
            stream.synchronize().unwrap();
        } else {
            // Done, and the host does not know.
            assert_eq!(run(stream.cu_stream()), 0);
        }
        let (mut side, mut counts) = (std::ptr::null_mut(), [0; 2]);
        // SAFETY: the stream is live, the pointer valid for a write.
        assert_eq!(unsafe { side_stream(stream.cu_stream(), &raw mut side) }, 0);
        assert_eq!(enqueue(side, &mut counts, from, to), 0);
        let mut back = vec![0_u8; LEN];
        let read = |back: &mut Vec<u8>| {
            // SAFETY: the buffer is as long.
            unsafe { sys::cuMemcpyDtoHAsync_v2(back.as_mut_ptr().cast(), to, LEN, stream.cu_stream()) };
        };
        if !reads_after {
            read(&mut back);
        }
        // SAFETY: both streams are live.
        assert_eq!(unsafe { join(stream.cu_stream(), side) }, 0);
        if reads_after {
            read(&mut back);
        }
        context.synchronize().ok();
        assert_eq!(counts[0], 1);
        assert!(!host_waits || !reads_after || back == [2; LEN]);
        free(&stream, from);
        free(&stream, to);
    };
    passes(|_| program(true, true));
    caught("addOne", |_| program(false, true));
    caught("addOne", |_| program(true, false));
}
