// Symbols to coefficients: the sequential Huffman decoder (T.81, F.2.2), one thread a segment.
#pragma once
#include "abi.cuh"
#include "huffman.cuh"

enum { MCU_BLOCKS_MAX = 10 };

// A block of an MCU: whose it is and where it lies in its plane's rectangle.
struct alignas(16) McuBlock {
    u32 x, y;          // in the MCU, less the rectangle's first block; modulo 2^32
    u32 h, v;          // blocks from an MCU to the next
    u32 columns, rows; // size of the rectangle
    u32 blocks;        // its first block in the coefficient buffer
    u16 component;
    u8 dc, ac;
};

struct EntropyShared {
    Codes codes[TABLES_MAX];
    McuBlock blocks[MCU_BLOCKS_MAX];
    i32 predictions[3][ENTROPY_THREADS];
    u8 positions[64]; // natural order of the coefficients by zigzag order
};

// The place in zigzag order of the coefficient at a natural (row-major) position (T.81, figure A.6): diagonal after
// diagonal, the odd ones downward; the second half is the first turned round.
__device__ __forceinline__ u32 zigzag(u32 position) {
    const bool is_second = (position >> 3) + (position & 7u) > 7;
    const u32 turned = is_second ? 63u - position : position;
    const u32 row = turned >> 3, column = turned & 7u, diagonal = row + column;
    const u32 place = diagonal * (diagonal + 1) / 2 + (diagonal % 2 ? row : column);
    return is_second ? 63u - place : place;
}

// The blocks of an image's MCU, in the order of the scan.
__device__ __forceinline__ void list_blocks(const Image& image, McuBlock* blocks) {
    u32 count = 0;
#pragma unroll 1
    for (u32 component = 0; component < image.plane_count; component++) {
        const Plane& plane = image.planes[component];
#pragma unroll 1
        for (u32 i = 0; i < (u32)plane.h * plane.v && count < MCU_BLOCKS_MAX; i++) {
            McuBlock& block = blocks[count++];
            block.x = i % plane.h - plane.block_column;
            block.y = i / plane.h - plane.block_row;
            block.h = plane.h;
            block.v = plane.v;
            block.columns = plane.block_columns;
            block.rows = plane.block_rows;
            block.blocks = plane.blocks;
            block.component = (u16)component;
            block.dc = plane.dc;
            block.ac = plane.ac;
        }
    }
}

__device__ __forceinline__ bool is_dc_table(const Image& image, u32 table) {
    bool is_dc = false;
    for (u32 i = 0; i < image.plane_count; i++) is_dc = is_dc || image.planes[i].dc == table;
    return is_dc;
}

// All of a block of threads: what its segments share.
__device__ __forceinline__ void prepare(const u8* upload, const Image& image, EntropyShared& shared) {
    const u32 thread = threadIdx.x, tables = image.table_count;
    const HuffmanSpec* specs = (const HuffmanSpec*)(upload + image.tables + 128u * image.quant_count);
    if (thread < tables) build_codes(specs[thread], shared.codes[thread], is_dc_table(image, thread));
    if (thread == 32) list_blocks(image, shared.blocks);
    if (thread >= 64) shared.positions[zigzag(thread - 64)] = (u8)(thread - 64);
#pragma unroll 1
    for (u32 i = thread; i < 16 * tables; i += ENTROPY_THREADS) copy_symbols(specs[i / 16], shared.codes[i / 16], i % 16);
    __syncthreads();
#pragma unroll 1
    for (u32 i = 0; i < tables; i++) build_entries(shared.codes[i], is_dc_table(image, i), thread, ENTROPY_THREADS);
    __syncthreads();
}

// A segment's bits from the next on: the top of `high:low` shifted by `position`.
struct Bits {
    const u32* data;
    u32 high, low, next; // three words in a row; the last is there early, so that its way from memory is not waited for
    u32 position;        // bits of `high` that were used; up to 31 more before a refill
    u32 at, end;         // the word behind `next`, and the end of the data and the zeros behind it

    __device__ __forceinline__ Bits(const u32* words, u32 bytes, u32 skip) {
        data = words;
        end = (bytes + 3) / 4 + 2;
        high = data[0];
        low = data[1];
        next = end > 2 ? data[2] : 0;
        at = 3;
        position = skip;
    }

    // Makes 32 bits available: behind the end, zeros.
    __device__ __forceinline__ void refill() {
        if (position < 32) return;
        high = low;
        low = next;
        next = at < end ? data[at] : 0;
        at++;
        position -= 32;
    }

    __device__ __forceinline__ u32 top() const {
        return __funnelshift_l(low, high, position);
    }

    // Bits used since the start of the data.
    __device__ __forceinline__ u32 used() const {
        return 32 * (at - 3) + position;
    }
};

// The value whose `size` bits are at the top (T.81, figure F.12).
__device__ __forceinline__ i32 extend(u32 top, u32 size) {
    const i32 value = (i32)(top >> 1 >> (31 - size));
    return (i32)top < 0 ? value : value + 1 - (1 << size);
}

// Where a block of an MCU of the segment's row goes, as a place in the coefficient buffer.
struct BlockPlace {
    u32 first;
    u32 limit; // how many coefficients are stored: none where the block is outside its plane's rectangle
};

__device__ __forceinline__ BlockPlace place_of(const McuBlock& block, u32 column, u32 row) {
    const u32 x = column * block.h + block.x, y = row * block.v + block.y;
    const bool is_inside = x < block.columns && y < block.rows;
    return {64 * (block.blocks + y * block.columns + x), is_inside ? 64u : 0u};
}

// Whether decoding ended where, and with the predictions that, the segment says.
__device__ __forceinline__ Status
check_end(const Segment& segment, u32 used, u32 bits, const i32 (&predictions)[3][ENTROPY_THREADS]) {
    if (segment.end == END_UNCHECKED) return STATUS_GOOD;
    if (segment.end >= MARKER) return bits - used < 8 ? STATUS_GOOD : STATUS_ENTRY;
    bool is_same = used + segment.end == bits;
#pragma unroll
    for (u32 i = 0; i < 3; i++) is_same = is_same && (i16)predictions[i][threadIdx.x] == segment.next_dc[i];
    return is_same ? STATUS_GOOD : STATUS_ENTRY;
}

// One thread, the MCUs of one segment. Symbols of all kinds go through the same code, one a turn, so that the threads of a
// warp stay together however their blocks lie; a loop with one way back, since of two the compiler makes a loop in a loop,
// at whose end threads wait for the longest block. Positions and tables are masked or bounded by construction: no bits lead
// outside, and every turn brings a block nearer to its end.
__device__ __forceinline__ Status
decode_mcus(const Segment& segment, Bits& bits, u32 block_count, EntropyShared& shared, i16* coefficients) {
    u32 column = segment.column, mcus = segment.mcus, in_mcu = 0, position = 0;
    BlockPlace place = place_of(shared.blocks[0], column, segment.row);
    u32 table = shared.blocks[0].dc, ac = shared.blocks[0].ac, component = 0;
    Status found = STATUS_GOOD;
    bool is_running = true;
    do {
        bits.refill();
        const u32 top = bits.top();
        const Codes& codes = shared.codes[table];
        u32 entry = codes.entries[top >> (32 - LOOKUP_BITS)];
        if (entry == 0) entry = long_code(codes, top >> 16, position == 0);
        const u32 count = entry & 31u, size = entry >> 5 & 15u;
        i32 value = extend(top << (count - size), size);
        bits.position += count;
        if (position == 0) {
            i32& prediction = shared.predictions[component][threadIdx.x];
            value += prediction;
            prediction = value;
        }
        position += entry >> 9;
        if (position < place.limit) coefficients[place.first + shared.positions[position]] = (i16)value;
        table = ac;
        if (position++ >= 63) {
            // One more than where the symbol led.
            if (position > 64 && position <= END_OF_BLOCK) found = STATUS_INDEX;
            if (position > NO_CODE) found = STATUS_CODE;
            const bool is_last = ++in_mcu == block_count;
            in_mcu = is_last ? 0 : in_mcu;
            column += is_last;
            mcus -= is_last;
            is_running = found == STATUS_GOOD && mcus > 0 && bits.at <= bits.end + 1;
            const McuBlock& block = shared.blocks[in_mcu];
            place = place_of(block, column, segment.row);
            component = block.component;
            table = block.dc;
            ac = block.ac;
            position = 0;
        }
    } while (is_running);
    return found;
}

// Whether the restart marker RSTn lies at an upload offset.
__device__ __forceinline__ bool is_marker(const u8* upload, u32 at, u32 number) {
    return upload[at] == 0xffu && upload[at + 1] == 0xd0u + number;
}

// Whether a segment that ends so is the last of its restart interval.
__device__ __forceinline__ bool is_at_marker(u32 end) {
    return end - MARKER < 8u;
}

// Whether the restart markers that are due around a segment are there.
__device__ __forceinline__ bool has_markers(const u8* upload, const Segment& segment) {
    const u32 behind = segment.byte + segment.bytes;
    if (segment.skip >= MARKER && !is_marker(upload, segment.byte - 2, segment.skip - MARKER)) return false;
    return !is_at_marker(segment.end) || is_marker(upload, behind, segment.end - MARKER);
}

// Bytes of a segment's data, of which so many were left when the stuffing was taken out. An FF with nothing behind it was
// taken for data; it is the last of the fill bytes where what follows does not share it.
__device__ __forceinline__ u32 data_bytes(const u8* upload, const Segment& segment, u32 bytes) {
    const bool is_shared = segment.end != 0 && !is_at_marker(segment.end);
    if (is_shared || bytes == 0) return bytes;
    return upload[segment.byte + segment.bytes - 1] == 0xffu ? bytes - 1 : bytes;
}

// One thread, one segment. The bytes around its data are looked at here and not by the host, which may not have them.
__device__ __forceinline__ Status decode(
    const u8* upload, const Segment& segment, const u32* words, u32 block_count, EntropyShared& shared, i16* coefficients) {
    if (!has_markers(upload, segment)) return STATUS_MARKER;
    const u32 bytes = data_bytes(upload, segment, words[segment.words]);
#pragma unroll
    for (u32 i = 0; i < 3; i++) shared.predictions[i][threadIdx.x] = segment.dc[i];
    Bits bits(words + segment.words + 1, bytes, segment.skip < MARKER ? segment.skip : 0);
    const Status found = decode_mcus(segment, bits, block_count, shared, coefficients);
    // What was made of what is behind the end means nothing.
    if (bits.used() > 8 * bytes) return STATUS_ENDED;
    return found == STATUS_GOOD ? check_end(segment, bits.used(), 8 * bytes, shared.predictions) : found;
}
