//! Probes of a container's health: a further process in it, now and then, as
//! `exec` makes it. One at a time, with a time limit, and none while the
//! container is paused.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::cli::places::Places;
use engine::container::{Record, Records};
use engine::image::config::Healthcheck;
use kit::sys::signals::pidfd_send_signal;
use kit::sys::{Arguments, close_except, exit, fork};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::cli::is_paused;
use crate::events::tell;
use crate::health::{Health, OUTPUT, Probe, command, patience, pause};
use crate::monitor::detach::again;
use crate::monitor::detach::{environment, null};
use crate::settings::put_health;

/// The status of a probe that could not be started, or was killed.
const FAILED: i32 = -1;

/// How long a launcher may take to reap a probe that was killed.
const REAPING: Duration = Duration::from_secs(1);

/// What checks the health of one run of a container.
#[derive(Debug)]
pub(super) struct Prober {
    places: Places,
    records: Records,
    words: Vec<OsString>,
    id: String,
    check: Healthcheck,
    health: Health,
    began: Instant,
    /// When the next probe is due, if none runs.
    next: Instant,
    running: Option<Running>,
}

/// A probe that runs.
#[derive(Debug)]
struct Running {
    pid: Pid,
    process: OwnedFd,
    /// `None` at its end.
    output: Option<PipeReader>,
    text: Vec<u8>,
    start: String,
    /// When it is killed, if it has not ended; `None` if its launcher was.
    kill_at: Option<Instant>,
    too_long: bool,
}

impl Prober {
    /// The prober of a container that has just been started.
    pub(super) fn new(places: &Places, record: &Record, check: Healthcheck) -> Self {
        let began = Instant::now();
        let health = Health::default();
        let mut words = again(places);
        words.extend(["exec".into(), record.spec.id.clone().into()]);
        words.extend(command(&check).into_iter().flatten().map(OsString::from));
        Prober {
            places: places.clone(),
            records: Records::new(places),
            words,
            id: record.spec.id.clone(),
            next: began + pause(&check, health.status, Duration::ZERO),
            check,
            health,
            began,
            running: None,
        }
    }

    /// What to wait for.
    pub(super) fn polled(&self) -> Vec<PollFd<'_>> {
        let Some(running) = &self.running else {
            return Vec::new();
        };
        let mut fds = vec![PollFd::new(&running.process, PollFlags::IN)];
        fds.extend(
            running
                .output
                .iter()
                .map(|output| PollFd::new(output, PollFlags::IN)),
        );
        fds
    }

    /// When there is something to do even if nothing of that happens.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.running {
            None => Some(self.next),
            Some(running) => running.kill_at,
        }
    }

    /// Does what is due. `ready` says of which descriptors poll(2) has shown
    /// something.
    pub(super) fn turn(&mut self, ready: &[bool]) -> Result<()> {
        let now = Instant::now();
        let Some(running) = &mut self.running else {
            if now >= self.next {
                self.begin()?;
            }
            return Ok(());
        };
        if ready.get(1) == Some(&true) {
            running.read()?;
        }
        if running.kill_at.is_some_and(|at| now >= at) {
            running.interrupt()?;
        }
        if ready.first() == Some(&true) {
            self.end()?;
        }
        Ok(())
    }

    /// Starts a probe, unless the container is paused.
    fn begin(&mut self) -> Result<()> {
        let Some(record) = self.records.read(&self.id)? else {
            return self.put_off();
        };
        if is_paused(&record) {
            return self.put_off();
        }
        self.running = Some(Running::start(&self.words, patience(&self.check))?);
        Ok(())
    }

    fn put_off(&mut self) -> Result<()> {
        self.next = Instant::now() + pause(&self.check, self.health.status, self.began.elapsed());
        Ok(())
    }

    /// Reaps the probe that has ended, and notes what it says.
    fn end(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        running.read()?;
        let status = match waitpid(running.pid, None).context("waitpid(a probe)")? {
            WaitStatus::Exited(_, status) => status,
            _ => FAILED,
        };
        let limit = patience(&self.check);
        let probe = Probe {
            start: running.start,
            end: kit::time::now(),
            exit_code: if running.too_long { FAILED } else { status },
            output: match running.too_long {
                true => format!(
                    "Health check exceeded timeout ({})",
                    humantime::format_duration(limit)
                ),
                false => String::from_utf8_lossy(&running.text).into_owned(),
            },
        };
        let young = self.began.elapsed() < Duration::from_nanos(self.check.start_period);
        let before = self.health.status;
        self.health.add(probe, &self.check, young);
        let health = self.health.clone();
        let changed = self
            .records
            .change(&self.id, &mut |record| put_health(record, &health));
        match changed {
            Ok(record) if health.status != before => {
                let action = format!("health_status: {}", health.status.word());
                tell(&self.places, &record, &action, &[]);
            }
            Ok(_) => {}
            // A full disk is no reason to end the container.
            Err(error) => kit::say!("the health is not in the record: {error:#}"),
        }
        self.put_off()
    }
}

impl Drop for Prober {
    /// The container has ended, and with it every process in it.
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            let ended = running.kill().and_then(|()| {
                waitpid(running.pid, None)
                    .map(drop)
                    .context("waitpid(a probe)")
            });
            if let Err(error) = ended {
                kit::say!("{error:#}");
            }
        }
    }
}

impl Running {
    fn start(words: &[OsString], patience: Duration) -> Result<Self> {
        let (output, theirs) = std::io::pipe().context("pipe")?;
        let flags = rustix::fs::fcntl_getfl(&output).context("fcntl(F_GETFL)")?;
        rustix::fs::fcntl_setfl(&output, flags | rustix::fs::OFlags::NONBLOCK)
            .context("fcntl(F_SETFL, O_NONBLOCK)")?;
        let start = kit::time::now();
        match fork()? {
            ForkResult::Child => {
                let Err(error) = execute(words, theirs.as_fd());
                // Where its output would be.
                eprintln!("drydock: {error:#}");
                exit(1)
            }
            ForkResult::Parent { child } => {
                let pid = rustix::process::Pid::from_raw(child.as_raw()).context("no process")?;
                let process = pidfd_open(pid, PidfdFlags::empty());
                Ok(Running {
                    pid: child,
                    process: process.context("pidfd_open(a probe)")?,
                    output: Some(output),
                    text: Vec::new(),
                    start,
                    kill_at: Some(Instant::now() + patience),
                    too_long: false,
                })
            }
        }
    }

    /// Takes what there is of the output. More than is kept is read and thrown
    /// away, so that the probe never waits.
    fn read(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        while let Some(output) = &self.output {
            match rustix::io::read(output, &mut bytes) {
                Ok(0) => self.output = None,
                Ok(length) => {
                    let room = OUTPUT - self.text.len();
                    self.text.extend_from_slice(&bytes[..length.min(room)]);
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("read from a probe"),
            }
        }
        Ok(())
    }

    /// Kills the probe, whose launcher then ends by itself; and the launcher, if
    /// it does not. As an orphan, the probe might find a parent that does not
    /// reap it: a zombie keeps the container's first process from ending
    /// (pid_namespaces(7)).
    // ANCHOR: interrupt
    fn interrupt(&mut self) -> Result<()> {
        let children = self.children();
        if self.too_long || children.is_empty() {
            self.kill_at = None;
            self.too_long = true;
            return self.kill();
        }
        self.too_long = true;
        self.kill_at = Some(Instant::now() + REAPING);
        for child in children {
            let process = match pidfd_open(child, PidfdFlags::empty()) {
                Ok(process) => process,
                Err(Errno::SRCH) => continue,
                Err(errno) => return Err(errno).context("pidfd_open(a probe)"),
            };
            // The PID may be another process's by now.
            if self.children().contains(&child) {
                match pidfd_send_signal(process.as_fd(), Signal::SIGKILL.into()) {
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(errno) => return Err(errno).context("pidfd_send_signal(a probe)"),
                }
            }
        }
        Ok(())
    }
    // ANCHOR_END: interrupt

    /// The processes whose parent is the launcher of the probe
    /// (proc_tid_children(5)); none if this kernel does not say.
    fn children(&self) -> Vec<rustix::process::Pid> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.filter_map(rustix::process::Pid::from_raw).collect()
    }

    /// Kills the launcher of the probe, with which the kernel kills the probe
    /// (`PR_SET_PDEATHSIG`).
    fn kill(&self) -> Result<()> {
        kill(self.pid, Signal::SIGKILL).context("kill(a probe)")
    }
}

/// The forked process: executes this program, with `exec` as its command.
fn execute(words: &[OsString], output: BorrowedFd<'_>) -> Result<Infallible> {
    let null = null()?;
    dup2_stdin(&null).context("dup2(/dev/null, 0)")?;
    dup2_stdout(output).context("dup2(a pipe, 1)")?;
    dup2_stderr(output).context("dup2(a pipe, 2)")?;
    let program = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    let arguments = Arguments::new(words, &environment())?;
    close_except(&[program.as_fd()])?;
    Err(arguments.execve_open(program.as_fd())).context("execveat(/proc/self/exe)")
}
