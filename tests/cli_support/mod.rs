//! Running the binary and judging how it ends.
#![allow(dead_code)] // Each test file uses its part.

use std::process::Command;

/// The binary under test.
pub fn forebay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
}

/// Runs it, expects success and returns what it printed.
pub fn runs(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it, expects this exit code, and returns what it said on standard error, which must name an error.
pub fn fails(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{command:?}: {stderr}");
    stderr
}
