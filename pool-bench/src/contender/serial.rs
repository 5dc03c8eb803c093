//! No pool at all: a loop.

use anyhow::Result;

use super::{Local, Role, Runner};
use crate::spin::{Pace, Spin, even_item, spin};
use crate::task::square;

/// A loop as a runner.
pub struct Sequential;

/// The loop that everything else is an alternative to.
#[must_use]
pub fn sequential(pace: Pace) -> Local<Sequential> {
    Local::new("sequential", Role::Alone, pace, 1, |_| Ok(Sequential))
}

impl Runner for Sequential {
    fn apply(&self, x: u64) -> Result<u64> {
        Ok(square(x))
    }

    fn apply_async(&self, n: u64) -> Result<Vec<u64>> {
        self.map_squares(n)
    }

    fn map_squares(&self, n: u64) -> Result<Vec<u64>> {
        Ok((0..n).map(square).collect())
    }

    fn map_spins(&self, items: Vec<Spin>) -> Result<Vec<u64>> {
        Ok(items.into_iter().map(spin).collect())
    }

    fn imap_spins(&self, steps: u64, visit: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        for index in 0.. {
            if !visit(spin(even_item(index, steps))) {
                break;
            }
        }
        Ok(())
    }

    fn echo_bytes(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        // What cannot be had for less: one copy.
        Ok(bytes.as_slice().to_vec())
    }

    fn echo_floats(&self, floats: Vec<f64>) -> Result<Vec<f64>> {
        Ok(floats.as_slice().to_vec())
    }
}
