//! A hostile sidecar: whatever it says of a shard, facts and places that hold together or an error.
//!
//! The input is a list of edits to the true sidecar of a small shard, four bytes each, or a whole file. Checksums are
//! not compared in this build (`cfg(fuzzing)`): who writes a hostile file writes those too.
#![no_main]

use std::path::PathBuf;

use forebay::decode::Decoder;
use forebay::jpeg::{Grain, Piece};
use forebay::raw::{Shape, npy};
use forebay::source::index::{BuildOptions, Part, build};
use forebay::source::{Extent, IndexMode, IndexOptions, Record, RecordedImage, open_with};
use forebay::{Limits, Rect};
use forebay_fuzz::{Image, Scratch, Tail};
use libfuzzer_sys::fuzz_target;

/// Grey pixels of 8 rows of 8, which begin where a header of 128 bytes ends.
const RAW: Shape = Shape { height: 8, width: 8, channels: 1 };

const SAMPLES: [(&str, &[u8]); 5] = [
    ("420", include_bytes!("../../fixtures/jpeg/420_131x97.jpg")),
    ("444", include_bytes!("../../fixtures/jpeg/444_33x31.jpg")),
    ("grey", include_bytes!("../../fixtures/jpeg/grey_33x31.jpg")),
    ("restarts", include_bytes!("../../fixtures/jpeg/restart_blocks_420.jpg")),
    ("scans", include_bytes!("../../fixtures/jpeg/scans_single_444.jpg")),
];

thread_local! {
    static BENCH: Bench = Bench::new();
}

/// A shard, and what is true of it.
struct Bench {
    scratch: Scratch,
    shard: PathBuf,
    bytes: Vec<u8>,
    index: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in SAMPLES {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, format!("{name}.jpg"), bytes).expect("an entry");
        }
        let mut raw = npy::header(RAW, 128).expect("a header");
        raw.resize(128 + RAW.len_bytes() as usize, 7);
        let mut header = tar::Header::new_ustar();
        header.set_size(raw.len() as u64);
        tar.append_data(&mut header, "raw.npy", &raw[..]).expect("an entry");
        let bytes = tar.into_inner().expect("a shard");
        let shard = scratch.write("s.tar", &bytes);
        let options = BuildOptions { grain: Grain::Bits(512), part: Part::WHOLE, dir: None, threads: 1, force: true };
        let built = build(&shard, &options, &|_, _| {}).expect("an index");
        assert_eq!((built.samples, built.failed.len()), (SAMPLES.len() as u64 + 1, 0));
        let index = std::fs::read(shard.with_extension("tar.index.arrow")).expect("the index");
        Self { scratch, shard, bytes, index }
    }

    /// The sidecar that an input means.
    fn edited(&self, input: &[u8]) -> Vec<u8> {
        if input.starts_with(b"ARROW1") {
            return input.to_vec();
        }
        let mut index = self.index.clone();
        for edit in input.chunks_exact(4) {
            let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % index.len().max(1);
            let Some(byte) = index.get_mut(at) else { break };
            match edit[2] % 4 {
                0 => *byte = edit[3],
                1 => *byte ^= 1 << (edit[3] % 8),
                2 => *byte = byte.wrapping_add(edit[3]),
                // Rare, since nothing behind it counts.
                _ if edit[2] > 0xF0 => index.truncate(at),
                _ => index[at..].iter_mut().take(4).for_each(|byte| *byte = edit[3]),
            }
        }
        index
    }
}

fuzz_target!(|input: &[u8]| {
    BENCH.with(|bench| {
        bench.scratch.write("s.tar.index.arrow", &bench.edited(input));
        let options = IndexOptions { mode: IndexMode::Required, dir: None };
        let Ok(source) = open_with(&bench.shard, &options) else { return };
        let (mut key, mut tail) = (String::new(), Tail::new(input));
        // Rows that are not there are errors too, but need not all be asked for.
        for sample in 0..source.len().min(2 * SAMPLES.len() as u64) {
            let _ = (source.key(sample, &mut key), source.label(sample));
            let Ok(Extent::Range { object: 0, offset, len_bytes }) = source.extent(sample) else { continue };
            let end = offset.checked_add(len_bytes).expect("an extent that ends");
            assert!(end <= bench.bytes.len() as u64, "{offset} and {len_bytes} of {}", bench.bytes.len());
            if let Ok(Some(record)) = source.record(sample) {
                decode(&record, &bench.bytes[offset as usize..end as usize], &mut tail);
            }
        }
        assert!(source.extent(source.len()).is_err());
    });
});

/// Decodes a region as the loader would.
fn decode(record: &Record, file: &[u8], tail: &mut Tail) {
    let info = record.image.info();
    match &record.image {
        RecordedImage::Jpeg(jpeg) => jpeg.facts.check().expect("the facts of a record are checked"),
        RecordedImage::Raw(facts) => facts.check(file.len() as u64).expect("the facts of a record are checked"),
    }
    let whole = Rect::whole(info.width, info.height);
    let mut region = tail.region(whole.width, whole.height);
    (region.width, region.height) = (region.width.min(64), region.height.min(64));
    let mut ranges = Vec::new();
    if record.image.ranges(region, &mut ranges).is_err() {
        return;
    }
    for range in &ranges {
        assert!(range.end <= file.len() as u64, "{range:?} of a sample of {} bytes", file.len());
    }
    let piece = |range: &std::ops::Range<u64>| Piece {
        offset: range.start,
        bytes: &file[range.start as usize..range.end as usize],
    };
    let pieces: Vec<_> = ranges.iter().map(piece).collect();
    Image::of(region, |image| Decoder::new(Limits::default()).decode_indexed(&pieces, &record.image, region, image));
}
