//! Which faults there are: of each call of a launch that was recorded.

use std::fmt;

use nix::errno::Errno;
use serde::Serialize;

use super::errors;
use super::follow::LAUNCHER;

/// A call of a launch, as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Who called: see [`Call::process`](super::follow::Call::process).
    pub process: String,
    /// The name of the call.
    pub call: String,
    /// Which of that name by that process, from 1.
    pub nth: usize,
    /// What it was about, without what differs from launch to launch.
    pub object: String,
    /// Whether a file is made if it is not there, for calls that can.
    pub creates: bool,
}

/// What is done at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails.
    Fail(Errno),
    /// The process is killed before it is done.
    KillBefore,
    /// The process is killed after it is done.
    KillAfter,
}

impl Fault {
    /// Whether the process is killed.
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

/// One fault at one call.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its number in the plan of all forms, from 1.
    pub number: usize,
    /// Which form of `run`: its place among [`FORMS`](super::forms::FORMS).
    pub form: usize,
    /// The call.
    pub at: Recorded,
    /// What is done there.
    pub fault: Fault,
}

/// All faults of the calls of a launch.
pub fn faults(recorded: &[Recorded]) -> Vec<(Recorded, Fault)> {
    let mut all = Vec::new();
    for at in recorded {
        if errors::left_alone(&at.call).is_some() {
            continue;
        }
        for errno in errors::of(&at.call) {
            // There is no space for what is not made.
            if *errno == Errno::ENOSPC && at.call.starts_with("open") && !at.creates {
                continue;
            }
            all.push((at.clone(), Fault::Fail(*errno)));
        }
        let opens = at.call.starts_with("open");
        if errors::changes(&at.call) && (!opens || at.creates) {
            all.push((at.clone(), Fault::KillBefore));
            // A child that is killed after a call is killed before its next one.
            if at.process == LAUNCHER {
                all.push((at.clone(), Fault::KillAfter));
            }
        }
    }
    all
}

/// The calls of `launch` without those that it makes as any program of ours
/// does: what is before main, and the reading of arguments. `other` is a launch
/// that does nothing else.
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
