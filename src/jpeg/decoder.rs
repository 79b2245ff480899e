//! The decoder: a rectangle of a file to rows.

use super::entropy::ScanReader;
use super::entry::{EntryPoints, Facts, Grain, Piece};
use super::geometry::{Geometry, Layout};
use super::header::{Decodability, Header, Scan, restart_interval};
use super::huffman::TableCache;
use super::markers::{self, Markers, corrupt, unsupported};
use super::output::{Output, Samples};
use super::scans::{Group, ScanPlan, derive_tables};
use super::simd::Simd;
use super::tables::{QuantTable, Tables};
use super::window::Window;
use crate::error::{Error, Result};
use crate::pixels::{Rect, RowSink, View};

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
        if !view.fits(header.width, header.height) {
            let (width, height) = (view.scale.len(header.width), view.scale.len(header.height));
            let allowed = format!("must lie inside the image of {width}x{height}");
            return Err(Error::invalid_parameter("region", format!("{:?}", view.region), &allowed));
        }
        let geometry = Geometry::new(header, view);
        self.output.reset(&geometry);
        match header.support() {
            Decodability::Streamed => self.decode_streamed(bytes, header, &geometry, sink),
            Decodability::WholePlanes => self.decode_planes(bytes, header, &geometry, sink),
            other => Err(unsupported(other.name())),
        }
    }

    /// Passes over the whole scan and appends its entry points to `entries`.
    ///
    /// # Errors
    /// `Unsupported` unless the file is [`Decodability::Streamed`]; `Truncated` and `Corrupt` as for decoding.
    pub fn index(&mut self, _bytes: &[u8], _header: &Header, _grain: Grain, _entries: &mut Vec<u8>) -> Result<Facts> {
        Err(unsupported("index"))
    }

    /// [`decode`](Self::decode) from the pieces of the file that [`Facts::ranges`] names for the region, in
    /// ascending order. The same pixels.
    ///
    /// # Errors
    /// As `decode`, and `IndexStale` where the file contradicts an entry point.
    pub fn decode_indexed(
        &mut self,
        _pieces: &[Piece<'_>],
        _header: &Header,
        _entries: EntryPoints<'_>,
        _region: Rect,
        _sink: &mut impl RowSink,
    ) -> Result<()> {
        Err(unsupported("index"))
    }

    /// All components in one scan: an MCU row at a time.
    fn decode_streamed(
        &mut self,
        bytes: &[u8],
        header: &Header,
        geometry: &Geometry,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        let layout = Layout::new(geometry, &header.scan);
        let quant = quant_tables(header, &header.tables, &header.scan)?;
        let places = derive_tables(&mut self.cache, &header.tables, &header.scan)?;
        let plan = ScanPlan::new(&layout, &self.cache, places, quant, self.simd)?;
        let interval = header.tables.restart_interval;
        let mut reader = ScanReader::new(bytes, &mut self.window, self.simd, header.scan_offset, interval);
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
        let mut reader = ScanReader::new(bytes, &mut self.window, self.simd, position, tables.restart_interval);
        for row in layout.rows.clone() {
            plan.decode_row(&mut reader, &mut self.group, geometry, &mut self.samples, row)?;
        }
        Ok(reader.finish())
    }
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
