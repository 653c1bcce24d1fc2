//! execve(2), prepared: no memory is asked for when it is called. Behind a
//! seccomp filter even brk(2) may be forbidden.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use anyhow::Result;
use nix::errno::Errno;

use super::c_string;

/// Has the command's process be killed at the death of the thread that starts
/// it (PR_SET_PDEATHSIG(2const)). Its own children are not.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id() as libc::pid_t;
    let ask = move || {
        // SAFETY: two calls that read numbers only, and are async-signal-safe.
        let (asked, now) = unsafe {
            (
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL),
                libc::getppid(),
            )
        };
        if asked == -1 {
            return Err(io::Error::last_os_error());
        }
        // It may have died before the call.
        match now == parent {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    // SAFETY: `ask` takes no lock and asks for no memory.
    unsafe { command.pre_exec(ask) };
}

/// Has the command's process call `last` when only execve(2) is left. For a caller
/// with one thread: the process is a copy of it.
///
/// # Errors
/// Of `last`, only the errno reaches the caller, as the error of the start.
pub fn act_last(
    command: &mut Command,
    last: impl Fn() -> anyhow::Result<()> + Send + Sync + 'static,
) {
    let last = move || {
        last().map_err(|error| match crate::errno::errno_of(&error) {
            Some(errno) => io::Error::from_raw_os_error(errno as i32),
            None => io::Error::other(error),
        })
    };
    // SAFETY: no other thread of the caller held a lock when it was copied.
    unsafe { command.pre_exec(last) };
}

/// Arguments and environment, in the form that the kernel reads.
pub struct Arguments {
    argv: Strings,
    env: Strings,
}

/// Strings, and the array of their addresses, which ends with a null pointer.
struct Strings {
    /// Owns what the pointers lead to.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    fn new(list: &[OsString]) -> Result<Strings> {
        let strings = list.iter().map(|s| c_string(s));
        let strings: Vec<CString> = strings.collect::<Result<_>>()?;
        let pointers = strings.iter().map(|s| s.as_ptr());
        Ok(Strings {
            // The text of a `CString` stays where it is when its owner moves.
            pointers: pointers.chain([ptr::null()]).collect(),
            _strings: strings,
        })
    }
}

impl Arguments {
    /// Converts arguments and environment (`NAME=VALUE`).
    ///
    /// # Errors
    /// Names a string that contains a NUL byte.
    pub fn new(argv: &[OsString], env: &[OsString]) -> Result<Arguments> {
        Ok(Arguments {
            argv: Strings::new(argv)?,
            env: Strings::new(env)?,
        })
    }

    /// Executes `file`: execve(2). Returns only if that fails.
    pub fn execve(&self, file: &CStr) -> Errno {
        let (argv, env) = (self.argv.pointers.as_ptr(), self.env.pointers.as_ptr());
        // SAFETY: both arrays end with a null pointer, and what they point to
        // ends with a NUL byte and lives as long as `self`.
        unsafe { libc::execve(file.as_ptr(), argv, env) };
        Errno::last()
    }

    /// Executes an open file: execveat(2). Returns only if that fails.
    pub fn execve_open(&self, file: BorrowedFd<'_>) -> Errno {
        let (argv, env) = (self.argv.pointers.as_ptr(), self.env.pointers.as_ptr());
        // SAFETY: as above; the path is empty, and the descriptor is open.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                file.as_raw_fd(),
                c"".as_ptr(),
                argv,
                env,
                libc::AT_EMPTY_PATH,
            )
        };
        Errno::last()
    }
}
