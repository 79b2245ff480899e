// Huffman codes as look-up tables in shared memory, built from the counts and symbols of a DHT segment.
#pragma once
#include "abi.cuh"

// Bits that index a table; longer codes are found by their limits.
enum { LOOKUP_BITS = 10 };
enum { TABLES_MAX = 6 };

// Steps over the coefficients of a block that no run of zeros takes, so that they tell what they mean by the position they
// lead to: from 1..63, an end of block to 81..143, an overlong run to 64..78; bits that are no code to 192 and more.
enum { END_OF_BLOCK = 80, NO_CODE = 192 };

// One table. An entry holds, from its lowest bit: 5 bits how many bits code and value have, 4 bits how many the value has,
// then how many coefficients to step over. 0 is no entry: the code is longer than the index, or none.
struct alignas(16) Codes {
    u16 entries[1 << LOOKUP_BITS];
    u8 symbols[256];
    i32 last[16];   // the last code of each length less 1 or a shorter one, aligned to 16 bits; -1 where there is none
    u32 offset[16]; // place of a code's symbol, less the code; modulo 2^32
};

__device__ __forceinline__ u32 code_entry(u32 length, u32 symbol, bool is_dc) {
    const u32 size = symbol & 15u, run = symbol >> 4;
    // As in libjpeg, every AC symbol without value bits ends the block but ZRL, 15 zeros and a zero.
    const u32 step = size == 0 && run != 15 && !is_dc ? (u32)END_OF_BLOCK : run;
    return (length + size) | size << 5 | step << 9;
}

// The length of the code that 16 bits begin with, if it is `FROM` or more; 17 if they begin with none. The last codes of the
// lengths ascend.
template <u32 FROM, u32 TO>
__device__ __forceinline__ u32 code_length(const Codes& codes, u32 bits) {
    u32 length = FROM;
#pragma unroll
    for (u32 i = FROM; i <= TO; i++) length += (u32)(codes.last[i - 1] - (i32)bits) >> 31;
    return length;
}

// The entry of a code of `length` bits, which 16 bits begin with. Whatever the table, the symbol is one of the 256.
__device__ __forceinline__ u32 code_at(const Codes& codes, u32 bits, u32 length, bool is_dc) {
    const u32 place = (bits >> (16 - length)) + codes.offset[length - 1];
    return code_entry(length, codes.symbols[place & 255u], is_dc);
}

// The entry of a code longer than the index.
__device__ __forceinline__ u32 long_code(const Codes& codes, u32 bits, bool is_dc) {
    const u32 length = code_length<LOOKUP_BITS + 1, 16>(codes, bits);
    return length > 16 ? (u32)NO_CODE << 9 : code_at(codes, bits, length, is_dc);
}

// Last codes and offsets of one table, by one thread. A table that the host's decoder refuses is left without a code: one
// whose counts are no prefix code without the all-ones code, as libjpeg demands, or with DC sizes over 15.
__device__ __forceinline__ void build_codes(const HuffmanSpec& spec, Codes& codes, bool is_dc) {
    u32 code = 0, place = 0;
    bool is_sound = true;
#pragma unroll 1
    for (u32 length = 1; length <= 16; length++) {
        const u32 count = spec.counts[length - 1];
        codes.offset[length - 1] = place - code;
        code += count;
        place += count;
        is_sound = is_sound && (count == 0 || code < 1u << length);
        codes.last[length - 1] = (i32)(code << (16 - length)) - 1;
        code <<= 1;
    }
    is_sound = is_sound && place <= 256;
#pragma unroll 1
    for (u32 i = 0; is_dc && is_sound && i < place; i++) is_sound = spec.symbols[i] <= 15;
#pragma unroll 1
    for (u32 i = 0; i < 16 && !is_sound; i++) codes.last[i] = -1;
}

// Copies 16 of one table's symbols.
__device__ __forceinline__ void copy_symbols(const HuffmanSpec& spec, Codes& codes, u32 part) {
    ((uint4*)codes.symbols)[part] = ((const uint4*)spec.symbols)[part];
}

// Thread `thread` of `threads` fills its share of one table's entries, once its codes are there.
__device__ __forceinline__ void build_entries(Codes& codes, bool is_dc, u32 thread, u32 threads) {
#pragma unroll 2
    for (u32 index = thread; index < 1 << LOOKUP_BITS; index += threads) {
        const u32 bits = index << (16 - LOOKUP_BITS);
        const u32 length = code_length<1, LOOKUP_BITS>(codes, bits);
        codes.entries[index] = (u16)(length <= LOOKUP_BITS ? code_at(codes, bits, length, is_dc) : 0);
    }
}
