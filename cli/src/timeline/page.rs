//! The page to zoom into: one file, which has the whole trace in it.

use std::collections::BTreeMap;

use serde_json::json;

use super::color;
use super::read::Trace;

const PAGE: &str = include_str!("page.html");

/// The page of a trace.
pub(crate) fn page(trace: &Trace, title: &str) -> String {
    let mut times: BTreeMap<&str, f64> = BTreeMap::new();
    for item in &trace.items {
        *times.entry(&item.function).or_default() += item.end - item.start;
    }
    // Those first that took longest, as in the picture.
    let mut functions: Vec<(&str, f64)> = times.into_iter().collect();
    functions.sort_by(|one, other| other.1.total_cmp(&one.1));
    let number: BTreeMap<&str, usize> = (functions.iter().enumerate())
        .map(|(at, (name, _))| (*name, at))
        .collect();
    let position = |worker: u32| trace.workers.get(&worker).map_or(0, |it| it.position);
    let mut errors: Vec<&str> = trace
        .items
        .iter()
        .filter_map(|it| it.error.as_deref())
        .collect();
    errors.sort_unstable();
    errors.dedup();
    // Numbers alone, since there are many: lane, function, index, start, end, error.
    let items = trace.items.iter().map(|item| {
        let error = item.error.as_deref();
        let error = error.and_then(|error| errors.binary_search(&error).ok());
        json!([
            position(item.worker),
            number[&*item.function],
            item.index,
            micros(item.start),
            micros(item.end),
            error
        ])
    });
    let workers = trace.workers.iter().map(|(worker, it)| {
        json!({
            "worker": worker,
            "pid": it.pid,
            "lane": it.position,
            "up": micros(it.up),
            "ended": it.ended.as_ref().map(|(at, _)| micros(*at)),
            "reason": it.ended.as_ref().map(|(_, reason)| reason),
        })
    });
    let data = json!({
        "title": title,
        "end": micros(trace.end),
        "functions": (functions.iter().enumerate())
            .map(|(at, (name, _))| json!({ "name": name, "colour": color::of(at) }))
            .collect::<Vec<_>>(),
        "errors": errors,
        "items": items.collect::<Vec<_>>(),
        "workers": workers.collect::<Vec<_>>(),
        "dropped": trace.dropped,
        "failed": color::FAILED,
    });
    // A name must not end the script.
    let data = data.to_string().replace("</", "<\\/").replace("<!", "<\\!");
    PAGE.replace("DATA", &data)
}

/// To a nanosecond: more figures would make the page longer.
fn micros(time: f64) -> f64 {
    (time * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::read::{Item, Worker};

    #[test]
    fn names_do_not_end_the_script() {
        let item = Item {
            worker: 3,
            function: "</script><b>".to_owned(),
            index: 4,
            start: 1.0,
            end: 2.5,
            error: Some("Panicked".to_owned()),
            queued: None,
        };
        let worker = Worker {
            pid: 17,
            position: 1,
            up: 0.5,
            ended: None,
        };
        let trace = Trace {
            items: vec![item],
            workers: [(3, worker)].into(),
            end: 9.0,
            ..Trace::default()
        };
        let page = page(&trace, "a <!-- title");
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("[[1,0,4,1.0,2.5,0]]"), "{page}");
        assert!(page.contains("a <\\!-- title") && !page.contains("DATA"));
    }
}
