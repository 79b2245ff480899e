//! Sets of bytes of an allocation: which were written, which an operation touched.

use std::borrow::Cow;

/// Bytes of a chunk: the unit in which large sets are kept and compared.
const CHUNK_BYTES: u64 = 4096;
/// Words of 64 bits that hold a bit for each byte of a chunk.
const CHUNK_WORDS: usize = (CHUNK_BYTES / 64) as usize;

type Chunk = [u64; CHUNK_WORDS];

/// One bit for each byte of an allocation, and one for each chunk that holds a set bit.
///
/// The memory is zero pages until it is used, so that a large allocation that is hardly touched costs little.
#[derive(Debug)]
pub struct Marks {
    bits: Vec<u64>,
    used: Vec<u64>,
}

impl Marks {
    /// No byte of `len`.
    pub fn new(len: u64) -> Self {
        let chunks = len.div_ceil(CHUNK_BYTES) as usize;
        Self { bits: vec![0; chunks * CHUNK_WORDS], used: vec![0; chunks.div_ceil(64)] }
    }

    /// Adds bytes.
    #[inline]
    pub fn set(&mut self, at: u64, len: u64) {
        let (word, bit) = ((at >> 6) as usize, at & 63);
        if bit + len <= 64 && len > 0 {
            self.bits[word] |= (u64::MAX >> (64 - len)) << bit;
            self.used[(at >> 18) as usize] |= 1 << ((at >> 12) & 63);
        } else {
            self.set_many(at, len);
        }
    }

    fn set_many(&mut self, at: u64, len: u64) {
        for_words(at, len, |word, mask| self.bits[word] |= mask);
        for chunk in at / CHUNK_BYTES..(at + len).div_ceil(CHUNK_BYTES) {
            self.used[(chunk >> 6) as usize] |= 1 << (chunk & 63);
        }
    }

    /// Removes bytes.
    pub fn clear(&mut self, at: u64, len: u64) {
        for_words(at, len, |word, mask| self.bits[word] &= !mask);
    }

    /// The first of these bytes that is not in the set.
    #[inline]
    pub fn first_missing(&self, at: u64, len: u64) -> Option<u64> {
        let (word, bit) = ((at >> 6) as usize, at & 63);
        if bit + len <= 64 && len > 0 && self.bits[word] >> bit & (u64::MAX >> (64 - len)) == u64::MAX >> (64 - len) {
            return None;
        }
        let mut missing = None;
        for_words(at, len, |word, mask| {
            let absent = mask & !self.bits[word];
            if absent != 0 && missing.is_none() {
                missing = Some(word as u64 * 64 + u64::from(absent.trailing_zeros()));
            }
        });
        missing
    }

    /// Makes these bytes' membership that of another set's bytes: definedness follows a copy.
    pub fn copy_from(&mut self, at: u64, other: &Ranges, from: u64, len: u64) {
        self.clear(at, len);
        for (start, end) in other.spans(from, from + len) {
            self.set(at + (start - from), end - start);
        }
    }

    /// The members among these bytes.
    pub fn within(&self, at: u64, len: u64) -> Ranges {
        let mut found = Builder::default();
        for chunk in at / CHUNK_BYTES..(at + len).div_ceil(CHUNK_BYTES) {
            let mut bits = self.chunk(chunk);
            let mask = chunk_of(at, at + len, chunk);
            bits.iter_mut().zip(mask).for_each(|(bits, mask)| *bits &= mask);
            found.push(chunk, bits);
        }
        found.finish()
    }

    /// Takes the set and leaves an empty one.
    pub fn take(&mut self) -> Ranges {
        let mut found = Builder::default();
        for block in 0..self.used.len() {
            let mut left = std::mem::take(&mut self.used[block]);
            while left != 0 {
                let chunk = block as u64 * 64 + u64::from(left.trailing_zeros());
                left &= left - 1;
                found.push(chunk, self.chunk(chunk));
                let words = chunk as usize * CHUNK_WORDS;
                self.bits[words..words + CHUNK_WORDS].fill(0);
            }
        }
        found.finish()
    }

    fn chunk(&self, chunk: u64) -> Chunk {
        let words = chunk as usize * CHUNK_WORDS;
        let mut bits = [0; CHUNK_WORDS];
        bits.copy_from_slice(&self.bits[words..words + CHUNK_WORDS]);
        bits
    }
}

/// An unchanging set of bytes: an interval, or the chunks of it that hold any.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    start: u64,
    end: u64,
    /// Sorted by number; none if all bytes of the interval are in the set.
    chunks: Option<Vec<(u64, Option<Box<Chunk>>)>>,
}

impl Ranges {
    /// All bytes from `start` to before `end`.
    pub fn all(start: u64, end: u64) -> Self {
        Self { start, end, chunks: None }
    }

    /// Whether there are no bytes in it.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The first byte that both sets have.
    pub fn overlap(&self, other: &Self) -> Option<u64> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        if start >= end {
            return None;
        }
        if self.chunks.is_none() && other.chunks.is_none() {
            return Some(start);
        }
        self.common(other, start, end).find_map(|chunk| {
            let (mine, theirs) = (self.bits(chunk), other.bits(chunk));
            let word = mine.iter().zip(theirs.iter()).position(|(a, b)| a & b != 0)?;
            let bit = (mine[word] & theirs[word]).trailing_zeros();
            Some(chunk * CHUNK_BYTES + word as u64 * 64 + u64::from(bit))
        })
    }

    /// Whether this set has every byte that the other has.
    pub fn covers(&self, other: &Self) -> bool {
        if other.is_empty() {
            return true;
        }
        if self.start > other.start || self.end < other.end {
            return false;
        }
        if self.chunks.is_none() {
            return true;
        }
        let all = Self::all(other.start, other.end);
        other.common(&all, other.start, other.end).all(|chunk| {
            let (mine, theirs) = (self.bits(chunk), other.bits(chunk));
            mine.iter().zip(theirs.iter()).all(|(a, b)| b & !a == 0)
        })
    }

    /// The numbers of the chunks between two bytes that may hold bytes of both.
    fn common<'a>(&'a self, other: &'a Self, start: u64, end: u64) -> Box<dyn Iterator<Item = u64> + 'a> {
        let (first, last) = (start / CHUNK_BYTES, end.div_ceil(CHUNK_BYTES));
        match self.chunks.as_ref().or(other.chunks.as_ref()) {
            None => Box::new(first..last),
            Some(chunks) => {
                let from = chunks.partition_point(|(number, _)| *number < first);
                Box::new(chunks[from..].iter().map(|(number, _)| *number).take_while(move |number| *number < last))
            }
        }
    }

    fn bits(&self, chunk: u64) -> Cow<'_, Chunk> {
        let Some(chunks) = &self.chunks else { return Cow::Owned(chunk_of(self.start, self.end, chunk)) };
        match chunks.binary_search_by_key(&chunk, |(number, _)| *number) {
            Ok(at) => match &chunks[at].1 {
                Some(bits) => Cow::Borrowed(bits),
                None => Cow::Owned([u64::MAX; CHUNK_WORDS]),
            },
            Err(_) => Cow::Owned([0; CHUNK_WORDS]),
        }
    }

    /// The intervals of the set between two bytes.
    fn spans(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let (start, end) = (start.max(self.start), end.min(self.end));
        if start >= end {
            return Vec::new();
        }
        if self.chunks.is_none() {
            return vec![(start, end)];
        }
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for chunk in self.common(self, start, end) {
            let bits = self.bits(chunk);
            for at in (chunk * CHUNK_BYTES).max(start)..((chunk + 1) * CHUNK_BYTES).min(end) {
                let within = (at % CHUNK_BYTES) as usize;
                if bits[within / 64] >> (within % 64) & 1 == 1 {
                    match spans.last_mut() {
                        Some(last) if last.1 == at => last.1 += 1,
                        _ => spans.push((at, at + 1)),
                    }
                }
            }
        }
        spans
    }
}

/// Gathers chunks in ascending order, and keeps an interval as one.
#[derive(Default)]
struct Builder {
    chunks: Vec<(u64, Option<Box<Chunk>>)>,
    span: Option<(u64, u64)>,
    holes: bool,
}

impl Builder {
    fn push(&mut self, number: u64, bits: Chunk) {
        let Some(first) = bits.iter().position(|word| *word != 0) else { return };
        let last = bits.iter().rposition(|word| *word != 0).unwrap_or(first);
        let base = number * CHUNK_BYTES;
        let start = base + first as u64 * 64 + u64::from(bits[first].trailing_zeros());
        let end = base + last as u64 * 64 + 64 - u64::from(bits[last].leading_zeros());
        let count: u64 = bits.iter().map(|word| u64::from(word.count_ones())).sum();
        self.holes |= count != end - start || self.span.is_some_and(|(_, before)| before != start);
        self.span = Some((self.span.map_or(start, |(first, _)| first), end));
        self.chunks.push((number, (count != CHUNK_BYTES).then(|| Box::new(bits))));
    }

    fn finish(self) -> Ranges {
        let Some((start, end)) = self.span else { return Ranges::default() };
        Ranges { start, end, chunks: self.holes.then_some(self.chunks) }
    }
}

/// The bits of a chunk for the bytes from `start` to before `end`.
fn chunk_of(start: u64, end: u64, chunk: u64) -> Chunk {
    let base = chunk * CHUNK_BYTES;
    let (start, end) = (start.max(base), end.min(base + CHUNK_BYTES));
    let mut bits = [0; CHUNK_WORDS];
    if start < end {
        for_words(start - base, end - start, |word, mask| bits[word] |= mask);
    }
    bits
}

/// Calls with each word that holds some of these bytes' bits, and the mask of those.
fn for_words(at: u64, len: u64, mut each: impl FnMut(usize, u64)) {
    let mut at = at;
    let end = at + len;
    while at < end {
        let bit = at & 63;
        let count = (64 - bit).min(end - at);
        each((at >> 6) as usize, (u64::MAX >> (64 - count)) << bit);
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(len: u64, spans: &[(u64, u64)]) -> Marks {
        let mut marks = Marks::new(len);
        spans.iter().for_each(|(start, end)| marks.set(*start, end - start));
        marks
    }

    #[test]
    fn an_interval_is_kept_as_one_and_holes_are_kept() {
        let whole = marks(20_000, &[(5, 300), (300, 9_000), (9_000, 17_001)]).take();
        assert!(whole.chunks.is_none() && (whole.start, whole.end) == (5, 17_001));
        let holes = marks(20_000, &[(0, 4096), (8192, 8193), (12_000, 12_002)]).take();
        assert_eq!(holes.spans(0, 20_000), [(0, 4096), (8192, 8193), (12_000, 12_002)]);
        assert_eq!(holes.spans(100, 12_001), [(100, 4096), (8192, 8193), (12_000, 12_001)]);
    }

    #[test]
    fn overlap_is_exact_to_the_byte() {
        let even = marks(10_000, &(0..5_000).map(|i| (2 * i, 2 * i + 1)).collect::<Vec<_>>()).take();
        let odd = marks(10_000, &(0..5_000).map(|i| (2 * i + 1, 2 * i + 2)).collect::<Vec<_>>()).take();
        assert_eq!(even.overlap(&odd), None);
        assert_eq!(even.overlap(&Ranges::all(7_777, 7_778)), None);
        assert_eq!(even.overlap(&Ranges::all(7_777, 7_779)), Some(7_778));
        assert_eq!(Ranges::all(0, 10).overlap(&Ranges::all(10, 20)), None);
        assert_eq!(Ranges::all(0, 11).overlap(&Ranges::all(10, 20)), Some(10));
    }

    #[test]
    fn a_set_covers_what_it_has_and_no_more() {
        let even = marks(10_000, &(0..5_000).map(|i| (2 * i, 2 * i + 1)).collect::<Vec<_>>()).take();
        assert!(Ranges::all(0, 9_999).covers(&even) && !Ranges::all(0, 9_998).covers(&even));
        assert!(even.covers(&even) && !even.covers(&Ranges::all(10, 12)) && even.covers(&Ranges::all(10, 11)));
    }

    #[test]
    fn definedness_follows_a_copy() {
        let from = marks(100, &[(10, 20), (30, 40)]);
        let mut to = marks(100, &[(0, 100)]);
        to.copy_from(50, &from.within(5, 30), 5, 30);
        assert_eq!(to.take().spans(0, 100), [(0, 50), (55, 65), (75, 100)]);
        assert_eq!(from.first_missing(10, 10), None);
        assert_eq!(from.first_missing(10, 11), Some(20));
        assert_eq!(from.first_missing(0, 100), Some(0));
    }

    #[test]
    fn what_was_taken_is_gone() {
        let mut touched = marks(300_000, &[(0, 300_000)]);
        assert!(!touched.take().is_empty() && touched.take().is_empty());
    }
}
