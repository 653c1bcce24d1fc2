//! Namespaces of a run's own on this host: mounts, network, IPC and host name
//! are copies or new ones. Other people's containers, another run of the checks
//! or a Docker on the same host then change nothing that a check looks at, and a
//! check changes nothing of theirs. Control groups, devices and processes stay
//! the host's: the [`guard`] tells whose they are.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::{guard, host, rtnl};

/// The run's host. Dropped, it removes the mount points that it has made.
#[derive(Debug)]
pub struct OwnHost {
    hidden: Vec<PathBuf>,
    made: Vec<PathBuf>,
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
            made: Vec::new(),
        };
        for state in guard::STATE {
            own.hide(Path::new(state))?;
        }
        Ok(own)
    }

    /// Mounts an empty directory in the place of other people's state.
    fn hide(&mut self, state: &Path) -> Result<()> {
        match fs::create_dir(state) {
            Ok(()) => self.made.push(state.to_owned()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("mkdir({state:?})")),
        }
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
        for state in &self.made {
            match fs::remove_dir(state) {
                // Somebody has begun to use it.
                Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => {
                    eprintln!("rmdir({state:?}): {error}");
                }
                _ => {}
            }
        }
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
