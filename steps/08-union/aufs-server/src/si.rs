//! The branches of a mounted union and their rights, which the kernel's AUFS
//! shows in `/sys/fs/aufs/si_*`. Here extended attributes show them, so that
//! nothing is left behind when a server is killed.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::getxattr;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::xattr::{BRANCHES, SERVER};

/// The branches of the union that `path` is in, the highest first, each as
/// `PATH=rw`.
///
/// # Errors
/// If `path` is in no union of this program, or its server is gone.
pub fn branches(path: &Path) -> Result<Vec<OsString>> {
    let value = ask(path, BRANCHES)?;
    let lines = value.split(|&byte| byte == 0);
    let lines = lines.filter(|line| !line.is_empty());
    Ok(lines
        .map(|line| OsString::from_vec(line.to_vec()))
        .collect())
}

/// The process that serves the union that `path` is in: a pidfd, to wait for
/// its end (pidfd_open(2)).
///
/// # Errors
/// If `path` is in no union of this program, if its server is gone, or if the
/// process is not in the caller's PID namespace.
pub fn server(path: &Path) -> Result<OwnedFd> {
    let value = ask(path, SERVER)?;
    let pid = str::from_utf8(&value).ok().and_then(|t| t.parse().ok());
    let pid = pid
        .and_then(Pid::from_raw)
        .context("the server did not report its PID")?;
    pidfd_open(pid, PidfdFlags::empty())
        .with_context(|| format!("pidfd_open({})", pid.as_raw_nonzero()))
}

fn ask(path: &Path, name: &str) -> Result<Vec<u8>> {
    let mut value = vec![0; 64 << 10];
    let length = match getxattr(path, name, value.as_mut_slice()) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => {
            bail!("{path:?} is not in a union mounted by step-08")
        }
        Err(Errno::NOTCONN) => bail!("the server of {path:?} has ended: step-08 umount {path:?}"),
        length => length.with_context(|| format!("getxattr({path:?}, {name})"))?,
    };
    value.truncate(length);
    Ok(value)
}
