//! Calls show on a bar how far they are. Nothing is drawn where there is no terminal, as here,
//! unless a test makes one.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use procpool::progress::indicatif::{ProgressBar, ProgressDrawTarget, TermLike};
use procpool::{Pool, progress};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Gate};
use crate::procfs::wait_until;
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        every_kind_of_call_counts_its_items,
        failures_are_counted_in_the_message,
        errors_that_are_returned_count_if_asked,
        a_length_is_learnt_at_the_end,
        calls_share_a_bar_that_has_a_length,
        an_iterator_that_is_dropped_abandons_the_bar,
        an_empty_call_finishes_its_bar,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_terminal_that_is_stopped_does_not_stop_the_pool,
        what_workers_print_comes_above_the_bar,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: prints_above_a_bar]
}

fn third(x: u64) -> u64 {
    assert!(x.is_multiple_of(3), "as I must");
    x / 3
}

fn identity(x: u64) -> u64 {
    x
}

/// Position, length and whether it is finished.
fn state(bar: &ProgressBar) -> (u64, Option<u64>, bool) {
    (bar.position(), bar.length(), bar.is_finished())
}

fn every_kind_of_call_counts_its_items<S: Subject>() {
    let pool = S::pool(2);
    let through = (100, Some(100), true);
    let bar = progress::bar;

    let [map, try_map, imap, unordered, map_async] = [bar(), bar(), bar(), bar(), bar()];
    let call = |bar: &ProgressBar| pool.call(identity).progress(bar.clone());
    call(&map).map(0..100).unwrap();
    call(&try_map).try_map(0..100);
    assert_eq!(call(&imap).imap(0..100).count(), 100);
    assert_eq!(call(&unordered).imap_unordered(0..100).count(), 100);
    call(&map_async).map_async(0..100).get().unwrap();
    for bar in [map, try_map, imap, unordered, map_async] {
        assert_eq!(state(&bar), through);
    }

    let [map, map_async] = [bar(), bar()];
    call(&map).measured().map(0..100);
    call(&map_async).measured().map_async(0..100).get();
    for bar in [map, map_async] {
        assert_eq!(state(&bar), through);
    }

    // One task says nothing about the length.
    let [apply, measured, apply_async] = [bar(), bar(), bar()];
    call(&apply).apply(1).unwrap();
    call(&measured).measured().apply(1).outcome.unwrap();
    for bar in [apply, measured] {
        assert_eq!(state(&bar), (1, None, false));
    }
    call(&apply_async).apply_async(1).get().unwrap();
    call(&apply_async).measured().apply_async(1).get();
    // In the order of callbacks.
    wait_until(|| apply_async.position() == 2);
}

/// Unless there is another message.
fn failures_are_counted_in_the_message<S: Subject>() {
    let pool = S::pool(2);
    let bar = progress::bar();
    let call = || pool.call(third).progress(bar.clone());
    call().try_map(0..9);
    assert_eq!(bar.message(), "6 failed");
    call().map_async(0..3).get().unwrap_err();
    assert_eq!(bar.message(), "8 failed");
    call().apply(1).unwrap_err();
    assert_eq!(bar.message(), "9 failed");
    drop(call().apply_async(1));
    wait_until(|| bar.message() == "10 failed");
    bar.set_message("thirds");
    assert_eq!(call().imap(0..3).count(), 3);
    assert_eq!(bar.message(), "thirds");
}

/// In every kind of call; and the results are the same.
fn errors_that_are_returned_count_if_asked<S: Subject>() {
    fn odd(x: u64) -> Result<u64, String> {
        assert_ne!(x, 99, "as I must");
        if x % 2 == 1 {
            Ok(x)
        } else {
            Err(format!("{x} is even"))
        }
    }
    let pool = S::pool(2);
    let bar = progress::bar;
    let silent = bar();
    pool.call(odd).progress(silent.clone()).map(0..10).unwrap();
    assert_eq!(silent.message(), "", "they are values");

    let call = |bar: &ProgressBar| pool.call(odd).count_errors().progress(bar.clone());
    let [map, try_map, imap, map_async] = [bar(), bar(), bar(), bar()];
    let results = call(&map).map(0..10).unwrap();
    let right = |results: &[Result<u64, String>]| (0..).zip(results).all(|(x, it)| *it == odd(x));
    assert!(results.len() == 10 && right(&results), "{results:?}");
    call(&try_map).try_map(90..100);
    assert_eq!(call(&imap).imap(0..10).count(), 10);
    call(&map_async).map_async(0..10).get().unwrap();
    for bar in [map, imap, map_async] {
        assert_eq!(bar.message(), "5 failed");
    }
    assert_eq!(try_map.message(), "6 failed", "one of them has panicked");

    let [apply, apply_async, measured] = [bar(), bar(), bar()];
    for x in 0..2 {
        call(&apply).apply(x).unwrap().ok();
        call(&apply_async).apply_async(x).get().unwrap().ok();
        call(&measured).measured().apply(x).outcome.unwrap().ok();
    }
    wait_until(|| {
        [&apply, &apply_async, &measured]
            .iter()
            .all(|bar| bar.message() == "1 failed")
    });
}

/// The input does not know how long it is.
fn a_length_is_learnt_at_the_end<S: Subject>() {
    let pool = S::pool(2);
    let bar = progress::bar();
    let call = pool.call(identity).progress(bar.clone());
    let mut results = call.buffer(10).imap((0..200).filter(|x| x % 2 == 0));
    results.next();
    assert_eq!(bar.length(), None);
    assert_eq!(results.count(), 99);
    assert_eq!(state(&bar), (100, Some(100), true));
}

fn calls_share_a_bar_that_has_a_length<S: Subject>() {
    let pool = S::pool(2);
    let bar = ProgressBar::new(300);
    let call = || pool.call(identity).progress(bar.clone());
    call().map(0..100).unwrap();
    assert_eq!(state(&bar), (100, Some(300), false));
    drop(call().imap(0..50));
    assert_eq!(state(&bar), (100, Some(300), false));
    call().map_async(0..100).get().unwrap();
    assert_eq!(call().imap(0..100).count(), 100);
    assert_eq!(state(&bar), (300, Some(300), true));
}

/// It stays where it was.
fn an_iterator_that_is_dropped_abandons_the_bar<S: Subject>() {
    let pool = S::pool(2);
    let bar = progress::bar();
    let call = pool.call(identity).progress(bar.clone()).chunksize(1);
    let mut results = call.imap(0..1000);
    assert!(!bar.is_finished());
    results.next();
    drop(results);
    assert!(bar.is_finished());
    assert!(bar.position() < 1000);
}

fn an_empty_call_finishes_its_bar<S: Subject>() {
    let pool = S::pool(2);
    let [now, later] = [progress::bar(), progress::bar()];
    let call = |bar: &ProgressBar| pool.call(identity).progress(bar.clone());
    assert!(call(&now).map([]).unwrap().is_empty());
    drop(call(&later).map_async([]));
    for bar in [now, later] {
        assert_eq!(state(&bar), (0, Some(0), true));
    }
}

/// A terminal that takes nothing as long as it is stopped.
#[derive(Debug, Clone, Default)]
struct Terminal(Arc<(Mutex<Screen>, Condvar)>);

#[derive(Debug, Default)]
struct Screen {
    is_stopped: bool,
    /// Writers that wait.
    waiting: usize,
    text: String,
}

impl Terminal {
    fn change(&self, change: impl FnOnce(&mut Screen)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    fn write(&self, text: &str) {
        let mut screen = self.0.0.lock().unwrap();
        screen.waiting += 1;
        while screen.is_stopped {
            screen = self.0.1.wait(screen).unwrap();
        }
        screen.waiting -= 1;
        screen.text += text;
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        80
    }

    fn move_cursor_up(&self, _lines: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _lines: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _columns: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _columns: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.write(line);
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.write(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The drawing thread waits for it. Outcomes arrive all the same, failures too, callbacks excepted.
fn a_terminal_that_is_stopped_does_not_stop_the_pool<S: Processes>() {
    let pool = S::pool(2);
    let terminal = Terminal::default();
    let bar = progress::bar();
    bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
    let gate = Gate::new();
    let fails = |ticket: String| -> u64 {
        file_barrier::pass(&ticket);
        panic!("as I must")
    };
    let call = pool.call(fails).progress(bar.clone()).chunksize(1);
    let shown = call.map_async([gate.ticket(), gate.ticket()]);
    terminal.change(|screen| screen.is_stopped = true);
    gate.open();
    wait_until(|| terminal.0.0.lock().unwrap().waiting > 0);
    shown.wait();
    drop(shown);
    assert_eq!(pool.map_async(third, vec![3; 50]).get().unwrap(), [1; 50]);
    assert_eq!(pool.map(third, vec![3; 100]).unwrap(), [1; 100]);
    terminal.change(|screen| screen.is_stopped = false);
    pool.close();
    pool.join().unwrap();
    assert!(bar.is_finished());
    let screen = terminal.0.0.lock().unwrap();
    assert!(screen.text.contains("100%") && screen.text.contains("2 failed"));
}

/// Where there is no terminal, the bar is not drawn, and the lines come all the same.
fn prints_above_a_bar<S: Processes>() {
    let file = std::env::temp_dir().join("stderr");
    rustix::stdio::dup2_stderr(std::fs::File::create(&file).unwrap()).unwrap();
    let bar = progress::bar();
    let builder = S::builder().processes(1);
    let pool = builder.stderr(progress::lines_above(&bar)).build();
    let print = |x: u64| eprintln!("item {x}");
    pool.call(print).progress(bar.clone()).map(0..3).unwrap();
    pool.close();
    pool.join().unwrap();
    assert!(bar.is_finished());
    print!("{}", std::fs::read_to_string(&file).unwrap());
    std::fs::remove_file(file).unwrap();
}

fn what_workers_print_comes_above_the_bar<S: Processes>() {
    let lines = again::<S>("prints_above_a_bar").lines();
    let items = (0..3).map(|x| format!("[PoolWorker-1] item {x}"));
    assert_eq!(lines, Vec::from_iter(items));
}
