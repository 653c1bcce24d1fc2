//! Attributes of attached mounts on kernels before 5.12, which have no
//! mount_setattr(2): mount(2) with `MS_REMOUNT | MS_BIND`.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use kit::descriptor::name_of;
use kit::mountinfo::{self, Mount};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::file_system::MountAttrFlags;

/// Attaches a mount by `attach`, then adds `attributes` to it and to the mounts
/// below it: only an attached mount can be changed.
pub(crate) fn attach_with(
    attach: impl FnOnce() -> Result<OwnedFd>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let mount = attach()?;
    remount_tree(mount.as_fd(), attributes)?;
    Ok(mount)
}

/// Makes one attached mount read-only, without the mounts below it.
pub(crate) fn make_read_only(mount: BorrowedFd<'_>) -> Result<()> {
    remount(mount, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Adds attributes to an attached mount and to every mount below it, one by
/// one, as mount_setattr(2) does with `AT_RECURSIVE`.
fn remount_tree(top: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<()> {
    remount(top, attributes)?;
    let table = fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    for (id, path) in below(mount_id(top)?, &table) {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = open(&path, flags, Mode::empty()).with_context(|| format!("open({path:?})"))?;
        // If the IDs differ, another mount covers this one. Then it has no
        // path, and nobody can write to it either.
        if mount_id(fd.as_fd())? == id {
            remount(fd.as_fd(), attributes)?;
        }
    }
    Ok(())
}

/// The attributes, each with its flag for mount_setattr(2), from statvfs(3),
/// and for mount(2).
const ATTRIBUTES: [(MountAttrFlags, FsFlags, MsFlags); 4] = [
    (
        MountAttrFlags::MOUNT_ATTR_RDONLY,
        FsFlags::ST_RDONLY,
        MsFlags::MS_RDONLY,
    ),
    (
        MountAttrFlags::MOUNT_ATTR_NOSUID,
        FsFlags::ST_NOSUID,
        MsFlags::MS_NOSUID,
    ),
    (
        MountAttrFlags::MOUNT_ATTR_NODEV,
        FsFlags::ST_NODEV,
        MsFlags::MS_NODEV,
    ),
    (
        MountAttrFlags::MOUNT_ATTR_NOEXEC,
        FsFlags::ST_NOEXEC,
        MsFlags::MS_NOEXEC,
    ),
];

/// Adds attributes to one attached mount: mount(2) with `MS_REMOUNT | MS_BIND`.
/// The call replaces all flags of the mount. In a user namespace the flags that
/// the host has set are locked, and omitting one fails with `EPERM`: the
/// present flags are therefore read first, and kept. The kernel keeps the
/// access-time flags if none is given (mount(2)).
fn remount(fd: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<()> {
    let has = fstatvfs(fd)
        .with_context(|| format!("fstatvfs({})", name_of(fd)))?
        .flags();
    let flags = ATTRIBUTES
        .into_iter()
        .filter(|(attribute, old, _)| attributes.contains(*attribute) || has.contains(*old))
        .fold(MsFlags::empty(), |all, (_, _, flag)| all | flag);
    mount(
        None::<&str>,
        // mount(2) takes a path; this one leads to the mount itself.
        format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str(),
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags,
        None::<&str>,
    )
    .with_context(|| format!("mount({}, MS_REMOUNT | MS_BIND | {flags:?})", name_of(fd)))
}

/// The ID of the mount that a descriptor is on, from statx(2). Before Linux 5.8
/// from `/proc/self/fdinfo` (proc_pid_fdinfo(5)), which is unreadable for a
/// process that has become another user.
fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    let status = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .with_context(|| format!("statx({}, STATX_MNT_ID)", name_of(fd)))?;
    if StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::MNT_ID) {
        return Ok(status.stx_mnt_id);
    }
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .with_context(|| format!("{path} has no mnt_id"))
}

/// The ID and mount point of each mount below the mount `top`, from the content
/// of `/proc/self/mountinfo`.
fn below(top: u64, mountinfo: &[u8]) -> Vec<(u64, PathBuf)> {
    let mut tree = HashSet::from([top]);
    let mut found = Vec::new();
    let mut rows: Vec<Mount<'_>> = mountinfo::parse(mountinfo).collect();
    // A mount may be listed before its parent: repeat until no more are found.
    loop {
        let (of_tree, rest): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .partition(|mount| tree.contains(&mount.parent));
        if of_tree.is_empty() {
            return found;
        }
        tree.extend(of_tree.iter().map(|mount| mount.id));
        found.extend(
            of_tree
                .into_iter()
                .map(|mount| (mount.id, mount.mount_point())),
        );
        rows = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounts_below_are_found_in_any_order_and_by_name() {
        let table = b"9 1 0:1 / /else rw - tmpfs none rw\n\
            7 6 0:1 / /a/b\\040c/d rw - tmpfs none rw\n\
            6 5 0:1 / /a/b\\040c rw - tmpfs none rw\n\
            5 1 0:1 / /a rw - tmpfs none rw\n";
        assert_eq!(
            below(5, table),
            [(6, "/a/b c".into()), (7, "/a/b c/d".into())]
        );
        assert!(below(9, table).is_empty());
    }
}
