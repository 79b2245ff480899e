// Samples of a component at the image's resolution, four columns at a time (jdsample.c; src/jpeg/upsample/scalar.rs).
#pragma once
#include "abi.cuh"

// The samples at the ends of a component count twice, which comes to the same as libjpeg's special cases.
__device__ __forceinline__ u32 neighbour_row(const Plane& plane, u32 row, bool is_below) {
    const u32 near = row - 8 * plane.block_row;
    if (is_below) return row + 1 < plane.height ? near + 1 : near;
    return row > 0 ? near - 1 : near;
}

// Four samples of a row from one before an even one on, each in the image where that is.
struct Context {
    u32 left, a, b, right;
};

// `column` is even and counts from the rectangle's first. The neighbours are looked for in the rectangle only: it holds all
// that a pixel of the region needs, and others' values are not used.
__device__ __forceinline__ Context context(const Plane& plane, const u8* row, u32 column) {
    const u32 last = min(plane.width - 8u * plane.block_column, 8u * plane.block_columns) - 1;
    const u32 pair = *(const u16*)(row + column);
    Context samples;
    samples.left = row[column > 0 ? column - 1 : 0];
    samples.a = pair & 255u;
    // In the component's last column, what lies behind it means nothing.
    samples.b = pair >> 8;
    samples.right = row[min(column + 2, last)];
    if (column + 1 > last) samples.b = samples.a;
    return samples;
}

__device__ __forceinline__ u32 pack_bytes(u32 a, u32 b, u32 c, u32 d) {
    return a | b << 8 | c << 16 | d << 24;
}

// Twice as wide.
__device__ __forceinline__ u32 triangle_h2(Context s) {
    return pack_bytes(
        (3 * s.a + s.left + 1) >> 2, (3 * s.a + s.b + 2) >> 2, (3 * s.b + s.a + 1) >> 2, (3 * s.b + s.right + 2) >> 2);
}

// Twice as wide and high.
__device__ __forceinline__ u32 triangle_h2v2(Context near, Context far) {
    const u32 left = 3 * near.left + far.left, a = 3 * near.a + far.a;
    const u32 b = 3 * near.b + far.b, right = 3 * near.right + far.right;
    return pack_bytes((3 * a + left + 8) >> 4, (3 * a + b + 7) >> 4, (3 * b + a + 8) >> 4, (3 * b + right + 7) >> 4);
}

// Twice as high: two bytes of a word at a time, in 16 bits each.
__device__ __forceinline__ u32 triangle_v2(u32 near, u32 far, u32 bias) {
    const u32 mask = 0x00ff00ffu, both = bias * 0x00010001u;
    const u32 even = ((near & mask) * 3 + (far & mask) + both) >> 2 & mask;
    const u32 odd = ((near >> 8 & mask) * 3 + (far >> 8 & mask) + both) >> 2 & mask;
    return even | odd << 8;
}

// The samples at four columns of the image, the first of them a multiple of four, of one of its rows. Columns outside the
// region, but in the rectangle's blocks, may be anything.
__device__ __forceinline__ u32 upsample_four(const Plane& plane, const u8* samples, u32 column, u32 row) {
    const u32 stride = 8u * plane.block_columns, left = 8u * plane.block_column, top = 8u * plane.block_row;
    const u8* base = samples + plane.samples;
    const u32 upsampling = plane.upsampling;
    if (upsampling == UPSAMPLE_NONE) return *(const u32*)(base + (row - top) * stride + (column - left));
    if (upsampling == UPSAMPLE_REPEAT) {
        const u8* repeated = base + (row / plane.expansion_y - top) * stride;
        u32 bytes = 0;
#pragma unroll 1
        for (u32 i = 0; i < 4; i++) bytes |= (u32)repeated[(column + i) / plane.expansion_x - left] << 8 * i;
        return bytes;
    }
    if (upsampling == UPSAMPLE_H2V1) return triangle_h2(context(plane, base + (row - top) * stride, column / 2 - left));
    const bool is_below = row % 2;
    const u8* near = base + (row / 2 - top) * stride;
    const u8* far = base + neighbour_row(plane, row / 2, is_below) * stride;
    if (upsampling == UPSAMPLE_H1V2) {
        return triangle_v2(*(const u32*)(near + (column - left)), *(const u32*)(far + (column - left)), is_below ? 2 : 1);
    }
    return triangle_h2v2(context(plane, near, column / 2 - left), context(plane, far, column / 2 - left));
}
