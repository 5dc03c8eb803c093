//! What a process knows of itself and of its children: forks, and children that nobody reaps.

pub(crate) mod fork;
pub(crate) mod orphans;
