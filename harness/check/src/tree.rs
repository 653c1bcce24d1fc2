//! A tree of mounts that stands for the host's, shared or private, in which a
//! check can mount: mount_namespaces(7).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::expect::failed;
use crate::host::Mount;

/// The tree of mounts that replaces the host's for this thread and for what it
/// starts: a copy that shares no peer group with the host's. Changes by a wrong
/// solution vanish with it.
pub struct Tree {
    before: File,
    mountinfo: File,
}

impl Tree {
    /// Moves this thread into a tree whose mounts are all shared, as systemd
    /// leaves the host's, until the value is dropped. Needs root.
    pub fn shared() -> Result<Self> {
        let tree = Self::private()?;
        change(MsFlags::MS_SHARED)?;
        Ok(tree)
    }

    /// Moves this thread into a tree whose mounts are all private, until the
    /// value is dropped.
    pub fn private() -> Result<Self> {
        let ns = "/proc/thread-self/ns/mnt";
        let before = File::open(ns).with_context(|| format!("open {ns}"))?;
        unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
        change(MsFlags::MS_PRIVATE)?;
        let mountinfo = "/proc/thread-self/mountinfo";
        let mountinfo = File::open(mountinfo).with_context(|| format!("open {mountinfo}"))?;
        Ok(Tree { before, mountinfo })
    }

    /// The mounts in the tree.
    ///
    /// Read from a descriptor that was opened at the start: another /proc may
    /// be mounted by now.
    pub fn mounts(&self) -> Result<Vec<Mount>> {
        let mut text = String::new();
        let mut file = &self.mountinfo;
        file.rewind().context("rewind mountinfo")?;
        file.read_to_string(&mut text).context("read mountinfo")?;
        text.lines().map(Mount::parse).collect()
    }

    /// Makes a directory a mount point, by a bind mount on itself. It is shared
    /// or private as the tree is.
    pub fn bind(&self, dir: &Path) -> Result<()> {
        mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("bind {} on itself", dir.display()))
    }

    /// Mounts an empty tmpfs in the tree.
    pub fn mount(&self, target: &Path) -> Result<()> {
        mount(
            Some("host"),
            target,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mount a tmpfs on {}", target.display()))
    }

    /// Unmounts and returns the mounts that are not among `before`, so that the
    /// check can go on or fail cleanly.
    pub fn take_new(&self, before: &[Mount]) -> Result<Vec<Mount>> {
        let known: BTreeSet<u32> = before.iter().map(|mount| mount.id).collect();
        let new: Vec<Mount> = self
            .mounts()?
            .into_iter()
            .filter(|mount| !known.contains(&mount.id))
            .collect();
        for mount in new.iter().rev() {
            match umount2(Path::new(&mount.mount_point), MntFlags::MNT_DETACH) {
                // It was unmounted together with its parent.
                Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("umount {}", mount.mount_point));
                }
            }
        }
        Ok(new)
    }

    /// Fails if there is a mount that is not among `before`.
    ///
    /// # Errors
    /// [`Failed`](crate::outcome::Failed), with the mounts that `who` has made
    /// here.
    pub fn expect_unchanged(&self, before: &[Mount], who: &str) -> Result<()> {
        let new = self.take_new(before)?;
        if new.is_empty() {
            return Ok(());
        }
        let new: BTreeSet<String> = new.iter().map(Mount::describe).collect();
        let mut found = format!("{} on the host", new.len());
        // The first few suffice.
        for mount in new.iter().take(3) {
            found.push_str(&format!("; {mount}"));
        }
        Err(failed(
            format!("the host, whose mounts are shared, to see no mount of {who}"),
            found,
        ))
    }
}

fn change(kind: MsFlags) -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | kind,
        None::<&str>,
    )
    .with_context(|| format!("mount(/, MS_REC | {kind:?})"))
}

impl Drop for Tree {
    fn drop(&mut self) {
        // setns(2) refuses a thread that shares its root and working directory
        // with another. A thread that was started from here may have been
        // joined and yet not be completely gone.
        let back = unshare(CloneFlags::CLONE_FS)
            .and_then(|()| setns(&self.before, CloneFlags::CLONE_NEWNS));
        if let Err(errno) = back {
            eprintln!("setns back to the host's mount namespace: {errno}");
        }
    }
}
