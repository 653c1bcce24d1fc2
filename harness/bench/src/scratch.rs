//! The scratch place of a bench on this host: a directory, a mount namespace,
//! and cgroups of one name. All of it is removed at the end.
//!
//! The mount namespace takes every mount with it, however the bench ends. It
//! belongs to the thread, so mounts are read from /proc/thread-self. The names
//! of the directory and the cgroups contain the PID, so that the next bench, or
//! `just restore`, finds those of a bench that was killed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::geteuid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use check::restore::cgroups;
use check::{host, rtnl};

/// The name of the directory and the cgroups, up to the PID.
const PREFIX: &str = "drydock-bench-";

/// The parent of the directory. It is on a disk, as the state of containers is;
/// /tmp may be memory.
const PLACE: &str = "/var/tmp";

/// The runtime directory of launchers, whose content need not outlive a boot,
/// and drydock's part of it (hier(7)).
const RUN: &str = "/run";
const OUR_RUN: &str = "/run/drydock";

/// Errors of a removal while others still create or remove something there, the
/// number of retries, and the pause between two: ten seconds together.
const DISTURBED: [ErrorKind; 3] = [
    ErrorKind::DirectoryNotEmpty,
    ErrorKind::NotFound,
    ErrorKind::ResourceBusy,
];
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(10);

/// A flag that asks the bench to end. ^C, SIGTERM and SIGHUP set it.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A flag that the signals set from now on.
    pub fn listen() -> Result<Stop> {
        let stop = Stop::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0))
                .with_context(|| format!("sigaction({signal})"))?;
        }
        Ok(stop)
    }

    /// Returns an error if a signal has arrived.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted; what was made is removed");
        }
        Ok(())
    }
}

/// The scratch place. Dropping it removes it.
pub struct Scratch {
    dir: PathBuf,
    name: String,
    /// Tells whether the bench is asked to end.
    pub stop: Stop,
}

impl Scratch {
    /// Makes the place, and removes those of benches that were killed. Requires
    /// root.
    pub fn enter() -> Result<Scratch> {
        if !geteuid().is_root() {
            bail!("this measures on this host, with cgroups and overlays: it needs root (sudo)");
        }
        sweep();
        let name = format!("{PREFIX}{}", std::process::id());
        unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .context("mount(/, MS_PRIVATE)")?;
        let stop = Stop::listen()?;
        let dir = Path::new(PLACE).join(&name);
        let scratch = Scratch { dir, name, stop };
        fs::create_dir(&scratch.dir).with_context(|| format!("mkdir {}", scratch.dir.display()))?;
        tmpfs(&scratch.make("run")?)?;
        if statfs(RUN).context("statfs(/run)")?.filesystem_type() != TMPFS_MAGIC {
            fs::create_dir_all(OUR_RUN).with_context(|| format!("mkdir {OUR_RUN}"))?;
            tmpfs(Path::new(OUR_RUN))?;
        }
        make_groups(&scratch.name)?;
        Ok(scratch)
    }

    /// The directory that replaces /run: in memory, as /run is on every
    /// ordinary system, even where this host keeps it on a disk. drydock has no
    /// option for it. If /run is on a disk, drydock gets a tmpfs on
    /// /run/drydock, in this mount namespace only.
    pub fn run(&self) -> PathBuf {
        self.path("run")
    }

    /// The path of a file in the place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The same path, as a word of a command.
    pub fn word(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Makes a directory in the place, if it is missing.
    pub fn make(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path(name);
        fs::create_dir_all(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        Ok(dir)
    }

    /// The cgroup of everything that is started, as a path from the root. It
    /// exists before they start, as the groups of an init system's services do.
    pub fn group(&self) -> String {
        format!("/{}", self.name)
    }

    /// The directories of that cgroup, in all hierarchies that have it.
    pub fn groups(&self) -> Vec<PathBuf> {
        groups(&self.name)
    }

    /// Mounts an overlay on `lower` at `name` in the place.
    pub fn overlay(&self, lower: &Path, name: &str) -> Result<PathBuf> {
        let merged = self.make(name)?;
        let upper = self.make(&format!("{name}.upper"))?;
        let work = self.make(&format!("{name}.work"))?;
        mount_overlay(lower, &upper, &work, &merged)?;
        Ok(merged)
    }

    /// Covers a cgroup2 file system that is mounted beside hierarchies of
    /// version 1, in this bench's view only. Returns whether there was one.
    pub fn hide_second_version(&self) -> Result<bool> {
        let mounts = host::mounts("thread-self")?;
        if !mounts.iter().any(|mount| mount.fstype == "cgroup") {
            return Ok(false);
        }
        let mut hidden = false;
        for mount in mounts.iter().filter(|mount| mount.fstype == "cgroup2") {
            umount2(mount.mount_point.as_str(), MntFlags::MNT_DETACH)
                .with_context(|| format!("umount2({})", mount.mount_point))?;
            // crun still makes the directories of its groups there. On this
            // tmpfs they end with the mount namespace.
            tmpfs(Path::new(&mount.mount_point))?;
            hidden = true;
        }
        Ok(hidden)
    }

    /// Moves this thread, and what it starts from now on, into a new network
    /// namespace, in which bridges and rules may be made.
    pub fn own_network(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
        rtnl::set_up("lo")
    }
}

fn tmpfs(place: &Path) -> Result<()> {
    mount(
        Some("tmpfs"),
        place,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=755"),
    )
    .with_context(|| format!("mount(tmpfs, {})", place.display()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the places of benches that were killed.
fn sweep() {
    let mut dead: Vec<String> = fs::read_dir(PLACE)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| is_dead(name))
        .collect();
    dead.dedup();
    for name in dead {
        remove(&name);
    }
}

/// Whether this is the name of a place whose process has ended.
fn is_dead(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid: i32| host::process(pid).is_none())
}

/// Makes the cgroups: in the hierarchies of version 1, or in version 2 if it is
/// mounted alone.
fn make_groups(name: &str) -> Result<()> {
    let mounts = host::mounts("thread-self")?;
    let first = mounts.iter().any(|mount| mount.fstype == "cgroup");
    let wanted = if first { "cgroup" } else { "cgroup2" };
    for mount in mounts.iter().filter(|mount| mount.fstype == wanted) {
        let group = Path::new(&mount.mount_point).join(name);
        if let Err(error) = fs::create_dir(&group)
            && error.kind() != ErrorKind::AlreadyExists
        // one hierarchy, mounted twice
        {
            return Err(error).with_context(|| format!("mkdir {}", group.display()));
        }
    }
    Ok(())
}

fn groups(name: &str) -> Vec<PathBuf> {
    let mounts = host::mounts("thread-self").unwrap_or_default();
    mounts
        .iter()
        .filter(|mount| matches!(mount.fstype.as_str(), "cgroup" | "cgroup2"))
        .map(|mount| Path::new(&mount.mount_point).join(name))
        .filter(|group| group.is_dir())
        .collect()
}

/// Ends the processes in the groups, and removes the groups and the directory.
/// A failure is reported, with the advice to run `just restore`.
fn remove(name: &str) {
    let complain = |what: &Path, error: anyhow::Error| {
        eprintln!("{}: {error:#}; try ./just restore", what.display());
    };
    for group in groups(name) {
        if let Err(error) = cgroups::remove(&group) {
            complain(&group, error);
        }
    }
    for place in cgroups::unmounted().unwrap_or_default() {
        let dir = place.join(name);
        if dir.exists()
            && let Err(error) = fs::remove_dir_all(&dir)
        {
            complain(&dir, error.into());
        }
    }
    let dir = Path::new(PLACE).join(name);
    for mount in host::mounts("thread-self").unwrap_or_default().iter().rev() {
        if Path::new(&mount.mount_point).starts_with(&dir)
            && let Err(errno) = umount2(mount.mount_point.as_str(), MntFlags::MNT_DETACH)
        {
            complain(Path::new(&mount.mount_point), errno.into());
        }
    }
    // The launchers of a bench that was killed may still create or remove
    // something there. They are not children of this process, which can
    // therefore not wait for them.
    let mut tries = 0..TRIES;
    while dir.exists()
        && let Err(error) = fs::remove_dir_all(&dir)
    {
        if tries.next().is_none() || !DISTURBED.contains(&error.kind()) {
            complain(&dir, error.into());
            break;
        }
        sleep(PAUSE);
    }
}

/// Mounts an overlay of `upper` on `lower` at `merged`.
pub fn mount_overlay(lower: &Path, upper: &Path, work: &Path, merged: &Path) -> Result<()> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    mount(
        Some("overlay"),
        merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .with_context(|| format!("mount(overlay, {})", merged.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leftovers_of_the_dead_are_swept() {
        assert!(is_dead(&format!("{PREFIX}{}", i32::MAX)));
        assert!(!is_dead("drydock-bench-notes"));
        assert!(!is_dead("somebodys"));
    }

    #[test]
    fn a_stop_that_nobody_asked_for_is_none() {
        let stop = Stop::default();
        assert!(stop.check().is_ok());
        stop.0.store(true, Ordering::Relaxed);
        assert!(stop.check().is_err());
    }
}
