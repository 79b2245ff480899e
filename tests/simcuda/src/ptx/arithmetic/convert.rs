//! `cvt`.

use super::super::registers::{Alu, Value, binary, unary};
use super::super::types::{Kind, Type};
use super::Opcode;
use super::float::{canonical, saturated};
use super::soft::{BF16, F16, F32, F64, Format, Number, Rounding};

/// A conversion from a register of kind `source`: a type narrower than its register is taken from the low bits.
pub(in crate::ptx) fn convert(opcode: &Opcode<'_>, source: Kind) -> Option<Alu> {
    let [modifiers @ .., to, from] = opcode.modifiers() else { return None };
    let (to, from) = (Type::parse(to)?, Type::parse(from)?);
    let (rounding, modifiers) = match modifiers {
        [first, rest @ ..] if Rounding::parse(first).is_some() => (Some(*first), rest),
        rest => (None, rest),
    };
    let integral = rounding.is_some_and(|name| name.ends_with('i'));
    let rounding = rounding.and_then(Rounding::parse);
    if matches!(to, Type::F16x2 | Type::Bf16x2) {
        return pack_two(to, from, rounding?, modifiers);
    }
    let saturate = match modifiers {
        [] => false,
        ["sat"] => true,
        ["relu"] if from == Type::F32 => return relu(format(to)?, rounding?),
        _ => return None,
    };
    match (from.is_float(), to.is_float()) {
        (false, false) if rounding.is_none() => integers(to, from, source, saturate),
        (false, true) => from_integer(to, from, source, rounding?),
        (true, false) if integral => to_integer(to, from, rounding?),
        (true, true) => floats(to, from, rounding, integral, saturate),
        _ => None,
    }
}

fn format(ty: Type) -> Option<Format> {
    Some(match ty {
        Type::F16 => F16,
        Type::Bf16 => BF16,
        Type::F32 => F32,
        Type::F64 => F64,
        _ => return None,
    })
}

/// The value of an integer type in the low bits of a register.
fn integer(bits: u64, ty: Type) -> i128 {
    match ty {
        Type::U8 | Type::B8 => (bits as u8).into(),
        Type::U16 | Type::B16 => (bits as u16).into(),
        Type::U32 | Type::B32 => (bits as u32).into(),
        Type::S8 => (bits as i8).into(),
        Type::S16 => (bits as i16).into(),
        Type::S32 => (bits as i32).into(),
        Type::S64 => (bits as i64).into(),
        _ => bits.into(),
    }
}

/// The least and the greatest of an integer type.
fn range(ty: Type) -> (i128, i128) {
    let bits = ty.bytes() as u32 * 8;
    if ty.is_signed() { (-1 << (bits - 1), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// An instruction from a register of a kind, read as its bits.
fn from_bits<D: Value>(source: Kind, f: impl Fn(u64) -> D + Copy + Send + Sync + 'static) -> Option<Alu> {
    match source {
        Kind::Word => Some(unary(move |bits: u32| f(bits.into()))),
        Kind::Long => Some(unary(f)),
        Kind::Predicate => None,
    }
}

/// An instruction to a type's register, from its bits.
fn into_bits(to: Type, source: Kind, f: impl Fn(u64) -> u64 + Copy + Send + Sync + 'static) -> Option<Alu> {
    match to.kind() {
        Kind::Word => from_bits(source, move |bits| f(bits) as u32),
        Kind::Long => from_bits(source, f),
        Kind::Predicate => None,
    }
}

fn integers(to: Type, from: Type, source: Kind, saturate: bool) -> Option<Alu> {
    // The commonest by far, written so that they vectorise.
    match (from, to.kind(), source, saturate) {
        (Type::U8, Kind::Word, Kind::Word, false) => return Some(unary(|a: u8| u32::from(a))),
        (Type::U16, Kind::Word, Kind::Word, false) if to.bytes() > 1 => return Some(unary(|a: u16| u32::from(a))),
        (Type::U32, Kind::Long, Kind::Word, false) => return Some(unary(|a: u32| u64::from(a))),
        (Type::S32, Kind::Long, Kind::Word, false) => return Some(unary(|a: i32| i64::from(a))),
        _ => {}
    }
    let (least, most) = range(to);
    into_bits(to, source, move |bits| {
        let value = integer(bits, from);
        // A register wider than its type holds the type's value, extended.
        integer(if saturate { value.clamp(least, most) } else { value } as u64, to) as u64
    })
}

fn from_integer(to: Type, from: Type, source: Kind, rounding: Rounding) -> Option<Alu> {
    match (from, to, source, rounding) {
        (Type::U8, Type::F32, Kind::Word, _) => return Some(unary(|a: u8| f32::from(a))),
        (Type::U16, Type::F32, Kind::Word, _) => return Some(unary(|a: u16| f32::from(a))),
        (Type::S16, Type::F32, Kind::Word, _) => return Some(unary(|a: i16| f32::from(a))),
        (Type::S32, Type::F32, Kind::Word, Rounding::Nearest) => return Some(unary(|a: i32| a as f32)),
        (Type::U32, Type::F32, Kind::Word, Rounding::Nearest) => return Some(unary(|a: u32| a as f32)),
        (Type::S32, Type::F64, Kind::Word, _) => return Some(unary(|a: i32| f64::from(a))),
        (Type::U32, Type::F64, Kind::Word, _) => return Some(unary(|a: u32| f64::from(a))),
        (Type::U64, Type::F64, Kind::Long, Rounding::Nearest) => return Some(unary(|a: u64| a as f64)),
        (Type::S64, Type::F64, Kind::Long, Rounding::Nearest) => return Some(unary(|a: i64| a as f64)),
        _ => {}
    }
    let format = format(to)?;
    into_bits(to, source, move |bits| Number::integer(integer(bits, from)).pack(format, rounding))
}

/// Towards an integer, held to the range of the type. "Not a number" is 0, or for 64 bits the highest bit alone.
fn to_integer(to: Type, from: Type, rounding: Rounding) -> Option<Alu> {
    let wide = from == Type::F64 || to.bytes() == 8;
    let not_a_number = if wide { 1 << (to.bytes() * 8 - 1) } else { 0 };
    let (least, most) = range(to);
    let convert = move |value: f64| {
        let rounded = rounded(value, rounding);
        // The host's conversions are held to their range too.
        match to {
            _ if value.is_nan() => not_a_number,
            Type::U64 => rounded as u64,
            Type::S64 => rounded as i64 as u64,
            _ => (rounded as i64).clamp(least as i64, most as i64) as u64,
        }
    };
    match from {
        Type::F32 => to_kind(to, move |value: f32| convert(value.into())),
        Type::F64 => to_kind(to, convert),
        Type::F16 | Type::Bf16 => {
            let format = format(from)?;
            to_kind(to, move |bits: u16| {
                convert(f64::from_bits(Number::unpack(bits.into(), format).pack(F64, Rounding::Nearest)))
            })
        }
        _ => None,
    }
}

fn to_kind<A: Value>(to: Type, f: impl Fn(A) -> u64 + Copy + Send + Sync + 'static) -> Option<Alu> {
    match to.kind() {
        Kind::Word => Some(unary(move |a: A| f(a) as u32)),
        Kind::Long => Some(unary(f)),
        Kind::Predicate => None,
    }
}

fn rounded(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

fn floats(to: Type, from: Type, rounding: Option<Rounding>, integral: bool, saturate: bool) -> Option<Alu> {
    match (from, to) {
        (Type::F32, Type::F32) => {
            let finish = move |value: f32| if saturate { saturated(value).to_bits() } else { canonical(value) };
            // A number is nearest to an integer in either precision.
            let mode = rounding.filter(|_| integral);
            Some(unary(move |a: f32| finish(mode.map_or(a, |mode| rounded(a.into(), mode) as f32))))
        }
        (Type::F64, Type::F64) if !saturate => {
            let mode = rounding.filter(|_| integral);
            Some(unary(move |a: f64| mode.map_or(a, |mode| rounded(a, mode))))
        }
        (Type::F32, Type::F64) if !saturate && !integral => Some(unary(|a: f32| f64::from(a))),
        _ if integral || saturate => None,
        (Type::F64, Type::F32) if rounding == Some(Rounding::Nearest) => Some(unary(|a: f64| canonical(a as f32))),
        _ => {
            let (source, result) = (format(from)?, format(to)?);
            let widens = from.bytes() < to.bytes();
            // A conversion that loses nothing names no rounding.
            let rounding = if widens { Rounding::Nearest } else { rounding? };
            into_bits(to, from.kind(), move |bits| {
                Number::unpack(bits & (u64::MAX >> (64 - source.bits())), source).pack(result, rounding)
            })
        }
    }
}

fn relu(to: Format, rounding: Rounding) -> Option<Alu> {
    Some(unary(move |a: f32| relu_bits(a, to, rounding)))
}

/// Negative numbers become zero; "not a number" stays.
fn relu_bits(value: f32, to: Format, rounding: Rounding) -> u16 {
    let value = if value < 0.0 { 0.0 } else { value };
    Number::unpack(value.to_bits().into(), F32).pack(to, rounding) as u16
}

/// Two numbers into the halves of a word, the first into the upper.
fn pack_two(to: Type, from: Type, rounding: Rounding, modifiers: &[&str]) -> Option<Alu> {
    let format = if to == Type::F16x2 { F16 } else { BF16 };
    let relu = match (from, modifiers) {
        (Type::F32, []) => false,
        (Type::F32, ["relu"]) => true,
        _ => return None,
    };
    let one = move |value: f32| match relu {
        true => relu_bits(value, format, rounding),
        false => Number::unpack(value.to_bits().into(), F32).pack(format, rounding) as u16,
    };
    Some(binary(move |a: f32, b: f32| u32::from(one(a)) << 16 | u32::from(one(b))))
}
