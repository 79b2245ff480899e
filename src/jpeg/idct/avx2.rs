//! Two blocks at a time, one in each half of the registers.

use std::arch::x86_64::*;

use super::*;

#[target_feature(enable = "avx2")]
pub fn blocks_to_rows(blocks: &[Block], last: &[u8], quant: &QuantTable, out: &mut [u8], stride: usize) {
    for (i, (pair, last)) in blocks.chunks(2).zip(last.chunks(2)).enumerate() {
        let out = &mut out[16 * i..];
        let second = pair.len() - 1;
        if last[0] | last[second] == 0 {
            flat_pair(flat_sample(&pair[0], quant), flat_sample(&pair[second], quant), out, stride);
        } else {
            block_pair(&pair[0], &pair[second], quant, out, stride);
        }
    }
}

#[target_feature(enable = "avx2")]
fn flat_pair(first: u8, second: u8, out: &mut [u8], stride: usize) {
    let row = _mm_unpacklo_epi64(_mm_set1_epi8(first as i8), _mm_set1_epi8(second as i8));
    for y in 0..8 {
        store(&mut out[y * stride..], row);
    }
}

#[target_feature(enable = "avx2")]
fn block_pair(first: &Block, second: &Block, quant: &QuantTable, out: &mut [u8], stride: usize) {
    let mut rows = [_mm256_setzero_si256(); 8];
    for (y, row) in rows.iter_mut().enumerate() {
        // SAFETY: 8 values of 16 bits at 8 * y <= 56 lie inside the 64 of a block and of a table.
        let (coefficients, divisors) = unsafe {
            let load = |values: *const i16| _mm_loadu_si128(values.add(8 * y).cast());
            (
                _mm256_set_m128i(load(second.0.as_ptr()), load(first.0.as_ptr())),
                _mm256_broadcastsi128_si256(load(quant.0.as_ptr().cast())),
            )
        };
        *row = _mm256_mullo_epi16(coefficients, divisors);
    }
    // Where a first row would overflow by two bits, the short cut for blocks of one row comes out differently.
    let shifted = _mm256_srai_epi16(_mm256_slli_epi16(rows[0], PASS1_BITS as i32), PASS1_BITS as i32);
    let is_exact = _mm256_cmpeq_epi16(shifted, rows[0]);
    if _mm256_movemask_epi8(is_exact) != -1 {
        scalar::block(first, quant, out, stride);
        scalar::block(second, quant, &mut out[8..], stride);
        return;
    }
    let rows = transpose(transform::<{ (CONST_BITS - PASS1_BITS) as i32 }>(rows));
    let rows = transpose(transform::<{ (CONST_BITS + PASS1_BITS + 3) as i32 }>(rows));
    let centre = _mm256_set1_epi8(-128);
    for y in 0..4 {
        let samples = _mm256_xor_si256(_mm256_packs_epi16(rows[2 * y], rows[2 * y + 1]), centre);
        let samples = _mm256_permute4x64_epi64::<0b11_01_10_00>(samples);
        store(&mut out[2 * y * stride..], _mm256_castsi256_si128(samples));
        store(&mut out[(2 * y + 1) * stride..], _mm256_extracti128_si256::<1>(samples));
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(out: &mut [u8], samples: __m128i) {
    let out = &mut out[..16];
    // SAFETY: the slice was just checked to hold 16 bytes.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), samples) }
}

/// One dimension of two blocks, along the register index.
#[target_feature(enable = "avx2")]
#[inline]
fn transform<const SHIFT: i32>(x: [__m256i; 8]) -> [__m256i; 8] {
    let sum = _mm256_add_epi16(x[0], x[4]);
    let difference = _mm256_sub_epi16(x[0], x[4]);
    let z3 = _mm256_add_epi16(x[7], x[3]);
    let z4 = _mm256_add_epi16(x[5], x[1]);
    let zero = _mm256_setzero_si256();
    let low = half::<SHIFT>(
        _mm256_unpacklo_epi16(zero, sum),
        _mm256_unpacklo_epi16(zero, difference),
        _mm256_unpacklo_epi16(x[2], x[6]),
        _mm256_unpacklo_epi16(z3, z4),
        _mm256_unpacklo_epi16(x[7], x[1]),
        _mm256_unpacklo_epi16(x[5], x[3]),
    );
    let high = half::<SHIFT>(
        _mm256_unpackhi_epi16(zero, sum),
        _mm256_unpackhi_epi16(zero, difference),
        _mm256_unpackhi_epi16(x[2], x[6]),
        _mm256_unpackhi_epi16(z3, z4),
        _mm256_unpackhi_epi16(x[7], x[1]),
        _mm256_unpackhi_epi16(x[5], x[3]),
    );
    let mut out = [zero; 8];
    for i in 0..8 {
        out[i] = _mm256_packs_epi32(low[i], high[i]);
    }
    out
}

/// One dimension of four of each block's eight lines, in 32 bits. `sum` and `difference` are in the upper
/// halves of the lanes, the others interleaved with what they are multiplied along with.
#[target_feature(enable = "avx2")]
#[inline]
fn half<const SHIFT: i32>(
    sum: __m256i,
    difference: __m256i,
    x26: __m256i,
    z34: __m256i,
    x71: __m256i,
    x53: __m256i,
) -> [__m256i; 8] {
    const UPPER_TO_FIXED: i32 = 16 - CONST_BITS as i32;
    let rounding = _mm256_set1_epi32(1 << (SHIFT - 1));
    let t0 = _mm256_add_epi32(_mm256_srai_epi32::<UPPER_TO_FIXED>(sum), rounding);
    let t1 = _mm256_add_epi32(_mm256_srai_epi32::<UPPER_TO_FIXED>(difference), rounding);
    let t2 = madd(x26, F_0_541, F_0_541 - F_1_847);
    let t3 = madd(x26, F_0_541 + F_0_765, F_0_541);
    let even = [_mm256_add_epi32(t0, t3), _mm256_add_epi32(t1, t2), _mm256_sub_epi32(t1, t2), _mm256_sub_epi32(t0, t3)];
    let s3 = madd(z34, F_1_175 - F_1_961, F_1_175);
    let s4 = madd(z34, F_1_175, F_1_175 - F_0_390);
    let odd = [
        _mm256_add_epi32(madd(x71, -F_0_899, F_1_501 - F_0_899), s4),
        _mm256_add_epi32(madd(x53, -F_2_562, F_3_072 - F_2_562), s3),
        _mm256_add_epi32(madd(x53, F_2_053 - F_2_562, -F_2_562), s4),
        _mm256_add_epi32(madd(x71, F_0_298 - F_0_899, -F_0_899), s3),
    ];
    let mut out = [rounding; 8];
    for i in 0..4 {
        out[i] = _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(even[i], odd[i]));
        out[7 - i] = _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(even[i], odd[i]));
    }
    out
}

#[target_feature(enable = "avx2")]
#[inline]
pub fn madd(pairs: __m256i, first: i16, second: i16) -> __m256i {
    let factors = u32::from(first as u16) | u32::from(second as u16) << 16;
    _mm256_madd_epi16(pairs, _mm256_set1_epi32(factors as i32))
}

/// Transposes both 8x8 blocks.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose(r: [__m256i; 8]) -> [__m256i; 8] {
    let mut a = r;
    for i in 0..4 {
        a[2 * i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    let mut b = a;
    for i in [0, 4] {
        b[i] = _mm256_unpacklo_epi32(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi32(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi32(a[i + 1], a[i + 3]);
    }
    let mut out = b;
    for i in 0..4 {
        out[2 * i] = _mm256_unpacklo_epi64(b[i], b[i + 4]);
        out[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 4]);
    }
    out
}
