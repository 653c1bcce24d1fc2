//! System V IPC (sysvipc(7)): making and removing objects, in the IPC namespace
//! of the caller. No maintained library has safe wrappers.
//!
//! Every object is made with the key `IPC_PRIVATE`: it is a new one, to which
//! only its identifier refers. `mode` is the lower nine bits, as in chmod(2).

use anyhow::{Context, Result};
use nix::errno::Errno;

const NEW: i32 = libc::IPC_CREAT | libc::IPC_EXCL;
const PERMISSIONS: u32 = 0o777;

fn flags(mode: u32) -> i32 {
    NEW | (mode & PERMISSIONS) as i32
}

/// Makes a message queue and returns its identifier: msgget(2).
///
/// # Errors
/// `ENOSPC` beyond `/proc/sys/kernel/msgmni`.
pub fn msgget(mode: u32) -> Result<i32> {
    // SAFETY: takes numbers only.
    let id = unsafe { libc::msgget(libc::IPC_PRIVATE, flags(mode)) };
    Errno::result(id).context("msgget(IPC_PRIVATE)")
}

/// Makes a set of `count` semaphores and returns its identifier: semget(2).
///
/// # Errors
/// `EINVAL` for a count of 0 or beyond the first, `ENOSPC` beyond the second
/// or fourth number in `/proc/sys/kernel/sem`.
pub fn semget(count: u16, mode: u32) -> Result<i32> {
    // SAFETY: takes numbers only.
    let id = unsafe { libc::semget(libc::IPC_PRIVATE, i32::from(count), flags(mode)) };
    Errno::result(id).with_context(|| format!("semget(IPC_PRIVATE, {count})"))
}

/// Makes a shared memory segment of `bytes`, which the kernel rounds up to
/// pages, and returns its identifier: shmget(2).
///
/// # Errors
/// `EINVAL` for 0 bytes or beyond `/proc/sys/kernel/shmmax`, `ENOSPC` beyond
/// `shmmni` segments or `shmall` pages.
pub fn shmget(bytes: usize, mode: u32) -> Result<i32> {
    // SAFETY: takes numbers only.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, bytes, flags(mode)) };
    Errno::result(id).with_context(|| format!("shmget(IPC_PRIVATE, {bytes})"))
}

/// Removes a message queue: msgctl(2) with `IPC_RMID`.
///
/// # Errors
/// `EINVAL` if there is no queue of this identifier, `EPERM` for all but its
/// owner, its creator and root.
pub fn msgctl_rmid(id: i32) -> Result<()> {
    // SAFETY: IPC_RMID does not use the pointer.
    let done = unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    Errno::result(done).with_context(|| format!("msgctl({id}, IPC_RMID)"))?;
    Ok(())
}

/// Removes a set of semaphores: semctl(2) with `IPC_RMID`.
pub fn semctl_rmid(id: i32) -> Result<()> {
    // SAFETY: IPC_RMID takes no further argument.
    let done = unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
    Errno::result(done).with_context(|| format!("semctl({id}, IPC_RMID)"))?;
    Ok(())
}

/// Removes a shared memory segment, as soon as the last process has detached
/// it: shmctl(2) with `IPC_RMID`.
pub fn shmctl_rmid(id: i32) -> Result<()> {
    // SAFETY: IPC_RMID does not use the pointer.
    let done = unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    Errno::result(done).with_context(|| format!("shmctl({id}, IPC_RMID)"))?;
    Ok(())
}
