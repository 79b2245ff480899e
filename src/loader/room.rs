//! Memory for decoding a sample: the thread's own, and a share of what all threads have where that is not enough.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::work::Worker;
use crate::decode::ImageInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Mib, Share, give_back};

/// What a sample may take, until it is [left](Worker::leave).
pub(super) struct Room<'a> {
    share: Option<Share<'a>>,
}

impl<'a> Worker<'a> {
    /// Makes room for a sample whose decoding takes `needed` bytes. Most samples need no more than the thread has, and no
    /// lock is taken for them. A larger one waits until enough of what all threads share is free.
    ///
    /// # Errors
    /// `LimitExceeded` if there never is as much.
    pub(super) fn make_room(&mut self, needed: u64, info: &ImageInfo) -> Result<Room<'a>> {
        let (own, shared) = (self.shared.memory.thread_bytes, self.shared);
        let all = own.saturating_add(self.reread_bytes.unwrap_or(shared.decode_budget.total_bytes()));
        let needed = usize::try_from(needed).ok().filter(|needed| *needed <= all).ok_or_else(|| {
            let ImageInfo { width, height, route, .. } = *info;
            too_large(&format!("decoding it ({width}x{height}, {})", route.name()), needed, all)
        })?;
        // Scratch grows part by part, each to what the largest sample needed of it: together with the next sample's, that may
        // be more than either needs.
        if self.held_bytes() + needed > own {
            self.release();
        }
        match (needed.checked_sub(own), self.reread_bytes) {
            (None | Some(0), _) | (_, Some(_)) => Ok(Room { share: None }),
            (Some(more), None) => Ok(Room { share: Some(self.share(more)?) }),
        }
    }

    /// Gives back what the sample took beyond what the thread has.
    pub(super) fn leave(&mut self, room: Room<'a>) {
        if self.held_bytes() > self.shared.memory.thread_bytes {
            self.release();
        }
        if let Some(share) = room.share {
            // What was freed must have left the process before another thread takes as much.
            give_back();
            drop(share);
        }
    }

    /// Takes all that the threads share, for a sample that is read a second time: what it is shows only when it is here.
    pub(super) fn make_room_to_reread(&mut self) -> Result<Room<'a>> {
        let all = self.shared.decode_budget.total_bytes();
        let share = self.share(all)?;
        self.reread_bytes = Some(all);
        Ok(Room { share: Some(share) })
    }

    /// Leaves for decoding what so many encoded bytes do not take of it.
    pub(super) fn has_reread(&mut self, len_bytes: usize) {
        self.reread_bytes = self.reread_bytes.map(|all| all.saturating_sub(len_bytes));
    }

    /// Gives that back, once its bytes are.
    pub(super) fn leave_reread(&mut self, room: Room<'a>) {
        self.reread_bytes = None;
        self.leave(room);
    }

    fn share(&mut self, bytes: usize) -> Result<Share<'a>> {
        let shared = self.shared;
        let waiting = Instant::now();
        // Who has the memory may be waiting for its turn.
        let share = self.turn.pause(|| shared.decode_budget.take(bytes));
        shared.counters.decode.add_blocked(waiting);
        self.waited += waiting.elapsed();
        shared.counters.large_images.fetch_add(1, Relaxed);
        if shared.stop.load(Relaxed) {
            return Err(Error::new(ErrorKind::Internal, "the run was ended"));
        }
        share.ok_or_else(|| too_large("decoding it", bytes as u64, shared.decode_budget.total_bytes()))
    }
}

fn too_large(what: &str, needed: u64, all: usize) -> Error {
    let needed = Mib(usize::try_from(needed).unwrap_or(usize::MAX));
    let message = format!("{what} takes up to {needed} MiB, and there are {} MiB for one image", Mib(all));
    Error::new(ErrorKind::LimitExceeded, message).with_remedy(
        "raise memory_mib (--memory-mib) or what takes the rest of it: fewer threads, slots or a smaller batch",
    )
}
