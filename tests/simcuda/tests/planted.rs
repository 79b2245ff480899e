//! Faults that a test plants by name: calls that fail, work that breaks the context, kernels that are wrong.

mod program;

use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, result, sys};
use program::{IOTA, Session, allocate, caught, fill, free, kernel, passes, pinned};

const LEN: usize = 4096;

fn code<T>(result: Result<T, DriverError>) -> u32 {
    result.err().map_or(0, |error| error.0 as u32)
}

#[test]
fn the_nth_allocation_fails_and_the_others_do_not() {
    passes(|session| {
        session.set("fail", "cuMemAllocAsync#2:2");
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let first = allocate(&stream, LEN);
        // SAFETY: the stream lives.
        assert_eq!(code(unsafe { result::malloc_async(stream.cu_stream(), LEN) }), 2);
        let third = allocate(&stream, LEN);
        free(&stream, first);
        free(&stream, third);
    });
}

#[test]
fn memory_runs_out_and_queued_frees_count() {
    passes(|session| {
        session.set("memory_bytes", 10_000);
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let first = allocate(&stream, 6_000);
        // SAFETY: the stream lives.
        assert_eq!(code(unsafe { result::malloc_async(stream.cu_stream(), 6_000) }), 2);
        assert_eq!(context.mem_get_info().unwrap(), (4_000, 10_000));
        free(&stream, first);
        let second = allocate(&stream, 6_000);
        free(&stream, second);
    });
}

/// Every kind of call, after the context broke: what each returned, but for the names in the way.
fn calls_after(context: &Arc<CudaContext>, memory: u64, host: *mut u8) -> Vec<u32> {
    let mut raw = std::ptr::null_mut();
    let mut event = std::ptr::null_mut();
    let mut at = 0;
    // SAFETY: the driver refuses all of them.
    unsafe {
        vec![
            sys::cuCtxSynchronize() as u32,
            sys::cuStreamCreate(&raw mut raw, 1) as u32,
            sys::cuEventCreate(&raw mut event, 2) as u32,
            sys::cuMemAlloc_v2(&raw mut at, 100) as u32,
            sys::cuMemFree_v2(memory) as u32,
            sys::cuMemFreeHost(host.cast()) as u32,
            sys::cuMemcpyDtoH_v2(host.cast(), memory, LEN) as u32,
            sys::cuMemsetD8_v2(memory, 0, LEN) as u32,
            code(context.new_stream()),
        ]
    }
}

#[test]
fn a_broken_context_stays_broken() {
    for (planted, expected) in
        [("cuLaunchKernel#1:719", 719), ("cuMemsetD8Async#1:700", 700), ("cuStreamSynchronize#1:46", 46)]
    {
        passes(|session| {
            session.set("sticky", planted);
            let context = CudaContext::new(0).unwrap();
            let stream = context.new_stream().unwrap();
            let (at, memory, iota) = (allocate(&stream, LEN), pinned(&context, LEN), kernel(IOTA, "iota"));
            // SAFETY: the driver checks the range.
            let mut seen = vec![code(unsafe { result::memset_d8_async(at, 1, LEN, stream.cu_stream()) })];
            seen.push(code(iota.launch(&stream, 8, 128, at, 1024)));
            seen.push(code(stream.synchronize()));
            // The call that queued it may succeed; from then on nothing does.
            assert!(seen.iter().all(|code| [0, expected].contains(code)) && seen[2] == expected, "{seen:?}");
            let after = calls_after(&context, at, memory.at);
            assert!(after.iter().all(|code| *code == expected), "{after:?}");
            // Another context of the same device is as good as before, once the broken one is given up.
            drop((iota, memory, stream, context));
            let context = CudaContext::new(0).unwrap();
            context.new_stream().unwrap().synchronize().unwrap();
        });
    }
}

#[test]
fn a_faulting_kernel_breaks_the_context() {
    let session = program::session(1);
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let at = allocate(&stream, 400);
    kernel(IOTA, "iota").launch(&stream, 4, 32, at, 101).unwrap();
    assert_eq!(code(stream.synchronize()), 700);
    assert_eq!(code(context.new_stream()), 700);
    assert_eq!(session.reports().len(), 1);
    drop((stream, context));
    // What could not be freed is no leak.
    assert_eq!(session.reports().len(), 1);
}

#[test]
fn a_kernel_is_made_wrong() {
    let program = |_: &Session| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let at = allocate(&stream, 400);
        kernel(IOTA, "iota").launch(&stream, 4, 32, at, 100).unwrap();
        stream.synchronize().is_ok().then(|| free(&stream, at));
    };
    passes(program);
    caught("no allocation", |session| {
        session.set("ptx_edit", "setp.ge.u32=>setp.gt.u32");
        program(session);
    });
}

#[test]
fn waits_that_do_nothing_are_caught() {
    for dropped in ["cuStreamSynchronize#1", "cuEventSynchronize#1"] {
        let program = |session: &Session| {
            session.set("drop", dropped);
            let context = CudaContext::new(0).unwrap();
            let stream = context.new_stream().unwrap();
            let (at, memory) = (allocate(&stream, LEN), pinned(&context, LEN));
            for round in 0..2 {
                memory.fill(round);
                memory.upload(&stream, at);
                // One of the two is planted upon, the other does not come in its place.
                match dropped {
                    "cuEventSynchronize#1" => stream.record_event(None).unwrap().synchronize().unwrap(),
                    _ => stream.synchronize().unwrap(),
                }
            }
            free(&stream, at);
        };
        caught("host-write", program);
    }
}

#[test]
fn what_was_planted_and_never_happened_is_said() {
    let session = program::session(1);
    session.set("drop", "cuEventSynchronize#7");
    drop(CudaContext::new(0).unwrap());
    session.finish();
    let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.reports()));
    assert!(said.is_err());
    session.set("drop", "");
}

#[test]
fn handles_outlive_what_they_name() {
    caught("handle: event", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let event = context.new_event(None).unwrap();
        let raw = event.cu_event();
        drop(event);
        // SAFETY: the driver checks.
        assert_eq!(unsafe { sys::cuEventRecord(raw, stream.cu_stream()) } as u32, 400);
    });
    caught("handle: stream", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let raw = stream.cu_stream();
        drop(stream);
        // SAFETY: the driver checks.
        assert_eq!(unsafe { sys::cuStreamSynchronize(raw) } as u32, 400);
        drop(context);
    });
    // What a destroyed stream has queued is done all the same.
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let (stream, other) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let at = allocate(&stream, LEN);
        other.join(&stream).unwrap();
        fill(&other, at, 1, LEN);
        let raw = other.record_event(None).unwrap();
        stream.wait(&raw).unwrap();
        drop(other);
        free(&stream, at);
    });
}

#[test]
fn host_functions_may_not_call_the_driver() {
    unsafe extern "C" fn call(_: *mut std::ffi::c_void) {
        // SAFETY: the driver refuses.
        assert_eq!(unsafe { sys::cuCtxSynchronize() } as u32, 800);
    }
    caught("callback: cuCtxSynchronize", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        // SAFETY: the function needs no argument.
        unsafe { result::stream::launch_host_function(stream.cu_stream(), call, std::ptr::null_mut()) }.unwrap();
        stream.synchronize().unwrap();
    });
}
