//! Devices, contexts, threads.

mod program;

use std::ffi::CStr;

use cudarc::driver::{CudaContext, result, sys};
use program::{IOTA, allocate, caught, copy, fill, free, kernel, passes, pinned};

const LEN: usize = 4096;

#[test]
fn devices_are_apart() {
    passes(|session| {
        session.set("devices", 2);
        session.restart(1);
        assert_eq!(CudaContext::device_count().unwrap(), 2);
        let contexts = [0, 1].map(|ordinal| CudaContext::new(ordinal).unwrap());
        assert_ne!(contexts[0].uuid().unwrap().bytes, contexts[1].uuid().unwrap().bytes);
        let streams = contexts.each_ref().map(|context| context.new_stream().unwrap());
        contexts[0].bind_to_thread().unwrap();
        let first = allocate(&streams[0], LEN);
        contexts[1].bind_to_thread().unwrap();
        let second = allocate(&streams[1], LEN);
        fill(&streams[1], second, 7, LEN);
        assert_eq!(contexts[0].mem_get_info().unwrap(), contexts[1].mem_get_info().unwrap());
        // A copy between devices, in the order of one stream after the other's.
        let event = streams[1].record_event(None).unwrap();
        // SAFETY: both live; waits between devices are allowed.
        unsafe { sys::cuStreamWaitEvent(streams[0].cu_stream(), event.cu_event(), 0) }.result().unwrap();
        copy(&streams[0], first, second, LEN);
        contexts[0].bind_to_thread().unwrap();
        let memory = pinned(&contexts[0], LEN);
        memory.download(&streams[0], first);
        streams[0].synchronize().unwrap();
        assert!(memory.bytes().iter().all(|byte| *byte == 7));
        free(&streams[0], first);
        free(&streams[1], second);
    });
    let session = program::session(1);
    assert_eq!(CudaContext::new(1).unwrap_err().0 as u32, 101);
    session.set("devices", 0);
    session.restart(1);
    assert_eq!(CudaContext::new(0).unwrap_err().0 as u32, 100);
}

#[test]
fn a_kernel_uses_the_memory_of_another_device() {
    let program = |peers: bool| {
        let contexts = [0, 1].map(|ordinal| CudaContext::new(ordinal).unwrap());
        let streams = contexts.each_ref().map(|context| context.new_stream().unwrap());
        let there = allocate(&streams[1], 400);
        contexts[1].synchronize().unwrap();
        contexts[0].bind_to_thread().unwrap();
        if peers {
            // SAFETY: the context lives.
            unsafe { sys::cuCtxEnablePeerAccess(contexts[1].cu_ctx(), 0) }.result().unwrap();
        }
        kernel(IOTA, "iota").launch(&streams[0], 4, 32, there, 100).unwrap();
        streams[0].synchronize().ok();
        free(&streams[1], there);
    };
    caught("without access to its peer", |session| {
        session.set("devices", 2);
        session.restart(1);
        program(false);
    });
    passes(|session| {
        session.set("devices", 2);
        session.restart(1);
        program(true);
    });
}

#[test]
fn contexts_are_a_threads_own_stack() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let mut current = std::ptr::null_mut();
        // SAFETY: the results are written before they are used.
        unsafe {
            assert_eq!(sys::cuCtxGetCurrent(&raw mut current) as u32, 0);
            assert_eq!(current, context.cu_ctx());
            let mut own = std::ptr::null_mut();
            sys::cuCtxCreate_v2(&raw mut own, 0, 0).result().unwrap();
            sys::cuCtxGetCurrent(&raw mut current).result().unwrap();
            assert_eq!(current, own);
            let elsewhere = std::thread::spawn(|| {
                let mut at = 0;
                sys::cuMemAlloc_v2(&raw mut at, 16) as u32
            });
            assert_eq!(elsewhere.join().unwrap(), 201);
            sys::cuCtxDestroy_v2(own).result().unwrap();
            sys::cuCtxGetCurrent(&raw mut current).result().unwrap();
            assert_eq!(current, context.cu_ctx());
        }
    });
}

#[test]
fn threads_share_the_driver() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        std::thread::scope(|scope| {
            for value in 0..3 {
                let context = &context;
                scope.spawn(move || {
                    context.bind_to_thread().unwrap();
                    let stream = context.new_stream().unwrap();
                    let (at, memory) = (allocate(&stream, LEN), pinned(context, LEN));
                    for _ in 0..5 {
                        fill(&stream, at, value, LEN);
                        memory.download(&stream, at);
                        stream.synchronize().unwrap();
                        assert!(memory.bytes().iter().all(|byte| *byte == value));
                    }
                    free(&stream, at);
                });
            }
        });
    });
}

#[test]
fn addresses_say_what_they_are() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (at, memory) = (allocate(&stream, LEN), pinned(&context, LEN));
        let kind = |at: u64| {
            let mut kind = 0_u32;
            let number = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
            // SAFETY: the attribute has four bytes.
            let code = unsafe { sys::cuPointerGetAttribute((&raw mut kind).cast(), number, at) };
            (code as u32, kind)
        };
        assert_eq!([kind(at + 100), kind(memory.at as u64), kind(0x10)], [(0, 2), (0, 1), (1, 0)]);
        let (mut base, mut len) = (0, 0);
        // SAFETY: the results are written before they are used.
        unsafe { sys::cuMemGetAddressRange_v2(&raw mut base, &raw mut len, at + 100) }.result().unwrap();
        assert_eq!((base, len), (at, LEN));
        free(&stream, at);
    });
}

#[test]
fn errors_have_names() {
    let _session = program::session(1);
    let mut text = std::ptr::null();
    // SAFETY: the result is written before it is used, and lives for ever.
    let (name, unknown) = unsafe {
        sys::cuGetErrorName(sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, &raw mut text).result().unwrap();
        (CStr::from_ptr(text), sys::cuInit(1))
    };
    assert_eq!((name, unknown as u32), (c"CUDA_ERROR_ILLEGAL_ADDRESS", 1));
    let error = result::DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    assert_eq!(error.error_string().unwrap(), c"out of memory");
}

#[test]
fn a_host_that_looks_at_device_memory_dies() {
    if std::env::var_os("SIMCUDA_TEST_LOOKS").is_some() {
        let _session = program::session(1);
        let context = CudaContext::new(0).unwrap();
        let at = allocate(&context.new_stream().unwrap(), LEN);
        // SAFETY: there is none: the test is that this ends the process.
        let byte = unsafe { (at as *const u8).read_volatile() };
        println!("{byte}");
        return;
    }
    let name = "a_host_that_looks_at_device_memory_dies";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env("SIMCUDA_TEST_LOOKS", "1")
        .output()
        .unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(libc::SIGSEGV));
}
