//! Reads in batches: `cuFileBatchIOSubmit` and its kin.

use std::ffi::{c_uint, c_void};
use std::sync::Arc;

use cufile_sys::sys::{
    CUfileBatchHandle_t, CUfileBatchMode_t, CUfileIOEvents_t, CUfileIOParams__bindgen_ty_1,
    CUfileIOParams__bindgen_ty_1__bindgen_ty_1, CUfileIOParams_t, CUfileOpcode_t, CUfileStatus_t, timespec,
};
use cufile_sys::{Error as Refusal, bytes_read};
use nix::errno::Errno;

use super::api::{Answer, Call};
use super::open::Open;
use crate::engine::transfer::Fault;

/// Batches that take turns: one is filled while others are read.
const BATCHES: usize = 4;
/// Entries that every known version allows a batch.
const ENTRIES_MAX: usize = 128;

/// What the library has not written an event over.
const NO_EVENT: CUfileIOEvents_t =
    CUfileIOEvents_t { cookie: std::ptr::null_mut(), status: cufile_sys::sys::CUFILEStatus_enum(0), ret: 0 };

/// Some batches, each submitted again when all of its reads have ended.
pub(super) struct Batches {
    open: Arc<Open>,
    batches: Vec<Batch>,
    entries_max: usize,
    /// Of the batch that is being submitted.
    params: Vec<CUfileIOParams_t>,
    events: Vec<CUfileIOEvents_t>,
    /// Reads that were refused when they were submitted.
    refused: Vec<Answer>,
}

struct Batch {
    handle: CUfileBatchHandle_t,
    in_flight: usize,
}

// SAFETY: a batch may be used by any one thread at a time; pointers in `params` and `events` are of no thread.
unsafe impl Send for Batches {}

impl Batches {
    /// Batches for `depth` reads in all.
    ///
    /// # Errors
    /// What the library says where it has none.
    pub(super) fn new(open: &Arc<Open>, depth: usize) -> Result<Self, Refusal> {
        let allowed = open.properties().max_batch_io_size as usize;
        let entries_max = depth.min(if allowed == 0 { ENTRIES_MAX } else { allowed.min(ENTRIES_MAX) });
        let mut new = Self {
            open: Arc::clone(open),
            batches: Vec::with_capacity(BATCHES),
            entries_max,
            params: Vec::with_capacity(entries_max),
            events: vec![NO_EVENT; entries_max],
            refused: Vec::with_capacity(entries_max),
        };
        for _ in 0..BATCHES.min(depth) {
            let mut handle: CUfileBatchHandle_t = std::ptr::null_mut();
            // SAFETY: the handle is valid for a write.
            unsafe { open.library().cuFileBatchIOSetUp(&mut handle, entries_max as c_uint) }?;
            new.batches.push(Batch { handle, in_flight: 0 });
        }
        Ok(new)
    }

    /// Reads that the next batch takes.
    pub(super) fn room(&self) -> usize {
        if self.batches.iter().any(|batch| batch.in_flight == 0) { self.entries_max } else { 0 }
    }

    /// Submits a batch.
    ///
    /// # Safety
    /// As for [`Api::submit`](super::api::Api::submit).
    pub(super) unsafe fn submit(&mut self, reads: &[(usize, Call)]) {
        let Some(batch) = self.batches.iter_mut().find(|batch| batch.in_flight == 0) else {
            unreachable!("the caller has asked for room")
        };
        self.params.clear();
        self.params.extend(reads.iter().map(|(number, call)| CUfileIOParams_t {
            mode: CUfileBatchMode_t::CUFILE_BATCH,
            u: CUfileIOParams__bindgen_ty_1 {
                batch: CUfileIOParams__bindgen_ty_1__bindgen_ty_1 {
                    devPtr_base: call.base,
                    file_offset: call.file_offset as i64,
                    devPtr_offset: call.base_offset as i64,
                    size: call.len_bytes,
                },
            },
            fh: call.file,
            opcode: CUfileOpcode_t::CUFILE_READ,
            cookie: cookie(*number),
        }));
        let count = self.params.len() as c_uint;
        // SAFETY: as many entries as said, each as the caller promises.
        match unsafe { self.open.library().cuFileBatchIOSubmit(batch.handle, count, self.params.as_mut_ptr(), 0) } {
            Ok(()) => batch.in_flight = reads.len(),
            // None of them was begun.
            Err(refusal) => self.refused.extend(reads.iter().map(|(number, _)| (*number, Err(refusal.into())))),
        }
    }

    /// Adds what has ended.
    pub(super) fn poll(&mut self, answers: &mut Vec<Answer>) {
        answers.append(&mut self.refused);
        for batch in self.batches.iter_mut().filter(|batch| batch.in_flight > 0) {
            let mut count = batch.in_flight as c_uint;
            let mut at_once = timespec { tv_sec: 0, tv_nsec: 0 };
            let events = &mut self.events[..batch.in_flight];
            events.fill(NO_EVENT);
            // SAFETY: there is room for as many events as the batch has entries.
            let taken = unsafe {
                self.open.library().cuFileBatchIOGetStatus(
                    batch.handle,
                    0,
                    &mut count,
                    events.as_mut_ptr(),
                    &mut at_once,
                )
            };
            if let Err(refusal) = taken {
                // The library answers so for a read that has failed, whose event it gives all the same; then `count` means
                // nothing.
                log::debug!("cuFile: {refusal}");
            }
            for event in events {
                if let Some(answer) = answer(event) {
                    answers.push((number(event.cookie), answer));
                    batch.in_flight -= 1;
                }
            }
        }
    }

    /// Asks that what is in flight be not read.
    pub(super) fn cancel(&mut self) {
        for batch in self.batches.iter().filter(|batch| batch.in_flight > 0) {
            // SAFETY: the batch is live.
            if let Err(refusal) = unsafe { self.open.library().cuFileBatchIOCancel(batch.handle) } {
                log::debug!("cuFile: {refusal}");
            }
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        for batch in &self.batches {
            // One that still reads is left to the library, as its memory is.
            if batch.in_flight == 0 {
                // SAFETY: the batch is live, and nothing that it submitted still runs.
                let _ = unsafe { self.open.library().cuFileBatchIODestroy(batch.handle) };
            }
        }
    }
}

/// What an event says, if it is the end of a read.
fn answer(event: &CUfileIOEvents_t) -> Option<Result<usize, Fault>> {
    const CALL: &str = "cuFileBatchIOGetStatus";
    let failed = |otherwise: Errno| match bytes_read(CALL, event.ret as isize) {
        // -1 is no reason, and bytes are none.
        Err(refusal) if event.ret as isize != -1 => Err(refusal.into()),
        _ => Err(otherwise.into()),
    };
    match event.status {
        CUfileStatus_t::CUFILE_COMPLETE => Some(bytes_read(CALL, event.ret as isize).map_err(Fault::from)),
        CUfileStatus_t::CUFILE_FAILED => Some(failed(Errno::EIO)),
        CUfileStatus_t::CUFILE_INVALID => Some(failed(Errno::EINVAL)),
        CUfileStatus_t::CUFILE_TIMEOUT => Some(failed(Errno::ETIMEDOUT)),
        CUfileStatus_t::CUFILE_CANCELED => Some(failed(Errno::ECANCELED)),
        // Waiting or pending: its end comes with another event.
        _ => None,
    }
}

fn cookie(number: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(number)
}

fn number(cookie: *mut c_void) -> usize {
    cookie.addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(status: CUfileStatus_t, ret: isize) -> CUfileIOEvents_t {
        CUfileIOEvents_t { cookie: cookie(7), status, ret: ret as usize }
    }

    #[test]
    fn an_event_ends_a_read_with_bytes_or_a_reason() {
        let of = |status, ret| answer(&event(status, ret));
        assert!(matches!(of(CUfileStatus_t::CUFILE_COMPLETE, 4096), Some(Ok(4096))));
        assert!(matches!(of(CUfileStatus_t::CUFILE_COMPLETE, -5), Some(Err(Fault::Errno(Errno::EIO)))));
        assert!(matches!(of(CUfileStatus_t::CUFILE_FAILED, -110), Some(Err(Fault::Errno(Errno::ETIMEDOUT)))));
        assert!(matches!(of(CUfileStatus_t::CUFILE_FAILED, 0), Some(Err(Fault::Errno(Errno::EIO)))));
        assert!(matches!(of(CUfileStatus_t::CUFILE_FAILED, -1), Some(Err(Fault::Errno(Errno::EIO)))));
        assert!(matches!(of(CUfileStatus_t::CUFILE_FAILED, -5008), Some(Err(Fault::CuFile(_)))));
        assert!(matches!(of(CUfileStatus_t::CUFILE_CANCELED, 0), Some(Err(Fault::Errno(Errno::ECANCELED)))));
        assert!(of(CUfileStatus_t::CUFILE_PENDING, 0).is_none() && of(CUfileStatus_t::CUFILE_WAITING, 0).is_none());
        assert_eq!(number(event(CUfileStatus_t::CUFILE_COMPLETE, 0).cookie), 7);
    }
}
