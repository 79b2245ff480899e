//! WHICH sample comes next: permutations and positions.
