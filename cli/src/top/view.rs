//! What is shown, and how it looks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use procpool_core::{CallStatus, WorkerInfo, WorkerStats};
use procpool_inspect::Snapshot;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Gauge, Paragraph, Row, Table, TableState, Wrap};

/// Calls that are shown at most: the oldest.
const MOST_CALLS: usize = 8;

/// What was seen at a time.
struct Seen {
    at: Instant,
    snapshot: Snapshot,
}

pub(super) struct View {
    pid: u32,
    pools: usize,
    pool: usize,
    now: Option<Seen>,
    before: Option<Seen>,
    chosen: usize,
    stack: Option<String>,
    scroll: u16,
    complaint: Option<String>,
}

impl View {
    /// Of so many pools of a process.
    pub(super) fn new(pid: u32, pools: usize) -> Self {
        Self {
            pid,
            pools,
            pool: 0,
            now: None,
            before: None,
            chosen: 0,
            stack: None,
            scroll: 0,
            complaint: None,
        }
    }

    /// Which pool is shown.
    pub(super) fn pool(&self) -> usize {
        self.pool
    }

    pub(super) fn next_pool(&mut self) {
        self.pool = (self.pool + 1) % self.pools.max(1);
        (self.now, self.before, self.chosen) = (None, None, 0);
        self.close_stack();
    }

    pub(super) fn take(&mut self, snapshot: Snapshot, at: Instant) {
        self.chosen = self
            .chosen
            .min(snapshot.stats.workers.len().saturating_sub(1));
        self.before = self.now.replace(Seen { at, snapshot });
        self.complaint = None;
    }

    pub(super) fn complain(&mut self, complaint: String) {
        self.complaint = Some(complaint);
    }

    pub(super) fn up(&mut self) {
        match self.stack {
            Some(_) => self.scroll = self.scroll.saturating_sub(1),
            None => self.chosen = self.chosen.saturating_sub(1),
        }
    }

    pub(super) fn down(&mut self) {
        let workers = self
            .now
            .as_ref()
            .map_or(0, |it| it.snapshot.stats.workers.len());
        match &self.stack {
            Some(stack) => {
                let lines = stack.lines().count().saturating_sub(1);
                self.scroll = self.scroll.saturating_add(1).min(lines.min(9999) as u16);
            }
            None => self.chosen = (self.chosen + 1).min(workers.saturating_sub(1)),
        }
    }

    /// The worker that is chosen.
    pub(super) fn chosen(&self) -> Option<WorkerInfo> {
        let workers = &self.now.as_ref()?.snapshot.stats.workers;
        Some(workers.get(self.chosen)?.info.clone())
    }

    pub(super) fn show_stack(&mut self, stack: String) {
        self.stack = Some(stack);
        self.scroll = 0;
    }

    /// Whether there was one.
    pub(super) fn close_stack(&mut self) -> bool {
        self.stack.take().is_some()
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let calls = self.now.as_ref().map_or(0, |it| it.snapshot.calls.len());
        let for_calls = if calls == 0 {
            0
        } else {
            calls.min(MOST_CALLS) as u16 + 2
        };
        let [head, middle, below, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(for_calls),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        if let Some(now) = &self.now {
            self.head(frame, head, now);
            self.calls(frame, middle, now);
            self.workers(frame, below, now);
        }
        let keys = "q end  ↑↓ choose  Enter stack  Tab next pool";
        let foot_text = match &self.complaint {
            Some(complaint) => Line::from(complaint.as_str()).red(),
            None => Line::from(keys).dim(),
        };
        frame.render_widget(foot_text, foot);
        if let Some(stack) = &self.stack {
            self.stack(frame, below, stack);
        }
    }

    fn head(&self, frame: &mut Frame<'_>, area: Rect, now: &Seen) {
        let stats = &now.snapshot.stats;
        let done = |it: &Snapshot| it.stats.succeeded + it.stats.failed;
        let rate = self.before.as_ref().map(|before| {
            per_second(
                done(&before.snapshot),
                done(&now.snapshot),
                now.at - before.at,
            )
        });
        let several = match self.pools {
            0 | 1 => String::new(),
            pools => format!(", pool {} of {pools}", self.pool + 1),
        };
        let memory: u64 = stats.workers.iter().filter_map(|it| it.rss).sum();
        let mut figures = vec![
            Span::from(format!("{} done", count(done(&now.snapshot)))),
            Span::from(rate.map_or_else(String::new, |it| format!(", {}/s", count(it as u64)))),
            Span::from(format!(
                ", {} wait, {} handed out",
                count(stats.queued),
                count(stats.running)
            )),
        ];
        for (number, what) in [
            (stats.failed, "failed"),
            (stats.workers_lost, "workers lost"),
        ] {
            if number > 0 {
                figures.push(Span::from(format!(", {} {what}", count(number))).red());
            }
        }
        let title = format!("{} (process {}{several})", now.snapshot.name, self.pid);
        let workers = format!(
            "{} of {} workers, {}",
            stats.workers.len(),
            now.snapshot.processes,
            bytes(memory)
        );
        let lines = vec![
            Line::from(title).bold(),
            Line::from(figures),
            Line::from(workers),
        ];
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn calls(&self, frame: &mut Frame<'_>, area: Rect, now: &Seen) {
        let calls = &now.snapshot.calls;
        if area.height < 3 {
            return;
        }
        let more = calls.len().saturating_sub(MOST_CALLS);
        let title = match more {
            0 => " calls ".to_owned(),
            more => format!(" calls, and {more} more "),
        };
        let block = Block::bordered().title(title);
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let before = self.before.as_ref();
        let ended: HashMap<u64, u64> = (before.iter())
            .flat_map(|it| {
                it.snapshot
                    .calls
                    .iter()
                    .map(|call| (call.number, call.ended))
            })
            .collect();
        let passed = before.map(|before| now.at - before.at);
        for (line, call) in calls.iter().take(usize::from(inside.height)).enumerate() {
            let area = Rect {
                y: inside.y + line as u16,
                height: 1,
                ..inside
            };
            let [name, bar, rest] = Layout::horizontal([
                Constraint::Percentage(25),
                Constraint::Percentage(30),
                Constraint::Min(10),
            ])
            .spacing(1)
            .areas(area);
            let rate = passed.zip(ended.get(&call.number));
            let rate = rate.map(|(passed, was)| per_second(*was, call.ended, passed));
            frame.render_widget(Line::from(short(&call.name)), name);
            if let Some(total) = call.total {
                let share = call.ended as f64 / total.max(1) as f64;
                let gauge = Gauge::default().ratio(share.clamp(0.0, 1.0));
                frame.render_widget(gauge.gauge_style(Style::new().blue()), bar);
            }
            frame.render_widget(in_words(call, rate), rest);
        }
    }

    fn workers(&self, frame: &mut Frame<'_>, area: Rect, now: &Seen) {
        let snapshot = &now.snapshot;
        let before: HashMap<&WorkerInfo, &WorkerStats> = (self.before.iter())
            .flat_map(|it| {
                it.snapshot
                    .stats
                    .workers
                    .iter()
                    .map(|worker| (&worker.info, worker))
            })
            .collect();
        let rows = snapshot.stats.workers.iter().map(|worker| {
            let does = snapshot.activity.iter();
            let does = does
                .clone()
                .find(|it| it.info.as_ref() == Some(&worker.info));
            let at = match does.and_then(|it| it.task.as_ref()) {
                Some(task) => format!("{}, item {}", short(&task.function), task.index),
                None => does.map_or_else(String::new, |it| it.state.to_string()),
            };
            let was = before.get(&worker.info);
            let share = |of: fn(&WorkerStats) -> Duration| {
                was.map_or_else(String::new, |was| {
                    let up = worker.up.saturating_sub(was.up).as_secs_f64();
                    let part = of(worker).saturating_sub(of(was)).as_secs_f64();
                    format!("{:.0}%", 100.0 * part / up.max(1e-9))
                })
            };
            let machine = worker.info.machine().map(|it| format!(" on {it}"));
            Row::new([
                format!("{}{}", worker.info.name(), machine.unwrap_or_default()),
                worker.pid().to_string(),
                share(|it| it.busy),
                share(|it| it.cpu.unwrap_or_default()),
                worker.rss.map_or_else(String::new, bytes),
                count(worker.items),
                count(worker.queued),
                at,
            ])
        });
        let head = [
            "worker", "pid", "busy", "cpu", "memory", "items", "queued", "at",
        ];
        let widths = [
            Constraint::Length(16),
            Constraint::Length(8),
            Constraint::Length(5),
            Constraint::Length(5),
            Constraint::Length(10),
            Constraint::Length(8),
            Constraint::Length(6),
            Constraint::Min(10),
        ];
        let table = Table::new(rows, widths)
            .header(Row::new(head.map(Cell::from)).style(Modifier::DIM))
            .row_highlight_style(Modifier::REVERSED)
            .block(Block::bordered().title(" workers "));
        let mut state = TableState::new().with_selected(self.chosen);
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn stack(&self, frame: &mut Frame<'_>, area: Rect, stack: &str) {
        frame.render_widget(Clear, area);
        let block = Block::bordered().title(" its stack: Esc closes ");
        // What a terminal would take for an order is not one.
        let shown: String = stack
            .chars()
            .filter(|it| *it == '\n' || !it.is_control())
            .collect();
        let paragraph = Paragraph::new(shown)
            .block(block)
            .wrap(Wrap { trim: false });
        frame.render_widget(paragraph.scroll((self.scroll, 0)), area);
    }
}

/// How far a call is.
fn in_words(call: &CallStatus, rate: Option<f64>) -> Line<'static> {
    let of = call
        .total
        .map_or_else(String::new, |total| format!("/{}", count(total)));
    let mut text = vec![Span::from(format!("{}{of}", count(call.ended)))];
    if let Some(rate) = rate {
        text.push(Span::from(format!(" {}/s", count(rate as u64))));
        if let Some(total) = call.total.filter(|_| rate > 0.0) {
            let left = total.saturating_sub(call.ended) as f64 / rate;
            text.push(Span::from(format!(" {left:.0} s left")));
        }
    }
    if call.failed > 0 {
        text.push(Span::from(format!(" {} failed", count(call.failed))).red());
    }
    Line::from(text)
}

fn per_second(before: u64, now: u64, passed: Duration) -> f64 {
    now.saturating_sub(before) as f64 / passed.as_secs_f64().max(1e-9)
}

/// The last part of a path of modules, or the function that a closure is in.
fn short(name: &str) -> String {
    let plain = name.split("::<").next().unwrap_or(name);
    let mut parts = plain.rsplit("::").filter(|it| *it != "{{closure}}");
    let last = parts.next().unwrap_or(name);
    last.chars().filter(|it| !it.is_control()).collect()
}

fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.0}k", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", number as f64 / 1e6),
        _ => format!("{:.1}G", number as f64 / 1e9),
    }
}

fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let places = usize::from(unit > 0 && value < 100.0);
    format!("{value:.places$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short() {
        assert_eq!(short("a::b::thumbnail"), "thumbnail");
        assert_eq!(short("a::work::{{closure}}"), "work");
        assert_eq!(short("a::f::<alloc::vec::Vec<u8>>"), "f");
        assert_eq!(short("nice\u{1b}[31m name"), "nice[31m name");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0, 9999, 12_345, 1_234_567].map(count),
            ["0", "9999", "12k", "1.2M"]
        );
        assert_eq!(
            [0, 1023, 1536, 200 << 20].map(bytes),
            ["0 B", "1023 B", "1.5 KiB", "200 MiB"]
        );
    }
}
