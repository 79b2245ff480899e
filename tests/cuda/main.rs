//! Batches and loaders on the simulated CUDA driver. What changes the driver for a whole process, or counts its threads, is
//! a program of its own beside this one.

#[path = "../common/mod.rs"]
mod common;
#[path = "../cuda_load_support/mod.rs"]
mod cuda_load_support;
#[path = "../cuda_support/mod.rs"]
mod cuda_support;
#[path = "../loader_index_support/mod.rs"]
mod loader_index_support;
#[path = "../policy_support/mod.rs"]
mod policy_support;
#[path = "../raw_support/mod.rs"]
mod raw_support;

mod batch;
mod batch_dlpack;
mod load;
mod load_policy;
mod load_views;
mod raw;
