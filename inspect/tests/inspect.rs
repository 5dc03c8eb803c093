//! Who looks into a pool sees it, and nobody else does.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use procpool_core::{Pool, SerialPool};
use procpool_inspect::{AllowInspection, Inspection, pools};

fn path(inspection: &Inspection) -> PathBuf {
    let text = format!("{inspection:?}");
    let path = text.split('"').nth(1).expect("it has a path");
    path.into()
}

/// One after the other, since all pools of a process are found together.
#[test]
fn each_pool_is_seen_as_long_as_it_may_be() {
    let own = std::process::id();
    let error = pools(own).unwrap_err();
    assert!(error.to_string().contains("allow_inspection"), "{error}");
    let error = pools(u32::MAX).unwrap_err();
    assert!(error.to_string().contains("no process"), "{error}");

    let (one, other) = (SerialPool::new(), SerialPool::new());
    // That of a program that was killed.
    let first = one
        .allow_inspection("for a moment")
        .expect("there is a socket");
    let killed = path(&first).with_file_name("1-1.sock");
    drop(UnixListener::bind(&killed).expect("a socket"));
    drop(first);
    assert!(killed.exists());
    let inspections = [one.allow_inspection("one"), other.allow_inspection("other")];
    let [first, second] = inspections.map(|it| it.expect("there is a socket"));
    assert!(!killed.exists());
    one.call(|x: u64| x * x)
        .name("squares")
        .map(0..10)
        .expect("it is easy");
    let mut running = one.call(|x: u64| x).name("numbers").imap(0..10);
    assert_eq!(running.next(), Some(Ok(0)));
    let found = pools(own).expect("it allows that");
    let seen: Vec<_> = found
        .iter()
        .map(|it| it.snapshot().expect("it answers"))
        .collect();
    let names: Vec<&str> = seen.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["one", "other"]);
    assert_eq!((seen[0].stats.succeeded, seen[1].stats.succeeded), (11, 0));
    assert_eq!((seen[0].processes, seen[0].calls.len()), (1, 1));
    assert_eq!(&*seen[0].calls[0].name, "numbers");
    assert_eq!(found[0].dump().expect("it answers").workers.len(), 0);

    // Of a pool that is no more, there is nothing.
    drop((running, one));
    let error = found[0].snapshot().unwrap_err();
    assert!(error.to_string().contains("no more"), "{error}");

    // What makes no sense does no harm, nor does who says nothing.
    let socket = path(&second);
    for question in [&b"what\n"[..], b"\n", b"\xff\xfe\n", &[b'x'; 100]] {
        let mut stream = UnixStream::connect(&socket).expect("it listens");
        stream.write_all(question).expect("it reads");
        let mut answer = String::new();
        // It may close while there is more to read.
        let read = stream.read_to_string(&mut answer);
        assert!(
            read.is_err() || answer.is_empty() || answer.contains("Refused"),
            "{answer}"
        );
    }
    let silent = UnixStream::connect(&socket).expect("it listens");
    assert_eq!(found[1].snapshot().expect("it answers").name, "other");
    drop(silent);

    let folder = socket.parent().expect("it has one").to_owned();
    let mode = std::fs::metadata(&folder).expect("it is there").mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(first);
    assert_eq!(pools(own).expect("there is one").len(), 1);
    drop(second);
    assert!(pools(own).is_err() && !socket.exists());
    assert!(found[1].snapshot().is_err());
}
