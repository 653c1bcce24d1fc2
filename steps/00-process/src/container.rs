//! The launcher: runs the parts of every isolation in their order, and leaves
//! the host as it was.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, pipe2};
use rustix::process::WaitOptions;

use crate::birth::clone_child;
use crate::exec::Command;
use crate::failure::{Failure, Report};
use crate::isolation::Isolation;
use crate::signals::Signals;
use crate::terminal::Terminal;
use crate::{say, sys};

/// How the container's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By exit(3), with this status.
    Code(u8),
    /// By the signal of this number. Real-time signals have no names.
    Signal(i32),
}

impl Exit {
    /// The status with which a launcher passes it on: the same, or 128 + the
    /// number of the signal.
    pub fn status(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal as u8,
        }
    }
}

/// A command and the isolations that make a container of it.
///
/// [`run`](Self::run) does everything. [`create`](Self::create),
/// [`Created::start`] and [`Running::wait`] are the same in three parts, each
/// of which can only be called after the one before.
pub struct Container {
    command: Command,
    isolations: Vec<Box<dyn Isolation>>,
}

/// A container that is set up and waits for its start: every isolation is in
/// place, the command does not run yet.
pub struct Created {
    child: Child,
}

/// A container whose command runs.
pub struct Running {
    child: Child,
}

impl Container {
    /// A container of nothing but the command: an ordinary process.
    pub fn new(command: Command) -> Self {
        Container {
            command,
            isolations: Vec::new(),
        }
    }

    /// Adds an isolation to the end of the list.
    #[must_use]
    pub fn with(mut self, isolation: impl Isolation + 'static) -> Self {
        self.isolations.push(Box::new(isolation));
        self
    }

    /// Creates the container, starts its command, waits for its end and leaves
    /// the host as it was.
    ///
    /// # Errors
    /// Any error of the three parts. The [`Failure`] in its chain, if there is
    /// one, has the exit status.
    pub fn run(self) -> Result<Exit> {
        self.create()?.start()?.wait()
    }

    /// Prepares the host, clones the child and sets it up, up to the point
    /// where nothing is missing but execve(2).
    ///
    /// # Errors
    /// The first error of any isolation, host or child, by the isolation's
    /// name. The child is then gone and every isolation cleaned up.
    pub fn create(self) -> Result<Created> {
        let signals = Signals::block()?;
        let mut host = Host {
            isolations: self.isolations,
            begun: 0,
        };
        let child = match host.launch(&self.command, signals) {
            Ok(launched) => Child { launched, host },
            Err(error) => return Err(host.clean_up_after(error)),
        };
        match child.launched.report() {
            Ok(Some(Report::SetUp)) => Ok(Created { child }),
            Ok(Some(Report::Failed(error))) | Err(error) => Err(child.abandon(error)),
            Ok(None) => Err(child.abandon(anyhow!("the child died while it was set up"))),
        }
    }
}

impl Created {
    /// The PID of the container's first process, as the host sees it.
    pub fn pid(&self) -> Pid {
        self.child.launched.pid
    }

    /// Lets the child execute the command.
    ///
    /// # Errors
    /// A [`Failure`] of status 126 or 127 if that was impossible. The child is
    /// then gone and every isolation cleaned up.
    pub fn start(self) -> Result<Running> {
        let mut child = self.child;
        say!("start");
        if let Err(error) = child.launched.tell() {
            return Err(child.abandon(error));
        }
        match child.launched.report() {
            Ok(None) => Ok(Running { child }),
            Ok(Some(Report::Failed(error))) | Err(error) => Err(child.abandon(error)),
            Ok(Some(Report::SetUp)) => Err(child.abandon(anyhow!("the child was set up twice"))),
        }
    }
}

impl Running {
    /// The PID of the container's first process, as the host sees it.
    pub fn pid(&self) -> Pid {
        self.child.launched.pid
    }

    /// Passes signals on until the first process ends, then cleans up.
    ///
    /// # Errors
    /// Those of waiting, and those of any `cleanup`.
    pub fn wait(self) -> Result<Exit> {
        let Child {
            mut launched,
            mut host,
        } = self.child;
        match launched.wait() {
            Ok(exit) => host.clean_up().map(|()| exit),
            Err(error) => Err(Child { launched, host }.abandon(error)),
        }
    }
}

/// The isolations, and how far they have come.
struct Host {
    isolations: Vec<Box<dyn Isolation>>,
    /// How many `prepare`s have been begun: so many `cleanup`s are due.
    begun: usize,
}

impl Host {
    fn launch(&mut self, command: &Command, signals: Signals) -> Result<Launched> {
        for isolation in &mut self.isolations {
            self.begun += 1;
            say!("prepare {}", isolation.name());
            isolation.prepare().with_context(|| isolation.name())?;
        }
        stop_if_asked(&signals)?;
        let (release, tell) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let (report, tell_report) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let ForkResult::Parent { child: pid } = clone_child(&self.isolations)? else {
            drop((tell, report));
            let child = InChild {
                release: release.into(),
                report: tell_report.into(),
                signals,
            };
            child.run(&mut self.isolations, command)
        };
        drop((release, tell_report));
        // From here on the child exists: whatever fails, it must be reaped.
        let mut launched = Launched {
            pid,
            lifeline: tell.into(),
            reports: report.into(),
            terminal: None,
            signals,
        };
        match self.on_host(&mut launched) {
            Ok(()) => Ok(launched),
            Err(error) => Err(launched.kill(error)),
        }
    }

    fn on_host(&mut self, launched: &mut Launched) -> Result<()> {
        say!("clone3: the child is process {} of the host", launched.pid);
        for isolation in &mut self.isolations {
            say!("on_host {}", isolation.name());
            isolation
                .on_host(launched.pid)
                .with_context(|| isolation.name())?;
        }
        launched.terminal = Terminal::hand_over(launched.pid)?;
        stop_if_asked(&launched.signals)?;
        say!("release");
        launched.tell()
    }

    /// Runs every `cleanup` that is due, last first, and does not let one
    /// failure keep the others from running.
    fn clean_up(&mut self) -> Result<()> {
        let mut failed: Option<Error> = None;
        for isolation in self.isolations[..self.begun].iter_mut().rev() {
            say!("cleanup {}", isolation.name());
            if let Err(error) = isolation.cleanup() {
                let error = error.context(format!("{}: cleanup", isolation.name()));
                failed = Some(match failed {
                    None => error,
                    Some(first) => anyhow!("{first:#}; and {error:#}"),
                });
            }
        }
        self.begun = 0;
        failed.map_or(Ok(()), Err)
    }

    /// Cleans up because of `error`, which stays the one to report.
    fn clean_up_after(&mut self, error: Error) -> Error {
        match self.clean_up() {
            Ok(()) => error,
            Err(more) => {
                let status = Failure::status_of(&error);
                Failure::new(status, format!("{error:#}; and then {more:#}")).into()
            }
        }
    }
}

fn stop_if_asked(signals: &Signals) -> Result<()> {
    match signals.asked_to_stop()? {
        Some(signal) => Err(Failure::new(
            Exit::Signal(signal as i32).status(),
            format!("{signal} arrived before the command was started"),
        )
        .into()),
        None => Ok(()),
    }
}

/// A container with both its sides.
struct Child {
    launched: Launched,
    host: Host,
}

impl Child {
    /// Ends the child, reaps it and cleans up; `error` stays the one to report.
    fn abandon(self, error: Error) -> Error {
        let Child { launched, mut host } = self;
        let error = launched.kill(error);
        host.clean_up_after(error)
    }
}

/// The launcher's ends of what connects it with a living child.
struct Launched {
    pid: Pid,
    /// The release pipe. One byte releases the child, a second one starts it,
    /// and its end without a byte means that the launcher is gone.
    lifeline: File,
    reports: File,
    terminal: Option<Terminal>,
    signals: Signals,
}

impl Launched {
    fn tell(&mut self) -> Result<()> {
        match self.lifeline.write_all(&[1]) {
            Ok(()) => Ok(()),
            // The child is gone; its report says why.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(e) => Err(e).context("write to the release pipe"),
        }
    }

    /// Waits for the child's next report: `None` once it has exec'ed or died.
    fn report(&self) -> Result<Option<Report>> {
        let mut bytes = [0; 1];
        let mut reports = &self.reports;
        if reports
            .read(&mut bytes)
            .context("read from the report pipe")?
            == 0
        {
            return Ok(None);
        }
        let mut bytes = bytes.to_vec();
        if Report::goes_on(&bytes) {
            reports
                .read_to_end(&mut bytes)
                .context("read from the report pipe")?;
        }
        Ok(Report::decode(&bytes))
    }

    /// Passes signals on to the child until it ends.
    fn wait(&mut self) -> Result<Exit> {
        let exit = loop {
            if let Some(exit) = self.reap()? {
                break exit;
            }
            let arrived = self.signals.next()?;
            match arrived.signal {
                Signal::SIGCHLD => {}
                Signal::SIGCONT => self.go_on()?,
                // The terminal has told the whole foreground group already.
                _ if arrived.from_terminal && self.terminal.is_none() => {}
                signal => self.pass_on(signal)?,
            }
        };
        if let Some(terminal) = self.terminal.take() {
            terminal.take_back()?;
        }
        Ok(exit)
    }

    /// Collects what has become of the child: `None` while it lives.
    fn reap(&mut self) -> Result<Option<Exit>> {
        // rustix's waitpid, because nix's fails for a child that a real-time
        // signal has ended.
        let pid = rustix::process::Pid::from_raw(self.pid.as_raw());
        let flags = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        loop {
            let found = rustix::process::waitpid(pid, flags);
            let Some((_, status)) = found.with_context(|| format!("waitpid({})", self.pid))? else {
                return Ok(None);
            };
            if let Some(code) = status.exit_status() {
                return Ok(Some(Exit::Code(code as u8)));
            }
            if let Some(signal) = status.terminating_signal() {
                return Ok(Some(Exit::Signal(signal)));
            }
            if status.stopped() {
                self.stop_with_it()?;
            }
        }
    }

    /// The child was stopped (Ctrl-Z): the launcher stops too, so that the
    /// shell which started it sees a stopped job and takes the terminal.
    fn stop_with_it(&mut self) -> Result<()> {
        if let Some(terminal) = &self.terminal {
            terminal.take_back()?;
        }
        kill(Pid::this(), Signal::SIGSTOP).context("kill(self, SIGSTOP)")?;
        // Here somebody has sent SIGCONT: `fg` or `bg` of the shell.
        self.go_on()
    }

    fn go_on(&self) -> Result<()> {
        match &self.terminal {
            Some(terminal) => {
                terminal.lend()?;
                ignore_gone(killpg(self.pid, Signal::SIGCONT)).context("killpg(SIGCONT)")
            }
            None => self.pass_on(Signal::SIGCONT),
        }
    }

    fn pass_on(&self, signal: Signal) -> Result<()> {
        say!("pass {signal} on");
        ignore_gone(kill(self.pid, signal)).with_context(|| format!("kill({}, {signal})", self.pid))
    }

    /// Ends and reaps the child because of `error`, which is handed through.
    fn kill(mut self, error: Error) -> Error {
        let ended = ignore_gone(kill(self.pid, Signal::SIGKILL)).and_then(|()| {
            loop {
                match waitpid(self.pid, None) {
                    Err(Errno::EINTR) => {}
                    other => break other.map(drop),
                }
            }
        });
        let taken_back = self
            .terminal
            .take()
            .map_or(Ok(()), |terminal| terminal.take_back());
        // ECHILD: it had been reaped before the error.
        match (ended, taken_back) {
            (Ok(()) | Err(Errno::ECHILD), Ok(())) => error,
            (Err(errno), _) => error.context(format!("kill and reap {}: {errno}", self.pid)),
            (_, Err(more)) => error.context(format!("{more:#}")),
        }
    }
}

/// A process that is gone needs no signal.
fn ignore_gone(sent: nix::Result<()>) -> nix::Result<()> {
    match sent {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}

/// The child's side of the protocol, between clone3 and execve.
struct InChild {
    release: File,
    report: File,
    signals: Signals,
}

impl InChild {
    fn run(mut self, isolations: &mut [Box<dyn Isolation>], command: &Command) -> ! {
        // A panic must not unwind into the launcher's frames: they belong to
        // the other process, whose cleanups would then run twice.
        let failed = catch_unwind(AssertUnwindSafe(|| {
            self.become_command(isolations, command)
        }));
        let error = match failed {
            Ok(Err(error)) => error,
            Err(_) => anyhow!("the child panicked while it was set up"),
        };
        let status = Failure::status_of(&error);
        // If even the report cannot be written, the status is all there is.
        let sent = self.report.write_all(&Report::Failed(error).encode());
        sys::exit(if sent.is_ok() {
            status
        } else {
            crate::LAUNCHER_FAILED
        })
    }

    fn become_command(
        &mut self,
        isolations: &mut [Box<dyn Isolation>],
        command: &Command,
    ) -> Result<Infallible> {
        // Everything below the standard streams, but not the two pipes' ends,
        // which were opened so: nothing of the launcher's leaks into the command.
        sys::close_on_exec_from(3)?;
        prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
        self.wait_to_be_told()?;
        for isolation in isolations.iter_mut() {
            say!("in_container {}", isolation.name());
            isolation.in_container().with_context(|| isolation.name())?;
        }
        self.report
            .write_all(&Report::SetUp.encode())
            .context("write to the report pipe")?;
        self.wait_to_be_told()?;
        for isolation in isolations.iter_mut() {
            isolation.before_exec().with_context(|| isolation.name())?;
        }
        self.die_with_launcher()?;
        // Rust ignores SIGPIPE in every program; the command expects it to act.
        sys::default_action(Signal::SIGPIPE)?;
        self.signals.unblock()?;
        command.exec()
    }

    fn wait_to_be_told(&mut self) -> Result<()> {
        let mut byte = [0];
        match self
            .release
            .read(&mut byte)
            .context("read from the release pipe")?
        {
            0 => bail!("the launcher is gone"),
            _ => Ok(()),
        }
    }

    /// Asks for SIGKILL at the launcher's death: once more, because a change
    /// of credentials has cleared it (prctl(2)). If the launcher died before
    /// the call, its end of the release pipe is closed.
    fn die_with_launcher(&self) -> Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
        let mut lifeline = [PollFd::new(self.release.as_fd(), PollFlags::POLLIN)];
        if poll(&mut lifeline, PollTimeout::ZERO).context("poll the release pipe")? > 0 {
            bail!("the launcher is gone");
        }
        Ok(())
    }
}
