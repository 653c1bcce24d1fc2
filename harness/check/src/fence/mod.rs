//! A fence, in the virtual machine, between a hostile program under test and
//! the checks that come after it.
//!
//! The programs of a submission run as root beside the runner. In their own
//! check they may win or lose by what they do; the fence keeps them from
//! gaining anything in another one:
//!
//! | they | but |
//! |---|---|
//! | read the plan, with the seed and the token of the records | it was removed before |
//! | read or change the memory, or take the descriptors, of the runner or a check | nobody may trace anybody (Yama), and the kernel is locked down (kernel_lockdown(7)) |
//! | replace the checks' program | it is executed from a sealed memory file (memfd_create(2)) |
//! | replace the probe, the root file system of busybox or a tool, or mount something over them | they are compared with their original state before each check |
//! | leave processes, or make the kernel start some | all processes are killed after each check, and the kernel's helpers are compared |
//! | end the machine, or the runner | the records so far have been sent, and the remaining checks are lost to them |
//!
//! It does not stop a program that answers in place of the probe: a check sees
//! that from outside (`step/outside.rs`).

mod lock;
mod picture;
mod proc;
mod record;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::plan::Plan;
use picture::{Picture, SCRATCH};

pub use record::{read_line, write_line};

/// Longest time for killed processes to end.
const DEATH: Duration = Duration::from_secs(10);

/// The fence. It lasts as long as the machine.
pub struct Fence {
    /// A procfs that is mounted nowhere, so that nothing can be mounted over
    /// it.
    proc: OwnedFd,
    /// The checks' programs, sealed, by their original paths.
    tests: BTreeMap<PathBuf, File>,
    before: Picture,
}

impl Fence {
    /// Puts the fence up and removes `plan_file`. Refuses outside of the
    /// virtual machine, where [`sweep`](Self::sweep) would kill every process.
    pub fn put_up(plan: &Plan, plan_file: &Path) -> Result<Self> {
        let line = fs::read_to_string("/proc/cmdline").context("read /proc/cmdline")?;
        ensure!(
            geteuid().is_root() && line.contains(" drydock.cgroup="),
            "a plan that is not trusted is run in the virtual machine only"
        );
        fs::remove_file(plan_file).with_context(|| format!("unlink {}", plan_file.display()))?;
        lock::lock_the_kernel()?;
        // A program that uses up all memory must not get the runner killed.
        let own = "/proc/self/oom_score_adj";
        fs::write(own, "-1000").with_context(|| format!("write -1000 to {own}"))?;
        let mut tests = BTreeMap::new();
        for batch in &plan.batches {
            if !tests.contains_key(&batch.tests) {
                tests.insert(batch.tests.clone(), lock::sealed(&batch.tests)?);
                fs::remove_file(&batch.tests)
                    .with_context(|| format!("unlink {}", batch.tests.display()))?;
            }
        }
        let proc = proc::own()?;
        let before = Picture::take(&proc)?;
        Ok(Fence {
            proc,
            tests,
            before,
        })
    }

    /// The path of the sealed copy of the checks' program that was at `path`.
    pub fn tests(&self, path: &Path) -> Option<PathBuf> {
        let file = self.tests.get(path)?;
        Some(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
    }

    /// Compares the machine with its original state. The error names a change.
    /// Also empties the scratch directories.
    pub fn broken(&self) -> Result<()> {
        let now = Picture::take(&self.proc)?;
        self.before.compare(&now)?;
        for dir in SCRATCH {
            empty(Path::new(dir))?;
        }
        Ok(())
    }

    /// Makes a started check a candidate for the OOM killer again, from which
    /// the runner is exempt. Call it for each check.
    pub fn started(&self, check: &Child) -> Result<()> {
        let file = format!("/proc/{}/oom_score_adj", check.id());
        match fs::write(&file, "0") {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("write 0 to {file}"))
            }
            _ => Ok(()),
        }
    }

    /// Kills every process of the machine except its first and this one. Fails
    /// if one survives.
    pub fn sweep(&self) -> Result<()> {
        let end = Instant::now() + DEATH;
        loop {
            match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).context("kill(-1, SIGKILL)"),
            }
            match self.somebody()? {
                None => return Ok(()),
                Some(pid) if Instant::now() > end => bail!("process {pid} cannot be killed"),
                Some(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The PID of a process besides the first and this one, if there is any.
    fn somebody(&self) -> Result<Option<i32>> {
        let list = rustix::fs::Dir::read_from(&self.proc).context("list /proc")?;
        for entry in list {
            let entry = entry.context("list /proc")?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse::<i32>() else {
                continue;
            };
            if pid == 1 || pid == Pid::this().as_raw() {
                continue;
            }
            // The process may be gone by now.
            let stat = proc::read(&self.proc, &format!("{name}/stat")).unwrap_or_default();
            if is_alive(&stat) {
                return Ok(Some(pid));
            }
        }
        Ok(None)
    }
}

/// Whether a line of proc_pid_stat(5) belongs to a living process that is not a
/// kernel thread.
fn is_alive(stat: &str) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    // The name is in parentheses and may contain anything.
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut words = rest.split(' ');
    let state = words.next().unwrap_or_default();
    let flags = words.nth(5).and_then(|word| word.parse::<u32>().ok());
    !matches!(state, "Z" | "X") && flags.is_some_and(|flags| flags & PF_KTHREAD == 0)
}

/// Removes everything in a directory except mount points.
fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("list {}", dir.display()))?
            .path();
        let removed = match fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::ResourceBusy => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_is_not_trusted_is_for_the_virtual_machine() {
        let plan = Plan {
            batches: Vec::new(),
            seed: 1,
            untrusted: true,
            until: crate::plan::Until::End,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Fence::put_up(&plan, file.path()).is_err());
        assert!(file.path().exists());
    }

    #[test]
    fn threads_of_the_kernel_and_the_dead_are_nobody() {
        assert!(is_alive("7 (a) b) S 1 7 7 0 -1 4194304 1"));
        assert!(!is_alive("7 (sh) Z 1 7 7 0 -1 4194304 1"));
        assert!(!is_alive("2 (kthreadd) S 0 0 0 0 -1 2129984 1"));
    }
}
