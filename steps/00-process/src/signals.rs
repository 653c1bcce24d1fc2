//! Signals to the launcher: blocked during set-up, then forwarded.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use kit::sys::signals::{self, block, read_signal, set_mask, signalfd};
use kit::{SignalNumber, SignalSet};

/// Signals that stay unblocked: SIGKILL and SIGSTOP, which cannot be blocked,
/// the signals for faults of the process itself, and SIGTTIN, which stops a
/// launcher that reads from the terminal in the background, as it stops any
/// job.
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

/// Signals that ask the launcher to stop. Until the command starts, they
/// interrupt the set-up instead of being forwarded.
const STOP: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// A signal that has arrived, and its origin.
pub(crate) struct Arrived {
    pub(crate) signal: SignalNumber,
    /// Whether the kernel has sent it (`si_code` above 0, sigaction(2)), for
    /// example for the terminal: the whole foreground process group has then
    /// got it.
    pub(crate) from_kernel: bool,
}

/// The launcher's signals: blocked until this is dropped, and read from a
/// signalfd(2).
///
/// A blocked signal cannot end the launcher before it has cleaned up the host.
pub(crate) struct Signals {
    fd: OwnedFd,
    /// Readable when one of [`STOP`] has arrived.
    stop: OwnedFd,
    /// [`STOP`], without the signals that the caller ignores.
    stopping: SignalSet,
    before: SignalSet,
    meanwhile: Option<Meanwhile>,
}

/// Other work of a launcher that waits: called with a descriptor that is
/// readable as soon as a signal has arrived, and returns when it is.
pub type Meanwhile = Box<dyn FnMut(BorrowedFd<'_>) -> Result<()>>;

impl Signals {
    // ANCHOR: block
    /// Blocks every signal that may be meant for the container: from `kill`, a
    /// terminal or a service manager. Real-time signals are included.
    ///
    /// Signals that the caller ignores stay ignored and are not forwarded:
    /// `nohup` and a shell's `&` apply to the container as well. SIGCHLD is an
    /// exception: ignored, it would leave no child to wait for.
    pub(crate) fn block() -> Result<Self> {
        signals::default_action(Signal::SIGCHLD)?;
        let not_taken: SignalSet = NOT_TAKEN.into_iter().collect();
        let ignored = signals::ignored()?;
        let taken = SignalSet::ALL.without(not_taken).without(ignored);
        let stopping: SignalSet = STOP
            .into_iter()
            .filter(|signal| !ignored.contains(*signal))
            .collect();
        Ok(Signals {
            fd: signalfd(taken)?,
            stop: signalfd(stopping)?,
            stopping,
            // SIGTTOU in any case: the kernel sends it when the launcher takes
            // the terminal back.
            before: block(taken.with(Signal::SIGTTOU))?,
            meanwhile: None,
        })
    }
    // ANCHOR_END: block

    /// Does this work whenever it waits for a signal.
    pub(crate) fn meanwhile(&mut self, work: Meanwhile) {
        self.meanwhile = Some(work);
    }

    /// Waits for the next signal.
    pub(crate) fn next(&mut self) -> Result<Arrived> {
        if let Some(work) = &mut self.meanwhile {
            work(self.fd.as_fd())?;
        }
        let (signal, code) = read_signal(&self.fd)?;
        Ok(Arrived {
            signal,
            from_kernel: code > 0,
        })
    }

    // ANCHOR: unless_asked_to_stop
    /// Waits until `file` is readable or at its end. Returns the signal if one
    /// that asks the launcher to stop arrives first.
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
            // A report of the child takes precedence.
            if fds[0].any() == Some(true) {
                return Ok(None);
            }
            return self.asked_to_stop();
        }
    }
    // ANCHOR_END: unless_asked_to_stop

    /// The signals that ask the launcher to stop.
    pub(crate) fn stopping(&self) -> SignalSet {
        self.stopping
    }

    /// Returns the pending signal that asks the launcher to stop, if there is
    /// one.
    pub(crate) fn asked_to_stop(&self) -> Result<Option<SignalNumber>> {
        Ok(match readable(&self.stop)? {
            true => Some(read_signal(&self.stop)?.0),
            false => None,
        })
    }
}

/// Whether a signal is pending on `signalfd`.
fn readable(signalfd: &OwnedFd) -> Result<bool> {
    let mut fd = [PollFd::new(signalfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fd, PollTimeout::ZERO).context("poll the signalfd")? > 0)
}

impl Drop for Signals {
    /// Discards pending signals before it restores the mask: they were meant
    /// for a command that has ended, or have interrupted the set-up. They must
    /// not end the launcher as well.
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
            kit::errln!("{error:#}");
        }
    }
}
