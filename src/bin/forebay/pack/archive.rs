//! The bytes of an archive: ustar headers, and before them PAX records that name what is too long for one and fill the
//! space before what is aligned.

use std::io::{self, Write};

use super::layout::BLOCK_BYTES;

/// Bytes of a name that a header holds.
const NAME_BYTES: usize = 100;

/// An archive that is written from its start to its end.
pub struct Archive<W> {
    out: W,
    at: u64,
}

/// Blocks of records that an entry of this name needs.
pub fn name_blocks(name: &str) -> u64 {
    if name.len() <= NAME_BYTES { 0 } else { (path_record(name).len() as u64).div_ceil(BLOCK_BYTES) }
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, at: 0 }
    }

    /// Bytes written, whole blocks.
    pub fn len_bytes(&self) -> u64 {
        self.at
    }

    /// Writes a file whose data comes in parts. `record_blocks` are what it [needs](name_blocks) or more, which a comment
    /// fills that every reader passes over.
    pub fn append(&mut self, name: &str, record_blocks: u64, parts: &[&[u8]]) -> io::Result<()> {
        if record_blocks > 0 {
            let records = records(name, record_blocks * BLOCK_BYTES);
            self.write_header(b"././@PaxHeader", b'x', records.len() as u64)?;
            self.write_data(&[&records])?;
        }
        let len_bytes = parts.iter().map(|part| part.len() as u64).sum();
        self.write_header(&name.as_bytes()[..name.len().min(NAME_BYTES)], b'0', len_bytes)?;
        self.write_data(parts)
    }

    /// Writes the end, and gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES as usize])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write_header(&mut self, name: &[u8], kind: u8, len_bytes: u64) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        // Not by the method that refuses absolute names and more: it is the name of a sample, to be found again.
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(len_bytes);
        header.set_mode(0o644);
        // No time and no owner, so that the same data gives the same bytes.
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.at += BLOCK_BYTES;
        Ok(())
    }

    fn write_data(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut len_bytes = 0;
        for part in parts {
            self.out.write_all(part)?;
            len_bytes += part.len() as u64;
        }
        let padded = len_bytes.next_multiple_of(BLOCK_BYTES);
        self.out.write_all(&[0; BLOCK_BYTES as usize][..(padded - len_bytes) as usize])?;
        self.at += padded;
        Ok(())
    }
}

/// The records of an entry: its name where a header does not hold it, and a comment up to a length where the name alone
/// does not reach into the last block of it.
fn records(name: &str, len_bytes: u64) -> Vec<u8> {
    let mut records = if name_blocks(name) > 0 { path_record(name) } else { Vec::new() };
    if (records.len() as u64) + BLOCK_BYTES <= len_bytes {
        // Space for the key and more in any case.
        let fill = len_bytes as usize - records.len();
        let value = vec![b' '; fill - fill.to_string().len() - " comment=\n".len()];
        records.extend_from_slice(&record("comment", &value));
    }
    records
}

fn path_record(name: &str) -> Vec<u8> {
    record("path", name.as_bytes())
}

/// A PAX record, whose length counts its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + " =\n".len();
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    let mut record = format!("{len} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves_and_fill_their_blocks() {
        assert_eq!(record("path", b"a"), b"9 path=a\n");
        for len in [1, 85, 86, 87, 88, 89, 90, 500, 985, 986, 987, 988, 9_980, 9_990] {
            let record = record("path", &vec![b'x'; len]);
            let digits = record.iter().take_while(|byte| byte.is_ascii_digit()).count();
            assert_eq!(str::from_utf8(&record[..digits]).unwrap().parse(), Ok(record.len()));
        }
        for name in
            ["a.jpg".to_owned(), "n".repeat(101), "n".repeat(490), "n".repeat(501), "n".repeat(502), "n".repeat(900)]
        {
            for blocks in name_blocks(&name).max(1)..12 {
                let records = records(&name, blocks * BLOCK_BYTES);
                assert_eq!((records.len() as u64).div_ceil(BLOCK_BYTES), blocks, "{}, {blocks}", name.len());
                let is_full = records.len() as u64 == blocks * BLOCK_BYTES;
                assert!(is_full || blocks == name_blocks(&name), "{}, {blocks}", name.len());
            }
        }
    }

    #[test]
    fn another_reader_finds_what_was_written() {
        let names =
            ["a.jpg".to_owned(), format!("{}/b.npy", "deep".repeat(60)), "/abs/../c.cls".to_owned(), "ü.jpg".into()];
        let mut archive = Archive::new(Vec::new());
        for (name, blocks) in names.iter().zip([0, 5, 0, 2]) {
            archive.append(name, name_blocks(name).max(blocks), &[b"data of ", name.as_bytes()]).unwrap();
        }
        let len_bytes = archive.len_bytes();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() as u64, len_bytes + 1024);
        let mut read = tar::Archive::new(&bytes[..]);
        let mut found = 0;
        for (entry, name) in read.entries().unwrap().zip(&names) {
            let mut entry = entry.unwrap();
            assert_eq!(String::from_utf8_lossy(&entry.path_bytes()), *name);
            let mut data = String::new();
            io::Read::read_to_string(&mut entry, &mut data).unwrap();
            assert_eq!(data, format!("data of {name}"));
            found += 1;
        }
        assert_eq!(found, names.len());
    }
}
