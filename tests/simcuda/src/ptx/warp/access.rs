//! Loads and stores of a warp.

use super::super::program::{Access, Address, Space};
use super::super::registers::{CONSTANT, LANES, Mask, Registers, Slot, Value, lanes};
use super::super::shared;
use super::super::types::{Kind, Type};
use super::memory_map::{LOCAL, PARAM, SHARED, WINDOW_BYTES};
use super::{Env, Failure, Warp};

/// Bytes of the widest access of a lane.
const WIDEST: usize = 16;

/// What the lanes of a warp load or store: one lane's bytes after another's.
pub(super) struct Stage {
    bytes: [u8; LANES * WIDEST],
    /// Bytes of a lane.
    len_bytes: usize,
    /// Bytes from a lane to the next: none where all load the same.
    stride: usize,
    /// For each element, the lanes in which it has a value.
    defined: [Mask; 4],
}

impl Stage {
    fn lane(&self, lane: usize) -> &[u8] {
        let at = lane * self.stride;
        &self.bytes[at..at + self.len_bytes]
    }

    fn lane_mut(&mut self, lane: usize) -> &mut [u8] {
        let at = lane * self.stride;
        &mut self.bytes[at..at + self.len_bytes]
    }
}

impl Warp {
    pub(super) fn load(&mut self, env: &mut Env<'_>, access: &Access, mask: Mask) -> Result<(), Failure> {
        let addresses = self.addresses(&access.address, mask)?;
        let len_bytes = access.ty.bytes() * access.elements.len();
        aligned(&addresses, mask, len_bytes)?;
        let mut stage = Stage { bytes: [0; LANES * WIDEST], len_bytes, stride: len_bytes, defined: [Mask::MAX; 4] };
        let uniform = access.address.base & CONSTANT != 0;
        if uniform && matches!(access.space, Space::Param | Space::Global) {
            // One address for all: the first lane loads for the others.
            stage.stride = 0;
            self.load_space(env, access, access.space, &addresses, mask & mask.wrapping_neg(), &mut stage)?;
        } else {
            for (space, mask, window) in spaces(access.space, &addresses, mask) {
                let moved = addresses.map(|address| address.wrapping_sub(window));
                self.load_space(env, access, space, &moved, mask, &mut stage)?;
            }
        }
        for (element, (slot, kind)) in access.elements.iter().enumerate() {
            let at = element * access.ty.bytes();
            unstage(&mut self.registers, *slot, *kind, access.ty, mask, &stage, at);
            self.registers.define(*kind, *slot, mask, stage.defined[element]);
        }
        Ok(())
    }

    fn load_space(
        &mut self,
        env: &mut Env<'_>,
        access: &Access,
        space: Space,
        addresses: &[u64; LANES],
        mask: Mask,
        stage: &mut Stage,
    ) -> Result<(), Failure> {
        match space {
            Space::Generic | Space::Global => load_global(env, addresses, mask, stage),
            Space::Param => {
                for lane in lanes(mask) {
                    let from = usize::try_from(addresses[lane])
                        .ok()
                        .and_then(|at| env.launch.params.get(at..)?.get(..stage.len_bytes));
                    match from {
                        Some(from) => stage.lane_mut(lane).copy_from_slice(from),
                        None => {
                            let len = env.launch.params.len();
                            let what = format!(
                                "{} bytes at {:#x} of the parameters, which are {len} bytes",
                                stage.len_bytes, addresses[lane]
                            );
                            return Err(Failure::at(lane, what));
                        }
                    }
                }
                Ok(())
            }
            Space::Shared => {
                let size = access.ty.bytes();
                for lane in lanes(mask) {
                    let who = shared::Access { warp: self.index, lane, strong: access.strong };
                    for element in 0..access.elements.len() {
                        let at = lane * stage.stride + element * size;
                        let address = addresses[lane].wrapping_add((element * size) as u64);
                        let defined = env.shared.load(who, address, &mut stage.bytes[at..at + size]);
                        let defined = defined.map_err(|what| Failure::at(lane, what))?;
                        stage.defined[element] &= !(Mask::from(!defined) << lane);
                    }
                }
                Ok(())
            }
            Space::Local => {
                let size = access.ty.bytes();
                for lane in lanes(mask) {
                    let range = self.local.range(lane, addresses[lane], stage.len_bytes)?;
                    stage.lane_mut(lane).copy_from_slice(&self.local.bytes[range.clone()]);
                    for element in 0..access.elements.len() {
                        let at = range.start + element * size;
                        let defined = self.local.defined[at..at + size].iter().all(|defined| *defined);
                        stage.defined[element] &= !(Mask::from(!defined) << lane);
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn store(&mut self, env: &mut Env<'_>, access: &Access, mask: Mask) -> Result<(), Failure> {
        let addresses = self.addresses(&access.address, mask)?;
        let size = access.ty.bytes();
        let len_bytes = size * access.elements.len();
        aligned(&addresses, mask, len_bytes)?;
        let mut stage = Stage { bytes: [0; LANES * WIDEST], len_bytes, stride: len_bytes, defined: [Mask::MAX; 4] };
        for (element, (slot, kind)) in access.elements.iter().enumerate() {
            restage(&self.registers, *slot, *kind, access.ty, mask, &mut stage, element * size);
            stage.defined[element] = self.registers.defined(*kind, *slot);
        }
        for (space, mask, window) in spaces(access.space, &addresses, mask) {
            let moved = addresses.map(|address| address.wrapping_sub(window));
            match space {
                Space::Generic | Space::Global => store_global(env, access, &moved, mask, &stage)?,
                Space::Shared => self.store_shared(env, access, &moved, mask, &stage)?,
                Space::Local => self.store_local(access, &moved, mask, &stage)?,
                Space::Param => return Err(Failure::of_warp("parameters are not written")),
            }
        }
        Ok(())
    }

    fn store_shared(
        &self,
        env: &mut Env<'_>,
        access: &Access,
        addresses: &[u64; LANES],
        mask: Mask,
        stage: &Stage,
    ) -> Result<(), Failure> {
        let size = access.ty.bytes();
        for lane in lanes(mask) {
            let who = shared::Access { warp: self.index, lane, strong: access.strong };
            for (element, from) in stage.lane(lane).chunks(size).enumerate() {
                let address = addresses[lane].wrapping_add((element * size) as u64);
                let defined = stage.defined[element] >> lane & 1 != 0;
                env.shared.store(who, address, from, defined).map_err(|what| Failure::at(lane, what))?;
            }
        }
        Ok(())
    }

    fn store_local(
        &mut self,
        access: &Access,
        addresses: &[u64; LANES],
        mask: Mask,
        stage: &Stage,
    ) -> Result<(), Failure> {
        let size = access.ty.bytes();
        for lane in lanes(mask) {
            let range = self.local.range(lane, addresses[lane], stage.len_bytes)?;
            self.local.bytes[range.clone()].copy_from_slice(stage.lane(lane));
            for element in 0..access.elements.len() {
                let at = range.start + element * size;
                self.local.defined[at..at + size].fill(stage.defined[element] >> lane & 1 != 0);
            }
        }
        Ok(())
    }

    /// The address of each lane.
    pub(super) fn addresses(&self, address: &Address, mask: Mask) -> Result<[u64; LANES], Failure> {
        self.known(address.kind, address.base, mask, "the address hangs on")?;
        Ok(match address.kind {
            Kind::Long => u64::all(&self.registers, address.base).map(|base| base.wrapping_add_signed(address.offset)),
            _ => {
                u32::all(&self.registers, address.base).map(|base| u64::from(base.wrapping_add(address.offset as u32)))
            }
        })
    }
}

impl super::Local {
    fn range(&self, lane: usize, address: u64, len: usize) -> Result<std::ops::Range<usize>, Failure> {
        match usize::try_from(address).ok().and_then(|at| at.checked_add(len)) {
            Some(end) if end <= self.len_bytes => {
                let start = lane * self.len_bytes + end - len;
                Ok(start..start + len)
            }
            _ => {
                let own = self.len_bytes;
                let what = format!("{len} bytes at {address:#x} of local memory, of which the thread has {own} bytes");
                Err(Failure::at(lane, what))
            }
        }
    }
}

/// Checks that the address of every lane is a multiple of the access's size.
pub(super) fn aligned(addresses: &[u64; LANES], mask: Mask, len_bytes: usize) -> Result<(), Failure> {
    let low = len_bytes as u64 - 1;
    match lanes(mask).find(|lane| addresses[*lane] & low != 0) {
        None => Ok(()),
        Some(lane) => Err(Failure::at(lane, format!("misaligned: {len_bytes} bytes at {:#x}", addresses[lane]))),
    }
}

/// The lanes that access each space, and what their addresses have added to them.
pub(super) fn spaces(
    space: Space,
    addresses: &[u64; LANES],
    mask: Mask,
) -> impl Iterator<Item = (Space, Mask, u64)> + use<> {
    let mut parts = [(space, mask, 0), (Space::Shared, 0, SHARED), (Space::Local, 0, LOCAL), (Space::Param, 0, PARAM)];
    if space == Space::Generic {
        for lane in lanes(mask) {
            if let Some(part) = parts[1..].iter_mut().find(|part| addresses[lane].wrapping_sub(part.2) < WINDOW_BYTES) {
                part.1 |= 1 << lane;
            }
        }
        parts[0].1 &= !(parts[1].1 | parts[2].1 | parts[3].1);
    }
    parts.into_iter().filter(|part| part.1 != 0)
}

/// Global memory: lanes whose bytes lie side by side, or are the same, make one call.
fn load_global(env: &mut Env<'_>, addresses: &[u64; LANES], mask: Mask, stage: &mut Stage) -> Result<(), Failure> {
    let len = stage.len_bytes;
    let mut rest = mask;
    while rest != 0 {
        let first = rest.trailing_zeros() as usize;
        let run = run_len(addresses, rest, first, len as u64);
        let at = first * stage.stride;
        if let Err(what) = env.memory.load(addresses[first], &mut stage.bytes[at..at + run * len]) {
            let mut alone = [0; WIDEST];
            for lane in lanes(run_mask(first, run)) {
                env.memory.load(addresses[lane], &mut alone[..len]).map_err(|what| Failure::at(lane, what))?;
            }
            return Err(Failure::at(first, what));
        }
        rest &= !(run_mask(first, run));
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            let last = first + run - 1;
            if addresses[lane] != addresses[last] {
                break;
            }
            stage.bytes.copy_within(last * stage.stride..last * stage.stride + len, lane * stage.stride);
            rest &= rest - 1;
        }
    }
    Ok(())
}

fn store_global(
    env: &mut Env<'_>,
    access: &Access,
    addresses: &[u64; LANES],
    mask: Mask,
    stage: &Stage,
) -> Result<(), Failure> {
    let defined = stage.defined[..access.elements.len()].iter().fold(Mask::MAX, |all, mask| all & mask);
    if mask & !defined != 0 {
        let lane = (mask & !defined).trailing_zeros() as usize;
        return Err(Failure::at(lane, "stores a value that was never written"));
    }
    let len = stage.len_bytes;
    let mut rest = mask;
    while rest != 0 {
        let first = rest.trailing_zeros() as usize;
        let run = run_len(addresses, rest, first, len as u64);
        let at = first * stage.stride;
        if let Err(what) = env.memory.store(addresses[first], &stage.bytes[at..at + run * len]) {
            for lane in lanes(run_mask(first, run)) {
                env.memory.store(addresses[lane], stage.lane(lane)).map_err(|what| Failure::at(lane, what))?;
            }
            return Err(Failure::at(first, what));
        }
        rest &= !(run_mask(first, run));
    }
    Ok(())
}

/// How many lanes from `first` on access bytes side by side.
fn run_len(addresses: &[u64; LANES], mask: Mask, first: usize, len: u64) -> usize {
    let mut run = 1;
    while first + run < LANES
        && mask >> (first + run) & 1 != 0
        && addresses[first + run] == addresses[first + run - 1].wrapping_add(len)
    {
        run += 1;
    }
    run
}

fn run_mask(first: usize, run: usize) -> Mask {
    (Mask::MAX >> (LANES - run)) << first
}

/// An element from the stage into a register, extended to it.
fn unstage(registers: &mut Registers, slot: Slot, kind: Kind, ty: Type, mask: Mask, stage: &Stage, at: usize) {
    macro_rules! put {
        ($t:ty, $long:ty) => {{
            let read = |lane: usize| {
                let at = lane * stage.stride + at;
                let mut bytes = [0; size_of::<$t>()];
                bytes.copy_from_slice(&stage.bytes[at..at + size_of::<$t>()]);
                <$t>::from_le_bytes(bytes)
            };
            match kind {
                Kind::Long => lanes(mask).for_each(|lane| <$long>::put(registers, slot, lane, read(lane) as $long)),
                _ if mask == Mask::MAX => {
                    let values: [$t; LANES] = std::array::from_fn(read);
                    <u32 as Value>::put_all(registers, slot, &values.map(|value| value as u32));
                }
                _ => lanes(mask).for_each(|lane| u32::put(registers, slot, lane, read(lane) as u32)),
            }
        }};
    }
    match (ty.bytes(), ty.is_signed()) {
        (1, false) => put!(u8, u64),
        (1, true) => put!(i8, i64),
        (2, false) => put!(u16, u64),
        (2, true) => put!(i16, i64),
        (4, false) => put!(u32, u64),
        (4, true) => put!(i32, i64),
        _ => put!(u64, u64),
    }
}

/// An element from a register into the stage, cut to its size.
fn restage(registers: &Registers, slot: Slot, kind: Kind, ty: Type, mask: Mask, stage: &mut Stage, at: usize) {
    let size = ty.bytes();
    match (kind, size) {
        (Kind::Word, 4) if mask == Mask::MAX => {
            let values = u32::all(registers, slot);
            for (lane, value) in values.iter().enumerate() {
                let at = lane * stage.stride + at;
                stage.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
        _ => {
            for lane in lanes(mask) {
                let at = lane * stage.stride + at;
                let bytes = registers.bits(kind, slot, lane).to_le_bytes();
                stage.bytes[at..at + size].copy_from_slice(&bytes[..size]);
            }
        }
    }
}
