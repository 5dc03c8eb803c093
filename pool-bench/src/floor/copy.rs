//! Bytes through shared memory and back: two processes that do nothing but copy.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::other_side::{Game, OtherSide};
use super::shared::Shared;
use crate::contender::{Contender, Role, Wrong};
use crate::job::{Job, Measured};

/// Streams bytes through a buffer in shared memory, in while the other side copies out, and the
/// same back. Each destination is allocated anew, since who receives a vector must, and each source
/// is given back, since who sends one gives it away.
pub struct Copy {
    other_side: OtherSide,
}

impl Copy {
    /// With that other side.
    #[must_use]
    pub fn new(other_side: &OtherSide) -> Self {
        Self {
            other_side: other_side.clone(),
        }
    }
}

impl Contender for Copy {
    fn name(&self) -> &str {
        "floor: memcpy, shared memory"
    }

    fn role(&self) -> Role {
        Role::Floor
    }

    fn run(&mut self, job: Job) -> Result<Option<Measured>> {
        let Job::Echo { n, bytes, .. } = job else {
            return Ok(None);
        };
        let payload: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
        let shared = self.other_side.shared;
        let total = self.other_side.play(Game::Copy, n, bytes, |_| {
            let mut total = Duration::ZERO;
            for _ in 0..n {
                let argument = payload.clone();
                let start = Instant::now();
                // The length travels too, so that nothing at all is still a message.
                shared.there.send(&bytes.to_ne_bytes());
                shared.there.send(&argument);
                drop(argument);
                shared.back.receive(8);
                let echo = shared.back.receive(bytes as usize);
                total += start.elapsed();
                ensure!(echo == payload, Wrong(format!("copy of {bytes} bytes")));
            }
            Ok(total)
        })?;
        let value = total.as_secs_f64() / n as f64;
        Ok(Some(Measured { value, n }))
    }
}

/// The other side.
pub(super) fn echo(shared: &Shared, n: u64, bytes: u64) {
    for _ in 0..n {
        let length = shared.there.receive(8);
        let argument = shared.there.receive(bytes as usize);
        shared.back.send(&length);
        shared.back.send(&argument);
    }
}
