//! Which piece is read next: in their order, but that a root which has to wait holds up no other.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::Result;
use forebay::engine::OpenFile;

use super::pace::{Pace, Share};
use super::pieces::{Piece, Pieces};

/// Pieces that are put off at most, at first and if others are found behind so many: with one root alone there is nothing to
/// be found.
const PUT_OFF_FIRST: usize = 1 << 12;
const PUT_OFF_MAX: usize = 1 << 18;
/// Pieces that are looked at in a row.
const LOOKED_AT_MAX: usize = 256;

/// Pieces in their order, at the pace of each root.
pub struct Queue<'a> {
    pieces: &'a mut Pieces,
    pace: Pace,
    /// Those of each root that has to wait, which come first once it need not.
    put_off: Vec<VecDeque<Waiting>>,
    put_off_max: usize,
}

/// A piece and what it counts for.
pub type Waiting = (Piece, Option<Share>);

/// What to do next.
pub enum Next {
    /// Read this.
    Read(Waiting),
    /// Wait: every root has as much as it may.
    Wait(Duration),
}

impl<'a> Queue<'a> {
    pub fn new(pieces: &'a mut Pieces, pace: Pace) -> Self {
        Self { pieces, pace, put_off: Vec::new(), put_off_max: PUT_OFF_FIRST }
    }

    /// The next piece. `open` opens a file that many pieces share.
    pub fn next(&mut self, now: Instant, open: impl Fn(&Path) -> Result<Arc<OpenFile>>) -> Result<Next> {
        let Self { pieces, pace, put_off, put_off_max } = self;
        let mut least: Option<Duration> = None;
        let mut count = 0;
        for waiting in put_off.iter_mut() {
            match waiting.front().map(|(_, share)| share.and_then(|share| pace.wait(share, now))) {
                Some(None) => return Ok(waiting.pop_front().map_or(Next::Wait(Duration::ZERO), Next::Read)),
                Some(Some(wait)) => least = Some(least.map_or(wait, |least| least.min(wait))),
                None => {}
            }
            count += waiting.len();
        }
        for _ in 0..LOOKED_AT_MAX {
            if let Some(wait) = least.filter(|_| count >= *put_off_max) {
                return Ok(Next::Wait(wait));
            }
            let piece = pieces.next(&open)?;
            let share = pace.share(&piece)?;
            let Some(wait) = share.and_then(|share| pace.wait(share, now)) else {
                if count >= *put_off_max / 2 {
                    *put_off_max = (*put_off_max * 2).min(PUT_OFF_MAX);
                }
                return Ok(Next::Read((piece, share)));
            };
            least = Some(least.map_or(wait, |least| least.min(wait)));
            let device = share.map(Share::device);
            let is_its = |waiting: &&mut VecDeque<Waiting>| {
                waiting.front().is_none_or(|(_, share)| share.map(Share::device) == device)
            };
            match put_off.iter_mut().find(is_its) {
                Some(waiting) => waiting.push_back((piece, share)),
                None => put_off.push(VecDeque::from([(piece, share)])),
            }
            count += 1;
        }
        Ok(Next::Wait(least.unwrap_or_default()))
    }

    /// Counts a read that begins.
    pub fn take(&mut self, share: Share, now: Instant) {
        self.pace.take(share, now);
    }
}
