//! The `forebay` command line: one file a subcommand.
#![forbid(unsafe_code)]
// The results of `bench load` have more fields than `json!` takes by default.
#![recursion_limit = "256"]

mod bench_decode;
mod bench_io;
mod datagen;
mod decode;
mod demo;
mod doctor;
mod environment;
mod index;
mod json;
mod load;
mod ordered;
mod pack;
mod picture;
mod sheet;
mod ui;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps computer-vision training fed: storage to decoded, augmented tensors.
///
/// Exit codes: 0 all well, 1 the data or the machine failed, 2 the command itself was wrong.
#[derive(Parser)]
#[command(version, propagate_version = true, args_override_self = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Doctor(doctor::Doctor),
    Datagen(datagen::Datagen),
    Index(index::Index),
    Verify(verify::Verify),
    Pack(pack::Pack),
    Decode(decode::Decode),
    #[command(subcommand)]
    Bench(Bench),
}

/// Measures one part of the path, or all of it.
#[derive(Subcommand)]
enum Bench {
    Decode(bench_decode::BenchDecode),
    Io(bench_io::BenchIo),
    // It has by far the most options.
    Load(Box<load::Load>),
}

fn main() -> ExitCode {
    ui::show_warnings();
    let done = match Cli::parse().command {
        Command::Demo(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Datagen(command) => command.run(),
        Command::Index(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Pack(command) => command.run(),
        Command::Decode(command) => command.run(),
        Command::Bench(Bench::Decode(command)) => command.run(),
        Command::Bench(Bench::Io(command)) => command.run(),
        Command::Bench(Bench::Load(command)) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ui::report(&error),
    }
}
