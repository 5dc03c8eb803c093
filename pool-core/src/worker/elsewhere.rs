//! What a worker knows of itself, where there is none.

/// See the module of this name where there is a Unix.
pub(super) mod last_allocation {
    use std::sync::Arc;

    use crate::shm::region::Region;

    pub(in crate::worker) fn explain(_region: Arc<Region>) {}
}

/// See the module of this name where there is a Unix.
pub(super) mod memory {
    use std::io;

    pub(in crate::worker) fn watch() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::worker) fn resident() -> Option<u64> {
        None
    }
}

/// See the module of this name where there is a Unix.
pub(super) mod stack {
    use std::sync::Arc;

    use crate::shm::region::Region;

    pub(in crate::worker) fn answer_questions(_region: &Arc<Region>) {}
}
