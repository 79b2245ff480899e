//! What becomes of an operation: drawn from the seed and what the operation is, never from when it is.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::faults::{SimFault, SimOptions};

/// Answers of a read that may be interrupted. Later ones are not, so that it ends.
const INTERRUPTED_MAX: u32 = 6;

/// The random numbers of one operation.
#[derive(Clone, Copy)]
pub(super) struct Fate {
    options: SimOptions,
    /// Of the file's name.
    file: u64,
    /// Of that and the range.
    operation: u64,
}

/// What a random number is drawn for.
#[derive(Clone, Copy)]
enum For {
    Strike(SimFault),
    Delay,
    Straggle,
    Cut,
    Interrupt,
    /// Which answer fails.
    Turn,
    /// Which errno an open fails with.
    Errno,
    /// Where a truncated file ends.
    End,
    /// Whether what hangs comes back once it is given up, and when.
    Return,
}

impl For {
    fn number(self) -> u64 {
        match self {
            Self::Strike(fault) => 100 + fault as u64,
            Self::Delay => 1,
            Self::Straggle => 2,
            Self::Cut => 3,
            Self::Interrupt => 4,
            Self::Turn => 5,
            Self::Errno => 6,
            Self::End => 7,
            Self::Return => 8,
        }
    }
}

impl Fate {
    pub(super) fn of_open(options: SimOptions, path: &Path) -> Self {
        // The name alone: folders of tests have another path each time.
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let file = name.iter().fold(mix(options.seed), |hash, byte| mix(hash ^ u64::from(*byte)));
        Self { options, file, operation: file }
    }

    pub(super) fn of_read(options: SimOptions, path: &Path, offset: u64, len_bytes: usize) -> Self {
        let Self { file, .. } = Self::of_open(options, path);
        Self { options, file, operation: mix(mix(file ^ offset) ^ len_bytes as u64 ^ 1 << 63) }
    }

    /// How long it takes until answer number `answer`: often little, seldom so much that most others overtake it.
    pub(super) fn delay(&self, answer: u32) -> Duration {
        let micros = match self.draw(For::Straggle, answer) % 16 {
            0 => 5000 + self.draw(For::Delay, answer) % 500_000,
            _ => 50 + self.draw(For::Delay, answer) % 300,
        };
        Duration::from_micros(micros)
    }

    /// Whether a fault strikes it.
    pub(super) fn strikes(&self, fault: SimFault) -> bool {
        self.options.faults.has(fault) && draw(self.operation, For::Strike(fault), 0).is_multiple_of(self.one_in())
    }

    /// Whether a fault strikes all that is done with the file.
    pub(super) fn strikes_file(&self, fault: SimFault) -> bool {
        self.options.faults.has(fault) && draw(self.file, For::Strike(fault), 0).is_multiple_of(self.one_in())
    }

    /// Whether it hangs from this answer on: the first, or the second where the first may be short.
    pub(super) fn hangs(&self, answer: u32) -> bool {
        self.strikes(SimFault::Hang)
            && (answer > 0 || !self.strikes(SimFault::Short) || self.draw(For::Turn, 1).is_multiple_of(2))
    }

    /// When what hangs comes back after it was given up, if ever.
    pub(super) fn comes_back(&self) -> Option<Duration> {
        let drawn = self.draw(For::Return, 0);
        drawn.is_multiple_of(2).then(|| Duration::from_micros(100 + drawn / 2 % 2_000_000))
    }

    /// What the open fails with.
    pub(super) fn open_fails(&self) -> Option<Errno> {
        const ERRNOS: [Errno; 4] = [Errno::ENOENT, Errno::EACCES, Errno::EMFILE, Errno::EIO];
        self.strikes_file(SimFault::Open).then(|| ERRNOS[(self.draw(For::Errno, 0) % 4) as usize])
    }

    /// What an answer of a read fails with. Of what it is tried again for only one failure strikes a read.
    pub(super) fn read_fails(&self, answer: u32, is_direct: bool) -> Option<Errno> {
        let is_turn = u64::from(answer) == self.draw(For::Turn, 0) % 3;
        if self.strikes(SimFault::Interrupted) && answer < INTERRUPTED_MAX {
            match self.draw(For::Interrupt, answer) % 4 {
                0 => return Some(Errno::EINTR),
                1 => return Some(Errno::EAGAIN),
                _ => {}
            }
        }
        if self.strikes_file(SimFault::DirectRead) && is_direct {
            return Some(if self.file.is_multiple_of(2) { Errno::EINVAL } else { Errno::EOPNOTSUPP });
        }
        if self.strikes(SimFault::EioSticky) {
            return Some(Errno::EIO);
        }
        if self.strikes(SimFault::Eio) {
            return is_turn.then_some(Errno::EIO);
        }
        (self.strikes(SimFault::NoMemory) && is_turn).then_some(Errno::ENOMEM)
    }

    /// Bytes that an answer of at most `len_bytes` at `offset` of a file has.
    pub(super) fn answer_bytes(&self, answer: u32, offset: u64, len_bytes: usize, file_bytes: u64) -> usize {
        let end = match self.strikes_file(SimFault::Truncated) {
            true => draw(self.file, For::End, 0) % file_bytes.max(1),
            false => file_bytes,
        };
        let there = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(len_bytes);
        if there > 0 && self.strikes(SimFault::Short) {
            return 1 + (self.draw(For::Cut, answer) % there as u64) as usize;
        }
        there
    }

    fn draw(&self, what: For, answer: u32) -> u64 {
        draw(self.operation, what, answer)
    }

    fn one_in(&self) -> u64 {
        u64::from(self.options.one_in.max(1))
    }
}

fn draw(key: u64, what: For, answer: u32) -> u64 {
    mix(mix(key ^ what.number()) ^ u64::from(answer))
}

/// The step of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let state = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ state >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ state >> 31
}
