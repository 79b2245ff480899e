//! What the JPEG tests share: files with known pixels, a sink that keeps an image, random rectangles.
#![allow(dead_code, reason = "no test uses all of it")]

use std::path::{Path, PathBuf};

use forebay::Result;
use forebay::jpeg::{Decoder, Header};
use forebay::pixels::{ROW_PADDING_BYTES, Rect, RowSink, Scale, View};

/// A line of a digest file: what libjpeg-turbo makes of a file.
pub struct Expected {
    pub path: PathBuf,
    pub width: u32,
    pub height: u32,
    /// XXH3-128 of the rows of interleaved RGB, in hexadecimal.
    pub digest: String,
}

/// The fixtures in the repository.
pub fn fixtures() -> Vec<Expected> {
    fixtures_at(Scale::Full)
}

/// The fixtures, with their pixels at a scale.
pub fn fixtures_at(scale: Scale) -> Vec<Expected> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpeg");
    expected(&folder, &folder.join(format!("digests{}.txt", suffix(scale))))
}

/// The bytes of a fixture.
pub fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/jpeg/{name}.jpg", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A folder of shared test data, `None` (and a line that says so) where it is not there.
pub fn shared(name: &str) -> Option<Vec<Expected>> {
    shared_at(name, Scale::Full)
}

/// A folder of shared test data, with its pixels at a scale.
pub fn shared_at(name: &str, scale: Scale) -> Option<Vec<Expected>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")).join(name);
    if !folder.is_dir() {
        println!("skipped: no folder {}", folder.display());
        return None;
    }
    let digests = format!("{}/tests/fixtures/{name}{}.digests", env!("CARGO_MANIFEST_DIR"), suffix(scale));
    Some(expected(&folder, Path::new(&digests)))
}

fn suffix(scale: Scale) -> String {
    match scale.denominator() {
        1 => String::new(),
        denominator => format!("_1_{denominator}"),
    }
}

fn expected(folder: &Path, digests: &Path) -> Vec<Expected> {
    let text = std::fs::read_to_string(digests).unwrap();
    let lines = text.lines().map(|line| {
        let mut words = line.rsplitn(4, ' ');
        let digest = words.next().unwrap().to_owned();
        let mut number = || words.next().unwrap().parse().unwrap();
        let (height, width) = (number(), number());
        Expected { path: folder.join(words.next().unwrap()), width, height, digest }
    });
    lines.collect()
}

/// An image in three planes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub width: usize,
    pub rows: Vec<[Vec<u8>; 3]>,
}

impl Image {
    pub fn decode(decoder: &mut Decoder, bytes: &[u8], region: Option<Rect>) -> Result<Self> {
        Self::decode_at(decoder, bytes, Scale::Full, region)
    }

    pub fn decode_at(decoder: &mut Decoder, bytes: &[u8], scale: Scale, region: Option<Rect>) -> Result<Self> {
        let header = Header::parse(bytes)?;
        let region = region.unwrap_or(Rect::whole(scale.len(header.width), scale.len(header.height)));
        Self::collect(region, |sink| decoder.decode(bytes, &header, View { scale, region }, sink))
    }

    /// The rows that a decoder hands to a sink.
    pub fn collect(region: Rect, decode: impl FnOnce(&mut Sink) -> Result<()>) -> Result<Self> {
        let mut image = Self { width: region.width as usize, rows: Vec::new() };
        decode(&mut Sink { image: &mut image, next: None })?;
        assert_eq!(image.rows.len(), region.height as usize, "rows handed out");
        Ok(image)
    }

    pub fn digest(&self) -> String {
        let mut interleaved = Vec::new();
        for [red, green, blue] in &self.rows {
            interleaved.extend((0..self.width).flat_map(|x| [red[x], green[x], blue[x]]));
        }
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&interleaved))
    }

    pub fn crop(&self, region: Rect) -> Self {
        let (x, width) = (region.x as usize, region.width as usize);
        let rows = &self.rows[region.y as usize..(region.y + region.height) as usize];
        let cut = |plane: &Vec<u8>| plane[x..x + width].to_vec();
        Self { width, rows: rows.iter().map(|row| [cut(&row[0]), cut(&row[1]), cut(&row[2])]).collect() }
    }
}

/// Keeps the rows.
pub struct Sink<'a> {
    image: &'a mut Image,
    next: Option<[Vec<u8>; 3]>,
}

impl RowSink for Sink<'_> {
    fn row(&mut self) -> [&mut [u8]; 3] {
        // No sample has this value by default, so that a decoder that leaves some out is noticed.
        let plane = vec![0xA5; self.image.width + ROW_PADDING_BYTES];
        let [red, green, blue] = self.next.insert([plane.clone(), plane.clone(), plane]);
        [red, green, blue]
    }

    fn commit(&mut self) {
        let mut row = self.next.take().expect("row before commit");
        row.iter_mut().for_each(|plane| plane.truncate(self.image.width));
        self.image.rows.push(row);
    }
}

/// SplitMix64: the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    /// A rectangle inside an image: small ones, thin ones and large ones alike.
    pub fn region(&mut self, width: u32, height: u32) -> Rect {
        let mut side = |len: u32| {
            let longest = if self.below(3) == 0 { len.min(4) } else { len };
            let side = 1 + self.below(longest);
            (self.below(len - side + 1), side)
        };
        let ((x, width), (y, height)) = (side(width), side(height));
        Rect { x, y, width, height }
    }
}
