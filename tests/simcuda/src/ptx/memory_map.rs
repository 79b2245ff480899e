//! Where shared, local and parameter memory lie among generic addresses: far above anything that a host maps.

/// Bytes of a window.
pub(super) const WINDOW_BYTES: u64 = 1 << 32;
/// Shared memory of the block.
pub(super) const SHARED: u64 = 0xfff1_0000_0000_0000;
/// Local memory of the thread.
pub(super) const LOCAL: u64 = 0xfff2_0000_0000_0000;
/// Parameters of the kernel.
pub(super) const PARAM: u64 = 0xfff3_0000_0000_0000;
