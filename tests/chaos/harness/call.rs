//! One call of a random kind.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use procpool::{Broadcast, Call, Emitter, Pool, Stateless, TaskErrorKind};

use super::backend::Backend;
use super::job::{Bulk, Item, Job, Outcome, Quick, Unit, Work};
use super::load::Load;
use super::oracle::CallRecord;
use super::plan::{self, Options, Stop, one_in};
use super::pools::Tenant;
use super::storm::Storm;
use super::waiting::{Afterwards, Waiting, WaitingMap, WaitingTask, look_at_all, look_at_each};

/// The kinds of call. The last one is for pools on other machines.
const KINDS: [&str; 9] = [
    "apply",
    "apply_async",
    "map",
    "try_map",
    "map_async",
    "imap",
    "imap_unordered",
    "stream",
    "broadcast",
];

/// Those that do not wait.
const BACKGROUND: [&str; 2] = ["apply_async", "map_async"];

/// This many handles a thread keeps.
const KEPT: usize = 24;

/// Makes calls until the storm is over, and then looks at all that it has kept.
pub(crate) fn run<B: Backend>(storm: &Storm<B>, rng: &mut Rng) {
    let mut kept: Vec<Box<dyn Waiting>> = Vec::new();
    let mut urgent: Vec<Box<dyn Waiting>> = Vec::new();
    while !storm.ledger.is_over() {
        if let Some(tenant) = storm.pools.random(rng) {
            let may_wait = urgent.is_empty();
            let waiting = match rng.u32(..20) {
                0..14 => make::<B, Work>(storm, &tenant, rng, may_wait),
                14..16 => make::<B, Bulk>(storm, &tenant, rng, may_wait),
                16..19 => make::<B, Quick>(storm, &tenant, rng, may_wait),
                _ => make::<B, Unit>(storm, &tenant, rng, may_wait),
            };
            if let Some(waiting) = waiting {
                let pile = if waiting.is_urgent() {
                    &mut urgent
                } else {
                    &mut kept
                };
                pile.push(waiting);
            }
        } else {
            thread::sleep(Duration::from_millis(1));
        }
        if !urgent.is_empty() {
            if one_in(rng, 2) {
                settle_one(&mut urgent, rng);
            }
        } else if kept.len() > KEPT || !kept.is_empty() && one_in(rng, 3) {
            settle_one(&mut kept, rng);
        }
    }
    for waiting in urgent.into_iter().chain(kept) {
        waiting.settle(rng);
    }
}

fn settle_one(pile: &mut Vec<Box<dyn Waiting>>, rng: &mut Rng) {
    let one = rng.usize(..pile.len());
    pile.swap_remove(one).settle(rng);
}

/// Makes a call. `Some`: it runs in the background.
fn make<B: Backend, J: Job>(
    storm: &Storm<B>,
    tenant: &Arc<Tenant<B>>,
    rng: &mut Rng,
    may_wait: bool,
) -> Option<Box<dyn Waiting>> {
    let kinds = match (may_wait, B::KIND.is_cluster()) {
        (false, _) => &BACKGROUND[..],
        (true, false) => &KINDS[..8],
        (true, true) => &KINDS,
    };
    let kind = kinds[rng.usize(..kinds.len())];
    let count = match (kind, J::NAME) {
        ("apply" | "apply_async" | "stream", _) => 1,
        (_, "quick" | "unit") if one_in(rng, 4) => rng.usize(..5000),
        (_, "bulk") => rng.usize(..6),
        _ => plan::count(rng),
    };
    let mut options = Options::random(rng, count);
    if kind == "stream" {
        // What has emitted values is not tried again.
        options.retries = 0;
    }
    let is_background = BACKGROUND.contains(&kind);
    let stop = match rng.u32(..8) {
        0 if is_background => Some(Stop::Cancel),
        1 if is_background => Some(Stop::Kill),
        _ => None,
    };
    let mut items = plan::items(
        rng,
        &storm.ledger,
        storm.climate,
        count,
        J::HAS_DEEDS,
        &options,
        stop,
    );
    storm.ledger.begin(items.len());
    let call = Arc::new(CallRecord {
        kind,
        job: J::NAME,
        options,
        pool: tenant.facts.clone(),
        ledger: storm.ledger.clone(),
        victims: storm.victims.clone(),
        begun: Instant::now(),
        is_stopped: AtomicBool::new(false),
    });
    let _operation = storm.ledger.operation(format!(
        "{kind} of {count} {} in {} with {:?}, {options:?}",
        J::NAME,
        tenant.facts.name,
        tenant.facts.config
    ));
    let with = with::<J>(&tenant.pool, &options);
    let arguments = || items.iter().map(J::argument);
    match kind {
        "apply" => {
            let outcome = with.apply(J::argument(&items[0]));
            call.enter::<J>(&items[0], None, outcome.as_ref());
        }
        "apply_async" => {
            let item = items.remove(0);
            let handle = with.apply_async(J::argument(&item));
            let after = afterwards(rng, tenant);
            return Some(Box::new(WaitingTask::<J>::new(
                handle, item, call, stop, after,
            )));
        }
        "map" if one_in(rng, 30) => {
            let breaks_at = rng.usize(..=count);
            let input = items.iter().enumerate().map(|(place, item)| {
                if place == breaks_at {
                    break_off();
                }
                J::argument(item)
            });
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| with.map(input)));
            if outcome.is_ok() && breaks_at < count {
                call.ledger
                    .violation("a map did not hear of its input's panic");
            }
            call.enter_unseen(&items);
        }
        "map" => {
            let outcome = if one_in(rng, 2) {
                with.map(arguments())
            } else {
                // An input that does not say how long it is.
                with.map(arguments().filter(|_| true))
            };
            look_at_all::<J>(&call, &items, outcome.as_ref(), true);
        }
        "try_map" => look_at_each::<J>(&call, &items, &with.try_map(arguments())),
        "map_async" => {
            let handle = with.map_async(arguments());
            let after = afterwards(rng, tenant);
            return Some(Box::new(WaitingMap::<J>::new(
                handle, items, call, stop, after,
            )));
        }
        "stream" => read::<J>(&tenant.pool, &call, &items[0], rng),
        "broadcast" => share::<J>(&tenant.pool, &call, &items, rng),
        _ => lazily::<J>(with, &call, &items, rng, kind == "imap"),
    }
    None
}

fn with<J: Job>(
    pool: &impl Pool,
    options: &Options,
) -> Call<impl Fn(J::Argument) -> J::Answer + Stateless> {
    with_options(pool.call(J::run), options)
}

fn with_options<F>(call: Call<F>, options: &Options) -> Call<F> {
    let mut call = call.retries(options.retries);
    if let Some(backoff) = options.backoff {
        call = call.retry_if(|_| true).backoff(backoff);
    }
    if let Some(timeout) = options.timeout {
        call = call.timeout(timeout);
    }
    if let Some(items) = options.chunksize {
        call = call.chunksize(items);
    }
    if let Some(items) = options.buffer {
        call = call.buffer(items);
    }
    call
}

/// What a callback does: sometimes it panics, or gives the pool more to do.
fn afterwards<B: Backend>(rng: &mut Rng, tenant: &Arc<Tenant<B>>) -> Option<Afterwards> {
    if one_in(rng, 2) {
        return None;
    }
    let tenant = Arc::downgrade(tenant);
    Some(match rng.u32(..4) {
        0 => Box::new(|| panic!("callbacks may")),
        1 => Box::new(move || {
            // It may be the last owner when it is done.
            if let Some(tenant) = tenant.upgrade() {
                drop(tenant.pool.apply_async(Quick::run, 7));
            }
        }),
        _ => Box::new(|| {}),
    })
}

/// Asks a lazy map for some or all of its results.
fn lazily<J: Job>(
    with: Call<impl Fn(J::Argument) -> J::Answer + Stateless>,
    call: &CallRecord,
    items: &[Item],
    rng: &mut Rng,
    in_order: bool,
) {
    let taken = Arc::new(AtomicUsize::new(0));
    // Some inputs panic half-way.
    let breaks_at = one_in(rng, 20).then(|| rng.usize(..=items.len()));
    let (theirs, counted) = (items.to_vec(), taken.clone());
    let input = theirs.into_iter().map(move |item| {
        if breaks_at == Some(counted.load(Ordering::SeqCst)) {
            break_off();
        }
        counted.fetch_add(1, Ordering::SeqCst);
        J::argument(&item)
    });
    let count = breaks_at.unwrap_or(items.len());
    let mut results: Box<dyn Iterator<Item = Outcome<J>> + '_> = if in_order {
        Box::new(with.imap(input))
    } else {
        Box::new(with.imap_unordered(input))
    };
    let all = !one_in(rng, 3);
    let until = if all { count } else { rng.usize(..=count) };
    let mut open: Vec<&Item> = items.iter().collect();
    let mut nameless = Vec::new();
    for given in 0..until {
        let Some(outcome) = results.next() else {
            let what = format!("{} ended after {given} of {count} results", call.kind);
            call.ledger.violation(&what);
            break;
        };
        if let Some(buffer) = call.options.buffer
            && taken.load(Ordering::SeqCst) > given + buffer
        {
            let taken = taken.load(Ordering::SeqCst);
            call.ledger.violation(&format!(
                "{} with a buffer of {buffer} took {taken} items and had given {given} results",
                call.kind
            ));
        }
        let index = match &outcome {
            _ if in_order => Some(given),
            Ok(answer) => J::index(answer),
            Err(error) => error.index(),
        };
        match index {
            None => nameless.push(outcome),
            Some(index) => {
                let place = open.iter().position(|item| item.index == index);
                settle::<J>(call, &mut open, place, outcome);
            }
        }
        if one_in(rng, 50) {
            thread::sleep(Duration::from_millis(rng.u64(..10)));
        }
    }
    let mut next = || panic::catch_unwind(AssertUnwindSafe(|| results.next().is_none()));
    let is_right = match breaks_at.filter(|at| *at < items.len()) {
        _ if !all => true,
        None => matches!(next(), Ok(true)),
        Some(_) => next().is_err(),
    };
    if !is_right {
        let what = format!("{} with {breaks_at:?} did not end as it should", call.kind);
        call.ledger.violation(&what);
    }
    drop(results);
    // Those that do not say whose they are get what is left of the items that they fit.
    for outcome in nameless {
        let fits = |item: &&Item| match &outcome {
            Ok(answer) => J::check(item, answer, 0).is_ok(),
            Err(_) => false,
        };
        let place = open.iter().position(fits);
        settle::<J>(call, &mut open, place, outcome);
    }
    let unseen: Vec<Item> = open.into_iter().cloned().collect();
    call.enter_unseen(&unseen);
}

/// Looks at a value that all workers share, and does the job.
fn look<J: Job>((shared, seed, argument): (Broadcast<[u8]>, u64, J::Argument)) -> J::Answer {
    let is_right = shared[..] == Load::of(seed, shared.len()).0;
    assert!(is_right, "another value was shared");
    J::run(argument)
}

/// Runs items that share a value. It may be one that agents have seen before.
fn share<J: Job>(pool: &impl Pool, call: &CallRecord, items: &[Item], rng: &mut Rng) {
    let (seed, bytes) = (rng.u64(..4), plan::bytes(rng, 2 << 20));
    let shared = match pool.broadcast(Load::of(seed, bytes).0) {
        Ok(shared) => shared,
        Err(error) => {
            call.ledger
                .violation(&format!("nothing can be shared: {error}"));
            return call.enter_unseen(items);
        }
    };
    let arguments = items
        .iter()
        .map(|item| (shared.clone(), seed, J::argument(item)));
    let with = with_options(pool.call(look::<J>), &call.options);
    look_at_each::<J>(call, items, &with.try_map(arguments));
}

/// Emits some numbers before the job is done, and as many after.
fn emit<J: Job>((count, argument): (u32, J::Argument), out: &Emitter<u32>) -> J::Answer {
    let wanted = (0..count).all(|number| out.emit(number).is_ok());
    let answer = J::run(argument);
    if wanted {
        let _ = (count..2 * count).all(|number| out.emit(number).is_ok());
    }
    answer
}

/// Reads some or all of what a task emits, and then its answer.
fn read<J: Job>(pool: &impl Pool, call: &CallRecord, item: &Item, rng: &mut Rng) {
    let mut with = pool.call(emit::<J>);
    if let Some(timeout) = call.options.timeout {
        with = with.timeout(timeout);
    }
    if let Some(buffer) = call.options.buffer {
        with = with.buffer(buffer);
    }
    let count = rng.u32(..20);
    let mut values = with.stream((count, J::argument(item)));
    let until = if one_in(rng, 3) {
        rng.u32(..=count)
    } else {
        u32::MAX
    };
    let mut next = 0;
    let failed = loop {
        if next == until {
            match rng.u32(..3) {
                0 => drop(values),
                1 => values.kill(),
                _ => {
                    let outcome = values.result();
                    return call.enter::<J>(item, None, outcome.as_ref());
                }
            }
            return call.enter_unseen(std::slice::from_ref(item));
        }
        match values.next() {
            Some(Ok(number)) if number == next => next += 1,
            Some(Ok(number)) => {
                let what = format!("stream gave {number} in place of {next}");
                call.ledger.violation(&what);
                next = number + 1;
            }
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    let outcome = values.result();
    let is_right = match (&failed, &outcome) {
        (None, Ok(_)) => next == 2 * count,
        // The task has ended well, and what it has returned cannot be decoded.
        (None, Err(error)) => error.kind() == TaskErrorKind::Decode && next == 2 * count,
        (Some(error), Err(same)) => error.kind() == same.kind() && next <= 2 * count,
        _ => false,
    };
    if !is_right {
        call.ledger.violation(&format!(
            "stream gave {next} values of {}, then {failed:?}, and its outcome is {:?}",
            2 * count,
            outcome.as_ref().err()
        ));
    }
    call.enter::<J>(item, None, outcome.as_ref());
}

/// The panic of an input.
fn break_off() -> ! {
    panic::resume_unwind(Box::new("the input breaks off"))
}

/// Enters the outcome of the item at this place of those without one.
fn settle<J: Job>(
    call: &CallRecord,
    open: &mut Vec<&Item>,
    place: Option<usize>,
    outcome: Outcome<J>,
) {
    match place {
        Some(place) => {
            let item = open.remove(place);
            call.enter::<J>(item, Some(item.index), outcome.as_ref());
        }
        None => call.ledger.violation(&format!(
            "{} gave a result twice, or of no item: {:?}",
            call.kind,
            outcome.err()
        )),
    }
}
