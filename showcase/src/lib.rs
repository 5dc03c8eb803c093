//! Nothing: see the examples and tests of this package.
