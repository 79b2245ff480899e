//! Faults in words.

use super::block::Env;
use super::program::Instruction;
use super::registers::LANES;
use super::{Fault, Kernel};

/// What went wrong, and in which lane of the warp if it was in one.
pub(super) struct Failure {
    pub(super) lane: Option<usize>,
    pub(super) what: String,
}

impl Failure {
    pub(super) fn at(lane: usize, what: impl Into<String>) -> Self {
        Self { lane: Some(lane), what: what.into() }
    }

    pub(super) fn of_warp(what: impl Into<String>) -> Self {
        Self { lane: None, what: what.into() }
    }

    /// The fault that it is at an instruction of a warp.
    #[cold]
    pub(super) fn fault(self, env: &Env<'_>, warp: usize, instruction: &Instruction) -> Fault {
        let who = match self.lane {
            Some(lane) => {
                let [x, y, z] = thread(warp * LANES + lane, env.launch.block);
                format!("thread ({x}, {y}, {z})")
            }
            None => format!("warp {warp}"),
        };
        let [x, y, z] = env.block;
        let message = format!("{}, {who} of block ({x}, {y}, {z}): {}", place(env.kernel, instruction), self.what);
        Fault { message }
    }
}

/// The kernel, the line and the instruction.
pub(super) fn place(kernel: &Kernel, instruction: &Instruction) -> String {
    let text = kernel.text.get(instruction.span.0..instruction.span.1).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("kernel {}, PTX line {} `{text}`", kernel.name, instruction.line)
}

/// A thread's place in its block.
pub(super) fn thread(number: usize, block: [u32; 3]) -> [usize; 3] {
    let [x, y] = [block[0] as usize, block[1] as usize];
    [number % x, number / x % y, number / x / y]
}
