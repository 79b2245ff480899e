//! `atom` and `red`: one lane after another.

use super::super::arithmetic::canonical;
use super::super::program::{Atomic, AtomicOperation, Space};
use super::super::registers::{Mask, Value, lanes};
use super::super::shared;
use super::super::types::{Kind, Type};
use super::access::{aligned, spaces};
use super::{Env, Failure, Warp};

impl Warp {
    pub(super) fn atomic(&mut self, env: &mut Env<'_>, atomic: &Atomic, mask: Mask) -> Result<(), Failure> {
        let addresses = self.addresses(&atomic.address, mask)?;
        let len = atomic.ty.bytes();
        aligned(&addresses, mask, len)?;
        let kind = atomic.ty.kind();
        for slot in atomic.operands {
            self.known(kind, slot, mask, "stores")?;
        }
        for (space, mask, window) in spaces(atomic.space, &addresses, mask) {
            for lane in lanes(mask) {
                let operands = atomic.operands.map(|slot| self.registers.bits(kind, slot, lane));
                let address = addresses[lane].wrapping_sub(window);
                let who = shared::Access { warp: self.index, lane, strong: true };
                let mut bytes = [0; 8];
                let old = match space {
                    Space::Global | Space::Generic => env.memory.load(address, &mut bytes[..len]),
                    Space::Shared => {
                        env.shared.load(who, address, &mut bytes[..len]).and_then(|defined| match defined {
                            true => Ok(()),
                            false => {
                                Err(format!("{len} bytes at {address:#x} of shared memory that were never written"))
                            }
                        })
                    }
                    Space::Local | Space::Param => Err("atomics work on global and shared memory".into()),
                };
                old.map_err(|what| Failure::at(lane, what))?;
                let old = u64::from_le_bytes(bytes);
                let new = combine(atomic.operation, atomic.ty, old, operands).to_le_bytes();
                let stored = match space {
                    Space::Shared => env.shared.store(who, address, &new[..len], true),
                    _ => env.memory.store(address, &new[..len]),
                };
                stored.map_err(|what| Failure::at(lane, what))?;
                if let Some(result) = atomic.result {
                    match kind {
                        Kind::Long => u64::put(&mut self.registers, result, lane, old),
                        _ => u32::put(&mut self.registers, result, lane, old as u32),
                    }
                }
            }
        }
        if let Some(result) = atomic.result {
            self.registers.define(kind, result, mask, mask);
        }
        Ok(())
    }
}

/// What memory holds afterwards. Only the low bytes of the type count.
pub(super) fn combine(operation: AtomicOperation, ty: Type, old: u64, [value, swap]: [u64; 2]) -> u64 {
    use AtomicOperation as O;
    let less = match ty {
        Type::S32 => (old as i32) < value as i32,
        Type::S64 => (old as i64) < value as i64,
        Type::U64 | Type::B64 => old < value,
        _ => (old as u32) < value as u32,
    };
    match operation {
        O::Add => match ty {
            Type::F32 => canonical(f32::from_bits(old as u32) + f32::from_bits(value as u32)).into(),
            Type::F64 => (f64::from_bits(old) + f64::from_bits(value)).to_bits(),
            _ => old.wrapping_add(value),
        },
        O::Min => {
            if less {
                old
            } else {
                value
            }
        }
        O::Max => {
            if less {
                value
            } else {
                old
            }
        }
        O::And => old & value,
        O::Or => old | value,
        O::Xor => old ^ value,
        O::Exchange => value,
        O::CompareAndSwap => {
            let bits = u64::MAX >> (64 - 8 * ty.bytes());
            if old & bits == value & bits { swap } else { old }
        }
        O::Increment => {
            if old as u32 >= value as u32 {
                0
            } else {
                old + 1
            }
        }
        O::Decrement => {
            if old as u32 == 0 || old as u32 > value as u32 {
                value
            } else {
                old - 1
            }
        }
    }
}
