//! What the lanes of a mask do together.

use super::super::program::{Op, Shuffle, Vote, WarpAction, WarpOp};
use super::super::registers::{LANES, Mask, Slot, Value, lanes};
use super::super::types::{Kind, Type};
use super::atomic::combine;
use super::{Env, Failure, Flow, Fragment, State, Warp};

impl Warp {
    /// Executes an instruction for each mask whose lanes are all here; the others wait.
    pub(super) fn together(
        &mut self,
        env: &mut Env<'_>,
        fragment: &mut Fragment,
        op: &WarpOp,
    ) -> Result<Flow, Failure> {
        self.known(Kind::Word, op.mask, fragment.mask, "the mask hangs on")?;
        let (mut rest, mut done) = (fragment.mask, 0);
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            let members = u32::one(&self.registers, op.mask, lane);
            let same = lanes(rest).filter(|lane| u32::one(&self.registers, op.mask, *lane) == members);
            let here = same.fold(0, |mask: Mask, lane| mask | 1 << lane);
            if here & !members != 0 {
                let lane = (here & !members).trailing_zeros() as usize;
                return Err(Failure::at(lane, format!("the lane is not in its mask {members:#010x}")));
            }
            rest &= !here;
            let elsewhere = if matches!(op.action, WarpAction::Sync) { self.syncing(env, members) } else { 0 };
            if members & self.live & !(here | elsewhere) == 0 {
                self.act(env, &op.action, members, here)?;
                self.wake(elsewhere);
                done |= here;
            }
        }
        if done != fragment.mask {
            let waiting = fragment.mask & !done;
            self.fragments.push(Fragment { pc: fragment.pc, mask: waiting, state: State::Lanes });
            fragment.mask = done;
        }
        fragment.pc += 1;
        Ok(if self.fragments.is_empty() { Flow::Next } else { Flow::Choose })
    }

    /// Lanes of a mask that wait at another `bar.warp.sync` for the same mask.
    fn syncing(&self, env: &Env<'_>, members: Mask) -> Mask {
        let mut found = 0;
        for fragment in self.fragments.iter().filter(|fragment| fragment.state == State::Lanes) {
            if let Op::Warp(op) = &env.kernel.program.code[fragment.pc as usize].op
                && matches!(op.action, WarpAction::Sync)
            {
                let same = lanes(fragment.mask & members);
                found |= same
                    .filter(|lane| u32::one(&self.registers, op.mask, *lane) == members)
                    .fold(0, |mask: Mask, lane| mask | 1 << lane);
            }
        }
        found
    }

    /// Lets lanes go on that waited for others at their own instruction.
    fn wake(&mut self, mask: Mask) {
        if mask == 0 {
            return;
        }
        for at in 0..self.fragments.len() {
            let fragment = &mut self.fragments[at];
            let (pc, woken) = (fragment.pc, fragment.mask & mask);
            if fragment.state == State::Lanes && woken != 0 {
                fragment.mask &= !mask;
                self.fragments.push(Fragment { pc: pc + 1, mask: woken, state: State::Ready });
            }
        }
        self.fragments.retain(|fragment| fragment.mask != 0);
    }

    fn act(&mut self, env: &mut Env<'_>, action: &WarpAction, members: Mask, here: Mask) -> Result<(), Failure> {
        match *action {
            WarpAction::Sync => env.shared.sync_lanes(self.index, members),
            WarpAction::Shuffle { mode, value, lane, clamp, result, valid } => {
                self.shuffle(mode, [value, lane, clamp], result, valid, here);
            }
            WarpAction::Vote { mode, predicate, result } => {
                let known = here & !self.registers.defined(Kind::Predicate, predicate.predicate) == 0;
                let defined = if known { here } else { 0 };
                let holds = self.holds(predicate) & here;
                let answer = match mode {
                    Vote::Ballot => {
                        self.put_words(result, here, defined, |_| holds);
                        return Ok(());
                    }
                    Vote::All => holds == here,
                    Vote::Any => holds != 0,
                    Vote::Uniform => holds == here || holds == 0,
                };
                self.registers.set_predicate(result, here, Mask::from(answer).wrapping_neg(), defined);
            }
            WarpAction::MatchAny { value, kind, result } => {
                self.known(kind, value, here, "the match hangs on")?;
                let values = self.values(kind, value);
                self.put_words(result, here, here, |lane| {
                    lanes(here).filter(|other| values[*other] == values[lane]).fold(0, |mask, other| mask | 1 << other)
                });
            }
            WarpAction::MatchAll { value, kind, result, same } => {
                self.known(kind, value, here, "the match hangs on")?;
                let values = self.values(kind, value);
                let first = values[here.trailing_zeros() as usize % LANES];
                let all = lanes(here).all(|lane| values[lane] == first);
                self.put_words(result, here, here, |_| if all { here } else { 0 });
                if let Some(same) = same {
                    self.registers.set_predicate(same, here, Mask::from(all).wrapping_neg(), here);
                }
            }
            WarpAction::Reduce { operation, signed, value, result } => {
                let known = here & !self.registers.defined(Kind::Word, value) == 0;
                let ty = if signed { Type::S32 } else { Type::U32 };
                let values = self.values(Kind::Word, value);
                let reduced = lanes(here)
                    .map(|lane| values[lane])
                    .reduce(|all, value| combine(operation, ty, all, [value; 2]))
                    .unwrap_or_default();
                self.put_words(result, here, if known { here } else { 0 }, |_| reduced as u32);
            }
            WarpAction::Elect { result, elected } => {
                let leader = here & here.wrapping_neg();
                self.put_words(result, here, here, |_| leader.trailing_zeros());
                self.registers.set_predicate(elected, here, leader, here);
            }
        }
        Ok(())
    }

    /// The pseudocode of `shfl.sync`.
    fn shuffle(
        &mut self,
        mode: Shuffle,
        [value, lane, clamp]: [Slot; 3],
        result: Slot,
        valid: Option<Slot>,
        here: Mask,
    ) {
        let values = u32::all(&self.registers, value);
        let (from, clamps) = (u32::all(&self.registers, lane), u32::all(&self.registers, clamp));
        let known = self.registers.defined(Kind::Word, value);
        let chosen = self.registers.defined(Kind::Word, lane) & self.registers.defined(Kind::Word, clamp);
        let (mut values_new, mut defined, mut in_range) = ([0; LANES], 0, 0);
        for at in lanes(here) {
            let (from, segment) = (from[at] & 31, clamps[at] >> 8 & 31);
            let clamp = clamps[at] & 31;
            let own = at as u32;
            let most = own & segment | clamp & !segment;
            let least = own & segment;
            let (source, inside) = match mode {
                Shuffle::Up => (own.wrapping_sub(from), own as i32 - from as i32 >= most as i32),
                Shuffle::Down => (own + from, own + from <= most),
                Shuffle::Butterfly => (own ^ from, own ^ from <= most),
                Shuffle::Index => (least | from & !segment, (least | from & !segment) <= most),
            };
            let source = if inside { source as usize } else { at };
            values_new[at] = values[source];
            // A lane that takes no part has nothing to give.
            let has_value = (known & here) >> source & chosen >> at & 1;
            defined |= has_value << at;
            in_range |= Mask::from(inside) << at;
        }
        self.put_words(result, here, defined, |lane| values_new[lane]);
        if let Some(valid) = valid {
            self.registers.set_predicate(valid, here, in_range, chosen);
        }
    }

    fn values(&self, kind: Kind, slot: Slot) -> [u64; LANES] {
        std::array::from_fn(|lane| self.registers.bits(kind, slot, lane))
    }

    fn put_words(&mut self, slot: Slot, mask: Mask, defined: Mask, value: impl Fn(usize) -> u32) {
        for lane in lanes(mask) {
            u32::put(&mut self.registers, slot, lane, value(lane));
        }
        self.registers.define(Kind::Word, slot, mask, defined);
    }
}
