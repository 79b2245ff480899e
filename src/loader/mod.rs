//! The front door: a builder, epochs, and the wiring of the stages.
