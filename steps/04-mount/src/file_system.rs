//! File systems that are set up step by step: fsopen(2), fsconfig(2),
//! fsmount(2). mount(2) takes all options in one page and reports only an
//! errno. Here each option is a call, and the kernel's message can be read.
//! Since Linux 5.2.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::read;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

pub use rustix::mount::MountAttrFlags;

use kit::errno;

/// A file system context (fsopen(2)): a file system that is being set up.
#[derive(Debug)]
pub struct FileSystem {
    context: OwnedFd,
    name: String,
}

impl FileSystem {
    /// Opens a context for the file system `name`.
    ///
    /// # Errors
    /// `ENODEV` if the kernel does not have the file system, `EPERM` if the
    /// caller's user namespace may not mount it.
    pub fn new(name: &str) -> Result<Self> {
        let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(errno::nix)
            .with_context(|| format!("fsopen({name:?})"))?;
        Ok(FileSystem {
            context,
            name: name.to_owned(),
        })
    }

    /// Sets an option with a value of at most 255 bytes.
    ///
    /// # Errors
    /// `EINVAL` for an unknown option or a wrong value, with the kernel's
    /// message.
    pub fn set(&self, key: &str, value: impl AsRef<OsStr>) -> Result<()> {
        let value = value.as_ref();
        fsconfig_set_string(&self.context, key, value)
            .map_err(|error| self.explain(errno::nix(error)))
            .with_context(|| {
                let name = &self.name;
                format!(
                    "fsconfig({name:?}, FSCONFIG_SET_STRING, {key}={})",
                    value.display()
                )
            })
    }

    /// Sets an option without a value.
    pub fn flag(&self, key: &str) -> Result<()> {
        fsconfig_set_flag(&self.context, key)
            .map_err(|error| self.explain(errno::nix(error)))
            .with_context(|| format!("fsconfig({:?}, FSCONFIG_SET_FLAG, {key})", self.name))
    }

    /// Creates the file system, and returns a detached mount of it. Dropping
    /// the descriptor unmounts it.
    pub fn mount(self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        fsconfig_create(&self.context)
            .map_err(|error| self.explain(errno::nix(error)))
            .with_context(|| format!("fsconfig({:?}, FSCONFIG_CMD_CREATE)", self.name))?;
        fsmount(&self.context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(errno::nix)
            .with_context(|| format!("fsmount({:?}, {attributes:?})", self.name))
    }

    /// Adds the kernel's message to an error. read(2) from the context returns
    /// it: `e tmpfs: Unknown parameter 'foo'`.
    fn explain(&self, errno: Errno) -> anyhow::Error {
        let error = anyhow::Error::from(errno);
        let mut message = [0; 256];
        match read(&self.context, &mut message) {
            Ok(length) => {
                let said = String::from_utf8_lossy(&message[..length]);
                error.context(said.trim_start_matches("e ").trim().to_owned())
            }
            // ENODATA: there is no message.
            Err(_) => error,
        }
    }
}

/// Attaches a detached mount to the directory `target`: move_mount(2).
///
/// # Errors
/// `EINVAL` if the mount is attached already, `EPERM` without `CAP_SYS_ADMIN`
/// over the caller's mount namespace.
pub fn attach(mount: impl AsFd, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, "", CWD, target, flags).with_context(|| format!("move_mount({target:?})"))
}
