//! Attributes of mounts: mount_setattr(2).

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use kit::descriptor::name_of;
use kit::sys;
use nix::errno::Errno;

use crate::remount_legacy;

/// Makes one attached mount read-only, without the mounts below it.
pub fn make_read_only(mount: BorrowedFd<'_>) -> Result<()> {
    match sys::mount_setattr(mount, false, libc::MOUNT_ATTR_RDONLY) {
        Err(Errno::ENOSYS) => remount_legacy::make_read_only(mount),
        done => {
            done.with_context(|| format!("mount_setattr({}, MOUNT_ATTR_RDONLY)", name_of(mount)))
        }
    }
}
