//! Whether the system's out-of-memory killer was at work, by the count that the control group of
//! this process keeps. Its signal is like anybody's, so the count is all there is to tell it by.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The count of this process's control group, once there was a pool.
static KILLS: Mutex<Option<Kills>> = Mutex::new(None);

/// Counts from now on, if nobody did before. Where the system keeps no count, nobody does.
pub(crate) fn watch() {
    let mut kills = KILLS.lock().unwrap_or_else(PoisonError::into_inner);
    if kills.is_none() {
        *kills = Kills::of_this_process(&read);
    }
}

/// A process of the control group was killed, by whoever: whether it was the out-of-memory killer
/// that did it. Each time that it has killed explains one death.
pub(crate) fn has_killed() -> bool {
    let mut kills = KILLS.lock().unwrap_or_else(PoisonError::into_inner);
    let kills = kills.as_mut();
    kills.is_some_and(|kills| kills.has_one_more(&read))
}

/// The groups of this process.
const GROUPS: &str = "/proc/self/cgroup";

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

/// How often it has killed, as far as is known.
#[derive(Debug)]
struct Kills {
    file: PathBuf,
    explained: u64,
}

impl Kills {
    fn of_this_process(read: &impl Fn(&Path) -> Option<String>) -> Option<Self> {
        let groups = read(Path::new(GROUPS))?;
        let mut known = groups.lines().flat_map(files).filter_map(|file| {
            let explained = count(&read(&file)?)?;
            Some(Self { file, explained })
        });
        known.next()
    }

    fn has_one_more(&mut self, read: &impl Fn(&Path) -> Option<String>) -> bool {
        let count = read(&self.file).and_then(|text| count(&text));
        let is_more = count.is_some_and(|count| count > self.explained);
        self.explained += u64::from(is_more);
        is_more
    }
}

/// Where the count may be, by a line of `/proc/self/cgroup`: in a container, the group may be what
/// is mounted, and the line may speak of the machine's groups.
fn files(group: &str) -> Vec<PathBuf> {
    let mut fields = group.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (mounted, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.events"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.oom_control")
        }
        _ => return Vec::new(),
    };
    let mounted = Path::new(mounted);
    let own = mounted.join(path.trim_start_matches('/')).join(file);
    vec![own, mounted.join(file)]
}

/// The number behind `oom_kill` (Linux 4.13).
fn count(text: &str) -> Option<u64> {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this process reads of a system with these files.
    fn system<'a>(files: &'a [(&str, &str)]) -> impl Fn(&Path) -> Option<String> + 'a {
        move |path| {
            let file = files.iter().find(|file| Path::new(file.0) == path)?;
            Some(file.1.to_owned())
        }
    }

    const EVENTS: &str = "low 0\nhigh 0\nmax 7\noom 9\noom_kill 3\noom_group_kill 8\n";

    #[test]
    fn each_kill_explains_one_death() {
        let own = "/sys/fs/cgroup/app/job/memory.events";
        let groups = (GROUPS, "0::/app/job\n");
        let before = Kills::of_this_process(&system(&[groups, (own, EVENTS)]));
        let mut kills = before.expect("it is counted");
        let none = kills.has_one_more(&system(&[groups, (own, EVENTS)]));
        assert!(!none, "what was before explains nothing");
        let later = EVENTS.replace("kill 3", "kill 5");
        let later = [groups, (own, later.as_str())];
        let seen = [(); 3].map(|()| kills.has_one_more(&system(&later)));
        assert_eq!(seen, [true, true, false]);
        assert!(!kills.has_one_more(&system(&[])), "nothing is known now");
    }

    #[test]
    fn the_count_is_found() {
        let old = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        let two = "4:cpu,memory:/a\n3:cpuset:/\n0::/\n";
        for (groups, file, text, expected) in [
            ("0::/a/b\n", "a/b/memory.events", EVENTS, Some(3)),
            ("0::/a/b\n", "memory.events", EVENTS, Some(3)),
            ("0::/\n", "memory.events", EVENTS, Some(3)),
            (two, "memory/a/memory.oom_control", old, Some(2)),
            (two, "memory/memory.oom_control", old, Some(2)),
            // Of another group; of no group; an old system; nonsense.
            ("0::/a\n", "b/memory.events", EVENTS, None),
            ("3:cpuset:/\n", "memory.events", EVENTS, None),
            ("0::/a\n", "a/memory.events", "oom 9\n", None),
            ("0::/a\n", "a/memory.events", "oom_kill x\n", None),
            ("rubbish\n\n:\n0:\n", "memory.events", EVENTS, None),
        ] {
            let file = format!("/sys/fs/cgroup/{file}");
            let files = [(GROUPS, groups), (file.as_str(), text)];
            let kills = Kills::of_this_process(&system(&files));
            let count = kills.map(|kills| kills.explained);
            assert_eq!(count, expected, "{groups:?} {file}");
        }
        assert!(Kills::of_this_process(&system(&[])).is_none());
    }
}
