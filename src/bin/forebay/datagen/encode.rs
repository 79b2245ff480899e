//! A baseline JPEG encoder that keeps the unquantised coefficients, so that the quality which gives a
//! wanted size is found by counting bits instead of encoding again and again.
//!
//! The libraries at hand write optimised Huffman tables only together with one scan per component,
//! which is not how photos look. Files of a person's own pictures go through a library; these do not.

use super::huffman::HuffmanTable;

/// An image as luma and two colour differences, each centred on 0 (-128 to 127), one value a pixel.
pub struct Planes {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Y, Cb and Cr, rows without padding.
    pub planes: [Vec<f32>; 3],
}

/// How the colour planes are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsampling {
    /// 4:4:4, colour in every pixel.
    None,
    /// 4:2:0, colour halved in both directions.
    Half,
}

/// Qualities tried, on the scale of the Independent JPEG Group.
const QUALITIES: std::ops::RangeInclusive<u32> = 40..=99;
/// One block in so many is counted when a size is estimated, fewer where more than [`ESTIMATE_BLOCKS_MAX`] of a
/// component would be. Odd, so that columns are not favoured.
const ESTIMATE_STRIDE: usize = 7;
/// Blocks that tell the size of any picture.
const ESTIMATE_BLOCKS_MAX: usize = 2048;
/// Bytes of everything but the scan.
const HEADER_BYTES: u64 = 620;

/// The discrete cosine transform of an image, before quantisation.
pub struct Spectrum {
    width: usize,
    height: usize,
    components: [Component; 3],
}

struct Component {
    /// Blocks a MCU is wide and high in this component: the sampling factor.
    factor: usize,
    blocks_wide: usize,
    /// In raster order, padded to whole MCUs; each block in zigzag order.
    blocks: Vec<[f32; 64]>,
}

impl Spectrum {
    /// Transforms an image.
    pub fn new(image: &Planes, subsampling: Subsampling) -> Self {
        let Planes { width, height, planes: [y, cb, cr] } = image;
        let (width, height) = (*width, *height);
        let components = match subsampling {
            Subsampling::None => [y, cb, cr].map(|plane| Component::new(plane, width, height, 1)),
            Subsampling::Half => {
                let [cb, cr] = [cb, cr].map(|plane| halve(plane, width, height));
                let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
                [
                    Component::new(y, width, height, 2),
                    Component::new(&cb, half_width, half_height, 1),
                    Component::new(&cr, half_width, half_height, 1),
                ]
            }
        };
        Self { width, height, components }
    }

    /// The quality whose file comes nearest to `len_bytes`, within what photos use.
    pub fn quality_for(&self, len_bytes: u64) -> u8 {
        let (mut low, mut high) = (*QUALITIES.start(), *QUALITIES.end());
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.estimate_bytes(middle as u8) <= len_bytes {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        let distance = |quality: u32| self.estimate_bytes(quality as u8).abs_diff(len_bytes);
        let above = (low + 1).min(*QUALITIES.end());
        if distance(above) < distance(low) { above as u8 } else { low as u8 }
    }

    /// Writes the file. `restart_interval` is in MCUs; 0 writes no restart markers.
    pub fn encode(&self, quality: u8, restart_interval: u16) -> Vec<u8> {
        let tables = quantisation_tables(quality);
        let (tokens, frequencies) = self.tokens(&tables, restart_interval);
        let huffman = frequencies.map(|frequencies| HuffmanTable::optimal(&frequencies));
        let mut out = Vec::with_capacity(tokens.len());
        self.write_headers(&mut out, &tables, &huffman, restart_interval);
        write_scan(&mut out, &tokens, &huffman);
        out.extend([0xff, 0xd9]);
        out
    }

    fn estimate_bytes(&self, quality: u8) -> u64 {
        let tables = quantisation_tables(quality);
        let mut counter = Counter::default();
        let mut quantised = [0i16; 64];
        let blocks = self.components[0].blocks.len();
        let stride = ESTIMATE_STRIDE.max((blocks / ESTIMATE_BLOCKS_MAX) | 1);
        for (index, component) in self.components.iter().enumerate() {
            let divisors = reciprocals(&tables[index.min(1)]);
            for pair in component.blocks.windows(2).step_by(stride) {
                let before = round(pair[0][0] * divisors[0]);
                quantise(&pair[1], &divisors, &mut quantised);
                tokenise(&quantised, before, |is_ac, symbol, _, extra_bits| {
                    counter.add(index.min(1) * 2 + is_ac, symbol, extra_bits);
                });
            }
        }
        HEADER_BYTES + counter.bits() * stride as u64 / 8
    }

    /// Every symbol of the scan in order, and how often each table's symbols occur.
    fn tokens(&self, tables: &[[u8; 64]; 2], restart_interval: u16) -> (Vec<Token>, [[u32; 256]; 4]) {
        let divisors = [reciprocals(&tables[0]), reciprocals(&tables[1])];
        let mut tokens = Vec::with_capacity(self.width * self.height);
        let mut frequencies = [[0u32; 256]; 4];
        let mut before = [0i16; 3];
        let mut quantised = [0i16; 64];
        let (mcus_wide, mcus_high) = self.mcus();
        for mcu in 0..mcus_wide * mcus_high {
            if restart_interval > 0 && mcu > 0 && mcu % usize::from(restart_interval) == 0 {
                tokens.push(Token::RESTART);
                before = [0; 3];
            }
            for (index, component) in self.components.iter().enumerate() {
                for block in component.blocks_of(mcu % mcus_wide, mcu / mcus_wide) {
                    quantise(block, &divisors[index.min(1)], &mut quantised);
                    tokenise(&quantised, before[index], |is_ac, symbol, extra, extra_bits| {
                        let table = index.min(1) * 2 + is_ac;
                        frequencies[table][symbol as usize] += 1;
                        tokens.push(Token { table: table as u8, symbol, extra, extra_bits });
                    });
                    before[index] = quantised[0];
                }
            }
        }
        (tokens, frequencies)
    }

    fn mcus(&self) -> (usize, usize) {
        let side = 8 * self.components[0].factor;
        (self.width.div_ceil(side), self.height.div_ceil(side))
    }

    fn write_headers(&self, out: &mut Vec<u8>, tables: &[[u8; 64]; 2], huffman: &[HuffmanTable; 4], restart: u16) {
        out.extend([0xff, 0xd8]);
        segment(out, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
        for (number, table) in tables.iter().enumerate() {
            segment(out, 0xdb, &[&[number as u8], &table[..]].concat());
        }
        let [h1, h0] = (self.height as u16).to_be_bytes();
        let [w1, w0] = (self.width as u16).to_be_bytes();
        let luma = (self.components[0].factor as u8) * 0x11;
        segment(out, 0xc0, &[8, h1, h0, w1, w0, 3, 1, luma, 0, 2, 0x11, 1, 3, 0x11, 1]);
        for (class_and_number, table) in [0x00, 0x10, 0x01, 0x11].into_iter().zip(huffman) {
            segment(out, 0xc4, &[&[class_and_number], &table.lengths[..], &table.symbols[..]].concat());
        }
        if restart > 0 {
            segment(out, 0xdd, &restart.to_be_bytes());
        }
        segment(out, 0xda, &[3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]);
    }
}

impl Component {
    /// `factor` is the sampling factor; `width` and `height` are of this component's own plane.
    fn new(plane: &[f32], width: usize, height: usize, factor: usize) -> Self {
        let mcu = 8 * factor;
        let blocks_wide = width.div_ceil(mcu) * factor;
        let blocks_high = height.div_ceil(mcu) * factor;
        let mut blocks = Vec::with_capacity(blocks_wide * blocks_high);
        for block_y in 0..blocks_high {
            for block_x in 0..blocks_wide {
                let mut rows = [[0f32; 8]; 8];
                for (y, row) in rows.iter_mut().enumerate() {
                    let line = (block_y * 8 + y).min(height - 1) * width;
                    let left = block_x * 8;
                    if left + 8 <= width {
                        row.copy_from_slice(&plane[line + left..line + left + 8]);
                    } else {
                        // Past the edge the last pixel is repeated, which costs the fewest bits.
                        for (x, value) in row.iter_mut().enumerate() {
                            *value = plane[line + (left + x).min(width - 1)];
                        }
                    }
                }
                blocks.push(forward_dct(rows));
            }
        }
        Self { factor, blocks_wide, blocks }
    }

    /// The blocks of one MCU, left to right and top to bottom.
    fn blocks_of(&self, mcu_x: usize, mcu_y: usize) -> impl Iterator<Item = &[f32; 64]> {
        let factor = self.factor;
        (0..factor * factor).map(move |i| {
            let (x, y) = (mcu_x * factor + i % factor, mcu_y * factor + i / factor);
            &self.blocks[y * self.blocks_wide + x]
        })
    }
}

fn halve(plane: &[f32], width: usize, height: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(width.div_ceil(2) * height.div_ceil(2));
    for y in (0..height).step_by(2) {
        let (upper, lower) = (y * width, (y + 1).min(height - 1) * width);
        for x in (0..width).step_by(2) {
            let right = (x + 1).min(width - 1);
            out.push(0.25 * (plane[upper + x] + plane[upper + right] + plane[lower + x] + plane[lower + right]));
        }
    }
    out
}

/// Two passes of the eight-point transform of Arai, Agui and Nakajima ("A fast DCT-SQ scheme for
/// images", Trans. IEICE E71, 1988), all eight columns at once so that it vectorises, then the scale
/// that the scheme leaves out. The result is in zigzag order.
fn forward_dct(mut rows: [[f32; 8]; 8]) -> [f32; 64] {
    dct_columns(&mut rows);
    let mut columns = [[0f32; 8]; 8];
    for (y, row) in rows.iter().enumerate() {
        for (x, &value) in row.iter().enumerate() {
            columns[x][y] = value;
        }
    }
    dct_columns(&mut columns);
    let mut out = [0f32; 64];
    for (value, &position) in out.iter_mut().zip(&ZIGZAG) {
        let (v, u) = (position as usize / 8, position as usize % 8);
        *value = columns[u][v] * (AAN_SCALE[u] * AAN_SCALE[v]);
    }
    out
}

#[allow(clippy::needless_range_loop, reason = "a column is the same index in every row")]
fn dct_columns(rows: &mut [[f32; 8]; 8]) {
    for x in 0..8 {
        let column = |y: usize| rows[y][x];
        let (sum0, sum1, sum2, sum3) =
            (column(0) + column(7), column(1) + column(6), column(2) + column(5), column(3) + column(4));
        let (difference0, difference1, difference2, difference3) =
            (column(0) - column(7), column(1) - column(6), column(2) - column(5), column(3) - column(4));

        let (even0, even1, even2, even3) = (sum0 + sum3, sum1 + sum2, sum1 - sum2, sum0 - sum3);
        let turned = (even2 + even3) * 0.707_106_77;

        let (odd0, odd1, odd2) = (difference3 + difference2, difference2 + difference1, difference1 + difference0);
        let z5 = (odd0 - odd2) * 0.382_683_43;
        let z2 = 0.541_196_1 * odd0 + z5;
        let z4 = 1.306_563 * odd2 + z5;
        let z3 = odd1 * 0.707_106_77;
        let (z11, z13) = (difference0 + z3, difference0 - z3);

        rows[0][x] = even0 + even1;
        rows[4][x] = even0 - even1;
        rows[2][x] = even3 + turned;
        rows[6][x] = even3 - turned;
        rows[5][x] = z13 + z2;
        rows[3][x] = z13 - z2;
        rows[1][x] = z11 + z4;
        rows[7][x] = z11 - z4;
    }
}

/// `1 / (sqrt(8) * a_k)`, where `a_0 = 1` and `a_k = sqrt(2) * cos(k pi / 16)`.
const AAN_SCALE: [f32; 8] =
    [0.353_553_4, 0.254_897_8, 0.270_598_06, 0.300_672_44, 0.353_553_4, 0.449_988_1, 0.653_281_5, 1.281_457_7];

/// The row-major position of each coefficient of the zigzag order (T.81, figure 5).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Tables K.1 and K.2 of T.81 in zigzag order.
const BASE_TABLES: [[u8; 64]; 2] = [
    [
        16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51,
        61, 60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77,
        113, 121, 112, 100, 120, 92, 101, 103, 99,
    ],
    [
        17, 18, 18, 24, 21, 24, 47, 26, 26, 47, 99, 66, 56, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99,
    ],
];

/// The scaling of the Independent JPEG Group's library, which nearly every encoder follows.
fn quantisation_tables(quality: u8) -> [[u8; 64]; 2] {
    let quality = u32::from(quality);
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    BASE_TABLES.map(|table| table.map(|base| ((u32::from(base) * percent + 50) / 100).clamp(1, 255) as u8))
}

fn reciprocals(table: &[u8; 64]) -> [f32; 64] {
    table.map(|step| 1.0 / f32::from(step))
}

fn quantise(block: &[f32; 64], divisors: &[f32; 64], out: &mut [i16; 64]) {
    for ((out, &value), &divisor) in out.iter_mut().zip(block).zip(divisors) {
        *out = round(value * divisor);
    }
}

/// To the nearest, halves away from zero; within what baseline can code, since |value| <= 1024.
fn round(value: f32) -> i16 {
    (value + 0.5f32.copysign(value)).clamp(-1023.0, 1023.0) as i16
}

/// One Huffman symbol with the bits that follow it.
struct Token {
    table: u8,
    symbol: u8,
    extra: u16,
    extra_bits: u8,
}

impl Token {
    const RESTART: Self = Self { table: 255, symbol: 0, extra: 0, extra_bits: 0 };
}

/// The symbols of one block (T.81, F.1.2): `emit(is_ac, symbol, extra, extra_bits)`.
fn tokenise(block: &[i16; 64], dc_before: i16, mut emit: impl FnMut(usize, u8, u16, u8)) {
    let (extra, extra_bits) = magnitude(block[0] - dc_before);
    emit(0, extra_bits, extra, extra_bits);
    let mut run = 0u8;
    for &value in &block[1..] {
        if value == 0 {
            run += 1;
            continue;
        }
        while run > 15 {
            emit(1, 0xf0, 0, 0);
            run -= 16;
        }
        let (extra, extra_bits) = magnitude(value);
        emit(1, run << 4 | extra_bits, extra, extra_bits);
        run = 0;
    }
    if run > 0 {
        emit(1, 0x00, 0, 0);
    }
}

/// The bits that tell a value from the others of its magnitude category, and the category.
fn magnitude(value: i16) -> (u16, u8) {
    let bits = (16 - value.unsigned_abs().leading_zeros()) as u8;
    let low = if value < 0 { value - 1 } else { value };
    (low as u16 & ((1u32 << bits) - 1) as u16, bits)
}

/// What a scan of the symbols added so far would take.
struct Counter {
    frequencies: [[u32; 256]; 4],
    extra_bits: u64,
}

impl Default for Counter {
    fn default() -> Self {
        Self { frequencies: [[0; 256]; 4], extra_bits: 0 }
    }
}

impl Counter {
    fn add(&mut self, table: usize, symbol: u8, extra_bits: u8) {
        self.frequencies[table][symbol as usize] += 1;
        self.extra_bits += u64::from(extra_bits);
    }

    fn bits(&self) -> u64 {
        let codes: u64 = self.frequencies.iter().map(|f| HuffmanTable::optimal(f).total_bits(f)).sum();
        self.extra_bits + codes
    }
}

fn segment(out: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    out.extend([0xff, marker]);
    out.extend((payload.len() as u16 + 2).to_be_bytes());
    out.extend(payload);
}

fn write_scan(out: &mut Vec<u8>, tokens: &[Token], huffman: &[HuffmanTable; 4]) {
    let mut writer = BitWriter { out, pending: 0, bits: 0 };
    let mut restarts = 0u8;
    for token in tokens {
        if token.table == Token::RESTART.table {
            writer.align();
            writer.out.extend([0xff, 0xd0 + restarts % 8]);
            restarts = restarts.wrapping_add(1);
            continue;
        }
        let (code, length) = huffman[token.table as usize].codes[token.symbol as usize];
        let value = u64::from(code) << token.extra_bits | u64::from(token.extra);
        writer.put(value, u32::from(length + token.extra_bits));
    }
    writer.align();
}

struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    bits: u32,
}

impl BitWriter<'_> {
    fn put(&mut self, value: u64, bits: u32) {
        self.pending = self.pending << bits | value;
        self.bits += bits;
        while self.bits >= 8 {
            self.bits -= 8;
            let byte = (self.pending >> self.bits) as u8;
            self.out.push(byte);
            if byte == 0xff {
                // A stuffed zero tells data from a marker.
                self.out.push(0);
            }
        }
    }

    /// Fills the last byte with ones, as the standard wants.
    fn align(&mut self) {
        if self.bits > 0 {
            let missing = 8 - self.bits;
            self.put((1 << missing) - 1, missing);
        }
    }
}
