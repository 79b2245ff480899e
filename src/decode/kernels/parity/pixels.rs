//! `forebay_resize_*` on pixels as they landed, against the host's augmentation.

use std::ops::Range;

use super::Random;
use super::machine::Machine;
use super::resize::{augment, mismatch};
use super::wave::Wave;
use crate::augment::Resizer;
use crate::decode::kernels::shape::pixels_image;
use crate::pixels::RowSink;
use crate::plan::{Augment, DType, Geometry, Orientation, SampleKey, SamplePlan, Size};

/// An image of interleaved bytes.
struct Picture {
    width: u32,
    height: u32,
    channels: u32,
    bytes: Vec<u8>,
}

impl Picture {
    fn new(random: &mut Random, width: u32, height: u32) -> Self {
        let channels = [1, 3][random.below(2)];
        let bytes = (0..width * height * channels).map(|_| random.next() as u8).collect();
        Self { width, height, channels, bytes }
    }

    /// Where a row's bytes are.
    fn row(&self, row: u32) -> Range<usize> {
        let bytes = (self.width * self.channels) as usize;
        row as usize * bytes..(row as usize + 1) * bytes
    }

    /// What the host makes of it.
    fn expected(&self, augment: &Augment, plan: &SamplePlan) -> Vec<u8> {
        let mut output = vec![0_f32; plan.output_bytes().div_ceil(4)];
        let bytes = &mut bytemuck::cast_slice_mut::<f32, u8>(&mut output)[..plan.output_bytes()];
        let (mut resizer, region, channels) = (Resizer::new(augment), plan.region(), self.channels as usize);
        let mut rows = resizer.begin(plan, bytes).unwrap();
        for row in region.y..region.y + region.height {
            let pixels = self.bytes[self.row(row)].chunks_exact(channels).skip(region.x as usize);
            let mut planes = rows.row();
            for (x, pixel) in pixels.take(region.width as usize).enumerate() {
                (0..3).for_each(|i| planes[i][x] = pixel[i % channels]);
            }
            rows.commit();
        }
        rows.finish().unwrap();
        bytes.to_vec()
    }
}

/// Lands what the plans need of some pictures, or more, and compares their tensors with the host's.
fn compare(machine: &mut Machine, pictures: &[Picture], augment: &Augment, random: &mut Random) -> Result<(), String> {
    machine.clear();
    let mut wave = Wave::default();
    let mut landed: Vec<(usize, &[u8])> = Vec::new();
    let mut end = 0;
    for (sample, picture) in pictures.iter().enumerate() {
        let Picture { width, height, channels, .. } = *picture;
        let key = SampleKey { seed: random.next(), epoch: 0, sample: sample as u64, view: 0 };
        let orientation = Orientation::from_exif(1 + random.below(8) as u16);
        let plan = augment.plan(key, width, height, orientation).unwrap();
        let region = plan.region();
        let rows = match random.below(2) {
            0 => region.y..region.y + region.height,
            _ => 0..height,
        };
        let at = end + random.below(40);
        let bytes = &picture.bytes[picture.row(rows.start).start..picture.row(rows.end - 1).end];
        landed.push((at, bytes));
        end = at + bytes.len();
        let (mut image, needs) = pixels_image(&plan, (width, height), channels, rows, at as u32).unwrap();
        image.tile = image.tile.min([u32::MAX, 1 + random.below(40) as u32][random.below(2)]);
        image.x.tables += wave.tap_words as u32;
        image.y.tables += wave.tap_words as u32;
        image.output = wave.output_bytes as u64;
        wave.tap_words += needs.taps as usize;
        wave.output_bytes += plan.output_bytes().next_multiple_of(16);
        wave.images.push(image);
        wave.plans.push(plan);
    }
    let mut at = wave.buffers(machine);
    at.upload = machine.alloc(end);
    // Only words of which a byte landed may be read.
    for &(to, bytes) in &landed {
        let word = to / 4 * 4;
        machine.write(at.upload + word as u64, &vec![0xAA; (to + bytes.len()).next_multiple_of(4) - word]);
    }
    landed.iter().for_each(|&(to, bytes)| machine.write(at.upload + to as u64, bytes));
    wave.taps(machine, &at)?;
    wave.resize(machine, &at, augment)?;
    for (i, (plan, picture)) in wave.plans.iter().zip(pictures).enumerate() {
        let found: Vec<u8> = machine.read(at.output + wave.images[i].output, plan.output_bytes());
        mismatch(&found, &picture.expected(augment, plan))
            .map_err(|error| format!("image {i}, {}x{}, {plan:?}: {error}", picture.width, picture.height))?;
    }
    Ok(())
}

pub fn run(seed: u64, machine: &mut Machine) -> Result<(), String> {
    let mut random = Random(seed);
    let augment = augment(&mut random);
    let picture = |random: &mut Random| {
        let (width, height) = (1 + random.below(120) as u32, 1 + random.below(90) as u32);
        Picture::new(random, width, height)
    };
    let pictures: Vec<Picture> = (0..1 + random.below(3)).map(|_| picture(&mut random)).collect();
    compare(machine, &pictures, &augment, &mut random).map_err(|error| format!("seed {seed}, {augment:?}: {error}"))
}

/// The element type that [`run`] makes of a seed.
pub fn dtype(seed: u64) -> DType {
    augment(&mut Random(seed)).dtype()
}

#[test]
fn tensors_are_those_of_the_host() {
    let mut machine = Machine::new();
    for seed in 0..100 {
        run(seed, &mut machine).unwrap();
    }
}

#[test]
fn wide_pictures_are_made_in_tiles() {
    let mut machine = Machine::new();
    let mut random = Random(3);
    let pictures = [Picture::new(&mut random, 3001, 9), Picture::new(&mut random, 2999, 7)];
    for geometry in [Geometry::None, Geometry::Resize { size: Size { height: 90, width: 90 } }] {
        let augment = Augment::builder(geometry).dtype(DType::U8).without_normalize().build().unwrap();
        compare(&mut machine, &pictures, &augment, &mut random).unwrap();
    }
}
