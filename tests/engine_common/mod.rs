//! Engines of every kind, and a way to use one as if it were synchronous.
#![allow(dead_code)]

pub mod seccomp;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::Result;
use forebay::engine::{Completion, Direct, Engine, EngineKind, EngineOptions, OpenFile, Outcome};
use forebay::memory::Arena;

/// Far longer than any read of a test takes.
pub const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Rig {
    pub engine: Engine,
    pub name: String,
}

/// Every engine, around the page cache and through it; the simulated one with nothing going wrong but the order. io_uring is
/// left out, and named, where it is refused.
pub fn rigs(arena_bytes: usize, depth: usize) -> Vec<Rig> {
    let kinds = [EngineKind::Uring, EngineKind::Pread, EngineKind::Sim];
    let all = kinds.into_iter().flat_map(|kind| [Direct::Off, Direct::Preferred].map(|direct| (kind, direct)));
    all.filter_map(|(kind, direct)| Rig::new(kind, arena_bytes, depth, EngineOptions { direct, ..Default::default() }))
        .collect()
}

impl Rig {
    pub fn new(kind: EngineKind, arena_bytes: usize, depth: usize, options: EngineOptions) -> Option<Self> {
        let arena = Arena::new(arena_bytes).unwrap();
        match Engine::new(kind, &arena, depth, options) {
            Ok((engine, _)) => Some(Self { engine, name: format!("{kind} direct={}", options.direct) }),
            Err(error) => {
                assert_eq!(kind, EngineKind::Uring, "{error}");
                eprintln!("left out: {error}");
                None
            }
        }
    }

    pub fn open(&mut self, path: &Path) -> Result<Arc<OpenFile>> {
        self.engine.open(7, path);
        match self.complete() {
            Completion { token: 7, result: Ok(Outcome::Opened(file)) } => Ok(file),
            Completion { token: 7, result: Err(error) } => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub fn read(&mut self, file: &Arc<OpenFile>, offset: u64, len: usize) -> Result<Vec<u8>> {
        let needed = self.engine.region_len(file, offset, len);
        let mut region = self.engine.arena().alloc(needed)?.expect("the arena is empty");
        // What the kernel does not write must not look right.
        region.as_mut_slice().fill(0xEE);
        self.engine.read(9, file, offset, len, region);
        match self.complete() {
            Completion { token: 9, result: Ok(Outcome::Read(region)) } => Ok(region.as_slice().to_vec()),
            Completion { token: 9, result: Err(error) } => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// Reads ranges with as many in flight as fit, and checks each as it completes: how many did.
    pub fn read_all(
        &mut self,
        file: &Arc<OpenFile>,
        ranges: &[(u64, usize)],
        check: impl Fn((u64, usize), &[u8]),
    ) -> usize {
        let (mut next, mut seen, mut completions) = (0, 0, Vec::new());
        while seen < ranges.len() {
            while let Some(&(offset, len)) = ranges.get(next)
                && self.engine.room() > 0
                && let Some(region) = self.engine.arena().alloc(self.engine.region_len(file, offset, len)).unwrap()
            {
                self.engine.read(next as u64, file, offset, len, region);
                next += 1;
            }
            self.engine.reap(1, TIMEOUT, &mut completions).unwrap();
            for completion in completions.drain(..) {
                let Ok(Outcome::Read(region)) = completion.result else { panic!("{completion:?}") };
                check(ranges[completion.token as usize], region.as_slice());
                seen += 1;
            }
        }
        seen
    }

    fn complete(&mut self) -> Completion {
        let mut completions = Vec::new();
        self.engine.reap(1, TIMEOUT, &mut completions).unwrap();
        assert_eq!(completions.len(), 1);
        completions.remove(0)
    }
}

/// Bytes that depend on the seed and the position.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| ((at ^ seed << 7).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}
