//! `procpool-timeline trace.json` draws a trace that a pool has written (`Pool::trace_to`).

mod color;
mod draw;
mod lanes;
mod read;
mod svg;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::draw::draw;
use crate::lanes::Picture;
use crate::read::read;

/// Draws what the workers of a pool did, from the trace that it has written.
#[derive(Debug, Parser)]
struct Options {
    /// The trace.
    trace: PathBuf,
    /// Where the picture goes; beside the trace, if nothing is said.
    #[arg(long)]
    out: Option<PathBuf>,
    /// What stands above it; the trace's name, if nothing is said.
    #[arg(long)]
    title: Option<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::Options;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Options::command().debug_assert();
    }
}
