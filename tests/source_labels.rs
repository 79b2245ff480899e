//! Promises of labels that stand in a table: joined by key, and nothing of them guessed or lost without a word.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use forebay::order::Weights;
use forebay::source::{self, Extent, Filter, LabelTable, Mismatch, Source, Subset, UNLABELLED};
use forebay::{ErrorKind, Result};

/// Four samples: class0/00000, class0/00001, class1/00002 and class1/00003.
fn folder(root: &Path) -> Arc<dyn Source> {
    source::open(common::folder(root, &common::samples(4, 2))).expect("folder")
}

fn table(root: &Path, name: &str, text: impl AsRef<[u8]>) -> LabelTable {
    let path = root.join(name);
    std::fs::write(&path, text).expect("table");
    LabelTable::new(path)
}

fn labels(source: &dyn Source) -> Vec<i64> {
    (0..source.len()).map(|sample| source.label(sample).expect("label")).collect()
}

#[test]
fn labels_are_numbers_or_names_in_any_order_of_rows() {
    let root = tempfile::tempdir().expect("folder");
    let source = folder(root.path());
    let csv = "key,label\nclass1/00003,4\nclass0/00000,1\nclass0/00001, 9000000000\n\"class1/00002\",-3\n";
    let joined = table(root.path(), "numbers.csv", csv).join(Arc::clone(&source)).expect("joined");
    assert_eq!(labels(&joined), [1, 9_000_000_000, -3, 4]);
    assert!(joined.classes().is_empty() && joined.label(4).is_err());
    // Names, a byte order mark, other columns, carriage returns, keys with the extension of their files.
    let tsv = "\u{feff}what\tkey\tlabel\r\n0\tclass1/00003.jpg\tzebra\r\n1\tclass0/00000\tant\r\n2\tclass0/00001\t7\r\n3\tclass1/00002\tant\r\n";
    let joined = table(root.path(), "names.tsv", tsv).join(Arc::clone(&source)).expect("joined");
    assert_eq!((labels(&joined), joined.classes()), (vec![1, 0, 1, 2], &["7", "ant", "zebra"].map(str::to_owned)[..]));
    let other = table(root.path(), "other.csv", "file,class\n").columns("file", "class");
    let joined = other.unmatched_samples(Mismatch::Note).join(Arc::clone(&source)).expect("joined");
    assert_eq!(labels(&joined), [UNLABELLED; 4]);
    // Everything else is the source's, and a filter sees the new labels.
    let joined = table(root.path(), "numbers.csv", csv).join(Arc::clone(&source)).expect("joined");
    let part = Subset::matching(Arc::new(joined), &Filter::labels([-3, 4])).expect("part");
    assert_eq!(part.extent(0).unwrap(), source.extent(2).unwrap());
}

#[test]
fn what_fits_nothing_is_an_error_or_counted() {
    let root = tempfile::tempdir().expect("folder");
    let source = folder(root.path());
    let rows = |text: &str| table(root.path(), "t.csv", format!("key,label\n{text}"));
    let all = "class0/00000,1\nclass0/00001,1\nclass1/00002,2\nclass1/00003,2\n";
    for (text, words) in [
        (format!("{all}class0/00000,5\n"), ["row 6", "before", "class0/00000"]),
        (format!("{all}class9/x,5\n"), ["row 6", "no sample", "class9/x"]),
        ("class0/00000,1\n".to_owned(), ["t.csv", "no row", "class0/00001"]),
    ] {
        let error = rows(&text).join(Arc::clone(&source)).err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)) && error.remedy().is_some(), "{error}");
    }
    let noted = rows("class0/00000,1\nclass0/00000,5\nclass9/x,5\nclass9/w,5\nclass1/00003,2\n")
        .repeated(Mismatch::Note)
        .unmatched_rows(Mismatch::Note)
        .unmatched_samples(Mismatch::Note)
        .join(source)
        .expect("joined");
    assert_eq!(labels(&noted), [1, UNLABELLED, UNLABELLED, 2]);
    let notes = noted.notes().join("\n");
    for words in [
        "came before, left out: 1, such as class0/00000",
        "no sample has: 2, such as class9/w",
        "without a label: 2, such as class0/00001",
    ] {
        assert!(notes.contains(words), "{notes}");
    }
}

#[test]
fn samples_of_one_key_get_one_label() {
    let root = tempfile::tempdir().expect("folder");
    std::fs::write(root.path().join("list.txt"), "a.jpg 1\nb.jpg 2\na.jpg 3\n").expect("list");
    let source = source::open(root.path().join("list.txt")).expect("list");
    let joined = table(root.path(), "t.csv", "key,label\na,7\nb,8\n").join(source).expect("joined");
    assert_eq!(labels(&joined), [7, 8, 7]);
}

#[test]
fn hostile_tables_are_refused_by_row() {
    let root = tempfile::tempdir().expect("folder");
    let source = folder(root.path());
    let quote = format!("key,label\nclass0/00000,1\n\"{}", "x\n".repeat(1 << 20));
    let many: String = (0..1_000_001).map(|row| format!("nothing,c{row}\n")).collect();
    for (name, text, kind, words) in [
        ("empty.csv", b"".to_vec(), ErrorKind::InvalidParameter, ["no column", "\"key\""]),
        ("other.csv", b"file,class\nx,1\n".to_vec(), ErrorKind::InvalidParameter, ["\"key\"", "file, class"]),
        ("twice.csv", b"key,label,key\n".to_vec(), ErrorKind::InvalidParameter, ["two columns", "\"key\""]),
        ("short.csv", b"key,label\nx\n".to_vec(), ErrorKind::Corrupt, ["row 2", "1 values"]),
        ("long.csv", b"key,label\nclass0/00000,1\na,b,c\n".to_vec(), ErrorKind::Corrupt, ["row 3", "3 values"]),
        ("utf8.csv", b"key,label\nclass0/\xff,1\n".to_vec(), ErrorKind::Corrupt, ["row 2", "UTF-8"]),
        ("nokey.csv", b"key,label\n,1\n".to_vec(), ErrorKind::Corrupt, ["row 2", "key is empty"]),
        ("nolabel.csv", b"key,label\nclass0/00000,\n".to_vec(), ErrorKind::Corrupt, ["row 2", "label is empty"]),
        (
            "mixed.csv",
            b"key,label\nclass0/00000,1\nclass0/00001,dog\n".to_vec(),
            ErrorKind::Corrupt,
            ["row 3", "\"dog\""],
        ),
        (
            "huge.csv",
            b"key,label\nclass0/00000,1\nclass0/00001,99999999999999999999\n".to_vec(),
            ErrorKind::Corrupt,
            ["row 3", "whole number"],
        ),
        ("quote.csv", quote.into_bytes(), ErrorKind::Corrupt, ["row 3", "1 MiB"]),
        ("names.csv", format!("key,label\n{many}").into_bytes(), ErrorKind::LimitExceeded, ["million", "row 1000002"]),
        ("labels.xlsx", b"PK".to_vec(), ErrorKind::Unsupported, [".csv", "labels.xlsx"]),
    ] {
        let path = root.path().join(name);
        let table = table(root.path(), name, text).unmatched_rows(Mismatch::Note).repeated(Mismatch::Note);
        let error = table.join(Arc::clone(&source)).err().unwrap_or_else(|| panic!("{name} is taken"));
        assert_eq!(error.kind(), kind, "{name}: {error}");
        let text = error.to_string();
        assert!(
            words.iter().all(|word| text.contains(word)) && text.contains(&path.display().to_string()),
            "{name}: {text}"
        );
    }
    let error = LabelTable::new(root.path().join("none.csv")).join(source).err().expect("an error");
    assert!(error.kind() == ErrorKind::NotFound && error.remedy().is_some(), "{error}");
}

#[cfg(feature = "parquet")]
mod parquet_files {
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// A file of keys and labels, in row groups of three.
    fn write(path: &Path, compression: Compression, rows: &[(&str, Option<Label>)], kind: &str) -> LabelTable {
        let schema = format!("message m {{ optional {kind}; required binary key (UTF8); }}");
        let schema = Arc::new(parse_message_type(&schema).expect("schema"));
        let properties = WriterProperties::builder().set_compression(compression).build();
        let file = std::fs::File::create(path).expect("file");
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).expect("writer");
        for rows in rows.chunks(3) {
            let mut group = writer.next_row_group().expect("group");
            let levels: Vec<i16> = rows.iter().map(|(_, label)| i16::from(label.is_some())).collect();
            let mut column = group.next_column().expect("column").expect("labels");
            if kind.starts_with("int64") {
                let values: Vec<i64> = rows.iter().filter_map(|(_, label)| label.as_ref()?.parse().ok()).collect();
                column.typed::<Int64Type>().write_batch(&values, Some(&levels), None).expect("labels");
            } else {
                let values: Vec<ByteArray> =
                    rows.iter().filter_map(|(_, label)| (*label).map(ByteArray::from)).collect();
                column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).expect("labels");
            }
            column.close().expect("column");
            let mut column = group.next_column().expect("column").expect("keys");
            let keys: Vec<ByteArray> = rows.iter().map(|(key, _)| ByteArray::from(*key)).collect();
            column.typed::<ByteArrayType>().write_batch(&keys, None, None).expect("keys");
            column.close().expect("column");
            group.close().expect("group");
        }
        writer.close().expect("file");
        LabelTable::new(path)
    }

    type Label = &'static str;

    const ROWS: [(&str, Option<Label>); 4] = [
        ("class1/00003", Some("4")),
        ("class0/00000", Some("1")),
        ("class0/00001.jpg", Some("9000000000")),
        ("class1/00002", Some("-3")),
    ];

    #[test]
    fn a_parquet_file_says_what_the_text_does() {
        let root = tempfile::tempdir().expect("folder");
        let source = folder(root.path());
        let path = root.path().join("t.parquet");
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::GZIP(Default::default())] {
            for kind in ["int64 label", "binary label (UTF8)"] {
                let joined = write(&path, compression, &ROWS, kind).join(Arc::clone(&source)).expect("joined");
                assert_eq!(labels(&joined), [1, 9_000_000_000, -3, 4], "{compression} {kind}");
            }
        }
    }

    #[test]
    fn nulls_and_other_columns_are_refused() {
        let root = tempfile::tempdir().expect("folder");
        let source = folder(root.path());
        let path = root.path().join("t.parquet");
        let mut rows = ROWS;
        rows[3].1 = None;
        let error = write(&path, Compression::SNAPPY, &rows, "int64 label").join(Arc::clone(&source)).err().unwrap();
        assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("row 4"), "{error}");
        let table = write(&path, Compression::SNAPPY, &ROWS, "int64 label");
        for (key, label, word) in
            [("key", "class", "\"class\""), ("label", "label", "strings"), ("id", "label", "\"id\"")]
        {
            let error = table.clone().columns(key, label).join(Arc::clone(&source)).err().unwrap();
            assert!(error.kind() == ErrorKind::InvalidParameter && error.to_string().contains(word), "{error}");
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("label, key")), "{error}");
        }
    }

    #[test]
    fn damaged_files_are_errors() {
        let root = tempfile::tempdir().expect("folder");
        let source = folder(root.path());
        let path = root.path().join("t.parquet");
        let table = write(&path, Compression::SNAPPY, &ROWS, "int64 label");
        let whole = std::fs::read(&path).expect("file");
        for len in [0, 4, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).expect("cut");
            let error = table.join(Arc::clone(&source)).err().expect("an error");
            assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("t.parquet"), "{len}: {error}");
        }
        // Whatever a flipped byte does, it ends in labels or an error.
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            std::fs::write(&path, bytes).expect("flipped");
            let _ = table.join(Arc::clone(&source));
        }
    }
}

/// Keys as ImageNet's, and nothing to load.
struct Many(u64);

impl Source for Many {
    fn len(&self) -> u64 {
        self.0
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        Ok(Extent::Object(sample))
    }

    fn object_path(&self, _object: u64, path: &mut PathBuf) -> Result<()> {
        path.clear();
        Ok(())
    }

    fn label(&self, sample: u64) -> Result<i64> {
        Ok((sample % 1000) as i64)
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        use std::fmt::Write;
        key.clear();
        write!(key, "n{:08}/n{:08}_{sample}", sample % 1000, sample % 1000).expect("a string");
        Ok(())
    }
}

/// Times and memory of ten million samples. Run it by name, with `--ignored --nocapture`.
#[test]
#[ignore = "measures, and takes a while"]
fn ten_million_samples() {
    let source: Arc<dyn Source> = Arc::new(Many(10_000_000));
    for text in ["label < 500", "label = 7", "key = *7", "number < 5000000"] {
        let started = Instant::now();
        let subset = Subset::matching(Arc::clone(&source), &text.parse().unwrap()).expect("subset");
        let made = started.elapsed();
        let started = Instant::now();
        let mut at = 1u64;
        let sum: u64 = (0..1_000_000)
            .map(|_| {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                subset.number((at >> 20) % subset.len()).unwrap()
            })
            .fold(0, u64::wrapping_add);
        let look_up_ns = started.elapsed().as_nanos() / 1_000_000;
        println!(
            "{text}: {} kept in {made:?}, {} bytes, {look_up_ns} ns a look-up ({sum})",
            subset.len(),
            subset.memory_bytes()
        );
        assert!(subset.memory_bytes() as u64 <= 4 * subset.len() + 4096);
    }
    let root = tempfile::tempdir().expect("folder");
    let path = root.path().join("t.csv");
    {
        use std::io::Write;
        let mut out = std::io::BufWriter::new(std::fs::File::create(&path).expect("file"));
        out.write_all(b"key,label\n").expect("header");
        let mut key = String::new();
        for sample in (0..source.len()).rev() {
            source.key(sample, &mut key).expect("key");
            writeln!(out, "{key},n{:08}", sample % 1000).expect("row");
        }
    }
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak").to_owned()
    };
    let (started, before) = (Instant::now(), peak());
    let joined = LabelTable::new(path).join(Arc::clone(&source)).expect("joined");
    println!("joined {} rows in {:?}; {before} before, {} after", joined.len(), started.elapsed(), peak());
    assert!((0..source.len()).step_by(1001).all(|sample| joined.label(sample).unwrap() == (sample % 1000) as i64));
    let started = Instant::now();
    let weights = Weights::balanced(&*source).expect("weights");
    println!("balanced weights of {} samples in {:?}", weights.samples(), started.elapsed());
}
