//! What happened, what it cost, and what limited it.

mod fallback;

pub use fallback::Fallback;
