//! A user of its own: namespaces in which this process has no network, and no rights anywhere.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{getgid, getuid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::SandboxError;

/// Moves this process, which has one thread, into namespaces of its own. `network`: it keeps the
/// one that it has.
pub(crate) fn enter(network: bool, best_effort: bool) -> Result<(), SandboxError> {
    let (user, group) = (getuid(), getgid());
    let mut flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if !network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if let Err(errno) = unshare(flags) {
        return match best_effort {
            true => Ok(()),
            false => Err(SandboxError::Unsupported {
                part: format!(
                    "user namespaces for this process ({errno}; see the settings \
                     kernel.unprivileged_userns_clone, user.max_user_namespaces and \
                     kernel.apparmor_restrict_unprivileged_userns)"
                ),
            }),
        };
    }
    // It stays who it was, for files that it has open; and there is nobody else.
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{user} {user} 1")),
        ("/proc/self/gid_map", format!("{group} {group} 1")),
    ];
    // Of a process that is not dumpable, they belong to root.
    let was_dumpable = prctl::get_dumpable().unwrap_or(true);
    prctl::set_dumpable(true).map_err(|errno| refused(errno.into()))?;
    for (path, map) in maps {
        fs::write(path, map).map_err(refused)?;
    }
    prctl::set_dumpable(was_dumpable).map_err(|errno| refused(errno.into()))?;
    // In there it has all rights, of which it needs none.
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(|errno| refused(errno.into()))
}

fn refused(error: io::Error) -> SandboxError {
    SandboxError::Refused {
        step: "its user namespace",
        reason: error.to_string(),
    }
}
