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
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::check::{Orders, PROGRAM, RUNNER};
use crate::fence::Fence;
use crate::host;
use crate::outcome::{Outcome, Record};
use crate::plan::{Batch, Plan, Until};
use crate::registry::{Functions, Step};
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

/// Shortest time of a failed check in which the program must have hung: the
/// shortest of the limits that checks set it.
pub const HANG: Duration = Duration::from_secs(30);

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
    let mut functions: BTreeMap<&Path, Functions> = BTreeMap::new();
    for batch in &plan.batches {
        if !functions.contains_key(batch.tests.as_path()) {
            let program = fence.and_then(|fence| fence.tests(&batch.tests));
            let listed = Functions::of(program.as_ref().unwrap_or(&batch.tests))?;
            functions.insert(&batch.tests, listed);
        }
    }
    for batch in &plan.batches {
        let functions = &functions[batch.tests.as_path()];
        let mut outcomes: BTreeMap<&str, (Outcome, String)> = BTreeMap::new();
        let mut ended: Option<String> = None;
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
            let seed = batch.seed.unwrap_or(plan.seed);
            let record = Record::new(&batch.step.step, &entry.name, seed);
            let without_running = |outcome, message: String| Record {
                outcome,
                message,
                ..record.clone()
            };
            let mut record = match (unmet, missing, broken, &ended) {
                (_, Some(missing), ..) => without_running(Outcome::Unsupported, missing),
                (_, None, Some(broken), _) => without_running(
                    Outcome::Fail,
                    format!("was not run: {broken:#}, which is not the program's to change"),
                ),
                (_, None, None, Some(why)) => {
                    without_running(Outcome::Blocked, format!("was not run: {why}"))
                }
                (Some(need), None, None, None) => without_running(
                    Outcome::Blocked,
                    format!("needs “{}”", title(&batch.step, need)),
                ),
                (None, None, None, None) => {
                    let path = functions.path(&entry.name)?;
                    run_one(fence, plan.untrusted, batch, path, record)?
                }
            };
            let failed = record.outcome == Outcome::Fail;
            let in_vain = Duration::from_millis(record.millis) >= HANG;
            match plan.until {
                Until::Hang if failed && in_vain => {
                    ended.get_or_insert(format!("your program hung in “{}”", entry.title));
                }
                Until::Failure if failed => {
                    ended.get_or_insert(format!("“{}” failed", entry.title));
                }
                Until::End | Until::Hang | Until::Failure => {}
            }
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

/// Runs the check of a record, whose function is at `path` in the batch's test
/// program, and completes the record.
fn run_one(
    fence: Option<&Fence>,
    untrusted: bool,
    batch: &Batch,
    path: &str,
    mut record: Record,
) -> Result<Record> {
    let dir = tempfile::Builder::new()
        .prefix("drydock-record-")
        .tempdir()
        .context("make a temporary directory")?;
    let output = fs::File::create(dir.path().join("output"))
        .context("make a file for the check's output")?;
    let (mut to_check, its_end) = UnixStream::pair().context("socketpair")?;
    let mut orders = serde_json::to_vec(&Orders {
        step: record.step.clone(),
        check: record.check.clone(),
        seed: record.seed,
        untrusted,
    })
    .context("write the orders as JSON")?;
    orders.push(b'\n');
    to_check.write_all(&orders).context("send the orders")?;
    let tests = fence.and_then(|fence| fence.tests(&batch.tests));
    let mut command = Command::new(tests.as_deref().unwrap_or(&batch.tests));
    command
        .args(["--exact", path, "--nocapture", "--test-threads=1"])
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
    record.millis = start.elapsed().as_millis() as u64;
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
            end_with_all_below(Pid::from_raw(child.id() as i32))?;
            child.wait().context("wait for the check")?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Kills a check with everything that it has started. Its orphans are its
/// children (prctl(2), `PR_SET_CHILD_SUBREAPER`), whatever session they have
/// made, as long as it lives: it goes last.
fn end_with_all_below(check: Pid) -> Result<()> {
    // Whoever is quicker than this for so long has to be ended by hand.
    for _ in 0..1000 {
        let mut below = host::descendants(check.as_raw())?;
        below.retain(|process| process.state != 'Z');
        if below.is_empty() {
            break;
        }
        for process in below {
            match kill(Pid::from_raw(process.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("kill({})", process.pid));
                }
            }
        }
    }
    killpg(check, Signal::SIGKILL).context("kill the check")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Stdio;

    /// A test program with one function, which answers its orders with a
    /// record that holds them, and its arguments.
    const PROGRAM_OF_TESTS: &str = r#"#!/bin/sh
        case $1 in
        --list) echo 'module::names: test' ;;
        --exact)
            read -r orders
            orders=$(printf %s "$orders" | sed 's/"/\\"/g')
            printf '{"step":"05","check":"names","outcome":"pass","message":"%s %s"}' \
                "$2" "$orders" >&0 ;;
        esac
    "#;

    /// Writes an executable file, in another process: one that is open for
    /// writing here may be inherited by a child of another test, and then
    /// cannot be executed (ETXTBSY).
    fn executable(file: &Path, text: &str) {
        let mut install = Command::new("install")
            .args(["-m", "755", "/dev/stdin"])
            .arg(file)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = install.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        assert!(install.wait().unwrap().success());
    }

    fn plan(tests: PathBuf, check: &str) -> Plan {
        let text = format!(
            "step = '05'\ntitle = 't'\n[[check]]\nname = '{check}'\ntitle = 't'\n\
             points = 1\nwhy = 'w'\nhint = 'h'\n"
        );
        let batch = Batch {
            variant: None,
            program: None,
            tests,
            step: toml::from_str(&text).unwrap(),
            seed: Some(77),
        };
        Plan {
            batches: vec![batch],
            seed: 1,
            untrusted: false,
            until: Until::End,
        }
    }

    #[test]
    fn who_makes_a_session_ends_with_its_check() {
        let script = "setsid sh -c 'sleep 1000; :' & setsid sleep 1000 & echo; wait";
        let mut check = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = [0];
        check.stdout.take().unwrap().read_exact(&mut line).unwrap();
        let pid = check.id() as i32;
        // Two sessions, and the command of one of the shells.
        let below = loop {
            let below = host::descendants(pid).unwrap();
            if below.len() == 3 && below.iter().filter(|p| p.comm == "sleep").count() == 2 {
                break below;
            }
        };
        end_with_all_below(Pid::from_raw(pid)).unwrap();
        check.wait().unwrap();
        for process in below {
            let state = host::process(process.pid).map(|now| now.state);
            assert!(matches!(state, None | Some('Z')), "{process:?}: {state:?}");
        }
    }

    #[test]
    fn a_check_is_called_by_its_path_and_learns_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let tests = dir.path().join("step_05-0");
        executable(&tests, PROGRAM_OF_TESTS);
        let mut records = Vec::new();
        run(&plan(tests.clone(), "names"), &mut |record| {
            records.push(record);
            Ok(())
        })
        .unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].outcome, Outcome::Pass);
        let (path, orders) = records[0].message.split_once(' ').unwrap();
        assert_eq!(path, "module::names");
        let orders: Orders = serde_json::from_str(orders).unwrap();
        assert_eq!(
            (&*orders.step, &*orders.check, orders.seed),
            ("05", "names", 77)
        );
        let unknown = run(&plan(tests, "gone"), &mut |_| Ok(())).unwrap_err();
        assert!(unknown.to_string().contains("gone"), "{unknown:#}");
    }
}
