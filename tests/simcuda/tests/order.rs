//! What nothing orders is caught, and what something orders is not reported.

mod program;

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, sys};
use program::{INCREMENT, IOTA, allocate, caught, copy, fill, free, kernel, passes, pinned};

const LEN: usize = 4096;

/// Two streams: the first writes a buffer, the second copies it; `between` is what orders them.
fn producer_and_consumer(between: impl Fn(&Arc<CudaStream>, &Arc<CudaStream>)) {
    let context = CudaContext::new(0).unwrap();
    let (producer, consumer) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let (from, to) = (allocate(&producer, LEN), allocate(&consumer, LEN));
    producer.synchronize().unwrap();
    fill(&producer, from, 5, LEN);
    between(&producer, &consumer);
    copy(&consumer, to, from, LEN);
    // The frees are ordered, so that the copy alone is on trial.
    context.synchronize().unwrap();
    free(&producer, from);
    free(&consumer, to);
}

#[test]
fn a_wait_orders_streams_and_a_missing_one_does_not() {
    passes(|_| producer_and_consumer(|producer, consumer| consumer.join(producer).unwrap()));
    passes(|_| producer_and_consumer(|producer, _| producer.synchronize().unwrap()));
    passes(|_| {
        producer_and_consumer(|producer, _| {
            let event = producer.record_event(None).unwrap();
            while !event.is_complete() {}
        });
    });
    caught("race", |_| producer_and_consumer(|_, _| {}));
}

#[test]
fn a_dropped_wait_is_caught() {
    caught("race", |session| {
        session.set("drop", "cuStreamWaitEvent#1");
        producer_and_consumer(|producer, consumer| consumer.join(producer).unwrap());
    });
}

#[test]
fn an_event_recorded_too_early_orders_too_little() {
    caught("race", |_| {
        let context = CudaContext::new(0).unwrap();
        let (producer, consumer) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let from = allocate(&producer, LEN);
        let event = producer.record_event(None).unwrap();
        fill(&producer, from, 5, LEN);
        consumer.wait(&event).unwrap();
        fill(&consumer, from, 6, LEN);
        context.synchronize().unwrap();
        free(&producer, from);
    });
}

#[test]
fn the_null_stream_orders_blocking_streams_only() {
    let program = |flags| {
        let context = CudaContext::new(0).unwrap();
        let mut raw = std::ptr::null_mut();
        // SAFETY: a context is current.
        unsafe { sys::cuStreamCreate(&raw mut raw, flags) }.result().unwrap();
        let null = context.default_stream();
        let at = allocate(&null, LEN);
        context.synchronize().unwrap();
        fill(&null, at, 1, LEN);
        // SAFETY: the stream lives.
        unsafe { sys::cuMemsetD8Async(at, 2, LEN, raw) }.result().unwrap();
        fill(&null, at, 3, LEN);
        let mut back = vec![0_u8; LEN];
        // SAFETY: the buffer is as long.
        unsafe { sys::cuMemcpyDtoH_v2(back.as_mut_ptr().cast(), at, LEN) }.result().unwrap();
        context.synchronize().unwrap();
        free(&null, at);
        // SAFETY: the stream lives.
        unsafe { sys::cuStreamDestroy_v2(raw) }.result().unwrap();
        back
    };
    passes(|_| assert!(program(0) == [3; LEN]));
    caught("race", |_| drop(program(1)));
}

#[test]
fn halves_of_a_buffer_are_apart_and_overlapping_parts_are_not() {
    let program = |start: u64| {
        let context = CudaContext::new(0).unwrap();
        let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let at = allocate(&first, 4 * 200);
        context.synchronize().unwrap();
        let iota = kernel(IOTA, "iota");
        iota.launch(&first, 4, 32, at, 100).unwrap();
        iota.launch(&second, 4, 32, at + 4 * start, 100).unwrap();
        context.synchronize().unwrap();
        free(&first, at);
    };
    passes(|_| program(100));
    caught("of iota on stream", |_| program(99));
}

#[test]
fn readers_need_no_order_among_them() {
    passes(|_| {
        let context = CudaContext::new(0).unwrap();
        let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let (at, to) = (allocate(&first, LEN), allocate(&first, 2 * LEN));
        fill(&first, at, 1, LEN);
        second.join(&first).unwrap();
        copy(&first, to, at, LEN);
        copy(&second, to + LEN as u64, at, LEN);
        first.join(&second).unwrap();
        free(&first, at);
        free(&first, to);
    });
}

#[test]
fn a_free_is_in_its_streams_order() {
    let program = |wait: bool| {
        let context = CudaContext::new(0).unwrap();
        let (owner, user) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let at = allocate(&owner, LEN);
        user.join(&owner).unwrap();
        fill(&user, at, 1, LEN);
        if wait {
            owner.join(&user).unwrap();
        }
        free(&owner, at);
        context.synchronize().ok();
    };
    passes(|_| program(true));
    // Either the free races with what came first, or what comes after the free uses freed memory.
    caught("", |_| program(false));
}

#[test]
fn an_allocation_is_in_its_streams_order() {
    let program = |wait: bool| {
        let context = CudaContext::new(0).unwrap();
        let (owner, user) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let at = allocate(&owner, LEN);
        if wait {
            user.join(&owner).unwrap();
        }
        fill(&user, at, 1, LEN);
        owner.join(&user).ok();
        // SAFETY: the driver checks.
        unsafe { sys::cuMemFreeAsync(at, owner.cu_stream()) }.result().ok();
        context.synchronize().ok();
    };
    passes(|_| program(true));
    caught("", |_| program(false));
}

#[test]
fn slots_that_go_round_are_reused_when_their_readers_are_done() {
    let program = |wait: bool| {
        let context = CudaContext::new(0).unwrap();
        let (producer, consumer) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let increment = kernel(INCREMENT, "increment");
        let (slot, result) = (allocate(&producer, LEN), allocate(&consumer, LEN));
        let mut read = None;
        for round in 0..4 {
            if let (Some(event), true) = (&read, wait) {
                producer.wait(event).unwrap();
            }
            fill(&producer, slot, round, LEN);
            increment.launch(&producer, 8, 128, slot, LEN as u32 / 4).unwrap();
            consumer.join(&producer).unwrap();
            copy(&consumer, result, slot, LEN);
            read = Some(consumer.record_event(None).unwrap());
        }
        consumer.synchronize().unwrap();
        producer.synchronize().unwrap();
        free(&producer, slot);
        free(&consumer, result);
    };
    passes(|_| program(true));
    caught("race", |_| program(false));
}

#[test]
fn a_download_is_there_when_it_was_waited_for_and_not_before() {
    let program = |wait: bool| {
        let context = CudaContext::new(0).unwrap();
        let stream = context.new_stream().unwrap();
        let (at, memory) = (allocate(&stream, LEN), pinned(&context, LEN));
        memory.fill(9);
        fill(&stream, at, 9, LEN);
        memory.download(&stream, at);
        if wait {
            stream.synchronize().unwrap();
        }
        let there = memory.bytes().iter().all(|byte| *byte == 9);
        stream.synchronize().unwrap();
        free(&stream, at);
        there
    };
    passes(|_| assert!(program(true)));
    // What was there before is not: who reads too early is not let off because the old bytes happen to be right.
    let session = program::session(1);
    let early = (1..=20).filter(|seed| {
        session.restart(*seed);
        program(false)
    });
    assert!(early.count() < 20);
}
