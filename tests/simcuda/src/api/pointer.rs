//! What an address is.

use std::ffi::{c_int, c_uint, c_void};

use super::{In, Out, entries};
use crate::driver::Locked;
use crate::memory::Kind;
use crate::result::{Code, Outcome};

/// The value of an attribute, and its size in bytes.
struct Value(u64, usize);

impl Locked {
    fn pointer_attribute(&self, number: c_uint, address: u64) -> Outcome<Value> {
        let memory = self.memory()?;
        let allocation = memory.known(address).ok_or(Code::INVALID_VALUE)?;
        let device = matches!(allocation.kind, Kind::Device { .. });
        Ok(match number {
            1 => Value(allocation.context, 8),
            2 => Value(if allocation.is_host() && allocation.kind != Kind::Managed { 1 } else { 2 }, 4),
            3 => Value(address, 8),
            4 if !device => Value(address, 8),
            4 => return Err(Code::INVALID_VALUE),
            6 => Value(0, 4),
            7 => Value(allocation.base, 8),
            8 => Value(u64::from(allocation.kind == Kind::Managed), 4),
            9 => Value(allocation.device as u64, 4),
            10 | 14 | 15 | 21 => Value(0, 4),
            11 | 19 => Value(allocation.base, 8),
            12 | 18 => Value(allocation.len, 8),
            13 => Value(1, 4),
            16 => Value(3, 4),
            17 if allocation.kind == (Kind::Device { ordered: true }) => Value(self.default_pool(allocation.device), 8),
            17 => Value(0, 8),
            20 => Value(allocation.base, 8),
            _ => return Err(Code::INVALID_VALUE),
        })
    }
}

/// Gives a program an attribute's value.
fn give(out: *mut c_void, Value(value, len): Value) -> Outcome {
    match len {
        4 => Out(out.cast::<u32>()).set(value as u32),
        _ => Out(out.cast::<u64>()).set(value),
    }
}

entries! {
    fn cuPointerGetAttribute(out: *mut c_void, number: c_uint, address: u64) |d| {
        give(out, d.pointer_attribute(number, address)?)
    }
    fn cuPointerGetAttributes(count: c_uint, numbers: In<c_uint>, outs: In<*mut c_void>, address: u64) |d| {
        // What an address has no value for is 0 here, and no error: device ordinals are -2.
        for index in 0..count as usize {
            let (number, out) = (numbers.at(index)?, outs.at(index)?);
            match d.pointer_attribute(number, address) {
                Ok(value) => give(out, value)?,
                Err(_) if number == 9 => give(out, Value(c_int::wrapping_neg(2) as u32 as u64, 4))?,
                Err(_) if matches!(number, 1 | 3 | 4 | 7 | 11 | 12 | 17..=20) => give(out, Value(0, 8))?,
                Err(_) => give(out, Value(0, 4))?,
            }
        }
        Ok(())
    }
    fn cuPointerSetAttribute(_value: *const c_void, _number: c_uint, address: u64) |d| {
        d.memory()?.known(address).map(drop).ok_or(Code::INVALID_VALUE)
    }
}
