//! Branches, barriers, and what a warp does together.

use super::super::arithmetic::Opcode;
use super::super::program::{AtomicOperation, Barrier, Op, Reduction, Shuffle, Vote, WarpAction, WarpOp};
use super::super::syntax::Operand;
use super::super::types::{Kind, Type};
use super::{Jump, Lower, Lowered, unsupported};

impl<'a> Lower<'a, '_> {
    pub(super) fn branch(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>], line: u32) -> Lowered {
        let (op, label) = match (opcode.parts, operands) {
            (["bra"] | ["bra", "uni"], [Operand::Name(label)]) => (Op::Branch(0), *label),
            (["brx", "idx"] | ["brx", "idx", "uni"], [index, Operand::Name(list)]) => {
                let index = self.source(index, Kind::Word)?;
                (Op::BranchIndexed { index, targets: Box::default() }, *list)
            }
            _ => return Err(unsupported(opcode)),
        };
        self.branches.push(Jump { at: usize::MAX, scope: self.scope, label, line });
        Ok(op)
    }

    pub(super) fn barrier(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let parts: Vec<&str> = opcode.modifiers().iter().copied().filter(|part| *part != "cta").collect();
        if opcode.name() == "bar" && parts.starts_with(&["warp", "sync"]) {
            let [mask] = operands else { return Err("expected a mask".into()) };
            let mask = self.source(mask, Kind::Word)?;
            return Ok(Op::Warp(Box::new(WarpOp { mask, action: WarpAction::Sync })));
        }
        let aligned = opcode.name() == "bar" || parts.contains(&"aligned");
        let parts: Vec<&str> = parts.into_iter().filter(|part| *part != "aligned").collect();
        let mut barrier = Barrier { number: 0, threads: None, arrive_only: false, aligned, reduction: None };
        let rest = match parts[..] {
            ["sync"] => operands,
            ["arrive"] => {
                barrier.arrive_only = true;
                operands
            }
            ["red", operation, ty] => {
                let [result, rest @ .., predicate] = operands else { return Err("expected operands".into()) };
                let (operation, kind) = match (operation, ty) {
                    ("popc", "u32") => (Reduction::Count, Kind::Word),
                    ("and", "pred") => (Reduction::And, Kind::Predicate),
                    ("or", "pred") => (Reduction::Or, Kind::Predicate),
                    _ => return Err(unsupported(opcode)),
                };
                let result = self.result(result, kind)?;
                barrier.reduction = Some((operation, self.predicate(predicate)?, result));
                rest
            }
            _ => return Err(unsupported(opcode)),
        };
        match rest {
            [number] if !barrier.arrive_only => barrier.number = self.source(number, Kind::Word)?,
            [number, threads] => {
                barrier.number = self.source(number, Kind::Word)?;
                barrier.threads = Some(self.source(threads, Kind::Word)?);
            }
            _ => return Err("expected the number of a barrier, and perhaps of threads".into()),
        }
        Ok(Op::Barrier(Box::new(barrier)))
    }

    pub(super) fn warp_op(&mut self, opcode: &Opcode<'_>, operands: &[Operand<'a>]) -> Lowered {
        let action = match (opcode.parts, operands) {
            (["activemask", "b32"], [result]) => {
                return Ok(Op::ActiveMask(self.result(result, Kind::Word)?));
            }
            (["shfl", "sync", mode, "b32"], [result, value, lane, clamp, _]) => {
                let mode = match *mode {
                    "up" => Shuffle::Up,
                    "down" => Shuffle::Down,
                    "bfly" => Shuffle::Butterfly,
                    "idx" => Shuffle::Index,
                    _ => return Err(unsupported(opcode)),
                };
                let (result, valid) = self.results(result, Kind::Word)?;
                let [value, lane, clamp] = [value, lane, clamp].map(|operand| self.source(operand, Kind::Word));
                WarpAction::Shuffle { mode, value: value?, lane: lane?, clamp: clamp?, result, valid }
            }
            (["vote", "sync", mode, ty], [result, predicate, _]) => {
                let (mode, kind) = match (*mode, *ty) {
                    ("all", "pred") => (Vote::All, Kind::Predicate),
                    ("any", "pred") => (Vote::Any, Kind::Predicate),
                    ("uni", "pred") => (Vote::Uniform, Kind::Predicate),
                    ("ballot", "b32") => (Vote::Ballot, Kind::Word),
                    _ => return Err(unsupported(opcode)),
                };
                WarpAction::Vote { mode, predicate: self.predicate(predicate)?, result: self.result(result, kind)? }
            }
            (["match", mode @ ("any" | "all"), "sync", ty @ ("b32" | "b64")], [result, value, _]) => {
                let kind = if *ty == "b32" { Kind::Word } else { Kind::Long };
                let value = self.source(value, kind)?;
                let (result, same) = self.results(result, Kind::Word)?;
                match *mode {
                    "any" => WarpAction::MatchAny { value, kind, result },
                    _ => WarpAction::MatchAll { value, kind, result, same },
                }
            }
            (["redux", "sync", operation, ty], [result, value, _]) => {
                let ty = Type::parse(ty).filter(|ty| matches!(ty, Type::U32 | Type::S32 | Type::B32));
                let operation = AtomicOperation::parse(operation).filter(AtomicOperation::reduces);
                let (Some(ty), Some(operation)) = (ty, operation) else { return Err(unsupported(opcode)) };
                let value = self.source(value, Kind::Word)?;
                WarpAction::Reduce {
                    operation,
                    signed: ty.is_signed(),
                    value,
                    result: self.result(result, Kind::Word)?,
                }
            }
            (["elect", "sync"], [result, _]) => {
                let (result, Some(elected)) = self.results(result, Kind::Word)? else {
                    return Err("expected a register and a predicate".into());
                };
                WarpAction::Elect { result, elected }
            }
            _ => return Err(unsupported(opcode)),
        };
        let mask = operands.last().ok_or("expected a mask")?;
        Ok(Op::Warp(Box::new(WarpOp { mask: self.source(mask, Kind::Word)?, action })))
    }

    /// A result, or with `|` a result and a predicate.
    fn results(&mut self, operand: &Operand<'a>, kind: Kind) -> Result<(u32, Option<u32>), String> {
        match operand {
            Operand::Pair(result, predicate) => Ok((
                self.result(&Operand::Name(result), kind)?,
                Some(self.result(&Operand::Name(predicate), Kind::Predicate)?),
            )),
            _ => Ok((self.result(operand, kind)?, None)),
        }
    }
}

impl AtomicOperation {
    pub(in crate::ptx) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "add" => Self::Add,
            "min" => Self::Min,
            "max" => Self::Max,
            "and" => Self::And,
            "or" => Self::Or,
            "xor" => Self::Xor,
            "exch" => Self::Exchange,
            "cas" => Self::CompareAndSwap,
            "inc" => Self::Increment,
            "dec" => Self::Decrement,
            _ => return None,
        })
    }

    /// Whether it makes one value of many.
    fn reduces(&self) -> bool {
        matches!(self, Self::Add | Self::Min | Self::Max | Self::And | Self::Or | Self::Xor)
    }
}
