//! Huffman tables made for one image, as photo editors and `jpegtran -optimize` write them.

/// A table as the DHT segment holds it, and its codes by symbol.
pub struct HuffmanTable {
    /// How many codes there are of each length from 1 to 16 bits (BITS).
    pub lengths: [u8; 16],
    /// The symbols by increasing code length (HUFFVAL).
    pub symbols: Vec<u8>,
    /// Code and length in bits of every symbol; length 0 where the symbol has no code.
    pub codes: [(u16, u8); 256],
}

impl HuffmanTable {
    /// The shortest code for symbols of these frequencies, no code longer than 16 bits and none all
    /// ones: ITU-T T.81, Annex K.2 (figures K.1 to K.4).
    pub fn optimal(frequencies: &[u32; 256]) -> Self {
        let sizes = code_sizes(frequencies);
        let mut by_length = [0u32; 257];
        for &size in &sizes {
            by_length[size as usize] += 1;
        }
        limit_lengths(&mut by_length);

        let mut symbols: Vec<u8> = (0..=255u8).filter(|&symbol| sizes[symbol as usize] > 0).collect();
        symbols.sort_by_key(|&symbol| sizes[symbol as usize]);
        let mut table = Self { lengths: [0; 16], symbols, codes: [(0, 0); 256] };
        let (mut code, mut next) = (0u16, 0);
        for length in 1..=16u8 {
            let count = by_length[length as usize];
            table.lengths[length as usize - 1] = count as u8;
            for _ in 0..count {
                table.codes[table.symbols[next] as usize] = (code, length);
                code += 1;
                next += 1;
            }
            code <<= 1;
        }
        table
    }

    /// The bits that symbols of these frequencies take, without the bits that follow each.
    pub fn total_bits(&self, frequencies: &[u32; 256]) -> u64 {
        frequencies.iter().zip(&self.codes).map(|(&n, &(_, length))| u64::from(n) * u64::from(length)).sum()
    }
}

/// Figure K.1: the length of each symbol's code, the 257th standing for the code of all ones that must
/// stay free.
fn code_sizes(frequencies: &[u32; 256]) -> [u32; 257] {
    let mut weight = [0u64; 257];
    for (weight, &n) in weight.iter_mut().zip(frequencies) {
        *weight = u64::from(n);
    }
    weight[256] = 1;
    let mut sizes = [0u32; 257];
    let mut next: [Option<usize>; 257] = [None; 257];
    // The two least frequent trees, the larger symbol first where they tie, as the standard says.
    while let Some(least) = rarest(&weight, None) {
        let Some(second) = rarest(&weight, Some(least)) else { break };
        weight[least] += weight[second];
        weight[second] = 0;
        let mut tail = deepen(least, &mut sizes, &next);
        next[tail] = Some(second);
        tail = second;
        deepen(tail, &mut sizes, &next);
    }
    sizes
}

fn rarest(weight: &[u64; 257], except: Option<usize>) -> Option<usize> {
    (0..257).rev().filter(|&i| weight[i] > 0 && Some(i) != except).min_by_key(|&i| weight[i])
}

/// Moves a tree one level down and returns its last symbol.
fn deepen(mut symbol: usize, sizes: &mut [u32; 257], next: &[Option<usize>; 257]) -> usize {
    sizes[symbol] += 1;
    while let Some(following) = next[symbol] {
        symbol = following;
        sizes[symbol] += 1;
    }
    symbol
}

/// Figures K.3 and K.4: shortens codes beyond 16 bits, then takes the reserved code away.
fn limit_lengths(by_length: &mut [u32; 257]) {
    for length in (17..257).rev() {
        while by_length[length] > 0 {
            let mut shorter = length - 2;
            while by_length[shorter] == 0 {
                shorter -= 1;
            }
            by_length[length] -= 2;
            by_length[length - 1] += 1;
            by_length[shorter + 1] += 2;
            by_length[shorter] -= 1;
        }
    }
    let longest = (1..=16).rev().find(|&length| by_length[length] > 0);
    if let Some(longest) = longest {
        by_length[longest] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kraft's sum in 1/65536: below one whole, since the code of all ones stays free.
    fn kraft(table: &HuffmanTable) -> u32 {
        table.lengths.iter().zip(1..).map(|(&n, length)| u32::from(n) << (16 - length)).sum()
    }

    #[test]
    fn every_symbol_that_occurs_has_a_code_of_at_most_16_bits() {
        // Fibonacci weights make the deepest tree there is, so the limit must bite.
        let mut frequencies = [0u32; 256];
        let (mut a, mut b) = (1u32, 1u32);
        for frequency in frequencies.iter_mut().take(40) {
            *frequency = a;
            (a, b) = (b, a + b);
        }
        let table = HuffmanTable::optimal(&frequencies);
        assert_eq!(table.symbols.len(), 40);
        assert_eq!(table.lengths.iter().map(|&n| usize::from(n)).sum::<usize>(), 40);
        assert!(kraft(&table) < 1 << 16, "the code of all ones must stay free");
        assert!((0..40).all(|symbol| (1..=16).contains(&table.codes[symbol].1)));
        assert!(table.codes[39].1 < table.codes[20].1, "the more frequent symbol has the shorter code");
    }

    #[test]
    fn a_single_symbol_takes_one_bit() {
        let mut frequencies = [0u32; 256];
        frequencies[7] = 9;
        let table = HuffmanTable::optimal(&frequencies);
        assert_eq!(table.codes[7], (0, 1));
        assert_eq!(table.total_bits(&frequencies), 9);
    }
}
