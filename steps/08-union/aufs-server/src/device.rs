//! /dev/fuse and the mount. The new mount API (fsopen(2), fsmount(2)) makes a
//! detached mount, so that it can be attached in another mount namespace, or
//! never be seen.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::{getegid, geteuid};

use crate::options::Options;

/// The subtype of the file system: mountinfo shows `fuse.aufs`.
const SUBTYPE: &str = "aufs";

/// Opens /dev/fuse: the server's end of a connection with the kernel. It must
/// be opened in the user namespace that owns the mount namespace of the mount.
///
/// # Errors
/// `ENOENT`, `ENXIO` or `ENODEV` if the kernel has no FUSE; `EPERM` if a device
/// cgroup forbids it.
pub fn open() -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let opened = openat(CWD, "/dev/fuse", flags, Mode::empty());
    match opened {
        Err(Errno::NOENT | Errno::NXIO | Errno::NODEV) => {
            opened.context("this kernel has neither AUFS nor FUSE (try: modprobe fuse)")
        }
        opened => opened.map_err(Into::into),
    }
    .context("open(\"/dev/fuse\")")
}

/// Makes a detached mount of the file system that is served over `device`: a
/// descriptor of its root. The server need not answer yet.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the caller's user namespace.
pub fn mount(device: &OwnedFd, options: &Options) -> Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen(\"fuse\")")?;
    let set = |key: &str, value: &str| {
        fsconfig_set_string(&context, key, value)
            .with_context(|| format!("fsconfig({key}={value})"))
    };
    set("source", "none")?;
    set("subtype", SUBTYPE)?;
    set("fd", &device.as_raw_fd().to_string())?;
    set("rootmode", "40755")?;
    set("user_id", &geteuid().as_raw().to_string())?;
    set("group_id", &getegid().as_raw().to_string())?;
    for flag in ["default_permissions", "allow_other"] {
        fsconfig_set_flag(&context, flag).with_context(|| format!("fsconfig({flag})"))?;
    }
    if options.flags.contains(MountFlags::RDONLY) {
        fsconfig_set_flag(&context, "ro").context("fsconfig(ro)")?;
    }
    fsconfig_create(&context).context("fsconfig(FSCONFIG_CMD_CREATE)")?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes(options.flags),
    )
    .context("fsmount")
}

fn attributes(flags: MountFlags) -> MountAttrFlags {
    let pairs = [
        (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
    ];
    let set = pairs.into_iter().filter(|(flag, _)| flags.contains(*flag));
    set.fold(MountAttrFlags::empty(), |all, (_, attribute)| {
        all | attribute
    })
}
