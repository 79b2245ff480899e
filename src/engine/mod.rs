//! MOVE: many reads in flight, through io_uring or threads.
