//! What each forked worker would do for itself, done once.

use super::run;
use crate::shm::build_identity::build_identity;

/// Does what each worker would do first. To be called by a backend in the process that it forks
/// workers from: they find it done, and are ready sooner.
pub fn warm_up() {
    let _ = build_identity();
    run::warm_up();
}
