//! Integer instructions.

use super::super::registers::{Alu, Mask, Registers, Slots, Value, binary, lanes, quaternary, ternary, unary};
use super::super::types::Type;
use super::Opcode;

/// Evaluates `$body` with `$t` as the Rust type of an integer type of PTX.
macro_rules! with_integer {
    ($type:expr, $t:ident => $body:expr) => {
        match $type {
            Type::U16 | Type::B16 => {
                type $t = u16;
                Some($body)
            }
            Type::U32 | Type::B32 => {
                type $t = u32;
                Some($body)
            }
            Type::U64 | Type::B64 => {
                type $t = u64;
                Some($body)
            }
            Type::S16 => {
                type $t = i16;
                Some($body)
            }
            Type::S32 => {
                type $t = i32;
                Some($body)
            }
            Type::S64 => {
                type $t = i64;
                Some($body)
            }
            _ => None,
        }
    };
}
pub(super) use with_integer;

/// The instruction, if it is one of these.
pub(super) fn instruction(opcode: &Opcode<'_>) -> Option<Alu> {
    let ty = opcode.last_type()?;
    if ty.is_float() || ty == Type::Predicate {
        return None;
    }
    match (opcode.name(), opcode.between()) {
        ("add", []) => with_integer!(ty, T => binary(|a: T, b: T| a.wrapping_add(b))),
        ("sub", []) => with_integer!(ty, T => binary(|a: T, b: T| a.wrapping_sub(b))),
        ("add", ["sat"]) if ty == Type::S32 => Some(binary(i32::saturating_add)),
        ("sub", ["sat"]) if ty == Type::S32 => Some(binary(i32::saturating_sub)),
        ("mul", ["lo"]) => with_integer!(ty, T => binary(|a: T, b: T| a.wrapping_mul(b))),
        ("mul", ["hi"]) => with_integer!(ty, T => binary(|a: T, b: T| high(a.into(), b.into(), T::BITS) as T)),
        ("mul", ["wide"]) => wide(ty),
        ("mul24", ["lo"]) => twenty_four(ty, 0),
        ("mul24", ["hi"]) => twenty_four(ty, 16),
        ("mad", ["lo"]) => {
            with_integer!(ty, T => ternary(|a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c)))
        }
        ("mad", ["hi"]) => with_integer!(
            ty, T => ternary(|a: T, b: T, c: T| (high(a.into(), b.into(), T::BITS) as T).wrapping_add(c))
        ),
        ("mad", ["wide"]) => wide_add(ty),
        ("div", []) => with_integer!(ty, T => binary(|a: T, b: T| if b == 0 { !0 } else { a.wrapping_div(b) })),
        ("rem", []) => with_integer!(ty, T => binary(|a: T, b: T| if b == 0 { a } else { a.wrapping_rem(b) })),
        ("min", []) => with_integer!(ty, T => binary(|a: T, b: T| a.min(b))),
        ("max", []) => with_integer!(ty, T => binary(|a: T, b: T| a.max(b))),
        ("abs", []) => match ty {
            Type::S16 => Some(unary(i16::wrapping_abs)),
            Type::S32 => Some(unary(i32::wrapping_abs)),
            Type::S64 => Some(unary(i64::wrapping_abs)),
            _ => None,
        },
        ("neg", []) => with_integer!(ty, T => unary(|a: T| a.wrapping_neg())),
        ("sad", []) => with_integer!(ty, T => ternary(|a: T, b: T, c: T| (a.abs_diff(b) as T).wrapping_add(c))),
        ("dp4a", [first]) => dot_product(Type::parse(first)?, ty, 8, 0),
        ("dp2a", ["lo", first]) => dot_product(Type::parse(first)?, ty, 16, 0),
        ("dp2a", ["hi", first]) => dot_product(Type::parse(first)?, ty, 16, 2),
        _ => None,
    }
}

/// The upper half of the product of two integers of `bits` bits.
fn high(a: i128, b: i128, bits: u32) -> i128 {
    a.wrapping_mul(b) >> bits
}

fn wide(ty: Type) -> Option<Alu> {
    Some(match ty {
        Type::U16 => binary(|a: u16, b: u16| u32::from(a) * u32::from(b)),
        Type::S16 => binary(|a: i16, b: i16| i32::from(a) * i32::from(b)),
        Type::U32 => binary(|a: u32, b: u32| u64::from(a) * u64::from(b)),
        Type::S32 => binary(|a: i32, b: i32| i64::from(a) * i64::from(b)),
        _ => return None,
    })
}

fn wide_add(ty: Type) -> Option<Alu> {
    Some(match ty {
        Type::U16 => ternary(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)),
        Type::S16 => ternary(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)),
        Type::U32 => ternary(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
        Type::S32 => ternary(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
        _ => return None,
    })
}

/// The product of the low 24 bits, from bit `from` on.
fn twenty_four(ty: Type, from: u32) -> Option<Alu> {
    Some(match ty {
        Type::U32 => binary(move |a: u32, b: u32| ((u64::from(a << 8 >> 8) * u64::from(b << 8 >> 8)) >> from) as u32),
        Type::S32 => binary(move |a: i32, b: i32| ((i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8)) >> from) as i32),
        _ => return None,
    })
}

/// The sum of products of parts of `width` bits with as many bytes, from byte `from` on.
fn dot_product(a_type: Type, b_type: Type, width: u32, from: u32) -> Option<Alu> {
    let signed = |ty: Type| match ty {
        Type::S32 => Some(true),
        Type::U32 => Some(false),
        _ => None,
    };
    let (a_signed, b_signed) = (signed(a_type)?, signed(b_type)?);
    let part = |word: u32, width: u32, at: u32, signed: bool| {
        let top = word << (32 - width * (at + 1));
        if signed { (top as i32) >> (32 - width) } else { (top >> (32 - width)) as i32 }
    };
    Some(ternary(move |a: u32, b: u32, c: u32| {
        (0..32 / width).fold(c, |sum, at| {
            let product = part(a, width, at, a_signed).wrapping_mul(part(b, 8, from + at, b_signed));
            sum.wrapping_add(product as u32)
        })
    }))
}

/// Instructions on bits.
pub(super) fn bits(opcode: &Opcode<'_>) -> Option<Alu> {
    if let ["prmt", "b32", mode @ ..] = opcode.parts {
        return permute(mode);
    }
    let ty = opcode.last_type()?;
    if ty.is_float() || ty == Type::Predicate {
        return None;
    }
    match (opcode.name(), opcode.between()) {
        ("not", []) => with_integer!(ty, T => unary(|a: T| !a)),
        ("cnot", []) => with_integer!(ty, T => unary(|a: T| T::from(a == 0))),
        ("xor", []) => with_integer!(ty, T => binary(|a: T, b: T| a ^ b)),
        ("shl", []) => with_integer!(ty, T => binary(|a: T, n: u32| a.checked_shl(n).unwrap_or(0))),
        ("shr", []) => {
            with_integer!(ty, T => binary(|a: T, n: u32| a >> n.min(T::BITS - 1) >> u32::from(n >= T::BITS)))
        }
        ("clz", []) => with_integer!(ty, T => unary(|a: T| a.leading_zeros())),
        ("popc", []) => with_integer!(ty, T => unary(|a: T| a.count_ones())),
        ("brev", []) => with_integer!(ty, T => unary(|a: T| a.reverse_bits())),
        ("bfind", []) => with_integer!(ty, T => unary(|a: T| find(a.into(), T::BITS, false))),
        ("bfind", ["shiftamt"]) => with_integer!(ty, T => unary(|a: T| find(a.into(), T::BITS, true))),
        ("bfe", []) => with_integer!(ty, T => ternary(|a: T, from: u32, len: u32| {
            extract(a.into(), from & 255, len & 255, T::MIN != 0) as T
        })),
        ("bfi", []) => with_integer!(ty, T => quaternary(|a: T, base: T, from: u32, len: u32| {
            let mask = field(from & 255, len & 255) as T;
            let moved = a.checked_shl(from & 255).unwrap_or(0);
            moved & mask | base & !mask
        })),
        ("bmsk", [mode @ ("clamp" | "wrap")]) => {
            let wrap = *mode == "wrap";
            Some(binary(move |from: u32, len: u32| match wrap {
                true => field(from & 31, len & 31) as u32,
                false => field(from.min(128), len.min(32)) as u32,
            }))
        }
        ("shf", [direction, mode]) => funnel(direction, mode),
        ("fns", []) => Some(ternary(nth_set)),
        _ => None,
    }
}

/// `len` ones from bit `from` on.
fn field(from: u32, len: u32) -> u128 {
    let ones = (1_u128 << len.min(64)) - 1;
    if from < 64 { ones << from } else { 0 }
}

/// The highest bit that differs from the sign, or how far it must be shifted to the top.
fn find(value: i128, bits: u32, as_shift: bool) -> u32 {
    let value = if value < 0 { !value } else { value };
    match value.checked_ilog2() {
        None => u32::MAX,
        Some(at) if as_shift => bits - 1 - at,
        Some(at) => at,
    }
}

/// A field of a value, extended by its highest bit if it is signed. The value goes on for ever, with its sign.
fn extract(value: i128, from: u32, len: u32, signed: bool) -> i128 {
    let rest = value >> from.min(127);
    match len {
        0 => 0,
        1..64 if signed => rest << (128 - len) >> (128 - len),
        1..64 => rest & field(0, len) as i128,
        _ => rest,
    }
}

fn funnel(direction: &str, mode: &str) -> Option<Alu> {
    let clamp = match mode {
        "clamp" => true,
        "wrap" => false,
        _ => return None,
    };
    let amount = move |n: u32| if clamp { n.min(32) } else { n & 31 };
    let joined = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    match direction {
        "l" => Some(ternary(move |a: u32, b: u32, n: u32| (joined(a, b) << amount(n) >> 32) as u32)),
        "r" => Some(ternary(move |a: u32, b: u32, n: u32| (joined(a, b) >> amount(n)) as u32)),
        _ => None,
    }
}

fn permute(modes: &[&str]) -> Option<Alu> {
    let bytes = |a: u32, b: u32| u64::from(b) << 32 | u64::from(a);
    let select: fn(u32, u32) -> u32 = match modes {
        [] => |selector, at| selector >> (4 * at) & 15,
        ["f4e"] => |selector, at| (selector & 3) + at,
        ["b4e"] => |selector, at| (selector & 3).wrapping_sub(at) & 7,
        ["rc8"] => |selector, _| selector & 3,
        ["ecl"] => |selector, at| (selector & 3).max(at),
        ["ecr"] => |selector, at| (selector & 3).min(at),
        ["rc16"] => |selector, at| (selector & 1) * 2 + at % 2,
        _ => return None,
    };
    Some(ternary(move |a: u32, b: u32, selector: u32| {
        (0..4).fold(0, |word, at| {
            let nibble = select(selector, at);
            let byte = (bytes(a, b) >> (8 * (nibble & 7))) as u8;
            let byte = if nibble & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
            word | u32::from(byte) << (8 * at)
        })
    }))
}

/// The position of the n-th set bit from `base` on, upward or downward.
fn nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    let base = base & 31;
    let found = match offset {
        0 => (mask >> base & 1 != 0).then_some(base),
        1.. => (base..32).filter(|at| mask >> at & 1 != 0).nth(offset as usize - 1),
        _ => (0..=base).rev().filter(|at| mask >> at & 1 != 0).nth(offset.unsigned_abs() as usize - 1),
    };
    found.unwrap_or(u32::MAX)
}

/// A bitwise function of three operands by its truth table.
pub(in crate::ptx) fn lop3(table: u8) -> Alu {
    ternary(move |a: u32, b: u32, c: u32| {
        (0..8).filter(|row| table >> row & 1 != 0).fold(0, |word, row: u32| {
            let pick = |operand: u32, bit: u32| if row >> bit & 1 != 0 { operand } else { !operand };
            word | pick(a, 2) & pick(b, 1) & pick(c, 0)
        })
    })
}

/// `and` and `or`: an operand whose every bit decides the result makes up for one that has no value.
pub(super) fn conjunction(opcode: &Opcode<'_>) -> Option<Alu> {
    fn with<T: Value + PartialEq>(f: fn(T, T) -> T, deciding: T) -> Alu {
        let inner = binary(f);
        let run = inner.run;
        let run = Box::new(move |r: &mut _, slots: &_, mask| {
            decided::<T>(r, slots, mask, deciding, &*run);
        });
        Alu { run, kinds: inner.kinds }
    }
    match (opcode.name(), opcode.between(), opcode.last_type()?) {
        ("and", [], Type::B16) => Some(with::<u16>(|a, b| a & b, 0)),
        ("and", [], Type::B32) => Some(with::<u32>(|a, b| a & b, 0)),
        ("and", [], Type::B64) => Some(with::<u64>(|a, b| a & b, 0)),
        ("or", [], Type::B16) => Some(with::<u16>(|a, b| a | b, !0)),
        ("or", [], Type::B32) => Some(with::<u32>(|a, b| a | b, !0)),
        ("or", [], Type::B64) => Some(with::<u64>(|a, b| a | b, !0)),
        _ => None,
    }
}

fn decided<T: Value + PartialEq>(
    registers: &mut Registers,
    slots: &Slots,
    mask: Mask,
    deciding: T,
    run: &dyn Fn(&mut Registers, &Slots, Mask),
) {
    let defined = [slots[1], slots[2]].map(|slot| registers.defined(T::KIND, slot));
    if mask & !(defined[0] & defined[1]) == 0 {
        return run(registers, slots, mask);
    }
    // Looked at before the result is written, which may be one of the operands.
    let mut settled = 0;
    for lane in lanes(mask) {
        for operand in 0..2 {
            let value = T::one(registers, slots[1 + operand], lane);
            settled |= Mask::from(defined[operand] >> lane & 1 != 0 && value == deciding) << lane;
        }
    }
    run(registers, slots, mask);
    registers.define(T::KIND, slots[0], mask & settled, settled);
}
