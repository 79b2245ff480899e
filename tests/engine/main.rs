//! The storage engines. What counts the threads and descriptors of a process, or lowers its limits, is a program of its own
//! beside this one.

#[path = "../common/mod.rs"]
mod common;
#[path = "../engine_common/mod.rs"]
mod engine_common;

#[cfg(feature = "cli")]
mod children;
mod faults;
mod faults_load;
mod file_systems;
mod reads;
