//! A sidecar as it is written: batch by batch, so that memory does not grow with the data set.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_buffer::{Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, SchemaRef};

use super::atomic::AtomicFile;
use super::describe::{Described, Format};
use super::head::{DataKind, Head};
use super::row::{Listed, checksum, row_seed};
use super::schema::{COLUMNS, Column, Kind, schema};
use crate::error::{Error, ErrorKind, Result};
use crate::source::labels::Label;

/// Different tables that are remembered, so that a later row can point to them. Encoders with fixed
/// tables write a few hundred at most; with tables of each image's own there is nothing to find.
const POOL_MAX: usize = 4096;

/// Writes the rows of a sidecar in their order.
pub(super) struct Writer {
    file: AtomicFile,
    out: FileWriter<BufWriter<File>>,
    schema: SchemaRef,
    seed: u64,
    kind: DataKind,
    rows_per_batch: u64,
    rows: u64,
    columns: Vec<Cells>,
    quant: Pool,
    huffman: Pool,
}

impl Writer {
    /// Begins the file that is to be at `path`.
    ///
    /// # Errors
    /// `Io` and `NotFound` where it cannot be written.
    pub(super) fn create(path: &Path, head: &Head) -> Result<Self> {
        let (metadata, seed) = head.write()?;
        let schema = Arc::new(schema(metadata));
        let file = AtomicFile::create(path)?;
        let clone = file.file().try_clone().map_err(|error| Error::io(path.display(), error))?;
        let out = FileWriter::try_new(BufWriter::with_capacity(1 << 20, clone), &schema)
            .map_err(|error| cannot_write(path, error))?;
        Ok(Self {
            file,
            out,
            schema,
            seed,
            kind: head.kind,
            rows_per_batch: head.rows_per_batch,
            rows: 0,
            columns: COLUMNS.iter().map(|(_, kind)| Cells::new(*kind)).collect(),
            quant: Pool::default(),
            huffman: Pool::default(),
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `Io` where it cannot be written.
    pub(super) fn push(&mut self, listed: &Listed<'_>, described: &Described) -> Result<()> {
        let row = self.rows;
        let (quant_row, quant) = self.quant.place(row, &described.quant);
        let (huffman_row, huffman) = self.huffman.place(row, &described.huffman);
        let numbers = described.numbers(quant_row, huffman_row);
        let listing_checksum = listed.checksum(row_seed(self.seed, row));
        let strings = [described.cause.as_bytes(), &described.quant, &described.huffman, &described.entries];
        let record_checksum = checksum(listing_checksum, &numbers, strings);

        let has_file = self.kind != DataKind::Tar;
        let has_label = matches!(listed.label, Label::Is(_));
        let has_facts = described.facts.is_some();
        self.columns[Column::Key as usize].push_bytes(listed.key.as_bytes(), true);
        self.columns[Column::Path as usize].push_bytes(&listed.path, has_file);
        let is_there = [has_label, true, true, has_file, has_file, true];
        self.push_numbers(Column::Label, &listed.numbers(), &is_there);
        self.push_numbers(Column::ListingChecksum, &[listing_checksum], &[true]);
        let has_dimensions = described.width > 0;
        let mut is_there = [has_facts; 14];
        let (has_orientation, has_components) = (described.orientation > 0, described.components > 0);
        let has_colour = described.colour.is_some();
        is_there[..6].copy_from_slice(&[
            true,
            has_dimensions,
            has_dimensions,
            has_orientation,
            has_components,
            has_colour,
        ]);
        is_there[9..11].fill(has_facts || described.raw.is_some());
        is_there[13] = described.format != Format::Unknown || described.data_checksum != 0;
        self.push_numbers(Column::Format, &numbers, &is_there);
        self.push_numbers(Column::RecordChecksum, &[record_checksum], &[true]);
        self.columns[Column::Cause as usize].push_bytes(described.cause.as_bytes(), !described.cause.is_empty());
        self.columns[Column::Quant as usize].push_bytes(quant, !quant.is_empty());
        self.columns[Column::Huffman as usize].push_bytes(huffman, !huffman.is_empty());
        self.columns[Column::Entries as usize].push_bytes(&described.entries, has_facts);

        self.rows += 1;
        if self.rows.is_multiple_of(self.rows_per_batch) { self.flush() } else { Ok(()) }
    }

    /// Writes batches of another size than the head says.
    #[cfg(test)]
    pub(super) fn set_rows_per_batch(&mut self, rows: u64) {
        self.rows_per_batch = rows;
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// `Io` where it cannot be written; what was there before then stays.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()?;
        let Self { file, out, .. } = self;
        let mut buffered = out.into_inner().map_err(|error| cannot_write(file.target(), error))?;
        buffered.flush().map_err(|error| cannot_write(file.target(), error.into()))?;
        file.complete()
    }

    fn push_numbers(&mut self, first: Column, numbers: &[u64], is_there: &[bool]) {
        for (cells, (number, is_there)) in self.columns[first as usize..].iter_mut().zip(numbers.iter().zip(is_there)) {
            cells.push_number(*number, *is_there);
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.columns[0].is_there.is_empty() {
            return Ok(());
        }
        let arrays: Result<Vec<_>, _> = self.columns.iter_mut().map(Cells::take).collect();
        let batch = arrays.and_then(|arrays| RecordBatch::try_new(Arc::clone(&self.schema), arrays));
        batch.and_then(|batch| self.out.write(&batch)).map_err(|error| cannot_write(self.file.target(), error))
    }
}

/// Tables that rows of the file hold, and which rows.
#[derive(Default)]
struct Pool(HashMap<Vec<u8>, u64>);

impl Pool {
    /// The row that holds a table, and what this row holds: the table if it is the first.
    fn place<'a>(&mut self, row: u64, table: &'a [u8]) -> (u64, &'a [u8]) {
        if let Some(holder) = self.0.get(table) {
            return (*holder, &[]);
        }
        if self.0.len() >= POOL_MAX {
            self.0.clear();
        }
        self.0.insert(table.to_vec(), row);
        (row, table)
    }
}

/// The values of one column of the batch that is being filled.
struct Cells {
    kind: Kind,
    values: MutableBuffer,
    /// Of strings: where each ends, after a 0.
    offsets: Vec<i32>,
    is_there: Vec<bool>,
}

impl Cells {
    fn new(kind: Kind) -> Self {
        Self { kind, values: MutableBuffer::new(0), offsets: vec![0], is_there: Vec::new() }
    }

    fn push_number(&mut self, value: u64, is_there: bool) {
        let width = self.kind.width_bytes().unwrap_or(0);
        self.values.extend_from_slice(&value.to_le_bytes()[..width]);
        self.is_there.push(is_there);
    }

    fn push_bytes(&mut self, value: &[u8], is_there: bool) {
        self.values.extend_from_slice(value);
        // A batch of 512 rows of at most 2 MiB each does not reach 2 GiB.
        self.offsets.push(self.values.len() as i32);
        self.is_there.push(is_there);
    }

    fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let Self { kind, values, offsets, is_there } = std::mem::replace(self, Self::new(self.kind));
        let rows = is_there.len();
        let nulls = Some(NullBuffer::from(is_there)).filter(|nulls| nulls.null_count() > 0);
        let values: Buffer = values.into();
        let offsets = || OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(match kind {
            Kind::U8 => Arc::new(UInt8Array::new(ScalarBuffer::new(values, 0, rows), nulls)),
            Kind::U16 => Arc::new(UInt16Array::new(ScalarBuffer::new(values, 0, rows), nulls)),
            Kind::U32 => Arc::new(UInt32Array::new(ScalarBuffer::new(values, 0, rows), nulls)),
            Kind::U64 => Arc::new(UInt64Array::new(ScalarBuffer::new(values, 0, rows), nulls)),
            Kind::I64 => Arc::new(Int64Array::new(ScalarBuffer::new(values, 0, rows), nulls)),
            Kind::Utf8 => Arc::new(StringArray::try_new(offsets(), values, nulls)?),
            Kind::Binary => Arc::new(BinaryArray::try_new(offsets(), values, nulls)?),
        })
    }
}

fn cannot_write(path: &Path, error: ArrowError) -> Error {
    let message = format!("cannot write index {}: {error}", path.display());
    match error {
        ArrowError::IoError(_, error) => {
            Error::io(format!("cannot write index {}", path.display()), error).with_remedy("check the free space there")
        }
        other => Error::new(ErrorKind::Internal, message).with_source(other),
    }
}
