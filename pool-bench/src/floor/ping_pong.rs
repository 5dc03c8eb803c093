//! The shortest conversation between two processes: eight bytes there, eight bytes back.

#![allow(
    clippy::disallowed_methods,
    reason = "what is measured is also what comes after a sleep"
)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::other_side::{Game, OtherSide};
use super::shared::Shared;
use crate::contender::{Contender, Role, Wrong};
use crate::job::{Job, Measured};

/// How the two wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In shared memory, and never sleeping.
    Spinning,
    /// In shared memory, and always sleeping.
    Futex,
    /// A Unix socket.
    Socket,
}

/// Two processes that send each other numbers and their squares.
pub struct PingPong {
    way: Way,
    other_side: OtherSide,
}

impl PingPong {
    /// In this way, with that other side.
    #[must_use]
    pub fn new(way: Way, other_side: &OtherSide) -> Self {
        Self {
            way,
            other_side: other_side.clone(),
        }
    }

    fn time(&self, n: u64, pause: Option<Duration>) -> Result<Duration> {
        let shared = self.other_side.shared;
        let first = shared.there.turn().wrapping_add(1);
        let game = Game::PingPong(self.way);
        self.other_side.play(game, n, u64::from(first), |socket| {
            let mut total = Duration::ZERO;
            let begin = Instant::now();
            for x in 0..n {
                if let Some(pause) = pause {
                    thread::sleep(pause);
                }
                let start = pause.map(|_| Instant::now());
                let turn = first.wrapping_add(x as u32);
                let result = ask(self.way, shared, socket, turn, x)?;
                total += start.map_or(Duration::ZERO, |start| start.elapsed());
                ensure!(result == x * x, Wrong(format!("ping {x}, pong {result}")));
            }
            Ok(if pause.is_some() {
                total
            } else {
                begin.elapsed()
            })
        })
    }
}

impl Contender for PingPong {
    fn name(&self) -> &str {
        match self.way {
            Way::Spinning => "floor: spinning ring",
            Way::Futex => "floor: futex",
            Way::Socket => "floor: Unix socket",
        }
    }

    fn role(&self) -> Role {
        Role::Floor
    }

    fn run(&mut self, job: Job) -> Result<Option<Measured>> {
        let (n, pause) = match job {
            Job::Apply { n } => (n, None),
            // A spinning side never sleeps.
            Job::ApplyAfterSleep { .. } if self.way == Way::Spinning => return Ok(None),
            Job::ApplyAfterSleep { n, pause_us } => (n, Some(Duration::from_micros(pause_us))),
            _ => return Ok(None),
        };
        // A wake-up takes a hundred times as long.
        let n = match self.way {
            Way::Futex | Way::Socket if pause.is_none() => n.div_ceil(50),
            _ => n,
        };
        let value = self.time(n, pause)?.as_secs_f64() / n as f64;
        Ok(Some(Measured { value, n }))
    }
}

fn ask(way: Way, shared: &Shared, socket: &mut UnixStream, turn: u32, x: u64) -> Result<u64> {
    Ok(match way {
        Way::Spinning => {
            shared.there.say(turn, x);
            shared.back.hear(turn)
        }
        Way::Futex => {
            shared.there.say_aloud(turn, x);
            shared.back.sleep_until(turn)
        }
        Way::Socket => {
            let mut word = x.to_ne_bytes();
            socket.write_all(&word)?;
            socket.read_exact(&mut word)?;
            u64::from_ne_bytes(word)
        }
    })
}

/// The other side. Turns go on counting from game to game, so that none is taken for that of an
/// earlier one; `first` is the first of this game.
pub(super) fn play(way: Way, shared: &Shared, socket: &mut UnixStream, n: u64, first: u64) {
    for x in 0..n {
        let turn = (first + x) as u32;
        match way {
            Way::Spinning => {
                let x = shared.there.hear(turn);
                shared.back.say(turn, x * x);
            }
            Way::Futex => {
                let x = shared.there.sleep_until(turn);
                shared.back.say_aloud(turn, x * x);
            }
            Way::Socket => {
                let mut word = [0; 8];
                if socket.read_exact(&mut word).is_err() {
                    return;
                }
                let x = u64::from_ne_bytes(word);
                if socket.write_all(&(x * x).to_ne_bytes()).is_err() {
                    return;
                }
            }
        }
    }
}
