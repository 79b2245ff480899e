//! Batches of reads, which end in an order that the seed decides, and of which the program is told a few at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cufile_sys::sys::*;

use crate::driver::{Driver, driver, report};
use crate::library::{Answer, Library, library, refuse};
use crate::read::{Outcome, Read, Request};
use crate::stats::stats;

/// How often a read that is stuck is looked at.
const PAUSE: Duration = Duration::from_millis(1);
/// One call in so many whose time passes before anything more ends.
const IMPATIENT_ONE_IN: usize = 8;

/// A batch, and its reads that the program has not been told the end of.
pub struct Batch {
    entries_max: usize,
    entries: Vec<Entry>,
    polled: bool,
}

#[derive(Clone)]
struct Entry {
    cookie: usize,
    read: Arc<Read>,
}

/// What a program is told of a read.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub cookie: usize,
    pub status: CUfileStatus_t,
    pub ret: usize,
}

impl Library {
    /// Makes a batch.
    pub fn set_up_batch(&mut self, entries_max: usize) -> Answer<usize> {
        const CALL: &str = "cuFileBatchIOSetUp";
        self.expect_open(CALL)?;
        let limit = self.parameters.batch_entries_max();
        if entries_max == 0 || entries_max > limit {
            let words = format!("{CALL}: {entries_max} entries where 1 to {limit} can be had");
            return Err(refuse("argument", &words, CUfileOpError::CU_FILE_INVALID_VALUE));
        }
        let handle = self.handle();
        self.batches.insert(handle, Batch { entries_max, entries: Vec::new(), polled: false });
        Ok(handle)
    }

    fn batch(&mut self, call: &str, handle: usize) -> Answer<&mut Batch> {
        self.expect_open(call)?;
        self.batches.get_mut(&handle).ok_or_else(|| {
            let words = format!("{call}: {}", Self::describe_stale(handle));
            refuse("lifetime", &words, CUfileOpError::CU_FILE_INVALID_VALUE)
        })
    }

    /// Ends a batch.
    pub fn destroy_batch(&mut self, handle: usize) -> Answer {
        const CALL: &str = "cuFileBatchIODestroy";
        let batch = self.batch(CALL, handle)?;
        let left = batch.entries.len();
        if left > 0 {
            report("lifetime", &format!("{CALL} with {left} reads in flight, of whose end it was not asked"));
        }
        self.batches.remove(&handle);
        stats().count(|all| all.detailed.basic.batch_destroy_ops.ok += 1);
        Ok(())
    }
}

/// Checks all reads, and begins them. If it refuses, what the batch has in flight is cancelled, as in the real library.
pub fn submit(handle: usize, params: &[CUfileIOParams_t], flags: u32) -> Answer {
    const CALL: &str = "cuFileBatchIOSubmit";
    let refusal = match begin(CALL, handle, params, flags) {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    let lost = cancel_all(handle);
    if lost > 0 {
        report("order", &format!("{CALL} is refused, by which the ends of {lost} reads of the batch are lost"));
    }
    Err(refusal)
}

fn begin(call: &str, handle: usize, params: &[CUfileIOParams_t], flags: u32) -> Answer {
    let mut all = library();
    let batch = all.batch(call, handle)?;
    let (limit, left, count) = (batch.entries_max, batch.entries.len(), params.len());
    if count == 0 || count > limit || flags != 0 {
        let words = format!("{call}: {count} entries of a batch that was set up for {limit}, flags {flags}");
        return Err(refuse("argument", &words, CUfileOpError::CU_FILE_INTERNAL_BATCH_SUBMIT_ERROR));
    }
    if left > 0 {
        report("resubmit", &format!("{call}: the end of {left} reads of the batch was not taken"));
    }
    if left + count > limit {
        let words = format!("{call}: {count} entries beside {left} of a batch that was set up for {limit}");
        return Err(refuse("argument", &words, CUfileOpError::CU_FILE_BATCH_FULL));
    }
    let cookies: Vec<usize> = batch.entries.iter().map(|entry| entry.cookie).collect();
    for (index, entry) in params.iter().enumerate() {
        if entry.mode != CUfileBatchMode_t::CUFILE_BATCH || entry.opcode != CUfileOpcode_t::CUFILE_READ {
            let words = format!("{call}: entry {index} is no read of a batch");
            return Err(refuse("argument", &words, CUfileOpError::CU_FILE_INVALID_VALUE));
        }
        let earlier = params[..index].iter().map(|other| other.cookie.addr());
        if earlier.chain(cookies.iter().copied()).any(|other| other == entry.cookie.addr()) {
            report("argument", &format!("{call}: entry {index} has the cookie of an earlier one"));
        }
    }
    let mut jobs = Vec::new();
    for (index, entry) in params.iter().enumerate() {
        // SAFETY: the mode says that this is the union's member.
        let of = unsafe { entry.u.batch };
        let request = Request {
            handle: entry.fh.addr(),
            base: of.devPtr_base.addr() as u64,
            base_offset: of.devPtr_offset,
            file_offset: of.file_offset,
            size: of.size,
        };
        let name = format!("{call} entry {index}");
        match all.plan(&name, request, None, true) {
            Ok(job) => jobs.push((name, job)),
            Err(refusal) => {
                jobs.iter().for_each(|(_, job)| all.end(job.read()));
                return Err(refusal);
            }
        }
    }
    let entry = |(job, params): (&(String, crate::read::Job), &CUfileIOParams_t)| Entry {
        cookie: params.cookie.addr(),
        read: Arc::clone(job.1.read()),
    };
    let entries: Vec<Entry> = jobs.iter().zip(params).map(entry).collect();
    all.batch(call, handle)?.entries.extend(entries);
    drop(all);
    stats().count(|all| all.detailed.basic.batch_submit_ops.ok += 1);
    for (name, job) in jobs {
        job.count_submitted();
        let read = Arc::clone(job.read());
        // One that cannot begin is an entry that failed.
        if let Err(refusal) = job.begin(&name) {
            read.fail(refusal.code);
        }
    }
    Ok(())
}

/// The ends of at least `count_min` reads and at most `count_max`, unless the time passes before or there are not as many.
pub fn poll(handle: usize, count_min: usize, count_max: usize, timeout: Option<Duration>) -> Answer<Vec<Event>> {
    const CALL: &str = "cuFileBatchIOGetStatus";
    let driver = driver().ok_or(CUfileOpError::CU_FILE_CUDA_DRIVER_ERROR)?;
    let mut all = library();
    let batch = all.batch(CALL, handle)?;
    if count_max == 0 || count_min > count_max {
        let words = format!("{CALL}: at least {count_min} and at most {count_max}");
        return Err(refuse("argument", &words, CUfileOpError::CU_FILE_INVALID_VALUE));
    }
    if std::mem::replace(&mut batch.polled, true) {
        report("order", &format!("{CALL}: two threads ask about one batch at a time"));
    }
    let pending = batch.entries.clone();
    drop(all);
    let (ended, waits_for_ever) = wait(driver, pending, count_min, count_max, timeout);
    let mut all = library();
    if let Some(batch) = all.batches.get_mut(&handle) {
        batch.polled = false;
        batch.entries.retain(|entry| !ended.iter().any(|other| Arc::ptr_eq(&other.read, &entry.read)));
    }
    ended.iter().for_each(|entry| all.end(&entry.read));
    stats().count(|all| all.detailed.basic.batch_complete_ops.ok += ended.len() as u64);
    if waits_for_ever {
        report("order", &format!("{CALL} waits for ever for a read that is stuck"));
        if ended.is_empty() {
            return Err(CUfileOpError::CU_FILE_INTERNAL_BATCH_GETSTATUS_ERROR.into());
        }
    }
    Ok(ended.iter().map(Entry::event).collect())
}

/// Those that have ended, and whether without a limit of time no more would.
fn wait(
    driver: &Driver,
    mut pending: Vec<Entry>,
    count_min: usize,
    count_max: usize,
    timeout: Option<Duration>,
) -> (Vec<Entry>, bool) {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    // A few at a time: more may have ended than the program is told of.
    let count_max = count_max.min(count_min.max(1 + driver.random(count_max)));
    // For more than there are nobody waits.
    let count_min = if count_min > pending.len() { 0 } else { count_min };
    let mut ended = Vec::new();
    loop {
        for _ in 0..pending.len() {
            if ended.len() == count_max {
                break;
            }
            let chosen = driver.random(pending.len());
            if pending[chosen].read.has_ended(driver, false) {
                ended.push(pending.swap_remove(chosen));
            }
        }
        if ended.len() >= count_min {
            return (ended, false);
        }
        let hopeless = pending.iter().all(|entry| entry.read.is_stuck);
        match deadline {
            None if hopeless && timeout.is_none() => return (ended, true),
            Some(deadline) if Instant::now() >= deadline || driver.random(IMPATIENT_ONE_IN) == 0 && !hopeless => {
                return (ended, false);
            }
            _ if hopeless => std::thread::sleep(PAUSE),
            _ => {}
        }
    }
}

/// Cancels what a batch has in flight. Some of it has been done by then, by the seed; no end is told of any.
pub fn cancel(handle: usize) -> Answer {
    library().batch("cuFileBatchIOCancel", handle)?;
    cancel_all(handle);
    stats().count(|all| all.detailed.basic.batch_cancel_ops.ok += 1);
    Ok(())
}

/// Ends all that a batch has in flight, and says how many reads that were.
fn cancel_all(handle: usize) -> usize {
    let entries =
        library().batches.get_mut(&handle).map(|batch| std::mem::take(&mut batch.entries)).unwrap_or_default();
    let Some(driver) = driver() else { return 0 };
    for entry in &entries {
        if entry.read.is_stuck || driver.random(2) == 0 {
            entry.read.cancel();
        }
    }
    for entry in &entries {
        entry.read.has_ended(driver, true);
    }
    let mut all = library();
    entries.iter().for_each(|entry| all.end(&entry.read));
    entries.len()
}

impl Entry {
    fn event(&self) -> Event {
        let (status, ret) = match self.read.outcome() {
            Outcome::Bytes(bytes) => (CUfileStatus_t::CUFILE_COMPLETE, bytes as isize),
            Outcome::Os(errno) => (CUfileStatus_t::CUFILE_FAILED, -(errno as isize)),
            Outcome::Failed(code) => (CUfileStatus_t::CUFILE_FAILED, -(code.0 as isize)),
            // Those are told of no more; a read that its context's end has cut off is one that failed.
            Outcome::Cancelled => (CUfileStatus_t::CUFILE_FAILED, -1),
        };
        Event { cookie: self.cookie, status, ret: ret as usize }
    }
}
