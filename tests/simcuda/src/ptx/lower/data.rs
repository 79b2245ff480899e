//! Moves, conversions and comparisons: instructions whose operands are not simply what their type says.

use super::super::arithmetic::{Alu, Comparison, Opcode, compare, convert, lop3};
use super::super::memory_map::{LOCAL, PARAM, SHARED, WINDOW_BYTES};
use super::super::program::{Logic, Op, Set};
use super::super::registers::{binary, quaternary, unary};
use super::super::syntax::Operand;
use super::super::types::{Kind, Type};
use super::{Lower, Lowered, unsupported};

impl<'a> Lower<'a, '_> {
    pub(super) fn mov(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let ([_, _], [], Some(ty)) = (operands, opcode.between(), opcode.last_type()) else {
            return Err(unsupported(opcode));
        };
        match (&operands[0], &operands[1]) {
            (Operand::Vector(parts), whole) => self.unpack(parts, whole, ty),
            (whole, Operand::Vector(parts)) => self.pack(whole, parts, ty),
            _ => {
                let copy = match ty.kind() {
                    Kind::Word => unary(|a: u32| a),
                    Kind::Long => unary(|a: u64| a),
                    Kind::Predicate => unary(|a: bool| a),
                };
                self.alu(copy, operands)
            }
        }
    }

    /// Parts side by side become one value, the first the lowest bits.
    fn pack(&mut self, whole: &Operand<'a>, parts: &[Operand<'a>], ty: Type) -> Lowered {
        let operands: Vec<_> = std::iter::once(whole.clone()).chain(parts.iter().cloned()).collect();
        let alu = match (ty.bytes(), parts.len()) {
            (4, 2) => binary(|a: u16, b: u16| u32::from(a) | u32::from(b) << 16),
            (8, 2) => binary(|a: u32, b: u32| u64::from(a) | u64::from(b) << 32),
            (2, 2) => binary(|a: u8, b: u8| u16::from(a) | u16::from(b) << 8),
            (4, 4) => quaternary(|a: u8, b: u8, c: u8, d: u8| u32::from_le_bytes([a, b, c, d])),
            (8, 4) => quaternary(|a: u16, b: u16, c: u16, d: u16| {
                [d, c, b, a].iter().fold(0_u64, |whole, part| whole << 16 | u64::from(*part))
            }),
            _ => return Err("parts that do not make up the whole".into()),
        };
        self.alu(alu, &operands)
    }

    /// One instruction for each part. The parts may include the whole only as the last, as every compiler has it.
    fn unpack(&mut self, parts: &[Operand<'a>], whole: &Operand<'a>, ty: Type) -> Lowered {
        let bits = (ty.bytes() * 8 / parts.len().max(1)) as u32;
        let mut ops = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| **part != Operand::Name("_")) {
            let shift = at as u32 * bits;
            let mask = u32::MAX >> (32 - bits.min(32));
            let alu = match ty.kind() {
                Kind::Word => unary(move |a: u32| a >> shift & mask),
                Kind::Long => unary(move |a: u64| (a >> shift) as u32 & mask),
                Kind::Predicate => return Err("a predicate has no parts".into()),
            };
            ops.push(self.alu(alu, &[part.clone(), whole.clone()])?);
        }
        let last = ops.pop().unwrap_or(Op::Nothing);
        self.before.extend(ops);
        Ok(last)
    }

    /// `cvta`: generic addresses are those of global memory, with windows for the other spaces.
    pub(super) fn convert_address(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let (to, space) = match opcode.modifiers() {
            ["to", space, "u64"] => (true, *space),
            [space, "u64"] => (false, *space),
            _ => return Err(unsupported(opcode)),
        };
        let Some(window) = window(space) else { return Err(unsupported(opcode)) };
        let alu = match to {
            true => unary(move |a: u64| a.wrapping_sub(window)),
            false => unary(move |a: u64| a.wrapping_add(window)),
        };
        self.alu(alu, operands)
    }

    pub(super) fn is_space(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let alu = match opcode.modifiers() {
            ["global"] => {
                unary(|a: u64| ![SHARED, LOCAL, PARAM].iter().any(|window| a.wrapping_sub(*window) < WINDOW_BYTES))
            }
            [space] => match window(space) {
                Some(window) if window != 0 => unary(move |a: u64| a.wrapping_sub(window) < WINDOW_BYTES),
                _ => return Err(unsupported(opcode)),
            },
            _ => return Err(unsupported(opcode)),
        };
        self.alu(alu, operands)
    }

    pub(super) fn convert(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        if opcode.parts == ["cvt", "pack", "sat", "u8", "s32", "b32"] {
            return Err(unsupported(opcode));
        }
        let source = match operands.get(1) {
            Some(Operand::Name(name)) => self.names.find(name).map(|found| found.1),
            _ => None,
        };
        let source = source.or_else(|| Some(opcode.last_type()?.kind()));
        match source.and_then(|source| convert(opcode, source)) {
            Some(alu) => self.alu(alu, operands),
            None => Err(unsupported(opcode)),
        }
    }

    pub(super) fn set_predicate(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let [result, operands @ ..] = operands else { return Err("expected a predicate".into()) };
        let (result, opposite) = match result {
            Operand::Pair(result, opposite) => (
                self.result(&Operand::Name(result), Kind::Predicate)?,
                Some(self.result(&Operand::Name(opposite), Kind::Predicate)?),
            ),
            _ => (self.result(result, Kind::Predicate)?, None),
        };
        let Some((comparison, modifiers)) = opcode.between().split_first() else { return Err(unsupported(opcode)) };
        let set = self.comparison(opcode, comparison, modifiers, operands, result)?;
        Ok(Op::Set(Box::new(Set { opposite, ..set })))
    }

    fn comparison(
        &mut self,
        opcode: &Opcode<'_>,
        comparison: &str,
        modifiers: &[&str],
        operands: &[Operand<'a>],
        result: u32,
    ) -> Result<Set, String> {
        let (Some(comparison), Some(ty)) = (Comparison::parse(comparison), opcode.last_type()) else {
            return Err(unsupported(opcode));
        };
        let combine = match (modifiers, operands) {
            ([], [_, _]) => None,
            (["and"], [_, _, other]) => Some((Logic::And, self.predicate(other)?)),
            (["or"], [_, _, other]) => Some((Logic::Or, self.predicate(other)?)),
            (["xor"], [_, _, other]) => Some((Logic::Xor, self.predicate(other)?)),
            _ => return Err(unsupported(opcode)),
        };
        let Some(compare) = compare(comparison, ty) else { return Err(unsupported(opcode)) };
        let operands = [self.source(&operands[0], ty.kind())?, self.source(&operands[1], ty.kind())?];
        Ok(Set { compare, operands, combine, result, opposite: None })
    }

    /// `set`: a comparison, then a choice between all ones (or 1.0) and zero.
    pub(super) fn set_register(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let ([result, operands @ ..], [comparison, modifiers @ .., to]) = (operands, opcode.between()) else {
            return Err(unsupported(opcode));
        };
        let yes: u32 = match Type::parse(to) {
            Some(Type::U32 | Type::S32) => u32::MAX,
            Some(Type::F32) => 1.0_f32.to_bits(),
            _ => return Err(unsupported(opcode)),
        };
        let predicate = self.names.fresh(Kind::Predicate);
        let set = self.comparison(opcode, comparison, modifiers, operands, predicate)?;
        self.before.push(Op::Set(Box::new(set)));
        let choice: Alu = unary(move |holds: bool| if holds { yes } else { 0 });
        let slots = [self.result(result, Kind::Word)?, predicate, 0, 0, 0, 0];
        Ok(Op::Alu { run: choice.run, slots })
    }

    pub(super) fn lop3(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        match (opcode.parts, operands) {
            (["lop3", "b32"], [operands @ .., Operand::Integer(table)]) => self.alu(lop3(*table as u8), operands),
            _ => Err(unsupported(opcode)),
        }
    }
}

/// What an address in a space has added to it to be generic.
fn window(space: &str) -> Option<u64> {
    Some(match space {
        "global" | "const" => 0,
        "shared" | "shared::cta" => SHARED,
        "local" => LOCAL,
        "param" | "param::entry" => PARAM,
        _ => return None,
    })
}
