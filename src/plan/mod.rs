//! HOW MUCH: every random parameter of a sample, fixed before a byte is read.
