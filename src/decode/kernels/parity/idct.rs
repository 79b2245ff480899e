//! `forebay_idct` on coefficients of any size.

use super::Random;
use super::machine::Machine;
use super::wave::Wave;
use crate::decode::kernels::abi::{Image, Plane, SOURCE_BITS};
use crate::jpeg::reference;

/// A block as encoders write it, a block of extremes, or a block of one row, where the arithmetic takes a short cut.
fn block(random: &mut Random) -> [i16; 64] {
    let kind = random.below(4);
    let limit = [30, 1000, 32768][random.below(3)];
    let kept = [4, 20, 100][random.below(3)];
    std::array::from_fn(|i| match random.below(100) {
        _ if kind == 0 && i >= 8 => 0,
        _ if kind == 1 && i > 0 => 0,
        roll if roll >= kept && i > 0 => 0,
        roll if roll % 20 == 0 => [i16::MIN, i16::MAX][random.below(2)],
        _ => (random.below(2 * limit) as i32 - limit as i32) as i16,
    })
}

fn table(random: &mut Random) -> [u16; 64] {
    let limit = [2, 64, 256, 65536][random.below(4)];
    std::array::from_fn(|_| random.below(limit) as u16)
}

pub fn run(seed: u64, machine: &mut Machine) -> Result<(), String> {
    machine.clear();
    let mut random = Random(seed);
    let mut wave = Wave::default();
    let tables: Vec<[u16; 64]> = (0..3).map(|_| table(&mut random)).collect();
    wave.upload = bytemuck::cast_slice(&tables).to_vec();
    let plane_count = [1, 3][random.below(2)];
    let mut image = Image { source: SOURCE_BITS, plane_count, quant_count: 3, ..Image::default() };
    for plane in &mut image.planes[..plane_count as usize] {
        let (columns, rows) = (1 + random.below(20), 1 + random.below(6));
        let (samples, blocks) = (wave.sample_bytes as u64, wave.blocks as u32);
        let (block_columns, block_rows) = (columns as u16, rows as u16);
        *plane = Plane { samples, blocks, block_columns, block_rows, quant: random.below(3) as u8, ..Plane::default() };
        wave.sample_bytes += 64 * columns * rows;
        wave.blocks += columns * rows;
    }
    wave.images = vec![Image::default(), image];
    let blocks: Vec<[i16; 64]> = (0..wave.blocks).map(|_| block(&mut random)).collect();
    let mut at = wave.buffers(machine);
    at.coefficients = machine.upload(bytemuck::cast_slice(&blocks));
    wave.idct(machine, &at)?;
    let samples: Vec<u8> = machine.read(at.samples, wave.sample_bytes);
    for plane in &image.planes[..plane_count as usize] {
        let columns = usize::from(plane.block_columns);
        for i in 0..columns * usize::from(plane.block_rows) {
            let coefficients = &blocks[plane.blocks as usize + i];
            let expected = reference::samples(coefficients, &tables[usize::from(plane.quant)]);
            let first = plane.samples as usize + i / columns * 64 * columns + i % columns * 8;
            let found: [u8; 64] = std::array::from_fn(|i| samples[first + i / 8 * 8 * columns + i % 8]);
            if found != expected {
                return Err(format!("seed {seed}, block {i}: {found:?}, not {expected:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn samples_are_those_of_the_host() {
    let mut machine = Machine::new();
    for seed in 0..60 {
        run(seed, &mut machine).unwrap();
    }
}
