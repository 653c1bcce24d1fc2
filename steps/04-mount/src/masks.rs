//! The files of `/proc` and `/sys` that a container may not read or may not
//! write.
//!
//! Most of what proc and sysfs show belongs to no namespace: the files below
//! show the host or control it, and root inside could use them. They are
//! covered or made read-only, as Docker, containerd and Podman do today. The
//! lists are the union of the default lists of the three (moby
//! `daemon/pkg/oci/defaults.go`, containerd `pkg/oci/spec.go`, Podman's
//! `containers/common` `pkg/config/default.go`). Paths that the kernel does not
//! have are skipped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fchdir, unlinkat};

use crate::detached::{Detached, MountAttrFlags};
use crate::proc_sys::INERT;
use crate::target::{FileKind, Target};

/// The paths that are covered and read as empty.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    // Timings of key strokes and packets: a side channel between containers.
    "/proc/interrupts",
    // The memory of the kernel.
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    // Names and addresses of the scheduler's and the timers' clients: up to
    // Linux 4.10 and 5.13.
    "/proc/sched_debug",
    "/proc/timer_list",
    "/proc/timer_stats",
    // Writing there removes disks.
    "/proc/scsi",
    // Podman only: the host's disks.
    "/sys/dev/block",
    // Power consumption, fine enough to recover keys (CVE-2020-8694).
    "/sys/devices/virtual/powercap",
    // Tables of the firmware.
    "/sys/firmware",
    // Podman only: the host's policy.
    "/sys/fs/selinux",
];

/// The paths that are readable but not writable. `/proc/sys` alone has settings
/// for the whole host: `kernel/core_pattern` names a program that the host runs
/// as root.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The parent of a directory per processor whose `thermal_throttle` counts
/// overheating: a side channel like `/proc/interrupts`.
const PROCESSORS: &str = "/sys/devices/system/cpu";

// ANCHOR: mask
/// Covers the masked paths of the root and makes the others read-only. Must be
/// called after `/proc`, `/sys`, `/dev` and all volumes are mounted. `dev` is
/// the descriptor of the tmpfs on `/dev`: its path may lead to a volume by now
/// (CVE-2025-31133).
pub(crate) fn mask(root: BorrowedFd<'_>, dev: BorrowedFd<'_>) -> Result<()> {
    let mut empty = Empty::make(dev)?;
    for path in MASKED.map(PathBuf::from).into_iter().chain(throttles()) {
        cover(root, &mut empty, &path).with_context(|| format!("mask {path:?}"))?;
    }
    for path in READ_ONLY.map(Path::new) {
        make_read_only(root, path)?;
    }
    empty.forget()
}
// ANCHOR_END: mask

/// Makes a path of the root read-only, with what is mounted below it. A missing
/// path is skipped.
pub fn make_read_only(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    // ANCHOR: exercise_read_only_paths
    if let Some(target) = Target::new(path)?.open(root)? {
        // A bind of the path on itself: read-only is a property of a mount.
        Detached::copy_of_fd(target.as_fd(), path)?
            .attach_with(MountAttrFlags::MOUNT_ATTR_RDONLY, target.as_fd())
            .with_context(|| format!("make {path:?} read-only"))?;
    }
    Ok(())
    // ANCHOR_END: exercise_read_only_paths
}

/// Covers paths of the root, in whose /dev nothing can be made: a file by an
/// empty file, a directory by an empty file system. Missing paths are skipped.
pub fn mask_all(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    // The file's own file system vanishes with its last mount. Up to Linux 6.14,
    // open_tree(2) copies no mount that is attached nowhere. So the file system
    // lies on the root for the first copy, and no path is looked up meanwhile.
    // Further copies are made of the first, once that is attached.
    let options = [("size", Some("4k")), ("mode", Some("755"))];
    let holder = Detached::new("tmpfs", &options, INERT)?.attach(root)?;
    let mut empty = Empty::make(holder.as_fd())?;
    let first = Detached::copy_of_fd(empty.file.as_fd(), Path::new("an empty file"))?;
    fchdir(&holder).context("fchdir(the file system of the empty file)")?;
    umount2(".", MntFlags::MNT_DETACH).context("umount2(., MNT_DETACH)")?;
    fchdir(root).context("fchdir(the root)")?;
    let mut first = Some(first);
    for path in paths {
        let is_file = match Target::new(path)?.open(root)? {
            Some(target) => FileKind::of(target.as_fd())? == FileKind::File,
            None => continue,
        };
        match first.take_if(|_| is_file) {
            Some(first) => cover_first(root, &mut empty, first, path),
            None => cover(root, &mut empty, path),
        }
        .with_context(|| format!("mask {path:?}"))?;
    }
    empty.forget()
}

/// Covers a file with the first mount of the empty file, of which further ones
/// are copied from now on.
fn cover_first(
    root: BorrowedFd<'_>,
    empty: &mut Empty<'_>,
    first: Detached,
    path: &Path,
) -> Result<()> {
    if let Some(target) = Target::new(path)?.open(root)? {
        let attributes = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
        empty.file = first.attach_with(attributes, target.as_fd())?;
    }
    Ok(())
}

/// What covers: an empty file and an empty directory that belong to this
/// container alone. Other engines use the null device. That is the host's, and a
/// process that may change its mode inside changes it everywhere.
struct Empty<'a> {
    dev: BorrowedFd<'a>,
    file: OwnedFd,
    /// The first mount of the empty file system, of which the others are copies:
    /// to make and end a file system costs more than a mount.
    directory: Option<OwnedFd>,
}

impl<'a> Empty<'a> {
    /// The name of the file, while mounts are made of it.
    const NAME: &'static str = ".empty";

    fn make(dev: BorrowedFd<'a>) -> Result<Self> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(dev, Self::NAME, flags, Mode::from_bits_truncate(0o444))
            .context("openat(/dev/.empty, O_CREAT | O_EXCL)")?;
        Ok(Empty {
            dev,
            file,
            directory: None,
        })
    }

    /// A mount of the empty directory, detached.
    fn directory(&self) -> Result<Detached> {
        match &self.directory {
            Some(first) => Detached::copy_of_fd(first.as_fd(), Path::new("an empty directory")),
            None => {
                let options = [("size", Some("4k")), ("nr_inodes", Some("1"))];
                Detached::new("tmpfs", &options, INERT | MountAttrFlags::MOUNT_ATTR_RDONLY)
            }
        }
    }

    /// Removes the name. The mounts keep the file.
    fn forget(self) -> Result<()> {
        unlinkat(self.dev, Self::NAME, UnlinkatFlags::NoRemoveDir).context("unlinkat(/dev/.empty)")
    }
}

/// Covers a file with an empty file, and a directory with an empty file system,
/// both read-only.
fn cover(root: BorrowedFd<'_>, empty: &mut Empty<'_>, path: &Path) -> Result<()> {
    // ANCHOR: exercise_mask
    let Some(target) = Target::new(path)?.open(root)? else {
        return Ok(());
    };
    let kind = FileKind::of(target.as_fd())?;
    let cover = match kind {
        FileKind::Directory => empty.directory()?,
        FileKind::File => Detached::copy_of_fd(empty.file.as_fd(), Path::new("an empty file"))?,
    };
    let attributes = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = cover.attach_with(attributes, target.as_fd())?;
    if kind == FileKind::Directory {
        empty.directory.get_or_insert(mount);
    }
    Ok(())
    // ANCHOR_END: exercise_mask
}

fn throttles() -> impl Iterator<Item = PathBuf> {
    // From the host's /sys, which shows the same machine. Without an entry
    // there is nothing to mask.
    std::fs::read_dir(PROCESSORS)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let number = name.as_bytes().strip_prefix(b"cpu");
            number.is_some_and(|number| number.first().is_some_and(u8::is_ascii_digit))
        })
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
}
