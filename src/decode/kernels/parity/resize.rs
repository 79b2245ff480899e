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

fn augment(random: &mut Random) -> Augment {
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

/// All kernels on a wave, their tensors against the host's.
fn run(machine: &mut Machine, files: &[Vec<u8>], augment: &Augment, random: &mut Random) -> Result<(), String> {
    let mut wave = Wave::default();
    for (sample, file) in files.iter().enumerate() {
        let header = Header::parse(file).unwrap();
        let key = SampleKey { seed: random.next(), epoch: 0, sample: sample as u64, view: 0 };
        let orientation = Orientation::from_exif(1 + random.below(8) as u16);
        let plan = augment.plan(key, header.width, header.height, orientation).unwrap();
        wave.push(file, &plan, [Grain::Rows, Grain::default(), Grain::Bits(200)][random.below(3)]);
    }
    let at = wave.buffers(machine);
    wave.run(machine, &at, augment)?;
    let statuses: Vec<u32> = machine.read(at.status, files.len());
    for (i, (plan, file)) in wave.plans.iter().zip(files).enumerate() {
        if statuses[i] != 0 {
            return Err(format!("image {i}: status {}", statuses[i]));
        }
        let found: Vec<u8> = machine.read(at.output + wave.images[i].output, plan.output_bytes());
        let expected = expected(file, augment, plan);
        if let Some(byte) = (0..found.len()).find(|&i| found[i] != expected[i]) {
            return Err(format!("image {i}, {plan:?}, {:?}: byte {byte} differs", plan.region()));
        }
    }
    Ok(())
}

#[test]
fn tensors_are_those_of_the_host() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let names: Vec<&str> = (0..1 + random.below(3)).map(|_| FILES[random.below(FILES.len())]).collect();
        let files: Vec<Vec<u8>> = names.iter().map(|name| fixture(name)).collect();
        let augment = augment(&mut random);
        let ran = run(&mut Machine::new(), &files, &augment, &mut random);
        ran.unwrap_or_else(|error| panic!("seed {seed}, {names:?}, {augment:?}: {error}"));
    }
}
