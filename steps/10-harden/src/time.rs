//! `--time-offset`: a time namespace, in which the clocks that count from the
//! machine's start are shifted (time_namespaces(7)). The time of day is the
//! same for all.

use std::fmt;
use std::fs::{self, File};
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use nix::sched::{CloneFlags, setns, unshare};
use process::Isolation;

/// By how much a clock is shifted: `boottime=86400`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOffset {
    clock: Clock,
    seconds: i64,
    nanoseconds: u32,
}

impl TimeOffset {
    /// The same, and so many nanoseconds more: below a second.
    #[must_use]
    pub fn and_nanoseconds(self, nanoseconds: u32) -> Self {
        TimeOffset {
            nanoseconds,
            ..self
        }
    }
}

/// A clock that a time namespace has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Monotonic,
    BootTime,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Clock::Monotonic => "monotonic",
            Clock::BootTime => "boottime",
        })
    }
}

impl FromStr for TimeOffset {
    type Err = Error;

    /// Reads `CLOCK=SECONDS`.
    fn from_str(text: &str) -> Result<Self> {
        let known = text.split_once('=').and_then(|(clock, seconds)| {
            let clock = match clock {
                "monotonic" => Clock::Monotonic,
                "boottime" => Clock::BootTime,
                _ => return None,
            };
            let seconds = seconds.parse().ok()?;
            Some(TimeOffset {
                clock,
                seconds,
                nanoseconds: 0,
            })
        });
        known.with_context(|| format!("{text:?}: write monotonic=SECONDS or boottime=SECONDS"))
    }
}

impl fmt::Display for TimeOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.clock, self.seconds)
    }
}

kit::serde_as_text!(TimeOffset);

/// The isolation that makes a time namespace, if there are offsets. Add it
/// before `Mount`: it writes to /proc.
pub struct TimeNamespace {
    offsets: Vec<TimeOffset>,
}

impl TimeNamespace {
    /// An isolation with these offsets.
    pub fn new(offsets: Vec<TimeOffset>) -> Self {
        TimeNamespace { offsets }
    }
}

impl Isolation for TimeNamespace {
    fn name(&self) -> &'static str {
        "time"
    }

    // ANCHOR: time
    fn in_container(&mut self) -> Result<()> {
        if self.offsets.is_empty() {
            return Ok(());
        }
        let flag = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
        // The offsets can be set as long as nobody is in the namespace. So it
        // is made for children, and entered afterwards.
        unshare(flag).context("unshare(CLONE_NEWTIME): time namespaces need Linux 5.6")?;
        let file = "/proc/self/timens_offsets";
        for offset in &self.offsets {
            let TimeOffset {
                clock,
                seconds,
                nanoseconds,
            } = offset;
            fs::write(file, format!("{clock} {seconds} {nanoseconds}")).with_context(|| {
                format!("write {offset} to {file}: no clock can be below zero, or beyond 146 years")
            })?;
        }
        let link = "/proc/self/ns/time_for_children";
        let namespace = File::open(link).with_context(|| format!("open {link}"))?;
        setns(&namespace, flag).context("setns(CLONE_NEWTIME)")
    }
    // ANCHOR_END: time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_and_seconds() {
        for good in ["monotonic=-5", "boottime=86400"] {
            assert_eq!(good.parse::<TimeOffset>().unwrap().to_string(), good);
        }
        for bad in ["realtime=1", "boottime", "boottime=1s", "=1"] {
            assert!(bad.parse::<TimeOffset>().is_err(), "{bad}");
        }
    }
}
