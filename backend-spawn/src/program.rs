//! What is executed for each worker.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procpool_core::{EnvironmentChanges, LaunchError, build_identity, shared_object};

use crate::bootstrap_env::{Entry, Target};
use crate::init::is_called_by_program;
use crate::remedy::{Remedy, Way};
use crate::sys;

/// What is executed for each worker, and where it becomes one.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: CString,
    pub(crate) arguments: Vec<CString>,
    /// The shared object that the loader is to load into it before anything of it runs.
    pub(crate) preloaded: Option<PathBuf>,
    pub(crate) target: Target,
    pub(crate) remedy: Arc<Remedy>,
}

impl Program {
    /// This program, executed again; from a shared object, with that loaded into it.
    pub(crate) fn again() -> Result<Self, LaunchError> {
        let unknown = |error| {
            LaunchError::new(
                "this program was started by naming it to its loader (ld-linux.so), and \
                 cannot be started again, because where it is cannot be found out",
            )
            .caused_by(error)
        };
        let preloaded = match shared_object() {
            Some(_) if !is_called_by_program() => Some(preloadable()?),
            _ => None,
        };
        let mut arguments: Vec<OsString> = env::args_os().collect();
        if preloaded.is_some() {
            // It is not to do anything but load: what it is told to do, it does not need to know.
            arguments.truncate(1);
        }
        let executable = sys::executable().map_err(unknown)?.into_os_string();
        let loaded = sys::program_of_loader(Path::new(&executable)).map_err(unknown)?;
        if let Some(program) = loaded {
            // The loader takes its second argument for the program, and hands on the others.
            arguments.splice(
                ..arguments.len().min(1),
                [executable.clone(), program.into()],
            );
        }
        if arguments.is_empty() {
            arguments.push(executable.clone());
        }
        let (entry, way) = match &preloaded {
            Some(_) => (Entry::Load, Way::Preloaded),
            None => (Entry::Main, Way::Again),
        };
        Self::new(executable, arguments, preloaded, entry, way).map_err(unknown)
    }

    /// A program that somebody has named.
    pub(crate) fn named(program: &OsStr, args: Vec<OsString>) -> Result<Self, LaunchError> {
        let what = program.display();
        let Some(path) = find(program) else {
            return Err(LaunchError::new(format!(
                "program({what}): there is no such program"
            )));
        };
        let entry = match shared_object() {
            Some(_) if !is_called_by_program() => Entry::Call,
            _ => Entry::Main,
        };
        let way = Way::Named(what.to_string());
        let arguments = [vec![program.to_owned()], args].concat();
        Self::new(path.into(), arguments, None, entry, way)
            .map_err(|error| LaunchError::new(format!("program({what})")).caused_by(error))
    }

    fn new(
        path: OsString,
        arguments: Vec<OsString>,
        preloaded: Option<PathBuf>,
        entry: Entry,
        way: Way,
    ) -> io::Result<Self> {
        Ok(Self {
            path: c_string(path)?,
            arguments: arguments
                .into_iter()
                .map(c_string)
                .collect::<Result<_, _>>()?,
            preloaded,
            target: Target {
                entry,
                identity: build_identity(),
            },
            remedy: Arc::new(Remedy::here(way)),
        })
    }

    /// This program's environment with these changes, and what the loader reads in it.
    pub(crate) fn environment(&self, changes: &EnvironmentChanges) -> Vec<(OsString, OsString)> {
        let mut variables = changes.applied_to(env::vars_os());
        if let Some(object) = &self.preloaded {
            let before = variables.iter().position(|(name, _)| name == PRELOAD);
            let before = before.map(|at| variables.swap_remove(at).1);
            variables.push((PRELOAD.into(), preload(before.as_deref(), object)));
        }
        variables
    }
}

/// What the loader is asked by to load more.
pub(crate) const PRELOAD: &str = "LD_PRELOAD";

/// The variable's value with this object as well, behind the others: some must come first.
fn preload(before: Option<&OsStr>, object: &Path) -> OsString {
    let mut value = before.unwrap_or_default().to_owned();
    if !value.is_empty() {
        value.push(":");
    }
    value.push(object);
    value
}

/// The variable's value before this object was added. `None`: it was not.
pub(crate) fn without_preloaded<'a>(value: &'a OsStr, object: &Path) -> Option<&'a OsStr> {
    let before = value
        .as_bytes()
        .strip_suffix(object.as_os_str().as_bytes())?;
    match before {
        [] => Some(OsStr::new("")),
        [before @ .., b':'] => Some(OsStr::from_bytes(before)),
        _ => None,
    }
}

/// The file of this shared object, for the loader to load it into this program.
fn preloadable() -> Result<PathBuf, LaunchError> {
    let refused = |what: String| {
        LaunchError::new(format!(
            "{what}; name a program that loads it by .program(..), or use ForkPool"
        ))
    };
    let file = sys::own_file().map_err(|error| {
        refused("where the file of this shared object is cannot be found out".to_owned())
            .caused_by(error)
    })?;
    let shown = file.display();
    if !file.exists() {
        return Err(refused(format!(
            "the file of this shared object, {shown}, is not there any more: was it replaced?"
        )));
    }
    if file
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b" :$".contains(byte))
    {
        return Err(refused(format!(
            "the loader takes no path with spaces, colons or dollars: {shown}"
        )));
    }
    if sys::is_secure() {
        return Err(refused(format!(
            "the loader loads nothing but its own libraries into a program with more rights than \
             its user's, as this one: not {shown}"
        )));
    }
    Ok(file)
}

/// Where a program is: by its path, or by its name in `PATH`.
fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        // The current folder may be another one when a worker is started.
        return std::path::absolute(program).ok();
    }
    let folders = env::var_os("PATH")?;
    let is_program = |path: &PathBuf| {
        let executable = rustix::fs::access(path, rustix::fs::Access::EXEC_OK);
        fs::metadata(path).is_ok_and(|it| it.is_file()) && executable.is_ok()
    };
    let mut places = env::split_paths(&folders).map(|folder| folder.join(program));
    let found = places.find(is_program)?;
    std::path::absolute(found).ok()
}

pub(crate) fn c_string(text: OsString) -> io::Result<CString> {
    Ok(CString::new(text.into_vec())?)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::{find, preload, without_preloaded};

    #[test]
    fn the_variable_is_as_before_without_the_object() {
        let object = Path::new("/lib/libmine.so");
        for before in ["", "/lib/asan.so", "a.so:b.so"] {
            let value = preload(Some(OsStr::new(before)), object);
            assert_eq!(without_preloaded(&value, object), Some(OsStr::new(before)));
        }
        assert_eq!(preload(None, object), object);
        for other in ["", "/lib/libmine.so.2", "/usr/lib/libmine.so"] {
            assert_eq!(without_preloaded(OsStr::new(other), object), None);
        }
    }

    #[test]
    fn a_program_is_found_by_its_name() {
        let found = find(OsStr::new("sh")).expect("there is a shell");
        assert!(found.is_absolute() && found.ends_with("sh"), "{found:?}");
        assert_eq!(find(OsStr::new("no such program")), None);
        let path = find(OsStr::new("./here")).expect("a path");
        assert!(path.is_absolute() && path.ends_with("here"), "{path:?}");
    }
}
