//! Which files, ports, sockets and processes can be reached: Landlock.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::{Sandbox, SandboxError};

/// What all of it needs: Linux 6.12.
const NEEDED: ABI = ABI::V6;
/// What is used as well where it is there.
const KNOWN: ABI = ABI::V10;

const READ: &[AccessFs] = &[AccessFs::ReadFile, AccessFs::ReadDir];

/// Whether the kernel decides which files may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enforced {
    Yes,
    No,
}

/// Whether this kernel has all that is asked for, and the paths are there.
pub(crate) fn check(sandbox: &Sandbox) -> Result<(), SandboxError> {
    rules(sandbox).map(drop)
}

/// Lets this thread, which is the only one, reach nothing else from now on.
pub(crate) fn enter(sandbox: &Sandbox) -> Result<Enforced, SandboxError> {
    let restricted = rules(sandbox)?.restrict_self().map_err(lacks("all"))?;
    Ok(match restricted.ruleset {
        RulesetStatus::NotEnforced => Enforced::No,
        _ => Enforced::Yes,
    })
}

fn lacks(what: &str) -> impl Fn(RulesetError) -> SandboxError {
    let part = format!("{what} of Landlock");
    move |error| match error {
        RulesetError::HandleAccesses(_) | RulesetError::Scope(_) => {
            SandboxError::Unsupported { part: part.clone() }
        }
        other => SandboxError::Refused {
            step: "landlock",
            reason: other.to_string(),
        },
    }
}

fn rules(sandbox: &Sandbox) -> Result<RulesetCreated, SandboxError> {
    let level = match sandbox.best_effort {
        true => CompatLevel::BestEffort,
        false => CompatLevel::HardRequirement,
    };
    let mut rules = Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(NEEDED))
        .map_err(lacks("the rights for files (since Linux 6.10)"))?
        .scope(Scope::Signal)
        .map_err(lacks("the scope of signals (since Linux 6.12)"))?;
    if !sandbox.network {
        rules = rules
            .handle_access(AccessNet::from_all(NEEDED))
            .map_err(lacks("the rights for ports (since Linux 6.7)"))?
            .scope(Scope::AbstractUnixSocket)
            .map_err(lacks("the scope of sockets (since Linux 6.12)"))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessNet::from_all(KNOWN))
            .map_err(lacks("more"))?;
    }
    let mut rules = rules
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))
        .map_err(lacks("more"))?
        .create()
        .map_err(lacks("all"))?;
    let read: BitFlags<AccessFs> = READ.iter().copied().collect();
    let write = AccessFs::from_all(KNOWN) & !(AccessFs::Execute | AccessFs::IoctlDev);
    let allowed = [
        (&sandbox.reads, read),
        (&sandbox.writes, write),
        (&sandbox.executes, read | AccessFs::Execute),
    ];
    for (paths, access) in allowed {
        for path in paths {
            let opened = PathFd::new(path).map_err(|error| SandboxError::Path {
                path: path.clone(),
                source: io::Error::other(error.to_string()),
            })?;
            // A file has fewer rights than a folder.
            let access = match path.is_dir() {
                true => access,
                false => access & AccessFs::from_file(KNOWN),
            };
            rules = rules
                .add_rule(PathBeneath::new(opened, access))
                .map_err(lacks("a rule"))?;
        }
    }
    Ok(rules)
}

/// A path that will mean the same in a worker that has another folder.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
