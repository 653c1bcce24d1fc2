//! Signals by number (signal(7)), including real-time signals: the types of nix
//! and rustix cover named signals only, and a launcher may get any signal.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use nix::sys::signal::Signal;

/// The highest signal number.
const LAST: i32 = 64;
/// The first real-time signal that is free for programs. The kernel's begin at
/// 32, and C libraries reserve the first two.
const RTMIN: i32 = 34;

/// Other names of signals: signal(7), “Standard signals”.
const SYNONYMS: [(&str, Signal); 3] = [
    ("CLD", Signal::SIGCHLD),
    ("IOT", Signal::SIGABRT),
    ("POLL", Signal::SIGIO),
];

/// The number of a signal, from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalNumber(i32);

impl SignalNumber {
    /// The signal of this number. `None` if the number is out of range.
    pub fn new(number: i32) -> Option<Self> {
        (1..=LAST).contains(&number).then_some(SignalNumber(number))
    }

    /// The number.
    pub fn raw(self) -> i32 {
        self.0
    }

    /// The standard signal of this number. `None` for a real-time signal.
    pub fn named(self) -> Option<Signal> {
        Signal::try_from(self.0).ok()
    }
}

impl From<Signal> for SignalNumber {
    fn from(signal: Signal) -> Self {
        SignalNumber(signal as i32)
    }
}

impl fmt::Display for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.named(), self.0) {
            (Some(signal), _) => f.write_str(signal.as_str()),
            (None, RTMIN) => f.write_str("SIGRTMIN"),
            (None, number @ RTMIN..) => write!(f, "SIGRTMIN+{}", number - RTMIN),
            (None, number) => write!(f, "signal {number}"),
        }
    }
}

impl FromStr for SignalNumber {
    type Err = Error;

    /// Parses what kill(1) and Docker accept: a name in either case, with or
    /// without `SIG`, `RTMIN+n`, `RTMAX-n`, or a number.
    fn from_str(text: &str) -> Result<Self> {
        parse(text).with_context(|| {
            format!(
                "{text:?} is not a signal: use a name such as SIGTERM or SIGRTMIN+3, or a number \
                 from 1 to {LAST}"
            )
        })
    }
}

fn parse(text: &str) -> Option<SignalNumber> {
    let decimal = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<i32>().ok()).flatten()
    };
    if let Some(number) = decimal(text) {
        return SignalNumber::new(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |number: i32| {
        (RTMIN..=LAST)
            .contains(&number)
            .then_some(SignalNumber(number))
    };
    match name {
        "RTMIN" => return real_time(RTMIN),
        "RTMAX" => return real_time(LAST),
        _ => {}
    }
    if let Some(above) = name.strip_prefix("RTMIN+") {
        return real_time(RTMIN.checked_add(decimal(above)?)?);
    }
    if let Some(below) = name.strip_prefix("RTMAX-") {
        return real_time(LAST.checked_sub(decimal(below)?)?);
    }
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == name);
    let signal = match synonym {
        Some((_, signal)) => *signal,
        None => Signal::from_str(&format!("SIG{name}")).ok()?,
    };
    Some(signal.into())
}

/// A set of signals: bit n-1 is signal n, as in the kernel and in the masks of
/// /proc/PID/status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalSet(pub(crate) u64);

impl SignalSet {
    /// The empty set.
    pub const EMPTY: SignalSet = SignalSet(0);
    /// All signals, from 1 to 64.
    pub const ALL: SignalSet = SignalSet(u64::MAX);

    /// The signals of this set that are not in `other`.
    #[must_use]
    pub fn without(self, other: SignalSet) -> Self {
        SignalSet(self.0 & !other.0)
    }

    /// This set with `signal` added.
    #[must_use]
    pub fn with(self, signal: impl Into<SignalNumber>) -> Self {
        SignalSet(self.0 | 1 << (signal.into().raw() - 1))
    }

    /// Whether `signal` is in the set.
    pub fn contains(self, signal: impl Into<SignalNumber>) -> bool {
        self.0 & 1 << (signal.into().raw() - 1) != 0
    }
}

impl<S: Into<SignalNumber>> FromIterator<S> for SignalSet {
    fn from_iter<I: IntoIterator<Item = S>>(signals: I) -> Self {
        signals.into_iter().fold(SignalSet::EMPTY, SignalSet::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_or_a_number() {
        for (text, number, shown) in [
            ("SIGUSR1", 10, "SIGUSR1"),
            ("usr1", 10, "SIGUSR1"),
            ("10", 10, "SIGUSR1"),
            ("SIGCLD", 17, "SIGCHLD"),
            ("SIGRTMIN+3", 37, "SIGRTMIN+3"),
            ("rtmin", 34, "SIGRTMIN"),
            ("RTMAX-27", 37, "SIGRTMIN+3"),
            ("64", 64, "SIGRTMIN+30"),
            ("SIGRTMAX", 64, "SIGRTMIN+30"),
            ("33", 33, "signal 33"),
        ] {
            let signal: SignalNumber = text.parse().unwrap();
            assert_eq!(
                (signal.raw(), &*signal.to_string()),
                (number, shown),
                "{text}"
            );
        }
        for text in [
            "",
            "SIG",
            "0",
            "65",
            "-1",
            "+9",
            " 9",
            "SIGNAL",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMIN-1",
            "RTMIN++1",
            "RTMAX-31",
            "RTMIN+",
            "4294967305",
        ] {
            assert!(
                text.parse::<SignalNumber>().is_err(),
                "{text:?} was accepted"
            );
        }
    }

    #[test]
    fn a_set_has_the_last_signal_too() {
        let last = SignalNumber::new(64).unwrap();
        let set = SignalSet::EMPTY.with(last).with(Signal::SIGHUP);
        assert!(set.contains(last) && set.contains(Signal::SIGHUP));
        assert_eq!(SignalSet::ALL.without(set).0, !(1 << 63 | 1));
    }
}
