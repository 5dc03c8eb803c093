//! `procpool top PID` shows what the pools of a running program do, in the terminal.

mod view;

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use procpool_inspect::InspectedPool;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::view::View;

/// Whose pools are shown, and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The program's process identifier.
    pid: u32,
    /// How many seconds there are between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    every: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match (0.1..=3600.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("it is from 0.1 to 3600 seconds".to_owned()),
    }
}

/// What a key does.
enum Wish {
    Nothing,
    /// Look again now.
    Look,
    End,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    // Before the terminal is another one, so that an error can be read.
    let pools = procpool_inspect::pools(options.pid)?;
    let mut top = Top {
        view: View::new(options.pid, pools.len()),
        pools,
        every: Duration::from_secs_f64(options.every),
    };
    top.look()?;
    let mut terminal = ratatui::try_init().context("this is no terminal")?;
    let ended = top.show(&mut terminal);
    ratatui::try_restore()?;
    ended
}

struct Top {
    pools: Vec<InspectedPool>,
    view: View,
    every: Duration,
}

impl Top {
    /// Until it is told to end, or the program has ended.
    fn show(&mut self, terminal: &mut DefaultTerminal) -> Result<()> {
        let mut next = Instant::now() + self.every;
        loop {
            terminal.draw(|frame| self.view.draw(frame))?;
            let wait = next.saturating_duration_since(Instant::now());
            let wish = if event::poll(wait)? {
                self.hear(&event::read()?)?
            } else {
                Wish::Look
            };
            match wish {
                Wish::Nothing => {}
                Wish::Look => {
                    self.look()?;
                    next = Instant::now() + self.every;
                }
                Wish::End => return Ok(()),
            }
        }
    }

    fn look(&mut self) -> Result<()> {
        let Some(pool) = self.pools.get(self.view.pool()) else {
            bail!("the program has no pool that may be looked at");
        };
        match pool.snapshot() {
            Ok(snapshot) => self.view.take(snapshot, Instant::now()),
            Err(error) if is_end(&error) => bail!("{error}"),
            // It may be stopped, or have much to do.
            Err(error) => self.view.complain(error.to_string()),
        }
        Ok(())
    }

    fn hear(&mut self, event: &Event) -> Result<Wish> {
        let Event::Key(KeyEvent {
            code,
            modifiers,
            kind: KeyEventKind::Press | KeyEventKind::Repeat,
            ..
        }) = event
        else {
            return Ok(Wish::Nothing);
        };
        let has_control = modifiers.contains(KeyModifiers::CONTROL);
        Ok(match code {
            KeyCode::Char('c') if has_control => Wish::End,
            KeyCode::Char('q') => Wish::End,
            KeyCode::Esc if self.view.close_stack() => Wish::Nothing,
            KeyCode::Esc => Wish::End,
            KeyCode::Tab => {
                self.view.next_pool();
                Wish::Look
            }
            KeyCode::Up => {
                self.view.up();
                Wish::Nothing
            }
            KeyCode::Down => {
                self.view.down();
                Wish::Nothing
            }
            KeyCode::Enter => {
                self.stack();
                Wish::Nothing
            }
            _ => Wish::Nothing,
        })
    }

    /// Shows the stack of the worker that is chosen.
    fn stack(&mut self) {
        let (Some(chosen), Some(pool)) = (self.view.chosen(), self.pools.get(self.view.pool()))
        else {
            return;
        };
        let text = match pool.dump() {
            Ok(dump) => {
                let found = dump
                    .workers
                    .iter()
                    .find(|it| it.info.as_ref() == Some(&chosen));
                found.map_or_else(|| "this worker is no more".to_owned(), ToString::to_string)
            }
            Err(error) => error.to_string(),
        };
        self.view.show_stack(text);
    }
}

/// Whether there is nobody any more who could answer.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound, Other, UnexpectedEof};
    matches!(
        error.kind(),
        NotFound | ConnectionRefused | UnexpectedEof | Other
    )
}
