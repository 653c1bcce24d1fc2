//! A copy of the runtime's program that nobody can change.
//!
//! A process that enters a container is still the runtime until execve(2), and
//! `/proc/PID/exe` leads to its program on the host. It is undumpable, so that
//! link is closed to the container, but not to a process with `CAP_SYS_PTRACE`:
//! that could open the program, and write to it as soon as nobody executes it
//! (CVE-2019-5736). Where a container may have that capability, the runtime
//! executes a sealed copy of itself in memory first (memfd_create(2), fcntl(2)
//! `F_ADD_SEALS`). Everybody else is spared the copy.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use kit::say;
use kit::sys::Arguments;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use rustix::fs::{SealFlags, fcntl_get_seals};

/// Makes sure that this program is a sealed copy. Executes one, with the same
/// arguments and environment and with the descriptors in `passed`, if it is not:
/// nothing may have been made yet.
pub fn ensure(passed: &[OwnedFd]) -> Result<()> {
    let own = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    // EINVAL: an ordinary file has no seals.
    if fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE)) {
        return Ok(());
    }
    drop(own);
    say!("execute a sealed copy of the program");
    for descriptor in passed {
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).context("fcntl(F_SETFD)")?;
    }
    let copy = pid::init::seal()?;
    let argv: Vec<_> = std::env::args_os().collect();
    let env: Vec<_> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect();
    let arguments = Arguments::new(&argv, &env)?;
    Err(arguments.execve_open(copy.as_fd())).context("execveat(a sealed copy)")
}
