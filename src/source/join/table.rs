//! Tables as text.

use std::fs::File;
use std::io::{self, Read};

use super::{Cell, Joining, LabelTable, shortened, unreadable};
use crate::error::Result;

/// The longest row, beyond any key and label. Other columns count too.
const ROW_MAX_BYTES: u64 = 1 << 20;

/// Gives every row of a table to `joining`.
pub(super) fn read(table: &LabelTable, delimiter: u8, joining: &mut Joining<'_>) -> Result<()> {
    let file = File::open(&table.path).map_err(|error| unreadable(&table.path, error))?;
    let file = Bounded { file, left: ROW_MAX_BYTES };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file);
    let failed = |row: u64, error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            table.bad_row(row, error).with_remedy("check for a quote that is not closed")
        }
        csv::ErrorKind::Io(error) => unreadable(&table.path, error),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let cause = format!("it has {len} values, and the first line names {expected_len} columns");
            table.bad_row(row, cause).with_remedy("quote values that hold the separator")
        }
        csv::ErrorKind::Utf8 { .. } => table.bad_row(row, "it is not UTF-8").with_remedy("save the table as UTF-8"),
        _ => table
            .bad_row(row, "it is no row of a table")
            .with_remedy("check that it is text, separated as its name says"),
    };
    let mut record = csv::StringRecord::new();
    let names: Vec<String> = reader.headers().map_err(|error| failed(1, error))?.iter().map(named).collect();
    let column = |name: &str| {
        let mut places = names.iter().enumerate().filter(|(_, found)| *found == name).map(|(place, _)| place);
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(place),
            (Some(_), Some(_)) => Err(table.no_column(name, "two columns are named", &names)),
            (None, _) => Err(table.no_column(name, "there is no column", &names)),
        }
    };
    let (key, label) = (column(&table.key_column)?, column(&table.label_column)?);
    for row in 2u64.. {
        reader.get_mut().left = ROW_MAX_BYTES;
        if !reader.read_record(&mut record).map_err(|error| failed(row, error))? {
            break;
        }
        let (Some(key), Some(label)) = (record.get(key), record.get(label)) else { continue };
        if key.is_empty() {
            return Err(table.bad_row(row, format!("the key is empty, and the label \"{}\"", shortened(label))));
        }
        joining.take(row, key, &Cell::Text(label))?;
    }
    Ok(())
}

/// The name of a column. Spreadsheets put a byte order mark before the first.
fn named(text: &str) -> String {
    text.trim_start_matches('\u{feff}').trim().to_owned()
}

/// A file of which only so much is read for one row: a quote that is never closed makes one of all the rest.
struct Bounded {
    file: File,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if len == 0 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the row has more than 1 MiB"));
        }
        let read = self.file.read(&mut buffer[..len])?;
        self.left -= read as u64;
        Ok(read)
    }
}
