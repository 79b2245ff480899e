// Samples or pixels to the finished tensor: upsampling, colour, crop, resampling, normalisation, flips, layout and cast in one pass,
// a block of threads an output row. The arithmetic is that of src/augment/mod.rs.
#pragma once
#include "abi.cuh"
#include "colour.cuh"
#include "pixels.cuh"
#include "store.cuh"
#include "taps.cuh"
#include "upsample.cuh"

// Columns of the region, resampled down to one row.
struct ResizeShared {
    Image image;
    float columns[3][TILE_COLUMNS];
};

// Sums of four pixels.
struct Sums {
    float red[4], green[4], blue[4];
};

__device__ __forceinline__ void add_four(Sums& sums, float weight, u32 colour, u32 a, u32 b, u32 c) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 first = a >> 8 * i & 255u, second = b >> 8 * i & 255u, third = c >> 8 * i & 255u;
        const Pixel pixel = colour == COLOUR_RGB ? Pixel{first, second, third} : ycbcr_to_rgb(first, second, third);
        sums.red[i] = __fmaf_rn(weight, to_float(pixel.red), sums.red[i]);
        sums.green[i] = __fmaf_rn(weight, to_float(pixel.green), sums.green[i]);
        sums.blue[i] = __fmaf_rn(weight, to_float(pixel.blue), sums.blue[i]);
    }
}

// The taps of one row of the stored frame: rows of the region, and what they weigh.
struct RowTaps {
    u32 first, end;
    const float* weights;
    u32 stride;
};

// Resamples four columns of the image down to a row.
__device__ __forceinline__ Sums
resample_samples_down(const Image& image, const RowTaps& taps, const u8* samples, u32 column) {
    Sums sums = {};
    const float* weight = taps.weights;
    for (u32 row = image.region_y + taps.first; row < image.region_y + taps.end; row++, weight += taps.stride) {
        // A grey image is one with neutral chroma. The planes take their places by moving up, so that none is indexed.
        u32 a = 0x80808080u, b = a, c = a;
#pragma unroll 1
        for (u32 i = image.plane_count; i-- > 0;) {
            c = b;
            b = a;
            a = upsample_four(image.planes[i], samples, column, row);
        }
        add_four(sums, *weight, image.colour, a, b, c);
    }
    return sums;
}

// The same of an image of pixels, whose columns from `stop` on are not needed.
__device__ __forceinline__ Sums
resample_pixels_down(const Image& image, const RowTaps& taps, const u8* upload, u32 column, u32 stop) {
    Sums sums = {};
    const u32 channels = image.channels;
    const float* weight = taps.weights;
    u32 row = image.pixels + taps.first * image.row_bytes;
    for (u32 i = taps.first; i < taps.end; i++, weight += taps.stride, row += image.row_bytes) {
        const FourPixels pixels = four_pixels(upload, row + column * channels, row + stop * channels, channels);
        add_four(sums, *weight, COLOUR_RGB, pixels.red, pixels.green, pixels.blue);
    }
    return sums;
}

// Resamples a thread's columns, from `column` on, of the columns `start..stop` of the image down to a row. Pixels have a loop of
// their own, so that the samples' is as fast as if there were none.
template <bool IsPixels>
__device__ __forceinline__ void
resample_columns_down(const RowTaps& taps, const u8* data, u32 column, u32 start, u32 stop, ResizeShared& shared) {
    const Image& image = shared.image;
    for (; column < stop; column += 4 * RESIZE_THREADS) {
        const Sums sums = IsPixels ? resample_pixels_down(image, taps, data, column, stop)
                                   : resample_samples_down(image, taps, data, column);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            if (column + i < start || column + i >= stop) continue;
            shared.columns[0][column + i - start] = sums.red[i];
            shared.columns[1][column + i - start] = sums.green[i];
            shared.columns[2][column + i - start] = sums.blue[i];
        }
    }
}

// Makes the outputs `from..to` of the row that entry `entry` of y's table describes.
template <class Element>
__device__ __forceinline__ void resize_tile(
    const u8* upload, const u8* samples, u32* taps, typename Element::Bits* out, const Affine& affine, const Place& place,
    u32 entry, u32 from, u32 to, ResizeShared& shared) {
    const Image& image = shared.image;
    const Taps across = taps_of(image.x, taps), down = taps_of(image.y, taps);
    // The table runs either way.
    const u32 left = min(across.first[from], across.first[to - 1]), right = max(across.end[from], across.end[to - 1]);
    const u32 start = image.region_x + left, stop = image.region_x + right;
    // In groups that start at multiples of four.
    const u32 column = start / 4 * 4 + 4 * threadIdx.x;
    if (column < stop) {
        const RowTaps row = {down.first[entry], down.end[entry], down.weights + entry, down.stride};
        if (image.source == SOURCE_PIXELS) {
            resample_columns_down<true>(row, upload, column, start, stop, shared);
        } else {
            resample_columns_down<false>(row, samples, column, start, stop, shared);
        }
    }
    __syncthreads();
    for (u32 j = from + threadIdx.x; j < to; j += RESIZE_THREADS) {
        const u32 first = across.first[j] - left, end = across.end[j] - left;
        const float* weight = across.weights + j;
        float sums[3] = {};
        for (u32 column = first; column < end; column++, weight += across.stride) {
#pragma unroll
            for (u32 i = 0; i < 3; i++) sums[i] = __fmaf_rn(*weight, shared.columns[i][column], sums[i]);
        }
#pragma unroll
        for (u32 i = 0; i < 3; i++) {
            const float value = __fmaf_rn(sums[i], affine.factor[i], affine.addend[i]);
            out[place.first + j * place.step + i * place.channel] = Element::bits(value);
        }
    }
    __syncthreads();
}

// One block of threads, one row of one image.
template <class Element>
__device__ __forceinline__ void resize(
    const u8* upload, const Image& source, const u8* samples, u32* taps, u8* output, const Affine& affine, u32 layout,
    ResizeShared& shared) {
    for (u32 i = threadIdx.x; i < sizeof(Image) / 16; i += RESIZE_THREADS) {
        ((uint4*)&shared.image)[i] = ((const uint4*)&source)[i];
    }
    __syncthreads();
    const Image& image = shared.image;
    const u32 entry = blockIdx.x, across = image.x.output_len;
    const u32 row = image.rows_reversed ? image.y.output_len - 1 - entry : entry;
    const Place place = place_of_row(image, layout, row);
    typename Element::Bits* out = (typename Element::Bits*)(output + image.output);
    for (u32 from = 0; from < across; from += image.tile) {
        resize_tile<Element>(upload, samples, taps, out, affine, place, entry, from, min(from + image.tile, across), shared);
    }
}
