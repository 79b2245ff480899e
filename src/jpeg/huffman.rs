//! Huffman codes turned into look-up tables for the entropy decoder.
//!
//! The bit buffer's top bits index a table whose entry says how many bits to drop and what they mean. An
//! AC entry may hold two symbols: where the second one fits the window with all its bits, both are
//! decoded by one look-up, and the entry holds the second value ready made.

use super::markers::corrupt;
use super::tables::HuffmanSpec;
use crate::error::Result;

/// Bits that index [`DcTable`].
pub const DC_BITS: u32 = 9;
/// Bits that index [`AcTable`].
pub const AC_BITS: u32 = 10;

/// Advance of an end-of-block symbol: past every position, and apart from overlong runs.
pub const END_OF_BLOCK: u32 = 128;
/// Advance of bits that are no code; beyond what a block's position and an end of block can add up to.
pub const NO_CODE: u32 = 192;

/// Codes of up to 16 bits, for those too long for the look-up.
pub struct LongCodes {
    /// One past the last code of each length, aligned to 16 bits.
    limit: [u32; 17],
    /// Index of a code's symbol, less the code.
    offset: [i32; 17],
    symbols: [u8; 256],
}

/// Codes for DC differences.
pub struct DcTable {
    entries: [DcEntry; 1 << DC_BITS],
    long: LongCodes,
}

/// What the next bits mean as a DC code; zero where the code is longer than the index.
///
/// Bits 0..8: code and value bits; 8..16: code bits; 16..24: 63 less value bits.
#[derive(Clone, Copy)]
pub struct DcEntry(pub u32);

/// Codes for AC coefficients.
pub struct AcTable {
    entries: [AcEntry; 1 << AC_BITS],
    long: LongCodes,
}

/// What the next bits mean as one or two AC codes; zero where the first code is longer than the index.
///
/// From the low byte: all bits to drop; zeros before the first coefficient; steps to the position after
/// the last coefficient; bits of the first code; 63 less the first value's bits; then the second value (16
/// bits from bit 48), 0 where there is none.
#[derive(Clone, Copy)]
pub struct AcEntry(pub u64);

/// The derived form of the tables that recent images used.
///
/// Encoders with standard tables repeat the same few for ever; the others have two pairs an image.
#[derive(Default)]
pub struct TableCache {
    dc: Recent<DcTable>,
    ac: Recent<AcTable>,
}

impl TableCache {
    /// The place of the derived DC table, built unless it is there. Valid until four more are asked for.
    pub fn dc(&mut self, spec: &HuffmanSpec) -> Result<usize> {
        self.dc.place(spec, DcTable::new, DcTable::build)
    }

    /// The place of the derived AC table, built unless it is there. Valid until four more are asked for.
    pub fn ac(&mut self, spec: &HuffmanSpec) -> Result<usize> {
        self.ac.place(spec, AcTable::new, AcTable::build)
    }

    /// The DC table at a place.
    pub fn dc_at(&self, place: usize) -> &DcTable {
        &self.dc.entries[place].table
    }

    /// The AC table at a place.
    pub fn ac_at(&self, place: usize) -> &AcTable {
        &self.ac.entries[place].table
    }
}

/// Tables of one class; the least recently used gives way.
struct Recent<T> {
    entries: Vec<Entry<T>>,
    clock: u64,
}

struct Entry<T> {
    spec: HuffmanSpec,
    used: u64,
    table: Box<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), clock: 0 }
    }
}

impl<T> Recent<T> {
    /// Tables that are kept: more than the four that an image can use at a time.
    const LEN: usize = 8;

    fn place(
        &mut self,
        spec: &HuffmanSpec,
        new: fn() -> Box<T>,
        build: fn(&mut T, &HuffmanSpec) -> Result<()>,
    ) -> Result<usize> {
        self.clock += 1;
        if let Some(found) = self.entries.iter().position(|entry| entry.spec == *spec) {
            self.entries[found].used = self.clock;
            return Ok(found);
        }
        if self.entries.len() < Self::LEN {
            self.entries.push(Entry { spec: HuffmanSpec::NONE, used: 0, table: new() });
        }
        let oldest = (0..self.entries.len()).min_by_key(|&i| self.entries[i].used).unwrap_or(0);
        let entry = &mut self.entries[oldest];
        // A table that fails to build must not be found under its key, or under its old one.
        (entry.spec, entry.used) = (HuffmanSpec::NONE, 0);
        build(&mut entry.table, spec)?;
        (entry.spec, entry.used) = (*spec, self.clock);
        Ok(oldest)
    }
}

impl DcTable {
    fn new() -> Box<Self> {
        Box::new(Self { entries: [DcEntry(0); 1 << DC_BITS], long: LongCodes::NONE })
    }

    fn build(&mut self, spec: &HuffmanSpec) -> Result<()> {
        spec.check_dc()?;
        self.long.build(spec);
        let filled = for_short_codes(spec, DC_BITS, |range, length, size| {
            self.entries[range].fill(DcEntry::new(length, size.into()));
        });
        self.entries[filled..].fill(DcEntry(0));
        Ok(())
    }

    /// The entry for the bits at the top of `buffer`.
    #[inline(always)]
    pub fn entry(&self, buffer: u64) -> DcEntry {
        self.entries[(buffer >> (64 - DC_BITS)) as usize]
    }

    /// The bits of a code longer than the index and the entry for what follows them; `None` where the bits
    /// are no code.
    #[cold]
    #[inline(never)]
    pub fn long_entry(&self, buffer: u64) -> Option<(u32, DcEntry)> {
        let (length, size) = self.long.find(buffer)?;
        Some((length, DcEntry::new(0, size.into())))
    }
}

impl DcEntry {
    fn new(length: u32, size: u32) -> Self {
        Self((length + size) | length << 8 | (63 - size) << 16)
    }
}

impl AcTable {
    fn new() -> Box<Self> {
        Box::new(Self { entries: [AcEntry(0); 1 << AC_BITS], long: LongCodes::NONE })
    }

    fn build(&mut self, spec: &HuffmanSpec) -> Result<()> {
        spec.check_codes()?;
        self.long.build(spec);
        let filled = for_short_codes(spec, AC_BITS, |range, length, symbol| {
            self.entries[range].fill(AcEntry::single(length, symbol));
        });
        self.entries[filled..].fill(AcEntry(0));
        self.pair();
        Ok(())
    }

    /// Adds a second symbol to the entries with room for one.
    fn pair(&mut self) {
        const MASK: usize = (1 << AC_BITS) - 1;
        // An entry looks up its second symbol among single ones, so go through the indices in an order that
        // leaves those untouched: `index << used` reaches any index, hence the copy.
        let singles = self.entries;
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let used = entry.bits();
            if used == 0 || used >= AC_BITS - 1 || entry.run() >= END_OF_BLOCK {
                continue;
            }
            let rest = (index << used) & MASK;
            let second = singles[rest];
            if second.bits() == 0 || used + second.bits() > AC_BITS {
                continue;
            }
            *entry = entry.with_second(second, second.value((rest as u64) << (64 - AC_BITS)));
        }
    }

    /// The entry for the bits at the top of `buffer`.
    #[inline(always)]
    pub fn entry(&self, buffer: u64) -> AcEntry {
        self.entries[(buffer >> (64 - AC_BITS)) as usize]
    }

    /// The bits of a code longer than the index and the entry for what follows them; one that says so
    /// where the bits are no code.
    #[cold]
    #[inline(never)]
    pub fn long_entry(&self, buffer: u64) -> (u32, AcEntry) {
        match self.long.find(buffer) {
            Some((length, symbol)) => (length, AcEntry::single(0, symbol)),
            None => (0, AcEntry::new(0, NO_CODE, 0)),
        }
    }
}

impl AcEntry {
    fn new(length: u32, run: u32, size: u32) -> Self {
        let low = (length + size) | run << 8 | (run + 1) << 16 | length << 24;
        Self(u64::from(low) | u64::from(63 - size) << 32)
    }

    fn single(length: u32, symbol: u8) -> Self {
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        // As in libjpeg, every symbol without value bits ends the block but ZRL, 15 zeros and a zero.
        Self::new(length, if size == 0 && run != 15 { END_OF_BLOCK } else { run }, size)
    }

    fn with_second(self, second: Self, value: i16) -> Self {
        let added = u64::from(second.bits()) | u64::from(second.advance()) << 16;
        Self((self.0 + added) | u64::from(value as u16) << 48)
    }

    /// Bits of all its symbols.
    #[inline(always)]
    pub fn bits(self) -> u32 {
        self.0 as u8 as u32
    }

    /// Zeros before the first coefficient.
    #[inline(always)]
    pub fn run(self) -> u32 {
        (self.0 >> 8) as u8 as u32
    }

    /// Steps to the position after the last coefficient.
    #[inline(always)]
    pub fn advance(self) -> u32 {
        (self.0 >> 16) as u8 as u32
    }

    /// Bits of the first symbol alone.
    #[inline(always)]
    pub fn first_bits(self) -> u32 {
        let (length, size_complement) = ((self.0 >> 24) as u8, (self.0 >> 32) as u8);
        u32::from(length) + 63 - u32::from(size_complement)
    }

    /// The first coefficient, from the buffer as it was at the look-up.
    #[inline(always)]
    pub fn value(self, buffer: u64) -> i16 {
        extend(buffer << ((self.0 >> 24) & 63), (self.0 >> 32) as u32 & 63)
    }

    /// The second coefficient.
    #[inline(always)]
    pub fn second_value(self) -> i16 {
        (self.0 >> 48) as i16
    }
}

/// The value whose bits are at the top of `bits`, of `63 - size_complement` bits (T.81, figure F.12).
#[inline(always)]
pub fn extend(bits: u64, size_complement: u32) -> i16 {
    // A leading 0 means a negative value, stored less its smallest: take off 2^size - 1.
    let negative = !((bits as i64) >> 63) as u64;
    let value = (bits >> 1) >> size_complement;
    let offset = (negative >> 1) >> size_complement;
    (value as u32).wrapping_sub(offset as u32) as i16
}

impl LongCodes {
    const NONE: Self = Self { limit: [0; 17], offset: [0; 17], symbols: [0; 256] };

    /// Of counts that were checked.
    fn build(&mut self, spec: &HuffmanSpec) {
        let (mut code, mut index) = (0_u32, 0_i32);
        for length in 1..=16 {
            let count = u32::from(spec.counts[length - 1]);
            self.offset[length] = index - code as i32;
            code += count;
            index += count as i32;
            self.limit[length] = code << (16 - length);
            code <<= 1;
        }
        self.symbols = spec.symbols;
    }

    /// Length and symbol of the code at the top of `buffer`.
    fn find(&self, buffer: u64) -> Option<(u32, u8)> {
        let bits = (buffer >> 48) as u32;
        let length = (1..=16).find(|&length| bits < self.limit[length])?;
        let index = (bits >> (16 - length)) as i32 + self.offset[length];
        Some((length as u32, self.symbols[index as usize & 255]))
    }
}

/// Calls `fill` with the index range, length and symbol of every code of up to `index_bits`; returns the
/// end of the last range.
fn for_short_codes(
    spec: &HuffmanSpec,
    index_bits: u32,
    mut fill: impl FnMut(std::ops::Range<usize>, u32, u8),
) -> usize {
    let (mut start, mut index) = (0, 0);
    for length in 1..=index_bits {
        for _ in 0..spec.counts[length as usize - 1] {
            let end = start + (1 << (index_bits - length));
            fill(start..end, length, spec.symbols[index]);
            (start, index) = (end, index + 1);
        }
    }
    start
}

impl HuffmanSpec {
    /// A key that no usable table has: its counts are no prefix code.
    const NONE: Self = Self { counts: [255; 16], symbols: [0; 256] };

    /// Refuses what no decoder can use for DC differences.
    pub(crate) fn check_dc(&self) -> Result<()> {
        self.check_codes()?;
        if self.symbols[..self.len()].iter().any(|&size| size > 15) {
            return Err(corrupt("DC Huffman table holds a size over 15"));
        }
        Ok(())
    }

    /// Refuses counts that form no prefix code, or one with the all-ones code, as libjpeg does.
    pub(crate) fn check_codes(&self) -> Result<()> {
        if self.len() > 256 {
            return Err(corrupt("Huffman table declares over 256 symbols"));
        }
        let mut code = 0_u32;
        for (length, &count) in (1..).zip(&self.counts) {
            code += u32::from(count);
            if count > 0 && code >= 1 << length {
                return Err(corrupt("Huffman table is no prefix code"));
            }
            code <<= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extends_like_the_standard() {
        for size in 0..16_u32 {
            for bits in 0..1_u64 << size {
                let expected =
                    if size > 0 && bits < 1 << (size - 1) { bits as i64 - (1 << size) + 1 } else { bits as i64 };
                let top = if size == 0 { 0x5555 << 40 } else { bits << (64 - size) | 0x55 };
                assert_eq!(i64::from(extend(top, 63 - size)), expected, "{bits} of {size} bits");
            }
        }
    }

    #[test]
    fn refuses_codes_that_are_none() {
        let mut cache = TableCache::default();
        let mut spec = HuffmanSpec { counts: [0; 16], symbols: [0; 256] };
        spec.counts[0] = 2;
        assert!(cache.ac(&spec).is_err(), "the all-ones code");
        spec.counts[0] = 3;
        assert!(cache.ac(&spec).is_err(), "more codes than there are");
        spec.counts[0] = 1;
        let at = cache.ac(&spec).unwrap();
        assert_eq!(cache.ac(&spec).unwrap(), at, "found again");
        assert!(cache.ac_at(at).entry(u64::MAX).bits() == 0 && cache.ac_at(at).long_entry(u64::MAX).1.run() == NO_CODE);
        spec.symbols[0] = 16;
        assert!(cache.dc(&spec).is_err(), "a DC size over 15");
    }

    #[test]
    fn keeps_the_last_four_tables_in_place() {
        let mut cache = TableCache::default();
        let spec = |i: u64| {
            let mut spec = HuffmanSpec { counts: [0; 16], symbols: [0; 256] };
            (spec.counts[0], spec.symbols[0]) = (1, i as u8);
            spec
        };
        let mut recent: Vec<(u64, usize)> = Vec::new();
        let mut state = 1_u64;
        for _ in 0..10_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let drawn = (state >> 33) % 20;
            let at = cache.ac(&spec(drawn)).unwrap();
            recent.retain(|&(other, _)| other != drawn);
            recent.insert(0, (drawn, at));
            recent.truncate(4);
            for &(i, at) in &recent {
                assert!(cache.ac.entries[at].spec == spec(i));
            }
        }
    }
}
