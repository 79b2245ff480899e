//! HAND over: tensors, labels, keys and verdicts.
