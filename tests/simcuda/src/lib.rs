//! A simulated CUDA driver: a `libcuda.so.1` that needs no GPU, runs PTX, and reports what a program does wrong. See
//! README.md for how to use it.
//!
//! A program's calls come in at `api` and queue operations on streams (`stream`). When something makes them run,
//! `schedule` draws which comes next and `execute` does it: on memory with mirrored bytes (`memory`, `ranges`), with
//! vector clocks for what is ordered with what (`clock`, `race`), kernels by the interpreter ([`ptx`]).
//!
//! As a Rust library it offers the interpreter alone; the driver is for those who load it.
#![deny(missing_docs)]

mod api;
mod background;
mod clock;
mod companion;
mod context;
mod control;
mod driver;
mod execute;
mod host_bytes;
mod image;
mod kernel_memory;
mod lane;
mod memory;
mod module;
pub mod ptx;
mod race;
mod random;
mod ranges;
mod report;
mod result;
mod schedule;
mod settings;
mod stream;
mod value;
mod watch;
