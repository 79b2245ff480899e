//! A kernel as it is run: instructions with every name resolved.

use super::arithmetic::Compare;
use super::registers::{Counts, Run, Slot, Slots};
use super::types::{Kind, Type};

/// What a kernel is made of.
pub(super) struct Program {
    pub(super) code: Vec<Instruction>,
    pub(super) counts: Counts,
    pub(super) constants: Vec<u64>,
    /// Registers that hold what the thread finds when it starts.
    pub(super) specials: Vec<(Special, Slot)>,
    /// Constants that are the address of a variable of the module, and bytes past it.
    pub(super) relocations: Vec<Relocation>,
    pub(super) shared_bytes: usize,
    pub(super) local_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Relocation {
    pub(super) constant: usize,
    pub(super) variable: usize,
    pub(super) offset: i64,
}

pub(super) struct Instruction {
    pub(super) guard: Option<Guard>,
    pub(super) op: Op,
    pub(super) line: u32,
    /// Where it stands in the text.
    pub(super) span: (usize, usize),
}

/// Runs an instruction only in lanes where a predicate is true, or false.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    pub(super) predicate: Slot,
    pub(super) negated: bool,
}

pub(super) enum Op {
    /// Arithmetic, lane by lane.
    Alu {
        run: Run,
        slots: Slots,
    },
    Set(Box<Set>),
    Load(Box<Access>),
    Store(Box<Access>),
    Atomic(Box<Atomic>),
    Branch(u32),
    BranchIndexed {
        index: Slot,
        targets: Box<[u32]>,
    },
    Exit,
    Trap,
    /// Fences and prefetches, which change nothing here.
    Nothing,
    Barrier(Box<Barrier>),
    Warp(Box<WarpOp>),
    ActiveMask(Slot),
}

/// `setp`.
pub(super) struct Set {
    pub(super) compare: Compare,
    pub(super) operands: [Slot; 2],
    /// A predicate that the result is combined with, and whether it is negated.
    pub(super) combine: Option<(Logic, Guard)>,
    pub(super) result: Slot,
    /// The second result, of the comparison that does not hold.
    pub(super) opposite: Option<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logic {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

/// A load or store of one to four elements side by side.
pub(super) struct Access {
    pub(super) space: Space,
    pub(super) ty: Type,
    pub(super) address: Address,
    /// Registers and the kind of each.
    pub(super) elements: Vec<(Slot, Kind)>,
    /// Volatile or ordered: concurrent with others of its kind by intention.
    pub(super) strong: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) base: Slot,
    pub(super) kind: Kind,
    pub(super) offset: i64,
}

/// `atom` and `red`.
pub(super) struct Atomic {
    pub(super) space: Space,
    pub(super) ty: Type,
    pub(super) operation: AtomicOperation,
    pub(super) address: Address,
    pub(super) operands: [Slot; 2],
    pub(super) result: Option<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtomicOperation {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Increment,
    Decrement,
}

/// `bar` and `barrier`.
pub(super) struct Barrier {
    pub(super) number: Slot,
    pub(super) threads: Option<Slot>,
    pub(super) arrive_only: bool,
    /// All threads of a warp must wait at the same instruction.
    pub(super) aligned: bool,
    pub(super) reduction: Option<(Reduction, Guard, Slot)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    Count,
    And,
    Or,
}

/// An instruction that the lanes of a mask execute together.
pub(super) struct WarpOp {
    pub(super) mask: Slot,
    pub(super) action: WarpAction,
}

pub(super) enum WarpAction {
    Sync,
    Shuffle { mode: Shuffle, value: Slot, lane: Slot, clamp: Slot, result: Slot, valid: Option<Slot> },
    Vote { mode: Vote, predicate: Guard, result: Slot },
    MatchAny { value: Slot, kind: Kind, result: Slot },
    MatchAll { value: Slot, kind: Kind, result: Slot, same: Option<Slot> },
    Reduce { operation: AtomicOperation, signed: bool, value: Slot, result: Slot },
    Elect { result: Slot, elected: Slot },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What a thread finds in a special register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
    Warp,
    Warps,
    LanesEqual,
    LanesLess,
    LanesLessEqual,
    LanesGreater,
    LanesGreaterEqual,
    DynamicShared,
    TotalShared,
    /// Clocks and numbers of the hardware, of which there is none.
    Zero,
    Zero64,
    One,
}

impl Special {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let axis = |axis: &str| ["x", "y", "z"].iter().position(|name| *name == axis);
        if let Some((name, part)) = name.split_once('.') {
            let axis = axis(part)?;
            return Some(match name {
                "%tid" => Self::Thread(axis),
                "%ntid" => Self::Threads(axis),
                "%ctaid" => Self::Block(axis),
                "%nctaid" => Self::Blocks(axis),
                _ => return None,
            });
        }
        Some(match name {
            "%laneid" => Self::Lane,
            "%warpid" => Self::Warp,
            "%nwarpid" => Self::Warps,
            "%lanemask_eq" => Self::LanesEqual,
            "%lanemask_lt" => Self::LanesLess,
            "%lanemask_le" => Self::LanesLessEqual,
            "%lanemask_gt" => Self::LanesGreater,
            "%lanemask_ge" => Self::LanesGreaterEqual,
            "%dynamic_smem_size" => Self::DynamicShared,
            "%total_smem_size" => Self::TotalShared,
            "%smid" | "%clock" | "%clock_hi" => Self::Zero,
            "%gridid" | "%clock64" | "%globaltimer" => Self::Zero64,
            "%nsmid" => Self::One,
            _ => return None,
        })
    }

    pub(super) fn kind(self) -> Kind {
        if self == Self::Zero64 { Kind::Long } else { Kind::Word }
    }
}
