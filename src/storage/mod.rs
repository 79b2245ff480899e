//! WHERE the bytes are: the file systems that hold a data set, what is under them, and how fast they may be read.
//!
//! A *root* is a file system that samples lie on, told by its device number. A data set may be spread over several; a
//! loader reads from all of them at once, counts each on its own, and holds each to its [limit](RateLimits).

mod bucket;
mod disks;
mod limits;
mod machine;
mod mount;
mod roots;

pub use bucket::Bucket;
pub use disks::{Disk, DiskKind, Disks, Layer};
pub use limits::{RateLimits, ResolvedLimits};
pub use machine::Machine;
pub use mount::Mount;
pub(crate) use roots::Roots;
