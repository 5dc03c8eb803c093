//! The program `compare`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::baseline;
use crate::contender::Role;
use crate::curve::CURVES;
use crate::machine::{Machine, output};
use crate::measure::{Session, is_usual};
use crate::record::{Report, SCHEMA};
use crate::report::{file, html, table};
use crate::roster::{self, Early};
use crate::scale::Scale;
use crate::spin::Pace;
use crate::statistics::rounded;
use crate::target;
use crate::workload::WORKLOADS;

/// What `compare` can be asked for.
#[derive(Debug, Args)]
pub struct Options {
    /// Only the workloads and curves whose key contains one of these; all of them if none is named.
    filters: Vec<String>,
    /// Only the contenders whose name contains this; floors always run. Can be repeated.
    #[arg(long = "contender", value_name = "NAME")]
    contenders: Vec<String>,
    /// How many times each contender runs each workload: 5, or 2 if quick. Curves take 3 at most.
    #[arg(long)]
    rounds: Option<usize>,
    /// Half a minute in place of minutes, with the most usual rivals only, unless others are named;
    /// the numbers are for orientation.
    #[arg(long)]
    quick: bool,
    /// How many workers the pools have, where the workload does not say: as many as processors.
    #[arg(long)]
    workers: Option<usize>,
    /// The Python whose pools are the rivals.
    #[arg(long, default_value = "python3", value_name = "PATH")]
    python: OsString,
    /// Fail if a pool of ours got slower than in this earlier `compare.json` by more than the
    /// spread.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Where `compare.json` and `compare.html` are written: `compare` in the target folder.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Also keep the JSON as `pool-bench/results/NAME.json`.
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// List the keys of all workloads and curves, and do nothing.
    #[arg(long)]
    list: bool,
}

/// Runs the comparison. To be called while the program has one thread.
///
/// # Errors
/// When a result is wrong, a pool of ours fails or has got slower than its baseline, or files
/// cannot be read or written.
pub fn compare(options: &Options) -> Result<()> {
    if options.list {
        keys().iter().for_each(|key| println!("{key}"));
        return Ok(());
    }
    let begin = Instant::now();
    let earlier = options.baseline.as_deref().map(read).transpose()?;
    ensure!(
        keys().iter().any(|key| options.wants(key)),
        "no workload's key contains {:?}; `--list` lists them",
        options.filters
    );
    more_descriptors()?;
    let machine = Machine::describe(&output(&options.python.to_string_lossy(), &["--version"]));
    println!("{}", machine.line());
    if let Some(warning) = machine.warning() {
        println!("{warning}");
    }
    let mut session = options.session()?;
    run(options, &mut session)?;
    let report = Report {
        schema: SCHEMA,
        machine,
        rounds: session.rounds,
        workers: session.workers,
        quick: options.quick,
        seconds: rounded(begin.elapsed().as_secs_f64()),
        targets: target::judge(&session.records),
        notes: std::mem::take(&mut session.notes),
        records: std::mem::take(&mut session.records),
    };
    // The contenders end before anything can fail.
    drop(session);
    options.finish(&report, earlier.as_ref())
}

fn run(options: &Options, session: &mut Session) -> Result<()> {
    for workload in WORKLOADS.iter().filter(|row| options.wants(row.key)) {
        let begin = announce(workload.key);
        session.workload(workload)?;
        eprintln!(" {:.1} s", begin.elapsed().as_secs_f64());
        print!("{}", table::workload(&session.records, workload.key));
    }
    if options.wants(IDLE) {
        let begin = announce(IDLE);
        session.idle(Duration::from_secs(session.scale.pick(5, 2, 1)))?;
        eprintln!(" {:.1} s", begin.elapsed().as_secs_f64());
        print!("{}", table::workload(&session.records, "idle-switches"));
        print!("{}", table::workload(&session.records, "idle-memory"));
    }
    for curve in CURVES.iter().filter(|row| options.wants(row.key)) {
        let begin = announce(curve.key);
        session.curve(curve)?;
        eprintln!(" {:.1} s", begin.elapsed().as_secs_f64());
        print!("{}", table::curve(&session.records, curve));
    }
    Ok(())
}

/// Tells what comes now, and when it began.
fn announce(key: &str) -> Instant {
    eprint!("{key} ...");
    Instant::now()
}

/// The key under which idle pools are asked for.
const IDLE: &str = "idle";

fn keys() -> Vec<&'static str> {
    let workloads = WORKLOADS.iter().map(|workload| workload.key);
    let curves = CURVES.iter().map(|curve| curve.key);
    workloads.chain([IDLE]).chain(curves).collect()
}

impl Options {
    fn wants(&self, key: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| key.contains(filter))
    }

    fn wants_contender(&self, name: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|part| name.contains(part))
    }

    fn session(&self) -> Result<Session> {
        let early = Early::start()?;
        let pace = Pace::calibrate();
        let scale = if self.quick {
            Scale::Quick
        } else {
            Scale::Full
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.workers.unwrap_or(processors).max(1);
        let mut contenders = early.floors(pace, workers);
        contenders.extend(early.locals(pace, workers));
        if !self.contenders.is_empty() {
            contenders.extend(early.named(pace, workers));
        }
        contenders.retain(|who| who.role() == Role::Floor || self.wants_contender(who.name()));
        let wanted = |name: &str| {
            let named = !self.contenders.is_empty() && self.wants_contender(name);
            named || (self.contenders.is_empty() && (!self.quick || is_usual(name)))
        };
        let mut notes = Vec::new();
        for (name, python) in roster::pythons(&self.python, workers, wanted)? {
            match python {
                Ok(python) => contenders.push(Box::new(python)),
                Err(why) => {
                    println!("left out: {name}: {why}");
                    notes.push(format!("{name}: {why}"));
                }
            }
        }
        Ok(Session {
            contenders,
            scale,
            rounds: self.rounds.unwrap_or(scale.pick(5, 2, 1)).max(1),
            workers,
            records: Vec::new(),
            notes,
        })
    }

    fn finish(&self, report: &Report, earlier: Option<&Report>) -> Result<()> {
        print!("{}", table::targets(&report.targets));
        for note in &report.notes {
            println!("note: {note}");
        }
        let folder = self.folder()?;
        fs::create_dir_all(&folder)?;
        let json = file::text(report)?;
        let page = html::page(report);
        fs::write(folder.join("compare.json"), &json)?;
        fs::write(folder.join("compare.html"), page)?;
        println!(
            "\n{:.0} s; the report is in {}",
            report.seconds,
            folder.display()
        );
        if let Some(name) = &self.save {
            let path = roster::package()
                .join("results")
                .join(format!("{name}.json"));
            fs::create_dir_all(path.parent().context("it has a folder")?)?;
            fs::write(&path, &json)?;
            println!("and its numbers in {}", path.display());
        }
        let Some(earlier) = earlier else {
            return Ok(());
        };
        let changes = baseline::changes(earlier, report);
        println!("\nagainst the baseline of {}", earlier.machine.date);
        for change in &changes {
            println!("  {}", change.line());
        }
        let slower = changes
            .iter()
            .filter(|change| change.is_regression())
            .count();
        if slower > 0 {
            bail!("slower than the baseline: {slower}");
        }
        println!("  nothing is slower beyond the spread");
        Ok(())
    }

    /// Beside what cargo builds, wherever that is.
    fn folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.out {
            return Ok(folder.clone());
        }
        let program = std::env::current_exe()?;
        let target = program.parent().and_then(Path::parent);
        Ok(target
            .context("the program is in no folder")?
            .join("compare"))
    }
}

fn read(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let report: Report =
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?;
    ensure!(
        report.schema == SCHEMA,
        "{} has another form ({}) than this program's ({SCHEMA})",
        path.display(),
        report.schema
    );
    Ok(report)
}

/// Hundreds of workers, and rivals with several descriptors per task, need more than the usual
/// thousand.
fn more_descriptors() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).context("the limit of descriptors")
}
