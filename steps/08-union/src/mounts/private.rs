//! A private mount namespace for the tools that inspect layers: their mounts
//! end with the process, also after `kill -9`.

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
/// here does not propagate to the host (mount_namespaces(7)).
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

/// Runs `work` in a child process with a mount namespace of its own, and
/// returns the descriptor that it makes. The child's mounts end with it, except
/// the one that the descriptor holds.
///
/// # Errors
/// An error of `work` arrives as text, without its errno.
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

/// Enters a new mount namespace; without root also a new user namespace, in
/// which the caller is root.
pub fn enter() -> Result<()> {
    if !geteuid().is_root() {
        become_root_inside()?;
    }
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    cut_off()
}

/// Makes the caller root of a new user namespace, as `step-05 --map-root` does
/// for its child.
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
