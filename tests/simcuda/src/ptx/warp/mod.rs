//! A warp: 32 lanes that execute together as long as they are at the same place.
//!
//! Lanes at one place are a fragment. The fragment that is least far in the text runs, until it reaches another one's
//! place and joins it. Compilers put the place where paths meet behind the paths, so lanes are together again as soon as
//! they can be. A fragment that waits lets the others run.

mod access;
mod atomic;
mod collective;

use super::block::{BARRIERS, Env};
use super::fault::Failure;
use super::program::{Barrier, Guard, Instruction, Logic, Op, Reduction, Set};
use super::registers::{LANES, Mask, Registers, Slot, Value, lanes};
use super::types::Kind;
use super::{Fault, memory_map};

pub(super) struct Warp {
    index: usize,
    /// Lanes that are threads of the block.
    threads: Mask,
    live: Mask,
    pub(super) registers: Registers,
    fragments: Vec<Fragment>,
    local: Local,
    executed: u64,
    /// The fragment that is farthest runs next: others have spun long enough.
    farthest: bool,
}

/// Lanes at one place.
#[derive(Clone, Copy, Debug)]
struct Fragment {
    pc: u32,
    mask: Mask,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// Waits for other lanes of a mask.
    Lanes,
    /// Waits at a barrier of the block, for so many threads if it says so.
    Barrier(usize, Option<u32>),
}

/// Local memory, a thread's after another's, and which bytes have a value.
struct Local {
    bytes: Vec<u8>,
    defined: Vec<bool>,
    len_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Every fragment waits or has exited.
    Waits,
    /// It would go on.
    Yielded,
}

/// What becomes of a fragment after an instruction.
enum Flow {
    Next,
    /// It is to be chosen anew who runs.
    Choose,
}

impl Warp {
    pub(super) fn new(index: usize, threads: usize, env: &Env<'_>) -> Self {
        let program = &env.kernel.program;
        let lanes = (threads - index * LANES).min(LANES);
        Self {
            index,
            threads: Mask::MAX >> (LANES - lanes),
            live: 0,
            registers: Registers::new(program.counts, &program.constants),
            fragments: Vec::with_capacity(LANES + 1),
            local: Local {
                bytes: vec![0; program.local_bytes * LANES],
                defined: vec![false; program.local_bytes * LANES],
                len_bytes: program.local_bytes,
            },
            executed: 0,
            farthest: false,
        }
    }

    /// Starts a block.
    pub(super) fn begin(&mut self, env: &Env<'_>) {
        self.live = self.threads;
        self.executed = 0;
        self.registers.clear();
        self.local.defined.fill(false);
        self.fragments.clear();
        self.fragments.push(Fragment { pc: 0, mask: self.threads, state: State::Ready });
        for (special, slot) in &env.kernel.program.specials {
            for lane in 0..LANES {
                let value = env.special(*special, self.index, lane);
                match special.kind() {
                    Kind::Long => u64::put(&mut self.registers, *slot, lane, value),
                    _ => u32::put(&mut self.registers, *slot, lane, value as u32),
                }
            }
            self.registers.define(special.kind(), *slot, Mask::MAX, Mask::MAX);
        }
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn live(&self) -> Mask {
        self.live
    }

    pub(super) fn exited(&self) -> u32 {
        (self.threads & !self.live).count_ones()
    }

    /// Runs until every fragment waits or has exited, or for a slice.
    pub(super) fn run(&mut self, env: &mut Env<'_>) -> Result<Progress, Fault> {
        let end = self.executed + env.limits.slice;
        while let Some(mut fragment) = self.choose() {
            self.execute(env, &mut fragment, end)?;
            if fragment.mask != 0 {
                self.fragments.push(fragment);
            }
            if self.executed >= end {
                self.farthest = true;
                return Ok(Progress::Yielded);
            }
        }
        Ok(Progress::Waits)
    }

    /// Takes the fragment that runs next, joined by those at the same place.
    fn choose(&mut self) -> Option<Fragment> {
        let ready = self.fragments.iter().filter(|fragment| fragment.state == State::Ready).map(|fragment| fragment.pc);
        let pc = if std::mem::take(&mut self.farthest) { ready.max()? } else { ready.min()? };
        let mut mask = 0;
        self.fragments.retain(|fragment| {
            let here = fragment.pc == pc;
            mask |= if here { fragment.mask } else { 0 };
            !here
        });
        Some(Fragment { pc, mask, state: State::Ready })
    }

    /// Runs a fragment until it meets another, waits, exits or parts.
    fn execute(&mut self, env: &mut Env<'_>, fragment: &mut Fragment, end: u64) -> Result<(), Fault> {
        let kernel = env.kernel;
        let others = self.fragments.iter().map(|other| other.pc);
        let meets = others.filter(|pc| *pc > fragment.pc).min().unwrap_or(u32::MAX);
        loop {
            let instruction = &kernel.program.code[fragment.pc as usize];
            let mask = match instruction.guard {
                None => fragment.mask,
                Some(guard) => match self.guarded(guard, fragment.mask) {
                    Ok(mask) => mask,
                    Err(failure) => return Err(failure.fault(env, self.index, instruction)),
                },
            };
            self.executed += 1;
            env.stats.warp_instructions += 1;
            env.stats.instructions += u64::from(mask.count_ones());
            match self.step(env, fragment, instruction, mask) {
                Ok(Flow::Next) => {}
                Ok(Flow::Choose) => return Ok(()),
                Err(failure) => return Err(failure.fault(env, self.index, instruction)),
            }
            if fragment.pc == meets || self.executed >= end {
                if self.executed > env.limits.instructions_max {
                    let what = format!("the warp has executed {} instructions: does it run for ever?", self.executed);
                    return Err(Failure::of_warp(what).fault(env, self.index, instruction));
                }
                return Ok(());
            }
        }
    }

    /// The lanes in which a guard lets an instruction run.
    fn guarded(&self, guard: Guard, mask: Mask) -> Result<Mask, Failure> {
        let unknown = mask & !self.registers.defined(Kind::Predicate, guard.predicate);
        if unknown != 0 {
            let lane = unknown.trailing_zeros() as usize;
            return Err(Failure::at(lane, "the predicate hangs on a value that was never written"));
        }
        Ok(mask & self.holds(guard))
    }

    /// A predicate or its opposite, in all lanes.
    fn holds(&self, guard: Guard) -> Mask {
        let holds = self.registers.predicate(guard.predicate);
        if guard.negated { !holds } else { holds }
    }

    fn step(
        &mut self,
        env: &mut Env<'_>,
        fragment: &mut Fragment,
        instruction: &Instruction,
        mask: Mask,
    ) -> Result<Flow, Failure> {
        if mask == 0 {
            fragment.pc += 1;
            return Ok(Flow::Next);
        }
        match &instruction.op {
            Op::Alu { run, slots } => run(&mut self.registers, slots, mask),
            Op::Set(set) => self.set(set, mask),
            Op::Load(access) => self.load(env, access, mask)?,
            Op::Store(access) => self.store(env, access, mask)?,
            Op::Atomic(atomic) => self.atomic(env, atomic, mask)?,
            Op::Branch(target) => return Ok(self.branch(fragment, mask, *target)),
            Op::BranchIndexed { index, targets } => return self.branch_indexed(fragment, mask, *index, targets),
            Op::Exit => return Ok(self.exit(fragment, mask)),
            Op::Trap => return Err(Failure::at(mask.trailing_zeros() as usize, "trap")),
            Op::Nothing => {}
            Op::Barrier(barrier) => return self.barrier(env, fragment, barrier, mask),
            Op::Warp(op) => {
                self.part(fragment, mask);
                return self.together(env, fragment, op);
            }
            Op::ActiveMask(result) => {
                lanes(mask).for_each(|lane| u32::put(&mut self.registers, *result, lane, mask));
                self.registers.define(Kind::Word, *result, mask, mask);
            }
        }
        fragment.pc += 1;
        Ok(Flow::Next)
    }

    fn set(&mut self, set: &Set, mask: Mask) {
        let (compared, known) = (set.compare)(&self.registers, set.operands, mask);
        let combine = |compared: Mask| match set.combine {
            None => (compared, known),
            Some((logic, guard)) => {
                let other = self.holds(guard);
                let other_known = self.registers.defined(Kind::Predicate, guard.predicate);
                let both = known & other_known;
                match logic {
                    Logic::And => (compared & other, both | known & !compared | other_known & !other),
                    Logic::Or => (compared | other, both | known & compared | other_known & other),
                    Logic::Xor => (compared ^ other, both),
                }
            }
        };
        let (result, defined) = combine(compared);
        let (opposite, opposite_defined) = combine(!compared);
        self.registers.set_predicate(set.result, mask, result, defined);
        if let Some(slot) = set.opposite {
            self.registers.set_predicate(slot, mask, opposite, opposite_defined);
        }
    }

    fn branch(&mut self, fragment: &mut Fragment, mask: Mask, target: u32) -> Flow {
        if mask != fragment.mask {
            self.fragments.push(Fragment { pc: fragment.pc + 1, mask: fragment.mask & !mask, state: State::Ready });
            fragment.mask = mask;
        }
        fragment.pc = target;
        if self.fragments.is_empty() { Flow::Next } else { Flow::Choose }
    }

    fn branch_indexed(
        &mut self,
        fragment: &mut Fragment,
        mask: Mask,
        index: Slot,
        targets: &[u32],
    ) -> Result<Flow, Failure> {
        self.known(Kind::Word, index, mask, "the branch hangs on")?;
        self.part(fragment, mask);
        let mut rest = mask;
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            let number = u32::one(&self.registers, index, lane);
            let Some(target) = targets.get(number as usize) else {
                return Err(Failure::at(lane, format!("target {number} of {}", targets.len())));
            };
            let same = lanes(rest).filter(|lane| u32::one(&self.registers, index, *lane) == number);
            let same = same.fold(0, |mask: Mask, lane| mask | 1 << lane);
            self.fragments.push(Fragment { pc: *target, mask: same, state: State::Ready });
            rest &= !same;
        }
        fragment.mask = 0;
        Ok(Flow::Choose)
    }

    /// Leaves lanes that a guard excludes behind, to go on after the instruction.
    fn part(&mut self, fragment: &mut Fragment, mask: Mask) {
        if mask != fragment.mask {
            self.fragments.push(Fragment { pc: fragment.pc + 1, mask: fragment.mask & !mask, state: State::Ready });
            fragment.mask = mask;
        }
    }

    fn exit(&mut self, fragment: &mut Fragment, mask: Mask) -> Flow {
        self.live &= !mask;
        fragment.mask &= !mask;
        fragment.pc += 1;
        // Whoever waited for these lanes does so no more.
        for other in self.fragments.iter_mut().filter(|other| other.state == State::Lanes) {
            other.state = State::Ready;
        }
        if fragment.mask != 0 { Flow::Next } else { Flow::Choose }
    }

    fn barrier(
        &mut self,
        env: &mut Env<'_>,
        fragment: &mut Fragment,
        barrier: &Barrier,
        mask: Mask,
    ) -> Result<Flow, Failure> {
        self.known(Kind::Word, barrier.number, mask, "the barrier's number hangs on")?;
        if let Some((_, guard, _)) = barrier.reduction {
            self.guarded(guard, mask)?;
        }
        let lane = mask.trailing_zeros() as usize;
        let number = u32::one(&self.registers, barrier.number, lane) as usize;
        if number >= BARRIERS {
            return Err(Failure::at(lane, format!("barrier {number} of {BARRIERS}")));
        }
        self.part(fragment, mask);
        if barrier.arrive_only {
            let tick = env.shared.arrive();
            env.arrived[number].add(self.index, tick);
            fragment.pc += 1;
            return Ok(Flow::Choose);
        }
        let threads = barrier.threads.map(|slot| u32::one(&self.registers, slot, lane));
        if let Some(threads) = threads.filter(|threads| threads % LANES as u32 != 0) {
            return Err(Failure::at(lane, format!("a barrier for {threads} threads, which are no whole warps")));
        }
        fragment.state = State::Barrier(number, threads);
        Ok(Flow::Choose)
    }

    /// For how many threads it waits at a barrier, if it does.
    pub(super) fn waits_at(&self, number: usize) -> Option<Option<u32>> {
        self.fragments.iter().find_map(|fragment| match fragment.state {
            State::Barrier(found, threads) if found == number => Some(threads),
            _ => None,
        })
    }

    /// Lanes that wait at a barrier.
    pub(super) fn waiting(&self, number: usize) -> Mask {
        let waits = |state| matches!(state, State::Barrier(found, _) if found == number);
        self.fragments.iter().filter(|fragment| waits(fragment.state)).fold(0, |mask, fragment| mask | fragment.mask)
    }

    /// Of the lanes that wait at a barrier that reduces, how many there are and how many say yes.
    pub(super) fn vote(&self, code: &[Instruction], number: usize) -> [u32; 2] {
        let votes = self.reducing(code, number).map(|(mask, (_, guard, _))| (mask, mask & self.holds(guard)));
        votes.fold([0; 2], |[all, yes], (mask, holds)| [all + mask.count_ones(), yes + holds.count_ones()])
    }

    /// Gives every lane that waits at a barrier that reduces the result of all.
    pub(super) fn elected(&mut self, code: &[Instruction], number: usize, [all, yes]: [u32; 2]) {
        for at in 0..self.fragments.len() {
            let Some((mask, (reduction, _, result))) = reducing(self.fragments[at], code, number) else { continue };
            let holds = match reduction {
                Reduction::Count => {
                    lanes(mask).for_each(|lane| u32::put(&mut self.registers, result, lane, yes));
                    self.registers.define(Kind::Word, result, mask, mask);
                    continue;
                }
                Reduction::And => yes == all,
                Reduction::Or => yes > 0,
            };
            self.registers.set_predicate(result, mask, Mask::from(holds).wrapping_neg(), mask);
        }
    }

    fn reducing(&self, code: &[Instruction], number: usize) -> impl Iterator<Item = (Mask, Reduce)> {
        self.fragments.iter().filter_map(move |fragment| reducing(*fragment, code, number))
    }

    /// Goes on behind a barrier that is complete.
    pub(super) fn pass(&mut self, env: &Env<'_>, number: usize) -> Result<(), Fault> {
        let code = &env.kernel.program.code;
        let mut place = None;
        for fragment in &mut self.fragments {
            if !matches!(fragment.state, State::Barrier(found, _) if found == number) {
                continue;
            }
            let instruction = &code[fragment.pc as usize];
            let aligned = matches!(&instruction.op, Op::Barrier(barrier) if barrier.aligned);
            if let Some(other) = place.replace(fragment.pc)
                && aligned
            {
                let line = code[other as usize].line;
                let what = format!("barrier divergence: other threads of the warp wait at the barrier in line {line}");
                let lane = fragment.mask.trailing_zeros() as usize;
                return Err(Failure::at(lane, what).fault(env, self.index, instruction));
            }
            fragment.pc += 1;
            fragment.state = State::Ready;
        }
        Ok(())
    }

    /// Fragments that wait: place, lanes, and whether at a barrier.
    pub(super) fn stuck(&self) -> impl Iterator<Item = (u32, Mask, bool)> {
        self.fragments.iter().map(|fragment| (fragment.pc, fragment.mask, fragment.state != State::Lanes))
    }

    /// Checks that a register that decides something has a value.
    fn known(&self, kind: Kind, slot: Slot, mask: Mask, what: &str) -> Result<(), Failure> {
        match mask & !self.registers.defined(kind, slot) {
            0 => Ok(()),
            unknown => {
                Err(Failure::at(unknown.trailing_zeros() as usize, format!("{what} a value that was never written")))
            }
        }
    }
}

/// What a barrier that reduces does, with what, and where the result goes.
type Reduce = (Reduction, Guard, Slot);

/// The lanes of a fragment that waits at a barrier that reduces.
fn reducing(fragment: Fragment, code: &[Instruction], number: usize) -> Option<(Mask, Reduce)> {
    match (fragment.state, &code[fragment.pc as usize].op) {
        (State::Barrier(found, _), Op::Barrier(barrier)) if found == number => {
            Some((fragment.mask, barrier.reduction?))
        }
        _ => None,
    }
}
