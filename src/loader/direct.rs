//! Whether cuFile brings the encoded bytes to the device: asked for, or because the way there is proven to be direct.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::cufile::gds::Gds;
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
                    prove(&cufile, arenas, &first_path(source)?)?;
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
    let path = first_path(source)?;
    // Of a simulated device nothing is to be seen from outside, and the proof says enough.
    let is_simulated = arenas.first().is_some_and(|arena| arena.memory().gpu().is_simulated());
    if !is_simulated && let Some((cause, remedy)) = Gds::examine(&path).why_host_memory() {
        // Opening the library takes a fifth of a second, which most machines need not wait for.
        return Err(Error::new(ErrorKind::Unavailable, cause).with_remedy(remedy));
    }
    // Whatever path later reads take is in the report; only this one has to be direct.
    let cufile = CuFile::open(arenas, RequirePath::Any)?;
    prove(&cufile, arenas, &path)?;
    Ok(cufile)
}

/// Where the first sample lies.
fn first_path(source: &dyn Source) -> Result<PathBuf> {
    let (Extent::Object(object) | Extent::Range { object, .. }) = source.extent(0)?;
    let mut path = PathBuf::new();
    source.object_path(object, &mut path)?;
    Ok(path)
}

/// Reads the start of a file to the device.
fn prove(cufile: &CuFile, arenas: &[DeviceArena], path: &Path) -> Result<()> {
    let len_bytes = arenas.iter().map(DeviceArena::capacity_bytes).min().unwrap_or(0).min(PROOF_BYTES);
    let Some(region) = arenas.first().map(|arena| arena.alloc(len_bytes)).transpose()?.flatten() else {
        return Err(Error::new(ErrorKind::Internal, "a new landing area has no room"));
    };
    let taken = cufile.prove(path, region)?;
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
