//! LAND: page-locked memory that goes round.
//!
//! Encoded bytes land in the [`Arena`], a ring that decode workers free again in about the order in
//! which the engine filled it. Finished samples land in the slots of a [`SlotPool`], one slot a batch,
//! handed out when the consumer has dropped an earlier one. Both are allocated once, when the loader is built. Each decode
//! thread has some scratch of its own, and takes more of a budget that all of them share where an image needs it.
//! [`MemoryPlan`] says how much all of that is at most; in steady state nothing is allocated.
//!
//! Where tensors are made on a CUDA device all of it is one mapping, page-locked and registered once with each of those
//! that move bytes: with io_uring what reads land in, with CUDA everything. Samples that the device decodes do not land in
//! the ring but in the upload of their slot, and go to the device with one copy a batch:
//!
//! Where cuFile reads to the device, that landing area is the device's own: a [`DeviceArena`] in its copy of the upload, at
//! the same offsets, of which the host's is next to nothing.
//!
//! ```text
//! | ring | upload of slot 0 | upload of slot 1 | .. | statuses .. | outputs of samples decoded on the host .. |
//! |<------------- io_uring -------------------->|
//! |<------------------------------------------- CUDA ------------------------------------------------------->|
//! ```

mod arena;
mod budget;
mod device;
mod file_map;
mod layout;
mod mapping;
pub(crate) mod numa;
mod placement;
mod plan;
mod poison;
mod resident;
mod ring;
mod slots;
mod upload;

pub(crate) use arena::RegionTicket;
pub use arena::{Arena, Region};
pub(crate) use budget::{Budget, Share};
pub(crate) use device::DeviceRegionTicket;
pub use device::{DeviceArena, DeviceRegion};
pub(crate) use file_map::FileMap;
pub(crate) use layout::ViewLayout;
pub use mapping::Pages;
pub(crate) use mapping::{HUGE_PAGE_BYTES, lockable_bytes};
pub use placement::Placement;
pub use plan::MemoryPlan;
pub(crate) use plan::Mib;
pub(crate) use resident::{are_all_pages_huge, give_back, resident_bytes};
pub use ring::REGION_ALIGN_BYTES;
pub use slots::{FilledSlot, SampleOut, Slot, SlotPool};
pub(crate) use upload::{Pinned, Statuses, Upload, UploadLayout};
