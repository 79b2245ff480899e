//! Entropy-coded bytes with their stuffing removed, a piece at a time, and the bits on top of them.

use std::ops::Range;

/// Bytes of the window's ring-free buffer; a power of two, so that masking an index proves it in bounds.
const CAPACITY: usize = 1 << 15;
/// Zeros kept behind the end of the data, so that a decoder may run past it for one MCU unchecked.
/// A block takes at most 64 codes of 16 bits with 15 value bits, an MCU ten blocks.
pub const MCU_BYTES_MAX: usize = 10 * 64 * 31 / 8;
const PADDING: usize = MCU_BYTES_MAX + 16;
/// Data bytes held at most.
const FILL: usize = CAPACITY - PADDING;

/// The memory of a window.
pub type WindowBytes = [u8; CAPACITY + 8];

/// A stretch of entropy-coded data between markers, seen through a buffer of fixed size.
pub struct Window {
    /// Unstuffed bytes; `PADDING` zeros behind `len` once the stretch has ended.
    bytes: Box<WindowBytes>,
    /// Unstuffed bytes held.
    len: usize,
    /// Unstuffed bytes of the stretch that were dropped.
    dropped: usize,
    /// The next byte of the file to unstuff.
    source: usize,
    /// What the stretch ended at, once it was seen.
    end: Option<End>,
}

/// What ends a stretch of entropy-coded data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A marker with this code; the window's source position is behind it.
    Marker(u8),
    /// The end of the file.
    File,
}

/// The bits at the decoder's position. Copied into registers by the inner loops.
#[derive(Clone, Copy)]
pub struct Bits {
    /// The next bits, left aligned. Bits past `count` may already be those that follow.
    pub buffer: u64,
    /// Bits that count.
    pub count: u32,
    /// The next byte to load, as a position in the window.
    pub next: usize,
}

impl Window {
    pub fn new() -> Self {
        let bytes = vec![0; CAPACITY + 8].into_boxed_slice().try_into();
        Self {
            bytes: bytes.unwrap_or_else(|_| unreachable!("length is CAPACITY + 8")),
            len: 0,
            dropped: 0,
            source: 0,
            end: None,
        }
    }

    /// Moves to the byte of the file at `source` and drops what was held.
    pub fn seek(&mut self, file: &[u8], source: usize) -> Bits {
        (self.len, self.dropped) = (0, 0);
        self.source = source;
        self.end = None;
        let mut bits = Bits { buffer: 0, count: 0, next: 0 };
        self.advance(file, &mut bits);
        bits
    }

    /// Whether at least one MCU of any length can be decoded from `bits` on without looking here again.
    #[inline(always)]
    pub fn holds_mcu(&self, bits: &Bits) -> bool {
        bits.next + PADDING <= self.len || self.end.is_some()
    }

    /// Whether the decoder has used bits behind the end of the data.
    #[inline(always)]
    pub fn is_overrun(&self, bits: &Bits) -> bool {
        bits.next * 8 > self.len * 8 + bits.count as usize
    }

    /// Bits of the stretch before `bits`, those of stuffed bytes not counted.
    pub fn position(&self, bits: &Bits) -> isize {
        (self.dropped * 8) as isize + bits.position()
    }

    /// A position in bits of the stretch as one of those that are held.
    pub fn held_position(&self, position: isize) -> isize {
        position - (self.dropped * 8) as isize
    }

    /// Whole bytes that were not used up to the end of the stretch, if its end was seen.
    pub fn unused_bytes(&self, bits: &Bits) -> Option<usize> {
        self.end?;
        Some((self.len * 8 + bits.count as usize).saturating_sub(bits.next * 8) / 8)
    }

    /// What ended the stretch, once that was seen, and the position in the file behind it.
    pub fn end(&self) -> Option<(End, usize)> {
        Some((self.end?, self.source))
    }

    /// The position in the file up to which it was unstuffed.
    pub fn source(&self) -> usize {
        self.source
    }

    /// Drops the bytes behind the decoder and unstuffs as many as there is room for.
    #[cold]
    #[inline(never)]
    pub fn advance(&mut self, file: &[u8], bits: &mut Bits) {
        // Bytes from which `count` bits are in the buffer may be dropped too: they are never loaded again.
        let keep: Range<usize> = bits.next.min(self.len)..self.len;
        let kept = keep.len();
        self.bytes.copy_within(keep, 0);
        self.dropped += bits.next.min(self.len);
        bits.next -= bits.next.min(self.len);
        self.len = kept;
        if self.end.is_none() {
            self.unstuff(file);
        }
        if self.end.is_some() {
            self.bytes[self.len..self.len + PADDING].fill(0);
        }
    }

    fn unstuff(&mut self, file: &[u8]) {
        while self.len < FILL {
            let rest = &file[self.source.min(file.len())..];
            let rest = &rest[..rest.len().min(FILL - self.len)];
            let run = memchr::memchr(0xFF, rest).unwrap_or(rest.len());
            self.bytes[self.len..self.len + run].copy_from_slice(&rest[..run]);
            self.len += run;
            self.source += run;
            if run < rest.len() {
                self.stuffed(file);
            } else if self.source >= file.len() {
                self.end = Some(End::File);
            }
            if self.end.is_some() {
                return;
            }
        }
    }

    /// Takes in what follows an FF at `source`: a stuffed FF or a marker, fill bytes before either.
    fn stuffed(&mut self, file: &[u8]) {
        let after = file[self.source..].iter().position(|&byte| byte != 0xFF);
        let Some(fill) = after else {
            self.source = file.len();
            self.end = Some(End::File);
            return;
        };
        self.source += fill + 1;
        match file[self.source - 1] {
            0 => {
                self.bytes[self.len] = 0xFF;
                self.len += 1;
            }
            code => self.end = Some(End::Marker(code)),
        }
    }

    /// The bytes, for [`Bits::refill`].
    #[inline(always)]
    pub fn bytes(&self) -> &WindowBytes {
        &self.bytes
    }
}

/// The position in the file of the unstuffed byte that lies `bytes` behind the one at `position`. Of an FF with
/// fill bytes before it, that of the last FF.
pub fn stuffed_position(file: &[u8], mut position: usize, mut bytes: usize) -> usize {
    if bytes == 0 {
        return position;
    }
    loop {
        let rest = &file[position.min(file.len())..];
        let Some(run) = memchr::memchr(0xFF, &rest[..rest.len().min(bytes + 1)]) else {
            return position + bytes;
        };
        let fill = rest[run..].iter().take_while(|&&byte| byte == 0xFF).count();
        position += run + fill - 1;
        if bytes == run {
            return position;
        }
        bytes -= run + 1;
        position += 2;
    }
}

impl Bits {
    /// Bits of the window before these; fewer than none where bytes that they came from were dropped.
    #[inline(always)]
    pub fn position(&self) -> isize {
        (self.next * 8) as isize - self.count as isize
    }

    /// Drops up to 7 bits where none may be in the buffer yet.
    pub fn skip(&mut self, bytes: &WindowBytes, bit: u32) {
        self.refill(bytes);
        self.drop(bit);
    }

    /// Loads bits until at least 56 count.
    #[inline(always)]
    pub fn refill(&mut self, bytes: &WindowBytes) {
        let at = self.next & (CAPACITY - 1);
        let word = bytes[at..].first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        self.buffer |= word >> self.count;
        self.next += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
    }

    /// Drops bits; at most 63, at most as many as count.
    #[inline(always)]
    pub fn drop(&mut self, count: u32) {
        self.buffer <<= count & 63;
        self.count = self.count.wrapping_sub(count) & 63;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_stuffing_and_fill_bytes() {
        let file = [1, 0xFF, 0, 2, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0, 3, 0xFF, 0xD9];
        // The unstuffed bytes are 1, FF, 2, FF, FF, 3.
        let expected = [0, 1, 3, 6, 8, 10];
        for (from, &start) in expected.iter().enumerate() {
            for (to, &position) in expected.iter().enumerate().skip(from) {
                assert_eq!(stuffed_position(&file, start, to - from), position, "{from} to {to}");
            }
        }
        for start in 0..20 {
            for bytes in 0..20 {
                stuffed_position(&file, start, bytes);
            }
        }
    }
}
