//! What every subcommand shares in talking to a person: progress, warnings, errors, output.

use std::io::Write;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Command};
use forebay::{Error, ErrorKind};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// All bars of the process, so that warnings can be printed between them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A bar for `len` things of a kind, on standard error if that is a terminal, else invisible.
pub fn bar(len: u64, what: &'static str) -> ProgressBar {
    let template = "{bar:32.cyan/blue} {human_pos}/{human_len} {msg}  {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = BARS.add(ProgressBar::new(len).with_style(style).with_message(what));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Writes to standard output. A reader that has gone away, such as `head`, is no error.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A line on standard error that leaves progress bars whole.
pub fn note(text: &str) {
    BARS.suspend(|| eprintln!("{text}"));
}

/// The number of threads asked for, or one per core.
pub fn threads(asked: Option<usize>) -> forebay::Result<usize> {
    match asked {
        Some(0) => Err(Error::invalid_parameter("--threads", 0, "at least 1 is needed")),
        Some(asked) if asked > 4096 => Err(Error::invalid_parameter("--threads", asked, "at most 4096 are allowed")),
        Some(asked) => Ok(asked),
        None => Ok(std::thread::available_parallelism().map_or(1, |n| n.get())),
    }
}

/// A subcommand of which nothing is said but the data set.
pub fn defaults<T: Args>(dataset: &str) -> T {
    let matches = T::augment_args(Command::new("forebay")).get_matches_from(["forebay", "--", dataset]);
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Prints `error: what: cause` and a `help:` line with the remedy, and says how to exit: 2 where the
/// command itself was wrong, 1 where its data or the machine were.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let mut parts = vec![];
    let mut code = 1;
    let mut remedy = None;
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Error>() {
            // Its text names its own causes.
            let text = error.to_string();
            remedy = error.remedy();
            let suffix = remedy.map(|remedy| format!(" ({remedy})")).unwrap_or_default();
            parts.push(text.strip_suffix(&suffix).unwrap_or(&text).to_owned());
            code = if error.kind() == ErrorKind::InvalidParameter { 2 } else { 1 };
            break;
        }
        parts.push(cause.to_string());
    }
    note(&format!("error: {}", parts.join(": ")));
    if let Some(remedy) = remedy {
        note(&format!("help: {remedy}"));
    }
    ExitCode::from(code)
}

/// Shows the library's warnings.
pub fn show_warnings() {
    static LOGGER: Warnings = Warnings;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record) {
        // Only this project's; a dependency's warnings say nothing to the user of this command.
        if self.enabled(record.metadata()) && record.target().starts_with("forebay") {
            let level = if record.level() == log::Level::Error { "error" } else { "warning" };
            note(&format!("{level}: {}", record.args()));
        }
    }

    fn flush(&self) {}
}
