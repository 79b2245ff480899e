// Pixels as they landed: interleaved bytes at any alignment.
#pragma once
#include "abi.cuh"

// Four pixels of a row, a byte each of the three words.
struct FourPixels {
    u32 red, green, blue;
};

// The pixels from upload offset `at` on, of which those before `end` are needed. Memory gives aligned words; one that holds no
// needed byte may lie outside of what landed, and is left alone.
__device__ __forceinline__ FourPixels four_pixels(const u8* upload, u32 at, u32 end, u32 channels) {
    const u32 from = at & ~3u, shift = 8 * (at & 3u);
    u32 words[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) words[i] = from + 4 * i < end ? *(const u32*)(upload + from + 4 * i) : 0;
    const u32 a = __funnelshift_r(words[0], words[1], shift);
    if (channels == 1) return {a, a, a};
    const u32 b = __funnelshift_r(words[1], words[2], shift), c = __funnelshift_r(words[2], words[3], shift);
    // r g b r, g b r g, b r g b.
    FourPixels pixels;
    pixels.red = __byte_perm(__byte_perm(a, b, 0x0630), c, 0x5210);
    pixels.green = __byte_perm(__byte_perm(a, b, 0x0741), c, 0x6210);
    pixels.blue = __byte_perm(__byte_perm(a, b, 0x0052), c, 0x7410);
    return pixels;
}
