//! The terminal and its foreground process group, handed to the container and
//! taken back, as a shell does for its jobs: tcsetpgrp(3), setpgid(2).

use std::io::{IsTerminal, Stdin, stderr, stdin, stdout};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{Pid, getpgrp, getpid, setpgid, tcgetpgrp, tcsetpgrp};

/// The terminal of a container that is a job of its own.
///
/// Its process group is the child's. Ctrl-C and Ctrl-Z then reach the
/// container and not the launcher, which need not guess whom they were for.
pub(crate) struct Terminal {
    tty: Stdin,
    job: Pid,
}

impl Terminal {
    /// Makes `child` the leader of a new process group and that group the
    /// foreground of the terminal. Called while the child waits, so it cannot
    /// read from the terminal too early.
    ///
    /// `None`, and nothing changed, where the launcher is not alone in the
    /// foreground of a terminal: in a pipeline (`step-01 ps | less`) the other
    /// members need the terminal as well, and the container then stays in the
    /// launcher's group.
    ///
    /// # Errors
    /// Those of setpgid(2) and tcsetpgrp(3).
    pub(crate) fn hand_over(child: Pid) -> Result<Option<Self>> {
        // ANCHOR: exercise_hand_over_the_terminal
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
        // ANCHOR_END: exercise_hand_over_the_terminal
    }

    /// Gives the terminal to the container, if it is the launcher's to give:
    /// after `fg`, not after `bg`.
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

    /// Takes the terminal back. The launcher is in the background at that
    /// moment: SIGTTOU must be blocked, as `Signals` does.
    pub(crate) fn take_back(&self) -> Result<()> {
        match tcsetpgrp(&self.tty, getpgrp()) {
            // The terminal has been hung up: there is nothing to take back.
            Ok(()) | Err(Errno::EIO | Errno::ENOTTY) => Ok(()),
            Err(errno) => Err(errno).context("tcsetpgrp(own group)"),
        }
    }
}
