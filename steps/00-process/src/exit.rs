//! How a container ended.

use anyhow::Result;
use kit::SignalNumber;

use crate::failure::Failure;

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

/// The end of a set-up that a signal has broken off.
pub(crate) fn broken_off<T>(signal: SignalNumber) -> Result<T> {
    Err(Failure::new(
        Exit::Signal(signal.raw()).status(),
        format!("{signal} arrived before the command was started"),
    )
    .into())
}
