//! The exit status of a container.

use anyhow::Result;
use kit::SignalNumber;

use crate::failure::Failure;

/// The exit status or fatal signal of the container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit(3) with this status.
    Code(u8),
    /// It was killed by the signal of this number, which may be a real-time
    /// one.
    Signal(i32),
}

impl Exit {
    /// The exit status of the launcher: the same, or 128 + the number of the
    /// signal.
    pub fn status(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal as u8,
        }
    }
}

/// The error for a set-up that `signal` has interrupted.
pub(crate) fn broken_off<T>(signal: SignalNumber) -> Result<T> {
    Err(Failure::new(
        Exit::Signal(signal.raw()).status(),
        format!("{signal} arrived before the command was started"),
    )
    .into())
}
