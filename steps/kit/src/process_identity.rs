//! A process, named in a way that outlives it.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use procfs::process::{Process, Stat};
use serde::{Deserialize, Serialize};

/// How long to wait for the death of a process that was killed, in milliseconds.
const PATIENCE: u32 = 2000;

/// A process, by its PID and the time at which it began (proc_pid_stat(5),
/// field 22, in clock ticks since boot). The PID alone is given to another
/// process some day; both together are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its PID.
    pub pid: i32,
    /// Its start.
    pub start: u64,
}

impl ProcessIdentity {
    /// This process.
    ///
    /// # Errors
    /// Those of reading /proc/self/stat.
    pub fn current() -> Result<Self> {
        let stat = Process::myself()
            .and_then(|process| process.stat())
            .context("read /proc/self/stat")?;
        Ok(ProcessIdentity {
            pid: stat.pid,
            start: stat.starttime,
        })
    }

    /// Whether it still runs. One that was killed and has not been waited for
    /// (state Z) does not. For one that has been sent SIGKILL, but is still at
    /// work in the kernel, this waits: it may be making something there.
    pub fn is_alive(&self) -> bool {
        let Some(stat) = self.stat() else {
            return false;
        };
        let killed = stat.signal & (1 << (Signal::SIGKILL as u32 - 1)) != 0;
        if !killed {
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

    /// Whether the process `pid` is a child of this one, which runs. As long as
    /// that is so, nobody else gets the PID.
    pub fn is_parent_of(&self, pid: i32) -> bool {
        let child = Process::new(pid).and_then(|child| child.stat());
        child.is_ok_and(|child| child.ppid == self.pid) && self.stat().is_some()
    }

    /// Its line in /proc, as long as it is this process and runs.
    fn stat(&self) -> Option<Stat> {
        let stat = Process::new(self.pid).ok()?.stat().ok()?;
        let is_it = stat.starttime == self.start && !matches!(stat.state, 'Z' | 'X');
        is_it.then_some(stat)
    }
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
        assert!(process.is_alive());
        child.kill().unwrap();
        while Process::new(pid).unwrap().stat().unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        assert!(!process.is_alive());
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
