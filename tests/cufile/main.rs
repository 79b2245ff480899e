//! cuFile's engine and what loads by it, with the stand-in of tests/simcuda/cufile.

#[path = "../common/mod.rs"]
mod common;
#[path = "../cuda_load_support/mod.rs"]
mod cuda_load_support;
#[path = "../cuda_support/mod.rs"]
mod cuda_support;
#[path = "../cufile_support/mod.rs"]
mod cufile_support;
#[path = "../engine_common/mod.rs"]
mod engine_common;
#[path = "../raw_support/mod.rs"]
mod raw_support;

mod engine;
mod load;
