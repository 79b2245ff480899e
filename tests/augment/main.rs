//! Augmentation: the weights and bits that are promised, on any instruction set, scaled and whole.

#[path = "../common/mod.rs"]
mod common;

mod exact;
mod reference;
mod scaled;
mod support;
