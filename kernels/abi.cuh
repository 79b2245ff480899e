// What the host and the kernels agree on. src/decode/kernels/abi.rs says the same in Rust; both sides assert the sizes.
//
// One pinned buffer a slot holds all that a batch uploads, and the device holds a buffer of the same size: an offset into
// one is an offset into the other ("upload offset", bytes from the start of either). It holds, from the front: tables and
// segments of the samples (taken downward from the images), one Image for each place in the batch, and the bytes that
// landed from storage. One copy moves the part in use.
//
// Offsets into scratch memory count from the start of the buffer named.
#pragma once

typedef unsigned char u8;
typedef signed short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef unsigned long long u64;

// Where a place of the batch gets its pixels from.
enum Source : u32 {
    SOURCE_NONE = 0,    // not from a kernel: every kernel passes it by
    SOURCE_BITS = 1,    // entropy-coded segments
    SOURCE_SAMPLES = 2, // decoded samples that another decoder left in the sample buffer: taps and resize only
    SOURCE_PIXELS = 3,  // decoded pixels that landed in the upload: taps and resize only
};

enum Colour : u32 { COLOUR_GREY = 0, COLOUR_YCBCR = 1, COLOUR_RGB = 2 };

// How a component becomes as large as the image (src/jpeg/geometry.rs, libjpeg-turbo's jdsample.c).
enum Upsampling : u8 { UPSAMPLE_NONE = 0, UPSAMPLE_H2V1 = 1, UPSAMPLE_H1V2 = 2, UPSAMPLE_H2V2 = 3, UPSAMPLE_REPEAT = 4 };

enum Layout : u32 { LAYOUT_NCHW = 0, LAYOUT_NHWC = 1 };

// What is wrong with an image; 0 is nothing. The first that any of its threads finds stays.
enum Status : u32 {
    STATUS_GOOD = 0,
    STATUS_CODE = 1,     // bits that are no Huffman code
    STATUS_INDEX = 2,    // a coefficient past the 64th
    STATUS_ENDED = 3,    // the data of a segment ended before its last MCU
    STATUS_ENTRY = 4,    // a segment did not end where, or with the DC predictions that, the next entry point says
    STATUS_MARKER = 5,   // a segment lacks a restart marker before or behind it
};

// How a Segment's data begins and ends: `MARKER + n` is at the restart marker RSTn, n = 0..7.
enum { MARKER = 8, END_UNCHECKED = 255 };

// A run of MCUs within one MCU row and one restart interval, from an entry point on. 32 bytes.
struct alignas(16) Segment {
    u32 byte;    // upload offset of its first byte
    u32 bytes;   // stuffed bytes from there to its end, at least 1; the last may be shared with the next segment. Fill bytes
                 // before what is behind it are among them, a marker there is not
    u32 words;   // place in the word buffer, in words, of its destuffed data: 1 word that says how many bytes that is (none
                 // where a marker is among them, unless `end` is END_UNCHECKED: then those before it), then
                 // the bytes, most significant first, then at least 2 words of zeros. An FF that ends the segment is one of the bytes
    u16 row;     // MCU row of the image
    u16 column;  // MCU within its row
    u16 mcus;    // MCUs to decode, at least 1
    u8 skip;     // 0..7: so many bits of its first byte belong to what is before it; MARKER + n: none, and it begins a restart
                 // interval: the two bytes before it, which have landed too, are RSTn
    u8 end;      // 0..7: so many bits of its last byte belong to the next segment, and decoding must stop there exactly, with the
                 // predictions `next_dc`; MARKER + n: it ends a restart interval, less than 8 bits are left over, and the two
                 // bytes behind it, which have landed too, are RSTn; END_UNCHECKED: decoding ends before its data does.
                 // Where what follows has a byte of its own, at 0 and MARKER + n, FFs at the segment's end are fill bytes
    i16 dc[3];      // DC predictions at its start
    i16 next_dc[3]; // and at its end
};

// One Huffman table as a DHT segment gives it. 272 bytes.
struct HuffmanSpec {
    u8 counts[16];
    u8 symbols[256];
};

// What is decoded of one component: a rectangle of its blocks. 40 bytes.
struct Plane {
    u64 samples;     // byte offset in the sample buffer of the rectangle's first sample; rows are 8 * block_columns apart
    u32 blocks;      // place in the coefficient buffer of its first block, in blocks of 64 coefficients; row-major
    u16 block_column, block_row;   // the rectangle's first block, in blocks of the component
    u16 block_columns, block_rows; // its size, at least 1
    u16 width, height;             // the component's own size in samples
    u8 h, v;                       // blocks of it in an MCU; 1 and 1 where it is alone
    u8 upsampling;                 // Upsampling
    u8 expansion_x, expansion_y;   // image columns and rows that a sample covers
    u8 quant, dc, ac;              // which of the image's tables
    u32 reserved[2];
};

// One axis of a resampling: the formulas of src/plan/axis.rs, in this order of operations, in double precision. 64 bytes.
//   i      = window_start + (reversed ? output_len - 1 - j : j)          j: entry of the table
//   center = (i + 0.5) * scale + offset
//   first  = trunc(center - support + 0.5), at least 0
//   end    = trunc(min(center + support + 0.5, len)), less 1 if raw(end - 1) <= 0
//   raw(k) = max(0, 1 - |(k - center + 0.5) * per_support|)
//   weight = (float)(raw(k) / sum), the sum over k = first, first + 1, ..
struct alignas(16) Axis {
    double scale, offset, support, per_support, len;
    u64 window_start;
    u32 output_len;
    u16 origin;      // `first` and `end` are stored less this many pixels: they count from the region's start
    u16 reversed;    // whether the table runs backwards
    u32 tables;      // place in the tap buffer, in words: first[stride], end[stride], then weights[tap * stride + j], taps_max of
                     // them; stride is output_len rounded up to 32
    u32 taps_max;    // no output has more taps
};

// One place of the batch. 320 bytes.
struct alignas(16) Image {
    Axis x, y;          // along the stored image's rows, and down its columns. Only x's table is reversed by a flip:
    Plane planes[3];    // `rows_reversed` says it of y
    u64 output;         // byte offset of its tensor in the output buffer
    u32 source;         // Source
    u32 colour;         // Colour
    u32 plane_count;    // 1 or 3
    u32 segments;       // upload offset of its first Segment, a multiple of 16
    u32 segment_count;
    u32 tables;         // upload offset of its tables, a multiple of 16: quant_count times u16[64] in natural order, then the
                        // HuffmanSpecs, DC and AC, that the planes' numbers count from 0
    u8 quant_count, table_count; // at most 3, at most 6
    u8 block_count;     // blocks of an MCU, at most 10
    u8 transposed;      // stored rows become columns of the output
    u8 rows_reversed;   // output row r is made from entry (rows - 1 - r) of y's table
    u8 reserved0[3];
    u32 region_x, region_y, region_width, region_height; // in pixels of the image: what the taps touch
    u32 tile;           // outputs along x that are made at a time, so that their taps span at most TILE_COLUMNS columns
    // Of SOURCE_PIXELS, which has no planes: interleaved bytes of each row of the region, the row's whole width.
    u32 pixels;         // upload offset, of any alignment, of the first byte of row region_y; all rows end below 2^31
    u32 row_bytes;      // from a row to the next: the image's width times the channels
    u32 channels;       // 3: red, green, blue; 1: grey, which stands for all three
};

// Columns of the region that the resize kernel holds at a time.
enum { TILE_COLUMNS = 1024 };

// Threads of a block.
enum { DESTUFF_THREADS = 256, ENTROPY_THREADS = 128, IDCT_THREADS = 256, TAPS_THREADS = 256, RESIZE_THREADS = 128 };

// Per channel: value = fma(resampled, factor, addend).
struct Affine {
    float factor[3], addend[3];
};

static_assert(sizeof(Segment) == 32, "Segment");
static_assert(sizeof(HuffmanSpec) == 272, "HuffmanSpec");
static_assert(sizeof(Plane) == 40, "Plane");
static_assert(sizeof(Axis) == 64, "Axis");
static_assert(sizeof(Image) == 320, "Image");

// The entry points. `images` is the first Image of the wave (an address on the device), `upload` the start of the device's
// copy of the upload. Grids are (x, images of the wave) unless said otherwise; x is the most that an image of the wave needs,
// and blocks with nothing to do return. `status` has one word for each image of the wave, zeroed before. Coefficients of a wave
// are zeroed before `forebay_entropy`.
//
//   forebay_destuff(const u8* upload, const Image* images, u32* words)
//       block 256: a warp a segment; x = ceil(segments / 8)
//   forebay_entropy(const u8* upload, const Image* images, const u32* words, i16* coefficients, u32* status)
//       block 128: a thread a segment; x = ceil(segments / 128)
//   forebay_idct(const u8* upload, const Image* images, const i16* coefficients, u8* samples)
//       block 256: eight threads a block; grid (ceil(blocks / 32), 3 planes, images)
//   forebay_taps(const Image* images, u32* taps)
//       block 256; grid (2 axes, images)
//   forebay_resize_u8, _f16, _bf16, _f32(const u8* upload, const Image* images, const u8* samples, const u32* taps, u8* output,
//                                        Affine, u32 layout)
//       block 128; x = the stored frame's output rows (y.output_len)
//
// Memory is read in units of up to 16 bytes, of which some may not be needed: each buffer starts at a multiple of 16 and
// is that long, and what lies in the units that segments share with other bytes, and in the last columns of a plane's
// blocks, must have been written with something, at the time of the launch.
