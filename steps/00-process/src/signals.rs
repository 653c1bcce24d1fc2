//! Signals to the launcher: held back during the set-up, then passed on.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::sys::pending_signals;

/// What `kill`, a terminal or a service manager may send to the launcher and
/// mean for the container.
const FORWARDED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// A signal that has arrived, and from where.
pub(crate) struct Arrived {
    pub(crate) signal: Signal,
    /// Sent by the kernel on behalf of the terminal (`si_code` above 0,
    /// sigaction(2)): to the whole foreground process group, not to us alone.
    pub(crate) from_terminal: bool,
}

/// The launcher's signals, blocked while this lives and read from a descriptor.
///
/// Blocked, they cannot end the launcher before it has left the host as it was.
pub(crate) struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    // ANCHOR: block
    /// Blocks the signals that are passed on, SIGCHLD, and SIGTTOU, which the
    /// launcher meets when it takes the terminal back.
    ///
    /// # Errors
    /// Those of sigprocmask(2) and signalfd(2).
    pub(crate) fn block() -> Result<Self> {
        // ANCHOR: exercise_block_signals
        let mut set: SigSet = FORWARDED.into_iter().collect();
        set.add(Signal::SIGCHLD);
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("signalfd")?;
        set.add(Signal::SIGTTOU);
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))
            .context("sigprocmask(SIG_BLOCK)")?;
        Ok(Signals { fd, before })
        // ANCHOR_END: exercise_block_signals
    }
    // ANCHOR_END: block

    /// Sets the mask back to what it was: for the child, whose command shall
    /// start as its caller would have started it.
    pub(crate) fn unblock(&self) -> Result<()> {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None)
            .context("sigprocmask(SIG_SETMASK)")
    }

    /// Waits for the next signal.
    ///
    /// # Errors
    /// Those of read(2) on a signalfd.
    pub(crate) fn next(&mut self) -> Result<Arrived> {
        loop {
            let Some(info) = self.fd.read_signal().context("read signalfd")? else {
                continue;
            };
            let signal = Signal::try_from(info.ssi_signo as i32).context("signalfd")?;
            return Ok(Arrived {
                signal,
                from_terminal: info.ssi_code > 0,
            });
        }
    }

    /// The signal, already arrived, that asks the launcher to stop: a set-up
    /// that has not come to the command yet is broken off instead of told.
    ///
    /// # Errors
    /// Those of sigpending(2).
    pub(crate) fn asked_to_stop(&self) -> Result<Option<Signal>> {
        let pending = pending_signals()?;
        Ok([
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
        ]
        .into_iter()
        .find(|signal| pending.contains(*signal) && !self.before.contains(*signal)))
    }
}

impl Drop for Signals {
    /// What has arrived by now was meant for a command that is gone, or has
    /// broken the set-up off; it must not end the launcher on top of that.
    fn drop(&mut self) {
        let arrived = || -> Result<bool> {
            let mut fd = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fd, PollTimeout::ZERO).context("poll the signalfd")? > 0;
            Ok(ready && self.fd.read_signal().context("read signalfd")?.is_some())
        };
        let restored = loop {
            match arrived() {
                Ok(true) => {}
                Ok(false) => break self.unblock(),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = restored {
            eprintln!("{error:#}");
        }
    }
}
