//! Indexes that no indexer writes: hostile ones with every checksum right, and one of ten million samples.

use std::borrow::Cow;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::build::new_head;
use super::describe::{Described, Describer, Format};
use super::head::{DataKind, Head};
use super::identity::modified;
use super::map::Sidecar;
use super::place::of_shard;
use super::row::Listed;
use super::write::Writer;
use super::{IndexMode, IndexOptions, RecordedImage};
use crate::Loader;
use crate::error::{ErrorKind, Result};
use crate::jpeg::{ColourModel, Facts, Grain};
use crate::raw;
use crate::source::labels::Label;
use crate::source::{Extent, Source, TarShards};

/// A shard of this length, all holes.
fn shard(dir: &Path, len_bytes: u64) -> PathBuf {
    let path = dir.join("shard.tar");
    File::create(&path).unwrap().set_len(len_bytes).unwrap();
    path
}

fn listed(sample: u64, offset: u64, length: u64) -> Listed<'static> {
    let key = Cow::Owned(format!("n{:08}/n{:08}_{:05}", sample / 1300, sample / 1300, sample % 1300));
    let label = Label::Is(sample as i64 / 1300);
    Listed { key, path: Cow::Borrowed(&[]), label, offset, length, modified: (0, 0), flags: 0 }
}

fn described() -> Described {
    let facts = Facts {
        width: 500,
        height: 375,
        colour: ColourModel::YCbCr,
        sampling: [(2, 2), (1, 1), (1, 1)],
        slots: [[0, 0, 0], [1, 1, 1], [1, 1, 1]],
        restart_interval: 0,
        orientation: 1,
        scan_offset: 600,
        scan_bytes: 8_000,
    };
    Described {
        format: Format::Baseline,
        cause: String::new(),
        width: facts.width,
        height: facts.height,
        orientation: 1,
        components: 3,
        colour: Some(facts.colour),
        facts: Some(facts),
        raw: None,
        quant: vec![1; 130],
        huffman: vec![2; 420],
        entries: vec![3; 24],
        data_checksum: 7,
    }
}

fn head(shard: &Path, rows: u64) -> Head {
    let metadata = fs::metadata(shard).unwrap();
    let head = new_head(Grain::default());
    Head { rows, total: rows, size_bytes: metadata.len(), modified: modified(&metadata), ..head }
}

fn write(shard: &Path, head: &Head, rows: impl Iterator<Item = (Listed<'static>, Described)>) {
    let mut writer = Writer::create(&of_shard(shard, None), head).unwrap();
    rows.for_each(|(listed, described)| writer.push(&listed, &described).unwrap());
    writer.finish().unwrap();
}

fn open(shard: &Path) -> Result<TarShards> {
    TarShards::open_with(&[shard.to_owned()], &IndexOptions { mode: IndexMode::Required, dir: None })
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn what_was_written_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), 1 << 40);
    let odd = Described { format: Format::Png, width: 7, height: 9, data_checksum: 3, ..Described::default() };
    let unread = Described { cause: "it is gone".into(), ..Described::default() };
    let sparse = Listed { label: Label::Unreadable, flags: super::SPARSE, ..listed(2, 512, 0) };
    let missing = Listed { label: Label::Missing, ..listed(3, 512, u64::from(u32::MAX)) };
    let own_tables = Described { quant: vec![9; 65], huffman: vec![], ..described() };
    let headerless = Listed { flags: super::HEADERLESS, ..listed(5, 512, 60) };
    let no_shape = Described { format: Format::Raw, data_checksum: 4, ..Described::default() };
    let rows = [
        (listed(0, 512, 9), described()),
        (listed(1, 512, 9), odd),
        (sparse, unread),
        (missing, own_tables),
        (listed(4, 512, 188), raw_image(raw::Facts { shape: SHAPE, offset: 128 })),
        (headerless, no_shape),
    ];
    write(&shard, &head(&shard, 6), rows.clone().into_iter());
    let sidecar = Sidecar::open(of_shard(&shard, None)).unwrap().unwrap();
    for (row, (listed, described)) in rows.iter().enumerate() {
        assert_eq!(sidecar.listed(row as u64).unwrap(), *listed);
        assert_eq!(sidecar.described(row as u64).unwrap(), *described);
    }
}

const SHAPE: raw::Shape = raw::Shape { height: 5, width: 4, channels: 3 };

/// What is said of raw pixels.
fn raw_image(facts: raw::Facts) -> Described {
    let raw::Shape { height, width, channels } = facts.shape;
    let image = Described { format: Format::Raw, width, height, components: channels, ..Described::default() };
    Described { raw: Some(facts), data_checksum: 5, ..image }
}

#[test]
fn raw_pixels_that_no_sample_holds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), 10_240);
    let facts = |shape, offset| raw_image(raw::Facts { shape, offset });
    let rows = [
        facts(SHAPE, 128),
        facts(SHAPE, 129),
        facts(SHAPE, u64::MAX),
        facts(raw::Shape { width: u32::MAX, height: u32::MAX, ..SHAPE }, 0),
        facts(raw::Shape { width: 0, ..SHAPE }, 128),
        facts(raw::Shape { channels: 2, ..SHAPE }, 128),
    ];
    write(&shard, &head(&shard, 6), rows.into_iter().map(|described| (listed(0, 512, 188), described)));
    let source = open(&shard).unwrap();
    let image = source.record(0).unwrap().unwrap().image;
    assert!(matches!(image, RecordedImage::Raw(raw::Facts { shape: SHAPE, offset: 128 })), "{image:?}");
    for sample in 1..6 {
        assert_eq!(kind(source.record(sample)), Some(ErrorKind::IndexStale), "sample {sample}");
    }
}

/// An index of a version that knew no raw pixels is used unless it may have passed some over.
#[test]
fn an_older_index_is_stale_only_where_it_left_files_out() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), 10_240);
    let of_before = || {
        let mut head = head(&shard, 1);
        head.formats.truncate(13);
        head
    };
    for (reason, is_stale) in [
        (None, false),
        (Some("links left out (an archive's links are never followed)"), false),
        (Some("keys without a .jpg, .jpeg, .png or .webp left out"), true),
        (Some("files that are no .jpg, .jpeg, .png or .webp left out"), true),
    ] {
        let mut head = of_before();
        reason.into_iter().for_each(|reason| head.seen.add(reason, b"a.npy"));
        let _ = fs::remove_file(of_shard(&shard, None));
        write(&shard, &head, std::iter::once((listed(0, 512, 9000), described())));
        let opened = open(&shard);
        assert_eq!(opened.is_err(), is_stale, "{reason:?}");
        if let Err(error) = opened {
            assert!(error.kind() == ErrorKind::IndexStale && error.to_string().contains(".npy"), "{error}");
        }
    }
}

/// Whatever is asked of them, since a reader of the record need not ask where the sample lies.
#[test]
fn samples_outside_of_their_shard_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), 10_240);
    let places = [(512, 9728), (512, 9729), (u64::MAX, 2), (10_241, 0), (2, u64::MAX)];
    let rows = places.iter().map(|(offset, length)| (listed(0, *offset, *length), described()));
    write(&shard, &head(&shard, 5), rows);
    let source = open(&shard).unwrap();
    assert_eq!(source.extent(0).unwrap(), Extent::Range { object: 0, offset: 512, len_bytes: 9728 });
    assert!(source.record(0).unwrap().is_some());
    for sample in 1..5 {
        assert_eq!(kind(source.extent(sample)), Some(ErrorKind::IndexStale), "extent of {sample}");
        assert_eq!(kind(source.record(sample)), Some(ErrorKind::IndexStale), "record of {sample}");
        assert_eq!(kind(source.label(sample)), Some(ErrorKind::IndexStale), "label of {sample}");
    }
}

#[test]
fn scans_that_end_behind_their_sample_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), 1 << 20);
    let scan = |scan_offset, scan_bytes| {
        let facts = described().facts.map(|facts| Facts { scan_offset, scan_bytes, ..facts });
        (listed(0, 512, 9000), Described { facts, ..described() })
    };
    let rows = [scan(600, 8400), scan(600, 8401), scan(9001, 0), scan(u64::MAX, 1), scan(1, u64::MAX)];
    write(&shard, &head(&shard, 5), rows.into_iter());
    let source = open(&shard).unwrap();
    let record = source.record(0).unwrap().unwrap();
    let facts = record.jpeg().unwrap().facts;
    assert_eq!(facts.scan_offset + facts.scan_bytes, record.len_bytes);
    for sample in 1..5 {
        assert!(source.extent(sample).is_ok());
        assert_eq!(kind(source.record(sample)), Some(ErrorKind::IndexStale), "sample {sample}");
    }
}

#[test]
fn facts_that_no_jpeg_has_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), 10_240);
    let with = |change: fn(&mut Facts)| {
        let mut described = described();
        described.facts.as_mut().map(change);
        described
    };
    let mut rows = vec![
        with(|_| {}),
        with(|facts| facts.sampling[0] = (0, 2)),
        with(|facts| facts.sampling[1] = (7, 1)),
        with(|facts| facts.slots[2] = [4, 0, 0]),
        Described { colour: Some(ColourModel::Grey), ..described() },
        Described { colour: Some(ColourModel::Cmyk), ..described() },
    ];
    rows.push(Described { width: 0, height: 0, ..described() });
    rows.push(Described { width: 70_000, ..described() });
    let count = rows.len() as u64;
    write(&shard, &head(&shard, count), rows.into_iter().map(|described| (listed(0, 512, 9000), described)));
    let source = open(&shard).unwrap();
    assert!(source.record(0).unwrap().is_some());
    for sample in 1..count {
        assert_eq!(kind(source.record(sample)), Some(ErrorKind::IndexStale), "sample {sample}");
    }
}

#[test]
fn declared_counts_cost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), 10_240);
    let sound = head(&shard, 3);
    let rows = || (0..3).map(|sample| (listed(sample, 512, 9), described()));
    for bad in [
        Head { rows: u64::MAX, total: u64::MAX, ..sound.clone() },
        Head { rows: 512, total: 512, ..sound.clone() },
        Head { rows: 2, total: 2, ..sound.clone() },
        Head { rows_per_batch: 1, ..sound.clone() },
        Head { rows_per_batch: 0, ..sound.clone() },
        Head { rows_per_batch: u64::MAX, ..sound.clone() },
        Head { first: u64::MAX, ..sound.clone() },
        Head { parts: 0, ..sound.clone() },
        Head { parts: u64::MAX, ..sound.clone() },
        Head { kind: DataKind::Folder, ..sound.clone() },
    ] {
        // The writer needs a batch; what the head says is for the reader.
        let mut writer = Writer::create(&of_shard(&shard, None), &bad).unwrap();
        writer.set_rows_per_batch(super::schema::ROWS_PER_BATCH);
        rows().for_each(|(listed, described)| writer.push(&listed, &described).unwrap());
        writer.finish().unwrap();
        let refused = match open(&shard) {
            Err(error) => error.kind() == ErrorKind::IndexStale,
            Ok(source) => {
                (0..source.len().min(3)).all(|sample| kind(source.extent(sample)) == Some(ErrorKind::IndexStale))
            }
        };
        assert!(refused, "{bad:?}");
    }
    write(&shard, &sound, rows());
    assert!(open(&shard).is_ok());
}

/// Rows whose checksums are right, and which lie elsewhere than they were written.
#[test]
fn record_batches_in_another_order_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), 1 << 20);
    let head = Head { rows_per_batch: 2, ..head(&shard, 4) };
    write(&shard, &head, (0..4).map(|sample| (listed(0, 512 * sample, 9), described())));
    let path = of_shard(&shard, None);
    let mut bytes = fs::read(&path).unwrap();
    let offsets = {
        let len = bytes.len();
        let footer_len = u32::from_le_bytes(bytes[len - 10..len - 6].try_into().unwrap()) as usize;
        let footer = arrow_ipc::root_as_footer(&bytes[len - 10 - footer_len..len - 10]).unwrap();
        let blocks = footer.recordBatches().unwrap();
        [0, 1].map(|block| blocks.get(block).offset().to_le_bytes())
    };
    let places = offsets.map(|offset| bytes.windows(8).rposition(|window| window == offset).unwrap());
    for (place, offset) in places.into_iter().zip(offsets.into_iter().rev()) {
        bytes[place..place + 8].copy_from_slice(&offset);
    }
    fs::write(&path, bytes).unwrap();
    let source = open(&shard).unwrap();
    for sample in 0..4 {
        assert_eq!(kind(source.extent(sample)), Some(ErrorKind::IndexStale), "sample {sample}");
    }
}

/// Names the folder of the tests below, which take half a minute and 2 GiB.
const TEN_MILLION: &str = "FOREBAY_TEST_TEN_MILLION";
const SAMPLES: u64 = 10_000_000;

fn ten_million() -> PathBuf {
    PathBuf::from(std::env::var_os(TEN_MILLION).expect("FOREBAY_TEST_TEN_MILLION names a folder")).join("shard.tar")
}

/// A shard of a dozen JPEGs of 64x64.
fn pack_photos(shard: &Path) {
    let mut tar = tar::Builder::new(File::create(shard).unwrap());
    for number in 0..12u32 {
        let pixels: Vec<u8> = (0..64 * 64 * 3).map(|at| (at * (number + 3) / 7 % 251) as u8).collect();
        let mut bytes = vec![];
        let mut encoder = Encoder::new(&mut bytes, 90);
        // Without it the encoder writes several scans.
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        encoder.encode(&pixels, 64, 64, ColorType::Rgb).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, format!("{number}.jpg"), &bytes[..]).unwrap();
    }
    tar.finish().unwrap();
}

/// The photos of a shard over and over, as ten million samples.
#[test]
#[ignore = "writes 2 GiB to the folder that FOREBAY_TEST_TEN_MILLION names"]
fn ten_million_samples_are_written() {
    let shard = ten_million();
    pack_photos(&shard);
    let bytes = fs::read(&shard).unwrap();
    let packed = TarShards::open(std::slice::from_ref(&shard)).unwrap();
    let mut describer = Describer::new(Grain::default());
    let photos: Vec<_> = (0..packed.len())
        .map(|sample| {
            let Extent::Range { offset, len_bytes, .. } = packed.extent(sample).unwrap() else { unreachable!() };
            let described = describer.describe(&bytes[offset as usize..][..len_bytes as usize], false);
            assert!(described.facts.is_some(), "{}", described.cause);
            (offset, len_bytes, described)
        })
        .collect();
    let started = Instant::now();
    let rows = (0..SAMPLES).zip(photos.iter().cycle());
    let rows = rows.map(|(sample, (offset, length, described))| (listed(sample, *offset, *length), described.clone()));
    write(&shard, &head(&shard, SAMPLES), rows);
    println!("written in {:.1} s", started.elapsed().as_secs_f64());
}

#[test]
#[ignore = "loads what the test above wrote, in a process of its own"]
fn ten_million_samples_are_loaded_at_once() {
    let before_mib = resident_max_mib();
    let started = Instant::now();
    let mut loader = Loader::open(ten_million()).index(IndexMode::Required).build().unwrap();
    let opened = started.elapsed();
    let mut epoch = loader.epoch(0);
    epoch.next().unwrap().unwrap();
    let (first, first_mib) = (started.elapsed(), resident_max_mib());
    println!(
        "opened after {opened:?}, first batch after {first:?}, {first_mib} MiB resident at most, {before_mib} before"
    );
    // 200 MB, though up to three batches of 74 MiB may be begun.
    assert!(first.as_secs_f64() < 2.0 && first_mib < 190);
    // What was touched of the index is given back: from here on only the memory fixed in advance fills up.
    let samples: usize = epoch.by_ref().take(200).map(|batch| batch.unwrap().len()).sum();
    drop(epoch);
    let (report, last_mib) = (loader.report(), resident_max_mib());
    let fixed_mib = report.memory_bound_bytes >> 20;
    println!("{samples} samples later {last_mib} MiB resident at most, {fixed_mib} MiB of them fixed");
    assert!(report.indexed >= samples as u64 && report.index_fallbacks == 0);
    assert!(last_mib < fixed_mib + 64);
}

fn resident_max_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}
