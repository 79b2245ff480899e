//! Whether cuFile brings the encoded bytes to the device: asked for, or because the way there is proven to be direct.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{CuFile, RequirePath};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::DeviceArena;
use crate::report::Fallback;
use crate::source::{Extent, Source};

/// Bytes that a proof reads.
const PROOF_BYTES: usize = 64 << 10;

/// Whether cuFile is to read.
pub(super) enum CuFileChoice {
    No,
    /// Where a read shows that no byte goes through host memory.
    IfDirect,
    /// By name, or since a direct path is required.
    Needed(RequirePath),
}

/// What came of it.
pub(super) enum Opened {
    CuFile(Arc<CuFile>),
    Not(Option<Fallback>),
}

impl CuFileChoice {
    /// Opens it for the landing areas of all slots.
    ///
    /// # Errors
    /// `Unavailable` where it is needed and is not to be had, or does not read directly as it has to.
    pub(super) fn open(&self, arenas: &[DeviceArena], source: &dyn Source) -> Result<Opened> {
        match *self {
            Self::No => Ok(Opened::Not(None)),
            Self::Needed(require) => {
                let cufile = CuFile::open(arenas, require)?;
                if require == RequirePath::Direct {
                    prove(&cufile, arenas, source)?;
                }
                Ok(Opened::CuFile(cufile))
            }
            Self::IfDirect => match if_direct(arenas, source) {
                Ok(cufile) => Ok(Opened::CuFile(cufile)),
                Err(error) => Ok(Opened::Not(Some(indirect(&error)))),
            },
        }
    }
}

fn if_direct(arenas: &[DeviceArena], source: &dyn Source) -> Result<Arc<CuFile>> {
    // Opened as if everything else were forbidden, so that the proof is one; other paths of later reads are in the report.
    let cufile = CuFile::open(arenas, RequirePath::Any)?;
    prove(&cufile, arenas, source)?;
    Ok(cufile)
}

/// Reads the start of the first sample's file to the device.
fn prove(cufile: &CuFile, arenas: &[DeviceArena], source: &dyn Source) -> Result<()> {
    let (Extent::Object(object) | Extent::Range { object, .. }) = source.extent(0)?;
    let mut path = PathBuf::new();
    source.object_path(object, &mut path)?;
    let len_bytes = arenas.iter().map(DeviceArena::capacity_bytes).min().unwrap_or(0).min(PROOF_BYTES);
    let Some(region) = arenas.first().map(|arena| arena.alloc(len_bytes)).transpose()?.flatten() else {
        return Err(Error::new(ErrorKind::Internal, "a new landing area has no room"));
    };
    let taken = cufile.prove(&path, region)?;
    if taken.is_direct() {
        return Ok(());
    }
    let why = cufile.uncounted().map_or_else(String::new, |cause| format!(" ({cause})"));
    let message = format!("cuFile reads {} by way of {}{why}, not directly", path.display(), taken.name());
    Err(Error::new(ErrorKind::Unavailable, message)
        .with_remedy("see what `forebay doctor PATH` says of GPUDirect Storage"))
}

/// Why bytes go through host memory where nothing was asked for.
fn indirect(why: &Error) -> Fallback {
    let fallback = Fallback {
        what: Fallback::CUFILE,
        instead: "reads into host memory and one copy a batch",
        cause: why.cause(),
        remedy: why.remedy().unwrap_or("ask for the engine uring").to_owned(),
        count: 1,
    };
    log::info!("{fallback}");
    fallback
}
