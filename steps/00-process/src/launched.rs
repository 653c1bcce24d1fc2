//! The launcher's side of a running child: release, reports, signals, waiting
//! and killing.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, WaitOptions};

use crate::exit::{Exit, broken_off};
use crate::failure::Report;
use crate::isolation::Isolation;
use crate::signals::Signals;
use crate::terminal::Terminal;
use kit::SignalNumber;
use kit::say;
use kit::sys::signals::kill;

/// A running child, and the launcher's ends of the pipes to it.
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    /// The release pipe. The first byte releases the child, the second one
    /// starts the command, and end of file without a byte means that the
    /// launcher is gone.
    pub(crate) lifeline: File,
    pub(crate) reports: File,
    pub(crate) terminal: Option<Terminal>,
    /// Whether the container has a session of its own (setsid(2)).
    pub(crate) own_session: bool,
}

impl Launched {
    /// Writes `times` bytes into the release pipe, one for each wait of the
    /// child.
    pub(crate) fn tell(&mut self, times: usize) -> Result<()> {
        match self.lifeline.write_all(&[1; 2][..times]) {
            Ok(()) => Ok(()),
            // The child is gone; its report says why.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(e) => Err(e).context("write to the release pipe"),
        }
    }

    /// Waits for the child's next report. Returns `None` once the child has
    /// executed the command or died.
    ///
    /// # Errors
    /// A [`Failure`](crate::Failure) of status 128 + N if signal N asks the
    /// launcher to stop in the meantime: a set-up may hang.
    pub(crate) fn report(&self, signals: &Signals) -> Result<Option<Report>> {
        match signals.unless_asked_to_stop(self.reports.as_fd())? {
            Some(signal) => broken_off(signal),
            None => self.read_report(),
        }
    }

    /// Reads the next report, which has arrived or is about to.
    fn read_report(&self) -> Result<Option<Report>> {
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

    // ANCHOR: wait
    /// Forwards signals to the child until it ends, except those that an
    /// isolation handles.
    pub(crate) fn wait(
        &mut self,
        signals: &mut Signals,
        isolations: &mut [Box<dyn Isolation>],
    ) -> Result<Exit> {
        // ANCHOR: exercise_wait_for_the_end
        let exit = loop {
            if let Some(exit) = self.reap()? {
                break exit;
            }
            let arrived = signals.next()?;
            let signal = arrived.signal;
            match signal.named() {
                Some(Signal::SIGCHLD) => {}
                // Caused by the launcher's own limits, which ended a write with
                // EFBIG.
                Some(Signal::SIGXCPU | Signal::SIGXFSZ) if arrived.from_kernel => {}
                _ if taken(isolations, signal)? => {}
                Some(Signal::SIGCONT) => self.go_on()?,
                // The terminal has signalled the whole foreground process group
                // already.
                _ if arrived.from_kernel && self.terminal.is_none() && !self.own_session => {}
                _ => self.pass_on(signal)?,
            }
        };
        if let Some(terminal) = self.terminal.take() {
            terminal.take_back()?;
        }
        Ok(exit)
        // ANCHOR_END: exercise_wait_for_the_end
    }
    // ANCHOR_END: wait

    /// Reaps the child if it has ended. Returns `None` while it lives.
    fn reap(&mut self) -> Result<Option<Exit>> {
        // rustix's waitpid, because nix's fails for a child that was killed by
        // a real-time signal.
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
            if status.stopped() && !self.own_session {
                self.stop_with_it()?;
            }
        }
    }

    /// Stops the launcher because the child was stopped (Ctrl-Z): the shell
    /// that started the launcher sees a stopped job and takes the terminal.
    fn stop_with_it(&mut self) -> Result<()> {
        // ANCHOR: exercise_stop_with_it
        if let Some(terminal) = &self.terminal {
            terminal.take_back()?;
        }
        kill(Pid::this(), Signal::SIGSTOP.into()).context("kill(self, SIGSTOP)")?;
        // SIGCONT has arrived: from `fg` or `bg` of the shell.
        self.go_on()
        // ANCHOR_END: exercise_stop_with_it
    }

    fn go_on(&self) -> Result<()> {
        match &self.terminal {
            Some(terminal) => {
                terminal.lend()?;
                let group = Pid::from_raw(-self.pid.as_raw());
                ignore_gone(kill(group, Signal::SIGCONT.into())).context("kill(group, SIGCONT)")
            }
            None => self.pass_on(Signal::SIGCONT.into()),
        }
    }

    fn pass_on(&self, signal: SignalNumber) -> Result<()> {
        say!("pass {signal} on");
        ignore_gone(kill(self.pid, signal)).with_context(|| format!("kill({}, {signal})", self.pid))
    }

    /// The cause of the child's death: the error that it reported, else its
    /// exit status or signal. `None` if the child lives. Called after a failure
    /// on the host: if the child has died, its death is the cause and the
    /// failure a consequence.
    pub(crate) fn died_of(&self) -> Option<Error> {
        let pid = rustix::process::Pid::from_raw(self.pid.as_raw())?;
        // The child writes its report before it ends, and its end closes the
        // pipe. A closed pipe means that its status follows at once. With
        // neither, it may still have been killed.
        let mut reports = [PollFd::new(self.reports.as_fd(), PollFlags::POLLIN)];
        let mut closed = false;
        if poll(&mut reports, PollTimeout::ZERO).ok()? > 0 {
            match self.read_report() {
                Ok(Some(Report::Failed(error))) => return Some(error),
                Ok(Some(Report::SetUp | Report::Waits)) => return None,
                Ok(None) => closed = true,
                Err(error) => say!("{error:#}"),
            }
        }
        // WNOWAIT: the child remains to be reaped.
        let mut flags = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        flags.set(WaitIdOptions::NOHANG, !closed);
        let status = rustix::process::waitid(WaitId::Pid(pid), flags).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => anyhow!("the child died of signal {signal} while it was set up"),
            (code, _) => anyhow!(
                "the child ended with status {} while it was set up",
                code.unwrap_or_default()
            ),
        })
    }

    /// Kills and reaps the child because of `error`, and returns `error`.
    pub(crate) fn kill(mut self, error: Error) -> Error {
        let ended = ignore_gone(kill(self.pid, Signal::SIGKILL.into())).and_then(|()| {
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
        // ECHILD: the child was reaped before the error.
        match (ended, taken_back) {
            (Ok(()) | Err(Errno::ECHILD), Ok(())) => error,
            (Err(errno), _) => error.context(format!("kill and reap {}: {errno}", self.pid)),
            (_, Err(more)) => error.context(format!("{more:#}")),
        }
    }
}

/// Offers a signal to the isolations. Returns whether one has handled it.
fn taken(isolations: &mut [Box<dyn Isolation>], signal: SignalNumber) -> Result<bool> {
    for isolation in isolations {
        if isolation.signal(signal).with_context(|| isolation.name())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ignores `ESRCH`: a process that has ended needs no signal.
fn ignore_gone(sent: nix::Result<()>) -> nix::Result<()> {
    match sent {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}
