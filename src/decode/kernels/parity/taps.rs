//! `forebay_taps` on axes of any kind.

use super::Random;
use super::machine::Machine;
use super::wave::Wave;
use crate::augment::Taps;
use crate::decode::kernels::abi::{Image, SOURCE_SAMPLES};
use crate::pixels::Scale;
use crate::plan::Axis;

fn axis(random: &mut Random) -> Axis {
    let box_start = random.below(500) as u32;
    let box_len = 1 + [random.below(20), random.below(700), random.below(5000)][random.below(3)] as u32;
    let output_len = 1 + random.below(300) as u32;
    let resized_len = u64::from(output_len) + [0, random.below(50) as u64][random.below(2)];
    let window_start = random.below((resized_len - u64::from(output_len)) as usize + 1) as u64;
    let scale = Scale::ALL[random.below(4)];
    Axis { box_start, box_len, resized_len, window_start, output_len, flip: random.below(2) == 1, scale }
}

pub fn run(seed: u64, machine: &mut Machine) -> Result<(), String> {
    machine.clear();
    let mut random = Random(seed);
    let axes = [axis(&mut random), axis(&mut random)];
    let mut wave = Wave::default();
    let mut image = Image { source: SOURCE_SAMPLES, ..Image::default() };
    image.x = wave.axis(&axes[0], axes[0].flip);
    image.y = wave.axis(&axes[1], false);
    wave.images = vec![Image::default(), image];
    let at = wave.buffers(machine);
    wave.taps(machine, &at)?;
    for (plan, axis, reversed) in [(&axes[0], &image.x, axes[0].flip), (&axes[1], &image.y, false)] {
        let mut expected = Taps::default();
        expected.build(plan, reversed);
        let stride = axis.output_len.next_multiple_of(32) as usize;
        let tables = at.taps + 4 * u64::from(axis.tables);
        let first: Vec<u32> = machine.read(tables, stride);
        let end: Vec<u32> = machine.read(tables + 4 * stride as u64, stride);
        let weights: Vec<u32> = machine.read(tables + 8 * stride as u64, stride * axis.taps_max as usize);
        for j in 0..axis.output_len as usize {
            if (first[j], end[j]) != (expected.first[j], expected.end[j]) {
                return Err(format!("seed {seed}, {plan:?}: taps {}..{} of output {j}", first[j], end[j]));
            }
            for tap in 0..(end[j] - first[j]) as usize {
                let (found, expected) = (weights[tap * stride + j], expected.weights[tap * expected.stride + j]);
                if found != expected.to_bits() {
                    return Err(format!("seed {seed}, {plan:?}: weight {tap} of output {j}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn taps_are_those_of_the_host() {
    let mut machine = Machine::new();
    for seed in 0..100 {
        run(seed, &mut machine).unwrap();
    }
}
