// Samples to red, green and blue (jdcolor.c, `ycc_rgb_convert`; src/jpeg/colour/scalar.rs).
#pragma once
#include "abi.cuh"

// 1.40200, 0.34414, 0.28586 and 1.77200 in 16 fraction bits. Green takes 0.71414 of red chroma off: all of it, less 0.28586.
// So its two factors have 16 bits; NVRTC 12.0 makes a dot product of 16-bit numbers (dp2a) of the sum even where they do not.
enum { CR_TO_R = 91881, CB_TO_G = -22554, CR_BACK_TO_G = 18734, CB_TO_B = 116130, HALF = 1 << 15 };

struct Pixel {
    u32 red, green, blue;
};

__device__ __forceinline__ u32 clamp_to_byte(i32 value) {
    return (u32)min(max(value, 0), 255);
}

__device__ __forceinline__ Pixel ycbcr_to_rgb(u32 luma, u32 cb, u32 cr) {
    // Chroma counts from 128; that product is part of the constant.
    const i32 y = (i32)luma, b = (i32)cb, r = (i32)cr;
    const i32 to_green = b * CB_TO_G + r * CR_BACK_TO_G + (HALF - 128 * (CB_TO_G + CR_BACK_TO_G));
    Pixel pixel;
    pixel.red = clamp_to_byte(y + ((r * CR_TO_R + (HALF - 128 * CR_TO_R)) >> 16));
    pixel.green = clamp_to_byte(y - (r - 128) + (to_green >> 16));
    pixel.blue = clamp_to_byte(y + ((b * CB_TO_B + (HALF - 128 * CB_TO_B)) >> 16));
    return pixel;
}

// A byte's value as a float: as the low bits of 2^23, which is then taken off. Full speed where a conversion is a quarter.
__device__ __forceinline__ float to_float(u32 byte) {
    return __fadd_rn(__uint_as_float(0x4b000000u | byte), -8388608.0f);
}
