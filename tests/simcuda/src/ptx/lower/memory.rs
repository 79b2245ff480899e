//! Loads, stores and atomics.

use super::super::arithmetic::Opcode;
use super::super::program::{Access, Atomic, AtomicOperation, Op, Space};
use super::super::syntax::Operand;
use super::super::types::{Kind, Type};
use super::{Lower, Lowered, unsupported};

/// What the modifiers of an access say.
struct Modifiers {
    space: Space,
    count: usize,
    strong: bool,
}

/// Reads the modifiers that loads, stores and atomics share. None for one that is not known.
fn modifiers(parts: &[&str]) -> Option<Modifiers> {
    let mut found = Modifiers { space: Space::Generic, count: 1, strong: false };
    for part in parts {
        match *part {
            "volatile" | "relaxed" | "acquire" | "release" | "acq_rel" | "mmio" => found.strong = true,
            "weak" | "cta" | "cluster" | "gpu" | "sys" | "nc" | "ca" | "cg" | "cs" | "cv" | "lu" | "wb" | "wt" => {}
            "global" | "const" => found.space = Space::Global,
            "shared" | "shared::cta" => found.space = Space::Shared,
            "local" => found.space = Space::Local,
            "param" | "param::entry" => found.space = Space::Param,
            "v2" => found.count = 2,
            "v4" => found.count = 4,
            _ if ["L1::", "L2::", "level::"].iter().any(|hint| part.starts_with(hint)) => {}
            _ => return None,
        }
    }
    Some(found)
}

impl<'a> Lower<'a, '_> {
    pub(super) fn load(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let [elements, address] = operands else { return Err("expected a register and an address".into()) };
        Ok(Op::Load(self.access(opcode, address, elements, true)?))
    }

    pub(super) fn store(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let [address, elements] = operands else { return Err("expected an address and a register".into()) };
        let access = self.access(opcode, address, elements, false)?;
        if access.space == Space::Param {
            return Err("calls are not supported: mark the function __forceinline__".into());
        }
        Ok(Op::Store(access))
    }

    fn access(
        &mut self,
        opcode: &Opcode<'_>,
        address: &Operand<'a>,
        elements: &Operand<'a>,
        load: bool,
    ) -> Result<Box<Access>, String> {
        let (Some(found), Some(ty)) = (modifiers(opcode.between()), opcode.last_type()) else {
            return Err(unsupported(opcode));
        };
        let parts = match elements {
            Operand::Vector(parts) => &parts[..],
            one => std::slice::from_ref(one),
        };
        if parts.len() != found.count || found.count * ty.bytes() > 16 {
            return Err(format!("{} registers for {} elements", parts.len(), found.count));
        }
        let elements = parts.iter().map(|part| self.element(part, ty, load)).collect::<Result<_, _>>()?;
        let address = self.address(address)?;
        Ok(Box::new(Access { space: found.space, ty, address, elements, strong: found.strong }))
    }

    /// A register that an element goes to or comes from. It may be wider than the element.
    fn element(&mut self, operand: &Operand<'a>, ty: Type, load: bool) -> Result<(u32, Kind), String> {
        let known = match operand {
            Operand::Name(name) => self.names.find(name).map(|found| found.1),
            _ => None,
        };
        let kind = known.unwrap_or(ty.kind());
        if kind == Kind::Predicate || kind == Kind::Word && ty.bytes() == 8 {
            return Err("a register is too narrow for the type".into());
        }
        let slot = if load { self.result(operand, kind)? } else { self.source(operand, kind)? };
        Ok((slot, kind))
    }

    pub(super) fn atomic(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let parts: Vec<&str> = opcode.between().iter().copied().filter(|part| *part != "noftz").collect();
        let (Some((operation, before)), Some(ty)) = (parts.split_last(), opcode.last_type()) else {
            return Err(unsupported(opcode));
        };
        let (Some(found), Some(operation)) = (modifiers(before), AtomicOperation::parse(operation)) else {
            return Err(unsupported(opcode));
        };
        let exact = match operation {
            AtomicOperation::Add => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64 | Type::F32 | Type::F64),
            AtomicOperation::Min | AtomicOperation::Max => {
                matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64)
            }
            AtomicOperation::Increment | AtomicOperation::Decrement => ty == Type::U32,
            AtomicOperation::CompareAndSwap => matches!(ty, Type::B16 | Type::B32 | Type::B64),
            _ => matches!(ty, Type::B32 | Type::B64),
        };
        if !exact || !matches!(found.space, Space::Generic | Space::Global | Space::Shared) {
            return Err(unsupported(opcode));
        }
        let kind = ty.kind();
        let (result, rest) = match (opcode.name(), operands) {
            ("atom", [result, rest @ ..]) => (Some(self.result(result, kind)?), rest),
            (_, rest) => (None, rest),
        };
        let (address, values) = match (operation, rest) {
            (AtomicOperation::CompareAndSwap, [address, compare, swap]) => {
                (address, [self.source(compare, kind)?, self.source(swap, kind)?])
            }
            (AtomicOperation::CompareAndSwap, _) => return Err("expected two values".into()),
            (_, [address, value]) => (address, [self.source(value, kind)?; 2]),
            _ => return Err("expected an address and a value".into()),
        };
        let address = self.address(address)?;
        Ok(Op::Atomic(Box::new(Atomic { space: found.space, ty, operation, address, operands: values, result })))
    }
}
