//! Operations, done.

use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use crate::companion::{Companion, Input};
use crate::driver::Driver;
use crate::host_bytes;
use crate::kernel_memory::KernelMemory;
use crate::memory::State;
use crate::race::{self, Access};
use crate::ranges::Ranges;
use crate::result::Code;
use crate::stream::{KernelLaunch, Op, Source, Target, Work};
use crate::value::{self, ValueWait};

/// An operation that cannot be done: it breaks its context.
struct Failure {
    kind: &'static str,
    text: String,
    code: Code,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { kind: "address", text, code: Code::ILLEGAL_ADDRESS }
    }
}

/// What a companion reads, and writes.
type Addresses = (Vec<*const u8>, Vec<*mut u8>);

/// Which of a source's bytes were ever written; all of them if it is the host's.
struct Written(Option<(Ranges, u64, u64)>);

impl Written {
    fn all(&self) -> bool {
        self.0.as_ref().is_none_or(|(ranges, start, end)| ranges.covers(&Ranges::all(*start, *end)))
    }
}

/// An operation while it is done.
struct Doing {
    stream: u64,
    actor: usize,
    context: u64,
    by: Arc<str>,
}

impl Driver {
    /// Does an operation of a stream, unless its context is broken: then only records happen, so that nobody waits.
    pub fn execute(&mut self, stream: u64, context: u64, op: Op) {
        let actor = self.streams[&stream].actor;
        let by: Arc<str> = format!("{} on stream {actor}", op.name).into();
        let doing = Doing { stream, actor, context, by };
        if let Some(code) = op.fault {
            self.break_context(context, code);
        }
        let broken = self.usable(context).is_err();
        let done = match op.work {
            Work::Record(record) => {
                // A record is made once, by this.
                let _ = record.done.set((self.streams[&stream].clock.clone(), Instant::now()));
                Ok(())
            }
            Work::Companion(companion) if broken => {
                self.while_locked(|| companion.call(ptr::null(), ptr::null()));
                Ok(())
            }
            _ if broken => Ok(()),
            Work::Copy { from, to, len } => self.copy(&doing, &from, &to, len),
            Work::Fill { at, pattern, len } => self.fill(&doing, at, &pattern, len),
            Work::Launch(launch) => self.launch(&doing, &launch),
            Work::Allocate(base) => self.begin_life(&doing, base),
            Work::Free(base) => self.end_life(&doing, base),
            Work::Companion(companion) => self.run_companion(&doing, &companion),
            Work::WaitValue(wait) => self.see_value(&doing, &wait),
            Work::WriteValue { at, bytes, value, tells } => self.write_value(&doing, at, bytes, value, tells),
            Work::Wait(_) | Work::Host(_) => Ok(()),
        };
        if let Err(Failure { kind, text, code }) = done {
            self.report(kind, &format!("{}: {text}", doing.by));
            self.break_context(context, code);
        }
    }

    fn copy(&mut self, doing: &Doing, from: &Source, to: &Target, len: u64) -> Result<(), Failure> {
        if len == 0 {
            return Ok(());
        }
        let (bytes, written) = match from {
            Source::Staged(staged) => (staged.as_ptr(), Written(None)),
            Source::Memory(at, digest) => self.source(doing, *at, *digest, len)?,
        };
        match to {
            Target::Pageable(at) => {
                self.expect_written(doing, &written);
                // SAFETY: the source was just checked; the call that the target belongs to has not returned.
                unsafe { ptr::copy(bytes, *at as *mut u8, len as usize) };
            }
            Target::Memory(at, poison) => {
                let (index, offset) = self.place(*at, len)?;
                self.touch(doing, index, true, Ranges::all(offset, offset + len));
                let allocation = self.memory_mut().map_err(no_memory)?.get_mut(index);
                let (target, allocation_is_device) = (allocation.bytes(offset), !allocation.is_host());
                match (&mut allocation.defined, &written.0) {
                    (Some(marks), Some((source, start, _))) => marks.copy_from(offset, source, *start, len),
                    (Some(marks), None) => marks.set(offset, len),
                    (None, _) => self.expect_written(doing, &written),
                }
                if let Some(poison) = poison
                    && *poison != host_bytes::digest(target, len)
                {
                    self.report(
                        "host-write",
                        &format!("the host wrote to {at:#x}, which {} had still to write", doing.by),
                    );
                }
                let is_upload = written.0.is_none() && allocation_is_device;
                // SAFETY: both places were just checked to be within live memory; they may overlap.
                unsafe { ptr::copy(bytes, target, len as usize) };
                if is_upload {
                    self.show(&doing.by, target, len);
                }
            }
        }
        Ok(())
    }

    /// Where the bytes of a source are, and which of them were ever written.
    fn source(
        &mut self,
        doing: &Doing,
        at: u64,
        digest: Option<u64>,
        len: u64,
    ) -> Result<(*const u8, Written), Failure> {
        let (index, offset) = self.place(at, len)?;
        self.touch(doing, index, false, Ranges::all(offset, offset + len));
        let allocation = self.memory().map_err(no_memory)?.get(index);
        let bytes = allocation.bytes(offset).cast_const();
        let written = allocation.defined.as_ref().map(|marks| (marks.within(offset, len), offset, offset + len));
        if let Some(digest) = digest
            && digest != host_bytes::digest(bytes, len)
        {
            let what = format!("the host wrote to the {len} bytes at {at:#x}, which {} had still to read", doing.by);
            self.report("host-write", &what);
        }
        Ok((bytes, Written(written)))
    }

    fn expect_written(&mut self, doing: &Doing, written: &Written) {
        if !written.all() {
            self.report("uninitialised", &format!("{} gives the host bytes that nothing ever wrote", doing.by));
        }
    }

    fn fill(&mut self, doing: &Doing, at: u64, pattern: &[u8], len: u64) -> Result<(), Failure> {
        if len == 0 {
            return Ok(());
        }
        let (index, offset) = self.place(at, len)?;
        self.touch(doing, index, true, Ranges::all(offset, offset + len));
        let allocation = self.memory_mut().map_err(no_memory)?.get_mut(index);
        if let Some(marks) = &mut allocation.defined {
            marks.set(offset, len);
        }
        // SAFETY: the place was just checked to be within live memory, which is the driver's or lent to it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(allocation.bytes(offset), len as usize) };
        match pattern {
            [byte] => bytes.fill(*byte),
            _ => bytes.chunks_mut(pattern.len()).for_each(|chunk| chunk.copy_from_slice(&pattern[..chunk.len()])),
        }
        Ok(())
    }

    /// The value is there, or its place is none.
    fn see_value(&mut self, doing: &Doing, wait: &ValueWait) -> Result<(), Failure> {
        let (index, offset) = self.place(wait.at, wait.bytes)?;
        let marks = self.memory().map_err(no_memory)?.get(index).defined.as_ref();
        let end = offset + wait.bytes;
        if !Written(marks.map(|marks| (marks.within(offset, wait.bytes), offset, end))).all() {
            self.report("uninitialised", &format!("{} waits for bytes that nothing ever wrote", doing.by));
        }
        Ok(())
    }

    fn write_value(&mut self, doing: &Doing, at: u64, bytes: u64, value: u64, tells: bool) -> Result<(), Failure> {
        let (index, offset) = self.place(at, bytes)?;
        let allocation = self.memory_mut().map_err(no_memory)?.get_mut(index);
        if let Some(marks) = &mut allocation.defined {
            marks.set(offset, bytes);
        }
        value::store(allocation, offset, bytes, value);
        let host = allocation.is_host();
        if tells {
            self.signals.insert(at, self.streams[&doing.stream].clock.clone());
            // That the host looks cannot be seen: it is taken to have looked.
            if host {
                self.learn_all_of(doing.stream);
            }
        }
        Ok(())
    }

    fn launch(&mut self, doing: &Doing, launch: &KernelLaunch) -> Result<(), Failure> {
        let context = self.usable(doing.context).map_err(Failure::broken)?;
        let (device, peers) = (context.device, context.peers.clone());
        let memory = self.memory_mut().map_err(no_memory)?;
        let mut view = KernelMemory::new(memory, device, peers);
        let result = launch.function.run(launch, &mut view);
        let (touched, unwritten, faulted) = view.finish();
        for (index, write, ranges) in touched {
            self.touch(doing, index, write, ranges);
        }
        if let Some(what) = unwritten {
            self.report("uninitialised", &format!("{} reads {what}", doing.by));
        }
        match result {
            Ok(stats) => {
                self.stats.entry(launch.function.name.to_string_lossy().into_owned()).or_default().add(stats);
                Ok(())
            }
            Err(text) if faulted => Err(text.into()),
            Err(text) if text.contains(": misaligned: ") => {
                Err(Failure { kind: "kernel", text, code: Code::MISALIGNED_ADDRESS })
            }
            Err(text) => Err(Failure { kind: "kernel", text, code: Code::LAUNCH_FAILED }),
        }
    }

    fn begin_life(&mut self, doing: &Doing, base: u64) -> Result<(), Failure> {
        let memory = self.memory_mut().map_err(no_memory)?;
        let index = memory.based_at(base).ok_or_else(|| format!("no allocation at {base:#x}"))?;
        let allocation = memory.get_mut(index);
        if allocation.state == State::Ordered {
            allocation.state = State::Live;
        }
        let all = Ranges::all(0, allocation.len);
        self.touch(doing, index, true, all);
        Ok(())
    }

    fn end_life(&mut self, doing: &Doing, base: u64) -> Result<(), Failure> {
        let memory = self.memory().map_err(no_memory)?;
        let index = memory.based_at(base).ok_or_else(|| format!("no allocation at {base:#x}"))?;
        let all = Ranges::all(0, memory.get(index).len);
        self.touch(doing, index, true, all);
        self.end_allocation(index);
        Ok(())
    }

    fn run_companion(&mut self, doing: &Doing, companion: &Companion) -> Result<(), Failure> {
        let (reads, writes) = self.companion_ranges(doing, companion).inspect_err(|_| {
            self.while_locked(|| companion.call(ptr::null(), ptr::null()));
        })?;
        match self.while_locked(|| companion.call(reads.as_ptr(), writes.as_ptr())) {
            Code::SUCCESS => Ok(()),
            code => Err(Failure { kind: "companion", text: format!("failed with {}", code.0), code }),
        }
    }

    /// Where the bytes are that a companion reads, and writes.
    fn companion_ranges(&mut self, doing: &Doing, companion: &Companion) -> Result<Addresses, Failure> {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for input in &companion.reads {
            reads.push(match input {
                Input::Staged(bytes) => bytes.as_ptr(),
                Input::Memory(range, _) if range.is_empty() => ptr::null(),
                Input::Memory(range, digest) => {
                    let (bytes, written) = self.source(doing, range.start, *digest, range.end - range.start)?;
                    if !written.all() {
                        self.report("uninitialised", &format!("{} reads bytes that nothing ever wrote", doing.by));
                    }
                    bytes
                }
            });
        }
        for range in &companion.writes {
            writes.push(if range.is_empty() { ptr::null_mut() } else { self.output(doing, range)? });
        }
        Ok((reads, writes))
    }

    fn output(&mut self, doing: &Doing, range: &Range<u64>) -> Result<*mut u8, Failure> {
        let len = range.end - range.start;
        let (index, offset) = self.place(range.start, len)?;
        self.touch(doing, index, true, Ranges::all(offset, offset + len));
        let allocation = self.memory_mut().map_err(no_memory)?.get_mut(index);
        if let Some(marks) = &mut allocation.defined {
            marks.set(offset, len);
        }
        Ok(allocation.bytes(offset))
    }

    /// The allocation and offset of bytes that an operation uses.
    fn place(&self, at: u64, len: u64) -> Result<(usize, u64), Failure> {
        let memory = self.memory().map_err(no_memory)?;
        let index = memory.find(at, len)?;
        Ok((index, at - memory.get(index).base))
    }

    /// Notes what an operation did to an allocation, and reports what it races with.
    fn touch(&mut self, doing: &Doing, index: usize, write: bool, ranges: Ranges) {
        let clock = self.streams[&doing.stream].clock.clone();
        let time = clock.at(doing.actor);
        let Ok(memory) = self.memory_mut() else { return };
        let access = Access { actor: doing.actor, time, write, ranges, by: doing.by.clone() };
        if let Some(race) = race::note(memory.get_mut(index), access, &clock) {
            self.report("race", &race);
        }
    }
}

impl Failure {
    fn broken(code: Code) -> Self {
        Self { kind: "context", text: "its context is gone".into(), code }
    }
}

fn no_memory(code: Code) -> Failure {
    Failure { kind: "context", text: "there is no device".into(), code }
}
