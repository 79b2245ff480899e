//! `forebay_entropy` on words that `forebay_destuff` made.

use super::machine::Machine;
use super::wave::Wave;
use super::{FILES, fixture, whole_plan};
use crate::jpeg::reference::{self, Blocks};
use crate::jpeg::{Grain, Header};

/// Whether the coefficients of a wave's only image are those that the host finds.
fn compare(machine: &Machine, wave: &Wave, coefficients: u64, expected: &[Blocks; 3]) -> Result<(), String> {
    let image = &wave.images[0];
    for (i, plane) in image.planes[..image.plane_count as usize].iter().enumerate() {
        for row in 0..usize::from(plane.block_rows) {
            for column in 0..usize::from(plane.block_columns) {
                let block = plane.blocks as usize + row * usize::from(plane.block_columns) + column;
                let found: Vec<i16> = machine.read(coefficients + 128 * block as u64, 64);
                let at = (row + usize::from(plane.block_row)) * expected[i].columns
                    + column
                    + usize::from(plane.block_column);
                if found != expected[i].blocks[at] {
                    return Err(format!("component {i}, block {column} of row {row}: {found:?}"));
                }
            }
        }
    }
    Ok(())
}

fn run(machine: &mut Machine, file: &[u8], plan: &crate::plan::SamplePlan, grain: Grain) -> Result<(), String> {
    let wave = Wave::of(file, plan, grain);
    let at = wave.buffers(machine);
    wave.destuff(machine, &at)?;
    wave.entropy(machine, &at)?;
    let status: Vec<u32> = machine.read(at.status, 1);
    if status[0] != 0 {
        return Err(format!("status {}", status[0]));
    }
    let expected = reference::coefficients(file, &Header::parse(file).unwrap()).unwrap();
    compare(machine, &wave, at.coefficients, &expected)
}

#[test]
fn coefficients_are_those_of_the_host() {
    for name in FILES {
        let file = fixture(name);
        run(&mut Machine::new(), &file, &whole_plan(&file), Grain::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
