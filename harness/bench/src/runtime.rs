//! `bench runtime`: create, start and delete, as an engine calls an OCI runtime.
//!
//! All runtimes get the same bundle: one root, without an overlay of its own,
//! since the root is the engine's work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::bundle;
use super::chart::{Bar, Chart};
use super::contenders::runtime;
use super::report::Report;
use super::session::Session;
use super::stats::{Summary, figure, ratio, spread};
use super::table::Table;
use super::tools::{last_words, named};
use check::workspace;

/// Our runtime, in `bin/`.
const OURS: &str = "drydock-runtime";

/// The runtimes, in the order of the table.
const RUNTIMES: [&str; 4] = [OURS, "runc", "crun", "youki"];

/// The parts that are timed, and all of them together.
const PARTS: [&str; 4] = ["create", "start", "delete", "together"];

fn ours() -> PathBuf {
    workspace::bin().join(OURS)
}

/// A runtime that takes part.
struct Contender {
    name: &'static str,
    /// Its program, with the options of every command.
    words: Vec<String>,
    bundle: PathBuf,
    /// The times of each part, in milliseconds.
    times: [Vec<f64>; 4],
}

/// Measures all runtimes in turns, in one order and then in the other.
pub fn run(session: &Session) -> Result<Report> {
    let mut report = Report::new(
        "runtime",
        "An OCI runtime, called as an engine calls it: create, start, the end of /bin/true, \
         delete. The same bundle for all, in turns, in one order and then in the other. The time \
         that /bin/true takes is not counted.",
    );
    // As an engine's monitor: the first process is this one's child when create
    // has ended.
    set_child_subreaper(true).context("prctl(PR_SET_CHILD_SUBREAPER)")?;
    let measured = measure(session);
    set_child_subreaper(false).context("prctl(PR_SET_CHILD_SUBREAPER, 0)")?;
    let (ready, absent) = measured?;
    for contender in &ready {
        for (part, times) in PARTS.iter().zip(&contender.times) {
            if let Some(summary) = Summary::of(times) {
                report.measured(&format!("{} {part}", contender.name), "ms", summary);
            }
        }
    }
    present(&mut report, &absent);
    if session.hidden.is_some() {
        report.notes.push(
            "Version 2 of the cgroups is unmounted for all of them, because crun refuses it \
             beside version 1."
                .to_owned(),
        );
    }
    Ok(report)
}

/// The runtimes with their times, and those that are missing or have refused,
/// with the reason.
type Measured = (Vec<Contender>, Vec<(&'static str, String)>);

fn measure(session: &Session) -> Result<Measured> {
    let (mut ready, mut absent) = (Vec::new(), Vec::new());
    for name in RUNTIMES {
        let missing = match name {
            OURS if ours().exists() => None,
            OURS => Some("missing: step 11 is not here".to_owned()),
            _ => {
                let tool = named(name)?;
                tool.find().is_none().then(|| tool.missing())
            }
        };
        if let Some(why) = missing {
            absent.push((name, why));
            continue;
        }
        let contender = Contender::new(session, name)?;
        match contender.once() {
            Ok(_) => ready.push(contender),
            Err(error) => {
                contender.forget();
                absent.push((name, format!("refused: {error:#}")));
            }
        }
    }
    for round in 0..session.runs {
        session.scratch.stop.check()?;
        let mut order: Vec<&mut Contender> = ready.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for contender in order {
            let times = contender.once().inspect_err(|_| contender.forget());
            let times = times.with_context(|| contender.name)?;
            for (all, time) in contender.times.iter_mut().zip(times) {
                all.push(time.as_secs_f64() * 1000.0);
            }
        }
    }
    Ok((ready, absent))
}

impl Contender {
    fn new(session: &Session, name: &'static str) -> Result<Self> {
        let mut words = runtime(session, name);
        if name == OURS {
            words[0] = ours().display().to_string();
        }
        let dir = session.scratch.make(&format!("runtime-{name}"))?;
        let group = format!("{}/runtime-{name}", session.scratch.group());
        let bundle = bundle::write(dir, &session.root, &group, &["/bin/true"])?;
        Ok(Contender {
            name,
            words,
            bundle,
            times: Default::default(),
        })
    }

    /// A life of a container: the time of each part.
    fn once(&self) -> Result<[Duration; 4]> {
        let bundle = self.bundle.display().to_string();
        let pid_file = self.bundle.join("pid");
        let file = pid_file.display().to_string();
        let create = self.call(&["create", "--bundle", &bundle, "--pid-file", &file, ID])?;
        let first = first(&pid_file)?;
        let start = self.call(&["start", ID])?;
        // An engine's monitor reaps it, and calls delete after that.
        waitpid(first, None).context("waitpid")?;
        let delete = self.call(&["delete", ID])?;
        Ok([create, start, delete, create + start + delete])
    }

    /// Runs a command of the runtime, and returns how long it took. Its streams
    /// are those of the container: files, because a pipe would be open until
    /// that ends.
    fn call(&self, args: &[&str]) -> Result<Duration> {
        let said = self.bundle.join("said");
        let file = fs::File::create(&said).context("create a file for complaints")?;
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(file);
        let begun = Instant::now();
        let status = command.status().with_context(|| self.name)?;
        let took = begun.elapsed();
        if !status.success() {
            let said = fs::read(&said).context("read the complaints")?;
            bail!("{}: {}", args[0], last_words(&said));
        }
        Ok(took)
    }

    /// Removes what a failed run may have left.
    fn forget(&self) {
        if let Err(error) = self.call(&["delete", "--force", ID]) {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}

/// The ID of each container. The states of the runtimes are apart.
const ID: &str = "bench-runtime";

fn first(pid_file: &Path) -> Result<Pid> {
    let text = fs::read_to_string(pid_file).context("read the PID file")?;
    let pid: i32 = text.trim().parse().context("the PID file")?;
    ensure!(pid > 1, "the PID file says {pid}");
    Ok(Pid::from_raw(pid))
}

/// Adds the table and the chart, computed from the measures.
fn present(report: &mut Report, absent: &[(&'static str, String)]) {
    let mut table = Table::new(
        "The life of a container, in milliseconds",
        &[
            "",
            "create",
            "start",
            "delete",
            "together",
            "quartiles",
            "× drydock-runtime",
            "",
        ],
    );
    let mut chart = Chart {
        title: "create, start and delete".to_owned(),
        unit: "ms".to_owned(),
        ..Chart::default()
    };
    let of = |name: &str, part: &str| {
        let wanted = format!("{name} {part}");
        let found = report.measures.iter().find(|m| m.name == wanted);
        found.map(|measure| measure.summary)
    };
    let ours = of(OURS, "together");
    for name in RUNTIMES {
        let parts: Option<Vec<Summary>> = PARTS.iter().map(|part| of(name, part)).collect();
        let Some(parts) = parts else {
            let why = absent.iter().find(|(other, _)| *other == name);
            let why = why.map_or("", |(_, why)| why);
            table.row(&[name, "–", "", "", "", "", "", why]);
            continue;
        };
        let [create, start, delete, together] = &parts[..] else {
            continue;
        };
        table.row(&[
            name,
            &figure(create.median),
            &figure(start.median),
            &figure(delete.median),
            &figure(together.median),
            &spread(together),
            &ours
                .as_ref()
                .map_or(String::new(), |ours| ratio(together.median / ours.median)),
            "",
        ]);
        chart.bars.push(Bar::of(name, together));
    }
    report.tables.push(table);
    report.charts.push(chart);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_has_a_row() {
        let mut report = Report::new("runtime", "");
        for (name, ms) in [(OURS, 2.0), ("runc", 20.0)] {
            for part in PARTS {
                let summary = Summary::of(&[ms, ms]).unwrap();
                report.measured(&format!("{name} {part}"), "ms", summary);
            }
        }
        present(&mut report, &[("crun", "missing".to_owned())]);
        let rows = &report.tables[0].rows;
        assert_eq!(rows.len(), RUNTIMES.len());
        assert_eq!(rows[1][..5], ["runc", "20.0", "20.0", "20.0", "20.0"]);
        assert_eq!(rows[1][6], "10.0×");
        assert_eq!(rows[2][7], "missing");
        assert_eq!(report.charts[0].bars.len(), 2);
    }
}
