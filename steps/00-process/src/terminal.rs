//! Job control: the container becomes the foreground process group of the
//! terminal, as a job of a shell does: tcsetpgrp(3), setpgid(2).

use std::io::{IsTerminal, Stdin, stderr, stdin, stdout};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{Pid, getpgrp, getpid, setpgid, tcgetpgrp, tcsetpgrp};

/// The terminal of a container that is a job of its own.
///
/// The foreground process group is the child's: Ctrl-C and Ctrl-Z reach the
/// container and not the launcher.
pub(crate) struct Terminal {
    tty: Stdin,
    job: Pid,
}

impl Terminal {
    /// Makes `child` the leader of a new process group, and that group the
    /// foreground of the terminal. Must be called while the child waits, before
    /// it can read from the terminal.
    ///
    /// Returns `None` and changes nothing if the launcher is not alone in the
    /// foreground of a terminal: in a pipeline (`step-01 ps | less`) the other
    /// members need the terminal as well. The container then stays in the
    /// launcher's group.
    pub(crate) fn hand_over(child: Pid) -> Result<Option<Self>> {
        let tty = stdin();
        let alone = tty.is_terminal()
            && stdout().is_terminal()
            && stderr().is_terminal()
            && getpgrp() == getpid()
            && tcgetpgrp(&tty) == Ok(getpgrp());
        if !alone {
            return Ok(None);
        }
        setpgid(child, child).with_context(|| format!("setpgid({child})"))?;
        let terminal = Terminal { tty, job: child };
        terminal.to_container()?;
        Ok(Some(terminal))
    }

    /// Gives the terminal to the container if the launcher is in the
    /// foreground: after `fg`, but not after `bg`.
    pub(crate) fn lend(&self) -> Result<()> {
        match tcgetpgrp(&self.tty) {
            Ok(group) if group == getpgrp() => self.to_container(),
            Ok(_) => Ok(()),
            Err(errno) => Err(errno).context("tcgetpgrp"),
        }
    }

    fn to_container(&self) -> Result<()> {
        tcsetpgrp(&self.tty, self.job).with_context(|| format!("tcsetpgrp({})", self.job))
    }

    /// Takes the terminal back. SIGTTOU must be blocked, as `Signals` does: the
    /// launcher is in the background at that moment.
    pub(crate) fn take_back(&self) -> Result<()> {
        match tcsetpgrp(&self.tty, getpgrp()) {
            // The terminal has been hung up: there is nothing to take back.
            Ok(()) | Err(Errno::EIO | Errno::ENOTTY) => Ok(()),
            Err(errno) => Err(errno).context("tcsetpgrp(own group)"),
        }
    }
}
