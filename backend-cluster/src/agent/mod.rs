//! The other side: a process that runs the work of clients.

mod host;
