//! The container's root: made a mount point, filled, and then made `/`.
//! pivot_root(2), chroot(2), mount_namespaces(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use kit::say;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use crate::remount::make_read_only;

/// The tree that will be the container's, as seen from the host's.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    // ANCHOR: bind
    /// Binds the directory `rootfs` on itself.
    ///
    /// pivot_root works on mounts, not on directories: `EINVAL` if the new root
    /// is not a mount point, and `EBUSY` if it is on the same mount as the
    /// current root. A bind of the directory on itself is a mount of its own
    /// with the same files.
    ///
    /// # Errors
    /// Those of mount(2) and open(2).
    pub(crate) fn bind(rootfs: &Path) -> Result<Self> {
        mount(
            Some(rootfs),
            rootfs,
            None::<&str>,
            // MS_REC: with what is mounted below it, which the kernel does not
            // let a user namespace leave out.
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .with_context(|| format!("mount({rootfs:?}, {rootfs:?}, MS_BIND | MS_REC)"))?;
        Self::open(rootfs)
    }
    // ANCHOR_END: bind

    /// The tree as it is.
    ///
    /// # Errors
    /// Those of open(2).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty()).with_context(|| format!("open({path:?})"))?;
        Ok(Root {
            fd,
            path: path.to_owned(),
        })
    }

    /// The directory, to resolve targets in.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes the root's own mount read-only. What is mounted below it keeps its
    /// mode: `/dev`, `/proc`, volumes.
    ///
    /// # Errors
    /// Those of mount_setattr(2).
    pub(crate) fn make_read_only(&self) -> Result<()> {
        make_read_only(self.fd())
    }

    // ANCHOR: pivot
    /// Makes this the root of the mount namespace, and takes the old one away.
    ///
    /// Afterwards nothing of the host's tree is left in the namespace. There is
    /// no path back to it, whatever rights a process has.
    ///
    /// # Errors
    /// Those of pivot_root(2), with what they mean here.
    pub(crate) fn pivot(&self) -> Result<()> {
        // ANCHOR: exercise_pivot_root
        say!("pivot_root to {:?}", self.path);
        fchdir(&self.fd).with_context(|| format!("fchdir({:?})", self.path))?;
        // The new root and the place for the old one may be the same directory
        // (pivot_root(2), “pivot_root(".", ".")”). The old root then lies on
        // top of the new one, and no directory for it has to exist in the
        // rootfs, which may be read-only.
        pivot_root(".", ".").map_err(why_not)?;
        // “.” is the new root, and what is mounted on it is the old one. As
        // long as it is, `cd ..` may lead to the host's files. MNT_DETACH,
        // because a plain umount is refused (EBUSY) as long as anything, such
        // as the mounts below it, is in use.
        umount2(".", MntFlags::MNT_DETACH).context("umount2(old root, MNT_DETACH)")?;
        // The working directory was the new root already, but from outside.
        chdir("/").context("chdir(\"/\")")
        // ANCHOR_END: exercise_pivot_root
    }
    // ANCHOR_END: pivot

    // ANCHOR: chroot
    /// Makes this the root directory of the process, and nothing else: the weak
    /// alternative.
    ///
    /// The host's tree stays mounted around it. chroot(2) itself says that it
    /// is no security: a process that may call it again gets out, with
    /// `mkdir x; chroot x; cd ../../..; chroot .`, because only one root
    /// directory is remembered and the working directory is not moved into it.
    ///
    /// # Errors
    /// Those of chroot(2).
    pub(crate) fn chroot(&self) -> Result<()> {
        say!("chroot to {:?}, which is no jail", self.path);
        fchdir(&self.fd).with_context(|| format!("fchdir({:?})", self.path))?;
        chroot(".").with_context(|| format!("chroot({:?})", self.path))?;
        chdir("/").context("chdir(\"/\")")
    }
    // ANCHOR_END: chroot
}

/// pivot_root(2) has one `EINVAL` for many causes. After the root was bound on
/// itself and made private, the last one is left; whoever forgot either meets
/// one of the others.
fn why_not(errno: Errno) -> Error {
    let call = "pivot_root(\".\", \".\")";
    match errno {
        Errno::EINVAL => anyhow!(errno).context(format!(
            "{call}: the new root is no mount point, or a mount involved is shared, or the present \
             root cannot be moved: it is the initial RAM file system, or this process is in a \
             chroot; use --chroot, or start from a root that is a mount"
        )),
        _ => anyhow!(errno).context(call),
    }
}
