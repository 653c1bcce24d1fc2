//! The host's terminal, out of the way: termios(3), “Raw mode”.
//!
//! In raw mode it neither echoes nor makes signals of keys: Ctrl-C is a byte
//! that goes to the container's own terminal, which does that for whoever is in
//! the foreground there.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use kit::say;
use nix::unistd::getpgrp;
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// A terminal that was made raw, and is made what it was when this is dropped.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Makes the terminal raw, if this process is in its foreground.
    ///
    /// # Errors
    /// Those of tcgetattr(3) and tcsetattr(3).
    pub fn enter(terminal: OwnedFd) -> Result<Self> {
        let before = tcgetattr(&terminal).context("tcgetattr")?;
        let raw = Raw { terminal, before };
        raw.again()?;
        Ok(raw)
    }

    /// Makes it raw once more: the shell has had it meanwhile.
    ///
    /// # Errors
    /// Those of tcsetattr(3).
    pub fn again(&self) -> Result<()> {
        let own =
            tcgetpgrp(&self.terminal).is_ok_and(|group| group.as_raw_pid() == getpgrp().as_raw());
        if !own {
            return Ok(());
        }
        let mut raw = self.before.clone();
        raw.make_raw();
        self.set(&raw)
    }

    fn set(&self, termios: &Termios) -> Result<()> {
        match tcsetattr(&self.terminal, OptionalActions::Drain, termios) {
            // It has been hung up.
            Ok(()) | Err(Errno::IO | Errno::NOTTY) => Ok(()),
            Err(errno) => Err(errno).context("tcsetattr"),
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = self.set(&self.before) {
            say!("the terminal stays raw: {error:#}; type reset");
        }
    }
}
