//! Whether two processes run the same build of the same program.

use std::sync::OnceLock;

/// The version of everything that a parent and its worker must agree on: the region's layout,
/// the frames in its rings and the order of the bootstrap.
pub const PROTOCOL_VERSION: u32 = 3;

/// A number that parent and worker share if they run the same build of the same program, so that a
/// function's place in the program means the same in both.
///
/// Two different programs have different numbers but for an accident; it is no secret, and no
/// protection against somebody who wants them to be equal. A region has the parent's, and
/// [`worker::serve`](crate::worker::serve()) refuses one that has another.
#[must_use]
pub fn build_identity() -> u128 {
    static IDENTITY: OnceLock<u128> = OnceLock::new();
    *IDENTITY.get_or_init(|| crate::sys::build_identity(PROTOCOL_VERSION))
}
