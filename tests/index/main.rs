//! Indexes that somebody spoilt, and builds of them that were killed.

#[path = "../cli_support/mod.rs"]
mod cli_support;
#[path = "../common/mod.rs"]
mod common;
#[path = "../index_support/mod.rs"]
mod index_support;

mod hostile;
#[cfg(feature = "cli")]
mod killed;
