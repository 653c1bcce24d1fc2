//! The machine's processes, read from a procfs that cannot be mounted over.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Makes a procfs of the machine that is in no mount namespace.
pub(super) fn own() -> Result<OwnedFd> {
    let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen(proc)")?;
    fsconfig_create(&fs).context("fsconfig(proc, FSCONFIG_CMD_CREATE)")?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mounted = fsmount(&fs, flags, MountAttrFlags::empty()).context("fsmount(proc)")?;
    // The descriptor from fsmount is like one of O_PATH: it cannot be read
    // (open(2)).
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(&mounted, ".", flags, Mode::empty()).context("open the root of /proc")
}

/// Reads a file of this procfs.
pub(super) fn read(proc: &OwnedFd, file: &str) -> Result<String> {
    let opened = openat(proc, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {file} of /proc"))?;
    let mut bytes = Vec::new();
    File::from(opened)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {file} of /proc"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
