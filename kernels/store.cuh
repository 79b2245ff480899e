// Finished values in the output's element type, where the layout wants them.
#pragma once
#include "abi.cuh"

// Element types. `bits` rounds to nearest, halves to even; halves and bfloats beyond their range are infinite.
struct ElementU8 {
    typedef u8 Bits;
    static __device__ __forceinline__ u8 bits(float value) {
        // Adding 1.5 * 2^23 leaves the integer nearest to a small number in the low bits.
        const float clamped = fminf(fmaxf(value, 0.0f), 255.0f);
        return (u8)__float_as_uint(__fadd_rn(clamped, 12582912.0f));
    }
};

struct ElementF16 {
    typedef u16 Bits;
    static __device__ __forceinline__ u16 bits(float value) {
        u16 half;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
        return half;
    }
};

struct ElementBf16 {
    typedef u16 Bits;
    static __device__ __forceinline__ u16 bits(float value) {
        // Half a unit of the last place that stays, less one where that place is even. No value is NaN.
        const u32 word = __float_as_uint(value);
        return (u16)((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
    }
};

struct ElementF32 {
    typedef float Bits;
    static __device__ __forceinline__ float bits(float value) {
        return value;
    }
};

// How the elements of a row of the stored frame lie in the output, of which no image has 2^32.
struct Place {
    u32 first; // of its first element's first channel, in elements
    u32 step;  // from an element to the next
    u32 channel;
};

__device__ __forceinline__ Place place_of_row(const Image& image, u32 layout, u32 row) {
    const u32 across = image.x.output_len, down = image.y.output_len;
    const u32 pixel = layout == LAYOUT_NHWC ? 3 : 1;
    Place place;
    place.channel = layout == LAYOUT_NHWC ? 1 : across * down;
    place.step = image.transposed ? pixel * down : pixel;
    place.first = image.transposed ? pixel * row : pixel * across * row;
    return place;
}
