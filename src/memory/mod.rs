//! LAND: page-locked memory that goes round.
