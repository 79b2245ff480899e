//! The storage engine, asked by starting it, and the file systems that it would read from.

use std::fs;
use std::path::{Path, PathBuf};

use forebay::engine::probe::{self, UringFeature, UringProbe};
use forebay::engine::{Direct, Engine, EngineKind, EngineOptions};
use forebay::loader::Pin;
use forebay::memory::Arena;
use forebay::report::Pinned;
use forebay::storage::Machine;
use forebay::{Error, Result};

use super::{Fact, human_bytes, volume};

/// Large enough that a locked-memory limit shows, small enough to ask for in passing.
const ARENA_BYTES: usize = 16 << 20;
/// What a loader's reads land in, unless it is told otherwise.
const REGISTERED_BYTES: usize = 64 << 20;
/// Directory entries looked at to find a file to try.
const ENTRIES_MAX: usize = 10_000;

/// The engine that `auto` takes, and what it had to do without.
pub fn engine() -> (String, Vec<Fact>) {
    let started =
        Arena::new(ARENA_BYTES).and_then(|arena| Engine::new(EngineKind::Auto, &arena, 32, EngineOptions::default()));
    match started {
        Ok((engine, fallbacks)) => {
            let (kind, placement) = (engine.kind().to_string(), engine.arena().placement());
            // Its memory counts against the limit that is found out next.
            drop(engine);
            let mut facts = vec![
                Fact::new("engine", format!("{kind}, tried with 32 operations in flight")),
                Fact::new("memory for reads", placement.to_string()),
            ];
            // Of io_uring itself the probe says more.
            let others = fallbacks.into_iter().filter(|fallback| fallback.what != "io_uring");
            facts.extend(others.map(|fallback| {
                Fact::new(fallback.what, format!("not used: {}", fallback.cause))
                    .short(format!("{} instead", fallback.instead), fallback.remedy)
            }));
            facts.extend(uring());
            (kind, facts)
        }
        Err(error) => ("none".into(), vec![refused("engine", &error)]),
    }
}

/// What io_uring has here, each thing tried.
fn uring() -> Vec<Fact> {
    let UringProbe { refusal, features } = UringProbe::this(&Machine::this());
    if let Some((cause, remedy)) = refusal {
        let cost = "a thread for each read in flight: more CPU time for every byte, and fewer reads in flight";
        return vec![Fact::new("io_uring", cause).short(cost, remedy)];
    }
    let there = features.iter().filter(|feature| feature.refusal.is_none()).map(|feature| feature.name);
    let mut facts = vec![Fact::new("io_uring", there.collect::<Vec<_>>().join(", "))];
    facts.extend(features.into_iter().filter_map(|UringFeature { name, since, refusal, cost }| {
        Some(Fact::new(name, refusal?).short(cost, format!("use Linux {since} or later, and a sandbox that allows it")))
    }));
    facts.push(registrable());
    facts
}

/// How much of an arena the kernel registers.
fn registrable() -> Fact {
    let name = "registered memory";
    match probe::registrable_bytes(REGISTERED_BYTES) {
        Ok(Some(bytes)) if bytes >= REGISTERED_BYTES => Fact::new(
            name,
            format!("all of the {} that a loader's reads land in by default", human_bytes(bytes as u64)),
        ),
        Ok(Some(bytes)) => {
            let (got, all) = (human_bytes(bytes as u64), human_bytes(REGISTERED_BYTES as u64));
            Fact::new(name, format!("{got} of the {all} that a loader's reads land in by default")).short(
                "the pages of reads that land elsewhere are mapped anew for each one",
                "raise it: `ulimit -l unlimited`, LimitMEMLOCK=infinity in a unit, --ulimit memlock=-1 for a container",
            )
        }
        Ok(None) => Fact::new(name, "none, without io_uring"),
        Err(error) => Fact::new(name, cause(&error)),
    }
}

/// Where a path lies and how it can be read.
pub fn facts(path: &Path) -> Result<Vec<Fact>> {
    let cannot = |error| {
        Error::io(path.display(), error).with_remedy("name a file or directory that exists and that this user can read")
    };
    let real = path.canonicalize().map_err(cannot)?;
    let is_dir = fs::metadata(&real).map_err(cannot)?.is_dir();
    let file = if is_dir { first_file(&real).map_err(cannot)? } else { Some(real.clone()) };
    let with_len = file.as_deref().map(|file| (file, file.metadata().map_or(0, |file| file.len())));
    let mut facts = volume::facts(&Machine::this(), &real, with_len, &volume::ask_lustre);
    facts.insert(1, space(&real));
    facts.insert(
        2,
        match &file {
            Some(file) => direct(file),
            None => Fact::new("O_DIRECT", "not tried: there is no file here"),
        },
    );
    // On a machine of several nodes.
    facts.extend(Pin::node_of(Some(file.as_deref().unwrap_or(&real)), None).map(|pinned| {
        let Pinned { node, processors } = pinned;
        Fact::new("threads", format!("pinned to the {processors} processors of node {node}, where there is no GPU"))
    }));
    Ok(facts)
}

fn space(path: &Path) -> Fact {
    let Ok(stats) = nix::sys::statvfs::statvfs(path) else { return Fact::new("free space", "unknown") };
    let bytes = |blocks: u64| blocks.saturating_mul(stats.fragment_size());
    let (free, total) = (bytes(stats.blocks_available()), bytes(stats.blocks()));
    Fact::new("free space", format!("{} of {}", human_bytes(free), human_bytes(total)))
}

/// Opens a file as the engine would.
fn direct(file: &Path) -> Fact {
    let options = EngineOptions { direct: Direct::Required, ..Default::default() };
    let opened = Arena::new(1 << 20)
        .and_then(|arena| Engine::new(EngineKind::Pread, &arena, 1, options))
        .and_then(|(engine, _)| engine.open_now(file));
    match opened {
        Ok(file) => Fact::new("O_DIRECT", format!("possible, in units of {} bytes", file.align_bytes())),
        Err(error) => refused("O_DIRECT", &error),
    }
}

fn refused(name: &'static str, error: &Error) -> Fact {
    let (remedy, cause) = (error.remedy().unwrap_or("none known"), cause(error));
    let cost = if name == "O_DIRECT" {
        "data sets larger than memory are read through the page cache: one more copy of every byte"
    } else {
        "nothing can be read"
    };
    Fact::new(name, cause).short(cost, remedy)
}

/// What an error says without its remedy, which stands beside it.
pub fn cause(error: &Error) -> String {
    let text = error.to_string();
    let remedy = error.remedy().map(|remedy| format!(" ({remedy})"));
    remedy.and_then(|remedy| text.strip_suffix(&remedy).map(str::to_owned)).unwrap_or(text)
}

/// Some regular file below a directory, nearest first.
pub fn first_file(dir: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut directories = std::collections::VecDeque::from([dir.to_owned()]);
    let mut seen = 0;
    let mut listed_any = false;
    while let Some(directory) = directories.pop_front() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // A subdirectory that cannot be read is passed over; the one that was named is an error.
            Err(error) if !listed_any => return Err(error),
            Err(_) => continue,
        };
        listed_any = true;
        for entry in entries.flatten() {
            seen += 1;
            match entry.file_type() {
                Ok(kind) if kind.is_file() && entry.metadata().is_ok_and(|file| file.len() > 0) => {
                    return Ok(Some(entry.path()));
                }
                Ok(kind) if kind.is_dir() => directories.push_back(entry.path()),
                _ => {}
            }
            if seen > ENTRIES_MAX {
                return Ok(None);
            }
        }
    }
    Ok(None)
}
