//! All kernels, one after the other, up to the finished tensor: `forebay_resize_*` against the host's augmentation.

use super::machine::Machine;
use super::wave::Wave;
use super::{FILES, Random, fixture};
use crate::augment::Resizer;
use crate::jpeg::{Decoder, Grain, Header};
use crate::plan::{
    Augment, DType, Geometry, IMAGENET_MEAN, IMAGENET_STD, Layout, Normalize, Orientation, SampleKey, SamplePlan, Size,
};

/// What the host makes of a file.
fn expected(file: &[u8], augment: &Augment, plan: &SamplePlan) -> Vec<u8> {
    let mut output = vec![0_f32; plan.output_bytes().div_ceil(4)];
    let bytes = &mut bytemuck::cast_slice_mut::<f32, u8>(&mut output)[..plan.output_bytes()];
    let mut resizer = Resizer::new(augment);
    let mut rows = resizer.begin(plan, bytes).unwrap();
    Decoder::new().decode(file, &Header::parse(file).unwrap(), plan.view(), &mut rows).unwrap();
    rows.finish().unwrap();
    bytes.to_vec()
}

/// A geometry that makes something of any image: small or large, wide or high, the whole or a part.
fn geometry(random: &mut Random) -> Geometry {
    let (height, width) = (1 + random.below(150) as u32, 1 + random.below(150) as u32);
    match random.below(4) {
        0 => Geometry::None,
        1 => Geometry::Resize { size: Size { height, width } },
        2 => Geometry::ResizeCenterCrop {
            resize: height.max(width),
            crop: Size { height: 1 + height / 2, width: 1 + width / 2 },
        },
        _ => Geometry::random_resized_crop(Size { height, width }),
    }
}

/// An augmentation of any kind.
pub fn augment(random: &mut Random) -> Augment {
    let dtype = [DType::U8, DType::F16, DType::BF16, DType::F32][random.below(4)];
    let builder = Augment::builder(geometry(random))
        .horizontal_flip([0.0, 1.0][random.below(2)])
        .dtype(dtype)
        .layout([Layout::Nchw, Layout::Nhwc][random.below(2)]);
    let is_normalized = dtype != DType::U8 && random.below(2) == 0;
    if is_normalized {
        builder.normalize(Normalize { mean: IMAGENET_MEAN, std: IMAGENET_STD })
    } else {
        builder.without_normalize()
    }
    .build()
    .unwrap()
}

/// All kernels on a wave of some files, their tensors against the host's.
pub fn run(seed: u64, machine: &mut Machine) -> Result<(), String> {
    machine.clear();
    let mut random = Random(seed);
    let (names, augment) = drawn(&mut random);
    let files: Vec<Vec<u8>> = names.iter().map(|name| fixture(name)).collect();
    compare(machine, &files, &augment, &mut random)
        .map_err(|error| format!("seed {seed}, {names:?}, {augment:?}: {error}"))
}

/// The element type that [`run`] makes of a seed.
pub fn dtype(seed: u64) -> DType {
    drawn(&mut Random(seed)).1.dtype()
}

/// Some files and an augmentation.
fn drawn(random: &mut Random) -> (Vec<&'static str>, Augment) {
    let names = (0..1 + random.below(3)).map(|_| FILES[random.below(FILES.len())]).collect();
    (names, augment(random))
}

#[test]
fn wide_images_are_made_in_tiles() {
    let mut machine = Machine::new();
    let (width, height) = (3000_u16, 12_u16);
    let mut random = Random(3);
    let rgb: Vec<u8> = (0..3 * usize::from(width) * usize::from(height)).map(|_| random.next() as u8).collect();
    let mut file = Vec::new();
    jpeg_encoder::Encoder::new(&mut file, 80).encode(&rgb, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    let files = [file];
    for geometry in [Geometry::None, Geometry::Resize { size: Size { height: 5, width: 90 } }] {
        machine.clear();
        let augment = Augment::builder(geometry).dtype(DType::U8).without_normalize().build().unwrap();
        compare(&mut machine, &files, &augment, &mut Random(1)).unwrap();
    }
}

fn compare(machine: &mut Machine, files: &[Vec<u8>], augment: &Augment, random: &mut Random) -> Result<(), String> {
    let mut wave = Wave::default();
    for (sample, file) in files.iter().enumerate() {
        let header = Header::parse(file).unwrap();
        let key = SampleKey { seed: random.next(), epoch: 0, sample: sample as u64, view: 0 };
        let orientation = Orientation::from_exif(1 + random.below(8) as u16);
        let plan = augment.plan(key, header.width, header.height, orientation).unwrap();
        wave.push(file, &plan, [Grain::Rows, Grain::default(), Grain::Bits(200)][random.below(3)]);
        // Fewer at a time than would fit.
        let image = &mut wave.images[sample];
        image.tile = image.tile.min([u32::MAX, 1 + random.below(40) as u32][random.below(2)]);
    }
    let at = wave.buffers(machine);
    wave.run(machine, &at, augment)?;
    let statuses: Vec<u32> = machine.read(at.status, files.len());
    for (i, (plan, file)) in wave.plans.iter().zip(files).enumerate() {
        if statuses[i] != 0 {
            return Err(format!("image {i}: status {}", statuses[i]));
        }
        let found: Vec<u8> = machine.read(at.output + wave.images[i].output, plan.output_bytes());
        mismatch(&found, &expected(file, augment, plan))
            .map_err(|error| format!("image {i}, {plan:?}, {:?}: {error}", plan.region()))?;
    }
    Ok(())
}

/// The first byte in which two tensors differ.
pub fn mismatch(found: &[u8], expected: &[u8]) -> Result<(), String> {
    match (0..expected.len()).find(|&i| found[i] != expected[i]) {
        Some(byte) => Err(format!("byte {byte} differs")),
        None => Ok(()),
    }
}

#[test]
fn tensors_are_those_of_the_host() {
    let mut machine = Machine::new();
    for seed in 0..60 {
        run(seed, &mut machine).unwrap();
    }
}
