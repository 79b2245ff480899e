//! Events.

use std::ffi::c_uint;
use std::sync::{Arc, OnceLock};

use super::{Out, entries};
use crate::driver::Locked;
use crate::result::{Code, Outcome};
use crate::stream::{Event, Record, Work};

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: c_uint = 2;
/// `CU_EVENT_BLOCKING_SYNC`, `CU_EVENT_DISABLE_TIMING`, `CU_EVENT_INTERPROCESS`.
const FLAGS: c_uint = 7;

impl Locked {
    /// What a program means by an event.
    ///
    /// # Errors
    /// What broke its context; `INVALID_HANDLE`, with a report, if there is none.
    pub fn event(&mut self, event: u64) -> Outcome<&mut Event> {
        self.memory()?;
        let Some(found) = self.events.get(&event) else {
            self.report("handle", &format!("event {event:#x} does not exist, or no longer"));
            return Err(Code::INVALID_HANDLE);
        };
        let context = found.context;
        self.usable(context)?;
        self.events.get_mut(&event).ok_or(Code::INVALID_HANDLE)
    }

    fn record(&mut self, event: u64, stream: u64) -> Outcome {
        let stream = self.stream(stream)?;
        let context = self.streams[&stream].context;
        if self.event(event)?.context != context {
            return Err(Code::INVALID_HANDLE);
        }
        let record = Arc::new(Record { stream, number: self.operations + 1, done: OnceLock::new() });
        self.queue(stream, "cuEventRecord", Work::Record(record.clone()))?;
        self.event(event)?.record = Some(record);
        Ok(())
    }

    /// The host learns what the record of an event knows.
    fn learn(&mut self, event: u64, record: &Record) -> Outcome {
        if let Some((clock, _)) = record.done.get() {
            self.host.join(clock);
            self.forget_the_past();
        }
        match self.events.get(&event).map(|event| event.context) {
            Some(context) => self.usable(context).map(drop),
            None => Ok(()),
        }
    }

    fn elapsed_ms(&mut self, start: u64, end: u64) -> Outcome<f32> {
        let mut times = [None; 2];
        for (time, event) in times.iter_mut().zip([start, end]) {
            let event = self.event(event)?;
            let record = event.record.as_ref().filter(|_| event.timed).ok_or(Code::INVALID_HANDLE)?;
            *time = Some(record.done.get().ok_or(Code::NOT_READY)?.1);
        }
        let [Some(start), Some(end)] = times else { return Err(Code::INVALID_HANDLE) };
        Ok(end.saturating_duration_since(start).as_secs_f32() * 1000.0)
    }
}

entries! {
    fn cuEventCreate(event: Out<u64>, flags: c_uint) |d| {
        let context = d.current()?;
        if flags & !FLAGS != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let handle = d.handle();
        d.events.insert(handle, Event { context, timed: flags & DISABLE_TIMING == 0, record: None });
        event.set(handle)
    }
    fn cuEventDestroy_v2(event: u64) |d| {
        d.event(event)?;
        d.events.remove(&event);
        Ok(())
    }
    fn cuEventRecord(event: u64, stream: u64) |d| {
        d.record(event, stream)
    }
    fn cuEventRecordWithFlags(event: u64, stream: u64, _flags: c_uint) |d| {
        d.record(event, stream)
    }
    fn cuEventSynchronize(event: u64) |d| {
        let Some(record) = d.event(event)?.record.clone() else { return Ok(()) };
        d.run_until(&[(record.stream, record.number)])?;
        d.learn(event, &record)
    }
    fn cuEventQuery(event: u64) |d| {
        let Some(record) = d.event(event)?.record.clone() else { return Ok(()) };
        if !d.look((record.stream, record.number)) {
            return Err(Code::NOT_READY);
        }
        d.learn(event, &record)
    }
    fn cuEventElapsedTime(ms: Out<f32>, start: u64, end: u64) |d| {
        let elapsed = d.elapsed_ms(start, end)?;
        ms.set(elapsed)
    }
    fn cuEventElapsedTime_v2(ms: Out<f32>, start: u64, end: u64) |d| {
        let elapsed = d.elapsed_ms(start, end)?;
        ms.set(elapsed)
    }
}
