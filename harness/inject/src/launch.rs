//! One launch, recorded, with a fault or unobserved, to its end and to the end
//! of everything that it has started.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use super::plan::{Fault, Recorded};
use check::host;
use check::trace::follow::{self, Call, Next, Stop};

/// Longest launch. Beyond it the launch counts as hung.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Longest time that what it has started may outlive it.
const LEFT_LIMIT: Duration = Duration::from_secs(5);

/// The tracer's task during a launch.
pub enum Watch {
    /// Nothing: the launch is not traced.
    Not,
    /// Records the calls.
    Record,
    /// Injects a fault.
    Inject(Recorded, Fault),
    /// Delays the launcher's n-th call of this name.
    Delay(String, usize, Duration),
}

/// A launch that has ended.
#[derive(Debug, Default)]
pub struct Launch {
    /// Exit status; 128 + N after signal N; `None` if it hung.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Its calls, with their objects unchanged; empty unless they were
    /// recorded.
    pub calls: Vec<Recorded>,
    /// The object of the call with the fault; `None` if it was not made.
    pub reached: Option<String>,
    /// Processes that outlived it and had to be killed.
    pub left: Vec<String>,
}

/// The tracer's observations.
#[derive(Default)]
struct Seen {
    calls: Vec<Recorded>,
    reached: Option<String>,
    /// The process for which something is to be done when it exits from the
    /// call.
    at_exit_of: Option<Pid>,
}

/// Runs a program to its end.
///
/// The caller must be a child subreaper (prctl(2)) without other children.
pub fn launch(mut command: Command, watch: Watch) -> Result<Launch> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut child, tracer) = match watch {
        Watch::Not => (command.spawn().context("start the program")?, None),
        watch => {
            let (child, tracer) = traced(command, watch)?;
            (child, Some(tracer))
        }
    };
    let stdout = reader(child.stdout.take().context("no standard output")?);
    let stderr = reader(child.stderr.take().context("no standard error")?);
    let pid = Pid::from_raw(child.id() as i32);
    let mut launch = Launch::default();
    let in_time = ends(pid, TIME_LIMIT)?;
    if !in_time {
        kill_tree(pid)?;
    }
    // Join the tracer first: it has to see the program's end too.
    if let Some(tracer) = tracer {
        let seen = tracer
            .join()
            .map_err(|_| anyhow!("the tracer panicked"))??;
        (launch.calls, launch.reached) = (seen.calls, seen.reached);
    }
    let ended = child.wait().context("wait for the program")?;
    if in_time {
        launch.status = ended.code().or(ended.signal().map(|signal| 128 + signal));
    }
    launch.left = left_over()?;
    launch.stdout = text(stdout)?;
    launch.stderr = text(stderr)?;
    Ok(launch)
}

/// Starts a program, traced by a thread of its own.
fn traced(command: Command, watch: Watch) -> Result<(Child, JoinHandle<Result<Seen>>)> {
    let (tell_child, child) = channel();
    let tracer = thread::spawn(move || {
        let child = follow::start(command)?;
        let pid = Pid::from_raw(child.id() as i32);
        tell_child.send(child).context("nobody wants the child")?;
        let mut seen = Seen::default();
        follow::follow(pid, &mut |stop| watch.at(stop, &mut seen))?;
        Ok(seen)
    });
    match child.recv() {
        Ok(child) => Ok((child, tracer)),
        Err(_) => {
            tracer
                .join()
                .map_err(|_| anyhow!("the tracer panicked"))??;
            bail!("the program was not started")
        }
    }
}

impl Watch {
    fn at(&self, stop: Stop<'_>, seen: &mut Seen) -> Result<Next> {
        match (self, stop) {
            (Watch::Record, Stop::Entry(call)) => {
                seen.calls.push(Recorded {
                    process: call.process.clone(),
                    call: call.name.to_owned(),
                    nth: call.nth,
                    object: call.object(),
                    creates: call.creates(),
                });
                Ok(Next::GoOn)
            }
            (Watch::Inject(at, fault), Stop::Entry(call)) if is_at(at, call) => {
                seen.reached = Some(call.object());
                match fault {
                    Fault::KillBefore => kill_here(call),
                    Fault::Fail(errno) => {
                        seen.at_exit_of = Some(call.pid);
                        Ok(Next::Fail(*errno))
                    }
                    Fault::KillAfter => {
                        seen.at_exit_of = Some(call.pid);
                        Ok(Next::GoOn)
                    }
                }
            }
            (Watch::Inject(_, fault), Stop::Exit(call, _)) if seen.at_exit_of == Some(call.pid) => {
                match fault.kills() {
                    true => kill_here(call),
                    false => Ok(Next::Leave),
                }
            }
            (Watch::Delay(name, nth, time), Stop::Entry(call))
                if call.name == name && call.nth == *nth && call.process == follow::LAUNCHER =>
            {
                seen.reached = Some(call.object());
                thread::sleep(*time);
                Ok(Next::Leave)
            }
            _ => Ok(Next::GoOn),
        }
    }
}

fn is_at(at: &Recorded, call: &Call) -> bool {
    call.name == at.call && call.nth == at.nth && call.process == at.process
}

fn kill_here(call: &Call) -> Result<Next> {
    kill(call.pid, Signal::SIGKILL).with_context(|| format!("kill({})", call.pid))?;
    Ok(Next::Leave)
}

/// Whether a process ends in time. It still has to be waited for.
fn ends(pid: Pid, limit: Duration) -> Result<bool> {
    let raw = rustix::process::Pid::from_raw(pid.as_raw()).context("no PID")?;
    let process = match pidfd_open(raw, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(true),
        opened => opened.context("pidfd_open")?,
    };
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(
            std::os::fd::AsFd::as_fd(&process),
            PollFlags::POLLIN,
        )];
        let timeout = PollTimeout::try_from(left).context("a time limit")?;
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            ready => return Ok(ready.context("poll a pidfd")? > 0),
        }
    }
}

/// Kills a process and all its descendants.
fn kill_tree(pid: Pid) -> Result<()> {
    for child in host::children(pid.as_raw())? {
        kill_tree(Pid::from_raw(child.pid))?;
    }
    match kill(pid, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("kill({pid})")),
    }
}

/// Waits for everything that a launch has left behind, which is now this
/// process's, and kills what does not end. Returns the killed processes.
fn left_over() -> Result<Vec<String>> {
    let mut killed = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return Ok(killed),
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) | Err(Errno::EINVAL | Errno::EINTR) => continue,
            Err(errno) => return Err(errno).context("waitpid"),
        }
        for child in host::children(Pid::this().as_raw())? {
            let pid = Pid::from_raw(child.pid);
            if !ends(pid, LEFT_LIMIT)? {
                killed.push(child.comm);
                kill_tree(pid)?;
            }
        }
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<std::io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes)?;
        Ok(bytes)
    })
}

fn text(reader: JoinHandle<std::io::Result<Vec<u8>>>) -> Result<String> {
    let bytes = reader.join().map_err(|_| anyhow!("a reader panicked"))?;
    let bytes = bytes.context("read what the program printed")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
