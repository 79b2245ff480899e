//! The order of an epoch: what it promises, over ranks, mixtures and weights.

mod mixed;
mod promises;
mod ranks;
mod weighted;
