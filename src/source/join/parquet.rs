//! Tables as Parquet files.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};

use super::{Cell, Joining, LabelTable, unreadable};
use crate::error::{Error, ErrorKind, Result};

/// Rows that are read at a time.
const ROWS: usize = 4096;

/// Gives every row of a table to `joining`.
pub(super) fn read(table: &LabelTable, joining: &mut Joining<'_>) -> Result<()> {
    let file = File::open(&table.path).map_err(|error| unreadable(&table.path, error))?;
    // The reader is not ours, and a damaged file must not end the process.
    catch_unwind(AssertUnwindSafe(|| read_file(table, file, joining)))
        .unwrap_or_else(|_| Err(damaged(table, "its reader gave up on it")))
}

fn read_file(table: &LabelTable, file: File, joining: &mut Joining<'_>) -> Result<()> {
    let failed = |error: ParquetError| match error {
        ParquetError::NYI(cause) => unsupported(table, &cause),
        ParquetError::General(cause) if cause.contains("Disabled feature") => unsupported(table, &cause),
        error => damaged(table, &error.to_string()).with_source(error),
    };
    let reader = SerializedFileReader::new(file).map_err(failed)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let column = |name: &str| {
        let place = names.iter().position(|found| found == name);
        let place = place.ok_or_else(|| table.no_column(name, "there is no column", &names))?;
        let column = schema.column(place);
        if column.max_rep_level() > 0 || column.max_def_level() > 1 {
            return Err(table.no_column(name, "nested is the column", &names));
        }
        Ok((place, column.physical_type(), column.max_def_level()))
    };
    let (key, key_type, key_level) = column(&table.key_column)?;
    let (label, label_type, label_level) = column(&table.label_column)?;
    if key_type != Type::BYTE_ARRAY {
        return Err(table.no_column(&table.key_column, "of another type than strings is the column", &names));
    }
    if !matches!(label_type, Type::BYTE_ARRAY | Type::INT32 | Type::INT64) {
        let cause = "of another type than integers or strings is the column";
        return Err(table.no_column(&table.label_column, cause, &names));
    }
    let mut row = 1;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(failed)?;
        let mut keys = Values::of(&*group, key, key_level).map_err(failed)?;
        let mut labels = Values::of(&*group, label, label_level).map_err(failed)?;
        loop {
            let (read, read_labels) = (keys.next().map_err(failed)?, labels.next().map_err(failed)?);
            if read != read_labels {
                return Err(damaged(table, "its columns have different numbers of rows"));
            }
            if read == 0 {
                break;
            }
            for (key, label) in keys.cells().zip(labels.cells()) {
                let null = || table.bad_row(row, "the key or the label is null");
                let (Some(Value::Bytes(key)), Some(label)) = (key, label) else { return Err(null()) };
                let text = |bytes: &ByteArray| {
                    let text = std::str::from_utf8(bytes.data()).map(str::to_owned);
                    text.map_err(|_| table.bad_row(row, "the key or the label is not UTF-8"))
                };
                match label {
                    Value::Number(number) => joining.take(row, &text(key)?, &Cell::Number(number))?,
                    Value::Bytes(label) => joining.take(row, &text(key)?, &Cell::Text(&text(label)?))?,
                }
                row += 1;
            }
        }
    }
    Ok(())
}

/// The values of a column of one row group, some rows at a time.
struct Values {
    reader: ColumnReader,
    /// The level of a value that is not null.
    level: i16,
    levels: Vec<i16>,
    bytes: Vec<ByteArray>,
    narrow: Vec<i32>,
    wide: Vec<i64>,
    rows: usize,
}

enum Value<'a> {
    Number(i64),
    Bytes(&'a ByteArray),
}

impl Values {
    fn of(group: &dyn RowGroupReader, column: usize, level: i16) -> Result<Self, ParquetError> {
        let reader = group.get_column_reader(column)?;
        Ok(Self { reader, level, levels: vec![], bytes: vec![], narrow: vec![], wide: vec![], rows: 0 })
    }

    /// Reads the next rows: how many.
    fn next(&mut self) -> Result<usize, ParquetError> {
        self.levels.clear();
        let levels = (self.level > 0).then_some(&mut self.levels);
        let (rows, ..) = match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.bytes.clear();
                reader.read_records(ROWS, levels, None, &mut self.bytes)?
            }
            ColumnReader::Int32ColumnReader(reader) => {
                self.narrow.clear();
                reader.read_records(ROWS, levels, None, &mut self.narrow)?
            }
            ColumnReader::Int64ColumnReader(reader) => {
                self.wide.clear();
                reader.read_records(ROWS, levels, None, &mut self.wide)?
            }
            _ => return Err(ParquetError::General("a column of another type than its schema says".to_owned())),
        };
        self.rows = rows;
        Ok(rows)
    }

    /// The rows read last. Null ones have no value.
    fn cells(&self) -> impl Iterator<Item = Option<Value<'_>>> {
        let mut at = 0;
        (0..self.rows).map(move |row| {
            if self.level > 0 && self.levels.get(row) != Some(&self.level) {
                return None;
            }
            at += 1;
            let at = at - 1;
            let number = self.narrow.get(at).copied().map(i64::from).or_else(|| self.wide.get(at).copied());
            number.map(Value::Number).or_else(|| self.bytes.get(at).map(Value::Bytes))
        })
    }
}

fn damaged(table: &LabelTable, cause: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("labels {}: {cause}", table.path.display()))
        .with_remedy("check that it is a whole Parquet file; encrypted ones are not read")
}

fn unsupported(table: &LabelTable, cause: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("labels {}: {cause}", table.path.display()))
        .with_remedy("write it uncompressed, or with Snappy or gzip: compression=\"snappy\" in pandas and polars")
}
