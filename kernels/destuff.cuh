// Takes the stuffing out of a segment's bytes and packs them into words (T.81, B.1.1.5).
#pragma once
#include "abi.cuh"
#include "warp.cuh"

// Bytes that a warp takes at a time: 16 a lane.
enum { DESTUFF_BYTES = 512 };

// A warp's bytes on their way from lanes to words: up to 3 that were left over and those of one round.
struct alignas(16) DestuffStage {
    u8 bytes[DESTUFF_BYTES + 16];
};

// Which of 16 bytes are FF and which are 0, a bit a byte.
struct Found {
    u32 ff, zero;
};

// A bit for each byte of the word that has its top bit set; `tops` has no others.
__device__ __forceinline__ u32 top_bits(u32 tops) {
    return ((tops >> 7) * 0x01020408u >> 24) & 15u;
}

__device__ __forceinline__ u32 ff_bytes(u32 word) {
    return top_bits(((word & 0x7f7f7f7fu) + 0x01010101u) & word & 0x80808080u);
}

__device__ __forceinline__ Found find(uint4 bytes) {
    Found found;
    found.ff = ff_bytes(bytes.x) | ff_bytes(bytes.y) << 4 | ff_bytes(bytes.z) << 8 | ff_bytes(bytes.w) << 12;
    found.zero = ff_bytes(~bytes.x) | ff_bytes(~bytes.y) << 4 | ff_bytes(~bytes.z) << 8 | ff_bytes(~bytes.w) << 12;
    return found;
}

// The bits of a mask of 16 below position `at`, which may lie on either side of it.
__device__ __forceinline__ u32 below(int at) {
    return (1u << min(max(at, 0), 16)) - 1u;
}

__device__ __forceinline__ u8* stage_four(u8* to, u32 word, u32 keep) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (keep >> i & 1u) *to++ = (u8)(word >> 8 * i);
    }
    return to;
}

// One warp, one segment. An FF counts with a zero behind it, which is dropped; FFs before an FF are fill bytes; an FF
// before anything else is a marker, which ends the data; where that must not be, the segment has none, and decoding it
// ends at once. Behind a segment's last byte a zero is taken to follow: the byte may be an FF shared with the next segment.
__device__ __forceinline__ void destuff(const u8* upload, const Segment& segment, u32* words, DestuffStage& stage) {
    const u32 lane = threadIdx.x & 31u;
    const u32 start = segment.byte, end = start + segment.bytes;
    const uint4 none = make_uint4(0, 0, 0, 0);
    u32* out = words + segment.words + 1;
    u32 count = 0, pending = 0, ff_before = 0;
    bool is_cut = false;
    u32 at = (start & ~15u) + 16u * lane;
    uint4 bytes = at < end ? *(const uint4*)(upload + at) : none;
    for (u32 from = start & ~15u; from < end && !is_cut; from += DESTUFF_BYTES, at += DESTUFF_BYTES) {
        const uint4 ahead = at + DESTUFF_BYTES < end ? *(const uint4*)(upload + at + DESTUFF_BYTES) : none;
        const u32 behind = 0xffffu & ~below((int)(end - at));
        const u32 inside = 0xffffu & ~below((int)(start - at)) & ~behind;
        Found found = find(bytes);
        found.ff &= inside;
        found.zero = (found.zero & inside) | behind;
        // The byte before a lane's first and the one behind its last are its neighbours'.
        u32 before = shuffle_up(found.ff >> 15, 1);
        u32 after = shuffle_down(bytes.x, 1);
        const u32 next_round = shuffle(ahead.x, 0);
        if (lane == 0) before = ff_before;
        if (lane == 31) after = next_round;
        after = at + 16 < end ? after & 0xffu : 0u;
        const u32 next_ff = found.ff >> 1 | (after == 0xffu ? 0x8000u : 0u);
        const u32 next_zero = found.zero >> 1 | (after == 0u ? 0x8000u : 0u);
        const u32 marker = inside & found.ff & ~next_ff & ~next_zero;
        u32 keep = inside & ~(found.zero & (found.ff << 1 | before)) & ~(found.ff & next_ff);
        is_cut = warp_ballot(marker != 0) != 0;
        if (is_cut) {
            const u32 cut_lane = __ffs(warp_ballot(marker != 0)) - 1;
            keep = lane < cut_lane ? keep : lane == cut_lane ? keep & ((marker & 0u - marker) - 1u) : 0u;
        }
        ff_before = shuffle(found.ff >> 15, 31);
        const u32 kept = __popc(keep), through = warp_sum_to(kept);
        u8* to = stage.bytes + pending + through - kept;
        to = stage_four(to, bytes.x, keep);
        to = stage_four(to, bytes.y, keep >> 4);
        to = stage_four(to, bytes.z, keep >> 8);
        stage_four(to, bytes.w, keep >> 12);
        __syncwarp();
        const u32 total = pending + shuffle(through, 31), full = total / 4;
        const u32* staged = (const u32*)stage.bytes;
        for (u32 i = lane; i < full; i += 32) out[count / 4 + i] = big_endian(staged[i]);
        pending = total - 4 * full;
        const u8 left_over = lane < pending ? stage.bytes[4 * full + lane] : 0;
        __syncwarp();
        // With zeros behind them, should they be the last.
        if (lane < 4) stage.bytes[lane] = left_over;
        __syncwarp();
        count += 4 * full;
        bytes = ahead;
    }
    const bool is_damaged = is_cut && segment.end != END_UNCHECKED;
    const u32 data = is_damaged ? 0u : count + pending;
    if (lane == 0) {
        out[-1] = data;
        if (pending > 0 && !is_damaged) out[count / 4] = big_endian(*(const u32*)stage.bytes);
    }
    // Two words of zeros behind the data.
    if (lane < 2) out[(data + 3) / 4 + lane] = 0;
}
