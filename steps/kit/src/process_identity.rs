//! The identity of a process: its PID and start time.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::FromRead;
use procfs::process::{Process, Stat};
use serde::{Deserialize, Serialize};

use crate::random;

/// The longest wait for the death of a killed process, in milliseconds.
const PATIENCE: u32 = 2000;

/// The flags of a process that is ending, and of one that a signal ends
/// (include/linux/sched.h).
const PF_EXITING: u32 = 0x4;
const PF_SIGNALED: u32 = 0x400;

/// The most containers of which a start asks each whether its launcher lives.
/// With more, the question would cost more than all the rest of the start, and
/// those whose PID [`is_taken`] are not asked.
pub const ALL_ASKED: usize = 16;

/// The most containers among which every start looks for dead launchers.
const FEW: usize = 64;

/// Whether a start looks for dead launchers among this many containers: always
/// among a few, and otherwise by lot, one start in `containers` / 64. So a start
/// does not take longer with every container. What is overlooked is found by a
/// later start, or by a full sweep, which `ps` and `restore` are.
pub fn looks_for_the_dead(containers: usize) -> Result<bool> {
    let lots = containers / FEW;
    if lots <= 1 {
        return Ok(true);
    }
    let drawn = u16::from_le_bytes(random::bytes()?);
    Ok(usize::from(drawn) % lots == 0)
}

/// Whether any process has this PID: one call, and no proof that it is the
/// process that once had it.
pub fn is_taken(pid: i32) -> bool {
    pid > 0 && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// A process, by its PID and start time. The kernel reuses a PID, but not
/// together with the start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The PID.
    pub pid: i32,
    /// The start time, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start: u64,
}

impl ProcessIdentity {
    /// The identity of this process.
    pub fn current() -> Result<Self> {
        let stat = Process::myself()
            .and_then(|process| process.stat())
            .context("read /proc/self/stat")?;
        Ok(ProcessIdentity {
            pid: stat.pid,
            start: stat.starttime,
        })
    }

    /// The identity of another process, which must not be reaped meanwhile.
    ///
    /// # Errors
    /// If there is no process with this PID.
    pub fn of(pid: i32) -> Result<Self> {
        let stat = Process::new(pid)
            .and_then(|process| process.stat())
            .with_context(|| format!("read /proc/{pid}/stat"))?;
        Ok(ProcessIdentity {
            pid: stat.pid,
            start: stat.starttime,
        })
    }

    /// Whether the process still runs. A zombie (state Z) does not. If SIGKILL
    /// is pending, or it is about to end, waits up to two seconds for the death
    /// of the process: it may still be at work in the kernel, and make something
    /// there. The first process of a PID namespace waits for all others there.
    pub fn is_alive(&self) -> bool {
        let Some(stat) = self.stat() else {
            return false;
        };
        if !is_ending(&stat) {
            return true;
        }
        for _ in 0..PATIENCE {
            thread::sleep(Duration::from_millis(1));
            if self.stat().is_none() {
                return false;
            }
        }
        true
    }

    /// Whether the process runs and is not about to end. Waits for nothing: the
    /// first process of a PID namespace ends only when all others there are reaped,
    /// of which the caller may have one.
    pub fn is_running(&self) -> bool {
        self.stat().is_some_and(|stat| !is_ending(&stat))
    }

    /// Whether this process runs and the process `pid` is its child. As long as
    /// that is so, `pid` is not reused.
    pub fn is_parent_of(&self, pid: i32) -> bool {
        stat_of(pid).is_some_and(|child| child.ppid == self.pid) && self.stat().is_some()
    }

    /// The `stat` of the process in /proc. `None` if it has ended, or if
    /// another process has its PID.
    fn stat(&self) -> Option<Stat> {
        let stat = stat_of(self.pid)?;
        let is_it = stat.starttime == self.start && !matches!(stat.state, 'Z' | 'X');
        is_it.then_some(stat)
    }
}

/// The `stat` of a process: one file, and not its directory first. `None` if
/// there is no such process.
fn stat_of(pid: i32) -> Option<Stat> {
    Stat::from_file(format!("/proc/{pid}/stat")).ok()
}

/// Whether SIGKILL is pending, or the process is on its way out.
fn is_ending(stat: &Stat) -> bool {
    let killed = stat.signal & (1 << (Signal::SIGKILL as u32 - 1)) != 0;
    killed || stat.flags & (PF_EXITING | PF_SIGNALED) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn this_process_lives_and_its_pid_alone_proves_nothing() {
        let own = ProcessIdentity::current().unwrap();
        assert!(own.is_alive());
        let earlier = ProcessIdentity {
            start: own.start - 1,
            ..own
        };
        assert!(!earlier.is_alive());
    }

    #[test]
    fn a_zombie_is_dead() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        let start = Process::new(pid).unwrap().stat().unwrap().starttime;
        let process = ProcessIdentity { pid, start };
        assert!(process.is_alive() && process.is_running());
        child.kill().unwrap();
        assert!(!process.is_running());
        while Process::new(pid).unwrap().stat().unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        assert!(!process.is_alive());
        assert!(is_taken(pid));
        child.wait().unwrap();
        assert!(!process.is_alive());
        assert!(!is_taken(pid) && !is_taken(0) && !is_taken(-1));
    }
}
