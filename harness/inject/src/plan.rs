//! The faults to inject into the calls of a recorded launch.

use std::fmt;

use nix::errno::Errno;
use serde::Serialize;

use super::errors;
use check::trace::follow::LAUNCHER;

/// A recorded call of a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Name of the process: see
    /// [`Call::process`](check::trace::follow::Call::process).
    pub process: String,
    /// Name of the call.
    pub call: String,
    /// Number among the calls of this name by this process, from 1.
    pub nth: usize,
    /// Its object, without what varies between launches.
    pub object: String,
    /// Whether the call makes a missing file.
    pub creates: bool,
}

/// A fault at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this errno.
    Fail(Errno),
    /// The process is killed before the call.
    KillBefore,
    /// The process is killed after the call.
    KillAfter,
}

impl Fault {
    /// Whether the fault kills the process.
    pub fn kills(self) -> bool {
        !matches!(self, Fault::Fail(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Fail(errno) => write!(f, "{errno:?}"),
            Fault::KillBefore => f.write_str("killed before"),
            Fault::KillAfter => f.write_str("killed after"),
        }
    }
}

/// A fault in the plan.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Number in the plan of all forms, from 1.
    pub number: usize,
    /// Index of the form in [`FORMS`](super::forms::FORMS).
    pub form: usize,
    /// The call at which it is injected.
    pub at: Recorded,
    /// What is injected.
    pub fault: Fault,
}

/// All faults for the calls of a launch.
pub fn faults(recorded: &[Recorded]) -> Vec<(Recorded, Fault)> {
    let mut all = Vec::new();
    for at in recorded {
        if errors::left_alone(&at.call).is_some() {
            continue;
        }
        for errno in errors::of(&at.call) {
            // Only a call that makes a file needs space.
            if *errno == Errno::ENOSPC && at.call.starts_with("open") && !at.creates {
                continue;
            }
            all.push((at.clone(), Fault::Fail(*errno)));
        }
        let opens = at.call.starts_with("open");
        if errors::changes(&at.call) && (!opens || at.creates) {
            all.push((at.clone(), Fault::KillBefore));
            // A kill of a child after a call equals a kill before its next one.
            if at.process == LAUNCHER {
                all.push((at.clone(), Fault::KillAfter));
            }
        }
    }
    all
}

/// The calls of `launch` without those that every program of ours makes: the
/// start before main, and the parsing of arguments. `other` is a launch that
/// only starts.
pub fn without_start(launch: Vec<Recorded>, other: &[Recorded]) -> Vec<Recorded> {
    let alike = launch
        .iter()
        .zip(other)
        .take_while(|(a, b)| a.call == b.call)
        .count();
    launch.into_iter().skip(alike).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(call: &str, creates: bool) -> Recorded {
        Recorded {
            process: LAUNCHER.to_owned(),
            call: call.to_owned(),
            nth: 1,
            object: String::new(),
            creates,
        }
    }

    #[test]
    fn each_call_has_its_faults() {
        let of = |recorded| {
            faults(&[recorded])
                .iter()
                .map(|(_, f)| f.to_string())
                .collect()
        };
        let mkdir: Vec<String> = of(call("mkdir", false));
        assert_eq!(mkdir, ["ENOSPC", "EEXIST", "killed before", "killed after"]);
        let read: Vec<String> = of(call("openat", false));
        assert_eq!(read, ["ENOENT", "EACCES", "EMFILE", "ENFILE", "EIO"]);
        assert!(faults(&[call("brk", false)]).is_empty());
    }

    #[test]
    fn what_every_program_does_is_no_part_of_the_launch() {
        let launch = ["execve", "brk", "poll", "openat", "read"].map(|name| call(name, false));
        let other = ["execve", "brk", "poll", "write"].map(|name| call(name, false));
        let left = without_start(launch.to_vec(), &other);
        assert_eq!(
            left.iter().map(|c| c.call.as_str()).collect::<Vec<_>>(),
            ["openat", "read"]
        );
    }
}
