//! A scan from MCU to MCU: restart markers (T.81, E.2.4), entry points, and what is wrong where.

use super::Block;
use super::entropy::{FAULT_CODE, Fault, McuPlan, Run};
use super::entry::{EntryPoint, stale};
use super::guide::{Entrance, Guide};
use super::markers::{self, corrupt, truncated};
use super::simd::Simd;
use super::window::{Bits, End, Window, stuffed_position};
use crate::error::{Error, Result};

/// The decoder's state in a scan: everything that an entry point has to restore.
pub struct ScanReader<'a> {
    /// The entropy-coded data, or a piece of it.
    data: &'a [u8],
    /// Where that starts, in bytes from the start of the scan's data.
    data_offset: u64,
    /// The entry points and pieces, where there are some to go by.
    guide: Option<Guide<'a>>,
    window: &'a mut Window,
    simd: Simd,
    bits: Bits,
    /// The position in `data` of an unstuffed byte, by its position in the window's stretch.
    known: (usize, usize),
    predictions: [i32; 4],
    /// The next MCU.
    mcu: u64,
    restart_interval: u64,
    /// MCUs until a restart marker is due.
    until_restart: u64,
}

impl<'a> ScanReader<'a> {
    /// Starts at the first byte of a scan's entropy-coded data.
    pub fn new(data: &'a [u8], window: &'a mut Window, simd: Simd, restart_interval: u16) -> Self {
        let bits = window.seek(data, 0);
        let restart_interval = u64::from(restart_interval);
        let until_restart = if restart_interval == 0 { u64::MAX } else { restart_interval };
        Self {
            data,
            data_offset: 0,
            guide: None,
            window,
            simd,
            bits,
            known: (0, 0),
            predictions: [0; 4],
            mcu: 0,
            restart_interval,
            until_restart,
        }
    }

    /// Goes by entry points, and reads the pieces that they lead to. The first MCU asked for settles where it starts.
    pub fn guided(guide: Guide<'a>, window: &'a mut Window, simd: Simd, restart_interval: u16) -> Self {
        Self { guide: Some(guide), ..Self::new(&[], window, simd, restart_interval) }
    }

    /// The place it is at as an entry point of a row and column, its restart marker taken in if one is due.
    pub fn entry_point(&mut self, row: u32, column: u32) -> Result<EntryPoint> {
        self.restart_if_due()?;
        let [a, b, c, _] = self.predictions.map(|prediction| prediction as i16);
        Ok(EntryPoint { row, column, bit: self.position(), dc: [a, b, c] })
    }

    /// Goes to an MCU not yet decoded.
    pub fn go_to(&mut self, plan: &McuPlan, mcu: u64) -> Result<()> {
        if let Some(guide) = &mut self.guide
            && let Some((entry, at)) = guide.entry_before(self.mcu, mcu)?
        {
            self.enter(&entry, at)?;
        }
        self.skip(plan, mcu - self.mcu)
    }

    /// Decodes `mcus` MCUs into `blocks` and puts the position of each block's last coefficient, in zigzag
    /// order, into `last`.
    pub fn decode(&mut self, plan: &McuPlan, mcus: u64, blocks: &mut [Block], last: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < mcus {
            self.restart_if_due()?;
            let run = (mcus - done).min(self.until_restart).min(self.until_entry());
            self.run(run, isize::MAX, |reader, index| reader.decode_run(plan, done as usize + index, blocks, last))?;
            done += run;
            self.check_entry()?;
        }
        Ok(())
    }

    /// Passes over `mcus` MCUs, none of them an entry point's.
    fn skip(&mut self, plan: &McuPlan, mcus: u64) -> Result<()> {
        let mut done = 0;
        while done < mcus {
            self.restart_if_due()?;
            let run = (mcus - done).min(self.until_restart);
            if run == self.until_restart && self.restart_interval > 0 {
                self.skip_to_restart(run)?;
            } else {
                self.run(run, isize::MAX, |reader, _| reader.skip_run(plan))?;
            }
            done += run;
        }
        Ok(())
    }

    /// Passes over MCUs up to a restart marker, `mcus` at most, and no more than it takes to pass `bits` bits;
    /// returns how many. Decodes them all, so that what is wrong with one is found.
    pub fn skip_bits(&mut self, plan: &McuPlan, mcus: u64, bits: isize) -> Result<u64> {
        self.restart_if_due()?;
        let (mcu, mcus) = (self.mcu, mcus.min(self.until_restart));
        let end = self.window.position(&self.bits).saturating_add(bits);
        self.run(mcus, end, |reader, _| reader.skip_run(plan))?;
        Ok(self.mcu - mcu)
    }

    /// A position in the data from which the marker that ends the scan is the next but restart markers.
    pub fn finish(self) -> usize {
        match self.window.end() {
            // Back onto the marker itself.
            Some((End::Marker(_), position)) => position - 2,
            _ => self.window.source(),
        }
    }

    /// Has `step` decode the MCUs `0..mcus` of a run without restart, from the index it is given on, as far
    /// as the window reaches, and no further than `bits_end` in the stretch if it heeds that.
    fn run(&mut self, mcus: u64, bits_end: isize, mut step: impl FnMut(&mut Run<'_>, usize) -> Fault) -> Result<()> {
        let mut run = Run {
            window: self.window,
            bits: self.bits,
            predictions: self.predictions,
            simd: self.simd,
            mcus: mcus as usize,
            done: 0,
            bits_end: 0,
        };
        let (fault, done) = loop {
            let index = run.done;
            run.bits_end = run.window.held_position(bits_end);
            let fault = step(&mut run, index);
            if fault != 0
                || run.bits.position() >= run.bits_end
                || run.done == run.mcus
                || run.window.is_overrun(&run.bits)
            {
                break (fault, run.done as u64);
            }
            run.window.advance(self.data, &mut run.bits);
        };
        (self.bits, self.predictions) = (run.bits, run.predictions);
        self.mcu += done;
        self.until_restart -= done;
        if self.window.is_overrun(&self.bits) { Err(self.overrun()) } else { self.check(fault) }
    }

    fn check(&self, fault: Fault) -> Result<()> {
        let mcu = self.mcu;
        match fault {
            0 => Ok(()),
            FAULT_CODE => Err(corrupt(format!("MCU {mcu} holds bits that are no Huffman code"))),
            _ => Err(corrupt(format!("MCU {mcu} holds a coefficient past the 64th"))),
        }
    }

    fn overrun(&self) -> Error {
        let mcu = self.mcu;
        match self.window.end() {
            Some((End::Marker(code), _)) if code != markers::EOI => {
                corrupt(format!("marker {code:#04x} cuts off the data of MCU {mcu}"))
            }
            Some((End::Marker(_), _)) => truncated(format!("image ends at MCU {mcu}")),
            _ => truncated(format!("file ends in MCU {mcu}")),
        }
    }

    /// Expects a restart marker if one is due here (T.81, F.2.2.5, E.2.4).
    fn restart_if_due(&mut self) -> Result<()> {
        if self.until_restart > 0 {
            return Ok(());
        }
        let mcu = self.mcu;
        while self.window.end().is_none() {
            // The marker is near: the data of the interval has been used up.
            let next = self.bits.next;
            self.window.advance(self.data, &mut self.bits);
            if next == self.bits.next && self.window.end().is_none() {
                return Err(corrupt(format!("no restart marker before MCU {mcu}")));
            }
        }
        if self.window.unused_bytes(&self.bits) != Some(0) {
            return Err(corrupt(format!("stray bytes before the restart marker at MCU {mcu}")));
        }
        let Some((End::Marker(code), position)) = self.window.end() else {
            return Err(truncated(format!("file ends at the restart marker before MCU {mcu}")));
        };
        self.restart(code, position)
    }

    /// Takes in the restart marker that a skipped interval of `mcus` MCUs ends at, without decoding it.
    fn skip_to_restart(&mut self, mcus: u64) -> Result<()> {
        self.mcu += mcus;
        self.until_restart = 0;
        let mut position = match self.window.end() {
            Some((End::Marker(code), position)) => return self.restart(code, position),
            Some((End::File, position)) => position,
            None => self.window.source(),
        };
        while let Some(skipped) = memchr::memchr(0xFF, &self.data[position..]) {
            position += skipped + 1;
            match self.data.get(position) {
                None | Some(0) => {}
                Some(0xFF) => continue,
                Some(&code) => return self.restart(code, position + 1),
            }
        }
        Err(truncated(format!("file ends at the restart marker before MCU {}", self.mcu)))
    }

    /// Compares the entry point that was reached, if one was, with the decoder's own state.
    fn check_entry(&mut self) -> Result<()> {
        if self.until_entry() > 0 {
            return Ok(());
        }
        let Some(entry) = self.guide.as_mut().map(Guide::pass).transpose()?.flatten() else { return Ok(()) };
        let found = self.entry_point(entry.row, entry.column)?;
        if found == entry {
            return Ok(());
        }
        let EntryPoint { row, column, bit, dc } = entry;
        let cause = format!("MCU {column} of row {row} begins at bit {} with DC {:?}", found.bit, found.dc);
        Err(stale(format!("{cause}, not at bit {bit} with DC {dc:?}")))
    }

    /// MCUs to the next entry point.
    fn until_entry(&self) -> u64 {
        self.guide.as_ref().map_or(u64::MAX, |guide| guide.next_mcu().saturating_sub(self.mcu))
    }

    /// Starts at an entry point.
    fn enter(&mut self, entry: &EntryPoint, at: Entrance<'a>) -> Result<()> {
        (self.data, self.data_offset, self.mcu) = (at.data, at.data_offset, at.mcu);
        if self.restart_interval > 0 {
            self.until_restart = self.restart_interval - at.mcu % self.restart_interval;
            if self.until_restart == self.restart_interval && at.mcu > 0 {
                let marker = [0xFF, self.restart_marker()];
                let is_marked = at.byte >= 2 && at.data[at.byte - 2..at.byte] == marker;
                if !is_marked || !entry.bit.is_multiple_of(8) || entry.dc != [0; 3] {
                    return Err(stale(format!("MCU {} begins no restart interval", at.mcu)));
                }
            }
        }
        self.seek(at.byte);
        self.bits.skip(self.window.bytes(), (entry.bit % 8) as u32);
        let [a, b, c] = entry.dc.map(i32::from);
        self.predictions = [a, b, c, 0];
        Ok(())
    }

    /// The marker before the next MCU, where that begins a restart interval.
    fn restart_marker(&self) -> u8 {
        markers::RST0 + ((self.mcu / self.restart_interval + 7) % 8) as u8
    }

    /// The next bit, in bits from the start of the scan's data.
    fn position(&mut self) -> u64 {
        let bits = self.window.position(&self.bits).max(0) as usize;
        let (position, bytes) = self.known;
        let position = stuffed_position(self.data, position, bits / 8 - bytes);
        self.known = (position, bits / 8);
        (self.data_offset + position as u64) * 8 + bits as u64 % 8
    }

    fn seek(&mut self, position: usize) {
        self.bits = self.window.seek(self.data, position);
        self.known = (position, 0);
    }

    fn restart(&mut self, code: u8, position: usize) -> Result<()> {
        let expected = self.restart_marker();
        if code != expected {
            let mcu = self.mcu;
            return Err(corrupt(format!("marker {code:#04x} instead of {expected:#04x} before MCU {mcu}")));
        }
        self.seek(position);
        self.predictions = [0; 4];
        self.until_restart = self.restart_interval;
        Ok(())
    }
}
