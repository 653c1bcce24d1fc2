//! Signals to the launcher: held back during the set-up, then passed on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use kit::sys::signals::{self, block, read_signal, set_mask, signalfd};
use kit::{SignalNumber, SignalSet};

/// What is not held back: two that nobody can, those by which the kernel tells
/// a process of its own faults, and SIGTTIN, which stops a launcher that reads
/// from the terminal in the background as it stops any job.
const NOT_TAKEN: [Signal; 10] = [
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGTTIN,
];

/// What asks the launcher to stop: a set-up that has not come to the command yet
/// is broken off instead of told.
const STOP: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// A signal that has arrived, and from where.
pub(crate) struct Arrived {
    pub(crate) signal: SignalNumber,
    /// Sent by the kernel, on behalf of the terminal for instance (`si_code`
    /// above 0, sigaction(2)): to the whole foreground process group, not to us
    /// alone.
    pub(crate) from_kernel: bool,
}

/// The launcher's signals, blocked while this lives and read from a descriptor.
///
/// Blocked, they cannot end the launcher before it has left the host as it was.
pub(crate) struct Signals {
    fd: OwnedFd,
    /// Readable when one of [`STOP`] has arrived.
    stop: OwnedFd,
    before: SignalSet,
}

impl Signals {
    // ANCHOR: block
    /// Blocks every signal that somebody may send to the launcher and mean for
    /// the container: `kill`, a terminal, a service manager. Real-time signals
    /// are among them.
    ///
    /// What the caller ignores stays ignored, and is not passed on: `nohup` and
    /// a shell's `&` count for the container as well. SIGCHLD is the launcher's
    /// own: to ignore it would leave nothing to wait for.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub(crate) fn block() -> Result<Self> {
        // ANCHOR: exercise_block_signals
        signals::default_action(Signal::SIGCHLD)?;
        let not_taken: SignalSet = NOT_TAKEN.into_iter().collect();
        let ignored = signals::ignored()?;
        let taken = SignalSet::ALL.without(not_taken).without(ignored);
        let stop = STOP.into_iter().filter(|signal| !ignored.contains(*signal));
        Ok(Signals {
            fd: signalfd(taken)?,
            stop: signalfd(stop.collect())?,
            // SIGTTOU in any case: the launcher meets it when it takes the
            // terminal back.
            before: block(taken.with(Signal::SIGTTOU))?,
        })
        // ANCHOR_END: exercise_block_signals
    }
    // ANCHOR_END: block

    /// Waits for the next signal.
    ///
    /// # Errors
    /// Those of read(2) on a signalfd.
    pub(crate) fn next(&mut self) -> Result<Arrived> {
        let (signal, code) = read_signal(&self.fd)?;
        Ok(Arrived {
            signal,
            from_kernel: code > 0,
        })
    }

    // ANCHOR: unless_asked_to_stop
    /// Waits until `file` can be read, or is at its end. `Some` if a signal came
    /// before that and asks the launcher to stop.
    ///
    /// # Errors
    /// Those of poll(2) and of reading a signalfd.
    pub(crate) fn unless_asked_to_stop(
        &self,
        file: BorrowedFd<'_>,
    ) -> Result<Option<SignalNumber>> {
        let mut fds = [file, self.stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.context("poll")?,
            };
            // What the child has to say comes first.
            if fds[0].any() == Some(true) {
                return Ok(None);
            }
            return self.asked_to_stop();
        }
    }
    // ANCHOR_END: unless_asked_to_stop

    /// The signal, already arrived, that asks the launcher to stop.
    ///
    /// # Errors
    /// Those of poll(2) and of reading a signalfd.
    pub(crate) fn asked_to_stop(&self) -> Result<Option<SignalNumber>> {
        Ok(match readable(&self.stop)? {
            true => Some(read_signal(&self.stop)?.0),
            false => None,
        })
    }
}

/// Whether a signal waits there.
fn readable(signalfd: &OwnedFd) -> Result<bool> {
    let mut fd = [PollFd::new(signalfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fd, PollTimeout::ZERO).context("poll the signalfd")? > 0)
}

impl Drop for Signals {
    /// What has arrived by now was meant for a command that is gone, or has
    /// broken the set-up off; it must not end the launcher on top of that.
    fn drop(&mut self) {
        let restored = loop {
            match readable(&self.fd) {
                Ok(true) => {
                    if let Err(error) = read_signal(&self.fd) {
                        break Err(error);
                    }
                }
                Ok(false) => break set_mask(self.before),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = restored {
            eprintln!("{error:#}");
        }
    }
}
