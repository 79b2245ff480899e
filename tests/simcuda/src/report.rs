//! What is wrong with the program under test, a line each.

use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::settings::Settings;

/// Past this many, a program is broken enough.
const REPORTS_MAX: usize = 10_000;

/// The reports so far.
#[derive(Debug, Default)]
pub struct Reports {
    lines: Vec<String>,
    file: Option<File>,
}

impl Reports {
    /// Makes a report: written at once, since the program may not live to its end. The same line is made once.
    pub fn add(&mut self, settings: &Settings, kind: &str, text: &str) {
        let line = format!("{kind}: {}", text.replace('\n', " "));
        let ignored = settings.ignore.iter().any(|ignored| ignored == kind);
        if ignored || self.lines.len() >= REPORTS_MAX || self.lines.contains(&line) {
            return;
        }
        match self.file(settings) {
            // There is nobody to tell that the reports cannot be told.
            Some(file) => drop(file.write_all(format!("{line}\n").as_bytes())),
            None => eprintln!("simcuda: {line}"),
        }
        self.lines.push(line);
    }

    /// All lines, each ended by a newline.
    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    fn file(&mut self, settings: &Settings) -> Option<&mut File> {
        let path = settings.report.as_ref()?;
        if self.file.is_none() {
            self.file = OpenOptions::new().create(true).append(true).open(path).ok();
        }
        self.file.as_mut()
    }
}
