//! Values by which streams and the host wait for one another: what they order is not reported, and what they do not is.

mod program;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cudarc::driver::{CudaContext, CudaStream, sys};
use program::{Pinned, allocate, caught, copy, fill, free, passes, pinned};

const LEN: usize = 4096;
/// `CU_STREAM_WAIT_VALUE_*` and `CU_STREAM_WRITE_VALUE_*`.
const AT_LEAST: u32 = 0;
const NOR: u32 = 3;
const TELLS: u32 = 0;
const NO_BARRIER: u32 = 1;

fn wait_value(stream: &CudaStream, at: u64, value: u32, flags: u32) -> sys::CUresult {
    // SAFETY: the driver checks the place.
    unsafe { sys::cuStreamWaitValue32_v2(stream.cu_stream(), at, value, flags) }
}

fn write_value(stream: &CudaStream, at: u64, value: u32, flags: u32) {
    // SAFETY: the driver checks the place.
    unsafe { sys::cuStreamWriteValue32_v2(stream.cu_stream(), at, value, flags) }.result().unwrap();
}

fn value(memory: &Pinned) -> &AtomicU32 {
    // SAFETY: it lives as long, is aligned, and is looked at as an atomic by all.
    unsafe { AtomicU32::from_ptr(memory.at.cast()) }
}

/// Two streams: the first writes a buffer and a value, the second waits, maybe, and copies the buffer.
fn producer_and_consumer(flags: u32, waits: bool) {
    let context = CudaContext::new(0).unwrap();
    let (producer, consumer) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let (from, to, flag) = (allocate(&producer, LEN), allocate(&consumer, LEN), allocate(&producer, 4));
    fill(&producer, flag, 0, 4);
    context.synchronize().unwrap();
    if waits {
        wait_value(&consumer, flag, 7, AT_LEAST).result().unwrap();
    }
    copy(&consumer, to, from, LEN);
    fill(&producer, from, 5, LEN);
    write_value(&producer, flag, 7, flags);
    consumer.synchronize().unwrap();
    context.synchronize().unwrap();
    [from, flag].into_iter().for_each(|at| free(&producer, at));
    free(&consumer, to);
}

#[test]
fn a_value_that_is_waited_for_orders_streams() {
    passes(|_| producer_and_consumer(TELLS, true));
    caught("race", |_| producer_and_consumer(TELLS, false));
    caught("race", |_| producer_and_consumer(NO_BARRIER, true));
}

/// A thread of the host uploads a buffer and writes a value; a stream waits for it and copies.
fn host_and_consumer(synchronizes: bool) {
    let context = CudaContext::new(0).unwrap();
    let (own, consumer) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let (from, to) = (allocate(&own, LEN), allocate(&consumer, LEN));
    context.synchronize().unwrap();
    let (flag, bytes) = (pinned(&context, 4), pinned(&context, LEN));
    wait_value(&consumer, flag.at as u64, 1, AT_LEAST).result().unwrap();
    copy(&consumer, to, from, LEN);
    std::thread::scope(|scope| {
        let place = value(&flag);
        let (bytes, own, context) = (Shared(&bytes), &own, &context);
        scope.spawn(move || {
            context.bind_to_thread().unwrap();
            bytes.upload(own, from);
            if synchronizes {
                own.synchronize().unwrap();
            }
            place.store(1, Ordering::Release);
        });
        consumer.synchronize().unwrap();
    });
    context.synchronize().unwrap();
    free(&own, from);
    free(&consumer, to);
}

/// Memory that another thread uses.
struct Shared<'a>(&'a Pinned);

// SAFETY: the memory may be used from any thread, and a test's threads take turns.
unsafe impl Send for Shared<'_> {}

impl Shared<'_> {
    fn upload(&self, stream: &CudaStream, to: u64) {
        self.0.upload(stream, to);
    }
}

#[test]
fn a_value_that_the_host_writes_orders_what_the_host_waited_for() {
    passes(|_| host_and_consumer(true));
    caught("race", |_| host_and_consumer(false));
}

/// The host polls for a value that the first stream writes, and lets the second go on.
#[test]
fn a_value_in_page_locked_memory_tells_the_host() {
    passes(|session| {
        session.set("idle_ms", 1);
        let context = CudaContext::new(0).unwrap();
        let (producer, consumer) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let (from, to) = (allocate(&producer, LEN), allocate(&consumer, LEN));
        context.synchronize().unwrap();
        let flag = pinned(&context, 4);
        fill(&producer, from, 5, LEN);
        write_value(&producer, flag.at as u64, 1, TELLS);
        while value(&flag).load(Ordering::Acquire) == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
        copy(&consumer, to, from, LEN);
        context.synchronize().unwrap();
        free(&producer, from);
        free(&consumer, to);
    });
}

/// A context with a stream, and a place for a value that nobody writes.
fn alone() -> (Arc<CudaContext>, Arc<CudaStream>, u64) {
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let at = allocate(&stream, 8);
    context.synchronize().unwrap();
    (context, stream, at)
}

#[test]
fn a_value_that_never_comes_is_said() {
    caught("stuck", |session| {
        session.set("value_ms", 20);
        let (context, stream, at) = alone();
        fill(&stream, at, 0, 8);
        wait_value(&stream, at, 1, AT_LEAST).result().unwrap();
        assert!(stream.synchronize().is_err());
        // The value comes after all, so that the context can end.
        let other = context.new_stream().unwrap();
        write_value(&other, at, 1, TELLS);
        context.synchronize().unwrap();
        free(&stream, at);
    });
}

#[test]
fn places_are_checked() {
    caught("address", |_| {
        let (_context, stream, at) = alone();
        wait_value(&stream, at + 8, 1, AT_LEAST).result().unwrap();
        assert!(stream.synchronize().is_err());
    });
    caught("address", |_| {
        let (_context, stream, at) = alone();
        write_value(&stream, at + 8, 1, TELLS);
        assert!(stream.synchronize().is_err());
    });
    caught("uninitialised", |_| {
        let (context, stream, at) = alone();
        wait_value(&stream, at, 0, NOR).result().unwrap();
        context.synchronize().unwrap();
        free(&stream, at);
    });
    passes(|_| {
        let (context, stream, at) = alone();
        assert!(wait_value(&stream, at + 2, 1, AT_LEAST).result().is_err());
        assert!(wait_value(&stream, at, 1, 4).result().is_err());
        context.synchronize().unwrap();
        free(&stream, at);
    });
}
