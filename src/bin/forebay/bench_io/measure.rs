//! The loop that measures. What it does for each read is little beside the read, and allocates nothing.

use std::time::{Duration, Instant};

use forebay::Result;
use forebay::engine::cufile::Receipts;
use forebay::report::{Fallback, Histogram};

use super::blocks::Blocks;
use super::pace::{Pace, Share};
use super::pieces::{Piece, Pieces};
use super::queue::{Next, Queue, Waiting};
use super::reads::{Ended, Memory, Reads};
use crate::environment::cpu_time;
use crate::ui;

/// How often the bar moves.
const BAR_PERIOD: Duration = Duration::from_millis(100);

/// A measurement to be made.
pub struct Run<'a> {
    /// Who reads.
    pub reads: &'a mut dyn Reads,
    /// What is read.
    pub pieces: &'a mut Pieces,
    /// Reads in flight.
    pub depth: usize,
    /// How long reads are begun.
    pub seconds: Duration,
    /// How fast they may begin.
    pub pace: Pace,
    /// What the bytes are checked against.
    pub blocks: Option<&'a Blocks>,
}

/// A measurement.
pub struct Measured {
    /// From the first read's beginning to the last one's end.
    pub elapsed: Duration,
    /// User and system time of this process meanwhile.
    pub cpu: Duration,
    /// Time in which reads could have begun but for a limit.
    pub limited: Duration,
    pub reads: u64,
    pub bytes: u64,
    /// From the moment that a read was handed over to the one at which it was known to have ended.
    pub latency: Histogram,
    /// Blocks of 4 KiB that were checked.
    pub verified_blocks: u64,
    /// Reads in flight that paid, where that was looked for.
    pub depth: Option<usize>,
    /// Who read: uring, pread or cufile.
    pub engine: &'static str,
    /// Whether reads went around the page cache, all of them.
    pub is_direct: bool,
    /// What reads straight to a device took.
    pub receipts: Receipts,
    pub fallbacks: Vec<Fallback>,
}

/// A read in flight.
#[derive(Clone, Copy)]
struct Slot {
    begun: Instant,
    offset: u64,
}

impl Run<'_> {
    /// Reads for as long as was asked for, then waits for what is in flight.
    pub fn measure(self) -> Result<Measured> {
        let Self { reads, pieces, depth, seconds, pace, blocks } = self;
        let mut queue = Queue::new(pieces, pace);
        let bar = ui::bar((seconds.as_secs_f64() * 10.0).ceil() as u64, "tenths of a second");
        let mut free: Vec<usize> = (0..depth).rev().collect();
        let mut ended: Vec<Ended> = Vec::with_capacity(depth);
        let mut held: Option<Waiting> = None;
        let mut limited = Duration::ZERO;
        let mut copy = Vec::new();
        let (mut latency, mut count, mut bytes, mut verified_blocks) = (Histogram::default(), 0, 0, 0);
        let cpu_before = cpu_time();
        let started = Instant::now();
        let (mut now, mut bar_at) = (started, started);
        let mut slots = vec![Slot { begun: now, offset: 0 }; depth];
        loop {
            for Ended { slot, len_bytes, memory } in ended.drain(..) {
                latency.record_us(now.duration_since(slots[slot].begun).as_micros() as u64);
                count += 1;
                bytes += len_bytes as u64;
                if let Some(blocks) = blocks {
                    verified_blocks += check(blocks, slots[slot].offset, &memory, &mut copy)?;
                }
                reads.recycle(memory);
                free.push(slot);
            }
            let mut limit_wait = None;
            if now.duration_since(started) < seconds {
                while let Some(&slot) = free.last()
                    && reads.wanted() > 0
                {
                    let (piece, share) = match held.take() {
                        Some(held) => held,
                        None => match queue.next(now, |path| reads.open(path))? {
                            Next::Read(read) => read,
                            Next::Wait(wait) => {
                                limit_wait = Some(wait);
                                break;
                            }
                        },
                    };
                    let offset = if let Piece::Range { offset, .. } = &piece { *offset } else { 0 };
                    held = reads.start(slot, piece)?.map(|piece| (piece, share));
                    if held.is_some() {
                        break;
                    }
                    if let Some(share) = share {
                        queue.take(share, now);
                    }
                    slots[slot] = Slot { begun: now, offset };
                    free.pop();
                }
            }
            match limit_wait {
                // With nothing in flight there is nothing else to wait for.
                Some(wait) if free.len() == depth => std::thread::sleep(wait.min(BAR_PERIOD)),
                None if free.len() == depth => break,
                _ => reads.reap(&mut ended)?,
            }
            let before = std::mem::replace(&mut now, Instant::now());
            reads.take_asked_again(&mut |device, len_bytes| queue.take(Share::new(device, len_bytes), now));
            if limit_wait.is_some() {
                limited += now.duration_since(before);
            }
            if now.duration_since(bar_at) >= BAR_PERIOD {
                bar_at = now;
                bar.set_position((now.duration_since(started).as_secs_f64() * 10.0) as u64);
            }
        }
        let (elapsed, cpu) = (now.duration_since(started), cpu_time().saturating_sub(cpu_before));
        bar.finish_and_clear();
        Ok(Measured {
            elapsed,
            cpu,
            limited,
            reads: count,
            bytes,
            latency,
            verified_blocks,
            depth: reads.depth(),
            engine: reads.engine(),
            is_direct: reads.is_direct(),
            receipts: reads.receipts(),
            fallbacks: reads.fallbacks(),
        })
    }
}

/// Checks blocks, copied to `copy` from where the host cannot look: how many.
fn check(blocks: &Blocks, offset: u64, memory: &Memory, copy: &mut Vec<u8>) -> Result<u64> {
    match memory {
        Memory::Host(region) => blocks.check(offset, region.as_slice()),
        Memory::Device(region) => {
            copy.resize(region.len(), 0);
            region.copy_to_host(copy)?;
            blocks.check(offset, copy)
        }
    }
}

impl Measured {
    /// Bytes that arrived in a second.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Reads that ended in a second.
    pub fn iops(&self) -> f64 {
        self.reads as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// CPU time for 10^9 bytes.
    pub fn cpu_seconds_per_gb(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e9 / self.bytes.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::Arc;

    use forebay::engine::OpenFile;
    use forebay::memory::Arena;
    use forebay::storage::RateLimits;

    use super::super::Pattern;
    use super::*;

    const SAMPLE_BYTES: u64 = 10_000;

    /// Reads that are done at once, each of which had to ask for its bytes so many times more.
    struct Again {
        device: u64,
        times: u64,
        arena: Arena,
        done: Vec<Ended>,
        count: u64,
    }

    impl Reads for Again {
        fn open(&self, _: &Path) -> Result<Arc<OpenFile>> {
            panic!("a file of its own")
        }

        fn start(&mut self, slot: usize, _: Piece) -> Result<Option<Piece>> {
            let region = self.arena.alloc(SAMPLE_BYTES as usize)?.expect("room for one");
            self.done.push(Ended { slot, len_bytes: region.len(), memory: Memory::Host(region) });
            Ok(None)
        }

        fn reap(&mut self, ended: &mut Vec<Ended>) -> Result<()> {
            self.count += self.done.len() as u64;
            ended.append(&mut self.done);
            Ok(())
        }

        fn take_asked_again(&mut self, put: &mut dyn FnMut(u64, u64)) {
            (0..std::mem::take(&mut self.count) * self.times).for_each(|_| put(self.device, SAMPLE_BYTES));
        }

        fn recycle(&mut self, _: Memory) {}

        fn engine(&self) -> &'static str {
            "again"
        }

        fn is_direct(&self) -> bool {
            false
        }

        fn fallbacks(&self) -> Vec<Fallback> {
            vec![]
        }
    }

    #[test]
    fn what_is_asked_of_storage_again_is_held_to_the_limit_too() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..9 {
            std::fs::write(folder.path().join(format!("{number}.jpg")), [0; SAMPLE_BYTES as usize]).unwrap();
        }
        for times in [0, 1, 3] {
            let mut pieces = Pieces::new(&[folder.path().to_owned()], Pattern::Dataset, 0, 0).unwrap();
            let device = folder.path().metadata().unwrap().dev();
            let arena = Arena::new(1 << 20).unwrap();
            let mut reads = Again { device, times, arena, done: vec![], count: 0 };
            let pace = Pace::new(&RateLimits::default().every(1.0).unwrap()).unwrap();
            let seconds = Duration::from_millis(600);
            let run = Run { reads: &mut reads, pieces: &mut pieces, depth: 1, seconds, pace, blocks: None };
            let measured = run.measure().unwrap();
            let asked_for = measured.bytes * (times + 1);
            let rate = asked_for as f64 / measured.elapsed.as_secs_f64();
            // Up to a tenth of a second is made up for after a pause, and the last one owes.
            assert!((0.8e6..1.3e6).contains(&rate), "{rate} bytes/s were asked for, {times} times again");
        }
    }
}
