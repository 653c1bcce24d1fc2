//! Raw mode of the host's terminal: termios(3), “Raw mode”.
//!
//! A raw terminal neither echoes nor makes signals of keys. Ctrl-C is a byte
//! that goes to the container's own terminal, which sends the signal to its
//! foreground process group.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use kit::say;
use nix::unistd::getpgrp;
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// A terminal in raw mode. Dropping it restores the settings from before.
#[derive(Debug)]
pub struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Puts the terminal into raw mode, if this process is in its foreground.
    pub fn enter(terminal: OwnedFd) -> Result<Self> {
        let before = tcgetattr(&terminal).context("tcgetattr")?;
        let raw = Raw { terminal, before };
        raw.again()?;
        Ok(raw)
    }

    /// Enters raw mode again, after the shell has had the terminal.
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
            // The terminal has been hung up.
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
