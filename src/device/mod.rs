//! The device that tensors are born on.
