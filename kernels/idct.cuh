// Dequantisation and the accurate integer inverse DCT of libjpeg ("islow": Loeffler, Ligtenberg and Moschytz, ICASSP 1989,
// in 13-bit fixed point), wrapping and saturating at 16 bits where libjpeg-turbo's SIMD code does: src/jpeg/idct/scalar.rs.
#pragma once
#include "abi.cuh"
#include "warp.cuh"

enum { IDCT_BLOCKS = IDCT_THREADS / 8 };

// Fraction bits of the constants, and those that the first pass leaves.
enum { CONST_BITS = 13, PASS1_BITS = 2 };

enum {
    F_0_298 = 2446,
    F_0_390 = 3196,
    F_0_541 = 4433,
    F_0_765 = 6270,
    F_0_899 = 7373,
    F_1_175 = 9633,
    F_1_501 = 12299,
    F_1_847 = 15137,
    F_1_961 = 16069,
    F_2_053 = 16819,
    F_2_562 = 20995,
    F_3_072 = 25172,
};

// Eight values of a row or column, each in the range of an i16.
struct Line {
    i32 at[8];
};

// 64 values in rows of eight, and room that keeps the blocks of a warp in different banks.
struct alignas(16) BlockStage {
    i16 values[64 + 8];
};

__device__ __forceinline__ i32 wrap16(i32 value) {
    return (i16)value;
}

template <u32 SHIFT>
__device__ __forceinline__ i32 descale(u32 value) {
    return min(max((i32)(value + (1u << (SHIFT - 1))) >> SHIFT, -32768), 32767);
}

// One dimension; the result loses SHIFT fraction bits, rounded, and saturates.
template <u32 SHIFT>
__device__ __forceinline__ Line transform(const Line& x) {
    const i32* v = x.at;
    // Even part.
    const u32 t2 = v[2] * F_0_541 + v[6] * (F_0_541 - F_1_847);
    const u32 t3 = v[2] * (F_0_541 + F_0_765) + v[6] * F_0_541;
    const u32 t0 = (u32)wrap16(v[0] + v[4]) << CONST_BITS;
    const u32 t1 = (u32)wrap16(v[0] - v[4]) << CONST_BITS;
    const u32 even[4] = {t0 + t3, t1 + t2, t1 - t2, t0 - t3};
    // Odd part.
    const i32 z3 = wrap16(v[7] + v[3]), z4 = wrap16(v[5] + v[1]);
    const u32 s3 = z3 * (F_1_175 - F_1_961) + z4 * F_1_175;
    const u32 s4 = z3 * F_1_175 + z4 * (F_1_175 - F_0_390);
    const u32 odd[4] = {
        (u32)(v[7] * -F_0_899 + v[1] * (F_1_501 - F_0_899)) + s4,
        (u32)(v[5] * -F_2_562 + v[3] * (F_3_072 - F_2_562)) + s3,
        (u32)(v[5] * (F_2_053 - F_2_562) + v[3] * -F_2_562) + s4,
        (u32)(v[7] * (F_0_298 - F_0_899) + v[1] * -F_0_899) + s3,
    };
    Line result;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        result.at[i] = descale<SHIFT>(even[i] + odd[i]);
        result.at[7 - i] = descale<SHIFT>(even[i] - odd[i]);
    }
    return result;
}

// Eight i16 that are 16 bytes as one.
__device__ __forceinline__ Line unpack(uint4 packed) {
    const u32 words[4] = {packed.x, packed.y, packed.z, packed.w};
    Line line;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        line.at[2 * i] = wrap16(words[i]);
        line.at[2 * i + 1] = (i32)words[i] >> 16;
    }
    return line;
}

__device__ __forceinline__ uint4 pack(const Line& line) {
    u32 words[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) words[i] = (line.at[2 * i] & 0xffff) | line.at[2 * i + 1] << 16;
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// The product as SIMD code computes it: modulo 2^16.
__device__ __forceinline__ Line dequantise(const Line& coefficients, const Line& divisors) {
    Line line;
#pragma unroll
    for (u32 i = 0; i < 8; i++) line.at[i] = wrap16(coefficients.at[i] * divisors.at[i]);
    return line;
}

// Four samples from their values around 0.
__device__ __forceinline__ u32 samples(i32 a, i32 b, i32 c, i32 d) {
    const u32 bytes[4] = {
        (u32)(min(max(a, -128), 127) + 128), (u32)(min(max(b, -128), 127) + 128),
        (u32)(min(max(c, -128), 127) + 128), (u32)(min(max(d, -128), 127) + 128),
    };
    return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24;
}

// Eight threads, a block: thread `line` brings row `line` of the coefficients, transforms column `line`, and returns row
// `line` of the samples. `stage` is theirs alone.
__device__ __forceinline__ uint2 block_row(uint4 coefficients, uint4 divisors, u32 line, BlockStage& stage) {
    // A block of one row takes a short cut that wraps where the other way saturates.
    const bool is_zero = (coefficients.x | coefficients.y | coefficients.z | coefficients.w) == 0;
    const u32 group = threadIdx.x & 24u;
    const bool is_one_row = (warp_ballot(!is_zero) >> group & 0xfeu) == 0;
    ((uint4*)stage.values)[line] = pack(dequantise(unpack(coefficients), unpack(divisors)));
    __syncwarp();
    Line column;
#pragma unroll
    for (u32 i = 0; i < 8; i++) column.at[i] = stage.values[8 * i + line];
    if (is_one_row) {
        const i32 value = wrap16(column.at[0] << PASS1_BITS);
#pragma unroll
        for (u32 i = 0; i < 8; i++) column.at[i] = value;
    } else {
        column = transform<CONST_BITS - PASS1_BITS>(column);
    }
    // Each thread writes the column that it alone read.
#pragma unroll
    for (u32 i = 0; i < 8; i++) stage.values[8 * i + line] = (i16)column.at[i];
    __syncwarp();
    const Line row = transform<CONST_BITS + PASS1_BITS + 3>(unpack(((const uint4*)stage.values)[line]));
    return make_uint2(
        samples(row.at[0], row.at[1], row.at[2], row.at[3]), samples(row.at[4], row.at[5], row.at[6], row.at[7]));
}

// Eight threads, a block of a plane's rectangle.
__device__ __forceinline__ void
inverse_dct(const u8* upload, const Image& image, const Plane& plane, const i16* coefficients, u8* out, u32 block, BlockStage& stage) {
    const u32 line = threadIdx.x & 7u, columns = plane.block_columns;
    const bool is_there = block < columns * plane.block_rows;
    const uint4 none = make_uint4(0, 0, 0, 0);
    const u64 first = (u64)64 * (plane.blocks + block) + 8 * line;
    const uint4 values = is_there ? *(const uint4*)(coefficients + first) : none;
    const uint4 divisors = *(const uint4*)(upload + image.tables + 128u * plane.quant + 16 * line);
    const uint2 row = block_row(values, divisors, line, stage);
    if (is_there) {
        const u32 y = block / columns, x = block - y * columns;
        *(uint2*)(out + plane.samples + (u64)(8 * y + line) * (8 * columns) + 8 * x) = row;
    }
}
