//! From the bytes of a sample to what an index says of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use xxhash_rust::xxh3::xxh3_64;

use super::schema::ENTRIES_MAX_BYTES;
use crate::decode;
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::{self, ColourModel, Decodability, Facts, Grain, Header};
use crate::limits::Limits;
use crate::raw;

/// What an image is, as the column `format` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// JPEG that is decoded in one scan, the kind that has entry points.
    Baseline,
    SeveralScans,
    Progressive,
    Precision,
    FourComponents,
    Arithmetic,
    Lossless,
    Hierarchical,
    ComponentCount,
    FractionalSampling,
    Png,
    WebP,
    /// None of these, or what could not be read.
    #[default]
    Unknown,
    // Codes are for ever: what is new comes last.
    /// Raw pixels.
    Raw,
}

impl Format {
    /// All of them, in the order of their codes.
    pub(super) const ALL: [Self; 14] = [
        Self::Baseline,
        Self::SeveralScans,
        Self::Progressive,
        Self::Precision,
        Self::FourComponents,
        Self::Arithmetic,
        Self::Lossless,
        Self::Hierarchical,
        Self::ComponentCount,
        Self::FractionalSampling,
        Self::Png,
        Self::WebP,
        Self::Unknown,
        Self::Raw,
    ];

    pub(super) fn of(decodability: Decodability) -> Self {
        match decodability {
            Decodability::Streamed => Self::Baseline,
            Decodability::WholePlanes => Self::SeveralScans,
            Decodability::Progressive => Self::Progressive,
            Decodability::Precision => Self::Precision,
            Decodability::FourComponents => Self::FourComponents,
            Decodability::Arithmetic => Self::Arithmetic,
            Decodability::Lossless => Self::Lossless,
            Decodability::Hierarchical => Self::Hierarchical,
            Decodability::ComponentCount => Self::ComponentCount,
            Decodability::FractionalSampling => Self::FractionalSampling,
        }
    }

    /// The name in the head of an index and in summaries.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Baseline => Decodability::Streamed.name(),
            Self::SeveralScans => Decodability::WholePlanes.name(),
            Self::Progressive => Decodability::Progressive.name(),
            Self::Precision => Decodability::Precision.name(),
            Self::FourComponents => Decodability::FourComponents.name(),
            Self::Arithmetic => Decodability::Arithmetic.name(),
            Self::Lossless => Decodability::Lossless.name(),
            Self::Hierarchical => Decodability::Hierarchical.name(),
            Self::ComponentCount => Decodability::ComponentCount.name(),
            Self::FractionalSampling => Decodability::FractionalSampling.name(),
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Unknown => "unknown",
            Self::Raw => decode::Route::Raw.name(),
        }
    }
}

/// Names of the codes in the column `colour`.
pub(super) const COLOURS: [(ColourModel, &str); 6] = [
    (ColourModel::Grey, "grey"),
    (ColourModel::YCbCr, "YCbCr"),
    (ColourModel::Rgb, "RGB"),
    (ColourModel::Cmyk, "CMYK"),
    (ColourModel::Ycck, "YCCK"),
    (ColourModel::Unknown, "unknown"),
];

/// What the bytes of a sample are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Described {
    pub format: Format,
    /// Why there is no more to say, though the format is one that has entry points or none at all.
    pub cause: String,
    pub width: u32,
    pub height: u32,
    /// EXIF orientation; 0 where it is not known.
    pub orientation: u8,
    pub components: u8,
    pub colour: Option<ColourModel>,
    /// Of a baseline JPEG without a fault, as are the fields below.
    pub facts: Option<Facts>,
    /// Of raw pixels whose shape their bytes tell, without a fault.
    pub raw: Option<raw::Facts>,
    pub quant: Vec<u8>,
    pub huffman: Vec<u8>,
    pub entries: Vec<u8>,
    /// XXH3-64 of the sample's bytes.
    pub data_checksum: u64,
}

impl Described {
    /// A sample that could not be read.
    pub(crate) fn unread(error: &Error) -> Self {
        Self { cause: cause(error), ..Self::default() }
    }

    fn fail(&mut self, error: &Error) {
        self.cause = cause(error);
        self.facts = None;
        self.raw = None;
        self.quant.clear();
        self.huffman.clear();
        self.entries.clear();
    }
}

/// The text of an error, which is never empty.
fn cause(error: &Error) -> String {
    let text = error.to_string();
    let remedy = error.remedy().map(|remedy| format!(" ({remedy})"));
    remedy.and_then(|remedy| text.strip_suffix(&remedy).map(str::to_owned)).unwrap_or(text)
}

/// Describes sample after sample; one a thread.
pub(crate) struct Describer {
    jpeg: jpeg::Decoder,
    others: decode::Decoder,
    grain: Grain,
}

impl Describer {
    pub(crate) fn new(grain: Grain) -> Self {
        Self { jpeg: jpeg::Decoder::new(), others: decode::Decoder::new(Limits::default()), grain }
    }

    /// Changes how far apart entry points are to be.
    pub(super) fn set_grain(&mut self, grain: Grain) {
        self.grain = grain;
    }

    /// Says what these bytes are. What is wrong with them is part of the answer. Of raw pixels without a header there
    /// is no more to say.
    pub(crate) fn describe(&mut self, bytes: &[u8], is_headerless: bool) -> Described {
        let mut described = Described { data_checksum: xxh3_64(bytes), ..Described::default() };
        if is_headerless {
            return Described { format: Format::Raw, ..described };
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.inspect(bytes, &mut described)));
        let result = result.unwrap_or_else(|_| {
            // A defect of ours; the scratch may be half written. One image shall not end the building of an index.
            *self = Self::new(self.grain);
            Err(Error::new(ErrorKind::Internal, "the decoder panicked on these bytes"))
        });
        if let Err(error) = result {
            described.fail(&error);
        }
        described
    }

    fn inspect(&mut self, bytes: &[u8], described: &mut Described) -> Result<()> {
        if bytes.starts_with(&[0xFF, 0xD8]) {
            return self.describe_jpeg(bytes, described);
        }
        let info = self.others.inspect(bytes)?;
        (described.width, described.height) = (info.width, info.height);
        described.format = match (info.route, self.others.raw_facts()) {
            (decode::Route::Raw, Some(facts)) => {
                described.components = facts.shape.channels;
                described.raw = Some(facts);
                Format::Raw
            }
            (decode::Route::Png, _) => Format::Png,
            _ => Format::WebP,
        };
        Ok(())
    }

    fn describe_jpeg(&mut self, bytes: &[u8], described: &mut Described) -> Result<()> {
        let header = Header::parse(bytes)?;
        described.format = Format::of(header.support());
        described.width = header.width;
        described.height = header.height;
        described.orientation = header.orientation;
        described.components = header.component_count;
        described.colour = Some(header.colour);
        if described.format != Format::Baseline {
            return Ok(());
        }
        let facts = self.jpeg.index(bytes, &header, self.grain, &mut described.entries)?;
        if described.entries.len() > ENTRIES_MAX_BYTES {
            let message = format!("its entry points take {} bytes", described.entries.len());
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        header.tables.write_used(&facts.slots, &mut described.quant, &mut described.huffman);
        described.facts = Some(facts);
        Ok(())
    }
}
