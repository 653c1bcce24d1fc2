//! `drydock ps`, `inspect`, `rm` and `stop`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use kit::sys::signals::pidfd_send_signal;
use kit::time::timeout_at;
use kit::{SignalNumber, say};
use nix::sys::signal::Signal;
use process::Exit;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cli::places::Places;
use crate::container::{Record, Records, Status};

/// The commands about containers.
#[derive(Subcommand, Clone, Debug)]
pub enum RecordTool {
    /// List containers
    Ps {
        /// Show all containers [default: only running ones]
        #[arg(short, long)]
        all: bool,
        /// Only display container IDs
        #[arg(short, long)]
        quiet: bool,
    },
    /// Display detailed information on one or more containers, as JSON
    Inspect {
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Remove one or more containers, with their anonymous volumes
    Rm {
        /// Force the removal of a running container (uses SIGKILL)
        #[arg(short, long)]
        force: bool,
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Stop one or more running containers
    Stop {
        /// Seconds to wait before killing the container [default:
        /// --stop-timeout of the container]
        #[arg(short, long, value_name = "SECONDS")]
        time: Option<u64>,
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
}

/// Runs one of the commands.
///
/// # Errors
/// Names the container that does not exist, or that still runs.
pub fn run(places: &Places, tool: RecordTool) -> Result<Exit> {
    let records = Records::new(places);
    records.sweep()?;
    match tool {
        RecordTool::Ps { all, quiet } => list(&records, all, quiet)?,
        RecordTool::Inspect { containers } => {
            let found = containers
                .iter()
                .map(|container| records.find(container))
                .collect::<Result<Vec<_>>>()?;
            kit::outln!("{}", serde_json::to_string_pretty(&found)?)?;
        }
        RecordTool::Rm { force, containers } => {
            for container in containers {
                let mut record = records.find(&container)?;
                if record.is_running() {
                    if !force {
                        bail!(
                            "the container {} is running: stop it first, or use --force",
                            record.spec.name
                        );
                    }
                    end(&records, &record, Signal::SIGKILL.into(), Duration::ZERO)?;
                    if record.spec.auto_remove {
                        kit::outln!("{container}")?;
                        continue;
                    }
                    record = records.find(&record.spec.id)?;
                }
                records.remove(&record)?;
                kit::outln!("{container}")?;
            }
        }
        RecordTool::Stop { time, containers } => {
            for container in containers {
                let record = records.find(&container)?;
                if record.is_running() {
                    let patience = Duration::from_secs(time.unwrap_or(record.spec.stop_timeout));
                    end(
                        &records,
                        &record,
                        record.spec.stop_signal.parse()?,
                        patience,
                    )?;
                }
                kit::outln!("{container}")?;
            }
        }
    }
    Ok(Exit::Code(0))
}

/// The two processes of a running container, open: whatever their PIDs become,
/// these are they.
#[derive(Debug)]
pub struct Processes {
    pid: i32,
    launcher: OwnedFd,
    /// `None` if it has ended, and the launcher is about to clean up.
    child: Option<OwnedFd>,
}

impl Processes {
    /// Opens them; `None` if the launcher has ended.
    ///
    /// The record alone is not trusted: the process must be a child of the
    /// launcher, and the launcher must hold the container's note.
    pub fn of(records: &Records, record: &Record) -> Result<Option<Self>> {
        // The launcher first: the child's PID is not reused before the launcher
        // has waited for it.
        let Some(launcher) = open(record.launcher.pid)? else {
            return Ok(None);
        };
        let child = open(record.pid)?;
        if !record.launcher.is_alive() {
            return Ok(None);
        }
        if child.is_some()
            && (!record.launcher.is_parent_of(record.pid) || !records.is_held(record)?)
        {
            bail!(
                "the record of the container {} is wrong: process {} does not belong to it, and \
                 is not signalled",
                record.spec.name,
                record.pid
            );
        }
        Ok(Some(Processes {
            pid: record.pid,
            launcher,
            child,
        }))
    }

    /// Sends a signal to the container's first process, unless it has ended.
    pub fn send(&self, signal: SignalNumber) -> Result<()> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        say!("{signal} to process {}", self.pid);
        match pidfd_send_signal(child.as_fd(), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("pidfd_send_signal({signal})")),
        }
    }

    /// Waits until the launcher has cleaned up. Returns whether it did within
    /// `patience`.
    pub fn wait(&self, patience: Option<Duration>) -> Result<bool> {
        wait(&self.launcher, patience)
    }
}

fn open(pid: i32) -> Result<Option<OwnedFd>> {
    let pid = Pid::from_raw(pid).context("the container has no process")?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("pidfd_open({pid:?})")),
    }
}

/// Sends `signal` to the container's first process, and SIGKILL after
/// `patience`. Then waits for the launcher, which cleans up.
pub fn end(
    records: &Records,
    record: &Record,
    signal: SignalNumber,
    patience: Duration,
) -> Result<()> {
    let Some(processes) = Processes::of(records, record)? else {
        return Ok(());
    };
    processes.send(signal)?;
    let kill = SignalNumber::from(Signal::SIGKILL);
    if signal != kill && !processes.wait(Some(patience))? {
        processes.send(kill)?;
    }
    processes.wait(None).map(drop)
}

/// Waits for a process to end. Returns whether it did within `patience`.
fn wait(process: &impl std::os::fd::AsFd, patience: Option<Duration>) -> Result<bool> {
    let until = patience.map(|patience| SystemTime::now() + patience);
    loop {
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        match poll(&mut fds, timeout_at(until).as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("poll a pidfd"),
        }
    }
}

fn list(records: &Records, all: bool, quiet: bool) -> Result<()> {
    if !quiet {
        kit::outln!(
            "{:<12}  {:<20}  {:<20}  {:<24}  {:>7}  NAME",
            "ID",
            "IMAGE",
            "COMMAND",
            "STATUS",
            "PID"
        )?;
    }
    for record in records.all()? {
        if !all && !record.claims_to_run() {
            continue;
        }
        if quiet {
            kit::outln!("{}", record.short_id())?;
            continue;
        }
        let pid = match record.pid {
            0 => "-".to_owned(),
            pid => pid.to_string(),
        };
        kit::outln!(
            "{:<12}  {:<20}  {:<20}  {:<24}  {pid:>7}  {}",
            record.short_id(),
            shortened(&record.spec.image),
            shortened(&record.spec.command.join(OsStr::new(" ")).to_string_lossy()),
            status(&record),
            record.spec.name
        )?;
    }
    Ok(())
}

fn status(record: &Record) -> String {
    match (record.status, record.exit_code) {
        (Status::Created, _) => "created".into(),
        (Status::Running, _) => format!("up {}", age(Some(&record.started_at))),
        (Status::Restarting, code) => format!("restarting ({})", code.unwrap_or_default()),
        (Status::Exited, Some(code)) => {
            format!("exited ({code}) {} ago", age(record.finished_at.as_ref()))
        }
        (Status::Exited, None) => "its launcher was killed".into(),
    }
}

/// The time since `then`, in its largest unit.
fn age(then: Option<&String>) -> String {
    let then = then.and_then(|then| humantime::parse_rfc3339(then).ok());
    let age = then.and_then(|then| SystemTime::now().duration_since(then).ok());
    let seconds = age.unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(20) {
        None => text.escape_default().to_string(),
        Some(_) => {
            let head: String = text.chars().take(19).collect();
            format!("{}…", head.escape_default())
        }
    }
}
