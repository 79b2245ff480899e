//! The facts of a JPEG file up to its first scan.

use super::exif;
use super::markers::{self, Markers, corrupt, truncated, unsupported};
use super::tables::Tables;
use crate::error::{Error, ErrorKind, Result};

/// Most blocks that an MCU may hold (T.81, B.2.3).
pub(super) const MCU_BLOCKS_MAX: u32 = 10;

/// Everything that a file says before its first scan's entropy-coded data. No heap.
#[derive(Clone)]
pub struct Header {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How the coefficients are coded.
    pub process: Process,
    /// Bits a sample.
    pub precision: u8,
    /// How many components the frame declares; [`components`](Self::components) holds the first four.
    pub component_count: u8,
    components: [Component; 4],
    /// What the components mean, as libjpeg decides it.
    pub colour: ColourModel,
    /// EXIF orientation, 1..=8; 1 where the file does not say.
    pub orientation: u8,
    /// The tables that hold at the first scan.
    pub tables: Tables,
    /// The first scan.
    pub scan: Scan,
    /// Where the entropy-coded data of the first scan starts, in bytes from the start of the file.
    pub scan_offset: usize,
}

/// A component of the frame (T.81, B.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// Its identifier.
    pub id: u8,
    /// Horizontal sampling factor, 1..=4.
    pub h: u8,
    /// Vertical sampling factor, 1..=4.
    pub v: u8,
    /// The slot of its quantisation table.
    pub quant: u8,
}

/// Which components a scan holds, and with which tables (T.81, B.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    components: [ScanComponent; 4],
    count: u8,
}

/// A component of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanComponent {
    /// Its index in the frame.
    pub index: u8,
    /// The slot of its DC table.
    pub dc: u8,
    /// The slot of its AC table.
    pub ac: u8,
}

/// The coding process of a frame (T.81, table B.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Process {
    /// SOF0: sequential DCT, Huffman, 8 bits.
    Baseline,
    /// SOF1: the same with up to four tables a class, and 12 bits.
    Extended,
    /// SOF2: progressive DCT, Huffman.
    Progressive,
    /// SOF3: lossless, Huffman.
    Lossless,
    /// SOF9, SOF10, SOF11: any of these with arithmetic coding.
    Arithmetic,
    /// SOF5 to SOF7, SOF13 to SOF15: hierarchical frames, which no library decodes.
    Hierarchical,
}

/// What the components of an image mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColourModel {
    /// One component.
    Grey,
    /// Luma and two colour differences (JFIF).
    YCbCr,
    /// Red, green, blue.
    Rgb,
    /// Four inks.
    Cmyk,
    /// CMYK with three of its inks as YCbCr.
    Ycck,
    /// Two components, or more than four.
    Unknown,
}

/// Whether [`Decoder`](super::Decoder) handles a file or why it needs another decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Decodability {
    /// This decoder handles it, one MCU row at a time.
    Streamed,
    /// This decoder handles it and holds all samples of the image meanwhile: its components lie in scans
    /// of their own.
    WholePlanes,
    /// Progressive DCT.
    Progressive,
    /// Samples of other than 8 bits.
    Precision,
    /// CMYK or YCCK.
    FourComponents,
    /// Arithmetic coding.
    Arithmetic,
    /// Lossless coding.
    Lossless,
    /// Hierarchical frames.
    Hierarchical,
    /// Two components, or more than four.
    ComponentCount,
    /// A sampling factor that does not divide the largest one.
    FractionalSampling,
}

impl Decodability {
    /// Whether [`Decoder`](super::Decoder) handles it.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Streamed | Self::WholePlanes)
    }

    /// The name used in reports and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Streamed => "baseline",
            Self::WholePlanes => "baseline in several scans",
            Self::Progressive => "progressive",
            Self::Precision => "samples of more than 8 bits",
            Self::FourComponents => "CMYK",
            Self::Arithmetic => "arithmetic coding",
            Self::Lossless => "lossless",
            Self::Hierarchical => "hierarchical",
            Self::ComponentCount => "component count",
            Self::FractionalSampling => "fractional sampling factors",
        }
    }
}

impl Header {
    /// Reads the markers up to the first scan, as leniently as libjpeg: stray bytes between markers are
    /// skipped, unneeded segments ignored.
    ///
    /// # Errors
    /// `NotAnImage` without an SOI marker at the start; `Truncated` where the bytes end early; `Corrupt`
    /// where they contradict the format; `Unsupported` for marker codes and frames that no library reads.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if !bytes.starts_with(&[0xFF, markers::SOI]) {
            return Err(not_a_jpeg(bytes));
        }
        let mut parser = Parser { tables: Tables::EMPTY, frame: None, jfif: false, adobe: None, orientation: None };
        let mut markers = Markers::new(bytes, 2);
        while !parser.segment(&mut markers)? {}
        parser.finish(&mut markers)
    }

    /// Of a file of one scan that holds all of up to four components; without tables, the scan at the start.
    pub(super) fn in_one_scan(
        (width, height): (u32, u32),
        colour: ColourModel,
        frame: &[Component],
        scan: &[ScanComponent],
    ) -> Self {
        fn four<T: Copy + Default>(listed: &[T]) -> [T; 4] {
            std::array::from_fn(|i| listed.get(i).copied().unwrap_or_default())
        }
        Self {
            width,
            height,
            process: Process::Extended,
            precision: 8,
            component_count: frame.len() as u8,
            components: four(frame),
            colour,
            orientation: 1,
            tables: Tables::EMPTY,
            scan: Scan { components: four(scan), count: scan.len() as u8 },
            scan_offset: 0,
        }
    }

    /// The components of the frame, in its order; the first four where there are more.
    pub fn components(&self) -> &[Component] {
        &self.components[..usize::from(self.component_count).min(4)]
    }

    /// The largest sampling factors, horizontal and vertical.
    pub fn max_sampling(&self) -> (u8, u8) {
        self.components().iter().fold((1, 1), |(h, v), component| (h.max(component.h), v.max(component.v)))
    }

    /// Whether [`Decoder`](super::Decoder) handles this file.
    pub fn support(&self) -> Decodability {
        match self.process {
            Process::Baseline | Process::Extended => {}
            Process::Progressive => return Decodability::Progressive,
            Process::Lossless => return Decodability::Lossless,
            Process::Arithmetic => return Decodability::Arithmetic,
            Process::Hierarchical => return Decodability::Hierarchical,
        }
        if self.precision != 8 {
            return Decodability::Precision;
        }
        match self.colour {
            ColourModel::Grey | ColourModel::YCbCr | ColourModel::Rgb => {}
            ColourModel::Cmyk | ColourModel::Ycck => return Decodability::FourComponents,
            ColourModel::Unknown => return Decodability::ComponentCount,
        }
        let (h_max, v_max) = self.max_sampling();
        if self.components().iter().any(|component| h_max % component.h != 0 || v_max % component.v != 0) {
            return Decodability::FractionalSampling;
        }
        if self.scan.components().len() < self.components().len() {
            return Decodability::WholePlanes;
        }
        Decodability::Streamed
    }
}

impl Scan {
    /// Its components, in the order of their blocks in an MCU.
    pub fn components(&self) -> &[ScanComponent] {
        &self.components[..usize::from(self.count)]
    }

    /// Reads the payload of an SOS segment against the components of the frame.
    pub(super) fn parse(payload: &[u8], frame: &[Component]) -> Result<Self> {
        let count = payload.first().copied().unwrap_or(0);
        if !(1..=4).contains(&count) || payload.len() != 4 + 2 * usize::from(count) {
            return Err(corrupt("SOS segment has a wrong length"));
        }
        let mut scan = Self { components: Default::default(), count };
        for (i, entry) in payload[1..].chunks_exact(2).take(count.into()).enumerate() {
            // As in libjpeg: components come in the frame's order, and where identifiers repeat the next counts.
            let is_free = |index: usize| scan.components[..i].iter().all(|taken| usize::from(taken.index) != index);
            let index = (i..frame.len()).find(|&index| frame[index].id == entry[0]).filter(|&index| is_free(index));
            let index = index.ok_or_else(|| corrupt(format!("scan names component {}", entry[0])))?;
            scan.components[i] = ScanComponent { index: index as u8, dc: entry[1] >> 4, ac: entry[1] & 15 };
        }
        Ok(scan)
    }
}

/// What was seen so far on the way to the first scan.
struct Parser {
    tables: Tables,
    frame: Option<Frame>,
    jfif: bool,
    adobe: Option<u8>,
    orientation: Option<u8>,
}

struct Frame {
    process: Process,
    precision: u8,
    width: u32,
    height: u32,
    component_count: u8,
    components: [Component; 4],
}

impl Parser {
    /// Takes in one marker segment; true when it is the SOS marker, whose payload is still to be read.
    fn segment(&mut self, markers: &mut Markers) -> Result<bool> {
        let code = markers.next_marker()?;
        match code {
            markers::SOS => return Ok(true),
            markers::EOI => return Err(corrupt("file holds no scan")),
            markers::SOI => return Err(corrupt("second SOI marker")),
            markers::DHT => self.tables.define_huffman(markers.payload("DHT")?)?,
            markers::DQT => self.tables.define_quant(markers.payload("DQT")?)?,
            markers::DRI => self.tables.restart_interval = restart_interval(markers.payload("DRI")?)?,
            markers::APP0 => self.jfif |= is_jfif(markers.payload("APP0")?),
            markers::APP1 => {
                let payload = markers.payload("APP1")?;
                self.orientation = self.orientation.or_else(|| exif::orientation(payload));
            }
            markers::APP14 => self.adobe = adobe_transform(markers.payload("APP14")?).or(self.adobe),
            markers::APP0..=markers::APP15 | markers::COM | markers::DNL | markers::DAC => {
                markers.payload("metadata")?;
            }
            markers::RST0..=markers::RST7 | markers::TEM => {}
            0xC0..=0xCF if code != 0xC8 => {
                if self.frame.is_some() {
                    return Err(corrupt("second frame header"));
                }
                self.frame = Some(Frame::parse(code, markers.payload("SOF")?)?);
            }
            _ => return Err(unsupported(format!("marker {code:#04x} is reserved"))),
        }
        Ok(false)
    }

    fn finish(self, markers: &mut Markers) -> Result<Header> {
        let frame = self.frame.ok_or_else(|| corrupt("scan without a frame header"))?;
        let listed = &frame.components[..usize::from(frame.component_count).min(4)];
        let scan = Scan::parse(markers.payload("SOS")?, listed)?;
        Ok(Header {
            width: frame.width,
            height: frame.height,
            process: frame.process,
            precision: frame.precision,
            component_count: frame.component_count,
            components: frame.components,
            colour: colour_model(frame.component_count, listed, self.jfif, self.adobe),
            orientation: self.orientation.unwrap_or(1),
            tables: self.tables,
            scan,
            scan_offset: markers.position,
        })
    }
}

impl Frame {
    fn parse(code: u8, payload: &[u8]) -> Result<Self> {
        let process = match code & 15 {
            0 => Process::Baseline,
            1 => Process::Extended,
            2 => Process::Progressive,
            3 => Process::Lossless,
            9..=11 => Process::Arithmetic,
            _ => Process::Hierarchical,
        };
        let Some((&[precision, y1, y0, x1, x0, component_count], entries)) = payload.split_first_chunk::<6>() else {
            return Err(corrupt("frame header is too short"));
        };
        let (height, width) = (u16::from_be_bytes([y1, y0]), u16::from_be_bytes([x1, x0]));
        if height == 0 && width > 0 {
            return Err(unsupported("its height is given after the scan (DNL)"));
        }
        if width == 0 || component_count == 0 {
            return Err(corrupt("frame header declares an empty image"));
        }
        if entries.len() != 3 * usize::from(component_count) {
            return Err(corrupt("frame header has a wrong length"));
        }
        let mut components = [Component::default(); 4];
        for (component, entry) in components.iter_mut().zip(entries.chunks_exact(3)) {
            *component = Component { id: entry[0], h: entry[1] >> 4, v: entry[1] & 15, quant: entry[2] };
            if !(1..=4).contains(&component.h) || !(1..=4).contains(&component.v) {
                return Err(corrupt(format!("sampling factors {}x{}", component.h, component.v)));
            }
        }
        Ok(Self { process, precision, width: width.into(), height: height.into(), component_count, components })
    }
}

/// The interval that a DRI segment sets.
pub(super) fn restart_interval(payload: &[u8]) -> Result<u16> {
    let bytes = payload.try_into().map_err(|_| corrupt("DRI segment has a wrong length"))?;
    Ok(u16::from_be_bytes(bytes))
}

fn is_jfif(payload: &[u8]) -> bool {
    payload.len() >= 14 && payload.starts_with(b"JFIF\0")
}

fn adobe_transform(payload: &[u8]) -> Option<u8> {
    if payload.starts_with(b"Adobe") { payload.get(11).copied() } else { None }
}

/// libjpeg's guess (jdapimin.c, `default_decompress_parms`).
fn colour_model(count: u8, components: &[Component], jfif: bool, adobe: Option<u8>) -> ColourModel {
    match (count, adobe) {
        (1, _) => ColourModel::Grey,
        (3, _) if jfif => ColourModel::YCbCr,
        (3, Some(0)) => ColourModel::Rgb,
        (3, Some(_)) => ColourModel::YCbCr,
        (3, None) if components.iter().map(|component| component.id).eq(*b"RGB") => ColourModel::Rgb,
        (3, None) => ColourModel::YCbCr,
        (4, Some(0) | None) => ColourModel::Cmyk,
        (4, Some(_)) => ColourModel::Ycck,
        _ => ColourModel::Unknown,
    }
}

fn not_a_jpeg(bytes: &[u8]) -> Error {
    if bytes.is_empty() {
        return Error::new(ErrorKind::NotAnImage, "file is empty");
    }
    if bytes == [0xFF] {
        return truncated("file ends in its first marker");
    }
    let start = &bytes[..bytes.len().min(8)];
    Error::new(ErrorKind::NotAnImage, format!("no JPEG: starts with {start:02x?} instead of an SOI marker"))
}
