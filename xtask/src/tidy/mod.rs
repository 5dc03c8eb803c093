//! `cargo xtask tidy`: the house rules that no other tool knows. (The compiler, clippy, rustfmt,
//! `typos` and `cargo-deny` know the others: `Cargo.toml`, `clippy.toml`, `typos.toml` and
//! `deny.toml` have them.)
//!
//! A rule is a pure function over one file, or over all of them where a file alone does not tell;
//! [`check`] lists them. Each message says why the rule is there.

mod check;
mod circles;
mod file;
mod manifest;
mod modules;
mod required;
mod rooms;
mod rust_text;
mod text;
mod unsafety;

pub(crate) use check::run;
