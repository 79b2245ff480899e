//! What the host and the kernels agree on: kernels/abi.cuh in Rust, where every field is described.

use bytemuck::{Pod, Zeroable};

/// Places of the batch that no kernel works on.
pub const SOURCE_NONE: u32 = 0;
/// Entropy-coded segments.
pub const SOURCE_BITS: u32 = 1;
/// Decoded samples: taps and resize only.
pub const SOURCE_SAMPLES: u32 = 2;
/// Pixels in the upload: taps and resize only.
pub const SOURCE_PIXELS: u32 = 3;

/// One component.
pub const COLOUR_GREY: u32 = 0;
/// Luma and two colour differences.
pub const COLOUR_YCBCR: u32 = 1;
/// Red, green, blue.
pub const COLOUR_RGB: u32 = 2;

/// How a component becomes as large as the image.
pub const UPSAMPLE_NONE: u8 = 0;
pub const UPSAMPLE_H2V1: u8 = 1;
pub const UPSAMPLE_H1V2: u8 = 2;
pub const UPSAMPLE_H2V2: u8 = 3;
pub const UPSAMPLE_REPEAT: u8 = 4;

/// Channels, rows, columns.
pub const LAYOUT_NCHW: u32 = 0;
/// Rows, columns, channels.
pub const LAYOUT_NHWC: u32 = 1;

/// A segment begins or ends at a restart marker: this and the marker's number, 0..=7.
pub const MARKER: u8 = 8;
/// Decoding ends before the segment's data does.
pub const END_UNCHECKED: u8 = 255;

/// Columns of a region that the resize kernel holds at a time.
pub const TILE_COLUMNS: u32 = 1024;

/// Threads of a block of each kernel.
pub const DESTUFF_THREADS: u32 = 256;
pub const ENTROPY_THREADS: u32 = 128;
pub const IDCT_THREADS: u32 = 256;
pub const TAPS_THREADS: u32 = 256;
pub const RESIZE_THREADS: u32 = 128;

/// A run of MCUs from an entry point on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(16))]
pub struct Segment {
    pub byte: u32,
    pub bytes: u32,
    pub words: u32,
    pub row: u16,
    pub column: u16,
    pub mcus: u16,
    pub skip: u8,
    pub end: u8,
    pub dc: [i16; 3],
    pub next_dc: [i16; 3],
}

/// One Huffman table as a DHT segment gives it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct HuffmanSpec {
    pub counts: [u8; 16],
    pub symbols: [u8; 256],
}

/// What is decoded of one component.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Plane {
    pub samples: u64,
    pub blocks: u32,
    pub block_column: u16,
    pub block_row: u16,
    pub block_columns: u16,
    pub block_rows: u16,
    pub width: u16,
    pub height: u16,
    pub h: u8,
    pub v: u8,
    pub upsampling: u8,
    pub expansion_x: u8,
    pub expansion_y: u8,
    pub quant: u8,
    pub dc: u8,
    pub ac: u8,
    pub reserved: [u32; 2],
}

/// One axis of a resampling.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C, align(16))]
pub struct Axis {
    pub scale: f64,
    pub offset: f64,
    pub support: f64,
    pub per_support: f64,
    pub len: f64,
    pub window_start: u64,
    pub output_len: u32,
    pub origin: u16,
    pub reversed: u16,
    pub tables: u32,
    pub taps_max: u32,
}

/// One place of the batch.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C, align(16))]
pub struct Image {
    pub x: Axis,
    pub y: Axis,
    pub planes: [Plane; 3],
    pub output: u64,
    pub source: u32,
    pub colour: u32,
    pub plane_count: u32,
    pub segments: u32,
    pub segment_count: u32,
    pub tables: u32,
    pub quant_count: u8,
    pub table_count: u8,
    pub block_count: u8,
    pub transposed: u8,
    pub rows_reversed: u8,
    pub reserved0: [u8; 3],
    pub region_x: u32,
    pub region_y: u32,
    pub region_width: u32,
    pub region_height: u32,
    pub tile: u32,
    pub pixels: u32,
    pub row_bytes: u32,
    pub channels: u32,
}

/// `value = fma(resampled, factor, addend)`, per channel.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Affine {
    pub factor: [f32; 3],
    pub addend: [f32; 3],
}

const _: () = {
    assert!(size_of::<Segment>() == 32);
    assert!(size_of::<HuffmanSpec>() == 272);
    assert!(size_of::<Plane>() == 40);
    assert!(size_of::<Axis>() == 64);
    assert!(size_of::<Image>() == 320);
    assert!(size_of::<Affine>() == 24);
};
