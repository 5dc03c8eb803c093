//! `cargo xtask tidy`: the house rules that the compiler and clippy do not know.
//!
//! A rule is a pure function over one file, or over all of them where a file alone does not tell;
//! [`check`] lists them. Each message says why the rule is there.

mod calls;
mod check;
mod circles;
mod file;
mod layers;
mod manifest;
mod marks;
mod modules;
mod names;
mod required;
mod rooms;
mod rust_text;
mod text;
mod top_level;
mod unsafety;

pub(crate) use check::run;
