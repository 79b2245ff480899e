//! Listing on several threads.

use std::thread;

/// Threads that list at once. More than cores: listing waits for storage more than it computes, and on
/// a network each wait is a round trip.
pub(super) const LISTING_THREADS: usize = 16;

/// Runs `work` on the calling thread and on up to `threads` - 1 more, until all have returned.
pub(super) fn in_parallel(threads: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..threads {
            let thread = thread::Builder::new().name("forebay-listing".to_owned());
            // Fewer threads than wished for are slower and nothing else.
            if thread.spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}
