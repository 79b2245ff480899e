//! PIXELS: encoded bytes to rows, whichever decoder the format needs.
//!
//! Baseline JPEG goes to our own decoder, which reads only the region; every other format goes to a
//! library that decodes the whole image, from which the region's rows are taken. Raw pixels are copied. The format is told
//! by its first bytes, never by a file's name; pixels without a header alone have no such bytes.

mod footprint;
pub(crate) mod kernels;
pub(crate) mod nvjpeg;
mod other;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::jpeg;
use crate::limits::Limits;
use crate::pixels::{RowSink, Scale, View};
use crate::plan::Orientation;
use crate::raw;
use crate::source::{RecordedImage, RecordedJpeg};

/// The decoder that takes a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Baseline JPEG, by this crate.
    Jpeg,
    /// Progressive, CMYK and other JPEG, by a library.
    OtherJpeg,
    /// PNG, by a library.
    Png,
    /// WebP, by a library.
    WebP,
    /// Baseline JPEG, by this crate's kernels on a CUDA device.
    Kernels,
    /// JPEG, by NVIDIA's library on a CUDA device.
    NvJpeg,
    /// Raw pixels, which are copied.
    Raw,
}

impl Route {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Jpeg, Self::OtherJpeg, Self::Png, Self::WebP, Self::Kernels, Self::NvJpeg, Self::Raw];

    /// The name used in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "baseline JPEG decoder",
            Self::OtherJpeg => "library for other JPEG",
            Self::Png => "PNG library",
            Self::WebP => "WebP library",
            Self::Kernels => "CUDA kernels",
            Self::NvJpeg => "nvJPEG",
            Self::Raw => "raw pixels",
        }
    }

    /// Whether the decoder scales images down by itself, to every [`Scale`].
    pub const fn scales(self) -> bool {
        matches!(self, Self::Jpeg)
    }

    /// Refuses a scale that the decoder does not do.
    pub(crate) fn check_scale(self, scale: Scale) -> Result<()> {
        if scale == Scale::Full || self.scales() {
            return Ok(());
        }
        let message = format!("{} cannot scale while it decodes", self.name());
        Err(Error::new(ErrorKind::Unsupported, message).with_remedy("decode at full scale"))
    }
}

/// Who decodes on a CUDA device, by the names that the command line uses: `auto`, `kernels`, `nvjpeg`, `nvjpeg-device`
/// or `host`.
///
/// Whatever it is, samples that it does not take go to the host's decoders and are counted as theirs. The kernels and
/// the host give the same tensors, to the bit; nvJPEG's pixels differ by a few levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecoderKind {
    /// The kernels for what an index describes, nvJPEG where it can be loaded for other JPEG.
    #[default]
    Auto,
    /// The kernels alone; refused where no index describes the data set.
    Kernels,
    /// nvJPEG alone, from whole files; refused where it cannot be loaded.
    NvJpeg,
    /// nvJPEG alone, from whole files in device memory of which the host looks at no byte, for what an index describes;
    /// refused where it cannot be loaded, or where the device has no such backend.
    NvJpegDevice,
    /// The decode threads; the device gets finished tensors.
    Host,
}

impl DecoderKind {
    const ALL: [(Self, &str); 5] = [
        (Self::Auto, "auto"),
        (Self::Kernels, "kernels"),
        (Self::NvJpeg, "nvjpeg"),
        (Self::NvJpegDevice, "nvjpeg-device"),
        (Self::Host, "host"),
    ];

    /// Whether encoded bytes can land on the device without the host having seen them.
    pub(crate) fn lands_on_device(self) -> bool {
        self.uses_kernels() || self == Self::NvJpegDevice
    }

    /// Whether it decodes by what an index says, and nothing else.
    pub(crate) fn needs_index(self) -> bool {
        matches!(self, Self::Kernels | Self::NvJpegDevice)
    }

    /// Whether samples that an index describes go to the kernels.
    pub(crate) fn uses_kernels(self) -> bool {
        matches!(self, Self::Auto | Self::Kernels)
    }
}

impl fmt::Display for DecoderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[*self as usize].1)
    }
}

impl FromStr for DecoderKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| *kind).ok_or_else(|| {
            let allowed = "auto, kernels, nvjpeg, nvjpeg-device or host is allowed";
            Error::invalid_parameter("decoder", format_args!("{text:?}"), allowed)
        })
    }
}

/// What is known of an image before its pixels are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Columns as stored, before any orientation.
    pub width: u32,
    /// Rows as stored.
    pub height: u32,
    /// The EXIF orientation; as stored where there is none.
    pub orientation: Orientation,
    /// Who decodes it.
    pub route: Route,
}

impl ImageInfo {
    /// Of raw pixels.
    pub(crate) fn of_raw(shape: raw::Shape) -> Self {
        whole_image(Route::Raw, (shape.width, shape.height))
    }
}

/// A decoder of every format, for one thread: it owns its scratch and is used again and again.
pub struct Decoder {
    jpeg: jpeg::Decoder,
    /// The header of the JPEG that [`inspect`](Self::inspect) saw last.
    header: Option<jpeg::Header>,
    /// Likewise of raw pixels.
    raw: Option<raw::Facts>,
    limits: Limits,
}

impl Decoder {
    /// A decoder that refuses images beyond the limits.
    pub fn new(limits: Limits) -> Self {
        Self { jpeg: jpeg::Decoder::new(), header: None, raw: None, limits }
    }

    /// Tells the format by the first bytes and reads the header.
    ///
    /// # Errors
    ///
    /// [`NotAnImage`](ErrorKind::NotAnImage), [`LimitExceeded`](ErrorKind::LimitExceeded), or what the
    /// header is at fault for.
    pub fn inspect(&mut self, bytes: &[u8]) -> Result<ImageInfo> {
        let info = match bytes {
            [] => return Err(Error::new(ErrorKind::NotAnImage, "the sample is empty")),
            [0xFF, 0xD8, ..] => self.inspect_jpeg(bytes)?,
            [0x89, b'P', b'N', b'G', ..] => {
                let header = other::PngHeader::parse(bytes)?;
                whole_image(Route::Png, (header.width, header.height))
            }
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
                whole_image(Route::WebP, other::webp_dimensions(bytes)?)
            }
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
                ImageInfo::of_raw(self.raw.insert(raw::npy::parse(bytes)?).shape)
            }
            _ => return Err(not_an_image(bytes)),
        };
        self.limits.check_dimensions(info.width, info.height)?;
        Ok(info)
    }

    /// The same of pixels without a header, whose shape must be known.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if it is not; [`Truncated`](ErrorKind::Truncated) or
    /// [`Corrupt`](ErrorKind::Corrupt) if they are not as many as the shape has;
    /// [`LimitExceeded`](ErrorKind::LimitExceeded).
    pub fn inspect_headerless(&mut self, bytes: &[u8], shape: Option<raw::Shape>) -> Result<ImageInfo> {
        let facts = self.raw.insert(raw::Facts::headerless(bytes.len() as u64, shape)?);
        let info = ImageInfo::of_raw(facts.shape);
        self.limits.check_dimensions(info.width, info.height)?;
        Ok(info)
    }

    fn inspect_jpeg(&mut self, bytes: &[u8]) -> Result<ImageInfo> {
        let header = self.header.insert(jpeg::Header::parse(bytes)?);
        let route = if header.support().is_ours() { Route::Jpeg } else { Route::OtherJpeg };
        Ok(ImageInfo {
            width: header.width,
            height: header.height,
            orientation: Orientation::from_exif(header.orientation.into()),
            route,
        })
    }

    /// Decodes a region of the image that [`inspect`](Self::inspect) saw last into the rows of `sink`; a
    /// [`Rect`](crate::Rect) alone is one at full scale.
    ///
    /// # Errors
    ///
    /// [`Truncated`](ErrorKind::Truncated), [`Corrupt`](ErrorKind::Corrupt) or
    /// [`Unsupported`](ErrorKind::Unsupported), the latter also for a scale where the route is none that
    /// [`scales`](Route::scales); rows that were committed before are then of no value.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        info: &ImageInfo,
        view: impl Into<View>,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        let View { scale, region } = view.into();
        info.route.check_scale(scale)?;
        let pixels = match (info.route, &self.header) {
            (Route::Raw, _) => {
                let facts = self.raw.ok_or_else(|| Error::new(ErrorKind::Internal, "no raw pixels were inspected"))?;
                return facts.copy_rows(jpeg::Piece { offset: 0, bytes }, region, sink);
            }
            (Route::Jpeg, Some(header)) => return self.jpeg.decode(bytes, header, View { scale, region }, sink),
            (Route::Jpeg | Route::OtherJpeg | Route::Kernels | Route::NvJpeg, header) => {
                other::jpeg(bytes, header.as_ref().map_or(8, |header| header.precision), &self.limits)?
            }
            (Route::Png, _) => other::png(bytes)?,
            (Route::WebP, _) => other::webp(bytes)?,
        };
        pixels.copy_rows(region, sink)
    }

    /// Bytes of memory that [`decode`](Self::decode) takes at most for an image that [`inspect`](Self::inspect) saw last,
    /// scratch that it keeps included.
    ///
    /// Baseline JPEG grows with the region's width. The libraries take whole images: a byte of PNG per byte of its pixels,
    /// and three more a pixel if it is not 8-bit RGB; WebP 5 to 17 bytes a pixel, and up to 350 for each encoded byte that
    /// is lossless; other JPEG 8 to 35 bytes a pixel.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) for a WebP whose frame is larger than the image.
    pub fn memory_bytes(&self, bytes: &[u8], info: &ImageInfo, view: impl Into<View>) -> Result<u64> {
        let size = (info.width, info.height);
        Ok(match (info.route, &self.header) {
            (Route::Raw, _) => 0,
            (Route::Png, _) => footprint::png(&other::PngHeader::parse(bytes)?),
            (Route::WebP, _) => footprint::webp(&other::WebpFacts::parse(bytes, size)?, size, bytes.len()),
            (Route::Jpeg, Some(header)) => jpeg::Decoder::memory_bytes(header, view.into()),
            (_, Some(header)) => footprint::jpeg(header, bytes.len()),
            (_, None) => 0,
        })
    }

    /// The same of [`decode_indexed`](Self::decode_indexed), where no header is looked at.
    pub(crate) fn memory_bytes_indexed(route: Route, view: View) -> u64 {
        match route {
            Route::Raw => 0,
            _ => jpeg::Decoder::memory_bytes_streamed(view.region.width),
        }
    }

    /// Scratch that it holds between two images.
    pub(crate) fn held_bytes(&self) -> usize {
        self.jpeg.held_bytes()
    }

    /// Gives that back.
    pub(crate) fn release(&mut self) {
        self.jpeg.release();
    }

    /// Decodes a region from the pieces of a sample that its record names for that region; what a header would say comes
    /// from the record.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode), and [`IndexStale`](ErrorKind::IndexStale) where the pieces contradict the record.
    pub fn decode_indexed(
        &mut self,
        pieces: &[jpeg::Piece<'_>],
        image: &RecordedImage<'_>,
        view: impl Into<View>,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        match image {
            RecordedImage::Jpeg(RecordedJpeg { facts, entries, quant, huffman }) => {
                let header = facts.header(quant, huffman)?;
                self.jpeg.decode_indexed(pieces, &header, *entries, view, sink)
            }
            RecordedImage::Raw(facts) => {
                let View { scale, region } = view.into();
                Route::Raw.check_scale(scale)?;
                let range = facts.range(region)?;
                let piece = pieces.iter().rev().find(|piece| piece.offset <= range.start);
                facts.copy_rows(piece.copied().unwrap_or(jpeg::Piece { offset: 0, bytes: &[] }), region, sink)
            }
        }
    }

    /// Where the raw pixels lie that were inspected last.
    pub(crate) fn raw_facts(&self) -> Option<raw::Facts> {
        self.raw
    }

    /// The header of the JPEG that was inspected last.
    pub fn jpeg_header(&self) -> Option<&jpeg::Header> {
        self.header.as_ref()
    }
}

fn whole_image(route: Route, (width, height): (u32, u32)) -> ImageInfo {
    ImageInfo { width, height, orientation: Orientation::AS_STORED, route }
}

fn not_an_image(bytes: &[u8]) -> Error {
    let start = &bytes[..bytes.len().min(8)];
    let seen = if start.iter().all(|byte| (b' '..=b'~').contains(byte) || byte.is_ascii_whitespace()) {
        format!("text {:?}", String::from_utf8_lossy(start))
    } else {
        format!("bytes {start:02x?}")
    };
    Error::new(ErrorKind::NotAnImage, format!("begins with {seen}, which is no JPEG, PNG, WebP or .npy"))
        .with_remedy("remove the file from the data set, or give it its own extension")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_are_known_by_their_names() {
        for (kind, name) in DecoderKind::ALL {
            assert_eq!((kind.to_string().as_str(), name.parse::<DecoderKind>().ok()), (name, Some(kind)));
        }
        let error = "nvjpeg_device".parse::<DecoderKind>().unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidParameter && error.to_string().contains("nvjpeg-device"), "{error}");
    }
}
