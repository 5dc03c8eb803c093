//! The soak: pools made and dropped, tasks run, and what the process holds looked at.

use super::backend::Backend;
use super::command::SoakOptions;

pub(crate) fn run<B: Backend>(_: &SoakOptions) -> bool {
    true
}
