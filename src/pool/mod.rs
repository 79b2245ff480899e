//! What several loaders of a process share: decode threads at work, and operations in flight.
//!
//! A loader alone takes a decode thread for each processor and as many reads as pay. Several loaders in a process, for
//! several GPUs, for training and validation, or for two jobs, would each take as much, and the system would divide the
//! processors by the number of their threads. In a [`Pool`] they share one budget of each, evenly or by
//! [weight](crate::LoaderBuilder::pool_weight), and what one does not use is the others':
//!
//! - **Decode threads.** Each loader keeps threads of its own, which hold the scratch memory of its augmentation, but of all
//!   of them only so many are at work as the pool allows. Module `turns` says whose turn it is.
//! - **Reads.** Each running loader may have its share of the operations in flight at any moment, and more while others have
//!   fewer. Module `reads` counts them.
//!
//! Memory, batches and errors of each loader stay its own, and so do its bytes: a pool changes when something is done and
//! nothing else.
//!
//! Each loader also keeps its own engine, so that with io_uring there is a ring for each and not one for all. Memory and
//! files are registered with a ring, and a ring that is set up for one submitting thread (`IORING_SETUP_SINGLE_ISSUER`) saves
//! the kernel a lock; one for all would need another thread, to which every read and completion is handed, and would carry
//! one loader's failure, deadlines and hung mounts to the others. What it would save is little: a feeding thread sleeps while
//! its reads are in flight, and the device does not know by which ring they came.
//!
//! ```no_run
//! use forebay::{Loader, Pool, PoolOptions};
//!
//! # fn main() -> forebay::Result<()> {
//! let pool = Pool::new(PoolOptions { threads: 16, depth: 64 })?;
//! let train = Loader::open("data/train").pool(&pool).pool_weight(3).build()?;
//! let val = Loader::open("data/val").pool(&pool).build()?;
//! // Each from its own thread; while both are running, train has three quarters.
//! # Ok(())
//! # }
//! ```

mod reads;
mod turns;

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

pub(crate) use reads::ReadShare;
use reads::Reads;
pub(crate) use turns::Turn;
use turns::Turns;

use crate::error::{Error, Result};

/// The largest weight.
const WEIGHT_MAX: u32 = 1000;

/// A budget that loaders share: see the [module](self). A clone is another handle of the same.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    turns: Turns,
    reads: Reads,
    loaders: AtomicUsize,
}

/// How much there is to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Decode threads at work at once. Default 0: one a processor.
    pub threads: usize,
    /// Files being opened or read at once. Default 32.
    pub depth: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { threads: 0, depth: 32 }
    }
}

/// What of a pool is in use at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Loaders that were built with it.
    pub loaders: usize,
    /// Those of their decode threads that are at work.
    pub threads: usize,
    /// Those that wait for their turn.
    pub threads_waiting: usize,
    /// Operations in flight.
    pub reads: usize,
}

impl Pool {
    /// A pool of its own.
    ///
    /// # Errors
    /// `InvalidParameter` for more than 4096 threads, and for a depth of 0 or beyond 4096.
    pub fn new(options: PoolOptions) -> Result<Self> {
        let PoolOptions { threads, depth } = options;
        if threads > 4096 {
            return Err(Error::invalid_parameter("threads", threads, "at most 4096 threads decode"));
        }
        if !(1..=4096).contains(&depth) {
            return Err(Error::invalid_parameter("depth", depth, "1 to 4096 operations in flight are possible"));
        }
        let threads = if threads == 0 { processors().min(4096) } else { threads };
        let loaders = AtomicUsize::new(0);
        Ok(Self(Arc::new(Shared { turns: Turns::new(threads), reads: Reads::new(depth), loaders })))
    }

    /// That of the process, by the defaults of [`PoolOptions`]: for parts of a program that do not know of each other.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<Pool> = OnceLock::new();
        GLOBAL.get_or_init(|| {
            let turns = Turns::new(processors().min(4096));
            let reads = Reads::new(PoolOptions::default().depth);
            Self(Arc::new(Shared { turns, reads, loaders: AtomicUsize::new(0) }))
        })
    }

    /// Decode threads that may be at work at once.
    pub fn threads(&self) -> usize {
        self.0.turns.threads()
    }

    /// Operations that may be in flight at once. A loader that begins to run has its share at once, also where others have
    /// begun more than theirs before: until those have ended there can be more.
    pub fn depth(&self) -> usize {
        self.0.reads.depth()
    }

    /// What is in use now.
    pub fn in_use(&self) -> PoolUse {
        let (threads, threads_waiting) = self.0.turns.in_use();
        PoolUse { loaders: self.0.loaders.load(Relaxed), threads, threads_waiting, reads: self.0.reads.in_flight() }
    }

    /// Takes in a loader.
    pub(crate) fn join(&self, weight: u32) -> Result<Share> {
        if !(1..=WEIGHT_MAX).contains(&weight) {
            let allowed = format!("1 to {WEIGHT_MAX}, of which 2 is twice the share of 1");
            return Err(Error::invalid_parameter("pool_weight", weight, &allowed));
        }
        self.0.loaders.fetch_add(1, Relaxed);
        Ok(Share { pool: Arc::clone(&self.0), member: self.0.turns.join(weight), weight })
    }
}

/// A loader's share of a pool, which ends when it is dropped.
pub(crate) struct Share {
    pool: Arc<Shared>,
    /// Its number among those that take turns.
    member: usize,
    weight: u32,
}

impl Share {
    /// That of the operations in flight, for the length of a run.
    pub(crate) fn reads(&self) -> ReadShare {
        ReadShare::new(Arc::clone(&self.pool), self.weight)
    }

    /// Wakes the threads that wait for a turn, so that they look whether their run is over.
    pub(crate) fn wake(&self) {
        self.pool.turns.wake(self.member);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.turns.leave(self.member);
        self.pool.loaders.fetch_sub(1, Relaxed);
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_is_no_budget_is_refused() {
        for (threads, depth) in [(4097, 1), (1, 0), (1, 4097)] {
            let error = Pool::new(PoolOptions { threads, depth }).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        }
        let pool = Pool::new(PoolOptions { threads: 3, depth: 5 }).unwrap();
        assert_eq!((pool.threads(), pool.depth()), (3, 5));
        for weight in [0, 1001] {
            assert!(pool.join(weight).err().expect("refused").to_string().contains("pool_weight"));
        }
        let share = pool.clone().join(1).unwrap();
        assert_eq!(pool.in_use(), PoolUse { loaders: 1, threads: 0, threads_waiting: 0, reads: 0 });
        drop(share);
        assert_eq!(pool.in_use().loaders, 0);
        assert!(Pool::global().threads() >= 1 && Pool::global().depth() == 32);
    }
}
