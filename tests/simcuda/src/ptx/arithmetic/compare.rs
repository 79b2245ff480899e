//! Comparisons, predicates and choices.

use super::super::registers::{Alu, Mask, Registers, Slots, Value, lanes, ternary};
use super::super::types::{Kind, Type};
use super::Opcode;
use super::integer::with_integer;
use super::soft::{BF16, F16, F32, Format, Number, Rounding};

/// A comparison by its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ptx) struct Comparison {
    less: bool,
    equal: bool,
    greater: bool,
    unordered: bool,
}

impl Comparison {
    pub(in crate::ptx) fn parse(name: &str) -> Option<Self> {
        let of = |holds: [bool; 4]| Self { less: holds[0], equal: holds[1], greater: holds[2], unordered: holds[3] };
        Some(of(match name {
            "eq" => [false, true, false, false],
            "ne" => [true, false, true, false],
            "lt" | "lo" => [true, false, false, false],
            "le" | "ls" => [true, true, false, false],
            "gt" | "hi" => [false, false, true, false],
            "ge" | "hs" => [false, true, true, false],
            "equ" => [false, true, false, true],
            "neu" => [true, false, true, true],
            "ltu" => [true, false, false, true],
            "leu" => [true, true, false, true],
            "gtu" => [false, false, true, true],
            "geu" => [false, true, true, true],
            "num" => [true, true, true, false],
            "nan" => [false, false, false, true],
            _ => return None,
        }))
    }

    #[inline(always)]
    fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        // Written so that it becomes compares and masks, with no branch in the loop over lanes.
        let (less, equal, greater) = (a < b, a == b, a > b);
        self.less & less | self.equal & equal | self.greater & greater | self.unordered & !(less | equal | greater)
    }
}

/// Compares in the lanes of a mask: the lanes where it holds, and those in which both operands have a value.
pub(in crate::ptx) type Compare = Box<dyn Fn(&Registers, [u32; 2], Mask) -> (Mask, Mask) + Send + Sync>;

/// The comparison of two operands of a type.
pub(in crate::ptx) fn compare(comparison: Comparison, ty: Type) -> Option<Compare> {
    match ty {
        Type::F32 => Some(of::<f32>(comparison)),
        Type::F64 => Some(of::<f64>(comparison)),
        Type::F16 => Some(of_half(comparison, F16)),
        Type::Bf16 => Some(of_half(comparison, BF16)),
        _ => with_integer!(ty, T => of::<T>(comparison)),
    }
}

fn of<T: Value + PartialOrd>(comparison: Comparison) -> Compare {
    Box::new(move |r, [a, b], mask| {
        let mut holds = 0;
        if mask == Mask::MAX {
            let (a, b) = (T::all(r, a), T::all(r, b));
            for lane in 0..a.len() {
                holds |= Mask::from(comparison.holds(a[lane], b[lane])) << lane;
            }
        } else {
            for lane in lanes(mask) {
                holds |= Mask::from(comparison.holds(T::one(r, a, lane), T::one(r, b, lane))) << lane;
            }
        }
        (holds, r.defined(T::KIND, a) & r.defined(T::KIND, b))
    })
}

fn of_half(comparison: Comparison, format: Format) -> Compare {
    let widen =
        move |bits: u16| f32::from_bits(Number::unpack(bits.into(), format).pack(F32, Rounding::Nearest) as u32);
    Box::new(move |r, [a, b], mask| {
        let holds = lanes(mask)
            .filter(|&lane| comparison.holds(widen(u16::one(r, a, lane)), widen(u16::one(r, b, lane))))
            .fold(0, |holds, lane| holds | 1 << lane);
        (holds, r.defined(Kind::Word, a) & r.defined(Kind::Word, b))
    })
}

/// Logic on predicates, and choices by them.
pub(super) fn instruction(opcode: &Opcode<'_>) -> Option<Alu> {
    match (opcode.name(), opcode.between(), opcode.last_type()?) {
        ("selp", [], ty) => match (ty.kind(), ty) {
            (Kind::Long, _) => Some(choice::<u64>()),
            (Kind::Word, Type::U16 | Type::S16 | Type::B16) => Some(choice::<u16>()),
            (Kind::Word, _) => Some(choice::<u32>()),
            (Kind::Predicate, _) => None,
        },
        ("slct", [kind], Type::S32) => match Type::parse(kind)?.kind() {
            Kind::Long => Some(ternary(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b })),
            Kind::Word => Some(ternary(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b })),
            Kind::Predicate => None,
        },
        ("slct", [kind], Type::F32) => match Type::parse(kind)?.kind() {
            Kind::Long => Some(ternary(|a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b })),
            Kind::Word => Some(ternary(|a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b })),
            Kind::Predicate => None,
        },
        (name, [], Type::Predicate) => predicate(name),
        _ => None,
    }
}

/// `selp`: has a value where the operand chosen has one.
fn choice<T: Value + PartialEq>() -> Alu {
    let run = |r: &mut Registers, slots: &Slots, mask: Mask| {
        let [first, second] = [slots[1], slots[2]].map(|slot| r.defined(T::KIND, slot));
        let chosen = r.predicate(slots[3]);
        let known = r.defined(Kind::Predicate, slots[3]);
        let mut defined = (chosen & first | !chosen & second) & known;
        // A choice between equals does not hang on the predicate.
        for lane in lanes(mask & !known & first & second) {
            defined |= Mask::from(T::one(r, slots[1], lane) == T::one(r, slots[2], lane)) << lane;
        }
        if mask == Mask::MAX {
            let (a, b) = (T::all(r, slots[1]), T::all(r, slots[2]));
            let mut values = b;
            for lane in 0..values.len() {
                if chosen >> lane & 1 != 0 {
                    values[lane] = a[lane];
                }
            }
            T::put_all(r, slots[0], &values);
        } else {
            for lane in lanes(mask) {
                let value = T::one(r, slots[if chosen >> lane & 1 != 0 { 1 } else { 2 }], lane);
                T::put(r, slots[0], lane, value);
            }
        }
        r.define(T::KIND, slots[0], mask, defined);
    };
    Alu { run: Box::new(run), kinds: vec![T::KIND, T::KIND, T::KIND, Kind::Predicate] }
}

/// Whole masks at once. A known false makes an `and` known, a known true an `or`.
fn predicate(name: &str) -> Option<Alu> {
    fn binary(f: fn(Mask, Mask) -> Mask, decides: fn(Mask) -> Mask) -> Alu {
        let run = move |r: &mut Registers, slots: &Slots, mask: Mask| {
            let (a, b) = (r.predicate(slots[1]), r.predicate(slots[2]));
            let [a_known, b_known] = [slots[1], slots[2]].map(|slot| r.defined(Kind::Predicate, slot));
            let known = a_known & b_known | a_known & decides(a) | b_known & decides(b);
            r.set_predicate(slots[0], mask, f(a, b), known);
        };
        Alu { run: Box::new(run), kinds: vec![Kind::Predicate; 3] }
    }
    fn unary(f: fn(Mask) -> Mask) -> Alu {
        let run = move |r: &mut Registers, slots: &Slots, mask: Mask| {
            let known = r.defined(Kind::Predicate, slots[1]);
            r.set_predicate(slots[0], mask, f(r.predicate(slots[1])), known);
        };
        Alu { run: Box::new(run), kinds: vec![Kind::Predicate; 2] }
    }
    Some(match name {
        "and" => binary(|a, b| a & b, |a| !a),
        "or" => binary(|a, b| a | b, |a| a),
        "xor" => binary(|a, b| a ^ b, |_| 0),
        "not" => unary(|a| !a),
        "mov" => unary(|a| a),
        _ => return None,
    })
}
