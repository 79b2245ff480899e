// The entry points; abi.cuh says what they are given. The work is in the files included here.
#include "abi.cuh"
#include "destuff.cuh"
#include "entropy.cuh"
#include "idct.cuh"
#include "resize.cuh"
#include "taps.cuh"

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

KERNEL(DESTUFF_THREADS)
forebay_destuff(const u8* upload, const Image* images, u32* words) {
    __shared__ DestuffStage stages[DESTUFF_THREADS / 32];
    const Image& image = images[blockIdx.y];
    const u32 warp = threadIdx.x / 32, index = blockIdx.x * (DESTUFF_THREADS / 32) + warp;
    if (image.source != SOURCE_BITS || index >= image.segment_count) return;
    destuff(upload, ((const Segment*)(upload + image.segments))[index], words, stages[warp]);
}

KERNEL(ENTROPY_THREADS)
forebay_entropy(const u8* upload, const Image* images, const u32* words, i16* coefficients, u32* status) {
    __shared__ EntropyShared shared;
    const Image& image = images[blockIdx.y];
    const u32 index = blockIdx.x * ENTROPY_THREADS + threadIdx.x;
    if (image.source != SOURCE_BITS || blockIdx.x * ENTROPY_THREADS >= image.segment_count) return;
    prepare(upload, image, shared);
    if (index >= image.segment_count) return;
    const Segment segment = ((const Segment*)(upload + image.segments))[index];
    const Status found = decode(upload, segment, words, image.block_count, shared, coefficients);
    if (found != STATUS_GOOD) atomicCAS(status + blockIdx.y, (u32)STATUS_GOOD, (u32)found);
}

KERNEL(IDCT_THREADS)
forebay_idct(const u8* upload, const Image* images, const i16* coefficients, u8* samples) {
    __shared__ BlockStage stages[IDCT_BLOCKS];
    const Image& image = images[blockIdx.z];
    if (image.source != SOURCE_BITS || blockIdx.y >= image.plane_count) return;
    const Plane& plane = image.planes[blockIdx.y];
    const u32 in_group = threadIdx.x / 8, block = blockIdx.x * IDCT_BLOCKS + in_group;
    if (blockIdx.x * IDCT_BLOCKS >= (u32)plane.block_columns * plane.block_rows) return;
    inverse_dct(upload, image, plane, coefficients, samples, block, stages[in_group]);
}

KERNEL(TAPS_THREADS)
forebay_taps(const Image* images, u32* taps) {
    const Image& image = images[blockIdx.y];
    if (image.source == SOURCE_NONE) return;
    const Axis& axis = blockIdx.x == 0 ? image.x : image.y;
    const Taps tables = taps_of(axis, taps);
    for (u32 j = threadIdx.x; j < axis.output_len; j += TAPS_THREADS) tabulate(axis, tables, j);
}

#define RESIZE(name, Element)                                                                                          \
    KERNEL(RESIZE_THREADS)                                                                                             \
    name(const u8* upload, const Image* images, const u8* samples, u32* taps, u8* output, Affine affine, u32 layout) { \
        __shared__ ResizeShared shared;                                                                                \
        const Image& image = images[blockIdx.y];                                                                       \
        if (image.source == SOURCE_NONE || blockIdx.x >= image.y.output_len) return;                                   \
        resize<Element>(upload, image, samples, taps, output, affine, layout, shared);                                 \
    }

RESIZE(forebay_resize_u8, ElementU8)
RESIZE(forebay_resize_f16, ElementF16)
RESIZE(forebay_resize_bf16, ElementBf16)
RESIZE(forebay_resize_f32, ElementF32)
