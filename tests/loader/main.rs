//! The loader. What counts the threads, the memory or the processors of a process is a program of its own beside this one.

#[path = "../common/mod.rs"]
mod common;
#[path = "../loader_index_support/mod.rs"]
mod loader_index_support;
#[path = "../raw_support/mod.rs"]
mod raw_support;

mod growth;
mod index;
mod mixed;
mod pool;
mod raw;
mod resume;
mod roots;
mod views;

use forebay::LoaderBuilder;
use forebay::engine::{Engine, EngineKind};
use forebay::memory::Arena;

/// What ends an epoch.
fn first_error(builder: LoaderBuilder) -> forebay::Error {
    let mut loader = builder.build().expect("loader");
    loader.epoch(1).find_map(Result::err).expect("an error")
}

/// The engines that this machine has.
fn engines() -> Vec<EngineKind> {
    let uring = Engine::new(EngineKind::Uring, &Arena::new(1 << 20).expect("arena"), 4, Default::default());
    if uring.is_err() {
        println!("skipped: io_uring is refused here");
        return vec![EngineKind::Pread];
    }
    vec![EngineKind::Pread, EngineKind::Uring]
}
