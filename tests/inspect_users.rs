//! Who may look into a pool: its user, and root. This is about several users, so it needs root.
#![cfg(feature = "fork")]

use std::mem::ManuallyDrop;

use nix::sys::prctl::set_dumpable;
use nix::unistd::{Uid, geteuid, setuid};
use procpool::inspect::{AllowInspection, pools};
use procpool::{ForkPool, Pool, SerialPool};
use procpool_testing::left_out;

procpool::init_before_main!(fork_server);

const ONE: u32 = 65_533;
const OTHER: u32 = 65_534;

/// A process of this user's, which has a pool that may be looked at. Says which process it is.
fn has_a_pool(user: u32) -> u32 {
    setuid(Uid::from_raw(user)).expect("this is root");
    // As one that protects itself: what `/proc` has of it is root's, but for the folder.
    set_dumpable(false).expect("anybody may");
    let pool = SerialPool::new();
    let inspection = pool.allow_inspection(format!("of {user}"));
    // As long as the process.
    let _ = ManuallyDrop::new((inspection.expect("there is a socket"), pool));
    std::process::id()
}

/// The names of what this user sees there, or why it sees nothing.
fn sees((user, process): (u32, u32)) -> Result<Vec<String>, String> {
    setuid(Uid::from_raw(user)).map_err(|error| error.to_string())?;
    let names = || -> std::io::Result<Vec<String>> {
        let found = pools(process)?;
        found.iter().map(|it| Ok(it.snapshot()?.name)).collect()
    };
    names().map_err(|error| error.to_string())
}

fn process() -> ForkPool {
    let pool = ForkPool::builder().processes(1).build();
    pool.expect("a pool")
}

/// Where the sockets of that user are. What a killed process leaves there, the next one of that
/// user's removes, and here there is none.
struct Folder;

impl Drop for Folder {
    fn drop(&mut self) {
        // It may have been removed by who was the last to have something in it.
        let _ = std::fs::remove_dir_all(format!("/tmp/procpool-{ONE}"));
    }
}

#[test]
fn each_user_sees_its_own_pools_and_root_sees_all() {
    const TEST: &str = "each_user_sees_its_own_pools_and_root_sees_all";
    let is_root = geteuid().is_root().then_some(());
    let needed = is_root.ok_or_else(|| "it is run by another user".to_owned());
    if left_out::unless(TEST, "root", needed).is_none() {
        return;
    }
    let _folder = Folder;
    let theirs = process();
    let process_of_one = theirs.apply(has_a_pool, ONE).expect("it can have one");
    let pool = SerialPool::new();
    let _own = pool.allow_inspection("of root").expect("there is a socket");
    let own = std::process::id();
    let look = |user, at| process().apply(sees, (user, at)).expect("it can look");

    for user in [0, ONE] {
        assert_eq!(look(user, process_of_one), Ok(vec![format!("of {ONE}")]));
    }
    assert_eq!(look(0, own), Ok(vec!["of root".to_owned()]));
    for (user, at, owner) in [(OTHER, process_of_one, ONE), (OTHER, own, 0), (ONE, own, 0)] {
        let error = look(user, at).expect_err("it is another user's");
        let text = format!("process {at} is user {owner}'s");
        assert!(error.contains(&text), "{error}");
    }
}
