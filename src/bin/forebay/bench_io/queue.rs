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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use forebay::storage::RateLimits;
    use tempfile::{TempDir, tempdir, tempdir_in};

    use super::super::Pattern;
    use super::*;

    const SAMPLES: usize = 50;
    /// So slow that what is owed once is owed to the end of the test.
    const SLOW: f64 = 1e-6;

    fn folder(root: TempDir) -> TempDir {
        for number in 0..SAMPLES {
            std::fs::write(root.path().join(format!("{number}.jpg")), [0; 100]).unwrap();
        }
        root
    }

    fn pieces(folders: &[&TempDir]) -> Pieces {
        let paths: Vec<PathBuf> = folders.iter().map(|folder| folder.path().to_owned()).collect();
        Pieces::new(&paths, Pattern::Dataset, 0, 7).unwrap()
    }

    /// The next one that may be read, by the path, and counted.
    fn read(queue: &mut Queue<'_>, now: Instant) -> Option<PathBuf> {
        let Next::Read((Piece::File(path), share)) = queue.next(now, |_| panic!("a file of its own")).unwrap() else {
            return None;
        };
        queue.take(share.unwrap(), now);
        Some(path)
    }

    #[test]
    fn what_is_put_off_comes_later_all_of_it_in_its_order() {
        let elsewhere = ["/dev/shm", "/run"].into_iter().filter_map(|place| tempdir_in(place).ok());
        let slow = folder(tempdir().unwrap());
        let device = |folder: &TempDir| folder.path().metadata().unwrap().dev();
        let Some(fast) = elsewhere.into_iter().find(|other| device(other) != device(&slow)).map(folder) else {
            return println!("skipped: there is one file system only");
        };
        let limits = RateLimits::default().root(slow.path(), SLOW).unwrap();
        let (mut own, mut all) = (pieces(&[&slow, &fast]), pieces(&[&slow, &fast]));
        let mut queue = Queue::new(&mut own, Pace::new(&limits).unwrap());
        let now = Instant::now();
        // Ten epochs of the fast one, for one sample of the slow one, after which that has to wait.
        let mut got: Vec<PathBuf> = (0..10 * SAMPLES + 1).map(|_| read(&mut queue, now).unwrap()).collect();
        assert_eq!(got.iter().filter(|path| path.starts_with(slow.path())).count(), 1);
        // Each owes a hundred seconds.
        got.extend((1..=10 * SAMPLES as u32).map_while(|turn| read(&mut queue, now + Duration::from_secs(100) * turn)));
        for of in [&slow, &fast] {
            let of = |path: &PathBuf| path.starts_with(of.path());
            let expected = (0..20 * SAMPLES).map(|_| match all.next(|_| panic!("a file of its own")).unwrap() {
                Piece::File(path) => path,
                Piece::Range { .. } => panic!("a file of its own"),
            });
            let expected: Vec<PathBuf> = expected.filter(of).collect();
            let got: Vec<PathBuf> = got.iter().filter(|path| of(path)).cloned().collect();
            let count = expected.len().min(got.len());
            assert!(count >= 9 * SAMPLES, "{} of {}", got.len(), expected.len());
            assert_eq!(got[..count], expected[..count]);
            all = pieces(&[&slow, &fast]);
        }
    }

    #[test]
    fn no_more_is_put_off_than_there_is_room_for() {
        let slow = folder(tempdir().unwrap());
        let mut own = pieces(&[&slow]);
        let mut queue = Queue::new(&mut own, Pace::new(&RateLimits::default().every(SLOW).unwrap()).unwrap());
        let now = Instant::now();
        assert!(read(&mut queue, now).is_some());
        for _ in 0..4 * PUT_OFF_FIRST / LOOKED_AT_MAX {
            assert!(
                matches!(queue.next(now, |_| panic!("a file of its own")).unwrap(), Next::Wait(wait) if !wait.is_zero())
            );
        }
        let count: usize = queue.put_off.iter().map(VecDeque::len).sum();
        assert!(count <= PUT_OFF_FIRST + LOOKED_AT_MAX, "{count}");
    }
}
