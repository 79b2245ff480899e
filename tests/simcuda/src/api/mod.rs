//! The entry points that programs find in the library, by subject. Each is what NVIDIA's CUDA Driver API reference says
//! of the function of its name; comments speak of what that leaves open.

mod context;
mod copy;
mod device;
mod event;
mod fill;
mod function;
mod launch;
mod memory;
mod misc;
mod module;
mod occupancy;
mod pointer;
mod pool;
mod stream;
mod stubs;
mod value;

use std::ffi::c_void;

pub use memory::is_mapped;

use crate::result::{Code, Outcome};

/// Defines entry points, and a table of them by name.
macro_rules! entries {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) |$driver:ident| $body:block)*) => {
        $(
            /// # Safety
            /// The arguments are what the driver API demands.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $crate::result::Code {
                $crate::driver::call(stringify!($name), |$driver: &mut $crate::driver::Locked| $body)
            }
        )*

        /// The entry point of this name, if it is one of this file.
        pub fn find(name: &str) -> Option<*const std::ffi::c_void> {
            match name {
                $(stringify!($name) => Some($name as *const std::ffi::c_void),)*
                _ => None,
            }
        }
    };
}
use entries;

/// The entry point of this name.
pub fn find(name: &str) -> Option<*const c_void> {
    let files = [
        context::find,
        copy::find,
        device::find,
        event::find,
        fill::find,
        function::find,
        launch::find,
        memory::find,
        misc::find,
        module::find,
        occupancy::find,
        pointer::find,
        pool::find,
        stream::find,
        stubs::find,
        value::find,
    ];
    files.iter().find_map(|find| find(name))
}

/// Where a program wants a result. Only C code makes them, as an argument.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Gives the program its result.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it wants none.
    pub fn set(self, value: T) -> Outcome {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: by the entry point's contract it is null or may be written.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// The same where a program may do without.
    pub fn set_if_wanted(self, value: T) {
        let _ = self.set(value);
    }
}

/// Something that a program gives by its address. Only C code makes them, as an argument.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct In<T>(*const T);

impl<T: Copy> In<T> {
    /// What is there.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is nothing.
    pub fn get(self) -> Outcome<T> {
        self.at(0)
    }

    /// What is there in an array.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is no array.
    pub fn at(self, index: usize) -> Outcome<T> {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: by the entry point's contract it is null or as many values as another argument says.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    /// Whether there is nothing.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }
}

impl In<std::ffi::c_char> {
    /// The string that is there.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is none.
    pub fn text(self) -> Outcome<String> {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: by the entry point's contract it is null or a string.
        Ok(unsafe { crate::companion::text(self.0) })
    }
}

/// Gives a program a string in a buffer of its own.
pub fn set_text(buffer: *mut std::ffi::c_char, len: i32, text: &str) -> Outcome {
    let room = usize::try_from(len).ok().filter(|room| *room > 0 && !buffer.is_null()).ok_or(Code::INVALID_VALUE)?;
    let bytes = text.len().min(room - 1);
    // SAFETY: by the entry point's contract the buffer has `len` bytes; the text and its end fit.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), bytes);
        buffer.add(bytes).write(0);
    }
    Ok(())
}
