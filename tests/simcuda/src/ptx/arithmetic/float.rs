//! Floating-point instructions. What PTX leaves to the hardware (`.approx`, `.full`, `.ftz`) is not here: nobody could
//! say whether its bits are right.

use super::super::registers::{Alu, Value, binary, ternary, unary};
use super::super::types::Type;
use super::Opcode;
use super::soft::{BF16, F16, F32, F64, Format, Number, Rounding};

/// The instruction, if it is one of these.
pub(super) fn instruction(opcode: &Opcode<'_>) -> Option<Alu> {
    let ty = opcode.last_type()?;
    let (rounding, saturate, rest) = modifiers(opcode.between(), ty)?;
    let name = opcode.name();
    if let Some(alu) = sign(name, rest, ty) {
        return Some(alu);
    }
    if let ("min" | "max", Some(propagate)) = (name, propagates(rest)) {
        return extreme(name == "max", propagate, ty);
    }
    if !rest.is_empty() {
        return None;
    }
    match ty {
        Type::F32 => single(name, rounding, saturate),
        Type::F64 if !saturate => double(name, rounding),
        Type::F16 => half(name, rounding?, saturate, F16),
        Type::Bf16 => half(name, rounding?, saturate, BF16),
        Type::F16x2 => pair(name, rounding?, saturate, F16),
        Type::Bf16x2 => pair(name, rounding?, saturate, BF16),
        _ => None,
    }
}

/// Rounding (where it may be left out, to nearest), saturation, and the modifiers that remain.
fn modifiers<'a>(parts: &'a [&'a str], ty: Type) -> Option<(Option<Rounding>, bool, &'a [&'a str])> {
    let (rounding, parts) = match parts {
        [first, rest @ ..] if matches!(*first, "rn" | "rz" | "rm" | "rp") => (Rounding::parse(first), rest),
        _ => (Some(Rounding::Nearest), parts),
    };
    let narrow = !matches!(ty, Type::F32 | Type::F64);
    if narrow && rounding != Some(Rounding::Nearest) {
        return None;
    }
    match parts {
        ["sat", rest @ ..] => Some((rounding, true, rest)),
        rest => Some((rounding, false, rest)),
    }
}

fn propagates(rest: &[&str]) -> Option<bool> {
    match rest {
        [] => Some(false),
        ["NaN"] => Some(true),
        _ => None,
    }
}

/// Instructions on the sign alone.
fn sign(name: &str, rest: &[&str], ty: Type) -> Option<Alu> {
    if !rest.is_empty() {
        return None;
    }
    Some(match (name, ty) {
        ("neg", Type::F32) => unary(|a: u32| a ^ 1 << 31),
        ("abs", Type::F32) => unary(|a: u32| a & !(1 << 31)),
        ("neg", Type::F64) => unary(|a: u64| a ^ 1 << 63),
        ("abs", Type::F64) => unary(|a: u64| a & !(1 << 63)),
        ("neg", Type::F16 | Type::Bf16) => unary(|a: u16| a ^ 1 << 15),
        ("abs", Type::F16 | Type::Bf16) => unary(|a: u16| a & !(1 << 15)),
        ("neg", Type::F16x2 | Type::Bf16x2) => unary(|a: u32| a ^ 0x8000_8000),
        ("abs", Type::F16x2 | Type::Bf16x2) => unary(|a: u32| a & !0x8000_8000),
        ("copysign", Type::F32) => binary(|a: u32, b: u32| a & 1 << 31 | b & !(1 << 31)),
        ("copysign", Type::F64) => binary(|a: u64, b: u64| a & 1 << 63 | b & !(1 << 63)),
        _ => return None,
    })
}

/// Single precision: the host's arithmetic where it rounds to nearest.
fn single(name: &str, rounding: Option<Rounding>, saturate: bool) -> Option<Alu> {
    if saturate {
        return match (name, rounding?) {
            ("add", Rounding::Nearest) => Some(binary(|a: f32, b: f32| saturated(a + b))),
            ("sub", Rounding::Nearest) => Some(binary(|a: f32, b: f32| saturated(a - b))),
            ("mul", Rounding::Nearest) => Some(binary(|a: f32, b: f32| saturated(a * b))),
            ("fma" | "mad", Rounding::Nearest) => Some(ternary(|a: f32, b: f32, c: f32| saturated(fused(a, b, c)))),
            _ => None,
        };
    }
    match (name, rounding?) {
        ("add", Rounding::Nearest) => Some(binary(|a: f32, b: f32| canonical(a + b))),
        ("sub", Rounding::Nearest) => Some(binary(|a: f32, b: f32| canonical(a - b))),
        ("mul", Rounding::Nearest) => Some(binary(|a: f32, b: f32| canonical(a * b))),
        ("div", Rounding::Nearest) => Some(binary(|a: f32, b: f32| canonical(a / b))),
        ("rcp", Rounding::Nearest) => Some(unary(|a: f32| canonical(1.0 / a))),
        ("sqrt", Rounding::Nearest) => Some(unary(|a: f32| canonical(a.sqrt()))),
        ("fma" | "mad", Rounding::Nearest) => Some(ternary(|a: f32, b: f32, c: f32| canonical(fused(a, b, c)))),
        (_, rounding) => soft::<u32>(name, rounding, F32),
    }
}

fn double(name: &str, rounding: Option<Rounding>) -> Option<Alu> {
    match (name, rounding?) {
        ("add", Rounding::Nearest) => Some(binary(|a: f64, b: f64| a + b)),
        ("sub", Rounding::Nearest) => Some(binary(|a: f64, b: f64| a - b)),
        ("mul", Rounding::Nearest) => Some(binary(|a: f64, b: f64| a * b)),
        ("div", Rounding::Nearest) => Some(binary(|a: f64, b: f64| a / b)),
        ("rcp", Rounding::Nearest) => Some(unary(|a: f64| 1.0 / a)),
        ("sqrt", Rounding::Nearest) => Some(unary(f64::sqrt)),
        ("fma" | "mad", Rounding::Nearest) => Some(ternary(f64::mul_add)),
        (_, rounding) => soft::<u64>(name, rounding, F64),
    }
}

fn half(name: &str, rounding: Rounding, saturate: bool, format: Format) -> Option<Alu> {
    if !saturate {
        return soft::<u16>(name, rounding, format).filter(|_| matches!(name, "add" | "sub" | "mul" | "fma"));
    }
    Some(match name {
        "add" => binary(move |a: u16, b: u16| saturated_half(soft_binary(sum, a, b, rounding, format), format)),
        "sub" => binary(move |a: u16, b: u16| saturated_half(soft_binary(difference, a, b, rounding, format), format)),
        "mul" => binary(move |a: u16, b: u16| saturated_half(soft_binary(product, a, b, rounding, format), format)),
        "fma" => ternary(move |a: u16, b: u16, c: u16| saturated_half(soft_fma(a, b, c, rounding, format), format)),
        _ => return None,
    })
}

/// Two of `format` in a word, each for itself.
fn pair(name: &str, rounding: Rounding, saturate: bool, format: Format) -> Option<Alu> {
    let finish = move |value: u16| if saturate { saturated_half(value, format) } else { value };
    let twice = move |f: fn(Number, Number, Rounding) -> Number| {
        binary(move |a: u32, b: u32| {
            let one = |shift: u32| finish(soft_binary(f, (a >> shift) as u16, (b >> shift) as u16, rounding, format));
            u32::from(one(0)) | u32::from(one(16)) << 16
        })
    };
    Some(match name {
        "add" => twice(sum),
        "sub" => twice(difference),
        "mul" => twice(product),
        "fma" => ternary(move |a: u32, b: u32, c: u32| {
            let one = |shift: u32| {
                let [a, b, c] = [a, b, c].map(|word| (word >> shift) as u16);
                finish(soft_fma(a, b, c, rounding, format))
            };
            u32::from(one(0)) | u32::from(one(16)) << 16
        }),
        _ => return None,
    })
}

/// An operation of any format and rounding.
fn soft<T: Value + Into<u64> + TryFrom<u64>>(name: &str, rounding: Rounding, format: Format) -> Option<Alu> {
    Some(match name {
        "add" => binary(move |a: T, b: T| soft_binary(sum, a, b, rounding, format)),
        "sub" => binary(move |a: T, b: T| soft_binary(difference, a, b, rounding, format)),
        "mul" => binary(move |a: T, b: T| soft_binary(product, a, b, rounding, format)),
        "div" => binary(move |a: T, b: T| soft_binary(quotient, a, b, rounding, format)),
        "fma" | "mad" => ternary(move |a: T, b: T, c: T| soft_fma(a, b, c, rounding, format)),
        "rcp" => unary(move |a: T| {
            narrow::<T>(Number::integer(1).divide(Number::unpack(a.into(), format)).pack(format, rounding))
        }),
        "sqrt" => unary(move |a: T| narrow::<T>(Number::unpack(a.into(), format).square_root().pack(format, rounding))),
        _ => return None,
    })
}

fn sum(a: Number, b: Number, rounding: Rounding) -> Number {
    a.add(b, rounding)
}

fn difference(a: Number, b: Number, rounding: Rounding) -> Number {
    a.add(b.negate(), rounding)
}

fn product(a: Number, b: Number, _: Rounding) -> Number {
    a.multiply(b)
}

fn quotient(a: Number, b: Number, _: Rounding) -> Number {
    a.divide(b)
}

fn soft_binary<T: Value + Into<u64> + TryFrom<u64>>(
    f: fn(Number, Number, Rounding) -> Number,
    a: T,
    b: T,
    rounding: Rounding,
    format: Format,
) -> T {
    let [a, b] = [a, b].map(|bits| Number::unpack(bits.into(), format));
    narrow(f(a, b, rounding).pack(format, rounding))
}

fn soft_fma<T: Value + Into<u64> + TryFrom<u64>>(a: T, b: T, c: T, rounding: Rounding, format: Format) -> T {
    let [a, b, c] = [a, b, c].map(|bits| Number::unpack(bits.into(), format));
    narrow(a.multiply(b).add(c, rounding).pack(format, rounding))
}

/// A format's bits fit its type.
fn narrow<T: Value + TryFrom<u64>>(bits: u64) -> T {
    T::try_from(bits).unwrap_or_default()
}

/// `a * b + c`, rounded once. The product is exact in double precision; the sum is rounded to odd there, so that rounding
/// it again to single precision is rounding once (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums").
#[inline(always)]
pub(in crate::ptx) fn fused(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    let sum = product + c;
    let back = sum - product;
    let error = (product - (sum - back)) + (c - back);
    let bits = sum.to_bits();
    // The error is a number only if the sum is finite; a step towards the error from a sum that is even.
    let inexact = error != 0.0 && error.is_finite();
    let step = if (error > 0.0) == (sum > 0.0) { 1 } else { u64::MAX };
    let odd = if inexact && bits & 1 == 0 { bits.wrapping_add(step) } else { bits };
    f64::from_bits(odd) as f32
}

/// The bits of a result, with the one "not a number" that PTX's single-precision operations give. Told by the bits: a
/// compiler may take one "not a number" for another.
#[inline(always)]
pub(in crate::ptx) fn canonical(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff_ffff } else { bits }
}

/// Held to 0..=1, not a number being 0 (`.sat`).
pub(in crate::ptx) fn saturated(value: f32) -> f32 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

fn saturated_half(bits: u16, format: Format) -> u16 {
    let single = f32::from_bits(Number::unpack(bits.into(), format).pack(F32, Rounding::Nearest) as u32);
    Number::unpack(saturated(single).to_bits().into(), F32).pack(format, Rounding::Nearest) as u16
}

/// `min` and `max`: zeros are ordered by sign; a number wins over "not a number" unless that is to be propagated.
fn extreme(greater: bool, propagate: bool, ty: Type) -> Option<Alu> {
    Some(match (ty, greater, propagate) {
        (Type::F32, false, false) => binary(|a: u32, b: u32| pick(a.into(), b.into(), F32, false, false) as u32),
        (Type::F32, true, false) => binary(|a: u32, b: u32| pick(a.into(), b.into(), F32, true, false) as u32),
        (Type::F64, false, false) => binary(|a: u64, b: u64| pick(a, b, F64, false, false)),
        (Type::F64, true, false) => binary(|a: u64, b: u64| pick(a, b, F64, true, false)),
        (Type::F32, ..) => binary(move |a: u32, b: u32| pick(a.into(), b.into(), F32, greater, propagate) as u32),
        (Type::F16 | Type::Bf16, ..) => {
            let format = if ty == Type::F16 { F16 } else { BF16 };
            binary(move |a: u16, b: u16| pick(a.into(), b.into(), format, greater, propagate) as u16)
        }
        (Type::F16x2 | Type::Bf16x2, ..) => {
            let format = if ty == Type::F16x2 { F16 } else { BF16 };
            binary(move |a: u32, b: u32| {
                let half = |word: u32, at: u32| u64::from(word >> at & 0xffff);
                let one = |at: u32| pick(half(a, at), half(b, at), format, greater, propagate) as u32;
                one(0) | one(16) << 16
            })
        }
        _ => return None,
    })
}

/// The greater or the lesser of two encoded numbers.
#[inline(always)]
fn pick(a: u64, b: u64, format: Format, greater: bool, propagate: bool) -> u64 {
    let sign = 1 << (format.bits() - 1);
    // Integers that are ordered as the numbers are.
    let order = |bits: u64| {
        let magnitude = (bits & (sign - 1)) as i64;
        if bits & sign != 0 { -1 - magnitude } else { magnitude }
    };
    match (format.is_nan(a), format.is_nan(b)) {
        (false, false) => {
            if (order(a) > order(b)) == greater {
                a
            } else {
                b
            }
        }
        (true, false) if !propagate => b,
        (false, true) if !propagate => a,
        _ => format.canonical_nan(),
    }
}
