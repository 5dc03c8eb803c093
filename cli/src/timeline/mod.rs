//! `procpool timeline trace.json` draws a trace that a pool has written (`Pool::trace_to`).

mod color;
mod draw;
mod lanes;
mod page;
mod read;
mod svg;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use self::draw::draw;
use self::lanes::Picture;
use self::page::page;
use self::read::read;

/// What is drawn, and where to.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The trace.
    trace: PathBuf,
    /// Where the picture goes; beside the trace, if nothing is said. The page is beside it.
    #[arg(long)]
    out: Option<PathBuf>,
    /// What stands above it; the trace's name, if nothing is said.
    #[arg(long)]
    title: Option<String>,
}

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
    let page_out = out.with_extension("html");
    for (out, text) in [(&out, picture), (&page_out, page(&trace, &title))] {
        fs::write(out, text).with_context(|| format!("{} cannot be written", out.display()))?;
    }
    writeln!(
        io::stdout(),
        "{} and {}: {} items in {}",
        out.display(),
        page_out.display(),
        trace.items.len(),
        path.display()
    )?;
    Ok(())
}
