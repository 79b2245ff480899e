//! Cold reads, which the page cache holds nothing of: photos from a shard by io_uring around the page cache and by threads
//! through it, and folders of small files by the engine and by a thread pool that opens, reads and closes.
//!
//! Contenders take turns; what is told is the median over the rounds, and the range, which is the noise. The variables
//! `FOREBAY_BENCH_DIR` (a folder with room for 3 GB on the storage to measure), `FOREBAY_BENCH_FILES` (default 20,000) and
//! `FOREBAY_BENCH_ROUNDS` (default 5) say more. Only root can make directories and inodes cold too; without, it is said.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use forebay::engine::{Direct, Engine, EngineKind, EngineOptions, OpenFile, Outcome};
use forebay::memory::Arena;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

const SHARD_BYTES: u64 = 2 << 30;
/// Reads of one round: about half of the shard, none twice.
const READS: u64 = 9000;
const ARENA_BYTES: usize = 64 << 20;
const SMALL_BYTES_MAX: usize = 32 << 10;

/// What a contender did in a round.
#[derive(Clone, Copy)]
struct Round {
    seconds: f64,
    cpu_seconds: f64,
    bytes: u64,
}

/// Reads everything once, and tells how many bytes that was.
type Reading<'a> = Box<dyn FnOnce() -> u64 + 'a>;

/// A name, and what sets a reading up: an engine and its memory, which outlast many epochs, are not part of what is measured.
type Contender<'a> = (String, Box<dyn Fn() -> Reading<'a> + 'a>);

fn main() {
    // Cargo passes flags of its own, and tests run it without any.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let number =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let base = std::env::var_os("FOREBAY_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let folder = tempfile::tempdir_in(base).expect("a folder for the files to read");
    let rounds = number("FOREBAY_BENCH_ROUNDS", 5);
    photos(folder.path(), rounds);
    small_files(folder.path(), number("FOREBAY_BENCH_FILES", 20_000), rounds);
}

/// Reads of the size of photos, at the offsets of a shard where they might lie.
fn photos(folder: &Path, rounds: usize) {
    let path = folder.join("shard");
    let mut file = File::create(&path).expect("the shard");
    let block: Vec<u8> = (0..1 << 20).map(|at| (at % 251) as u8).collect();
    (0..SHARD_BYTES >> 20).for_each(|_| file.write_all(&block).expect("room for the shard"));
    file.sync_all().expect("the shard on its disk");
    let path = &path;
    let contender = |kind, direct, depth| -> Contender<'_> {
        let name = format!("{kind}, {}, depth {depth}", if direct == Direct::Off { "page cache" } else { "direct" });
        let set_up = move || -> Reading<'_> {
            let engine = engine(kind, direct, depth);
            Box::new(move || read_photos(engine, path))
        };
        (name, Box::new(set_up))
    };
    let contenders = [
        contender(EngineKind::Pread, Direct::Off, 32),
        contender(EngineKind::Uring, Direct::Required, 32),
        contender(EngineKind::Uring, Direct::Required, 128),
    ];
    println!("\n{READS} reads of 20 to 200 kB, each once, from a shard of 2 GiB");
    compare(&contenders, rounds, || make_cold(std::slice::from_ref(path)));
}

fn read_photos(mut engine: Engine, path: &Path) -> u64 {
    let file = engine.open_now(path).expect("the shard");
    let (mut next, mut done, mut bytes, mut completions) = (0, 0, 0, Vec::new());
    while done < READS {
        while next < READS && engine.room() > 0 {
            let (offset, len_bytes) = photo(next);
            let needed = engine.region_len(&file, offset, len_bytes);
            let Some(region) = engine.arena().alloc(needed).expect("smaller than the arena") else { break };
            engine.read(next, &file, offset, len_bytes, region);
            next += 1;
        }
        engine.reap(1, Duration::from_secs(60), &mut completions).expect("a working engine");
        for completion in completions.drain(..) {
            let Ok(Outcome::Read(region)) = completion.result else { panic!("{completion:?}") };
            bytes += region.len() as u64;
            done += 1;
        }
    }
    bytes
}

/// Where a photo lies: in the order of a shuffle, none overlapping another.
fn photo(number: u64) -> (u64, usize) {
    let place = number * 7919 % READS;
    let len_bytes = 20_000 + place.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 180_000;
    (place * (SHARD_BYTES / READS), len_bytes as usize)
}

/// A folder of small files, in a shuffled order.
fn small_files(folder: &Path, count: usize, rounds: usize) {
    let block: Vec<u8> = (0..SMALL_BYTES_MAX).map(|at| (at % 241) as u8).collect();
    let paths: Vec<PathBuf> =
        (0..count).map(|number| folder.join(format!("class-{}", number % 20)).join(format!("{number}.jpg"))).collect();
    for (number, path) in paths.iter().enumerate() {
        fs::create_dir_all(path.parent().expect("in a folder")).expect("a folder of files");
        let len_bytes = 10_000 + (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 20_000;
        fs::write(path, &block[..len_bytes as usize]).expect("room for the files");
    }
    let shuffled: Vec<PathBuf> = (0..count).map(|at| paths[at * 7919 % count].clone()).collect();
    let shuffled = &shuffled;
    let pool = |threads| -> Contender<'_> {
        let set_up = move || -> Reading<'_> { Box::new(move || read_by_pool(shuffled, threads)) };
        (format!("{threads} threads: open, read, close"), Box::new(set_up))
    };
    let contender = |kind, depth| -> Contender<'_> {
        let set_up = move || -> Reading<'_> {
            let engine = engine(kind, Direct::Preferred, depth);
            Box::new(move || read_files(engine, shuffled))
        };
        (format!("{kind}, direct, depth {depth}"), Box::new(set_up))
    };
    let contenders = [
        pool(8),
        pool(16),
        pool(32),
        pool(64),
        contender(EngineKind::Uring, 32),
        contender(EngineKind::Uring, 128),
        contender(EngineKind::Pread, 32),
    ];
    println!("\n{count} files of 10 to 30 kB in 20 folders, each once");
    compare(&contenders, rounds, || make_cold(&paths));
}

fn read_by_pool(paths: &[PathBuf], threads: usize) -> u64 {
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0; SMALL_BYTES_MAX];
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut file = File::open(path).expect("a file");
                    let mut filled = 0;
                    loop {
                        match file.read(&mut buffer[filled..]).expect("its bytes") {
                            0 => break,
                            read => filled += read,
                        }
                    }
                    bytes.fetch_add(filled as u64, Ordering::Relaxed);
                }
            });
        }
    });
    bytes.into_inner()
}

fn read_files(mut engine: Engine, paths: &[PathBuf]) -> u64 {
    let (mut next, mut done, mut bytes, mut completions) = (0, 0, 0, Vec::new());
    let mut opened: Vec<(u64, Arc<OpenFile>)> = Vec::new();
    while done < paths.len() {
        for (token, file) in opened.drain(..) {
            let len_bytes = file.size_bytes() as usize;
            let needed = engine.region_len(&file, 0, len_bytes);
            let region = engine.arena().alloc(needed).expect("small").expect("memory for what is in flight");
            engine.read(token, &file, 0, len_bytes, region);
        }
        while next < paths.len() && engine.room() > 0 {
            let Some(region) = engine.arena().alloc(SMALL_BYTES_MAX).expect("small") else { break };
            engine.read_file(next as u64, &paths[next], region);
            next += 1;
        }
        engine.reap(1, Duration::from_secs(60), &mut completions).expect("a working engine");
        for completion in completions.drain(..) {
            match completion.result.expect("a file that can be read") {
                Outcome::Opened(file) => opened.push((completion.token, file)),
                Outcome::Read(region) | Outcome::ReadFile { region, .. } => {
                    bytes += region.len() as u64;
                    done += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    bytes
}

fn engine(kind: EngineKind, direct: Direct, depth: usize) -> Engine {
    let arena = Arena::new(ARENA_BYTES).expect("memory for the arena");
    Engine::new(kind, &arena, depth, EngineOptions { direct, ..Default::default() }).expect("the engine").0
}

/// Measures each contender in turn, and tells each by the first.
fn compare(contenders: &[Contender<'_>], rounds: usize, cool: impl Fn() -> bool) {
    let mut all: Vec<Vec<Round>> = contenders.iter().map(|_| Vec::new()).collect();
    let mut is_cold = true;
    for _ in 0..rounds {
        for ((_, set_up), done) in contenders.iter().zip(&mut all) {
            is_cold &= cool();
            let read = set_up();
            let (started, cpu) = (Instant::now(), cpu_seconds());
            let bytes = read();
            done.push(Round { seconds: started.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds() - cpu, bytes });
        }
    }
    if !is_cold {
        println!("directories and inodes stayed warm: only root can drop them");
    }
    println!("{:<34} {:>9} {:>9} {:>14} {:>14}", "", "MB/s", "CPU s/GB", "speed by first", "CPU by first");
    for ((name, _), done) in contenders.iter().zip(&all) {
        let speed = |round: &Round| round.bytes as f64 / round.seconds / 1e6;
        let cost = |round: &Round| round.cpu_seconds / (round.bytes as f64 / 1e9);
        let by_first =
            |of: &dyn Fn(&Round) -> f64| spread(done.iter().zip(&all[0]).map(|(own, first)| of(own) / of(first)));
        let (faster, cheaper) = (by_first(&speed), by_first(&cost));
        println!(
            "{name:<34} {:>9.0} {:>9.4} {:>14} {:>14}",
            spread(done.iter().map(speed)).1,
            spread(done.iter().map(cost)).1,
            format!("{:.2} ({:.2}..{:.2})", faster.1, faster.0, faster.2),
            format!("{:.2} ({:.2}..{:.2})", cheaper.1, cheaper.0, cheaper.2),
        );
    }
}

/// Least, median and largest.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

/// Drops what the page cache holds of the files, and with the right to, what the kernel remembers of their names.
fn make_cold(paths: &[PathBuf]) -> bool {
    for path in paths {
        let file = File::open(path).expect("a file");
        file.sync_all().expect("the file on its disk");
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("advice");
    }
    fs::write("/proc/sys/vm/drop_caches", "2").is_ok()
}

fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("what this process used");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}
