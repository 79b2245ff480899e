//! One sample as the kernels see it.

use std::ops::Range;

use bytemuck::bytes_of;

use super::abi::{END_UNCHECKED, HuffmanSpec, Image, MARKER, Segment};
use super::shape::{Needs, coded_image, region_image};
use crate::error::{Error, ErrorKind, Result};
use crate::jpeg::{self, Header, Layout, Stretch, StretchEnd};
use crate::plan::SamplePlan;
use crate::raw;
use crate::source::RecordedJpeg;

/// Words of a segment beside its data: how many bytes that is, and two of zeros.
const SEGMENT_WORDS: u32 = 3;
/// Bytes of a restart marker.
const MARKER_BYTES: u32 = 2;

/// Describes samples, one after another, in memory that it keeps.
#[derive(Default)]
pub(crate) struct Describer {
    segments: Vec<Segment>,
    tables: Vec<u8>,
}

/// A sample for the kernels. In the image and its segments, places in scratch memory and of `words` count from the
/// sample's own; `segments`, `tables` and `output` are to be filled in.
pub(crate) struct Description<'a> {
    pub(crate) image: Image,
    pub(crate) segments: &'a [Segment],
    pub(crate) tables: &'a [u8],
    pub(crate) needs: Needs,
}

impl Describer {
    /// Bytes that it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Segment>() + self.tables.capacity()
    }

    /// Describes a sample by its record. `find` gives the upload offset of a range of the file, if all of it has landed
    /// in one piece. Nothing looks at the bytes, which may be in a device's memory alone.
    ///
    /// # Errors
    /// `IndexStale` where the record contradicts itself or what landed; `Unsupported` for a sample that [`Needs::of`]
    /// says is none for the kernels.
    pub(crate) fn describe(
        &mut self,
        record: &RecordedJpeg<'_>,
        plan: &SamplePlan,
        find: impl Fn(Range<u64>) -> Option<u32>,
    ) -> Result<Description<'_>> {
        let facts = &record.facts;
        let (geometry, layout) = facts.layout(plan.view())?;
        let header = facts.header(record.quant, record.huffman)?;
        let (mut image, mut needs) = coded_image(plan, facts.colour, &geometry, &layout)?;
        self.write_tables(&header, &mut image)?;
        self.segments.clear();
        facts.stretches(record.entries, &layout, |stretch| {
            let segment = segment(&stretch, needs.words, &find)?;
            needs.words += SEGMENT_WORDS + segment.bytes.div_ceil(4);
            self.segments.push(segment);
            Ok(())
        })?;
        debug_assert!(covers(&self.segments, &layout));
        needs.segments = self.segments.len() as u32;
        image.segment_count = needs.segments;
        Ok(Description { image, segments: &self.segments, tables: &self.tables, needs })
    }

    /// Writes each table that is in use once, and which are whose into the image's planes.
    fn write_tables(&mut self, header: &Header, image: &mut Image) -> Result<()> {
        self.tables.clear();
        let frame = header.components();
        let mut slots: [Option<u8>; 3] = [None; 3];
        for (plane, component) in image.planes.iter_mut().zip(frame) {
            let table = header.tables.quant.get(usize::from(component.quant)).and_then(Option::as_ref);
            let table = table.ok_or_else(|| missing("quantisation", component.quant))?;
            let (number, is_new) = number(&mut slots, component.quant);
            if is_new {
                self.tables.extend_from_slice(bytes_of(&table.0));
            }
            plane.quant = number;
        }
        image.quant_count = slots.iter().flatten().count() as u8;
        let mut slots: [Option<(bool, u8)>; 6] = [None; 6];
        for (plane, component) in image.planes.iter_mut().zip(header.scan.components()) {
            let dc = header.tables.dc_or_standard(component.dc).ok_or_else(|| missing("DC", component.dc))?;
            let ac = header.tables.ac_or_standard(component.ac).ok_or_else(|| missing("AC", component.ac))?;
            plane.dc = self.write_codes(&mut slots, (false, component.dc), dc, jpeg::HuffmanSpec::check_dc)?;
            plane.ac = self.write_codes(&mut slots, (true, component.ac), ac, jpeg::HuffmanSpec::check_codes)?;
        }
        image.table_count = slots.iter().flatten().count() as u8;
        Ok(())
    }

    fn write_codes(
        &mut self,
        slots: &mut [Option<(bool, u8)>; 6],
        slot: (bool, u8),
        spec: &jpeg::HuffmanSpec,
        check: fn(&jpeg::HuffmanSpec) -> Result<()>,
    ) -> Result<u8> {
        let (number, is_new) = number(slots, slot);
        if is_new {
            check(spec)?;
            let spec = HuffmanSpec { counts: spec.counts, symbols: spec.symbols };
            self.tables.extend_from_slice(bytes_of(&spec));
        }
        Ok(number)
    }
}

/// Describes raw pixels, of which the rows of the plan's region landed. `find` as for [`Describer::describe`].
///
/// # Errors
/// `IndexStale` where they did not; `Unsupported` for what the kernels do not resample.
pub(crate) fn describe_pixels(
    facts: &raw::Facts,
    plan: &SamplePlan,
    find: impl Fn(Range<u64>) -> Option<u32>,
) -> Result<Description<'static>> {
    let rows = facts.range(plan.region())?;
    let at = find(rows.clone()).ok_or_else(|| stale(format!("no piece of the file holds its rows, bytes {rows:?}")))?;
    let (image, needs) = region_image(plan, facts, at)?;
    Ok(Description { image, segments: &[], tables: &[], needs })
}

/// The place of a slot among those seen, and whether it is a new one. There is a place for every one.
fn number<T: Copy + PartialEq>(seen: &mut [Option<T>], slot: T) -> (u8, bool) {
    let place = seen.iter().position(|seen| seen.is_none_or(|seen| seen == slot)).unwrap_or(0);
    let is_new = seen[place].is_none();
    seen[place] = Some(slot);
    (place as u8, is_new)
}

fn segment(stretch: &Stretch, words: u32, find: &impl Fn(Range<u64>) -> Option<u32>) -> Result<Segment> {
    let Stretch { from, mcus, bytes, marker, end } = stretch;
    let (before, skip) = match marker {
        // The kernels look at the markers, which must have landed with the data.
        Some(number) => (MARKER_BYTES, MARKER + number),
        None => (0, (from.bit % 8) as u8),
    };
    let (behind, end, next_dc) = match end {
        StretchEnd::Unchecked => (0, END_UNCHECKED, [0; 3]),
        StretchEnd::Entry(entry) => (0, (entry.bit.wrapping_neg() % 8) as u8, entry.dc),
        StretchEnd::Marker(number) => (MARKER_BYTES, MARKER + number, [0; 3]),
    };
    let range = bytes.start - u64::from(before)..bytes.end.saturating_add(behind.into());
    let landed = find(range).ok_or_else(|| {
        stale(format!("no piece of the file holds the data of MCU {} of row {}", from.column, from.row))
    })?;
    Ok(Segment {
        byte: landed + before,
        bytes: (bytes.end - bytes.start) as u32,
        words,
        row: from.row as u16,
        column: from.column as u16,
        mcus: *mcus as u16,
        skip,
        end,
        dc: from.dc,
        next_dc,
    })
}

/// Whether the segments hold every MCU of a layout, and each lies in the image.
fn covers(segments: &[Segment], layout: &Layout) -> bool {
    let columns = &layout.columns;
    layout.rows.clone().all(|row| {
        let mut of_row = segments.iter().filter(|segment| usize::from(segment.row) == row).peekable();
        let mut next = of_row.peek().map_or(usize::MAX, |first| usize::from(first.column));
        let starts = next <= columns.start;
        starts
            && of_row.all(|segment| {
                let chained = usize::from(segment.column) == next;
                next += usize::from(segment.mcus);
                chained
            })
            && next == columns.end
    })
}

fn missing(class: &str, slot: u8) -> Error {
    stale(format!("{class} table {slot} is not among its tables"))
}

fn stale(cause: String) -> Error {
    Error::new(ErrorKind::IndexStale, format!("index is stale: {cause}"))
        .with_remedy("build the index again: forebay index")
}
