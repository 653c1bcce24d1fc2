//! Runs checks one by one, each in a process of its own with a time limit.
//!
//! The same code runs on the host (`--here`) and in the virtual machine, to and
//! from which [`Plan`] and [`Record`]s travel as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::check::{Orders, PROGRAM, RUNNER};
use crate::fence::Fence;
use crate::outcome::{Outcome, Record};
use crate::plan::{Batch, Plan};
use crate::registry::{Entry, Step};
use crate::requirement;
use crate::sys;

/// Time limit of one check. Generous: an emulated machine is twenty times
/// slower.
const TIME_LIMIT: Duration = Duration::from_secs(90);

/// Environment variable: the number of sequences of random operations that a
/// check tries, perhaps thousands. If it is set, a check may take an hour.
pub const SEQUENCES: &str = "DRYDOCK_SEQUENCES";
const LONG_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Environment variable: time limit of one check in seconds, instead of 90.
pub const CHECK_LIMIT: &str = "DRYDOCK_CHECK_LIMIT";

fn time_limit() -> Duration {
    let given = std::env::var(CHECK_LIMIT).ok().and_then(|s| s.parse().ok());
    match (given, std::env::var_os(SEQUENCES)) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Some(_)) => LONG_LIMIT,
        (None, None) => TIME_LIMIT,
    }
}

/// Longest message of a record, and longest line about the host, in bytes: a
/// program under test may print without end, and checks quote it.
const MESSAGE: usize = 16 << 10;

/// Runs every check of the plan and passes each record to `on_record` at once.
/// A check that fails is a record, not an error.
pub fn run(plan: &Plan, on_record: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
    run_behind(None, plan, on_record)
}

/// Runs a plan with a fence between the programs under test and the checks that
/// come after them.
pub fn run_behind(
    fence: Option<&Fence>,
    plan: &Plan,
    on_record: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<()> {
    // Tested once, before any program could change the answer.
    let required = plan.batches.iter().flat_map(|batch| &batch.step.checks);
    let missing: BTreeMap<&str, Option<String>> = required
        .flat_map(|entry| &entry.requires)
        .map(|requirement| (requirement.as_str(), requirement::missing(requirement)))
        .collect();
    for batch in &plan.batches {
        let mut outcomes: BTreeMap<&str, (Outcome, String)> = BTreeMap::new();
        for entry in &batch.step.checks {
            let of = |need: &&String| outcomes.get(need.as_str());
            let unmet = entry
                .needs
                .iter()
                .find(|need| of(need).is_none_or(|(outcome, _)| *outcome != Outcome::Pass));
            // If the needed check is unsupported here, this one is too.
            let missing_there = unmet.and_then(|need| match of(&need) {
                Some((Outcome::Unsupported, missing)) => Some(missing.clone()),
                _ => None,
            });
            let mut required = entry.requires.iter();
            let missing = required.find_map(|r| missing.get(r.as_str()).cloned().flatten());
            let missing = missing.or(missing_there);
            let broken = fence.and_then(|fence| fence.broken().err());
            let without_running = |outcome, message: String| Record {
                step: batch.step.step.clone(),
                check: entry.name.clone(),
                variant: None,
                outcome,
                message,
                host: Vec::new(),
                said: Vec::new(),
                seed: batch.seed.unwrap_or(plan.seed),
                millis: 0,
            };
            let mut record = match (unmet, missing, broken) {
                (_, Some(missing), _) => without_running(Outcome::Unsupported, missing),
                (_, None, Some(broken)) => without_running(
                    Outcome::Fail,
                    format!("was not run: {broken:#}, which is not the program's to change"),
                ),
                (Some(need), None, None) => without_running(
                    Outcome::Blocked,
                    format!("needs “{}”", title(&batch.step, need)),
                ),
                (None, None, None) => run_one(fence, plan, batch, entry)?,
            };
            record.message = shortened(record.message);
            record.host.truncate(64);
            record.host = record.host.into_iter().map(shortened).collect();
            record.said.truncate(256);
            record.said = record.said.into_iter().map(shortened).collect();
            record.variant.clone_from(&batch.variant);
            outcomes.insert(&entry.name, (record.outcome, record.message.clone()));
            on_record(record)?;
        }
    }
    Ok(())
}

fn title<'a>(step: &'a Step, name: &'a str) -> &'a str {
    step.entry(name).map_or(name, |entry| entry.title.as_str())
}

/// The beginning of a text that may be very long.
fn shortened(mut text: String) -> String {
    if text.len() > MESSAGE {
        text.truncate(text.floor_char_boundary(MESSAGE));
        text.push('…');
    }
    text
}

fn run_one(fence: Option<&Fence>, plan: &Plan, batch: &Batch, entry: &Entry) -> Result<Record> {
    let dir = tempfile::Builder::new()
        .prefix("drydock-record-")
        .tempdir()
        .context("make a temporary directory")?;
    let output = fs::File::create(dir.path().join("output"))
        .context("make a file for the check's output")?;
    let (mut to_check, its_end) = UnixStream::pair().context("socketpair")?;
    let seed = batch.seed.unwrap_or(plan.seed);
    let mut orders = serde_json::to_vec(&Orders {
        seed,
        untrusted: plan.untrusted,
    })
    .context("write the orders as JSON")?;
    orders.push(b'\n');
    to_check.write_all(&orders).context("send the orders")?;
    let tests = fence.and_then(|fence| fence.tests(&batch.tests));
    let mut command = Command::new(tests.as_deref().unwrap_or(&batch.tests));
    command
        .args(["--exact", &entry.path(), "--nocapture", "--test-threads=1"])
        .env(RUNNER, "stdin")
        .env("INSTA_UPDATE", "no")
        .stdin(OwnedFd::from(its_end))
        .stdout(output.try_clone().context("dup")?)
        .stderr(output)
        // Its own process group, so that everything it starts can be killed
        // with it.
        .process_group(0);
    if let Some(program) = &batch.program {
        command.env(PROGRAM, program);
    }
    sys::default_signals(&mut command);
    let start = Instant::now();
    let child = command
        .spawn()
        .with_context(|| format!("start {}", batch.tests.display()))?;
    if let Some(fence) = fence {
        fence.started(&child)?;
    }
    // Close our copy of the check's end: then the check has the only one.
    drop(command);
    to_check
        .set_nonblocking(true)
        .context("fcntl(F_SETFL, O_NONBLOCK)")?;
    let mut sent = Vec::new();
    let ended = wait(child, &mut to_check, &mut sent)?;
    if let Some(fence) = fence {
        fence.sweep()?;
    }
    let mut record = Record {
        step: batch.step.step.clone(),
        check: entry.name.clone(),
        variant: None,
        outcome: Outcome::Error,
        message: String::new(),
        host: Vec::new(),
        said: Vec::new(),
        seed,
        millis: start.elapsed().as_millis() as u64,
    };
    // A check that is killed while it sends has sent no record.
    match (ended, serde_json::from_slice(&sent)) {
        (Some(_), Ok(whole)) => record = whole,
        (Some(status), Err(_)) => {
            let output = end_of(&dir.path().join("output"));
            record.message = format!(
                "the check ended without a record ({status}): {}",
                tail(&output)
            );
        }
        (None, _) => {
            record.outcome = Outcome::Fail;
            record.message = format!(
                "expected an end within {} s, found it still running",
                time_limit().as_secs()
            );
        }
    }
    Ok(record)
}

/// Reads what the check has sent so far.
fn receive(socket: &mut UnixStream, sent: &mut Vec<u8>) -> Result<()> {
    match socket.read_to_end(sent) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => {
            Err(error).context("read the check's record")
        }
        _ => Ok(()),
    }
}

/// Waits for the check to end; `None` if the time limit killed it.
fn wait(
    mut child: Child,
    socket: &mut UnixStream,
    sent: &mut Vec<u8>,
) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + time_limit();
    let mut pause = Duration::from_millis(1);
    loop {
        let ended = child.try_wait().context("wait for the check")?;
        // A long record does not fit into the socket at once.
        receive(socket, sent)?;
        if let Some(status) = ended {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL).context("kill the check")?;
            child.wait().context("wait for the check")?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The last kilobytes of a file that may be large.
fn end_of(file: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(file)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MESSAGE as u64)))?;
        let mut bytes = Vec::new();
        file.take(MESSAGE as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(6)..].join(" | ")
}
