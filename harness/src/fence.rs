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

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::runner::Plan;
use crate::workspace;

/// Programs of the machine that checks call, and where others could be put in
/// their place.
const SYSTEM: [&str; 6] = [
    "/bin",
    "/sbin",
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.preload",
];

/// What the kernel executes by itself, as root: core(5), and
/// `Documentation/admin-guide/sysctl/kernel.rst`.
const HELPERS: [&str; 2] = ["sys/kernel/core_pattern", "sys/kernel/modprobe"];

/// Where a check, and what it starts, may leave files and mounts: nothing that
/// a later one calls is there.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

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

/// What must stay as it is.
#[derive(PartialEq, Eq)]
struct Picture {
    files: BTreeMap<PathBuf, Content>,
    mounts: Vec<String>,
    helpers: Vec<String>,
}

#[derive(PartialEq, Eq)]
enum Content {
    File(u32, Vec<u8>),
    Link(PathBuf),
    Other(u32),
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
        lock_the_kernel()?;
        // A program that wants all memory does not get the runner's.
        let own = "/proc/self/oom_score_adj";
        fs::write(own, "-1000").with_context(|| format!("write -1000 to {own}"))?;
        let mut tests = BTreeMap::new();
        for batch in &plan.batches {
            if !tests.contains_key(&batch.tests) {
                tests.insert(batch.tests.clone(), sealed(&batch.tests)?);
                fs::remove_file(&batch.tests)
                    .with_context(|| format!("unlink {}", batch.tests.display()))?;
            }
        }
        let proc = own_proc()?;
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
        let names = |picture: &Picture| picture.files.keys().cloned().collect::<Vec<_>>();
        let changed = names(&self.before)
            .into_iter()
            .chain(names(&now))
            .find(|file| self.before.files.get(file) != now.files.get(file));
        if let Some(file) = changed {
            bail!("{} was changed", file.display());
        }
        if let Some(mount) = differing(&self.before.mounts, &now.mounts) {
            bail!("the machine's mounts were changed: {mount}");
        }
        if let Some(helper) = differing(&self.before.helpers, &now.helpers) {
            bail!("what the kernel starts by itself was changed: {helper}");
        }
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
            let stat = read(&self.proc, &format!("{name}/stat")).unwrap_or_default();
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

/// Nobody may trace anybody any more (ptrace(2), "ptrace_scope"), or read or
/// change the kernel's memory and boot another kernel (kernel_lockdown(7)).
fn lock_the_kernel() -> Result<()> {
    let scope = "/proc/sys/kernel/yama/ptrace_scope";
    fs::write(scope, "3").with_context(|| format!("write 3 to {scope}"))?;
    let dir = Path::new("/sys/kernel/security");
    mount(
        None::<&str>,
        dir,
        Some("securityfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mount(securityfs, {dir:?})"))?;
    let file = dir.join("lockdown");
    let locked = match fs::write(&file, "confidentiality") {
        // A kernel that was built without.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        written => written.with_context(|| format!("write to {}", file.display())),
    };
    umount2(dir, MntFlags::empty()).with_context(|| format!("umount {dir:?}"))?;
    locked
}

/// A copy of a program in memory that nobody can change any more.
fn sealed(program: &Path) -> Result<File> {
    let mut from = File::open(program).with_context(|| format!("open {}", program.display()))?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut memory = File::from(memfd_create(c"checks", flags).context("memfd_create")?);
    std::io::copy(&mut from, &mut memory).with_context(|| format!("copy {}", program.display()))?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).context("fcntl(F_ADD_SEALS)")?;
    Ok(memory)
}

/// A procfs of the machine that is in no mount namespace.
fn own_proc() -> Result<OwnedFd> {
    let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen(proc)")?;
    fsconfig_create(&fs).context("fsconfig(proc, FSCONFIG_CMD_CREATE)")?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mounted = fsmount(&fs, flags, MountAttrFlags::empty()).context("fsmount(proc)")?;
    // What fsmount gives stands for the place only: open(2), O_PATH.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(&mounted, ".", flags, Mode::empty()).context("open the root of /proc")
}

fn read(proc: &OwnedFd, file: &str) -> Result<String> {
    let opened = openat(proc, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {file} of /proc"))?;
    let mut bytes = Vec::new();
    File::from(opened)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {file} of /proc"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Picture {
    fn take(proc: &OwnedFd) -> Result<Picture> {
        let mut files = BTreeMap::new();
        let ours = [workspace::bin(), workspace::rootfs("busybox")];
        for path in SYSTEM.iter().map(PathBuf::from).chain(ours) {
            look(&path, &mut files)?;
        }
        let mut mounts: Vec<String> = read(proc, "self/mountinfo")?
            .lines()
            .filter_map(mounted)
            .collect();
        mounts.sort();
        let helpers = HELPERS.map(|file| {
            let value = read(proc, file).unwrap_or_default();
            format!("{file} {}", value.trim())
        });
        Ok(Picture {
            files,
            mounts,
            helpers: helpers.into(),
        })
    }
}

/// What is mounted where, of a line of proc_pid_mountinfo(5); `None` where a
/// check may leave what it likes.
fn mounted(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let words: Vec<&str> = before.split(' ').collect();
    let at = words.get(4)?;
    let scratch = SCRATCH.iter().any(|dir| {
        at.strip_prefix(dir)
            .is_some_and(|rest| rest.starts_with('/'))
    });
    let kind = after.split(' ').next()?;
    (!scratch).then(|| format!("{kind} {} on {at}", words[3]))
}

/// Notes all that is at `path` and below it.
fn look(path: &Path, files: &mut BTreeMap<PathBuf, Content>) -> Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        meta => meta.with_context(|| format!("stat {}", path.display()))?,
    };
    let mode = meta.permissions().mode();
    let content = if meta.is_symlink() {
        let target = fs::read_link(path).with_context(|| format!("readlink {}", path.display()))?;
        Content::Link(target)
    } else if meta.is_file() {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Content::File(mode, bytes)
    } else {
        if meta.is_dir() && !path.ends_with("lib/modules") {
            for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
                let entry = entry.with_context(|| format!("list {}", path.display()))?;
                look(&entry.path(), files)?;
            }
        }
        Content::Other(mode)
    };
    files.insert(path.to_owned(), content);
    Ok(())
}

/// A line of one list that the other does not have.
fn differing<'a>(before: &'a [String], now: &'a [String]) -> Option<&'a String> {
    let gone = before.iter().find(|line| !now.contains(line));
    gone.or_else(|| now.iter().find(|line| !before.contains(line)))
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

/// Writes a record for the host, as a line that begins with the token: whoever
/// does not know it cannot have written a record.
///
/// # Errors
/// Those of writing.
pub fn write_line(mut out: impl Write, token: Option<&str>, json: &[u8]) -> Result<()> {
    let mut line = token.map(str::to_owned).unwrap_or_default().into_bytes();
    line.extend_from_slice(json);
    line.push(b'\n');
    out.write_all(&line)
        .and_then(|()| out.flush())
        .context("write a record")
}

/// The record in a line, if it begins with the token.
pub fn read_line<'a>(line: &'a str, token: Option<&str>) -> Option<&'a str> {
    line.strip_prefix(token.unwrap_or_default())
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
    fn a_record_without_the_token_is_none() {
        let mut line = Vec::new();
        write_line(&mut line, Some("secret "), b"{}").unwrap();
        let line = String::from_utf8(line).unwrap();
        assert_eq!(read_line(line.trim_end(), Some("secret ")), Some("{}"));
        assert_eq!(read_line("{}", Some("secret ")), None);
        assert_eq!(read_line("{}", None), Some("{}"));
    }

    #[test]
    fn threads_of_the_kernel_and_the_dead_are_nobody() {
        assert!(is_alive("7 (a) b) S 1 7 7 0 -1 4194304 1"));
        assert!(!is_alive("7 (sh) Z 1 7 7 0 -1 4194304 1"));
        assert!(!is_alive("2 (kthreadd) S 0 0 0 0 -1 2129984 1"));
    }

    #[test]
    fn mounts_of_checks_do_not_count() {
        let line = |at: &str| format!("30 25 0:26 / {at} rw shared:1 - tmpfs tmpfs rw");
        assert_eq!(mounted(&line("/proc")).as_deref(), Some("tmpfs / on /proc"));
        assert_eq!(mounted(&line("/tmp")).as_deref(), Some("tmpfs / on /tmp"));
        assert!(mounted(&line("/tmp/drydock-check-x/m")).is_none());
    }

    #[test]
    fn a_change_is_named() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("probe"), "1")?;
        let picture = || -> Result<_> {
            let mut files = BTreeMap::new();
            look(dir.path(), &mut files)?;
            Ok(files)
        };
        let before = picture()?;
        assert!(before == picture()?);
        fs::write(dir.path().join("probe"), "2")?;
        assert!(before != picture()?);
        empty(dir.path())?;
        assert_eq!(fs::read_dir(dir.path())?.count(), 0);
        Ok(())
    }
}
