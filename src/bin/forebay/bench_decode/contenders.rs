//! The decoders that are compared, behind one face.

use std::ops::Range;

use anyhow::anyhow;
use forebay::Rect;
use forebay::jpeg::{self, Grain, Header, Piece};
use forebay::pixels::{ROW_PADDING_BYTES, RowSink};

use super::samples::{Index, Sample};

/// The reference first.
pub const ALL: &[Contender] = &[
    Contender { decoder: "forebay", work: Work::Whole, library: None },
    Contender { decoder: "forebay", work: Work::Crop, library: None },
    Contender { decoder: "forebay", work: Work::IndexedCrop, library: None },
    Contender { decoder: "forebay", work: Work::Index, library: None },
    Contender { decoder: "libjpeg-turbo-rs", work: Work::Whole, library: Some(libraries::turbo) },
    Contender { decoder: "libjpeg-turbo-rs", work: Work::Crop, library: Some(libraries::turbo) },
    #[cfg(feature = "bench-peers")]
    Contender { decoder: "zune-jpeg", work: Work::Whole, library: Some(libraries::zune) },
    #[cfg(feature = "bench-peers")]
    Contender { decoder: "jpeg-decoder", work: Work::Whole, library: Some(libraries::jpeg_decoder) },
];

/// What this build cannot compare.
pub const MISSING: &str = if cfg!(feature = "bench-peers") {
    ""
} else {
    "zune-jpeg, jpeg-decoder and the vector code of libjpeg-turbo-rs are not compiled in: build with --features bench-peers"
};

/// A decoder and what it is asked for.
#[derive(Clone, Copy)]
pub struct Contender {
    pub decoder: &'static str,
    pub work: Work,
    /// Ours where there is none.
    library: Option<Library>,
}

/// What is done with a sample.
#[derive(Clone, Copy, PartialEq)]
pub enum Work {
    /// All of it is decoded.
    Whole,
    /// A crop of it, from the bytes alone.
    Crop,
    /// A crop of it, with entry points, from the ranges of bytes that they name.
    IndexedCrop,
    /// Its entry points are found; no pixels.
    Index,
}

/// Decodes into memory, which grows as needed, and says which rectangle is there: the one wanted or more.
type Library = fn(&Sample, Rect, &mut Vec<u8>) -> anyhow::Result<Rect>;

/// One thread's decoder and its memory.
pub trait Decode: Send {
    /// Decodes into its memory.
    fn decode(&mut self, sample: &Sample, region: Rect) -> anyhow::Result<()>;

    /// What was decoded last.
    fn pixels(&self) -> Option<Pixels>;
}

/// A decoded rectangle.
pub struct Pixels {
    /// Which of the image it is.
    pub region: Rect,
    /// 1 for grey, else 3, interleaved.
    pub channels: usize,
    pub samples: Vec<u8>,
}

impl Work {
    /// The name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole image",
            Self::Crop => "crop",
            Self::IndexedCrop => "crop, indexed",
            Self::Index => "making the index",
        }
    }
}

impl Contender {
    /// A decoder for one thread.
    pub fn start(&self) -> Box<dyn Decode> {
        match self.library {
            Some(library) => Box::new(Theirs { library, region: NONE, out: Vec::new() }),
            None => Box::new(Ours {
                work: self.work,
                decoder: jpeg::Decoder::new(),
                image: Planes::default(),
                ranges: Vec::new(),
                entries: Vec::new(),
            }),
        }
    }

    /// What it decodes of a sample of which `crop` is wanted.
    pub fn region(&self, sample: &Sample, crop: Rect) -> Rect {
        match self.work {
            Work::Whole | Work::Index => sample.whole(),
            Work::Crop | Work::IndexedCrop => crop,
        }
    }

    /// The pixels that come out.
    pub fn pixels(&self, sample: &Sample, crop: Rect) -> u64 {
        let region = self.region(sample, crop);
        if self.work == Work::Index { 0 } else { u64::from(region.width) * u64::from(region.height) }
    }
}

const NONE: Rect = Rect { x: 0, y: 0, width: 0, height: 0 };

/// This crate's decoder.
struct Ours {
    work: Work,
    decoder: jpeg::Decoder,
    image: Planes,
    ranges: Vec<Range<u64>>,
    entries: Vec<u8>,
}

impl Decode for Ours {
    fn decode(&mut self, sample: &Sample, region: Rect) -> anyhow::Result<()> {
        self.image.reset(region);
        match self.work {
            Work::IndexedCrop => {
                let index = sample.index.as_ref().map_err(|error| anyhow!("no entry points: {error}"))?;
                return self.decode_indexed(sample, index, region);
            }
            Work::Index => {
                self.entries.clear();
                let header = Header::parse(&sample.bytes)?;
                self.decoder.index(&sample.bytes, &header, Grain::default(), &mut self.entries)?;
            }
            Work::Whole | Work::Crop => {
                let header = Header::parse(&sample.bytes)?;
                self.decoder.decode(&sample.bytes, &header, region, &mut self.image)?;
            }
        }
        Ok(())
    }

    fn pixels(&self) -> Option<Pixels> {
        (self.work != Work::Index).then(|| self.image.interleaved())
    }
}

impl Ours {
    fn decode_indexed(&mut self, sample: &Sample, index: &Index, region: Rect) -> anyhow::Result<()> {
        self.ranges.clear();
        index.facts.ranges(index.entries(), region, &mut self.ranges)?;
        // A list this short is nothing beside the decoding.
        let pieces: Vec<_> = self.ranges.iter().map(|range| piece(&sample.bytes, range)).collect();
        let header = index.facts.header(&index.quant, &index.huffman)?;
        Ok(self.decoder.decode_indexed(&pieces, &header, index.entries(), region, &mut self.image)?)
    }
}

fn piece<'a>(bytes: &'a [u8], range: &Range<u64>) -> Piece<'a> {
    let bytes = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
    Piece { offset: range.start, bytes }
}

/// All rows of a region, a plane a colour.
#[derive(Default)]
struct Planes {
    region: Option<Rect>,
    planes: [Vec<u8>; 3],
    row: usize,
}

impl Planes {
    fn reset(&mut self, region: Rect) {
        self.region = Some(region);
        self.row = 0;
        let len = region.width as usize * region.height as usize + ROW_PADDING_BYTES;
        for plane in &mut self.planes {
            if plane.len() < len {
                plane.resize(len, 0);
            }
        }
    }

    fn width(&self) -> usize {
        self.region.map_or(0, |region| region.width as usize)
    }

    fn interleaved(&self) -> Pixels {
        let len = self.row * self.width();
        let [red, green, blue] = self.planes.each_ref().map(|plane| &plane[..len]);
        let samples = red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]).collect();
        Pixels { region: self.region.unwrap_or(NONE), channels: 3, samples }
    }
}

impl RowSink for Planes {
    fn row(&mut self) -> [&mut [u8]; 3] {
        // Rows lie behind each other: what a row's padding overwrites is the next row, which is yet to come.
        let start = self.row * self.width();
        self.planes.each_mut().map(|plane| &mut plane[start..])
    }

    fn commit(&mut self) {
        self.row += 1;
    }
}

/// A library's decoder.
struct Theirs {
    library: Library,
    region: Rect,
    out: Vec<u8>,
}

impl Decode for Theirs {
    fn decode(&mut self, sample: &Sample, region: Rect) -> anyhow::Result<()> {
        self.region = (self.library)(sample, region, &mut self.out)?;
        Ok(())
    }

    fn pixels(&self) -> Option<Pixels> {
        let area = self.region.width as usize * self.region.height as usize;
        let channels = if self.out.len() < 3 * area { 1 } else { 3 };
        Some(Pixels { region: self.region, channels, samples: self.out[..channels * area].to_vec() })
    }
}

/// Each in the way its documentation recommends for speed.
mod libraries {
    use forebay::Rect;
    use libjpeg_turbo_rs::{Decoder, PixelFormat};

    use super::super::samples::Sample;

    pub fn turbo(sample: &Sample, region: Rect, out: &mut Vec<u8>) -> anyhow::Result<Rect> {
        let mut decoder = Decoder::new(&sample.bytes)?;
        decoder.set_output_format(PixelFormat::Rgb);
        let mut decoded = region;
        if region != sample.whole() {
            // Its crops begin where an MCU does.
            let columns = 8 * u32::from(sample.header.max_sampling().0);
            decoded.x = region.x / columns * columns;
            decoded.width += region.x - decoded.x;
            let [x, y, width, height] = [decoded.x, decoded.y, decoded.width, decoded.height].map(|n| n as usize);
            decoder.set_crop_region(x, y, width, height);
        }
        out.resize(decoder.output_buffer_size()?, 0);
        decoder.decode_image_into(out)?;
        Ok(decoded)
    }

    #[cfg(feature = "bench-peers")]
    pub fn zune(sample: &Sample, _: Rect, out: &mut Vec<u8>) -> anyhow::Result<Rect> {
        use zune_jpeg::JpegDecoder;
        use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

        let options = DecoderOptions::new_fast().jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&sample.bytes), options);
        decoder.decode_headers()?;
        out.resize(decoder.output_buffer_size().unwrap_or(0), 0);
        decoder.decode_into(out)?;
        Ok(sample.whole())
    }

    #[cfg(feature = "bench-peers")]
    pub fn jpeg_decoder(sample: &Sample, _: Rect, out: &mut Vec<u8>) -> anyhow::Result<Rect> {
        // It takes no memory to write to.
        *out = jpeg_decoder::Decoder::new(sample.bytes.as_slice()).decode()?;
        Ok(sample.whole())
    }
}
