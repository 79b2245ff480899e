//! The decoder: a rectangle of a file to rows.

use super::compact::{EntryIter, EntryWriter};
use super::entry::{EntryPoints, Facts, Grain, Grid, Piece, SCAN_BYTES_MAX, stale};
use super::geometry::{BLOCK_SIDE, Geometry, Layout};
use super::guide::Guide;
use super::header::{Decodability, Header, Scan, restart_interval};
use super::huffman::TableCache;
use super::index;
use super::markers::{self, Markers, corrupt, unsupported};
use super::output::{Output, Samples};
use super::reader::ScanReader;
use super::scans::{Group, ScanPlan, derive_tables};
use super::simd::Simd;
use super::tables::{QuantTable, Tables};
use super::window::Window;
use crate::error::{Error, ErrorKind, Result};
use crate::pixels::{Rect, RowSink, View};

/// What the derived tables of recent images take.
const TABLES_BYTES: usize = 256 << 10;

/// Decodes sequential JPEG of 8 bits; see the [module](super) for what exactly and how exactly.
///
/// Holds the memory it works in, so that decoding image after image allocates nothing once it has seen
/// the widest. One a thread.
pub struct Decoder {
    simd: Simd,
    window: Window,
    cache: TableCache,
    group: Group,
    samples: [Samples; 3],
    output: Output,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// With the fastest instructions of this machine.
    pub fn new() -> Self {
        Self::with(Simd::detect())
    }

    /// With no vector instructions: the specification that [`new`](Self::new) is tested against.
    pub fn scalar() -> Self {
        Self::with(Simd::SCALAR)
    }

    fn with(simd: Simd) -> Self {
        Self {
            simd,
            window: Window::new(),
            cache: TableCache::default(),
            group: Group::new(),
            samples: Default::default(),
            output: Output::new(simd),
        }
    }

    /// Hands the rows of a region to `sink`, top to bottom: the same pixels as in the whole image at that
    /// scale, its context beyond the region included. A [`Rect`] alone is one at full scale.
    ///
    /// `header` is what [`Header::parse`] makes of `bytes`. Memory grows with the region's width; where the
    /// components lie in scans of their own ([`Decodability::WholePlanes`]), with its area: check
    /// [`Limits`](crate::Limits) first. Entropy-coded data behind the region's last MCU is not looked at.
    ///
    /// # Errors
    /// `Unsupported` for what [`Header::support`] sends to another decoder; `InvalidParameter` for a region
    /// outside the image; `Truncated` and `Corrupt` name the MCU. After an error, rows that were handed out
    /// already must not be used: nothing says that the damage began below them.
    ///
    /// # Panics
    /// If the sink hands out shorter planes than it has agreed to.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        header: &Header,
        view: impl Into<View>,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        let view = view.into();
        check_view(view, header.width, header.height)?;
        let geometry = Geometry::new(header, view);
        self.output.reset(&geometry);
        match header.support() {
            Decodability::Streamed => self.decode_streamed(Data::Whole(bytes), header, &geometry, sink),
            Decodability::WholePlanes => self.decode_planes(bytes, header, &geometry, sink),
            other => Err(unsupported(other.name())),
        }
    }

    /// Bytes of scratch that [`decode`](Self::decode) grows to for a region, at most.
    pub(crate) fn memory_bytes(header: &Header, view: View) -> u64 {
        let geometry = Geometry::new(header, view);
        let is_streamed = header.support() == Decodability::Streamed;
        let planes = geometry.planes().iter().map(|plane| {
            let (columns, rows) = (plane.h * plane.side, plane.v * plane.side);
            let rows = if is_streamed { rows + 1 } else { plane.rows.len() + 2 * rows };
            // Whole MCUs, as many as the widest plane needs.
            Samples::len_bytes(plane.columns.len() + 4 * columns, rows)
        });
        (TABLES_BYTES + planes.sum::<usize>() + 3 * Output::row_bytes(view.region.width)) as u64
    }

    /// The same of any file that is decoded an MCU row at a time, for a region of a width.
    pub(crate) fn memory_bytes_streamed(width: u32) -> u64 {
        const SIDE_MAX: usize = 4 * BLOCK_SIDE;
        let plane = Samples::len_bytes(width as usize + 4 * SIDE_MAX, SIDE_MAX + 1);
        (TABLES_BYTES + 3 * (plane + Output::row_bytes(width))) as u64
    }

    /// Bytes of scratch that it holds, but for what has one size for every image.
    pub(crate) fn held_bytes(&self) -> usize {
        self.samples.iter().map(Samples::held_bytes).sum::<usize>() + self.output.held_bytes()
    }

    /// Gives them back.
    pub(crate) fn release(&mut self) {
        self.samples = Default::default();
        self.output = Output::new(self.simd);
    }

    /// Passes over the whole scan of `bytes` and appends its entry points to `entries`, in their compact form.
    ///
    /// # Errors
    /// `Unsupported` unless the file is [`Decodability::Streamed`] and its scan shorter than 2^32 bits;
    /// `Truncated` and `Corrupt` as for decoding. `entries` is then as it was.
    pub fn index(&mut self, bytes: &[u8], header: &Header, grain: Grain, entries: &mut Vec<u8>) -> Result<Facts> {
        let support = header.support();
        if support != Decodability::Streamed {
            return Err(unsupported(format!("{} has no entry points", support.name())));
        }
        let data = bytes.get(header.scan_offset..).unwrap_or_default();
        let before = entries.len();
        let end = self.write_entries(data, header, grain, entries).inspect_err(|_| entries.truncate(before))?;
        Ok(Facts::new(header, end as u64))
    }

    /// Appends the entry points of a scan's data; returns where the data ends.
    fn write_entries(&mut self, data: &[u8], header: &Header, grain: Grain, entries: &mut Vec<u8>) -> Result<usize> {
        let geometry = Geometry::new(header, Rect::whole(header.width, header.height).into());
        let layout = Layout::new(&geometry, &header.scan);
        let quant = quant_tables(header, &header.tables, &header.scan)?;
        let places = derive_tables(&mut self.cache, &header.tables, &header.scan)?;
        let plan = ScanPlan::new(&layout, &self.cache, places, quant, self.simd)?;
        let mut reader = ScanReader::new(data, &mut self.window, self.simd, header.tables.restart_interval);
        let grid = Grid::of(header);
        index::write_entries(&mut reader, plan.mcu(), grid, grain, EntryWriter::new(entries, grid.components))?;
        let end = index::scan_end(data, reader.finish());
        if end as u64 > SCAN_BYTES_MAX { Err(unsupported("its scan is too long for entry points")) } else { Ok(end) }
    }

    /// [`decode`](Self::decode) from the pieces of the file that [`Facts::ranges`] names for the region, or larger
    /// ones, in ascending order and each range in one piece. The same pixels. `header` is the file's own, or that
    /// of [`Facts::header`].
    ///
    /// Every entry point that decoding passes on its way is compared with the decoder's own position and
    /// predictions.
    ///
    /// # Errors
    /// As `decode`, but that `IndexStale` takes the place of `Truncated` and `Corrupt`: entry points are those of
    /// a scan without fault, so where there is one, file and index do not belong together.
    pub fn decode_indexed(
        &mut self,
        pieces: &[Piece<'_>],
        header: &Header,
        entries: EntryPoints<'_>,
        view: impl Into<View>,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        let view = view.into();
        check_view(view, header.width, header.height)?;
        let support = header.support();
        if support != Decodability::Streamed {
            return Err(unsupported(format!("{} has no entry points", support.name())));
        }
        let geometry = Geometry::new(header, view);
        self.output.reset(&geometry);
        let decoded = self.decode_streamed(Data::Indexed(pieces, entries), header, &geometry, sink);
        decoded.map_err(|error| match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Truncated => {
                stale(format!("file contradicts it: {error}")).with_source(error)
            }
            _ => error,
        })
    }

    /// All components in one scan: an MCU row at a time.
    fn decode_streamed(
        &mut self,
        data: Data<'_>,
        header: &Header,
        geometry: &Geometry,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        let layout = Layout::new(geometry, &header.scan);
        let quant = quant_tables(header, &header.tables, &header.scan)?;
        let places = derive_tables(&mut self.cache, &header.tables, &header.scan)?;
        let plan = ScanPlan::new(&layout, &self.cache, places, quant, self.simd)?;
        let mut reader = data.reader(header, &mut self.window, self.simd)?;
        let context_rows = usize::from(geometry.needs_row_below());
        for part in layout.parts() {
            let columns = layout.columns.start * part.columns..layout.columns.end * part.columns;
            self.samples[part.plane].reset(columns, context_rows + part.rows);
        }
        let region_end = (geometry.region.y + geometry.region.height) as usize;
        let mut next = geometry.region.y as usize;
        for row in layout.rows.clone() {
            for part in layout.parts() {
                self.samples[part.plane].start_band(row * part.rows, context_rows);
            }
            plan.decode_row(&mut reader, &mut self.group, geometry, &mut self.samples, row)?;
            let is_last = row + 1 == layout.rows.end;
            let ready = (row + 1) * layout.mcu_height - context_rows;
            let end = if is_last { region_end } else { ready.min(region_end) };
            self.output.emit(geometry, header.colour, &self.samples, next..end.max(next), sink);
            next = end.max(next);
            if context_rows > 0 {
                for part in layout.parts() {
                    self.samples[part.plane].keep_last_row(part.rows);
                }
            }
        }
        Ok(())
    }

    /// Components in scans of their own: all samples of the region, then all rows.
    fn decode_planes(
        &mut self,
        bytes: &[u8],
        header: &Header,
        geometry: &Geometry,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        let mut tables = header.tables.clone();
        let mut scan = header.scan;
        let mut position = header.scan_offset;
        let mut seen = [false; 3];
        loop {
            for component in scan.components() {
                if std::mem::replace(&mut seen[usize::from(component.index)], true) {
                    return Err(unsupported("a component comes in two scans"));
                }
            }
            let end = self.decode_scan(bytes, header, geometry, &tables, &scan, position)?;
            let is_complete = seen[..geometry.planes().len()].iter().all(|&seen| seen);
            let next = next_scan(bytes, header, &mut tables, end);
            match next {
                _ if is_complete && !matches!(next, Ok(Some(_))) => break,
                Ok(Some((next, offset))) => (scan, position) = (next, offset),
                Ok(None) => return Err(corrupt("image ends before all components had their scans")),
                Err(error) => return Err(error),
            }
        }
        let (y, height) = (geometry.region.y as usize, geometry.region.height as usize);
        self.output.emit(geometry, header.colour, &self.samples, y..y + height, sink);
        Ok(())
    }

    /// One scan into the samples of its components; the position behind the scan's data.
    fn decode_scan(
        &mut self,
        bytes: &[u8],
        header: &Header,
        geometry: &Geometry,
        tables: &Tables,
        scan: &Scan,
        position: usize,
    ) -> Result<usize> {
        let layout = Layout::new(geometry, scan);
        let quant = quant_tables(header, tables, scan)?;
        let places = derive_tables(&mut self.cache, tables, scan)?;
        let plan = ScanPlan::new(&layout, &self.cache, places, quant, self.simd)?;
        for part in layout.parts() {
            let columns = layout.columns.start * part.columns..layout.columns.end * part.columns;
            let samples = &mut self.samples[part.plane];
            samples.reset(columns, layout.rows.len() * part.rows);
            samples.start_band(layout.rows.start * part.rows, 0);
        }
        let data = bytes.get(position..).unwrap_or_default();
        let mut reader = ScanReader::new(data, &mut self.window, self.simd, tables.restart_interval);
        for row in layout.rows.clone() {
            plan.decode_row(&mut reader, &mut self.group, geometry, &mut self.samples, row)?;
        }
        Ok(position + reader.finish())
    }
}

/// Where the entropy-coded data of a file's only scan comes from.
enum Data<'a> {
    /// The file.
    Whole(&'a [u8]),
    /// Pieces of it, which entry points lead to.
    Indexed(&'a [Piece<'a>], EntryPoints<'a>),
}

impl<'a> Data<'a> {
    fn reader(self, header: &Header, window: &'a mut Window, simd: Simd) -> Result<ScanReader<'a>> {
        let interval = header.tables.restart_interval;
        match self {
            Self::Whole(bytes) => {
                let data = bytes.get(header.scan_offset..).unwrap_or_default();
                Ok(ScanReader::new(data, window, simd, interval))
            }
            Self::Indexed(pieces, entries) => {
                let grid = Grid::of(header);
                let entries = EntryIter::new(entries.as_bytes(), grid, SCAN_BYTES_MAX);
                let guide = Guide::new(pieces, header.scan_offset as u64, grid, entries)?;
                Ok(ScanReader::guided(guide, window, simd, interval))
            }
        }
    }
}

/// Refuses a region that does not lie in an image that is stored with `width` x `height` pixels.
pub(super) fn check_view(view: View, width: u32, height: u32) -> Result<()> {
    let View { scale, region } = view;
    let (width, height) = (scale.len(width), scale.len(height));
    if region.fits(width, height) {
        return Ok(());
    }
    let allowed = format!("must lie inside the image of {width}x{height}");
    Err(Error::invalid_parameter("region", format!("{region:?}"), &allowed))
}

/// The quantisation tables of a scan's components.
fn quant_tables<'a>(header: &Header, tables: &'a Tables, scan: &Scan) -> Result<[&'a QuantTable; 3]> {
    static UNUSED: QuantTable = QuantTable([0; 64]);
    let mut found = [&UNUSED; 3];
    for (found, component) in found.iter_mut().zip(scan.components()) {
        let slot = header.components()[usize::from(component.index)].quant;
        let table = tables.quant.get(usize::from(slot)).and_then(Option::as_ref);
        *found = table.ok_or_else(|| corrupt(format!("quantisation table {slot} is not defined")))?;
    }
    Ok(found)
}

/// The scan that follows at `position` or later and where its data starts; `None` at the end of the image.
fn next_scan(bytes: &[u8], header: &Header, tables: &mut Tables, position: usize) -> Result<Option<(Scan, usize)>> {
    let mut markers = Markers::new(bytes, position);
    loop {
        match markers.next_marker()? {
            markers::EOI => return Ok(None),
            markers::SOS => {
                let scan = Scan::parse(markers.payload("SOS")?, header.components())?;
                return Ok(Some((scan, markers.position)));
            }
            markers::DHT => tables.define_huffman(markers.payload("DHT")?)?,
            markers::DQT => tables.define_quant(markers.payload("DQT")?)?,
            markers::DRI => tables.restart_interval = restart_interval(markers.payload("DRI")?)?,
            markers::RST0..=markers::RST7 | markers::TEM => {}
            markers::APP0..=markers::APP15 | markers::COM | markers::DNL | markers::DAC => {
                markers.payload("metadata")?;
            }
            code => return Err(corrupt(format!("marker {code:#04x} between scans"))),
        }
    }
}
