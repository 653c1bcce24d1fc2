//! Volumes: the user's `--bind` and `--tmpfs` mounts, in one list because one
//! may lie in the other, and the files that other isolations offer the
//! container.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kit::errno::is;
use kit::say;
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::bind::Bind;
use crate::detached::{Detached, MountAttrFlags};
use crate::target::{FileKind, Target, is_device};
use crate::tmpfs::Tmpfs;

#[derive(Clone, Debug)]
enum Volume {
    Bind(Bind),
    Tmpfs(Tmpfs),
    /// A file from another isolation. It is omitted if its target does not
    /// exist and cannot be made.
    Offer(Bind),
}

impl Volume {
    fn target(&self) -> &Target {
        match self {
            Volume::Bind(bind) | Volume::Offer(bind) => &bind.target,
            Volume::Tmpfs(tmpfs) => &tmpfs.target,
        }
    }

    /// Copies the mount of a bind. Returns `None` for a tmpfs, which is made
    /// when its target is known.
    fn take(&self) -> Result<Option<Detached>> {
        match self {
            Volume::Bind(bind) | Volume::Offer(bind) => bind.take().map(Some),
            Volume::Tmpfs(_) => Ok(None),
        }
    }

    /// Checks the result of attaching the volume. An offered file whose target
    /// cannot be made is omitted, unless the error is a fault of the machine.
    fn placed(&self, done: Result<()>) -> Result<()> {
        match done.with_context(|| self.option()) {
            Err(error) if matches!(self, Volume::Offer(_)) && !is_fault(&error) => {
                say!("omitted: {error:#}");
                Ok(())
            }
            done => done,
        }
    }

    fn read_only(&self) -> bool {
        matches!(self, Volume::Bind(bind) if bind.read_only)
    }

    fn option(&self) -> String {
        match self {
            Volume::Bind(bind) | Volume::Offer(bind) => bind.option(),
            Volume::Tmpfs(tmpfs) => format!("--tmpfs {}", tmpfs.target),
        }
    }
}

/// Whether an error is a fault of the machine, and not of the content of the
/// root.
fn is_fault(error: &anyhow::Error) -> bool {
    let faults = [
        Errno::EIO,
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOMEM,
        Errno::ENOSPC,
    ];
    is(error, &faults)
}

/// The volumes, in the order in which they are mounted.
#[derive(Debug, Default)]
pub(crate) struct Volumes(Vec<Volume>);

/// The volumes, each with its detached mount.
pub(crate) struct Taken<'a>(Vec<(&'a Volume, Option<Detached>)>);

impl Volumes {
    /// Checks the options, and sorts the volumes by depth, so that `/a` does
    /// not cover `/a/b`, whichever was given first.
    ///
    /// # Errors
    /// Quotes the option that is wrong, or the two with the same target.
    pub(crate) fn parse(binds: &[OsString], tmpfs: &[String]) -> Result<Self> {
        let mut volumes = Vec::new();
        for option in binds {
            volumes.push(Volume::Bind(Bind::parse(option)?));
        }
        for option in tmpfs {
            volumes.push(Volume::Tmpfs(Tmpfs::parse(option)?));
        }
        volumes.sort_by_key(|volume| volume.target().depth());
        for (i, volume) in volumes.iter().enumerate() {
            if let Some(other) = volumes[..i].iter().find(|v| v.target() == volume.target()) {
                bail!(
                    "{} and {}: two volumes on one target",
                    other.option(),
                    volume.option()
                );
            }
        }
        Ok(Volumes(volumes))
    }

    /// Adds files that are offered, pairs of source and target. A volume of the
    /// user on the same target takes precedence.
    ///
    /// # Errors
    /// Refuses a file that does not exist.
    pub(crate) fn offer(&mut self, files: &[(PathBuf, PathBuf)]) -> Result<()> {
        for (source, target) in files {
            let bind = Bind::of(source, target)?;
            if !self.0.iter().any(|volume| *volume.target() == bind.target) {
                self.0.push(Volume::Offer(bind));
            }
        }
        self.0.sort_by_key(|volume| volume.target().depth());
        Ok(())
    }

    /// Whether there are no volumes.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Copies the mounts of the sources. Must be called while paths are the
    /// host's.
    pub(crate) fn take(&self) -> Result<Taken<'_>> {
        let mut taken = Vec::new();
        for volume in &self.0 {
            taken.push((volume, volume.take().with_context(|| volume.option())?));
        }
        Ok(Taken(taken))
    }
}

impl Taken<'_> {
    /// Attaches every volume inside `root`.
    ///
    /// `make` says whether missing targets may be made: in a root of the
    /// container's own, not in the host's tree.
    pub(crate) fn attach(self, root: BorrowedFd<'_>, make: bool) -> Result<()> {
        for (volume, mount) in self.0 {
            volume.placed(attach(volume, mount, root, make))?;
        }
        Ok(())
    }
}

// ANCHOR: attach
fn attach(
    volume: &Volume,
    taken: Option<Detached>,
    root: BorrowedFd<'_>,
    make: bool,
) -> Result<()> {
    let target = volume.target();
    let before = target.open(root)?;
    if !make && before.is_none() {
        bail!("{target} does not exist, and without --rootfs it would be created on the host");
    }
    let kind = match &taken {
        Some(mount) => FileKind::of(mount.as_fd())?,
        None => FileKind::Directory,
    };
    let place = target.open_or_make(root, kind)?;
    if make {
        refuse_proc(target, place.as_fd())?;
    }
    let mount = match (taken, volume) {
        (Some(mount), _) => mount,
        (None, Volume::Tmpfs(tmpfs)) => {
            tmpfs.make(before.map(|_| fstat(&place)).transpose().context("fstat")?)?
        }
        (None, _) => bail!("{target}: nothing to mount"),
    };
    // A device node is the host's: read-only, so that nobody inside changes its
    // owner. Writing to a device works on a read-only mount.
    match volume.read_only() || is_device(mount.as_fd())? {
        true => mount.attach_with(MountAttrFlags::MOUNT_ATTR_RDONLY, place.as_fd()),
        false => mount.attach(place.as_fd()),
    }
    .map(drop)
}
// ANCHOR_END: attach

/// Files of /proc on which a volume may be mounted, as in runc. They show the
/// resources of the host, and lxcfs replaces them with the container's.
const IN_PROC: [&str; 8] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];

/// Refuses a target in /proc, except those in [`IN_PROC`]: the engine and every
/// program in the container trust /proc for facts about themselves
/// (CVE-2019-16884).
fn refuse_proc(target: &Target, place: BorrowedFd<'_>) -> Result<()> {
    let on_proc = fstatfs(place).context("fstatfs")?.filesystem_type() == PROC_SUPER_MAGIC;
    if on_proc && !IN_PROC.contains(&&*target.to_string()) {
        bail!(
            "the target {target} is in the container's /proc, where only files such as /proc/meminfo can be mounted on"
        );
    }
    Ok(())
}
