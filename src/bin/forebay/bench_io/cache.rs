//! What the page cache holds of the data before and after a measurement, and dropping it.

use std::fs::File;

use forebay::engine::resident_share;
use forebay::{Error, Result};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::pieces::Pieces;

/// Shares of the data that were in the page cache.
#[derive(Clone, Copy, Default)]
pub struct Cached {
    /// Whether the cache was asked to drop them.
    pub is_cold: bool,
    /// Before the measurement; none where the kernel does not tell.
    pub before: Option<f64>,
    /// After it.
    pub after: Option<f64>,
}

impl Cached {
    /// Looks, after dropping what can be dropped where `is_cold`: what others have mapped or not yet written stays.
    pub fn before(pieces: &Pieces, is_cold: bool) -> Result<Self> {
        if is_cold {
            for path in pieces.files() {
                let failed = |error| Error::io(format_args!("{}: dropping its page cache", path.display()), error);
                let file = File::open(&path).map_err(failed)?;
                // Only what is written to storage can be dropped. Not every file system syncs a file that is read.
                let _ = file.sync_all();
                posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
                    .map_err(|errno| failed(errno.into()))?;
            }
        }
        Ok(Self { is_cold, before: share(pieces)?, after: None })
    }

    /// Looks again.
    pub fn after(self, pieces: &Pieces) -> Result<Self> {
        Ok(Self { after: share(pieces)?, ..self })
    }
}

/// The share over all files, each by its size.
fn share(pieces: &Pieces) -> Result<Option<f64>> {
    let (mut resident, mut all) = (0.0, 0.0);
    for path in pieces.files() {
        let Some(share) = resident_share(&path)? else { return Ok(None) };
        let len_bytes = path.metadata().map_or(0, |file| file.len()) as f64;
        (resident, all) = (resident + share * len_bytes, all + len_bytes);
    }
    Ok(Some(if all > 0.0 { resident / all } else { 0.0 }))
}
