//! What every program does, done right.

mod program;

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::{CudaContext, result, sys};
use program::{IOTA, kernel, passes, pinned};

#[test]
fn a_program_through_the_safe_layer_is_never_reported() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        assert_eq!((context.name().unwrap().as_str(), context.compute_capability().unwrap()), ("simcuda", (9, 0)));
        let (stream, other) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let data: Vec<u8> = (0..=255).collect();
        let device = stream.clone_htod(&data).unwrap();
        let mut second = other.alloc_zeros::<u8>(512).unwrap();
        let event = stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)).unwrap();
        other.wait(&event).unwrap();
        other.memcpy_dtod(&device, &mut second.slice_mut(256..)).unwrap();
        // SAFETY: it is filled before it is read.
        let mut memory = unsafe { context.alloc_pinned::<u8>(256) }.unwrap();
        other.memcpy_dtoh(&second.slice(256..), &mut memory).unwrap();
        assert_eq!(memory.as_slice().unwrap(), data);
        let back = other.clone_dtoh(&second).unwrap();
        assert!(back[..256].iter().all(|byte| *byte == 0) && back[256..] == data);
        context.synchronize().unwrap();
    });
}

#[test]
fn a_kernel_writes_what_the_host_reads() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let iota = kernel(IOTA, "iota");
        let words = stream.alloc_zeros::<u32>(100).unwrap();
        let at = cudarc::driver::DevicePtr::device_ptr(&words, &stream).0;
        iota.launch(&stream, 4, 32, at, 100).unwrap();
        assert_eq!(stream.clone_dtoh(&words).unwrap(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn host_functions_are_called_at_their_turn_and_by_themselves() {
    unsafe extern "C" fn count(argument: *mut c_void) {
        // SAFETY: the tests give a counter that lives until it was counted.
        unsafe { &*argument.cast::<AtomicU32>() }.fetch_add(1, Ordering::SeqCst);
    }
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let counter = AtomicU32::new(0);
        let argument = (&raw const counter).cast_mut().cast();
        // SAFETY: the counter lives until the stream is waited for.
        unsafe { result::stream::launch_host_function(stream.cu_stream(), count, argument) }.unwrap();
        stream.synchronize().unwrap();
        assert_eq!(counter.load(Ordering::SeqCst), 1);
    });
    let session = program::session(1);
    session.set("idle_ms", 20);
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let counter = AtomicU32::new(0);
    let argument = (&raw const counter).cast_mut().cast();
    // SAFETY: the counter lives until it was counted.
    unsafe { result::stream::launch_host_function(stream.cu_stream(), count, argument) }.unwrap();
    // Nothing is asked of the driver: the work must go on all the same.
    while counter.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    drop((stream, context));
    assert_eq!(session.reports(), Vec::<String>::new());
}

/// A library tidies up when a thread or the process ends, later than what Rust keeps per thread.
#[test]
fn who_tidies_up_last_is_told_that_the_driver_is_gone() {
    static ANSWER: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn tidy_up(_: *mut c_void) {
        // SAFETY: the driver checks the address.
        ANSWER.store(unsafe { sys::cuMemHostUnregister(4096 as *mut c_void) } as u32, Ordering::SeqCst);
    }
    let _session = program::session(1);
    std::thread::spawn(|| {
        drop(CudaContext::new(0).unwrap());
        let mut key = 0;
        // SAFETY: the key is made before it is used; its function is called when the thread ends.
        unsafe {
            assert_eq!(libc::pthread_key_create(&raw mut key, Some(tidy_up)), 0);
            assert_eq!(libc::pthread_setspecific(key, (&raw const ANSWER).cast()), 0);
        }
    })
    .join()
    .unwrap();
    assert_eq!(ANSWER.load(Ordering::SeqCst), sys::CUresult::CUDA_ERROR_DEINITIALIZED as u32);
}

#[test]
fn registered_memory_goes_both_ways() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let mut memory = vec![7_u8; 8192];
        // SAFETY: the memory outlives its registration.
        unsafe { sys::cuMemHostRegister_v2(memory.as_mut_ptr().cast(), 8192, 1) }.result().unwrap();
        let (first, second) = (stream.alloc_zeros::<u8>(4096).unwrap(), pinned(&context, 4096));
        let at = cudarc::driver::DevicePtr::device_ptr(&first, &stream).0;
        // SAFETY: the memory is waited for before it is used.
        unsafe { result::memcpy_htod_async(at, &memory[..4096], stream.cu_stream()) }.unwrap();
        second.download(&stream, at);
        stream.synchronize().unwrap();
        assert!(second.bytes().iter().all(|byte| *byte == 7));
        // SAFETY: it was registered above, and nothing uses it.
        unsafe { sys::cuMemHostUnregister(memory.as_mut_ptr().cast()) }.result().unwrap();
    });
}
