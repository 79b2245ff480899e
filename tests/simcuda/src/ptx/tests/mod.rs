//! What the tests of the interpreter share: memory that is one array, and kernels around a few instructions.

mod checks;
mod collective;
mod control;
mod convert;
mod float;
mod integer;
mod memory;
mod nvrtc;
mod parse;

use super::block::{self, Limits};
use super::{Launch, Memory, Module, Stats};

/// Where the first byte of [`Ram`] is.
pub(super) const BASE: u64 = 0x7000_0000_0000;

/// Global memory: bytes from [`BASE`] on.
pub(super) struct Ram(pub(super) Vec<u8>);

impl Ram {
    fn range(&self, address: u64, len: usize) -> Result<std::ops::Range<usize>, String> {
        let start = address.checked_sub(BASE).map(|start| start as usize);
        match start.and_then(|start| start.checked_add(len)) {
            Some(end) if end <= self.0.len() => Ok(end - len..end),
            _ => Err(format!("{len} bytes at {address:#x} are not allocated")),
        }
    }

    pub(super) fn words(values: &[u32]) -> Self {
        Self(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub(super) fn zeroed(words: usize) -> Self {
        Self(vec![0; 4 * words])
    }

    pub(super) fn words_at(&self, at: usize, count: usize) -> Vec<u32> {
        self.0[4 * at..][..4 * count].chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}

impl Memory for Ram {
    fn load(&mut self, address: u64, into: &mut [u8]) -> Result<(), String> {
        into.copy_from_slice(&self.0[self.range(address, into.len())?]);
        Ok(())
    }

    fn store(&mut self, address: u64, from: &[u8]) -> Result<(), String> {
        let range = self.range(address, from.len())?;
        self.0[range].copy_from_slice(from);
        Ok(())
    }
}

/// Parameters, eight bytes each.
pub(super) fn params(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A module, in memory that begins with its variables.
pub(super) fn loaded(text: &str) -> (Module, Ram) {
    let mut module = Module::parse(text).unwrap();
    let mut ram = Ram(Vec::new());
    for at in 0..module.variables().len() {
        let variable = module.variables()[at].clone();
        ram.0.resize(ram.0.len().next_multiple_of(variable.align), 0);
        let address = BASE + ram.0.len() as u64;
        ram.0.extend(&variable.initial);
        module.place(at, address);
    }
    (module, ram)
}

/// A kernel around a body. Its parameter is an address, in `%rd0`; `%r0` is the thread's number in the grid, and `%rd1` the
/// address of a word of its own. `%rs`, `%f`, `%fd`, `%p` and 32 of each are there too.
pub(super) fn kernel(body: &str) -> String {
    format!(
        "//
.version 8.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 dynamic[];

.visible .entry k(.param .u64 k_out)
{{
.reg .pred %p<32>;
.reg .b16 %rs<32>;
.reg .b32 %r<32>;
.reg .b64 %rd<32>;
.reg .f32 %f<32>;
.reg .f64 %fd<32>;
.shared .align 16 .b8 buffer[1024];
ld.param.u64 %rd0, [k_out];
mov.u32 %r0, %tid.x;
mov.u32 %r31, %ctaid.x;
mov.u32 %r30, %ntid.x;
mad.lo.s32 %r0, %r31, %r30, %r0;
mul.wide.u32 %rd1, %r0, 4;
add.s64 %rd1, %rd0, %rd1;
{body}
ret;
}}"
    )
}

/// Runs a body in one block of so many threads, each with a word that is zero; the words, or the fault.
pub(super) fn run(threads: u32, body: &str) -> Result<Vec<u32>, String> {
    run_grid([1, 1, 1], [threads, 1, 1], 0, body).map(|(words, _)| words)
}

pub(super) fn run_grid(
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: usize,
    body: &str,
) -> Result<(Vec<u32>, Stats), String> {
    let module = Module::parse(&kernel(body)).unwrap();
    let threads = grid.iter().chain(&block).product::<u32>() as usize;
    let mut ram = Ram::zeroed(threads);
    let launch = Launch { grid, block, shared_bytes, params: &params(&[BASE]) };
    // Few enough that a test of what runs for ever ends soon.
    let limits = Limits { slice: 1 << 10, instructions_max: 1 << 16 };
    let stats = block::launch(&module.kernels()[0], launch, &mut ram, limits).map_err(|fault| fault.message)?;
    Ok((ram.words_at(0, threads), stats))
}

/// The fault of a body.
pub(super) fn fault(threads: u32, body: &str) -> String {
    match run(threads, body) {
        Ok(words) => panic!("no fault, and {words:?}"),
        Err(fault) => fault,
    }
}

/// The results of an instruction for many operands. They are in `%a`, `%b`, `%c` as words, `%A`.. as longs, `%ha`.. as 16
/// bits; the result is `%d`, `%D` or `%h`, 64 bits of which come back.
pub(super) fn compute(instruction: &str, operands: &[[u64; 3]]) -> Vec<u64> {
    let result = match instruction {
        _ if instruction.contains("%D") => "",
        _ if instruction.split("%h").skip(1).any(|rest| !rest.starts_with(['a', 'b', 'c'])) => "cvt.u64.u16 %D, %h;",
        _ => "cvt.u64.u32 %D, %d;",
    };
    let text = format!(
        ".version 8.0
.visible .entry k(.param .u64 k_in, .param .u64 k_out, .param .u32 k_count)
{{
.reg .pred %p, %q, %pa, %pb;
.reg .b16 %h, %ha, %hb, %hc;
.reg .b32 %a, %b, %c, %d, %i, %j, %k;
.reg .b64 %A, %B, %C, %D, %I, %O;
ld.param.u64 %I, [k_in];
ld.param.u64 %O, [k_out];
ld.param.u32 %j, [k_count];
mov.u32 %i, %ctaid.x;
mov.u32 %k, %ntid.x;
mul.lo.u32 %i, %i, %k;
mov.u32 %k, %tid.x;
add.u32 %i, %i, %k;
setp.ge.u32 %p, %i, %j;
@%p bra done;
mad.wide.u32 %I, %i, 24, %I;
mad.wide.u32 %O, %i, 8, %O;
ld.global.u64 %A, [%I];
ld.global.u64 %B, [%I+8];
ld.global.u64 %C, [%I+16];
cvt.u32.u64 %a, %A;
cvt.u32.u64 %b, %B;
cvt.u32.u64 %c, %C;
cvt.u16.u64 %ha, %A;
cvt.u16.u64 %hb, %B;
cvt.u16.u64 %hc, %C;
{instruction}
{result}
st.global.u64 [%O], %D;
done:
ret;
}}"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{instruction}: {error}"));
    let mut ram = Ram(operands.iter().flatten().flat_map(|value| value.to_le_bytes()).collect());
    let len_bytes = ram.0.len();
    ram.0.resize(len_bytes + 8 * operands.len(), 0xee);
    let mut params = params(&[BASE, BASE + len_bytes as u64]);
    params.extend((operands.len() as u32).to_le_bytes());
    // Blocks of a whole warp and a part of one, which take different paths.
    let blocks = operands.len().div_ceil(45) as u32;
    let launch = Launch { grid: [blocks, 1, 1], block: [45, 1, 1], shared_bytes: 0, params: &params };
    module.kernels()[0].launch(launch, &mut ram).unwrap();
    ram.0[len_bytes..].chunks(8).map(|value| u64::from_le_bytes(value.try_into().unwrap())).collect()
}

/// Operands that find mistakes: random ones, and every three of some at the edges.
pub(super) fn operands(edges: &[u64]) -> Vec<[u64; 3]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Of few bits as often as of many.
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> (state & 63)
    };
    let mut all: Vec<[u64; 3]> = (0..500).map(|_| [random(), random(), random()]).collect();
    for &a in edges {
        for &b in edges {
            all.extend(edges.iter().map(|&c| [a, b, c]));
        }
    }
    all
}

/// Integers at the edges of every width.
pub(super) const EDGES: [u64; 11] =
    [0, 1, 2, 31, 32, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, 0x8000_0000_0000_0000, u64::MAX];

/// Checks an instruction against Rust, for many operands.
pub(super) fn check(instruction: &str, edges: &[u64], expected: impl Fn(u64, u64, u64) -> u64) {
    let operands = operands(edges);
    let found = compute(instruction, &operands);
    for ([a, b, c], found) in operands.iter().zip(found) {
        let expected = expected(*a, *b, *c);
        assert_eq!(found, expected, "{instruction} of {a:#x}, {b:#x}, {c:#x}: {found:#x}, not {expected:#x}");
    }
}

pub(super) fn check32(instruction: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    check(instruction, &EDGES, |a, b, c| expected(a as u32, b as u32, c as u32).into());
}

pub(super) fn check64(instruction: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    check(instruction, &EDGES, expected);
}

pub(super) fn check16(instruction: &str, expected: impl Fn(u16, u16, u16) -> u16) {
    check(instruction, &EDGES, |a, b, c| expected(a as u16, b as u16, c as u16).into());
}
