//! Compares the pools with sequential map.

fn main() {}
