//! LAND: page-locked memory that goes round.
//!
//! Encoded bytes land in the [`Arena`], a ring that decode workers free again in about the order in
//! which the engine filled it. Finished samples land in the slots of a [`SlotPool`], one slot a batch,
//! handed out when the consumer has dropped an earlier one. Both are allocated once, when the loader is built, and
//! [`MemoryPlan`] says how much that is; in steady state nothing is allocated.

mod arena;
mod file_map;
mod mapping;
mod plan;
mod slots;

pub use arena::{Arena, REGION_ALIGN_BYTES, Region};
pub(crate) use file_map::FileMap;
pub use plan::MemoryPlan;
pub use slots::{FilledSlot, SampleOut, Slot, SlotPool};
