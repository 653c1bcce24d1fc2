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

/// The most reads of a probe's output before the monitor's other work has its
/// turn: somebody who writes without a pause must not keep it.
const AT_ONCE: usize = 16;

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
        words.extend(["probe".into(), record.spec.id.clone().into()]);
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
    /// something. Nothing that fails here ends the container: it is the probe
    /// that has failed.
    pub(super) fn turn(&mut self, ready: &[bool]) {
        let now = Instant::now();
        let Some(running) = &mut self.running else {
            if now >= self.next {
                self.begin();
            }
            return;
        };
        if ready.get(1) == Some(&true) {
            running.read();
        }
        if running.kill_at.is_some_and(|at| now >= at)
            && let Err(error) = running.interrupt()
        {
            kit::say!("{error:#}");
            running.end_launcher();
        }
        if ready.first() == Some(&true) {
            self.end();
        }
    }

    /// Starts a probe, unless the container is paused.
    // ANCHOR: begin
    fn begin(&mut self) {
        let start = kit::time::now();
        match self.try_begin() {
            Ok(Some(running)) => self.running = Some(running),
            Ok(None) => self.put_off(),
            // No process and no descriptor is left: the container may have used
            // them up itself.
            Err(error) => self.note(Probe {
                start,
                end: kit::time::now(),
                exit_code: FAILED,
                output: format!("the probe was not started: {error:#}"),
            }),
        }
    }
    // ANCHOR_END: begin

    fn try_begin(&self) -> Result<Option<Running>> {
        match self.records.read(&self.id)? {
            Some(record) if !is_paused(&record) => {
                Running::start(&self.words, patience(&self.check)).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn put_off(&mut self) {
        self.next = Instant::now() + pause(&self.check, self.health.status, self.began.elapsed());
    }

    /// Reaps the probe that has ended, and notes what it says.
    fn end(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        running.read();
        let status = match waitpid(running.pid, None) {
            Ok(WaitStatus::Exited(_, status)) => status,
            Ok(_) => FAILED,
            Err(errno) => {
                kit::say!("waitpid(a probe): {errno}");
                FAILED
            }
        };
        let limit = patience(&self.check);
        self.note(Probe {
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
        });
    }

    /// Adds the result of a probe to the record.
    fn note(&mut self, probe: Probe) {
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
        self.put_off();
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
                kit::errln!("drydock: {error:#}");
                exit(1)
            }
            ForkResult::Parent { child } => {
                let pid = rustix::process::Pid::from_raw(child.as_raw()).context("no process")?;
                let process = match pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(process) => process,
                    Err(errno) => {
                        // Nobody would wait for it.
                        kill(child, Signal::SIGKILL).context("kill(a probe)")?;
                        waitpid(child, None).context("waitpid(a probe)")?;
                        return Err(errno).context("pidfd_open(a probe)");
                    }
                };
                Ok(Running {
                    pid: child,
                    process,
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
    /// away, so that the probe never waits for long.
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        for _ in 0..AT_ONCE {
            let Some(output) = &self.output else {
                return;
            };
            match rustix::io::read(output, &mut bytes) {
                Ok(length) if length > 0 => {
                    let room = OUTPUT - self.text.len();
                    self.text.extend_from_slice(&bytes[..length.min(room)]);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => self.output = None,
            }
        }
    }

    /// Kills the probe, whose launcher then ends by itself; and the launcher, if
    /// it does not. As an orphan, the probe might find a parent that does not
    /// reap it: a zombie keeps the container's first process from ending
    /// (pid_namespaces(7)).
    // ANCHOR: interrupt
    fn interrupt(&mut self) -> Result<()> {
        let children = self.children();
        if self.too_long || children.is_empty() {
            self.end_launcher();
            return Ok(());
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

    /// Kills the launcher, which takes too long: the last resort.
    fn end_launcher(&mut self) {
        self.kill_at = None;
        self.too_long = true;
        if let Err(error) = self.kill() {
            kit::say!("{error:#}");
        }
    }

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

/// The forked process: executes this program, whose `probe` is `exec`.
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
