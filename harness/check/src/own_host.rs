//! Namespaces of a run's own on this host: mounts, network, IPC and host name
//! are copies or new ones. Other people's containers, another run of the checks
//! or a Docker on the same host then change nothing that a check looks at, and a
//! check changes nothing of theirs. Control groups, devices and processes stay
//! the host's: the [`guard`] tells whose they are.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::{guard, host, rtnl};

/// The run's host. Dropped, it removes the mount points that it has made.
#[derive(Debug)]
pub struct OwnHost {
    hidden: Vec<PathBuf>,
    places: Vec<Place>,
}

impl OwnHost {
    /// Moves this process, and what it starts from now on, into the namespaces.
    /// Needs root, and a process without threads that use the old ones.
    pub fn enter() -> Result<Self> {
        own_namespaces()?;
        own_sysfs()?;
        let queues = Path::new("/dev/mqueue");
        let is_mount = |mount: &host::Mount| Path::new(&mount.mount_point) == queues;
        if host::mounts("self")?.iter().any(is_mount) {
            umount2(queues, MntFlags::MNT_DETACH)
                .with_context(|| format!("umount2({queues:?})"))?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("mqueue"), queues, Some("mqueue"), flags, None::<&str>)
                .with_context(|| format!("mount({queues:?}, mqueue)"))?;
        }
        let mut own = OwnHost {
            hidden: Vec::new(),
            places: Vec::new(),
        };
        for state in guard::STATE {
            own.hide(Path::new(state))?;
        }
        Ok(own)
    }

    /// Mounts an empty directory in the place of other people's state.
    fn hide(&mut self, state: &Path) -> Result<()> {
        self.places.push(Place::at(state)?);
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), state, Some("tmpfs"), flags, Some("mode=755"))
            .with_context(|| format!("mount({state:?}, tmpfs)"))?;
        self.hidden.push(state.to_owned());
        Ok(())
    }
}

impl Drop for OwnHost {
    fn drop(&mut self) {
        for state in &self.hidden {
            if let Err(errno) = umount2(state, MntFlags::MNT_DETACH) {
                eprintln!("umount2({state:?}): {errno}");
            }
        }
        for place in self.places.drain(..) {
            if let Err(error) = place.leave() {
                eprintln!("{error:#}");
            }
        }
    }
}

/// A directory of the host on which runs mount, each in its own mounts.
/// rmdir(2) would unmount it in those of all others: so each run has a file in
/// it. Whoever has found or made it there for the runs holds a shared lock on
/// it, and the last removes it.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The directory below the mount.
    dir: File,
    /// The name of this run's file in it.
    own: String,
    /// Whether it is the runs', and locked.
    is_runs: bool,
}

impl Place {
    /// Makes the directory, unless it is there.
    fn at(path: &Path) -> Result<Self> {
        loop {
            let (dir, is_runs) = match Self::make(path)? {
                Some(made) => (made, true),
                None => match Self::join(path)? {
                    Found::Gone => continue,
                    Found::Runs(dir) => (dir, true),
                    Found::Others(dir) => (dir, false),
                },
            };
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            static MADE: AtomicUsize = AtomicUsize::new(0);
            let count = MADE.fetch_add(1, Ordering::Relaxed);
            let own = format!(".checks-{}-{count}", std::process::id());
            match openat(&dir, &own, flags, Mode::RUSR | Mode::WUSR) {
                // Somebody has just removed the directory.
                Err(rustix::io::Errno::NOENT) => continue,
                made => made.with_context(|| format!("open a file in {path:?}"))?,
            };
            let path = path.to_owned();
            return Ok(Place {
                path,
                dir,
                own,
                is_runs,
            });
        }
    }

    /// Makes the directory, locked before it has its name. `None` if it is there.
    fn make(path: &Path) -> Result<Option<File>> {
        let parent = path.parent().context("a directory in another one")?;
        let aside = tempfile::Builder::new()
            .prefix(".drydock-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .with_context(|| format!("mkdir in {parent:?}"))?;
        let dir = File::open(aside.path()).with_context(|| format!("open({aside:?})"))?;
        dir.lock_shared()
            .with_context(|| format!("flock({aside:?})"))?;
        match renameat_with(CWD, aside.path(), CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {
                // The rename has ended its life as a temporary directory.
                let _renamed = aside.keep();
                Ok(Some(dir))
            }
            Err(rustix::io::Errno::EXIST) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("renameat2({aside:?}, {path:?})")),
        }
    }

    fn join(path: &Path) -> Result<Found> {
        let dir = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Gone),
            dir => dir.with_context(|| format!("open({path:?})"))?,
        };
        if alone(&dir, path)? {
            dir.unlock().with_context(|| format!("flock({path:?})"))?;
            return Ok(Found::Others(dir));
        }
        dir.lock_shared()
            .with_context(|| format!("flock({path:?})"))?;
        // The last run may have removed it in between.
        let locked = dir.metadata().with_context(|| format!("stat({path:?})"))?;
        match fs::metadata(path).is_ok_and(|now| now.ino() == locked.ino()) {
            true => Ok(Found::Runs(dir)),
            false => Ok(Found::Gone),
        }
    }

    /// Removes the directory if it is the runs', and no other run is left.
    fn leave(self) -> Result<()> {
        unlinkat(&self.dir, &self.own, AtFlags::empty())
            .with_context(|| format!("unlink a file in {:?}", self.path))?;
        if !self.is_runs || !alone(&self.dir, &self.path)? {
            return Ok(());
        }
        match fs::remove_dir(&self.path) {
            // Somebody has begun to use it.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.with_context(|| format!("rmdir({:?})", self.path)),
        }
    }
}

/// What was at the path of a [`Place`].
enum Found {
    /// A directory that runs have made, with this one's lock on it.
    Runs(File),
    /// A directory that was there before all runs.
    Others(File),
    /// Nothing any more.
    Gone,
}

/// Whether nobody else holds a lock on the directory. Holds it alone then.
fn alone(dir: &File, path: &Path) -> Result<bool> {
    match dir.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("flock({path:?})")),
    }
}

/// Moves this process into its own mounts, network with a loopback device, IPC
/// objects and host name.
pub fn own_namespaces() -> Result<()> {
    let new = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(new).with_context(|| format!("unshare({new:?})"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("mount(/, MS_REC | MS_PRIVATE)")?;
    rtnl::set_up("lo")
}

/// Mounts a sysfs that shows the devices of the new network, with the same
/// mounts on it as the old one has: control groups, debugfs and so on.
fn own_sysfs() -> Result<()> {
    let mut kept: Vec<(PathBuf, OwnedFd)> = Vec::new();
    for one in host::mounts("self")? {
        let place = PathBuf::from(&one.mount_point);
        let is_below = place != Path::new("/sys") && place.starts_with("/sys");
        if !is_below || kept.iter().any(|(above, _)| place.starts_with(above)) {
            continue;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, &place, flags)
            .with_context(|| format!("open_tree({place:?}, OPEN_TREE_CLONE)"))?;
        kept.push((place, tree));
    }
    // Mounts that others hide are in mountinfo all the same: at their place
    // there is nothing to unmount, and nothing to mount again.
    let mut hidden = Vec::new();
    for (place, _) in &kept {
        match umount2(place, MntFlags::MNT_DETACH) {
            Err(Errno::EINVAL) => hidden.push(place.clone()),
            other => other.with_context(|| format!("umount2({place:?})"))?,
        }
    }
    kept.retain(|(place, _)| !hidden.contains(place));
    umount2("/sys", MntFlags::MNT_DETACH).context("umount2(/sys)")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>)
        .context("mount(/sys, sysfs)")?;
    for (place, tree) in kept {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&tree, "", CWD, &place, flags)
            .with_context(|| format!("move_mount({place:?})"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_removes_the_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let first = Place::at(&path).unwrap();
        let second = Place::at(&path).unwrap();
        first.leave().unwrap();
        assert!(path.exists(), "the second has mounted on it");
        assert!(fs::remove_dir(&path).is_err(), "nor can others remove it");
        second.leave().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_place_that_was_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::at(directory.path()).unwrap();
        place.leave().unwrap();
        assert!(directory.path().exists());
    }
}
