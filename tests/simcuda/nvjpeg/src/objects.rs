//! What the handles stand for. A handle is a number that is never used again, so that one that was destroyed is known.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use nvjpeg_sys::sys::*;

use crate::driver::{refuse, report};
use crate::image::{Frame, Region};
use crate::work::Pending;

/// Where the numbers of handles start: no address that a program has.
const FIRST: usize = 0x4A50_4547_0000;

/// All live objects.
#[derive(Default)]
pub struct Objects {
    made: usize,
    live: HashMap<usize, Entry>,
}

struct Entry {
    /// The library handle that it was made with.
    parent: usize,
    busy: bool,
    object: Object,
}

pub enum Object {
    Handle(Handle),
    Decoder(nvjpegBackend_t),
    State(Box<State>),
    Parsed(Option<Parsed>),
    Params(Params),
    Pinned(Buffer),
    Device(Buffer),
}

#[derive(Clone)]
pub struct Handle {
    pub backend: nvjpegBackend_t,
    pub interpolate: bool,
    pub device_padding: usize,
    pub pinned_padding: usize,
    /// The context that was current when it was made.
    pub context: usize,
    /// The program's functions for device memory, and what they are given.
    pub device_allocator: (tDevMallocV2, tDevFreeV2, *mut c_void),
}

// SAFETY: the allocators' contexts are the program's, which promised that any thread may use them.
unsafe impl Send for Object {}

#[derive(Clone, Default)]
pub struct State {
    /// The decoder of single images that it belongs to.
    pub decoder: Option<usize>,
    pub pinned: Option<usize>,
    pub device: Option<usize>,
    pub phase: Phase,
    /// The stream that it was last used on.
    pub stream: Option<u64>,
    pub pending: Pending,
    /// Images of a batch.
    pub batch: Option<usize>,
    /// Memory for batches.
    pub scratch: Option<Buffer>,
}

/// What comes next for the image of a state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Phase {
    #[default]
    Host,
    Transfer(Region),
    Device(Region),
}

#[derive(Clone)]
pub struct Parsed {
    pub data: usize,
    pub len: usize,
    pub frame: Frame,
    pub header_only: bool,
}

#[derive(Clone, Default)]
pub struct Params {
    pub planes: bool,
    pub region: Option<Region>,
}

/// Memory from one of the program's allocators, which are alike.
#[derive(Clone)]
pub struct Buffer {
    pub malloc: tDevMallocV2,
    pub free: tDevFreeV2,
    pub context: *mut c_void,
    pub padding: usize,
    pub address: *mut c_void,
    pub size: usize,
    /// The transfer from it.
    pub pending: Pending,
}

/// All objects, locked.
pub fn objects() -> MutexGuard<'static, Objects> {
    static OBJECTS: LazyLock<Mutex<Objects>> = LazyLock::new(|| {
        // SAFETY: a function of this library, which is never unloaded, and which may run when the process ends.
        unsafe { atexit(report_leaks) };
        Mutex::default()
    });
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> c_int;
}

extern "C" fn report_leaks() {
    for entry in objects().live.values() {
        report("lifetime", &format!("a {} is never destroyed", entry.object.kind()));
    }
}

/// What a call answers.
pub type Answer<T = ()> = Result<T, nvjpegStatus_t>;

impl Objects {
    /// Makes a handle.
    pub fn insert(&mut self, parent: usize, object: Object) -> usize {
        self.made += 1;
        let handle = FIRST + 16 * self.made;
        self.live.insert(handle, Entry { parent, busy: false, object });
        handle
    }

    /// What a handle stands for.
    pub fn find(&mut self, call: &str, handle: usize) -> Answer<&mut Object> {
        match self.live.get_mut(&handle) {
            Some(entry) => {
                if entry.busy {
                    let kind = entry.object.kind();
                    report("thread", &format!("{call}: a {kind} that another thread is using"));
                }
                Ok(&mut entry.object)
            }
            None if (FIRST..=FIRST + 16 * self.made).contains(&handle) => {
                Err(refuse("lifetime", &format!("{call}: a handle that was destroyed")))
            }
            None => Err(refuse("lifetime", &format!("{call}: {handle:#x} is no handle"))),
        }
    }

    /// Marks objects as used by a thread, or no longer so.
    pub fn set_busy(&mut self, handles: &[usize], busy: bool) {
        for handle in handles {
            if let Some(entry) = self.live.get_mut(handle) {
                entry.busy = busy;
            }
        }
    }

    /// Forgets a handle. Its memory is the caller's to free.
    pub fn remove(&mut self, call: &str, handle: usize) -> Answer<Object> {
        self.find(call, handle)?;
        let children = self.live.values().filter(|entry| entry.parent == handle).count();
        if children > 0 {
            report("lifetime", &format!("{call}: {children} objects that were made with it are left"));
        }
        match self.live.remove(&handle) {
            Some(entry) => Ok(entry.object),
            None => Err(nvjpegStatus_t::NVJPEG_STATUS_INTERNAL_ERROR),
        }
    }

    /// States that a buffer is attached to.
    pub fn states_with(&self, buffer: usize) -> impl Iterator<Item = &State> {
        let states = self.live.values().filter_map(|entry| match &entry.object {
            Object::State(state) => Some(&**state),
            _ => None,
        });
        states.filter(move |state| state.pinned == Some(buffer) || state.device == Some(buffer))
    }
}

impl Object {
    fn kind(&self) -> &'static str {
        match self {
            Self::Handle(_) => "library handle",
            Self::Decoder(_) => "decoder",
            Self::State(_) => "state",
            Self::Parsed(_) => "parsed stream",
            Self::Params(_) => "set of parameters",
            Self::Pinned(_) => "page-locked buffer",
            Self::Device(_) => "device buffer",
        }
    }
}

/// Methods that find an object of one kind.
macro_rules! finders {
    ($($name:ident: $variant:ident($kind:ty);)*) => {
        impl Objects {
            $(pub fn $name(&mut self, call: &str, handle: usize) -> Answer<&mut $kind> {
                match self.find(call, handle)? {
                    Object::$variant(object) => Ok(object),
                    other => Err(refuse("lifetime", &format!("{call}: a {} as {}", other.kind(), stringify!($name)))),
                }
            })*
        }
    };
}

finders! {
    handle: Handle(Handle);
    decoder: Decoder(nvjpegBackend_t);
    state: State(Box<State>);
    parsed: Parsed(Option<Parsed>);
    params: Params(Params);
    pinned: Pinned(Buffer);
    device: Device(Buffer);
}

impl Buffer {
    pub fn new(malloc: tDevMallocV2, free: tDevFreeV2, context: *mut c_void, padding: usize) -> Self {
        Self { malloc, free, context, padding, address: ptr::null_mut(), size: 0, pending: Pending::default() }
    }

    /// Grows it to so many bytes, rounded up to its padding.
    pub fn grow(&mut self, bytes: usize, stream: u64) -> Answer {
        if bytes <= self.size {
            return Ok(());
        }
        self.release(stream);
        let size = bytes.next_multiple_of(self.padding.max(1));
        let stream = ptr::with_exposed_provenance_mut(stream as usize);
        let malloc = self.malloc.ok_or(nvjpegStatus_t::NVJPEG_STATUS_ALLOCATOR_FAILURE)?;
        // SAFETY: the program's allocator, called as NVIDIA documents it.
        match unsafe { malloc(self.context, &mut self.address, size, stream) } {
            0 => self.size = size,
            _ => return Err(nvjpegStatus_t::NVJPEG_STATUS_ALLOCATOR_FAILURE),
        }
        Ok(())
    }

    /// Gives the memory back.
    pub fn release(&mut self, stream: u64) {
        if let (Some(free), true) = (self.free, self.size > 0) {
            let stream = ptr::with_exposed_provenance_mut(stream as usize);
            // SAFETY: what the program's allocator gave.
            unsafe { free(self.context, self.address, self.size, stream) };
        }
        self.size = 0;
    }
}
