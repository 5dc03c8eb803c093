//! What can be an argument or a result.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What can travel to another process: an argument, an item, a result.
///
/// It stands for `Serialize + DeserializeOwned + 'static`, and need not and cannot be implemented.
/// A type of your own derives both traits of serde. The first page of `procpool` lists, under "What
/// can travel", what needs a wrapper.
///
/// ```compile_fail,E0277
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// struct Point { x: f64, y: f64 }
///
/// // The error says: derive `Serialize` and `Deserialize`.
/// SerialPool::new().map(|x: f64| Point { x, y: 0.0 }, [1.0, 2.0]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    label = "`{Self}` is an argument or a result, and serde does not carry it",
    note = "a type of your own needs `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "a reference does not travel: pass what it refers to, for example `items.iter().cloned()` \
            or `String` in place of `&str`",
    note = "an error of most libraries travels as `procpool::RemoteError`: pass \
            `procpool::remote_errors(f)` in place of `f`",
    note = "an `async fn` returns a future, which does not travel: wait for it in a function that is \
            not `async`"
)]
pub trait Portable: Serialize + DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Portable for T {}
