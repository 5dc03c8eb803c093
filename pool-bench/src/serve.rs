//! This program as a contender of another one: see [`Remote`](crate::contender::Remote).

use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use serde_json::json;

use crate::contender::Wrong;
use crate::job::{Job, Measured};
use crate::roster;

/// Answers jobs from standard input until it ends.
///
/// # Errors
/// When nobody is called `name`, or the pipes break.
pub fn serve(name: &str, workers: usize) -> Result<()> {
    let mut contender =
        roster::alone(name, workers).with_context(|| format!("there is no contender {name}"))?;
    let mut answers = std::io::stdout();
    writeln!(answers, "{}", json!({ "ready": name }))?;
    for line in std::io::stdin().lock().lines() {
        let job: Job = serde_json::from_str(&line?)?;
        let answer = answer(contender.run(job));
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

fn answer(outcome: Result<Option<Measured>>) -> serde_json::Value {
    match outcome {
        Ok(Some(measured)) => json!(measured),
        Ok(None) => json!({ "unsupported": "this job" }),
        Err(error) => match error.downcast_ref::<Wrong>() {
            Some(Wrong(what)) => json!({ "wrong": what }),
            None => json!({ "error": format!("{error:#}") }),
        },
    }
}
