//! A mount namespace for this process alone, for the tools that look into
//! layers: whatever they mount goes with them, also by `kill -9`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, anyhow};
use kit::sys;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, getegid, geteuid, pipe2};
use process::handover;

/// Makes every mount of this namespace a slave of the host's: what is mounted
/// here does not appear there (mount_namespaces(7)).
///
/// # Errors
/// Those of mount(2).
pub fn cut_off() -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .context("mount(\"/\", MS_REC | MS_SLAVE)")
}

/// Does `work` in a process and a mount namespace of its own, and takes over the
/// descriptor that comes of it. What the work mounts is gone when this returns,
/// but what the descriptor holds.
///
/// # Errors
/// The work's own, in words; those of fork(2) and unshare(2).
pub fn aside(work: impl FnOnce() -> Result<OwnedFd>) -> Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair().context("socketpair")?;
    let (complaint, complain) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    let ForkResult::Parent { child } = sys::fork()? else {
        drop((ours, complaint));
        let done = unshare(CloneFlags::CLONE_NEWNS)
            .context("unshare(CLONE_NEWNS)")
            .and_then(|()| cut_off())
            .and_then(|()| work())
            .and_then(|made| handover::send(&theirs, made.as_fd()));
        let told = match done {
            Ok(()) => Ok(()),
            Err(error) => File::from(complain).write_all(format!("{error:#}").as_bytes()),
        };
        sys::exit(u8::from(told.is_err()))
    };
    drop((theirs, complain));
    let made = handover::receive(&ours);
    let mut words = String::new();
    let read = File::from(complaint).read_to_string(&mut words);
    waitpid(child, None).with_context(|| format!("waitpid({child})"))?;
    read.context("read from a pipe")?;
    match words.is_empty() {
        true => made,
        false => Err(anyhow!("{words}")),
    }
}

/// Enters a mount namespace of the caller's own; without root in a user
/// namespace as well, in which the caller is root.
///
/// # Errors
/// Those of unshare(2).
pub fn enter() -> Result<()> {
    if !geteuid().is_root() {
        become_root_inside()?;
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    cut_off()
}

/// What `step-05 --map-root` does for its child.
fn become_root_inside() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare(CLONE_NEWUSER)")?;
    for (file, content) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        fs::write(&path, content).with_context(|| format!("write {path}"))?;
    }
    Ok(())
}
