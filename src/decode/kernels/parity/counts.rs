//! How many instructions the kernels take for one image, so that none grows unseen.

use simcuda::ptx::Stats;

use super::machine::Machine;
use super::wave::Wave;
use crate::decode::kernels::shape::pixels_image;
use crate::jpeg::Grain;
use crate::plan::{Augment, Orientation, SampleKey, SamplePlan};

/// Kernel, instructions of all threads, instructions of all warps.
const RECORDED: &str = include_str!("../../../../kernels/instructions.tsv");

/// An image of 500x375 with as much detail as a photo: 110 KB.
fn image(sampling: jpeg_encoder::SamplingFactor) -> Vec<u8> {
    let (width, height) = (500_u16, 375_u16);
    let mut random = super::Random(1);
    let mut rgb = Vec::new();
    for y in 0..u32::from(height) {
        for x in 0..u32::from(width) {
            let texture = (x * x / 97 + y * y / 53 + (x * y / 31) % 64) as u8;
            let noise = random.below(24) as u8;
            rgb.extend([texture / 2 + noise, (x / 3) as u8 / 2 + noise, (y / 2) as u8 / 2 + texture / 4]);
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.set_sampling_factor(sampling);
    encoder.encode(&rgb, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// Half of the columns and rows, at 224x224.
fn crop() -> (Augment, SamplePlan) {
    let augment = Augment::imagenet_train(224).build().unwrap();
    let key = SampleKey { seed: 7, epoch: 1, sample: 42, view: 0 };
    let plan = augment.plan(key, 500, 375, Orientation::AS_STORED).unwrap();
    (augment, plan)
}

/// The table for the crop of a file.
fn count(name: &str, file: &[u8]) -> Vec<(String, u64, u64)> {
    let (augment, plan) = crop();
    let wave = Wave::of(file, &plan, Grain::default());
    let mut machine = Machine::new();
    let at = wave.buffers(&mut machine);
    let stats = [
        ("destuff", wave.destuff(&mut machine, &at)),
        ("entropy", wave.entropy(&mut machine, &at)),
        ("idct", wave.idct(&mut machine, &at)),
        ("taps", wave.taps(&mut machine, &at)),
        ("resize_f32", wave.resize(&mut machine, &at, &augment)),
    ];
    assert_eq!(machine.read::<u32>(at.status, 1), [0]);
    stats.into_iter().map(|(kernel, stats)| line(kernel, name, stats)).collect()
}

/// The line for the same crop of pixels, at an odd address.
fn count_pixels() -> (String, u64, u64) {
    let (augment, plan) = crop();
    let (image, needs) = pixels_image(&plan, (500, 375), 3, 0..375, 1).unwrap();
    let mut wave = Wave { upload: vec![0x80; 1 + 3 * 500 * 375], images: vec![image], ..Wave::default() };
    (wave.tap_words, wave.output_bytes) = (needs.taps as usize, plan.output_bytes());
    let mut machine = Machine::new();
    let at = wave.buffers(&mut machine);
    wave.taps(&mut machine, &at).unwrap();
    line("resize_f32", "pixels", wave.resize(&mut machine, &at, &augment))
}

fn line(kernel: &str, name: &str, stats: Result<Stats, String>) -> (String, u64, u64) {
    let stats = stats.unwrap();
    (format!("{kernel}, {name}"), stats.instructions, stats.warp_instructions)
}

#[test]
fn no_kernel_takes_more_instructions_than_recorded() {
    use jpeg_encoder::SamplingFactor::{R_4_2_0, R_4_4_4};
    let (full, halved) = (image(R_4_4_4), image(R_4_2_0));

    let found = [count("4:4:4", &full), count("4:2:0", &halved), vec![count_pixels()]].concat();
    let table: String = found.iter().map(|(name, threads, warps)| format!("{name}\t{threads}\t{warps}\n")).collect();
    println!("of files of {} and {} bytes:\n{table}", full.len(), halved.len());
    for (name, threads, warps) in &found {
        let line = RECORDED.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        let recorded: Vec<u64> = line.unwrap_or("0\t0").split('\t').map(|count| count.parse().unwrap()).collect();
        for (found, recorded) in [threads, warps].into_iter().zip(recorded) {
            let allowed = recorded + recorded / 50;
            assert!(
                *found <= allowed,
                "{name}: {found} instructions, {recorded} are recorded; the table is now\n{table}"
            );
        }
    }
}
