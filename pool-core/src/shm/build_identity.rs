//! Whether two processes run the same build of the same program.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// The version of everything that a parent and its worker must agree on: the region's layout,
/// the frames in its rings and the order of the bootstrap.
pub const PROTOCOL_VERSION: u32 = 4;

/// A number that parent and worker share if they run the same build of the same program, so that a
/// function's place in the program means the same in both.
///
/// Two different programs have different numbers but for an accident; it is no secret, and no
/// protection against somebody who wants them to be equal. A region has the parent's, and
/// [`worker::serve`](crate::worker::serve()) refuses one that has another.
#[must_use]
pub fn build_identity() -> u128 {
    static IDENTITY: OnceLock<u128> = OnceLock::new();
    once(&IDENTITY, || crate::sys::build_identity(PROTOCOL_VERSION))
}

/// Which build of which program a process runs: see [`build_id`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(u128);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// Which build of which program this process runs. It is made of the content of the executable
/// alone, so that it is the same on every machine: of the build identifier that most linkers put
/// there, and without such a one of all that is loaded of it and cannot be written.
///
/// [Numbers of functions](crate::FunctionId::number) mean the same under an equal one. It is no
/// protection against somebody who wants two programs to have the same: a pool whose machines do
/// not trust each other compares executables by a cryptographic hash.
///
/// It is computed when it is asked for first, which without a build identifier takes some
/// milliseconds for a large program. (A debugger's breakpoints are part of what is loaded then.)
#[must_use]
pub fn build_id() -> BuildId {
    static ID: OnceLock<BuildId> = OnceLock::new();
    once(&ID, || BuildId(crate::sys::build_content(PROTOCOL_VERSION)))
}

/// What `compute` says, kept. Several threads may compute it at a time, for none waits for another:
/// `compute` asks the loader, and a library that it is loading may ask for this.
fn once<T: Copy>(kept: &OnceLock<T>, compute: impl FnOnce() -> T) -> T {
    match kept.get() {
        Some(value) => *value,
        None => {
            let value = compute();
            *kept.get_or_init(|| value)
        }
    }
}
