//! Runs the checks of steps, in the virtual machine or on this host, and prints
//! their report.

use std::collections::BTreeMap;
use std::io::{Write, sink, stdout};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::guest::{self, Machine};
use check::build::Tests;
use check::outcome::Record;
use check::own_host::OwnHost;
use check::plan::{Batch, Plan, Until};
use check::registry::Step;
use check::report::{Report, colour, kernel_release, progress, seconds};
use check::runner;

/// Where checks are run, as options.
#[derive(clap::Args, Clone)]
pub struct Where {
    /// Check on this host, as root, instead of in the virtual machine
    #[arg(long)]
    pub here: bool,

    /// Which virtual machine.
    #[command(flatten)]
    pub machine: Machine,
}

impl Where {
    /// Fails if the checks are to run on this host and the caller is not root.
    pub fn require_root(&self) -> Result<()> {
        if self.here && !geteuid().is_root() {
            bail!(
                "--here runs the checks on this host, which needs root: use sudo, or leave \
                 --here out"
            );
        }
        Ok(())
    }
}

/// A seed for a run without a given one, derived from the process ID.
pub fn any_seed() -> u64 {
    u64::from(std::process::id()) * 7919 % 1_000_000
}

/// The checks to run, and where to run them.
pub struct Checking<'a> {
    /// The steps, each with the selected checks.
    pub steps: &'a [Step],
    /// The program under test; `None` for the one in `bin/`.
    pub program: Option<PathBuf>,
    /// The test programs.
    pub tests: &'a Tests,
    /// Where the checks run.
    pub place: &'a Where,
    /// Seed of the names and numbers that the checks draw.
    pub seed: u64,
    /// Who reads the results.
    pub reader: Reader,
}

/// Who reads the results of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A developer of the course: every check runs, and a report is printed.
    Developer,
    /// A learner: a step ends with the first check in which the program hangs.
    Learner,
    /// The caller, for a learner: nothing is printed.
    Caller,
}

impl Checking<'_> {
    /// The checks of one step against the program under test.
    pub(crate) fn batch(&self, step: Step) -> Result<Batch> {
        Ok(Batch {
            program: self.program.clone(),
            ..Batch::new(step, self.tests)?
        })
    }
}

/// Runs the checks and prints the report as they end. Returns the records, and
/// the timings in words. A check that fails is a record, not an error.
pub fn run(checking: &Checking<'_>) -> Result<(Vec<Record>, String)> {
    let plan = Plan {
        batches: checking
            .steps
            .iter()
            .map(|step| checking.batch(step.clone()))
            .collect::<Result<_>>()?,
        seed: checking.seed,
        untrusted: false,
        until: match checking.reader {
            Reader::Developer => Until::End,
            Reader::Learner | Reader::Caller => Until::Hang,
        },
    };
    let mut printer = Printer::new(
        checking.steps,
        match checking.reader {
            Reader::Developer | Reader::Learner => || -> Box<dyn Write> { Box::new(stdout()) },
            Reader::Caller => || -> Box<dyn Write> { Box::new(sink()) },
        },
    );
    progress("running the checks");
    let timings = if checking.place.here {
        let machine = format!("{} · this host", kernel_release());
        let _own = OwnHost::enter()?;
        let started = Instant::now();
        runner::run(&plan, &mut |record| printer.record(record, &machine))?;
        format!("checks {}", seconds(started.elapsed()))
    } else {
        let ended =
            guest::run_side_by_side(&plan, &checking.place.machine, &mut |record, machine| {
                printer.record(record, machine)
            });
        match ended {
            Ok(timings) => timings,
            // Show the records that have arrived.
            Err(error) => return printer.end().and(Err(error)),
        }
    };
    Ok((printer.end()?, timings))
}

/// The most columns that the line of a check in progress takes.
const TITLE: usize = 70;

/// Prints the records of several steps, each under its own heading, in the
/// order of the checks. A record that arrives early waits for its turn.
struct Printer<'a, W: Write> {
    steps: &'a [Step],
    out: fn() -> W,
    /// Records whose turn has not come, each with its machine.
    waiting: BTreeMap<&'a str, Vec<(Record, String)>>,
    /// The step whose turn it is (index), and how many of its records are
    /// printed.
    turn: (usize, usize),
    report: Option<Report<'a, W>>,
    records: Vec<Record>,
    /// A line says which check is being waited for.
    waits: bool,
}

impl<'a, W: Write> Printer<'a, W> {
    fn new(steps: &'a [Step], out: fn() -> W) -> Self {
        Printer {
            steps,
            out,
            waiting: BTreeMap::new(),
            turn: (0, 0),
            report: None,
            records: Vec::new(),
            waits: false,
        }
    }

    /// Says, on a terminal, which check is being waited for: some take half a
    /// minute. The line goes when its result comes.
    fn wait(&mut self) -> Result<()> {
        let step = self.steps.get(self.turn.0);
        let next = step.and_then(|step| step.checks.get(self.turn.1));
        let Some(next) = next.filter(|_| colour()) else {
            return Ok(());
        };
        let title: String = next.title.chars().take(TITLE).collect();
        self.waits = true;
        let mut out = stdout();
        write!(out, "  … {title}")
            .and_then(|()| out.flush())
            .context("print")
    }

    /// Takes the line of [`wait`](Self::wait) away.
    fn arrived(&mut self) -> Result<()> {
        match std::mem::take(&mut self.waits) {
            true => write!(stdout(), "\r\x1b[K").context("print"),
            false => Ok(()),
        }
    }

    fn record(&mut self, record: Record, machine: &str) -> Result<()> {
        self.arrived()?;
        let step = self
            .steps
            .iter()
            .find(|step| step.step == record.step)
            .with_context(|| {
                format!("a record of step {}, which was not asked for", record.step)
            })?;
        let waiting = self.waiting.entry(&step.step).or_default();
        waiting.push((record, machine.to_owned()));
        while let Some(step) = self.steps.get(self.turn.0) {
            while let Some(check) = step.checks.get(self.turn.1) {
                let waiting = self.waiting.entry(&step.step).or_default();
                let Some(place) = waiting.iter().position(|(r, _)| r.check == check.name) else {
                    break;
                };
                let (record, machine) = waiting.remove(place);
                self.print(step, record, &machine)?;
                self.turn.1 += 1;
            }
            if self.turn.1 < step.checks.len() {
                break;
            }
            self.close()?;
            self.turn = (self.turn.0 + 1, 0);
        }
        self.wait()
    }

    fn print(&mut self, step: &'a Step, record: Record, machine: &str) -> Result<()> {
        let report = match &mut self.report {
            Some(report) => report,
            None => self
                .report
                .insert(Report::begin((self.out)(), colour(), step, machine).context("print")?),
        };
        report.record(record).context("print")
    }

    fn close(&mut self) -> Result<()> {
        if let Some(report) = self.report.take() {
            self.records.extend(report.end().context("print")?);
        }
        Ok(())
    }

    /// Prints the records that still wait, because one before them never
    /// arrived, and returns all.
    fn end(mut self) -> Result<Vec<Record>> {
        self.arrived()?;
        for step in &self.steps[self.turn.0..] {
            let mut waiting = self.waiting.remove(step.step.as_str()).unwrap_or_default();
            waiting.sort_by_key(|(r, _)| step.checks.iter().position(|c| c.name == r.check));
            for (record, machine) in waiting {
                self.print(step, record, &machine)?;
            }
            self.close()?;
        }
        Ok(self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use check::outcome::Outcome;

    fn step(number: &str, checks: &[&str]) -> Step {
        let mut text = format!("step = '{number}'\ntitle = 't'\n");
        for name in checks {
            text += &format!(
                "[[check]]\nname = '{name}'\ntitle = 't'\npoints = 1\nwhy = 'w'\nhint = 'h'\n"
            );
        }
        toml::from_str(&text).unwrap()
    }

    fn passed(step: &str, check: &str) -> Record {
        Record {
            outcome: Outcome::Pass,
            ..Record::new(step, check, 1)
        }
    }

    #[test]
    fn no_record_is_lost_if_one_before_it_never_arrives() {
        let steps = [
            step("03", &["a", "b", "c", "d"]),
            step("04", &["e", "f"]),
            step("05", &["g"]),
        ];
        // Two machines; the one that was to run `b` and `f` breaks off.
        let mut printer = Printer::new(&steps, std::io::sink);
        for (step, check) in [
            ("05", "g"),
            ("03", "d"),
            ("03", "a"),
            ("04", "e"),
            ("03", "c"),
        ] {
            printer.record(passed(step, check), "a machine").unwrap();
        }
        let records = printer.end().unwrap();
        let names: Vec<&str> = records.iter().map(|record| record.check.as_str()).collect();
        assert_eq!(names, ["a", "c", "d", "e", "g"]);
    }
}
