//! What arithmetic instructions do, each by its opcode.

mod compare;
mod convert;
mod float;
mod integer;
pub(super) mod soft;

use super::types::Type;

pub(super) use super::registers::Alu;
pub(super) use compare::{Compare, Comparison, compare};
pub(super) use convert::convert;
pub(super) use float::canonical;
#[cfg(test)]
pub(super) use float::fused;
pub(super) use integer::lop3;

/// An opcode, cut at its dots.
pub(super) struct Opcode<'a> {
    pub(super) parts: &'a [&'a str],
}

impl<'a> Opcode<'a> {
    pub(super) fn name(&self) -> &'a str {
        self.parts.first().copied().unwrap_or_default()
    }

    /// The type it ends with.
    pub(super) fn last_type(&self) -> Option<Type> {
        Type::parse(self.parts.last()?)
    }

    /// What stands between the name and the last type.
    pub(super) fn between(&self) -> &'a [&'a str] {
        self.parts.get(1..self.parts.len() - 1).unwrap_or_default()
    }

    /// What stands after the name.
    pub(super) fn modifiers(&self) -> &'a [&'a str] {
        self.parts.get(1..).unwrap_or_default()
    }
}

/// The instruction, if the opcode is one whose operands are registers of the types that it names.
pub(super) fn instruction(opcode: &Opcode<'_>) -> Option<Alu> {
    integer::instruction(opcode)
        .or_else(|| integer::bits(opcode))
        .or_else(|| integer::conjunction(opcode))
        .or_else(|| float::instruction(opcode))
        .or_else(|| compare::instruction(opcode))
}
