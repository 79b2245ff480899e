// What the lanes of a warp tell each other. All 32 take part in each of these.
#pragma once
#include "abi.cuh"

enum : u32 { WARP = 0xffffffffu };

__device__ __forceinline__ u32 shuffle(u32 value, u32 lane) {
    return __shfl_sync(WARP, value, lane);
}

__device__ __forceinline__ u32 shuffle_up(u32 value, u32 lanes) {
    return __shfl_up_sync(WARP, value, lanes);
}

__device__ __forceinline__ u32 shuffle_down(u32 value, u32 lanes) {
    return __shfl_down_sync(WARP, value, lanes);
}

__device__ __forceinline__ u32 warp_ballot(bool vote) {
    return __ballot_sync(WARP, vote);
}

// The sum of the values of the lanes up to this one.
__device__ __forceinline__ u32 warp_sum_to(u32 value) {
    const u32 lane = threadIdx.x & 31u;
#pragma unroll
    for (u32 step = 1; step < 32; step *= 2) {
        const u32 below = shuffle_up(value, step);
        if (lane >= step) value += below;
    }
    return value;
}

// A word whose first byte in memory becomes the most significant.
__device__ __forceinline__ u32 big_endian(u32 word) {
    return __byte_perm(word, 0, 0x0123);
}
