//! How fast reads may begin: the limits of the roots that they are of.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use forebay::storage::{Bucket, RateLimits, ResolvedLimits};
use forebay::{Error, Result};

use super::pieces::Piece;

/// The limits, and what is owed of each.
pub struct Pace {
    limits: ResolvedLimits,
    is_limited: bool,
    buckets: HashMap<u64, Bucket>,
}

/// What a piece counts for.
#[derive(Clone, Copy)]
pub struct Share {
    device: u64,
    len_bytes: u64,
}

impl Share {
    pub fn new(device: u64, len_bytes: u64) -> Self {
        Self { device, len_bytes }
    }

    /// Of the root that it is of.
    pub fn device(self) -> u64 {
        self.device
    }
}

impl Pace {
    pub fn new(limits: &RateLimits) -> Result<Self> {
        Ok(Self { limits: limits.resolve()?, is_limited: !limits.is_empty(), buckets: HashMap::new() })
    }

    /// The share of a piece; none where nothing is limited. A file that is not open yet is looked at.
    pub fn share(&self, piece: &Piece) -> Result<Option<Share>> {
        if !self.is_limited {
            return Ok(None);
        }
        Ok(Some(match piece {
            Piece::Range { file, len_bytes, .. } => {
                Share { device: file.identity().inode.0, len_bytes: *len_bytes as u64 }
            }
            Piece::File(path) => {
                let metadata = path.metadata().map_err(|error| Error::io(path.display(), error))?;
                Share { device: metadata.dev(), len_bytes: metadata.len() }
            }
        }))
    }

    /// How long a read has to wait; none if it may begin.
    pub fn wait(&mut self, share: Share, now: Instant) -> Option<Duration> {
        self.bucket(share.device, now)?.wait(now)
    }

    /// Counts a read that begins.
    pub fn take(&mut self, share: Share, now: Instant) {
        if let Some(bucket) = self.bucket(share.device, now) {
            bucket.take(share.len_bytes, now);
        }
    }

    fn bucket(&mut self, device: u64, now: Instant) -> Option<&mut Bucket> {
        let limit = self.limits.bytes_per_second(device)?;
        Some(self.buckets.entry(device).or_insert_with(|| Bucket::new(limit, now)))
    }
}
