//! Bugs planted in the PTX, to see that the tests here find them.

use super::machine::{Machine, PTX};
use super::{destuff, entropy, idct, pixels, resize, taps};
use crate::plan::DType;

/// A kernel, what compares it with the host, and a seed from which on that exercises it.
type Subject = (&'static str, fn(u64, &mut Machine) -> Result<(), String>);

const SUBJECTS: [Subject; 5] = [
    ("forebay_destuff", destuff::run),
    ("forebay_entropy", sound_or_not),
    ("forebay_idct", idct::run),
    ("forebay_taps", taps::run),
    ("forebay_resize_f32", f32_alone),
];

/// [`resize::run`] and [`pixels::run`] where they are about the one of the four that bugs are planted in.
fn f32_alone(seed: u64, machine: &mut Machine) -> Result<(), String> {
    if resize::dtype(seed) == DType::F32 {
        resize::run(seed, machine)?;
    }
    if pixels::dtype(seed) == DType::F32 { pixels::run(seed, machine) } else { Ok(()) }
}

/// Files as they are, damaged ones, and such with other tables.
fn sound_or_not(seed: u64, machine: &mut Machine) -> Result<(), String> {
    entropy::run(seed, machine)?;
    entropy::damaged(seed, machine)?;
    entropy::hostile(seed, machine)?;
    Ok(())
}

/// The lines of a kernel.
fn lines(kernel: &str) -> std::ops::Range<usize> {
    let entry = |line: &&str| line.starts_with(".visible .entry ");
    let start = PTX.lines().position(|line| line == format!(".visible .entry {kernel}(")).unwrap();
    let len = PTX.lines().skip(start + 1).take_while(|line| !entry(line)).count();
    start..start + 1 + len
}

/// The text with one line changed.
fn with_line(at: usize, line: &str) -> String {
    let lines: Vec<&str> = PTX.lines().collect();
    [&lines[..at], &[line], &lines[at + 1..]].concat().join("\n") + "\n"
}

/// Whether a comparison with the host fails for one of some seeds.
fn is_caught(text: &str, run: fn(u64, &mut Machine) -> Result<(), String>, seeds: u64) -> bool {
    let mut machine = Machine::with(text);
    (0..seeds).any(|seed| run(seed, &mut machine).is_err())
}

#[test]
fn every_barrier_is_missed() {
    for (kernel, run) in SUBJECTS {
        let is_barrier = |line: &str| line.contains("bar.sync") || line.contains("bar.warp.sync");
        let barriers: Vec<usize> = lines(kernel).filter(|&at| PTX.lines().nth(at).is_some_and(is_barrier)).collect();
        assert!(!barriers.is_empty() || kernel == "forebay_taps", "{kernel} has no barrier");
        for at in barriers {
            assert!(is_caught(&with_line(at, ""), run, 60), "{kernel}: nothing fails without the barrier of line {at}");
        }
    }
}

/// Every comparison of integers one off. Some of these change nothing that can be seen, such as one that keeps a thread from
/// a turn of a loop that would do nothing; so each kernel says how many of how many are found.
#[test]
fn bounds_one_off_are_caught() {
    for (kernel, run) in SUBJECTS {
        let (mut caught, mut missed) = (0, Vec::new());
        for at in lines(kernel) {
            let line = PTX.lines().nth(at).unwrap_or_default();
            let flips = [(".lt.", ".le."), (".le.", ".lt."), (".gt.", ".ge."), (".ge.", ".gt.")];
            let Some((from, to)) = flips.iter().find(|(from, _)| line.contains(&format!("setp{from}"))) else {
                continue;
            };
            let planted = with_line(at, &line.replacen(from, to, 1));
            if is_caught(&planted, run, 8) { caught += 1 } else { missed.push(format!("{}: {}", at + 1, line.trim())) }
        }
        println!("{kernel}: {caught} of {}; not: {missed:#?}", caught + missed.len());
        assert!(
            2 * caught >= missed.len().max(1),
            "{kernel}: {caught} are caught, and {} not: {missed:#?}",
            missed.len()
        );
    }
}
