//! CHANGE: crop, resize, flip, normalise, layout and cast in one pass.
