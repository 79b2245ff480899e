// The taps of an axis: which pixels each output is made of, and what they weigh. In double precision, in the order of
// operations that src/plan/axis.rs gives.
#pragma once
#include "abi.cuh"

// An axis's tables in the tap buffer.
struct Taps {
    u32 *first, *end;
    float* weights;
    u32 stride;
};

__device__ __forceinline__ Taps taps_of(const Axis& axis, u32* taps) {
    const u32 stride = (axis.output_len + 31) / 32 * 32;
    u32* first = taps + axis.tables;
    return {first, first + stride, (float*)(first + 2 * stride), stride};
}

// The weight of a tap before normalisation.
__device__ __forceinline__ double raw_weight(const Axis& axis, u32 tap, double center) {
    const double distance = __dmul_rn(__dadd_rn(__dadd_rn((double)tap, -center), 0.5), axis.per_support);
    return fmax(__dadd_rn(1.0, -fabs(distance)), 0.0);
}

// Entry `j` of the tables.
__device__ __forceinline__ void tabulate(const Axis& axis, const Taps& taps, u32 j) {
    const u64 i = axis.window_start + (axis.reversed ? axis.output_len - 1 - j : j);
    const double center = __dadd_rn(__dmul_rn(__dadd_rn((double)i, 0.5), axis.scale), axis.offset);
    const u32 first = __double2uint_rz(__dadd_rn(__dadd_rn(center, -axis.support), 0.5));
    u32 end = __double2uint_rz(fmin(__dadd_rn(__dadd_rn(center, axis.support), 0.5), axis.len));
    if (raw_weight(axis, end - 1, center) <= 0.0) end--;
    taps.first[j] = first - axis.origin;
    taps.end[j] = end - axis.origin;
    double sum = 0.0;
    for (u32 tap = first; tap < end; tap++) sum = __dadd_rn(sum, raw_weight(axis, tap, center));
    float* weight = taps.weights + j;
    for (u32 tap = first; tap < end; tap++, weight += taps.stride) {
        *weight = __double2float_rn(__ddiv_rn(raw_weight(axis, tap, center), sum));
    }
}
