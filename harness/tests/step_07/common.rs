//! What the checks of step 07 have in common: the groups of a container, groups
//! and devices of a check's own, callers without rights.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use check::cgroup;
use check::cgroup::Groups;
use check::prelude::*;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn groups(held: &Held) -> Result<Groups> {
    cgroup::of(held.pid()?)
}

pub(crate) fn own_groups() -> Result<Groups> {
    cgroup::of(std::process::id() as i32)
}

pub(crate) fn number(what: &str, text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| failed(format!("a number in {what}"), format!("{text:?}")))
}

/// The last CPU of this machine that is online.
pub(crate) fn last_cpu() -> Result<u32> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").context("read online")?;
    let last = text.trim().rsplit([',', '-']).next().unwrap_or("0");
    last.parse().context("the last CPU online")
}

/// CPU time of a process so far, in clock ticks.
pub(crate) fn cpu_ticks(pid: i32) -> Result<u64> {
    let file = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || times.next().and_then(|n| n.parse::<u64>().ok());
    next()
        .zip(next())
        .map(|(user, system)| user + system)
        .context("CPU time in stat")
}

/// The PID of a container's first process, once it computes.
pub(crate) fn computing(held: &Held) -> Result<i32> {
    wait_for(|| {
        let pid = held.pid().ok()?;
        (cpu_ticks(pid).ok()? > 5).then_some(pid)
    })
    .ok_or_else(|| {
        failed(
            "a container that computes",
            "none: its first process has not begun within ten seconds, or could not",
        )
    })
}

pub(crate) fn kill(pid: i32) -> Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)
        .with_context(|| format!("kill {pid}"))
}

/// Where a process is in the hierarchy of a controller, by lines of
/// /proc/self/cgroup that it has seen itself.
pub(crate) fn path_in<'a>(lines: &'a [String], controller: &str) -> &'a str {
    let of = |wanted: &dyn Fn(&str) -> bool| {
        lines.iter().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            wanted(fields.next()?).then(|| fields.next())?
        })
    };
    of(&|list| list.split(',').any(|word| word == controller))
        .or_else(|| of(&|list| list.is_empty()))
        .unwrap_or("none")
}

/// A call of the step's program where it may change no group.
pub(crate) fn read_only(c: &Check, args: &[&str]) -> Result<Ran> {
    let program = c.step().command().get_program().to_owned();
    c.other_program("probe")
        .args(["read-only-groups", "--"])
        .args([program])
        .args(args)
        .run()
}

/// A call of the step's program by this user, in the group `dir`.
pub(crate) fn called_by(c: &Check, uid: u32, dir: Option<&Path>) -> Result<Step> {
    let bin = c.programs_for_all()?;
    let mut step = c.other_program("probe");
    if let Some(dir) = dir {
        step = step.args(["in-group".as_ref(), dir.as_os_str(), "--".as_ref()]);
        step = step.args([bin.join("probe")]);
    }
    Ok(step
        .args(["as", "--uid", &uid.to_string(), "--"])
        .args([bin.join("step-07")])
        .env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        ))
}

/// A group that a check makes, and that goes with it.
pub(crate) struct Made(pub(crate) PathBuf);

impl Made {
    pub(crate) fn in_v2(name: &str) -> Result<Self> {
        Self::at(Path::new("/sys/fs/cgroup").join(name))
    }

    pub(crate) fn at(dir: PathBuf) -> Result<Self> {
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        Ok(Made(dir))
    }

    /// Gives the group, as far as delegation goes (cgroups(7)), to a user.
    pub(crate) fn delegate(&self, uid: u32) -> Result<()> {
        for file in [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
        ] {
            std::os::unix::fs::chown(self.0.join(file), Some(uid), Some(uid))
                .with_context(|| format!("chown {file} of {}", self.0.display()))?;
        }
        Ok(())
    }

    pub(crate) fn groups_in_it(&self) -> Result<BTreeSet<String>> {
        let list = fs::read_dir(&self.0).context("list the group")?;
        Ok(list
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect())
    }

    pub(crate) fn subtree_control(&self) -> Result<String> {
        let text = fs::read_to_string(self.0.join("cgroup.subtree_control"))
            .context("read cgroup.subtree_control")?;
        Ok(text.trim().to_owned())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // What is left in it is the guard's to find.
        if let Err(e) = fs::remove_dir(&self.0) {
            eprintln!("rmdir {}: {e}", self.0.display());
        }
    }
}

/// A loop device over a file of the check's, that goes with it.
pub(crate) struct Loop(pub(crate) String);

impl Loop {
    pub(crate) fn new(c: &Check, mib: u64) -> Result<Self> {
        let file = c.dir().join(c.word("disk"));
        fs::File::create(&file)
            .and_then(|file| file.set_len(mib * MIB))
            .context("make a disk image")?;
        let output = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(&file)
            .output()
            .context("run losetup")?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || device.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(unsupported(format!("no loop device: {said}")));
        }
        Ok(Loop(device))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(e) = Command::new("losetup").args(["-d", &self.0]).status() {
            eprintln!("losetup -d {}: {e}", self.0);
        }
    }
}
