//! A fence between a hostile program under test and the checks that come after
//! it, in the virtual machine.
//!
//! The programs of a submission run as root beside the runner. What they do in
//! their own check is theirs to win or lose; the fence is there so that they
//! gain nothing in another one:
//!
//! | they | but |
//! |---|---|
//! | read the plan, with the seed and the token of the records | it was removed before |
//! | read or change the memory, or take the descriptors, of the runner or a check | nobody may trace anybody (Yama), and the kernel is locked down (kernel_lockdown(7)) |
//! | replace the checks' program | it is executed from a sealed memory file (memfd_create(2)) |
//! | replace the probe, a root file system or a tool, or mount something over them | they are compared with what they were before each check |
//! | stay behind, or have the kernel start them | all processes are killed after each check, and the kernel's helpers are compared |
//! | end the machine, or the runner | what is known by then has been told, and the rest is lost to them |
//!
//! It does not stop a program that answers in the place of the probe: what a
//! check reads from inside a container, it reads through the program under test.

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

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// The fence. It stands as long as the machine does.
pub struct Fence {
    /// A procfs that is mounted nowhere, so that nothing can be mounted on it.
    proc: OwnedFd,
    /// The checks' programs, sealed, by the path that they had.
    tests: BTreeMap<PathBuf, File>,
    before: Picture,
}

impl Fence {
    /// Puts it up. `plan_file` is removed.
    ///
    /// # Errors
    /// Those of the calls; and outside of the virtual machine, where it would
    /// kill every process.
    pub fn put_up(plan: &Plan, plan_file: &Path) -> Result<Self> {
        let line = fs::read_to_string("/proc/cmdline").context("read /proc/cmdline")?;
        ensure!(
            geteuid().is_root() && line.contains(" drydock.cgroup="),
            "a plan that is not trusted is run in the virtual machine only"
        );
        fs::remove_file(plan_file).with_context(|| format!("unlink {}", plan_file.display()))?;
        lock::lock_the_kernel()?;
        // A program that wants all memory does not get the runner's.
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

    /// Where the checks' program is now that was at `path`.
    pub fn tests(&self, path: &Path) -> Option<PathBuf> {
        let file = self.tests.get(path)?;
        Some(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
    }

    /// Whether all is as it was; the error says what is not.
    ///
    /// # Errors
    /// Something was changed, or cannot be looked at any more.
    pub fn broken(&self) -> Result<()> {
        let now = Picture::take(&self.proc)?;
        self.before.compare(&now)?;
        for dir in SCRATCH {
            empty(Path::new(dir))?;
        }
        Ok(())
    }

    /// To be called with each check that was started: it may be killed for
    /// memory, as the runner may not.
    ///
    /// # Errors
    /// Those of writing.
    pub fn started(&self, check: &Child) -> Result<()> {
        let file = format!("/proc/{}/oom_score_adj", check.id());
        match fs::write(&file, "0") {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("write 0 to {file}"))
            }
            _ => Ok(()),
        }
    }

    /// Kills every process of the machine but its first and this one.
    ///
    /// # Errors
    /// If one stays, and those of kill(2).
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

    /// A process that runs beside the first and this one.
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
            // It may be gone meanwhile.
            let stat = proc::read(&self.proc, &format!("{name}/stat")).unwrap_or_default();
            if is_alive(&stat) {
                return Ok(Some(pid));
            }
        }
        Ok(None)
    }
}

/// Whether a line of proc_pid_stat(5) is of a process that is no thread of the
/// kernel and not dead.
fn is_alive(stat: &str) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    // The name stands in brackets and may hold anything.
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut words = rest.split(' ');
    let state = words.next().unwrap_or_default();
    let flags = words.nth(5).and_then(|word| word.parse::<u32>().ok());
    !matches!(state, "Z" | "X") && flags.is_some_and(|flags| flags & PF_KTHREAD == 0)
}

/// Removes all that is in a directory. What is a mount point stays.
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
