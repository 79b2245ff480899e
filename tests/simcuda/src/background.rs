//! Hardware goes on while nobody waits for it. A thread begins work that has lain for a while, so that a program which
//! waits for a host function, not for the driver, does not wait for ever.

use std::time::Duration;

use crate::driver::Locked;
use crate::schedule::Step;

/// How often it looks when it is told not to run anything, in case it is told otherwise.
const IDLE_MS_OFF: u64 = 50;

/// Starts the thread.
pub fn start() {
    // A process that may not start a thread has no such help, and needs it only for host functions.
    drop(std::thread::Builder::new().name("simcuda".into()).spawn(watch));
}

fn watch() {
    let mut progress = 0;
    loop {
        let idle_ms = Locked::new().settings.idle_ms;
        std::thread::sleep(Duration::from_millis(if idle_ms == 0 { IDLE_MS_OFF } else { idle_ms }));
        let mut driver = Locked::new();
        if idle_ms != 0 && driver.progress == progress && driver.operations == driver.operations_at_last_look {
            while driver.step(None) == Step::Ran {}
        }
        driver.operations_at_last_look = driver.operations;
        progress = driver.progress;
    }
}
