//! Allocation of device and host memory.

use std::ffi::{c_int, c_uint, c_void};

use super::{Out, entries};
use crate::driver::Locked;
use crate::memory::{Kind, Owner, State};
use crate::race;
use crate::ranges::Ranges;
use crate::result::{Code, Outcome};
use crate::stream::Work;

/// `CU_MEMHOSTREGISTER_*`: portable, device map, I/O memory, read only.
const REGISTER_FLAGS: c_uint = 15;
/// `CU_MEMHOSTALLOC_*`: portable, device map, write combined.
const HOST_ALLOC_FLAGS: c_uint = 7;

impl Locked {
    fn owner(&self, context: u64, flags: u32, name: &str) -> Outcome<Owner> {
        Ok(Owner { device: self.usable(context)?.device, context, flags, origin: self.origin(name) })
    }

    /// Takes memory of a device. If there is too little, frees that are queued come first.
    fn take(&mut self, device: usize, len: u64) -> Outcome {
        let fits = |d: &Self| d.devices[device].used_bytes.saturating_add(len) <= d.settings.memory_bytes;
        if len == 0 {
            return Err(Code::INVALID_VALUE);
        }
        if !fits(self) {
            let goals: Vec<_> = self.streams.keys().map(|stream| self.all_of(*stream)).collect();
            self.run_until(&goals)?;
        }
        if !fits(self) {
            return Err(Code::OUT_OF_MEMORY);
        }
        let device = &mut self.devices[device];
        device.used_bytes += len;
        device.used_bytes_max = device.used_bytes_max.max(device.used_bytes);
        Ok(())
    }

    fn allocate(&mut self, name: &str, len: usize, kind: Kind, state: State, context: u64) -> Outcome<u64> {
        let owner = self.owner(context, 0, name)?;
        if matches!(kind, Kind::Device { .. } | Kind::Managed) {
            self.take(owner.device, len as u64)?;
        } else if len == 0 {
            return Err(Code::INVALID_VALUE);
        }
        self.memory_mut()?.allocate(len as u64, owner, kind, state)
    }

    /// An allocation whose life begins and ends at its turn in a stream.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`, or what broke the context.
    pub fn allocate_ordered(&mut self, out: Out<u64>, len: usize, stream: u64) -> Outcome {
        let stream = self.stream(stream)?;
        let context = self.streams[&stream].context;
        let base = self.allocate("cuMemAllocAsync", len, Kind::Device { ordered: true }, State::Ordered, context)?;
        self.queue(stream, "cuMemAllocAsync", Work::Allocate(base))?;
        out.set(base)
    }

    /// The allocation at an address that a program wants to free.
    fn freeable(&mut self, name: &str, address: u64, kinds: fn(Kind) -> bool) -> Outcome<usize> {
        let found = self.memory()?.based_at(address);
        let Some(index) = found.filter(|index| self.memory().is_ok_and(|memory| kinds(memory.get(*index).kind))) else {
            let why =
                self.memory()?.at(address).map(|index| self.memory().map(|m| m.get(index).describe())).transpose()?;
            let why = why.map_or(String::new(), |what| format!(", but in {what}"));
            self.report("free", &format!("{name} of {address:#x}, which is no allocation of its kind{why}"));
            return Err(Code::INVALID_VALUE);
        };
        let allocation = self.memory()?.get(index);
        if matches!(allocation.state, State::Freed | State::Ending) {
            let what = allocation.describe();
            self.report("double-free", &format!("{name} of {what}, which is freed already"));
            return Err(Code::INVALID_VALUE);
        }
        Ok(index)
    }

    fn free(&mut self, address: u64) -> Outcome {
        let index = self.freeable("cuMemFree", address, |kind| matches!(kind, Kind::Device { .. } | Kind::Managed))?;
        // The reference: no implicit synchronisation for what the stream-ordered allocator gave. For the rest it lets it wait
        // for the device, as every driver so far does, and programs lean on it.
        if self.memory()?.get(index).kind != (Kind::Device { ordered: true }) {
            let context = self.memory()?.get(index).context;
            self.synchronize_context(context)?;
        }
        self.expect_unused("cuMemFree", index)?;
        self.end_allocation(index);
        Ok(())
    }

    /// Reports work on an allocation that the host does not know to be over.
    fn expect_unused(&mut self, name: &str, index: usize) -> Outcome {
        let allocation = self.memory()?.get(index);
        let (bytes, what) = (allocation.base..allocation.base + allocation.len, allocation.describe());
        let running = race::unfinished(allocation, &self.host, &Ranges::all(0, allocation.len))
            .next()
            .map(|access| access.by.to_string());
        let queued = || {
            let mut ops = self.streams.values().flat_map(|stream| &stream.queue);
            ops.find(|op| {
                let (reads, writes) = op.touches();
                reads.iter().chain(&writes).any(|used| used.start < bytes.end && bytes.start < used.end)
            })
            .map(|op| op.name.to_string())
        };
        if let Some(by) = running.or_else(queued) {
            self.report("race", &format!("{name} ends {what}, and the host has not waited for {by}, which uses it"));
        }
        Ok(())
    }

    fn allocate_host(&mut self, out: Out<u64>, len: usize, flags: c_uint) -> Outcome {
        let context = self.current()?;
        if flags & !HOST_ALLOC_FLAGS != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let base = self.allocate("cuMemHostAlloc", len, Kind::HostAllocated, State::Live, context)?;
        let memory = self.memory_mut()?;
        if let Some(index) = memory.based_at(base) {
            memory.get_mut(index).flags = flags;
        }
        out.set(base)
    }

    fn end_host(&mut self, name: &str, address: u64, kind: fn(Kind) -> bool) -> Outcome {
        let index = self.freeable(name, address, kind)?;
        self.expect_unused(name, index)?;
        self.show_host_memory(index);
        self.end_allocation(index);
        Ok(())
    }
}

entries! {
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) |d| {
        let context = d.current()?;
        let device = d.usable(context)?.device;
        let (used, all) = (d.devices[device].used_bytes, d.settings.memory_bytes);
        free.set_if_wanted(all.saturating_sub(used) as usize);
        total.set_if_wanted(all as usize);
        Ok(())
    }
    fn cuMemAlloc_v2(address: Out<u64>, len: usize) |d| {
        let context = d.current()?;
        let base = d.allocate("cuMemAlloc", len, Kind::Device { ordered: false }, State::Live, context)?;
        address.set(base)
    }
    fn cuMemAllocPitch_v2(
        address: Out<u64>, pitch: Out<usize>, width: usize, height: usize, _element_bytes: c_uint
    ) |d| {
        let context = d.current()?;
        let row = width.next_multiple_of(512);
        let len = row.checked_mul(height).ok_or(Code::OUT_OF_MEMORY)?;
        let base = d.allocate("cuMemAllocPitch", len, Kind::Device { ordered: false }, State::Live, context)?;
        pitch.set(row)?;
        address.set(base)
    }
    fn cuMemAllocManaged(address: Out<u64>, len: usize, _flags: c_uint) |d| {
        let context = d.current()?;
        let base = d.allocate("cuMemAllocManaged", len, Kind::Managed, State::Live, context)?;
        address.set(base)
    }
    fn cuMemAllocAsync(address: Out<u64>, len: usize, stream: u64) |d| {
        d.allocate_ordered(address, len, stream)
    }
    fn cuMemFree_v2(address: u64) |d| {
        d.current()?;
        if address == 0 { Ok(()) } else { d.free(address) }
    }
    fn cuMemFreeAsync(address: u64, stream: u64) |d| {
        let stream = d.stream(stream)?;
        if address == 0 {
            return Ok(());
        }
        let index = d.freeable("cuMemFreeAsync", address, |kind| matches!(kind, Kind::Device { .. }))?;
        d.queue(stream, "cuMemFreeAsync", Work::Free(address))?;
        d.memory_mut()?.get_mut(index).state = State::Ending;
        Ok(())
    }
    fn cuMemHostAlloc(address: Out<u64>, len: usize, flags: c_uint) |d| {
        d.allocate_host(address, len, flags)
    }
    fn cuMemAllocHost_v2(address: Out<u64>, len: usize) |d| {
        d.allocate_host(address, len, 0)
    }
    fn cuMemFreeHost(address: u64) |d| {
        d.current()?;
        d.end_host("cuMemFreeHost", address, |kind| kind == Kind::HostAllocated)
    }
    fn cuMemHostRegister_v2(address: u64, len: usize, flags: c_uint) |d| {
        let context = d.current()?;
        if address == 0 || len == 0 || flags & !REGISTER_FLAGS != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let end = address.checked_add(len as u64).ok_or(Code::INVALID_VALUE)?;
        if d.memory()?.is_device(address) || !is_mapped(address, end) {
            d.report("address", &format!("cuMemHostRegister of {address:#x}, {len} bytes: that is no host memory"));
            return Err(Code::INVALID_VALUE);
        }
        if d.memory()?.host_overlap(address..end).is_some() {
            return Err(Code::HOST_MEMORY_ALREADY_REGISTERED);
        }
        let owner = d.owner(context, flags, "cuMemHostRegister")?;
        d.memory_mut()?.register(address, len as u64, owner);
        Ok(())
    }
    fn cuMemHostUnregister(address: u64) |d| {
        d.current()?;
        if d.memory()?.based_at(address).is_none() {
            d.report("free", &format!("cuMemHostUnregister of {address:#x}, which is not registered"));
            return Err(Code::HOST_MEMORY_NOT_REGISTERED);
        }
        d.end_host("cuMemHostUnregister", address, |kind| kind == Kind::HostRegistered)
    }
    fn cuMemHostGetDevicePointer_v2(pointer: Out<u64>, address: u64, _flags: c_uint) |d| {
        d.current()?;
        let memory = d.memory()?;
        let found = memory.at(address).filter(|index| memory.get(*index).is_host());
        found.ok_or(Code::INVALID_VALUE)?;
        pointer.set(address)
    }
    fn cuMemHostGetFlags(flags: Out<c_uint>, address: u64) |d| {
        d.current()?;
        let memory = d.memory()?;
        let index = memory.at(address).filter(|index| memory.get(*index).is_host());
        flags.set(memory.get(index.ok_or(Code::INVALID_VALUE)?).flags)
    }
    fn cuMemGetAddressRange_v2(base: Out<u64>, len: Out<usize>, address: u64) |d| {
        d.current()?;
        let memory = d.memory()?;
        let allocation = memory.known(address).ok_or(Code::NOT_FOUND)?;
        base.set_if_wanted(allocation.base);
        len.set_if_wanted(allocation.len as usize);
        Ok(())
    }
    fn cuMemAdvise(_address: u64, _len: usize, _advice: c_uint, _device: c_int) |d| {
        d.current().map(drop)
    }
}

/// Whether all pages are mapped into the process.
pub fn is_mapped(start: u64, end: u64) -> bool {
    const PAGE_BYTES: u64 = 4096;
    // Asked for in parts, so that the answers fit a buffer of their own.
    const PART_PAGES: u64 = 4096;
    let mut answers = [0_u8; PART_PAGES as usize];
    let mut at = start / PAGE_BYTES * PAGE_BYTES;
    while at < end {
        let len = (end - at).min(PART_PAGES * PAGE_BYTES);
        // SAFETY: mincore looks at page tables only, and writes a byte a page of at most PART_PAGES.
        if unsafe { libc::mincore(at as *mut c_void, len as usize, answers.as_mut_ptr()) } != 0 {
            return false;
        }
        at += len;
    }
    true
}
