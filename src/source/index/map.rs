//! A sidecar as it is read: mapped, nothing of it parsed or checked before it is asked for.
//!
//! Opening reads the footer: schema, head, and where each record batch lies. The layout of a batch is
//! read when the first of its rows is asked for and kept. From then on a number is a load at a checked place, and a
//! string two loads and two comparisons. Nothing is allocated from a count that the file declares, but
//! from lists that are really there.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arrow_ipc::{Block, RecordBatch, root_as_footer, root_as_message};

use super::head::Head;
use super::schema::{COLUMNS, Column, is_known};
use super::stale;
use crate::error::{Error, Result};
use crate::memory::FileMap;
use crate::source::notes::Seen;

const MAGIC: &[u8] = b"ARROW1";

/// The first bytes of an Arrow file, and its last: the footer's length and the magic number.
const START: &[u8] = b"ARROW1\0\0";
const TAIL_LEN_BYTES: usize = 4 + MAGIC.len();

/// An index file that was found sound as a whole; each row shows its own faults.
pub(in crate::source) struct Sidecar {
    path: PathBuf,
    map: FileMap,
    pub(super) head: Head,
    /// Of the head: the seed of the checksums of all rows.
    pub(super) seed: u64,
    batches: Box<[Batch]>,
    /// Whether rows were looked up since pages were last given back.
    is_touched: AtomicBool,
}

struct Batch {
    block: Block,
    layout: OnceLock<Box<Layout>>,
}

/// Where the values of a batch's columns lie.
struct Layout {
    /// The first byte of its body in the file.
    body: usize,
    columns: [Place; COLUMNS.len()],
}

/// Where a column lies, from the start of the body.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Its values, or where each of them starts and ends; as many as there are rows.
    values: u32,
    /// The bytes of strings.
    data: u32,
    data_len: u32,
}

/// One row, its columns checked to hold it.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub file: &'a Sidecar,
    pub number: u64,
    layout: &'a Layout,
    /// Its place in the batch.
    index: usize,
}

impl Sidecar {
    /// Opens a sidecar; `None` if there is no such file.
    ///
    /// # Errors
    /// `IndexStale` for a file that is no index or damaged, `Io` for one that cannot be read.
    pub(super) fn open(path: PathBuf) -> Result<Option<Self>> {
        let failed = |error| {
            let error = Error::io(format!("cannot read index {}", path.display()), error);
            error.with_remedy("give this user the rights to read it, or use no index")
        };
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Err(stale(&path, if metadata.is_file() { "it is empty" } else { "it is no file" }));
        }
        let map = FileMap::new(&file).map_err(failed)?;
        let (head, seed, batches) = read_footer(&path, map.bytes())?;
        Ok(Some(Self { path, map, head, seed, batches, is_touched: AtomicBool::new(false) }))
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many rows there are.
    pub(in crate::source) fn len(&self) -> u64 {
        self.head.rows
    }

    /// What listing the data saw and left out.
    pub(in crate::source) fn seen(&self) -> Seen {
        self.head.seen.clone()
    }

    /// What of the file is mapped, in bytes.
    pub(super) fn len_bytes(&self) -> u64 {
        self.map.bytes().len() as u64
    }

    /// Gives back what of it has become resident.
    pub(super) fn release(&self) {
        if self.is_touched.swap(false, Relaxed) {
            self.map.release();
        }
    }

    /// A row.
    ///
    /// # Errors
    /// `IndexStale` where the file does not hold what it should there.
    pub(super) fn row(&self, number: u64) -> Result<Row<'_>> {
        // Threads that only read it do not take it from each other's caches.
        if !self.is_touched.load(Relaxed) {
            self.is_touched.store(true, Relaxed);
        }
        let batch_number = usize::try_from(number / self.head.rows_per_batch).ok();
        let batch = batch_number.filter(|_| number < self.head.rows).and_then(|batch| self.batches.get(batch));
        let batch = batch.ok_or_else(|| self.damaged(number, "there is no such row"))?;
        let layout = match batch.layout.get() {
            Some(layout) => layout,
            None => {
                let first = number - number % self.head.rows_per_batch;
                let rows = (self.head.rows - first).min(self.head.rows_per_batch);
                let layout = read_layout(self.map.bytes(), &batch.block, rows as usize);
                let layout = layout.ok_or_else(|| self.damaged(number, "its record batch is no such batch"))?;
                batch.layout.get_or_init(|| Box::new(layout))
            }
        };
        Ok(Row { file: self, number, layout, index: (number % self.head.rows_per_batch) as usize })
    }

    /// The error of a row that cannot be as it was written.
    pub(super) fn damaged(&self, row: u64, cause: &str) -> Error {
        stale(&self.path, &format!("it is damaged at row {row}: {cause}"))
    }
}

impl<'a> Row<'a> {
    /// A number of up to 64 bits; signed ones by their bits.
    pub(super) fn number(&self, column: Column) -> u64 {
        self.number_of(column as usize)
    }

    /// The same, by the number of the column.
    pub(super) fn number_of(&self, column: usize) -> u64 {
        let width = COLUMNS[column].1.width_bytes().unwrap_or(0);
        let at = self.layout.columns[column].values as usize + self.index * width;
        let mut bytes = [0; 8];
        // Never out of range: a layout is only made of columns that lie in the file with all their rows.
        bytes[..width].copy_from_slice(&self.file.map.bytes()[self.layout.body + at..][..width]);
        u64::from_le_bytes(bytes)
    }

    /// A string.
    ///
    /// # Errors
    /// `IndexStale` if it lies outside of its column.
    pub(super) fn bytes(&self, column: Column) -> Result<&'a [u8]> {
        let Place { values, data, data_len } = self.layout.columns[column as usize];
        let body = &self.file.map.bytes()[self.layout.body..];
        let offset = |index: usize| {
            let at = values as usize + 4 * index;
            body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(u32::MAX, u32::from_le_bytes)
        };
        let (start, end) = (offset(self.index), offset(self.index + 1));
        if start > end || end > data_len {
            let (name, _) = COLUMNS[column as usize];
            return Err(self.file.damaged(self.number, &format!("\"{name}\" lies outside of its column")));
        }
        Ok(&body[(data + start) as usize..(data + end) as usize])
    }
}

fn read_footer(path: &Path, bytes: &[u8]) -> Result<(Head, u64, Box<[Batch]>)> {
    let is_arrow = bytes.starts_with(START) && bytes.ends_with(MAGIC) && bytes.len() >= START.len() + TAIL_LEN_BYTES;
    let footer = is_arrow.then(|| {
        let (front, tail) = bytes.split_at(bytes.len() - TAIL_LEN_BYTES);
        let len = tail.first_chunk().map_or(-1, |len| i32::from_le_bytes(*len));
        let start = front.len().checked_sub(usize::try_from(len).ok()?)?;
        root_as_footer(&front[start..]).ok()
    });
    let not_whole = || stale(path, "it is no whole Arrow file: damaged, or cut short while it was copied");
    let footer = footer.flatten().ok_or_else(not_whole)?;
    let schema = footer.schema().ok_or_else(not_whole)?;
    let (head, seed) = Head::read(path, &schema)?;
    if !is_known(&schema) {
        return Err(stale(path, "its columns are not those of an index"));
    }
    let blocks = footer.recordBatches().ok_or_else(not_whole)?;
    if blocks.len() as u64 != head.rows.div_ceil(head.rows_per_batch) {
        return Err(stale(path, "it has another number of record batches than its rows make"));
    }
    let batches = blocks.iter().map(|block| Batch { block: *block, layout: OnceLock::new() }).collect();
    Ok((head, seed, batches))
}

/// The layout of a batch of `rows` rows, if there is one where the block says and it lies in the file whole.
fn read_layout(file: &[u8], block: &Block, rows: usize) -> Option<Layout> {
    let start = usize::try_from(block.offset()).ok()?;
    let body = start.checked_add(usize::try_from(block.metaDataLength()).ok()?)?;
    let body_len = u32::try_from(block.bodyLength()).ok()?;
    if file.len() < body.checked_add(body_len as usize)? {
        return None;
    }
    // A continuation marker and the message's length come first (format of the IPC message).
    let metadata = file.get(start..body)?.strip_prefix(&[0xFF; 4])?;
    let (len, metadata) = metadata.split_first_chunk()?;
    let metadata = metadata.get(..usize::try_from(i32::from_le_bytes(*len)).ok()?)?;
    let batch = root_as_message(metadata).ok()?.header_as_record_batch()?;
    if batch.compression().is_some() || batch.length() != i64::try_from(rows).ok()? {
        return None;
    }
    read_places(&batch, rows, body_len).map(|columns| Layout { body, columns })
}

fn read_places(batch: &RecordBatch<'_>, rows: usize, body_len: u32) -> Option<[Place; COLUMNS.len()]> {
    let mut buffers = batch.buffers()?.iter().map(|buffer| {
        let (start, len) = (u32::try_from(buffer.offset()).ok()?, u32::try_from(buffer.length()).ok()?);
        (start.checked_add(len)? <= body_len).then_some(start..start + len)
    });
    let mut next =
        |len_bytes: usize| -> Option<Range<u32>> { buffers.next().flatten().filter(|range| range.len() >= len_bytes) };
    let mut places = [Place::default(); COLUMNS.len()];
    for (place, (_, kind)) in places.iter_mut().zip(COLUMNS) {
        // Which values are null; not looked at.
        next(0)?;
        match kind.width_bytes() {
            Some(width) => place.values = next(rows.checked_mul(width)?)?.start,
            None => {
                place.values = next(rows.checked_add(1)?.checked_mul(4)?)?.start;
                let data = next(0)?;
                (place.data, place.data_len) = (data.start, data.end - data.start);
            }
        }
    }
    Some(places)
}
