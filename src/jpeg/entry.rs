//! Entry points: places in a scan where decoding can start, and the facts needed to do so without the file's header.
//!
//! A JPEG has no random access: codes have no fixed length, and DC coefficients are coded as differences
//! (T.81, F.1.2.1). What a decoder carries from MCU to MCU is small, though: its position in bits and a
//! prediction a component. With these noted for some MCUs, decoding starts at any of them, and the file
//! stays as it is. The idea is that of Android's tiled JPEG decoding (`jpeg_build_huffman_index` in its
//! libjpeg, for BitmapRegionDecoder), which keeps such an index in memory; here it is written down.

use std::ops::Range;

use super::compact::EntryIter;
use super::decoder::check_view;
use super::geometry::{Geometry, Layout};
use super::header::{ColourModel, Component, Header, MCU_BLOCKS_MAX, ScanComponent};
use super::tables::TABLE_SLOTS;
use crate::error::{Error, ErrorKind, Result};
use crate::pixels::View;

/// Bytes of a scan that entry points reach into: the bits of it count in 32 bits.
pub(super) const SCAN_BYTES_MAX: u64 = 1 << 29;

/// How far apart entry points lie. Every MCU row and every restart interval begins with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// One an MCU row.
    Rows,
    /// Within a row, also at the first MCU that begins this many bits or more behind the last entry point,
    /// stuffed bytes not counted.
    Bits(u32),
}

impl Default for Grain {
    fn default() -> Self {
        Self::Bits(4096)
    }
}

/// All that an index holds of a JPEG that is decoded in one scan, but for its tables and entry points.
///
/// The fields are as hostile as the bytes that they were read from until [`check`](Self::check) has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Grey, YCbCr or RGB; grey has one component, the others three.
    pub colour: ColourModel,
    /// Sampling factors of each component, horizontal and vertical; (0, 0) where there is none.
    pub sampling: [(u8, u8); 3],
    /// The slots of each component's quantisation, DC and AC tables; the first's again where there is none.
    pub slots: [[u8; 3]; 3],
    /// MCUs between restart markers; 0 where there are none.
    pub restart_interval: u16,
    /// EXIF orientation, 1..=8.
    pub orientation: u8,
    /// Where the entropy-coded data starts, in bytes from the start of the file.
    pub scan_offset: u64,
    /// Its bytes, up to the marker that ends it.
    pub scan_bytes: u64,
}

/// A place in a scan where decoding can start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryPoint {
    /// The MCU row.
    pub row: u32,
    /// The MCU within its row.
    pub column: u32,
    /// Its first bit, from the start of the scan's data, stuffed bytes and markers included.
    pub bit: u64,
    /// The DC predictions of the components, of which no more than 16 bits ever matter.
    pub dc: [i16; 3],
}

/// The entry points of a scan in the compact form that an index stores.
///
/// They are unsigned LEB128 numbers of up to 32 bits. Each MCU row begins with a head, by which it is passed over
/// without a look at the rest of it:
///
/// | number | means |
/// |---|---|
/// | length | bytes of the row's further entry points, which follow the head |
/// | bits | bits behind the start of the row before |
/// | DC, one a component | difference to the prediction at that start modulo 2^16, zigzag coded |
///
/// The first row starts at bit 0 with predictions 0 and has a length alone. Each further entry point of a row is:
///
/// | number | means |
/// |---|---|
/// | step | MCUs behind the last entry point, at least 1 |
/// | bits | bits behind the last entry point |
/// | DC, one a component | difference to the last entry point's prediction modulo 2^16, zigzag coded |
///
/// Six or seven bytes an entry on photos.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryPoints<'a> {
    bytes: &'a [u8],
}

/// Some bytes of a file.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Where they start in the file.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl Facts {
    /// Of a file of which no more than this is decoded: `scan_bytes` from `header` on.
    pub(super) fn new(header: &Header, scan_bytes: u64) -> Self {
        let mut sampling = [(0, 0); 3];
        for (sampling, component) in sampling.iter_mut().zip(header.components()) {
            *sampling = (component.h, component.v);
        }
        let slots = header.scan.components().iter().zip(header.components());
        let mut slots = slots.map(|(scan, frame)| [frame.quant, scan.dc, scan.ac]);
        let first = slots.next().unwrap_or_default();
        Self {
            width: header.width,
            height: header.height,
            colour: header.colour,
            sampling,
            slots: [first, slots.next().unwrap_or(first), slots.next().unwrap_or(first)],
            restart_interval: header.tables.restart_interval,
            orientation: header.orientation,
            scan_offset: header.scan_offset as u64,
            scan_bytes,
        }
    }

    /// Whether the fields make sense together, as those of a JPEG that is decoded in one scan do.
    ///
    /// # Errors
    /// `IndexStale`, naming the field.
    pub fn check(&self) -> Result<()> {
        let sides = 1..=u32::from(u16::MAX);
        if !sides.contains(&self.width) || !sides.contains(&self.height) {
            return Err(stale(format!("it has an image of {}x{}", self.width, self.height)));
        }
        let present = match self.colour {
            ColourModel::Grey => 1,
            ColourModel::YCbCr | ColourModel::Rgb => 3,
            other => return Err(stale(format!("it has an indexed image in {other:?}"))),
        };
        let (sampling, absent) = self.sampling.split_at(present);
        let (h_max, v_max) = sampling.iter().fold((1, 1), |max, factors| (max.0.max(factors.0), max.1.max(factors.1)));
        let divides = |factor: u8, max: u8| (1..=4).contains(&factor) && max.is_multiple_of(factor);
        if !sampling.iter().all(|&(h, v)| divides(h, h_max) && divides(v, v_max))
            || absent.iter().any(|&factors| factors != (0, 0))
        {
            return Err(stale(format!("it has sampling factors {:?}", self.sampling)));
        }
        let blocks: u32 = sampling.iter().map(|&(h, v)| u32::from(h * v)).sum();
        if present > 1 && blocks > MCU_BLOCKS_MAX {
            return Err(stale(format!("it has MCUs of {blocks} blocks")));
        }
        if self.slots.as_flattened().iter().any(|&slot| usize::from(slot) >= TABLE_SLOTS) {
            return Err(stale(format!("it has table slots {:?}", self.slots)));
        }
        if !(1..=8).contains(&self.orientation) {
            return Err(stale(format!("it has orientation {}", self.orientation)));
        }
        if self.scan_bytes > SCAN_BYTES_MAX || self.scan_offset.checked_add(self.scan_bytes).is_none() {
            return Err(stale(format!("it has a scan of {} bytes at {}", self.scan_bytes, self.scan_offset)));
        }
        Ok(())
    }

    /// The header of the file, given the payloads of its DQT and DHT segments that the index holds. It decodes
    /// the same pixels as the file's own.
    ///
    /// # Errors
    /// `IndexStale` as for [`check`](Self::check), or where a payload is none.
    pub fn header(&self, quant: &[u8], huffman: &[u8]) -> Result<Header> {
        self.check()?;
        let mut header = self.frame();
        let tables = &mut header.tables;
        let defined = tables.define_quant(quant).and_then(|()| tables.define_huffman(huffman));
        defined.map_err(|error| stale(format!("its tables are none: {error}")).with_source(error))?;
        header.scan_offset = usize::try_from(self.scan_offset).map_err(|_| stale("its scan is out of reach"))?;
        Ok(header)
    }

    /// The bytes of the file that a region needs: for every MCU row it touches, from the entry point at or
    /// before its first MCU to the one behind its last. Appended in ascending order; ranges that touch or
    /// overlap are one.
    ///
    /// # Errors
    /// `IndexStale` as for [`check`](Self::check), and for entry points that contradict themselves or the
    /// facts; `InvalidParameter` for a region outside the image.
    pub fn ranges(&self, entries: EntryPoints<'_>, view: impl Into<View>, ranges: &mut Vec<Range<u64>>) -> Result<()> {
        let (_, layout) = self.layout(view.into())?;
        let grid = Grid::of_facts(self);
        let first = ranges.len();
        self.for_each_run(entries, &layout, |from, to| {
            // With the marker before a restart interval, which proves that it is one.
            let start = if grid.begins_interval(&from, self.restart_interval) {
                (from.bit / 8).saturating_sub(2)
            } else {
                from.bit / 8
            };
            // The next MCU's first bits are in this one's last byte, which may be an FF and its stuffing.
            let end = to.map_or(self.scan_bytes, |to| to.bit / 8 + if to.bit % 8 == 0 { 0 } else { 2 });
            let range = self.scan_offset + start..self.scan_offset + end.min(self.scan_bytes);
            match ranges[first..].last_mut() {
                Some(last) if last.end >= range.start => last.end = range.end,
                _ => ranges.push(range),
            }
            Ok(())
        })
    }

    /// What of the image a view touches: its samples, and its MCUs.
    ///
    /// # Errors
    /// `IndexStale` as for [`check`](Self::check); `InvalidParameter` for a region outside the image.
    pub(crate) fn layout(&self, view: View) -> Result<(Geometry, Layout)> {
        self.check()?;
        check_view(view, self.width, self.height)?;
        let header = self.frame();
        let geometry = Geometry::new(&header, view);
        let layout = Layout::new(&geometry, &header.scan);
        Ok((geometry, layout))
    }

    /// Hands every entry point that decoding the layout's MCUs starts at or passes to `take`, with the one behind it:
    /// between the two lie MCUs that are needed. Facts that were checked.
    pub(super) fn for_each_run(
        &self,
        entries: EntryPoints<'_>,
        layout: &Layout,
        mut take: impl FnMut(EntryPoint, Option<EntryPoint>) -> Result<()>,
    ) -> Result<()> {
        let (rows, columns) = (&layout.rows, &layout.columns);
        let mut entries = EntryIter::new(entries.bytes, Grid::of_facts(self), self.scan_bytes);
        let mut start = None;
        for _ in 0..=rows.start {
            start = entries.next_row()?;
        }
        for _ in rows.clone() {
            // There is none behind the image alone, where no region reaches.
            let Some(mut last) = start else { break };
            while (last.column as usize) < columns.end
                && let Some(entry) = entries.next_in_row()?
            {
                if entry.column as usize > columns.start {
                    take(last, Some(entry))?;
                }
                last = entry;
            }
            start = entries.next_row()?;
            if (last.column as usize) < columns.end {
                take(last, start)?;
            }
        }
        Ok(())
    }

    /// The header but for its tables, of facts that were checked.
    fn frame(&self) -> Header {
        let count = self.sampling.iter().filter(|&&factors| factors != (0, 0)).count();
        let (mut frame, mut scan) = ([Component::default(); 3], [ScanComponent::default(); 3]);
        for i in 0..count {
            let ((h, v), [quant, dc, ac]) = (self.sampling[i], self.slots[i]);
            frame[i] = Component { id: i as u8 + 1, h, v, quant };
            scan[i] = ScanComponent { index: i as u8, dc, ac };
        }
        let mut header = Header::in_one_scan((self.width, self.height), self.colour, &frame[..count], &scan[..count]);
        (header.tables.restart_interval, header.orientation) = (self.restart_interval, self.orientation);
        header
    }
}

impl<'a> EntryPoints<'a> {
    /// Of bytes that [`Decoder::index`](super::Decoder::index) wrote, or claim to be.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The compact form.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The entry points in the order of the scan. The first that contradicts the facts or itself comes as an
    /// `IndexStale`, and is the last.
    pub fn iter(&self, facts: &Facts) -> impl Iterator<Item = Result<EntryPoint>> + 'a {
        EntryIter::new(self.bytes, Grid::of_facts(facts), facts.scan_bytes)
    }
}

/// The MCUs of a scan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// MCUs in a row.
    pub columns: u32,
    /// Rows of MCUs.
    pub rows: u32,
    /// Components, and so predictions.
    pub components: usize,
}

impl Grid {
    /// Of a file that is decoded in one scan.
    pub fn of(header: &Header) -> Self {
        Self::new(header.width, header.height, header.components().len(), header.max_sampling())
    }

    pub(super) fn of_facts(facts: &Facts) -> Self {
        let components = facts.sampling.iter().filter(|&&factors| factors != (0, 0)).count();
        let max = facts.sampling.iter().fold((1, 1), |max, factors| (max.0.max(factors.0), max.1.max(factors.1)));
        Self::new(facts.width, facts.height, components, max)
    }

    fn new(width: u32, height: u32, components: usize, (h, v): (u8, u8)) -> Self {
        // A component alone is not interleaved: its MCU is a block whatever its factors (T.81, A.2.2).
        let (h, v) = if components == 1 { (1, 1) } else { (u32::from(h), u32::from(v)) };
        Self { columns: width.div_ceil(8 * h), rows: height.div_ceil(8 * v), components }
    }

    /// Whether an entry point's MCU is the first behind a restart marker.
    pub fn begins_interval(&self, entry: &EntryPoint, restart_interval: u16) -> bool {
        let mcu = self.mcu(entry);
        mcu > 0 && mcu.checked_rem(restart_interval.into()) == Some(0)
    }

    /// The number of an entry point's MCU in the scan.
    pub fn mcu(&self, entry: &EntryPoint) -> u64 {
        u64::from(entry.row) * u64::from(self.columns) + u64::from(entry.column)
    }
}

/// An error about an index that contradicts itself or its file.
pub(super) fn stale(cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::IndexStale, format!("index is stale: {cause}"))
        .with_remedy("build the index again: forebay index")
}
