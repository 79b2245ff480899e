//! Devices: made up, with the plausible figures of a small one of compute capability 9.0.

use std::ffi::{c_char, c_int, c_uint};

use super::{In, Out, entries, set_text};
use crate::result::Code;

/// Threads of a block.
pub const BLOCK_THREADS_MAX: u32 = 1024;
/// Threads of a block in x, y, z.
pub const BLOCK_MAX: [u32; 3] = [1024, 1024, 64];
/// Blocks in x, y, z.
pub const GRID_MAX: [u32; 3] = [i32::MAX as u32, 65535, 65535];
/// Shared memory of a block, without and with asking for more.
pub const SHARED_BYTES: [i32; 2] = [48 << 10, 227 << 10];
/// Shared memory of a multiprocessor.
pub const SM_SHARED_BYTES: i32 = 228 << 10;
/// Threads of a multiprocessor.
pub const SM_THREADS: i32 = 2048;
/// Blocks of a multiprocessor.
pub const SM_BLOCKS: i32 = 32;
/// Multiprocessors.
pub const SMS: i32 = 8;

/// An attribute by its number in `CUdevice_attribute`; 0 for those that need no figure.
fn attribute(number: c_int) -> Option<c_int> {
    Some(match number {
        1 => BLOCK_THREADS_MAX as c_int,
        2..=4 => BLOCK_MAX[number as usize - 2] as c_int,
        5..=7 => GRID_MAX[number as usize - 5] as c_int,
        8 => SHARED_BYTES[0],
        9 => 64 << 10,       // constant memory
        10 => 32,            // warp size
        11 => c_int::MAX,    // pitch
        12 | 82 => 64 << 10, // registers of a block, of a multiprocessor
        13 => 1_500_000,     // clock, kHz
        14 | 30 => 512,      // alignment of textures, surfaces
        16 => SMS,
        15 | 19 | 31 | 32 => 1, // overlap, mapped host memory, concurrent kernels, ECC
        36 => 2_000_000,        // memory clock, kHz
        37 => 4096,             // memory bus, bits
        38 => 16 << 20,         // L2 cache
        39 => SM_THREADS,
        40 => 2,                                             // copy engines
        41 => 1,                                             // unified addressing
        51 => 32,                                            // texture pitch
        21..=29 | 42..=49 | 52..=70 | 72..=74 | 77 => 32768, // textures, which are not simulated
        75 => 9,                                             // compute capability
        76 => 0,
        78..=80 | 83 => 1, // priorities, L1 caches, managed memory
        81 => SM_SHARED_BYTES,
        87 => 2,                  // speed of single to double precision
        90 | 91 | 95 => 1,        // preemption, host pointers of registered memory, cooperative launch
        92..=94 | 122 | 123 => 1, // stream memory operations, of 64 bits, NOR
        97 => SHARED_BYTES[1],
        98 | 99 | 113 => 1, // remote writes, host registration, of read-only memory
        106 => SM_BLOCKS,
        111 => 1 << 10, // shared memory that the system takes of a block's
        115 => 1,       // memory pools
        119 => 1,       // their handle types
        17
        | 18
        | 20
        | 33..=35
        | 50
        | 71
        | 84..=86
        | 88
        | 89
        | 96
        | 100..=105
        | 107..=110
        | 112
        | 114
        | 116..=118
        | 120..=160 => 0,
        _ => return None,
    })
}

entries! {
    fn cuDeviceGet(device: Out<c_int>, ordinal: c_int) |d| {
        device.set(d.device(ordinal)? as c_int)
    }
    fn cuDeviceGetCount(count: Out<c_int>) |d| {
        d.memory()?;
        count.set(d.devices.len() as c_int)
    }
    fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) |d| {
        d.device(device)?;
        set_text(name, len, "simcuda")
    }
    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: c_int) |d| {
        uuid.set(uuid_of(d.device(device)?))
    }
    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: c_int) |d| {
        uuid.set(uuid_of(d.device(device)?))
    }
    fn cuDeviceGetAttribute(value: Out<c_int>, number: c_int, device: c_int) |d| {
        let device = d.device(device)?;
        match number {
            33 => value.set(device as c_int + 1), // PCI bus
            _ => value.set(attribute(number).ok_or(Code::INVALID_VALUE)?),
        }
    }
    fn cuDeviceComputeCapability(major: Out<c_int>, minor: Out<c_int>, device: c_int) |d| {
        d.device(device)?;
        major.set(9)?;
        minor.set(0)
    }
    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: c_int) |d| {
        d.device(device)?;
        bytes.set(d.settings.memory_bytes as usize)
    }
    fn cuDeviceGetPCIBusId(id: *mut c_char, len: c_int, device: c_int) |d| {
        set_text(id, len, &bus_id(d.device(device)?))
    }
    fn cuDeviceGetByPCIBusId(device: Out<c_int>, id: In<c_char>) |d| {
        d.memory()?;
        let id = id.text()?;
        let found = (0..d.devices.len()).find(|ordinal| bus_id(*ordinal).eq_ignore_ascii_case(&id));
        device.set(found.ok_or(Code::INVALID_DEVICE)? as c_int)
    }
    fn cuDeviceCanAccessPeer(can: Out<c_int>, device: c_int, peer: c_int) |d| {
        can.set(c_int::from(d.device(device)? != d.device(peer)?))
    }
    fn cuDeviceGetP2PAttribute(value: Out<c_int>, number: c_int, device: c_int, peer: c_int) |d| {
        let different = d.device(device)? != d.device(peer)?;
        value.set(c_int::from(different && number == 2)) // access is supported
    }
    fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: c_int) |d| {
        let ordinal = d.device(device)?;
        let handle = match d.devices[ordinal].primary {
            Some(handle) => {
                d.usable(handle)?;
                handle
            }
            None => {
                let flags = d.devices[ordinal].flags;
                d.create_context(ordinal, flags)
            }
        };
        d.devices[ordinal].primary = Some(handle);
        d.devices[ordinal].retained += 1;
        context.set(handle)
    }
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) |d| {
        let ordinal = d.device(device)?;
        let Some(handle) = d.devices[ordinal].primary else { return Err(Code::INVALID_CONTEXT) };
        d.devices[ordinal].retained -= 1;
        if d.devices[ordinal].retained == 0 {
            d.end_context(handle);
        }
        Ok(())
    }
    fn cuDevicePrimaryCtxReset_v2(device: c_int) |d| {
        let ordinal = d.device(device)?;
        if let Some(handle) = d.devices[ordinal].primary {
            d.end_context(handle);
        }
        Ok(())
    }
    fn cuDevicePrimaryCtxGetState(device: c_int, flags: Out<c_uint>, active: Out<c_int>) |d| {
        let ordinal = d.device(device)?;
        flags.set_if_wanted(d.devices[ordinal].flags);
        active.set_if_wanted(c_int::from(d.devices[ordinal].primary.is_some()));
        Ok(())
    }
    fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint) |d| {
        let ordinal = d.device(device)?;
        d.devices[ordinal].flags = flags;
        Ok(())
    }
}

fn uuid_of(ordinal: usize) -> [u8; 16] {
    let mut uuid = *b"simcuda-device-0";
    uuid[15] += ordinal as u8;
    uuid
}

fn bus_id(ordinal: usize) -> String {
    format!("0000:{:02x}:00.0", ordinal + 1)
}
