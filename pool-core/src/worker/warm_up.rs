//! What each forked worker would do for itself, done once.

use super::run;
use crate::shm::build_identity::build_identity;

/// Does what each worker would do first, and keeps what comes of it. To be called by a backend
/// before it forks: the copies, and the workers that these fork, are ready sooner.
pub fn warm_up() {
    let _kept = build_identity();
    run::warm_up();
}
