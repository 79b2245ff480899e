//! Shared memory of a block, with who touched each byte since when.
//!
//! Time is counted in ticks, one more at every synchronisation. Two accesses by different threads are a race unless one was
//! followed by a barrier, or a `bar.warp.sync`, that both threads took part in (or a chain of such) before the other. That
//! the lanes of a warp happen to run in lock-step orders nothing. Accesses that are atomic, volatile or ordered do not race
//! with each other; two writes of the same value do not either.

use std::ops::Range;

use super::fault::thread;
use super::registers::{LANES, Mask, lanes};

/// Shared memory of the block that runs.
pub(super) struct Shared {
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    tick: u32,
    /// The tick of the block's start: what is older is of another block.
    start: u32,
    /// The tick of the last barrier of the whole block: what is older is seen by all.
    barrier: u32,
    clocks: Vec<Clock>,
    /// Threads of the block in x, y, z.
    block: [u32; 3],
}

/// What is known of a byte.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Cell {
    written: u32,
    writer: u16,
    /// Flags of the write, then of the reads.
    flags: u8,
    /// The warp that read, or [`MANY`].
    reader: u8,
    read: u32,
    /// The lanes of that warp, or the warps.
    readers: Mask,
}

/// The write was atomic, volatile or ordered.
const STRONG_WRITE: u8 = 1;
/// What was written had no value.
const UNDEFINED: u8 = 2;
/// All reads were atomic, volatile or ordered.
const STRONG_READ: u8 = 4;
/// For [`Cell::reader`]: more warps than one.
const MANY: u8 = u8::MAX;

/// A tick of each warp.
pub(super) type Ticks = [u32; 32];

/// What a warp has seen of others: accesses before these ticks.
struct Clock {
    warps: Ticks,
    /// For each lane, of the lanes of its warp.
    lanes: [[u32; LANES]; LANES],
}

/// An access by a thread.
#[derive(Clone, Copy)]
pub(super) struct Access {
    pub(super) warp: usize,
    pub(super) lane: usize,
    pub(super) strong: bool,
}

impl Access {
    fn thread(self) -> u16 {
        (self.warp * LANES + self.lane) as u16
    }
}

impl Shared {
    pub(super) fn new(len_bytes: usize, block: [u32; 3]) -> Self {
        let warps = (block.iter().product::<u32>() as usize).div_ceil(LANES);
        let clock = || Clock { warps: [0; 32], lanes: [[0; LANES]; LANES] };
        Self {
            bytes: vec![0; len_bytes],
            cells: vec![Cell::default(); len_bytes],
            tick: 0,
            start: 0,
            barrier: 0,
            clocks: (0..warps).map(|_| clock()).collect(),
            block,
        }
    }

    /// A new block begins: nothing is written, nothing has been touched.
    pub(super) fn begin(&mut self) {
        self.tick = self.tick.saturating_add(1);
        self.start = self.tick;
        self.barrier = self.tick;
    }

    /// Reads; says whether every byte has a value.
    ///
    /// # Errors
    /// In words: bytes that are not there, or a race.
    pub(super) fn load(&mut self, access: Access, address: u64, into: &mut [u8]) -> Result<bool, String> {
        let range = self.range(address, into.len())?;
        into.copy_from_slice(&self.bytes[range.clone()]);
        let mut defined = true;
        let Range { mut start, end } = range;
        while start < end {
            let range = self.alike(start..end);
            start = range.end;
            let cell = self.cells[range.start];
            if self.write_races(&cell, access) {
                return Err(self.race("reads", range.start, "written", cell.writer));
            }
            defined &= cell.written >= self.start && cell.flags & UNDEFINED == 0;
            let read = self.read(cell, access);
            self.cells[range].fill(read);
        }
        Ok(defined)
    }

    /// Writes.
    ///
    /// # Errors
    /// In words: bytes that are not there, or a race.
    pub(super) fn store(&mut self, access: Access, address: u64, from: &[u8], defined: bool) -> Result<(), String> {
        let range = self.range(address, from.len())?;
        let (first, Range { mut start, end }) = (range.start, range);
        while start < end {
            let range = self.alike(start..end);
            start = range.end;
            let cell = self.cells[range.start];
            let from = &from[range.start - first..range.end - first];
            if self.write_races(&cell, access) {
                let valued = defined && cell.flags & UNDEFINED == 0;
                let differs = range.clone().zip(from).find(|(at, byte)| !valued || self.bytes[*at] != **byte);
                if let Some((at, _)) = differs {
                    return Err(self.race("writes", at, "written", cell.writer));
                }
            }
            if let Some(reader) = self.read_races(&cell, access) {
                return Err(self.race("writes", range.start, "read", reader));
            }
            let strong = if access.strong { STRONG_WRITE } else { 0 };
            let flags = cell.flags & STRONG_READ | strong | if defined { 0 } else { UNDEFINED };
            self.bytes[range.clone()].copy_from_slice(from);
            self.cells[range].fill(Cell { written: self.tick, writer: access.thread(), flags, ..cell });
        }
        Ok(())
    }

    /// The first bytes of a range of which the same is known: most often all, since they are accessed together.
    #[inline(always)]
    fn alike(&self, range: Range<usize>) -> Range<usize> {
        let cells = &self.cells[range.clone()];
        let len = 1 + cells[1..].iter().take_while(|cell| **cell == cells[0]).count();
        range.start..range.start + len
    }

    fn range(&self, address: u64, len: usize) -> Result<Range<usize>, String> {
        let start = usize::try_from(address).ok().filter(|start| *start < self.bytes.len());
        match start.and_then(|start| start.checked_add(len)) {
            Some(end) if end <= self.bytes.len() => Ok(end - len..end),
            _ => Err(format!(
                "{len} bytes at {address:#x} of shared memory, of which the block has {} bytes",
                self.bytes.len()
            )),
        }
    }

    /// Whether the last write is neither ordered before the access nor meant to be concurrent with it.
    #[inline(always)]
    fn write_races(&self, cell: &Cell, access: Access) -> bool {
        cell.written >= self.barrier
            && cell.writer != access.thread()
            && !(access.strong && cell.flags & STRONG_WRITE != 0)
            && !self.seen(access, cell.writer, cell.written)
    }

    /// Whether an access at `tick` by another thread is ordered before this one.
    fn seen(&self, access: Access, other: u16, tick: u32) -> bool {
        let (warp, lane) = (usize::from(other) / LANES, usize::from(other) % LANES);
        let clock = &self.clocks[access.warp];
        tick < if warp == access.warp { clock.lanes[access.lane][lane] } else { clock.warps[warp] }
    }

    /// A thread whose read is not ordered before the access, which writes.
    #[inline(always)]
    fn read_races(&self, cell: &Cell, access: Access) -> Option<u16> {
        if cell.read < self.barrier || cell.readers == 0 || access.strong && cell.flags & STRONG_READ != 0 {
            return None;
        }
        self.unseen_reader(cell, access)
    }

    fn unseen_reader(&self, cell: &Cell, access: Access) -> Option<u16> {
        let thread = |warp: usize, lane: usize| (warp * LANES + lane) as u16;
        if cell.reader != MANY {
            let warp = usize::from(cell.reader);
            return lanes(cell.readers)
                .map(|lane| thread(warp, lane))
                .find(|reader| *reader != access.thread() && !self.seen(access, *reader, cell.read));
        }
        // Which lanes they were is not known; of its own warp, the writer itself may be the only one.
        lanes(cell.readers & !(1 << access.warp))
            .map(|warp| thread(warp, 0))
            .find(|reader| !self.seen(access, *reader, cell.read))
    }

    /// What is known of a byte after it was read.
    #[inline(always)]
    fn read(&self, cell: Cell, access: Access) -> Cell {
        let fresh = cell.read < self.barrier || cell.readers == 0 || self.unseen_reader(&cell, access).is_none();
        let strong = if access.strong { STRONG_READ } else { 0 };
        let (reader, readers, flags) = match cell.reader {
            _ if fresh => (access.warp as u8, 1 << access.lane, cell.flags & !STRONG_READ | strong),
            MANY => (MANY, cell.readers | 1 << access.warp, cell.flags & (strong | !STRONG_READ)),
            warp if usize::from(warp) == access.warp => {
                (warp, cell.readers | 1 << access.lane, cell.flags & (strong | !STRONG_READ))
            }
            warp => (MANY, 1 << warp | 1 << access.warp, cell.flags & (strong | !STRONG_READ)),
        };
        Cell { read: self.tick, reader, readers, flags, ..cell }
    }

    /// Lanes of a warp wait for each other, and then see what each has done and seen.
    pub(super) fn sync_lanes(&mut self, warp: usize, mask: Mask) {
        self.tick = self.tick.saturating_add(1);
        let seen = &mut self.clocks[warp].lanes;
        let mut all = [0; LANES];
        for lane in lanes(mask) {
            for (all, seen) in all.iter_mut().zip(&seen[lane]) {
                *all = (*all).max(*seen);
            }
        }
        for lane in lanes(mask) {
            all[lane] = self.tick;
        }
        for lane in lanes(mask) {
            seen[lane] = all;
        }
    }

    /// The whole block waits for each other.
    pub(super) fn sync_block(&mut self) {
        self.tick = self.tick.saturating_add(1);
        self.barrier = self.tick;
    }

    /// A warp says that it has come so far, and does not wait: the tick of that.
    pub(super) fn arrive(&mut self) -> u32 {
        self.tick = self.tick.saturating_add(1);
        self.tick
    }

    /// Some warps wait for each other, and for others to have arrived at some ticks.
    pub(super) fn sync_warps(&mut self, warps: Mask, arrived: &Ticks) {
        self.tick = self.tick.saturating_add(1);
        let mut all = *arrived;
        for warp in lanes(warps) {
            for (all, seen) in all.iter_mut().zip(&self.clocks[warp].warps) {
                *all = (*all).max(*seen);
            }
        }
        for warp in lanes(warps) {
            all[warp] = self.tick;
        }
        for warp in lanes(warps) {
            self.clocks[warp].warps = all;
            self.clocks[warp].lanes = [[self.tick; LANES]; LANES];
        }
    }

    #[cold]
    fn race(&self, does: &str, at: usize, done: &str, by: u16) -> String {
        let [x, y, z] = thread(by.into(), self.block);
        format!("race: {does} byte {at:#x} of shared memory, {done} by thread ({x}, {y}, {z}) with no barrier between")
    }
}
