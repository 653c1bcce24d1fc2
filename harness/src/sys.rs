//! The only `unsafe` of the harness.
#![allow(unsafe_code)]

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid, fork, getpid, pipe, read, write};

/// Forks a child that forks a grandchild and ends: the grandchild is an
/// orphan, and whoever adopts orphans becomes its parent. It ends at once, or
/// never if `stay`. Returns its PID, as this process's namespace numbers it.
///
/// # Errors
/// Those of pipe(2) and fork(2), and for a caller with threads.
pub fn orphan(stay: bool) -> Result<Pid> {
    let (from_grandchild, to_parent) = pipe().context("pipe")?;
    let exit = |status| -> ! {
        // SAFETY: _exit(2) only ends the process.
        unsafe { libc::_exit(status) }
    };
    // SAFETY: the probe has one thread, so the child's copy of the memory is
    // consistent.
    if let ForkResult::Child = unsafe { fork() }.context("fork")? {
        // SAFETY: as above.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { .. }) => exit(0),
            Ok(ForkResult::Child) => {
                let told = write(&to_parent, &getpid().as_raw().to_ne_bytes());
                if told.is_err() {
                    exit(1);
                }
                drop((from_grandchild, to_parent));
                if stay {
                    loop {
                        nix::unistd::pause();
                    }
                }
                exit(0)
            }
            Err(_) => exit(1),
        }
    }
    drop(to_parent);
    nix::sys::wait::wait().context("wait")?;
    let mut bytes = [0; 4];
    if read(&from_grandchild, &mut bytes).context("read from the orphan")? != bytes.len() {
        bail!("the orphan did not say its PID");
    }
    Ok(Pid::from_raw(i32::from_ne_bytes(bytes)))
}

/// The kinds of System V objects (sysvipc(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SysV {
    /// A message queue.
    Msg,
    /// A semaphore set.
    Sem,
    /// A shared memory segment.
    Shm,
}

/// Makes a System V object of the smallest size and returns its identifier:
/// msgget(2), semget(2), shmget(2).
///
/// # Errors
/// Those of the kernel.
pub fn make_sysv(kind: SysV) -> Result<i32, Errno> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: these take numbers only.
    Errno::result(unsafe {
        match kind {
            SysV::Msg => libc::msgget(libc::IPC_PRIVATE, flags),
            SysV::Sem => libc::semget(libc::IPC_PRIVATE, 1, flags),
            SysV::Shm => libc::shmget(libc::IPC_PRIVATE, 1, flags),
        }
    })
}

/// Removes a System V object: msgctl(2), semctl(2), shmctl(2).
///
/// # Errors
/// Those of the kernel: `EINVAL` where there is none.
pub fn remove_sysv(kind: SysV, id: i32) -> Result<(), Errno> {
    // SAFETY: IPC_RMID does not use the pointers.
    Errno::result(unsafe {
        match kind {
            SysV::Msg => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            SysV::Sem => libc::semctl(id, 0, libc::IPC_RMID),
            SysV::Shm => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
        }
    })
    .map(drop)
}
