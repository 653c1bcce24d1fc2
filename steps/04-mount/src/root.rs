//! The container's root: made a mount point, filled, and then made `/`.
//! pivot_root(2), chroot(2), mount_namespaces(7).

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, ensure};
use kit::say;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use crate::remount::make_read_only;

/// The container's root, as long as it is a directory of the host's tree.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    // ANCHOR: bind
    /// Binds the directory `rootfs` on itself.
    ///
    /// pivot_root works on mounts, not on directories: it fails with `EINVAL`
    /// if the new root is not a mount point, and with `EBUSY` if it is on the
    /// same mount as the current root. A bind of the directory on itself is a
    /// mount of its own with the same files.
    pub fn bind(rootfs: &Path) -> Result<Self> {
        mount(
            Some(rootfs),
            rootfs,
            None::<&str>,
            // MS_REC: with the mounts below it, which a user namespace may not
            // omit.
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .with_context(|| format!("mount({rootfs:?}, {rootfs:?}, MS_BIND | MS_REC)"))?;
        Self::open(rootfs)
    }
    // ANCHOR_END: bind

    /// Opens `path` as the root, without a bind.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty()).with_context(|| format!("open({path:?})"))?;
        Ok(Root {
            fd,
            path: path.to_owned(),
        })
    }

    /// The descriptor of the root, in which targets are resolved.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes the mount of the root read-only. The mounts below it stay as they
    /// are: `/dev`, `/proc`, volumes.
    pub fn make_read_only(&self) -> Result<()> {
        make_read_only(self.fd())
    }

    // ANCHOR: pivot
    /// Makes this the root of the mount namespace, and unmounts the old root.
    ///
    /// Afterwards nothing of the host's tree is left in the namespace. No
    /// process in it has a path back, whatever its privileges.
    pub fn pivot(&self) -> Result<()> {
        // ANCHOR: exercise_pivot_root
        say!("pivot_root to {:?}", self.path);
        fchdir(&self.fd).with_context(|| format!("fchdir({:?})", self.path))?;
        // The new root and the place for the old one may be the same directory
        // (pivot_root(2), “pivot_root(".", ".")”). The old root then lies on
        // top of the new one, and no directory for it has to exist in the
        // rootfs, which may be read-only.
        pivot_root(".", ".").map_err(why_not)?;
        // “.” is the new root, and the old root is mounted on it. While it is
        // there, `cd ..` may lead to the host's files. MNT_DETACH, because a
        // plain umount fails with EBUSY while anything, such as the mounts
        // below it, is in use.
        umount2(".", MntFlags::MNT_DETACH).context("umount2(old root, MNT_DETACH)")?;
        // The working directory is the new root, but was entered from outside.
        chdir("/").context("chdir(\"/\")")
        // ANCHOR_END: exercise_pivot_root
    }
    // ANCHOR_END: pivot

    /// Makes this the root of the mount namespace where pivot_root(2) cannot:
    /// the present root is the initial RAM file system. Unmounts all that is
    /// mounted on that, moves this mount on top of it, and enters it.
    pub fn move_to_top(&self) -> Result<()> {
        say!("move {:?} to /", self.path);
        fchdir(&self.fd).with_context(|| format!("fchdir({:?})", self.path))?;
        // It can be read again when /proc is unmounted.
        let mut mountinfo =
            File::open("/proc/self/mountinfo").context("open /proc/self/mountinfo")?;
        let own = std::path::absolute(&self.path).context("getcwd")?;
        let mut others = others_of(&read(&mut mountinfo)?, &own);
        // Those below before those above.
        others.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
        for point in &others {
            match umount2(point, MntFlags::MNT_DETACH) {
                // EINVAL: it has gone with one below it, or a user namespace may
                // not unmount it by itself (mount_namespaces(7)).
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("umount2({point:?}, MNT_DETACH)"));
                }
            }
        }
        let left = others_of(&read(&mut mountinfo)?, &own);
        ensure!(
            left.is_empty(),
            "{:?} stays mounted: a mount that came into a user namespace with others cannot be \
             unmounted alone; do without --no-pivot",
            left[0]
        );
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("mount({:?}, /, MS_MOVE)", self.path))?;
        chroot(".").with_context(|| format!("chroot({:?})", self.path))?;
        chdir("/").context("chdir(\"/\")")
    }

    // ANCHOR: chroot
    /// Makes this the root directory of the process, and nothing else: the weak
    /// alternative to [`pivot`](Self::pivot).
    ///
    /// The host's tree stays mounted around it. chroot(2) itself says that it
    /// is no security feature: a process that may call it again escapes with
    /// `mkdir x; chroot x; cd ../../..; chroot .`, because the kernel remembers
    /// only one root directory, and chroot(2) does not move the working
    /// directory into it.
    pub fn chroot(&self) -> Result<()> {
        say!("chroot to {:?}, which is not a jail", self.path);
        fchdir(&self.fd).with_context(|| format!("fchdir({:?})", self.path))?;
        chroot(".").with_context(|| format!("chroot({:?})", self.path))?;
        chdir("/").context("chdir(\"/\")")
    }
    // ANCHOR_END: chroot
}

fn read(mountinfo: &mut File) -> Result<Vec<u8>> {
    let mut table = Vec::new();
    mountinfo
        .rewind()
        .and_then(|()| mountinfo.read_to_end(&mut table))
        .context("read mountinfo")?;
    Ok(table)
}

/// The mount points that are neither in `own` nor on the way to it.
fn others_of(table: &[u8], own: &Path) -> Vec<PathBuf> {
    kit::mountinfo::parse(table)
        .map(|mount| mount.mount_point())
        .filter(|point| !own.starts_with(point) && !point.starts_with(own))
        .collect()
}

/// Adds the causes to `EINVAL`, of which pivot_root(2) has many. Once the root
/// is bound on itself and private, only the last cause remains; code that omits
/// one of the two meets another cause.
fn why_not(errno: Errno) -> Error {
    let call = "pivot_root(\".\", \".\")";
    match errno {
        Errno::EINVAL => anyhow!(errno).context(format!(
            "{call}: the new root is not a mount point, or a mount involved is shared, or the \
             present root cannot be moved: it is the initial RAM file system, or this process is \
             in a chroot; use --chroot, or start from a root that is a mount"
        )),
        _ => anyhow!(errno).context(call),
    }
}
