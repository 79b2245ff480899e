//! Reads: what is asked for, what comes of it, and the work itself, which the driver runs at its turn.

use std::ffi::{c_int, c_void};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cufile_sys::sys::CUfileOpError;

use crate::driver::{self, Driver, Moment, driver, report};
use crate::library::{Answer, Library, Refusal, library, refuse};
use crate::numbers::Numbers;
use crate::settings::{Rule, Way, settings};
use crate::stats::stats;
use crate::watch;

/// What direct reads are aligned to: file offset, size, and place in memory.
const ALIGNMENT: u64 = 4096;
/// What is left where a read that failed would have put its bytes.
const GARBAGE: u8 = 0xEE;
/// `CUDA_ERROR_INVALID_VALUE`, which the driver answers with where a range cannot be written.
const CUDA_INVALID_VALUE: c_int = 1;

/// What a program asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub handle: usize,
    pub base: u64,
    pub base_offset: i64,
    pub file_offset: i64,
    pub size: usize,
}

impl Request {
    /// Whether a direct path could take it, if the base is as aligned as allocations are.
    pub fn is_aligned(&self) -> bool {
        (self.file_offset as u64 | self.size as u64 | self.base_offset as u64).is_multiple_of(ALIGNMENT)
    }
}

/// A read that was begun.
pub struct Read {
    /// For reports.
    pub name: String,
    /// Of the file.
    pub handle: usize,
    /// Where its bytes may go.
    pub memory: Range<u64>,
    /// Where it has its turn, if that is in a stream of the program's.
    pub stream: Option<u64>,
    /// Whether it does not end unless it is cancelled.
    pub is_stuck: bool,
    outcome: OnceLock<Outcome>,
    cancelled: AtomicBool,
    place: Mutex<Place>,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Bytes(usize),
    Os(c_int),
    Failed(CUfileOpError),
    Cancelled,
}

/// What to ask the driver about.
#[derive(Clone, Copy)]
enum Place {
    /// Not begun.
    Nowhere,
    Lane(u64),
    /// In a stream, and over at this moment.
    Stream(Moment),
    /// Over, as the program knows.
    Known,
}

/// What is to be done.
pub struct Job {
    read: Arc<Read>,
    source: Arc<fs::File>,
    file_offset: u64,
    /// How much memory there is to write.
    room: usize,
    /// At most so many bytes.
    wanted: usize,
    fault: Option<u64>,
    way: Way,
    is_unaligned: bool,
    device: usize,
    is_in_batch: bool,
    /// Whether a batch has it done by the library's own threads.
    is_by_thread: bool,
    numbers: Option<Numbers>,
}

impl Library {
    /// Checks what is asked for, and notes it as in flight. `stream` is where it will have its turn, if it is one of the
    /// program's; reads of a batch may be stuck.
    pub fn plan(&mut self, call: &str, request: Request, stream: Option<u64>, in_batch: bool) -> Answer<Job> {
        self.expect_open(call)?;
        self.forget_known();
        let number = self.reads + 1;
        let Request { handle, base, file_offset, size, .. } = request;
        let name = format!("read {number} ({call})");
        let Some(file) = self.files.get(&handle) else {
            let words = format!("{name}: {}", Self::describe_stale(handle));
            return Err(refuse("lifetime", &words, CUfileOpError::CU_FILE_HANDLE_NOT_REGISTERED));
        };
        let has_descriptor = file.has_descriptor(&format!("{name} began"));
        if request.base_offset < 0 || file_offset < 0 || size == 0 || size > isize::MAX as usize {
            let words = format!("{name}: {request:?}");
            return Err(refuse("argument", &words, CUfileOpError::CU_FILE_INVALID_VALUE));
        }
        let start = base.saturating_add(request.base_offset as u64);
        let memory = start..start.saturating_add(size as u64);
        let device = self.check_memory(&name, base, &memory)?;
        let way = file.way(self, Some(number));
        if way == Way::Posix && !self.parameters.allows_compatibility() {
            return Err(CUfileOpError::CU_FILE_IO_NOT_SUPPORTED.into());
        }
        let is_unaligned = !(file_offset as u64 | size as u64 | start).is_multiple_of(ALIGNMENT);
        if is_unaligned && way != Way::Posix {
            let words = format!("{name}: {size} bytes from {file_offset} to {start:#x} take a bounce buffer");
            report("unaligned", &words);
        }
        let is_for_kernel = file.is_direct && (file_offset as u64 | size as u64).is_multiple_of(ALIGNMENT);
        let is_by_thread = if way == Way::Posix { !is_for_kernel } else { is_unaligned };
        let settings = settings();
        let rule =
            |rules: &[Rule]| rules.iter().find(|rule| rule.nth == 0 || rule.nth == number).map(|rule| rule.value);
        let room = file.len().saturating_sub(file_offset as u64).min(size as u64) as usize;
        let read = Arc::new(Read {
            name,
            handle,
            memory,
            stream,
            is_stuck: in_batch && rule(&settings.stuck).is_some(),
            outcome: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            place: Mutex::new(Place::Nowhere),
        });
        let job = Job {
            read: Arc::clone(&read),
            source: Arc::clone(&file.source),
            file_offset: file_offset as u64,
            wanted: rule(&settings.short).map_or(room, |bytes| room.min(bytes as usize)),
            room,
            // The library has no descriptor of its own.
            fault: if has_descriptor { rule(&settings.fail) } else { Some(libc::EBADF as u64) },
            way,
            is_unaligned,
            device,
            is_in_batch: in_batch,
            is_by_thread,
            numbers: None,
        };
        drop(settings);
        self.reads = number;
        self.in_flight.push(read);
        Ok(job)
    }

    /// That a read may write these bytes of a buffer; the device that they are of.
    fn check_memory(&self, name: &str, base: u64, memory: &Range<u64>) -> Answer<usize> {
        match self.buffer_around(memory.start) {
            Some((found, buffer)) if memory.end > found + buffer.bytes => {
                let words = format!(
                    "{name}: {memory:#x?} leaves the registered buffer of {} bytes at {found:#x}",
                    buffer.bytes
                );
                return Err(refuse("argument", &words, CUfileOpError::CU_FILE_INVALID_MAPPING_RANGE));
            }
            Some((found, _)) if found != base => {
                let words = format!("{name}: {base:#x} is not where the registered buffer at {found:#x} begins");
                report("argument", &words);
            }
            Some((found, buffer)) if !buffer.is_live(found) => {
                let words = format!("{name}: the memory of the registered buffer at {found:#x} is freed");
                return Err(refuse("lifetime", &words, CUfileOpError::CU_FILE_CUDA_POINTER_INVALID));
            }
            Some(_) => {}
            None if self.buffers.contains_key(&base) => {
                let words = format!("{name}: {memory:#x?} leaves the registered buffer at {base:#x}");
                return Err(refuse("argument", &words, CUfileOpError::CU_FILE_INVALID_MAPPING_RANGE));
            }
            None => report("argument", &format!("{name}: {:#x} is in no registered buffer", memory.start)),
        }
        match driver().and_then(|driver| driver.memory(memory.start)) {
            Some((facts, true)) if memory.end <= facts.base + facts.bytes => Ok(facts.device as usize),
            Some((_, false)) => {
                let words = format!("{name}: the memory at {:#x} is freed", memory.start);
                Err(refuse("lifetime", &words, CUfileOpError::CU_FILE_CUDA_POINTER_INVALID))
            }
            _ => {
                let words = format!("{name}: {memory:#x?} is no memory of a device");
                Err(refuse("argument", &words, CUfileOpError::CU_FILE_CUDA_POINTER_RANGE_ERROR))
            }
        }
    }

    /// Takes a read that the program knows to be over from those in flight.
    pub fn end(&mut self, read: &Arc<Read>) {
        read.set_place(Place::Known);
        self.in_flight.retain(|other| !Arc::ptr_eq(other, read));
    }
}

impl Job {
    /// The read that it is the work of.
    pub fn read(&self) -> &Arc<Read> {
        &self.read
    }

    /// Also checks the numbers of an asynchronous read when it runs.
    pub fn with_numbers(self, numbers: Numbers) -> Self {
        Self { numbers: Some(numbers), ..self }
    }

    /// Begins it: on a lane, or in its stream. The library must not be locked. A read that cannot begin is over.
    pub fn begin(self, call: &str) -> Answer<Arc<Read>> {
        let read = Arc::clone(&self.read);
        if read.is_stuck {
            return Ok(read);
        }
        let begun = self.give_to_driver(call, &read);
        match begun {
            Ok(place) => {
                read.set_place(place);
                Ok(read)
            }
            Err(cuda) => {
                library().end(&read);
                if cuda == CUDA_INVALID_VALUE {
                    report("argument", &format!("{}: the driver cannot write {:#x?}", read.name, read.memory));
                }
                Err(Refusal { code: CUfileOpError::CU_FILE_CUDA_DRIVER_ERROR, cuda: cuda as u32 })
            }
        }
    }

    fn give_to_driver(self, call: &str, read: &Read) -> Result<Place, c_int> {
        let driver = driver().ok_or(CUDA_INVALID_VALUE)?;
        let writes = [driver::Range { address: read.memory.start, bytes: self.room as u64 }];
        let argument = Box::into_raw(Box::new(self)).cast::<c_void>();
        // SAFETY: `perform` takes the job that the argument points to, once.
        let begun = unsafe {
            match read.stream {
                Some(stream) => driver.enqueue(stream, call, perform, argument, &writes),
                None => driver.begin(call, perform, argument, &writes).map(|lane| read.set_place(Place::Lane(lane))),
            }
        };
        if let Err(code) = begun {
            // SAFETY: the driver did not take it.
            drop(unsafe { Box::from_raw(argument.cast::<Self>()) });
            return Err(code);
        }
        Ok(match read.stream {
            Some(stream) => Place::Stream(driver.last(stream).unwrap_or_default()),
            None => read.place(),
        })
    }

    /// Does it.
    fn run(&self, to: &mut [u8]) -> Outcome {
        if self.read.cancelled.load(Ordering::SeqCst) {
            return Outcome::Cancelled;
        }
        if let Some(fault) = self.fault {
            to.fill(GARBAGE);
            return match u32::try_from(fault) {
                Ok(code) if code > 5000 => Outcome::Failed(CUfileOpError(code)),
                Ok(errno) => Outcome::Os(errno as c_int),
                Err(_) => Outcome::Failed(CUfileOpError::CU_FILE_IO_ERROR),
            };
        }
        let mut done = 0;
        while done < self.wanted {
            match self.source.read_at(&mut to[done..self.wanted], self.file_offset + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Outcome::Os(error.raw_os_error().unwrap_or(libc::EIO)),
            }
        }
        if self.way != Way::Posix {
            watch::remember(&to[..done], self.file_offset, &self.read.name);
        }
        Outcome::Bytes(done)
    }

    /// Counts it where the library does: reads of batches are not among those of their GPU.
    fn count(&self, outcome: Outcome) {
        stats().count(|all| {
            let basic = &mut all.detailed.basic;
            let (ops, bytes, way) = if self.is_in_batch {
                (&mut basic.batch_processed_ops, &mut basic.batch_read_bytes, None)
            } else {
                (&mut basic.read_ops, &mut basic.read_bytes, Some(&mut all.per_gpu_stats[self.device % 16]))
            };
            let read = if let Outcome::Bytes(read) = outcome { Some(read as u64) } else { None };
            match read {
                Some(_) => ops.ok += 1,
                None => ops.err += 1,
            }
            *bytes += read.unwrap_or(0);
            let Some(gpu) = way else { return };
            // These are as asked for, whatever there was to read.
            let asked = self.read.memory.end - self.read.memory.start;
            gpu.n_total_reads += 1;
            gpu.n_unaligned_reads += u64::from(self.is_unaligned);
            gpu.n_reads_err += u64::from(read.is_none());
            gpu.read_bytes += read.map_or(0, |_| asked);
            match self.way {
                Way::Nvfs => gpu.n_nvfs_reads += 1,
                Way::P2p => gpu.n_p2p_reads += 1,
                Way::Posix => gpu.n_posix_reads += 1,
            }
        });
    }

    /// Counts an entry of a batch by the way that it is submitted.
    pub fn count_submitted(&self) {
        stats().count(|all| {
            let basic = &mut all.detailed.basic;
            let by_way = match self.way {
                _ if self.is_by_thread => &mut basic.batch_mixed_io_submit_ops,
                Way::Nvfs => &mut basic.batch_nvfs_submit_ops,
                Way::P2p => &mut basic.batch_p2p_submit_ops,
                Way::Posix => &mut basic.batch_aio_submit_ops,
            };
            by_way.ok += 1;
            basic.batch_posix_enqueued_ops.ok += u64::from(self.is_by_thread && self.way == Way::Posix);
            basic.batch_total_submit_ops.ok += 1;
        });
    }
}

/// What the driver calls.
unsafe extern "C" fn perform(argument: *mut c_void, _reads: *const *const c_void, writes: *const *mut c_void) -> c_int {
    // SAFETY: `begin` made it, and the driver calls once.
    let job = unsafe { Box::from_raw(argument.cast::<Job>()) };
    let outcome = if writes.is_null() {
        Outcome::Failed(CUfileOpError::CU_FILE_CUDA_DRIVER_ERROR)
    } else if job.room == 0 {
        job.run(&mut [])
    } else {
        // SAFETY: the driver gives a pointer for the one range, valid for its length.
        job.run(unsafe { slice::from_raw_parts_mut((*writes).cast(), job.room) })
    };
    job.count(outcome);
    if let Some(numbers) = &job.numbers {
        numbers.finish(&job.read.name, outcome);
    }
    // It is set once, here or where it is cancelled before it began.
    let _ = job.read.outcome.set(outcome);
    0
}

impl Read {
    fn place(&self) -> Place {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_place(&self, place: Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Whether it is over, which the host knows from now on. Waits for that if told so. The library must not be locked.
    pub fn has_ended(&self, driver: &Driver, wait: bool) -> bool {
        match self.place() {
            Place::Lane(lane) => match driver.has_ended(lane, wait) {
                Some(ended) => ended,
                // The context ended under it.
                None => {
                    let _ = self.outcome.set(Outcome::Failed(CUfileOpError::CU_FILE_CUDA_DRIVER_ERROR));
                    true
                }
            },
            Place::Known => true,
            Place::Stream(moment) => driver.knows(&moment),
            Place::Nowhere => self.outcome.get().is_some(),
        }
    }

    /// Whether the program has learnt that it is over by waiting for its stream.
    pub fn is_known(&self, driver: &Driver) -> bool {
        match self.place() {
            Place::Stream(moment) => driver.knows(&moment),
            Place::Known => true,
            Place::Lane(_) | Place::Nowhere => false,
        }
    }

    /// How it ended; as good as cancelled if it did not.
    pub fn outcome(&self) -> Outcome {
        self.outcome.get().copied().unwrap_or(Outcome::Cancelled)
    }

    /// Ends one that could not begin.
    pub fn fail(&self, code: CUfileOpError) {
        // Nothing else sets it.
        let _ = self.outcome.set(Outcome::Failed(code));
    }

    /// Asks that it be not done. One that is stuck is over with that.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        if self.is_stuck {
            // Nothing else sets it.
            let _ = self.outcome.set(Outcome::Cancelled);
        }
    }
}
