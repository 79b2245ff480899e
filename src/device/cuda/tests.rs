//! The device layer on the simulated driver, over many of the schedules that CUDA allows.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream};

use super::support::{Session, session};
use super::{Gpu, Output, Uploads, upload};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Arena;

const TENSOR_BYTES: usize = 4096;
const LABELS: usize = 8;
const ROUNDS: u8 = 4;
const SEEDS: u64 = 100;
/// How many seeds may be needed until a planted fault shows.
const SEEDS_TO_CATCH: u64 = 20;

/// A slot, two streams that read it, and what they read.
struct Bench {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    output: Output,
    readers: [Arc<CudaStream>; 2],
    read: Vec<(CudaSlice<u8>, CudaSlice<u8>)>,
}

impl Bench {
    fn new() -> Result<Self> {
        let gpu = Gpu::open(0)?;
        let stream = gpu.stream()?;
        let output = Output::new(&gpu, &stream, TENSOR_BYTES, LABELS)?;
        let readers = [gpu.stream()?, gpu.stream()?];
        let read = (0..ROUNDS)
            .map(|_| Ok((gpu.alloc(&readers[0], TENSOR_BYTES)?, gpu.alloc(&readers[1], TENSOR_BYTES)?)))
            .collect::<Result<_>>()?;
        Ok(Self { gpu, stream, output, readers, read })
    }

    /// Writes a round as the launch thread does.
    fn write(&mut self, round: u8) -> Result<()> {
        self.output.begin()?;
        // SAFETY: pageable memory, of which the driver takes a copy.
        unsafe { upload(&self.stream, self.output.bytes_mut(), 0, &[round; TENSOR_BYTES])? };
        // SAFETY: as above.
        unsafe { self.output.upload_labels(&[i64::from(round); LABELS])? };
        self.output.end()
    }

    /// Reads a round as two consumers do, whose work may run when the round has long been released.
    fn read(&mut self, round: u8) -> Result<()> {
        let copied =
            |result: std::result::Result<(), _>| result.map_err(|code| super::error("cuMemcpyDtoDAsync", code));
        let (first, second) = &mut self.read[usize::from(round)];
        for (stream, into) in self.readers.iter().zip([first, second]) {
            self.output.read_on(stream)?;
            copied(stream.memcpy_dtod(&self.output.bytes().slice(..TENSOR_BYTES), into))?;
        }
        Ok(())
    }

    /// What the consumers have got in the end.
    fn got(self) -> Result<Vec<Vec<u8>>> {
        let Self { output, readers, read, .. } = self;
        drop(output);
        let host = |stream: &Arc<CudaStream>, slice: &CudaSlice<u8>| {
            stream.clone_dtoh(slice).map_err(|code| super::error("cuMemcpyDtoHAsync", code))
        };
        let each = read.iter().flat_map(|(first, second)| [host(&readers[0], first), host(&readers[1], second)]);
        each.collect()
    }
}

fn rounds() -> Result<Vec<Vec<u8>>> {
    let mut bench = Bench::new()?;
    for round in 0..ROUNDS {
        bench.write(round)?;
        bench.read(round)?;
        bench.output.release();
    }
    bench.got()
}

fn is_right(got: &[Vec<u8>]) -> bool {
    got.len() == 2 * usize::from(ROUNDS)
        && got.iter().enumerate().all(|(at, bytes)| bytes == &[(at / 2) as u8; TENSOR_BYTES])
}

/// Whether a session, which runs `body` with a fault planted, shows it under one of some seeds.
fn caught(session: &Session, rule: (&str, &str), body: impl Fn() -> bool) -> bool {
    session.set(rule.0, rule.1);
    (0..SEEDS_TO_CATCH).any(|seed| {
        session.restart(seed);
        let right = body();
        session.finish();
        !right || !session.reports().is_empty()
    })
}

#[test]
fn readers_of_a_round_see_it_and_are_done_before_the_next_is_written() {
    let session = session(0);
    for seed in 0..SEEDS {
        session.restart(seed);
        assert!(is_right(&rounds().unwrap()), "seed {seed}");
        session.finish();
        assert_eq!(session.reports(), [""; 0], "seed {seed}");
    }
}

#[test]
fn every_wait_that_is_left_out_is_caught() {
    let session = session(0);
    // Each round two waits for `ready` and, but for the first, two for the readers of the one before; then two as the
    // memory is freed.
    let waits = 2 * usize::from(ROUNDS) + 2 * (usize::from(ROUNDS) - 1) + 2;
    for nth in 1..=waits {
        let rule = format!("cuStreamWaitEvent#{nth}");
        assert!(caught(&session, ("drop", &rule), || rounds().is_ok_and(|got| is_right(&got))), "{rule}");
    }
    session.set("drop", "");
    // And each event recorded: one behind every write and one behind each of its readers.
    for nth in 1..=3 * usize::from(ROUNDS) {
        let rule = format!("cuEventRecord#{nth}");
        assert!(caught(&session, ("drop", &rule), || rounds().is_ok_and(|got| is_right(&got))), "{rule}");
    }
}

#[test]
fn a_round_that_is_taken_stays_as_it_is_while_the_slot_goes_on() {
    let session = session(0);
    for seed in 0..SEEDS {
        session.restart(seed);
        let mut bench = Bench::new().unwrap();
        bench.write(0).unwrap();
        bench.read(0).unwrap();
        let taken = bench.output.take().unwrap();
        assert_ne!(taken.pointer(), bench.output.pointer());
        for round in 1..ROUNDS {
            bench.write(round).unwrap();
            bench.read(round).unwrap();
            bench.output.release();
        }
        // It outlives the slot.
        let got = bench.got().unwrap();
        assert!(is_right(&got), "seed {seed}");
        let mut bytes = [9; TENSOR_BYTES];
        taken.copy_to_host(std::iter::once(0..bytes.len()), &mut bytes).unwrap();
        assert_eq!(bytes, [0; TENSOR_BYTES], "seed {seed}");
        drop(taken);
        session.finish();
        assert_eq!(session.reports(), [""; 0], "seed {seed}");
    }
}

#[test]
fn streams_that_cannot_be_ordered_are_refused() {
    let session = session(0);
    session.set("devices", 2);
    session.restart(0);
    let mut bench = Bench::new().unwrap();
    bench.write(0).unwrap();
    let per_thread = bench.gpu.context().per_thread_stream();
    let elsewhere = Gpu::open(1).unwrap().stream().unwrap();
    for (stream, cause) in [(per_thread, "CU_STREAM_PER_THREAD"), (elsewhere, "cuda:1")] {
        let error = bench.output.read_on(&stream).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.to_string().contains(cause), "{error}");
    }
    // Of the same context by another handle, and the default stream.
    let other = cudarc::driver::CudaContext::new(0).unwrap();
    bench.output.read_on(&other.new_stream().unwrap()).unwrap();
    bench.output.read_on(&other.default_stream()).unwrap();
    drop((bench, other));
    session.finish();
    assert_eq!(session.reports(), [""; 0]);
}

#[test]
fn memory_that_is_not_there_is_told_with_what_is() {
    let session = session(0);
    session.set("memory_bytes", 1 << 20);
    session.restart(0);
    let gpu = Gpu::open(0).unwrap();
    let error = gpu.alloc(&gpu.stream().unwrap(), 3 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.remedy().is_some());
    let text = error.to_string();
    assert!(text.contains(&(3 << 20).to_string()) && text.contains("of its 1048576 are free"), "{text}");

    // Which of a slot's allocations fails, and that of a tensor that leaves, is all one; what was there stays.
    session.set("memory_bytes", 8 << 20);
    for nth in 1..=2 {
        session.set("fail", format!("cuMemAllocAsync#{nth}:2"));
        session.restart(0);
        let gpu = Gpu::open(0).unwrap();
        let stream = gpu.stream().unwrap();
        let taken = Output::new(&gpu, &stream, TENSOR_BYTES, LABELS).and_then(|mut output| {
            let before = output.pointer();
            let taken = output.take().map(drop);
            assert_eq!(output.pointer() == before, taken.is_err());
            taken
        });
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::OutOfMemory);
        drop((stream, gpu));
        session.finish();
        assert_eq!(session.reports(), [""; 0], "call {nth}");
    }
}

#[test]
fn a_lost_device_is_an_error_of_its_kind_and_everything_can_be_dropped() {
    let session = session(0);
    for rule in ["cuMemcpyHtoDAsync#3:700", "cuMemcpyDtoDAsync#2:719", "cuMemcpyDtoDAsync#8:214", "cuEventRecord#4:700"]
    {
        for seed in 0..5 {
            session.set("sticky", rule);
            session.restart(seed);
            let error = rounds().expect_err(rule);
            assert_eq!(error.kind(), ErrorKind::DeviceLost, "{rule}, seed {seed}: {error:?}");
            assert!(!error.is_retryable() && error.remedy().is_some_and(|remedy| remedy.contains("start the process")));
            session.finish();
        }
    }
}

#[test]
fn kernels_that_the_driver_does_not_take_make_the_device_unavailable() {
    let session = session(0);
    for (code, name) in [(222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"), (218, "CUDA_ERROR_INVALID_PTX"), (221, "JIT")] {
        session.set("fail", format!("cuModuleLoadDataEx#1:{code}"));
        session.restart(0);
        let error = Gpu::open(0).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(name) && error.remedy().is_some(), "{error}");
    }
    session.set("fail", "cuModuleLoadDataEx#1:2");
    session.restart(0);
    assert_eq!(Gpu::open(0).err().as_ref().map(Error::kind), Some(ErrorKind::OutOfMemory));
}

/// Regions that are filled, copied and filled anew, as fast as they come back: how many, and what lies on the device last.
fn upload_rounds() -> Result<(usize, Vec<u8>)> {
    let arena = Arena::new(4 * TENSOR_BYTES)?;
    let mut uploads = Uploads::new(0, &arena, TENSOR_BYTES)?;
    let mut copied = Vec::new();
    let mut reused: Vec<crate::memory::Region> = Vec::new();
    let mut back = 0;
    for round in 0..u64::from(ROUNDS) * 2 {
        let mut region = match reused.pop() {
            Some(region) => region,
            None => arena.alloc(TENSOR_BYTES)?.expect("four regions are enough"),
        };
        region.as_mut_slice().fill(round as u8);
        uploads.start(round, region)?;
        uploads.reap(usize::from(uploads.in_flight() == 3), &mut copied)?;
        back += copied.len();
        assert!(copied.drain(..).all(|(token, region)| {
            let whole = region.as_slice().iter().all(|byte| *byte == token as u8);
            reused.push(region);
            whole
        }));
    }
    uploads.reap(usize::MAX, &mut copied)?;
    assert_eq!(uploads.in_flight(), 0);
    let mut last = vec![0; TENSOR_BYTES];
    uploads.download(&mut last)?;
    Ok((back + copied.len(), last))
}

#[test]
fn a_region_comes_back_when_its_copy_has_ended() {
    let session = session(0);
    let is_right = |(back, last): (usize, Vec<u8>)| back == 8 && last == [7; TENSOR_BYTES];
    for seed in 0..SEEDS {
        session.restart(seed);
        assert!(is_right(upload_rounds().unwrap()), "seed {seed}");
        session.finish();
        assert_eq!(session.reports(), [""; 0], "seed {seed}");
    }
    // An event that is not recorded says that the copy before it has ended.
    for nth in [2, 3] {
        let rule = format!("cuEventRecord#{nth}");
        assert!(caught(&session, ("drop", &rule), || upload_rounds().is_ok_and(is_right)), "{rule}");
    }
    session.set("drop", "");
    session.restart(0);
    let arena = Arena::new(2 * TENSOR_BYTES).unwrap();
    let mut uploads = Uploads::new(0, &arena, TENSOR_BYTES).unwrap();
    let error = uploads.start(0, arena.alloc(2 * TENSOR_BYTES).unwrap().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    // One that is in flight is waited for.
    uploads.start(1, arena.alloc(TENSOR_BYTES).unwrap().unwrap()).unwrap();
    drop((uploads, arena));
    session.finish();
    assert_eq!(session.reports(), [""; 0]);
}
