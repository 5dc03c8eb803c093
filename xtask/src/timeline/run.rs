//! The command.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::draw::draw;
use super::lanes::Picture;
use super::read::read;

/// What `cargo xtask timeline` can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The trace.
    trace: PathBuf,
    /// Where the picture goes; beside the trace, if nothing is said.
    #[arg(long)]
    out: Option<PathBuf>,
    /// What stands above it; the trace's name, if nothing is said.
    #[arg(long)]
    title: Option<String>,
}

/// Draws the trace.
///
/// # Errors
/// When it cannot be read, or has nothing.
pub(crate) fn run(options: &Options) -> Result<()> {
    let path = &options.trace;
    let text =
        fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let trace = read(&text).with_context(|| format!("{} is no trace", path.display()))?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    let title = options
        .title
        .clone()
        .unwrap_or_else(|| name.to_string_lossy().into_owned());
    let picture = draw(&Picture::of(&trace), &title);
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| path.with_extension("svg"));
    fs::write(&out, picture).with_context(|| format!("{} cannot be written", out.display()))?;
    println!(
        "{}: {} items in {}",
        out.display(),
        trace.items.len(),
        path.display()
    );
    Ok(())
}
