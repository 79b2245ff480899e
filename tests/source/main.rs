//! Where samples come from: folders, lists, archives, an index of them, parts of them.

#[path = "../common/mod.rs"]
mod common;
#[path = "../index_support/mod.rs"]
mod index_support;

mod files;
mod index;
mod subset;
mod tar;
