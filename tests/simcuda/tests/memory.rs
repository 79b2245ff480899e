//! Bounds, lifetimes, what was never written, and host memory under a copy.

mod program;

use cudarc::driver::{CudaContext, result, sys};
use program::{INCREMENT, IOTA, allocate, caught, copy, fill, free, kernel, passes, pinned};

const LEN: usize = 4096;

#[test]
fn the_host_writes_under_a_copy() {
    let program = |wait: bool| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (at, memory) = (allocate(&stream, LEN), pinned(&context, LEN));
        for round in 0..3 {
            memory.fill(round);
            memory.upload(&stream, at);
            if wait {
                stream.synchronize().unwrap();
            }
        }
        stream.synchronize().unwrap();
        free(&stream, at);
    };
    passes(|_| program(true));
    caught("host-write: the host wrote", |_| program(false));
}

#[test]
fn the_host_writes_where_a_copy_will() {
    caught("had still to write", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (at, memory) = (allocate(&stream, LEN), pinned(&context, LEN));
        fill(&stream, at, 1, LEN);
        memory.download(&stream, at);
        memory.fill(2);
        stream.synchronize().unwrap();
        free(&stream, at);
    });
}

#[test]
fn what_the_device_brings_may_be_sent_back() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (first, second) = (allocate(&stream, LEN), allocate(&stream, LEN));
        let (memory, check) = (pinned(&context, LEN), pinned(&context, LEN));
        fill(&stream, first, 3, LEN);
        memory.download(&stream, first);
        memory.upload(&stream, second);
        memory.download(&stream, first);
        check.download(&stream, second);
        stream.synchronize().unwrap();
        assert!(check.bytes().iter().all(|byte| *byte == 3));
        free(&stream, first);
        free(&stream, second);
    });
}

#[test]
fn pageable_memory_is_taken_at_the_call() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let at = allocate(&stream, LEN);
        let (mut data, mut back) = (vec![4_u8; LEN], vec![0_u8; LEN]);
        // SAFETY: the buffers are as long, and pageable.
        unsafe { result::memcpy_htod_async(at, &data, stream.cu_stream()) }.unwrap();
        data.fill(5);
        // SAFETY: as above.
        unsafe { result::memcpy_dtoh_async(&mut back, at, stream.cu_stream()) }.unwrap();
        assert_eq!(back, vec![4; LEN]);
        free(&stream, at);
    });
}

#[test]
fn a_kernel_leaves_its_buffer() {
    let program = |count: u32| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let at = allocate(&stream, 400);
        kernel(IOTA, "iota").launch(&stream, 4, 32, at, count).unwrap();
        stream.synchronize().is_ok().then(|| free(&stream, at));
    };
    passes(|_| program(100));
    caught("address: cuLaunchKernel#1 of iota", |_| program(101));
}

#[test]
fn a_copy_leaves_its_buffer() {
    for len in [LEN + 1, 1 << 20] {
        caught("past the end", |_| {
            let context = CudaContext::new(0).unwrap();
            let stream = context.new_stream().unwrap();
            let at = allocate(&stream, LEN);
            fill(&stream, at, 1, len);
            stream.synchronize().unwrap_err();
        });
    }
}

#[test]
fn a_copy_leaves_page_locked_memory() {
    caught("only partly in page-locked memory", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let at = allocate(&stream, 2 * LEN);
        let mut memory = vec![0_u8; 2 * LEN];
        let start = memory.as_mut_ptr();
        // SAFETY: the memory outlives its registration; the copy is refused.
        unsafe {
            sys::cuMemHostRegister_v2(start.cast(), LEN, 0).result().unwrap();
            result::memcpy_htod_async(at, &memory, stream.cu_stream()).unwrap_err();
            sys::cuMemHostUnregister(start.cast()).result().unwrap();
        }
        free(&stream, at);
    });
}

#[test]
fn freed_memory_is_used() {
    caught("freed memory", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let at = allocate(&stream, LEN);
        free(&stream, at);
        let next = allocate(&stream, LEN);
        assert_ne!(at, next);
        fill(&stream, at, 1, LEN);
        stream.synchronize().unwrap_err();
    });
}

#[test]
fn memory_is_freed_twice() {
    caught("double-free", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let at = allocate(&stream, LEN);
        free(&stream, at);
        // SAFETY: the driver checks.
        unsafe { result::free_async(at, stream.cu_stream()) }.unwrap_err();
    });
    caught("free: cuMemFree", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let at = allocate(&stream, LEN);
        // SAFETY: the driver checks.
        unsafe { result::free_sync(at + 256) }.unwrap_err();
        free(&stream, at);
    });
}

#[test]
fn memory_is_not_freed() {
    for dropped in ["cuMemFreeAsync#1", "cuMemFreeHost#1", "cuStreamDestroy#1", "cuEventDestroy#1", "cuModuleUnload#1"]
    {
        caught("leak", |session| {
            session.set("drop", dropped);
            let context = CudaContext::new(0).unwrap();
            let stream = context.new_stream().unwrap();
            let (at, memory, _iota) = (allocate(&stream, LEN), pinned(&context, LEN), kernel(IOTA, "iota"));
            memory.upload(&stream, at);
            let event = stream.record_event(None).unwrap();
            event.synchronize().unwrap();
            free(&stream, at);
        });
    }
    // A program at its end that still holds the device: what it forgot to free shows, what it holds does not.
    caught("when the process ended", |session| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        allocate(&stream, LEN);
        session.finish();
        assert!(session.reports().iter().all(|report| report.starts_with("leak: memory")));
        std::mem::forget((context, stream));
    });
}

#[test]
fn memory_ends_under_a_copy() {
    caught("has not waited for", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (at, memory) = (allocate(&stream, LEN), pinned(&context, LEN));
        memory.upload(&stream, at);
        free(&stream, at);
    });
    caught("has not waited for", |_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let at = allocate(&stream, LEN);
        fill(&stream, at, 1, LEN);
        // SAFETY: the driver checks.
        unsafe { result::free_sync(at) }.unwrap();
    });
    // What `cuMemAlloc` gave, `cuMemFree` waits for.
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        // SAFETY: a context is current; nothing uses the memory later.
        unsafe {
            let at = result::malloc_sync(LEN).unwrap();
            fill(&stream, at, 1, LEN);
            result::free_sync(at).unwrap();
        }
    });
}

#[test]
fn what_was_never_written_is_read() {
    let program = |kernel_reads: bool, written: usize| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (at, to, memory) = (allocate(&stream, LEN), allocate(&stream, LEN), pinned(&context, LEN));
        fill(&stream, at, 1, written);
        // A copy within the device may carry them on; who looks at them is to blame.
        copy(&stream, to, at, LEN);
        if kernel_reads {
            kernel(INCREMENT, "increment").launch(&stream, 8, 128, to, 1024).unwrap();
        } else {
            memory.download(&stream, to);
        }
        stream.synchronize().unwrap();
        free(&stream, at);
        free(&stream, to);
    };
    for kernel_reads in [true, false] {
        passes(|_| program(kernel_reads, LEN));
        caught("uninitialised", |_| program(kernel_reads, LEN - 1));
    }
}

#[test]
fn rows_of_a_plane_are_copied() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (from, mut back): (Vec<u8>, _) = ((0..100).collect(), vec![0_u8; 100]);
        let at = allocate(&stream, 512 * 10);
        let (host, device) = (sys::CUmemorytype::CU_MEMORYTYPE_HOST, sys::CUmemorytype::CU_MEMORYTYPE_DEVICE);
        let mut plane = |source: (sys::CUmemorytype, usize), target: (sys::CUmemorytype, usize)| sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: source.0,
            srcHost: from.as_ptr().cast(),
            srcDevice: at,
            srcArray: std::ptr::null_mut(),
            srcPitch: source.1,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: target.0,
            dstHost: back.as_mut_ptr().cast(),
            dstDevice: at,
            dstArray: std::ptr::null_mut(),
            dstPitch: target.1,
            WidthInBytes: 10,
            Height: 10,
        };
        let (there, again) = (plane((host, 10), (device, 512)), plane((device, 512), (host, 10)));
        // SAFETY: the buffers are as large as the structures say.
        unsafe {
            sys::cuMemcpy2DAsync_v2(&raw const there, stream.cu_stream()).result().unwrap();
            sys::cuMemcpy2DAsync_v2(&raw const again, stream.cu_stream()).result().unwrap();
        }
        assert_eq!(back, from);
        free(&stream, at);
    });
}
