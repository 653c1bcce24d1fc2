//! What of `/proc` and `/sys` a container shall not see, and what it shall not
//! change.
//!
//! proc and sysfs have no namespace for most of what they show: the files below
//! tell about the host, or command it, and root inside could use them. So they
//! are covered, or made read-only, as Docker, containerd and Podman do today.
//! This is the union of their default lists (moby `daemon/pkg/oci/defaults.go`,
//! containerd `pkg/oci/spec.go`, Podman's `containers/common`
//! `pkg/config/default.go`); a path that this kernel does not have is left out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::detached::{Detached, MountAttrFlags};
use crate::proc_sys::INERT;
use crate::target::{Kind, Target};

/// Covered: read as empty.
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

/// Seen, but not written to. `/proc/sys` alone has switches for the whole host:
/// `kernel/core_pattern` names a program that the host runs as root.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A directory per processor that counts its overheatings: a side channel like
/// `/proc/interrupts`.
const PROCESSORS: &str = "/sys/devices/system/cpu";

// ANCHOR: mask
/// Covers the masked paths of the root and makes the others read-only. To be
/// called when `/proc`, `/sys`, `/dev` and all volumes are mounted. `dev` is the
/// tmpfs on /dev, by its descriptor: its name may mean a volume by now
/// (CVE-2025-31133).
///
/// # Errors
/// Those of the calls, by path.
pub(crate) fn mask(root: BorrowedFd<'_>, dev: BorrowedFd<'_>) -> Result<()> {
    let empty = EmptyFile::make(dev)?;
    for path in MASKED.map(PathBuf::from).into_iter().chain(throttles()) {
        cover(root, &empty, &path).with_context(|| format!("mask {path:?}"))?;
    }
    for path in READ_ONLY.map(Path::new) {
        if let Some(target) = Target::new(path)?.open(root)? {
            // A bind of the path on itself: read-only is a property of a mount.
            Detached::copy_of_fd(target.as_fd(), path)?
                .attach_with(MountAttrFlags::MOUNT_ATTR_RDONLY, target.as_fd())
                .with_context(|| format!("make {path:?} read-only"))?;
        }
    }
    empty.forget()
}
// ANCHOR_END: mask

/// A file without content that belongs to nobody but this container. Others use
/// the null device: but that is the host's, and whoever may change its mode
/// inside changes it everywhere.
struct EmptyFile<'a> {
    dev: BorrowedFd<'a>,
    file: OwnedFd,
}

impl<'a> EmptyFile<'a> {
    /// Its name, as long as there are mounts to be made of it.
    const NAME: &'static str = ".empty";

    fn make(dev: BorrowedFd<'a>) -> Result<Self> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(dev, Self::NAME, flags, Mode::from_bits_truncate(0o444))
            .context("openat(/dev/.empty, O_CREAT | O_EXCL)")?;
        Ok(EmptyFile { dev, file })
    }

    /// Takes its name away: the mounts keep it.
    fn forget(self) -> Result<()> {
        unlinkat(self.dev, Self::NAME, UnlinkatFlags::NoRemoveDir).context("unlinkat(/dev/.empty)")
    }
}

/// The file is hidden by an empty one, the directory by an empty file system,
/// both read-only.
fn cover(root: BorrowedFd<'_>, empty: &EmptyFile<'_>, path: &Path) -> Result<()> {
    // ANCHOR: exercise_mask
    let Some(target) = Target::new(path)?.open(root)? else {
        return Ok(());
    };
    let cover = match Kind::of(target.as_fd())? {
        Kind::Directory => {
            let options = [("size", Some("4k")), ("nr_inodes", Some("1"))];
            Detached::new("tmpfs", &options, INERT | MountAttrFlags::MOUNT_ATTR_RDONLY)?
        }
        Kind::File => Detached::copy_of_fd(empty.file.as_fd(), Path::new("an empty file"))?,
    };
    let attributes = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
    cover.attach_with(attributes, target.as_fd()).map(drop)
    // ANCHOR_END: exercise_mask
}

fn throttles() -> impl Iterator<Item = PathBuf> {
    // Of the host's /sys: the same machine, and no entry means none to mask.
    std::fs::read_dir(PROCESSORS)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("thermal_throttle")))
        .filter(|path| path.exists())
}
