//! The command line as its user meets it.
#![cfg(feature = "cli")]

#[path = "../cli_support/mod.rs"]
mod cli_support;
#[path = "../common/mod.rs"]
mod common;
#[path = "../cuda_support/mod.rs"]
mod cuda_support;
#[path = "../index_support/mod.rs"]
mod index_support;
#[path = "../loader_index_support/mod.rs"]
mod loader_index_support;
#[path = "../raw_support/mod.rs"]
mod raw_support;

mod bench;
mod bench_io;
mod datagen;
mod doctor;
mod errors;
mod gpu_doctor;
mod gpu_missing;
mod index;
mod load;
mod pack;
