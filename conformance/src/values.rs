//! Arguments and results in wrappers, and errors that functions return.

use std::collections::BTreeMap;
use std::num::ParseIntError;

use procpool::{CallError, FlattenErrors, Json, Pool, RemoteError, TaskErrorKind, remote_errors};
use serde::{Deserialize, Serialize};

use crate::backends::{Processes, Subject};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        json_carries_what_says_not_what_it_is,
        what_json_cannot_say_fails_its_item_alone,
        any_error_is_a_result,
        errors_of_a_function_that_is_there_already,
        two_errors_become_one,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_crash_and_a_returned_error_differ,
    ]
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Field {
    Number(f64),
    Text(String),
    Record(Record),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Field>,
}

fn record() -> Record {
    let text = Field::Text("a \"text\"\u{0}".to_owned());
    let inner = Field::Record(Record {
        name: None,
        rest: BTreeMap::from([("text".to_owned(), text)]),
    });
    let number = Field::Number(0.1 + 0.2);
    Record {
        name: Some("outer".to_owned()),
        rest: BTreeMap::from([("inner".to_owned(), inner), ("number".to_owned(), number)]),
    }
}

fn json_carries_what_says_not_what_it_is<S: Subject>() {
    let pool = S::pool(2);
    let error = pool.apply(|it: Record| it, record()).unwrap_err();
    assert!(error.to_string().contains("procpool::Json"), "{error}");

    let rename = |Json(mut record): Json<Record>| {
        record.name = record.name.map(|name| name.to_uppercase());
        Json(record)
    };
    let renamed = pool.map(rename, (0..100).map(|_| Json(record()))).unwrap();
    let expected = Record {
        name: Some("OUTER".to_owned()),
        ..record()
    };
    assert_eq!(renamed, vec![Json(expected); 100]);
}

fn what_json_cannot_say_fails_its_item_alone<S: Subject>() {
    let reciprocal = |x: f64| Json(1.0 / x);
    let outcomes = S::pool(2).try_map(reciprocal, [2.0, 0.0, 4.0]);
    assert_eq!(outcomes[0].as_ref().unwrap().0, 0.5);
    assert_eq!(outcomes[2].as_ref().unwrap().0, 0.25);
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!(
        (error.kind(), error.index()),
        (TaskErrorKind::Decode, Some(1))
    );
}

fn parse(text: String) -> Result<u64, RemoteError> {
    if text.is_empty() {
        return Err(RemoteError::new("there is nothing"));
    }
    Ok(text.parse()?)
}

fn any_error_is_a_result<S: Subject>() {
    let texts = ["7", "x", ""].map(str::to_owned);
    let outcomes = S::pool(2).map(parse, texts).unwrap();
    assert_eq!(outcomes[0], Ok(7));
    let wrong = outcomes[1].as_ref().unwrap_err();
    assert!(wrong.is_type::<ParseIntError>());
    assert_eq!(wrong.to_string(), "invalid digit found in string");
    let nothing = outcomes[2].as_ref().unwrap_err();
    assert_eq!(nothing.to_string(), "there is nothing");
}

/// Such as one that returns `anyhow::Result`, which serde does not carry.
fn errors_of_a_function_that_is_there_already<S: Subject>() {
    fn read(path: String) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(std::fs::read_to_string(path)?)
    }
    let path = "/a file that is not there".to_owned();
    let error = S::pool(1)
        .apply(remote_errors(read), path)
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
}

fn two_errors_become_one<S: Subject>() {
    let pool = S::pool(2);
    let texts = || ["7", "x", "8"].map(str::to_owned);
    let invalid = |error: CallError<RemoteError>| {
        error
            .returned()
            .is_some_and(|error| error.is_type::<ParseIntError>())
    };
    assert_eq!(
        pool.map(parse, ["7".to_owned()]).flatten_errors(),
        Ok(vec![7])
    );
    assert!(invalid(
        pool.map(parse, texts()).flatten_errors().unwrap_err()
    ));
    let all = pool.map_async(parse, texts()).get().flatten_errors();
    assert!(invalid(all.unwrap_err()));
    assert_eq!(pool.apply(parse, "7".to_owned()).flatten_errors(), Ok(7));
    let each = pool.imap(parse, texts()).map(FlattenErrors::flatten_errors);
    let each: Vec<_> = each.map(|outcome| outcome.map_err(invalid)).collect();
    assert_eq!(each, [Ok(7), Err(true), Ok(8)]);
}

fn a_crash_and_a_returned_error_differ<S: Processes>() {
    let pool = S::pool(1);
    let abort = |_: ()| -> Result<u64, RemoteError> { std::process::abort() };
    let error = pool.apply(abort, ()).flatten_errors().unwrap_err();
    let lost = error.task().expect("the task has no result");
    assert!(lost.is_worker_lost(), "{lost}");
    let error = pool
        .apply(parse, "x".to_owned())
        .flatten_errors()
        .unwrap_err();
    assert!(error.task().is_none());
}
