//! The loader. What counts the threads, the memory or the processors of a process is a program of its own beside this one.

#[path = "../common/mod.rs"]
mod common;
#[path = "../loader_index_support/mod.rs"]
mod loader_index_support;
#[path = "../raw_support/mod.rs"]
mod raw_support;

mod growth;
mod index;
mod mixed;
mod pool;
mod raw;
mod resume;
mod roots;
mod views;
