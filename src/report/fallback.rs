//! A fallback: something asked for that was not to be had, and what was done instead.

use std::fmt;

use crate::error::Error;

/// One way in which the run differs from what was asked for or would be best.
///
/// Every fallback is logged when it is first taken, counted, and part of the report; none is silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// What is not used, as a stable name: `io_uring`, `O_DIRECT`, `registered buffers`.
    pub what: &'static str,
    /// What is used instead.
    pub instead: &'static str,
    /// Why, with the operating system's words.
    pub cause: String,
    /// What would mend it.
    pub remedy: String,
    /// How often it was taken: samples, reads or, for a property of the run, 1.
    pub count: u64,
}

impl Fallback {
    /// The name of an index that was not used for a sample or shard that it should describe.
    pub const INDEX: &'static str = "index";

    /// The name of a device's kernels where they did not decode a sample that they could.
    pub const KERNELS: &'static str = "CUDA kernels";

    /// The name of nvJPEG where it is not to be had, or did not decode a sample that it should.
    pub const NVJPEG: &'static str = "nvJPEG";

    /// The name of the memory that samples for a device land in where it had no room for one.
    pub const UPLOAD: &'static str = "landing area";

    /// The name of cuFile where it was not used, or could not read a sample.
    pub const CUFILE: &'static str = "cuFile";

    /// The name of threads bound to a node's processors where they could not be.
    pub const PINNED: &'static str = "pinned threads";

    /// The host in place of a device that was not asked for by name.
    pub(crate) fn host_device(why: &Error) -> Self {
        Self {
            what: "CUDA device",
            instead: "host",
            cause: why.cause(),
            remedy: why.remedy().unwrap_or("ask for the device host").to_owned(),
            count: 1,
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} instead of {}: {} ({})", self.instead, self.what, self.cause, self.remedy)
    }
}
