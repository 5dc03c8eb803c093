//! What is drawn: lanes with bars in them, in pixels. Pure arithmetic, so that it can be tested.

use std::collections::BTreeMap;

use super::color;
use super::read::{Item, Trace};

/// How wide the lanes are, in pixels.
pub(crate) const WIDTH: usize = 1000;
/// Bars that are narrower than this are drawn together.
const NARROW: f64 = 1.5;

/// Everything that is to be seen.
pub(crate) struct Picture {
    /// How long the trace is, in microseconds; more than nothing.
    pub(crate) length: f64,
    pub(crate) lanes: Vec<Lane>,
    /// Which share of the workers was busy, in each column of pixels.
    pub(crate) busy: Vec<f64>,
    /// The same over the whole trace.
    pub(crate) utilisation: f64,
    /// The functions, those first that took longest.
    pub(crate) functions: Vec<Function>,
    /// How many items have failed in which way.
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) items: u64,
    pub(crate) dropped: u64,
    pub(crate) unborn: u64,
}

/// One position of the pool: its workers, one after the other, and what they did.
#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) position: u32,
    pub(crate) lives: Vec<Life>,
    pub(crate) bars: Vec<Bar>,
    pub(crate) columns: Vec<Column>,
}

/// From the beginning of a worker to its end, in pixels.
pub(crate) struct Life {
    pub(crate) worker: u32,
    pub(crate) pid: u32,
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Why it ended, if it did.
    pub(crate) reason: Option<String>,
    pub(crate) items: u64,
}

/// An item wide enough to be seen.
pub(crate) struct Bar {
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Its function's place in the legend.
    pub(crate) function: usize,
    pub(crate) item: Item,
}

/// Items that are too narrow to be seen each for itself, in neighbouring columns of pixels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) at: usize,
    pub(crate) width: usize,
    /// Which share of the time there was work, from 0 to 1.
    pub(crate) share: f64,
    pub(crate) items: u64,
    pub(crate) failed: u64,
    /// The function that took most of it.
    pub(crate) function: usize,
}

/// A function, for the legend.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) color: &'static str,
    pub(crate) items: u64,
    /// Microseconds in all.
    pub(crate) total: f64,
}

impl Picture {
    pub(crate) fn of(trace: &Trace) -> Self {
        let length = trace.end.max(1.0);
        let functions = functions(&trace.items);
        let number: BTreeMap<&str, usize> = functions
            .iter()
            .enumerate()
            .map(|(at, it)| (&*it.name, at))
            .collect();
        let mut by_position: BTreeMap<u32, Lane> = BTreeMap::new();
        let pixel = |time: f64| time / length * WIDTH as f64;
        let mut items_of: BTreeMap<u32, u64> = BTreeMap::new();
        for item in &trace.items {
            *items_of.entry(item.worker).or_default() += 1;
        }
        for (worker, row) in &trace.workers {
            let lane = by_position.entry(row.position).or_default();
            lane.lives.push(Life {
                worker: *worker,
                pid: row.pid,
                from: pixel(row.up),
                to: row
                    .ended
                    .as_ref()
                    .map_or(WIDTH as f64, |ended| pixel(ended.0)),
                reason: row.ended.as_ref().map(|ended| ended.1.clone()),
                items: items_of.get(worker).copied().unwrap_or(0),
            });
        }
        let position_of = |worker: u32| trace.workers.get(&worker).map_or(0, |row| row.position);
        let mut cells: BTreeMap<u32, Cells> = BTreeMap::new();
        let mut busy = vec![0.0; WIDTH];
        let mut total = 0.0;
        for item in &trace.items {
            let position = position_of(item.worker);
            let (from, to) = (pixel(item.start), pixel(item.end));
            let function = number[&*item.function];
            let lane = by_position.entry(position).or_default();
            spread(from, to, |column, share| busy[column] += share);
            total += item.end - item.start;
            if to - from >= NARROW {
                lane.bars.push(Bar {
                    from,
                    to,
                    function,
                    item: item.clone(),
                });
            } else {
                let cells = cells.entry(position).or_insert_with(Cells::new);
                cells.add(from, to, function, item.error.is_some());
            }
        }
        for (position, lane) in &mut by_position {
            lane.position = *position;
            lane.lives.sort_by(|a, b| a.from.total_cmp(&b.from));
            if let Some(cells) = cells.remove(position) {
                lane.columns = cells.columns();
            }
        }
        let lanes: Vec<Lane> = by_position.into_values().collect();
        let workers = lanes.len().max(1) as f64;
        let mut failures = BTreeMap::new();
        for error in trace.items.iter().filter_map(|item| item.error.clone()) {
            *failures.entry(error).or_default() += 1;
        }
        Self {
            length,
            busy: busy.into_iter().map(|it| (it / workers).min(1.0)).collect(),
            utilisation: (total / length / workers).min(1.0),
            lanes,
            functions,
            failures,
            items: trace.items.len() as u64,
            dropped: trace.dropped,
            unborn: trace.unborn,
        }
    }
}

fn functions(items: &[Item]) -> Vec<Function> {
    let mut by_name: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
    for item in items {
        let row = by_name.entry(&item.function).or_default();
        row.0 += 1;
        row.1 += item.end - item.start;
    }
    let mut rows: Vec<_> = by_name.into_iter().collect();
    rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let color = |(at, (name, (items, total))): (usize, (&str, (u64, f64)))| Function {
        name: name.to_owned(),
        color: color::of(at),
        items,
        total,
    };
    rows.into_iter().enumerate().map(color).collect()
}

/// Gives each column of pixels the share of it that lies between these two.
fn spread(from: f64, to: f64, mut give: impl FnMut(usize, f64)) {
    let mut column = (from.max(0.0) as usize).min(WIDTH - 1);
    while column < WIDTH && (column as f64) < to {
        let share = to.min(column as f64 + 1.0) - from.max(column as f64);
        give(column, share.max(0.0));
        column += 1;
    }
}

/// What narrow items add up to in each column of a lane.
struct Cells(Vec<Cell>);

#[derive(Clone, Default)]
struct Cell {
    share: f64,
    items: u64,
    failed: u64,
    by_function: BTreeMap<usize, f64>,
}

impl Cells {
    fn new() -> Self {
        Self(vec![Cell::default(); WIDTH])
    }

    fn add(&mut self, from: f64, to: f64, function: usize, failed: bool) {
        let first = (from.max(0.0) as usize).min(WIDTH - 1);
        self.0[first].items += 1;
        self.0[first].failed += u64::from(failed);
        *self.0[first].by_function.entry(function).or_default() += 1e-9;
        spread(from, to, |column, share| {
            self.0[column].share += share;
            *self.0[column].by_function.entry(function).or_default() += share;
        });
    }

    /// Neighbours that look the same are one.
    fn columns(self) -> Vec<Column> {
        let mut columns: Vec<Column> = Vec::new();
        for (at, cell) in self.0.into_iter().enumerate() {
            let most = cell.by_function.iter().max_by(|a, b| a.1.total_cmp(b.1));
            let Some((&function, _)) = most else {
                continue;
            };
            // Ten shades are as many as one can tell apart; the faintest must be seen.
            let share = (cell.share * 10.0).ceil().clamp(1.0, 10.0) / 10.0;
            match columns.last_mut() {
                Some(last)
                    if last.at + last.width == at
                        && last.function == function
                        && (last.share - share).abs() < 0.05
                        && (last.failed > 0) == (cell.failed > 0) =>
                {
                    last.width += 1;
                    last.items += cell.items;
                    last.failed += cell.failed;
                }
                _ => columns.push(Column {
                    at,
                    width: 1,
                    share,
                    items: cell.items,
                    failed: cell.failed,
                    function,
                }),
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::read::Worker;

    fn item(worker: u32, start: f64, end: f64) -> Item {
        Item {
            worker,
            function: "f".to_owned(),
            index: 0,
            start,
            end,
            error: None,
            queued: None,
        }
    }

    fn trace(items: Vec<Item>) -> Trace {
        let worker = |position| Worker {
            position,
            ..Worker::default()
        };
        Trace {
            end: items.iter().map(|item| item.end).fold(0.0, f64::max),
            items,
            workers: BTreeMap::from([(1, worker(0)), (2, worker(1))]),
            ..Trace::default()
        }
    }

    #[test]
    fn wide_items_are_bars_and_narrow_ones_are_columns() {
        let mut items = vec![item(1, 0.0, 500_000.0)];
        for x in 0..100_000 {
            let start = 500_000.0 + f64::from(x) * 5.0;
            items.push(item(1, start, start + 5.0));
        }
        let picture = Picture::of(&trace(items));
        let lane = &picture.lanes[0];
        assert_eq!(lane.bars.len(), 1);
        assert_eq!(lane.columns.len(), 1, "they all look the same");
        let column = &lane.columns[0];
        assert_eq!((column.at, column.width, column.items), (500, 500, 100_000));
        assert!((column.share - 1.0).abs() < 1e-9);
        assert!(
            (picture.utilisation - 0.5).abs() < 1e-6,
            "one of two is idle"
        );
        assert!(picture.busy.iter().all(|busy| (busy - 0.5).abs() < 1e-6));
    }

    #[test]
    fn an_item_without_length_is_seen() {
        let picture = Picture::of(&trace(vec![item(1, 0.0, 0.0), item(2, 1e6, 1e6)]));
        assert_eq!(picture.lanes[0].columns.len(), 1);
        assert_eq!(picture.lanes[1].columns[0].at, WIDTH - 1);
    }
}
