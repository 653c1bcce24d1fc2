//! The host name that the processes of a container see.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result, bail};
use kit::sys;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, gethostname, pipe2};

use crate::{Namespace, NamespaceMode, UtsSettings};

impl UtsSettings {
    /// The host name inside: that of `--hostname`, or else that of the
    /// namespace. A new namespace starts with a copy of the caller's name. The
    /// caller must be single-threaded.
    ///
    /// # Errors
    /// If the process of `--uts container:PID` does not exist, or the caller
    /// may not join its namespace.
    pub fn hostname_inside(&self) -> Result<OsString> {
        match (&self.hostname, self.uts) {
            (Some(name), _) => Ok(name.clone()),
            (None, NamespaceMode::Container(pid)) => {
                of_process(pid).with_context(|| format!("the host name of --uts {}", self.uts))
            }
            (None, NamespaceMode::Private | NamespaceMode::Host) => {
                gethostname().context("gethostname")
            }
        }
    }
}

/// Reads the host name in the UTS namespace of process `pid`. No file shows it:
/// /proc/PID/root/proc/sys/kernel/hostname is the reader's. So a child process
/// joins the namespace and asks there.
fn of_process(pid: Pid) -> Result<OsString> {
    let mode = NamespaceMode::Container(pid);
    let mut namespace = Namespace::new(CloneFlags::CLONE_NEWUTS, mode);
    namespace.prepare()?;
    let (process, _) = namespace.joins().context("no process to join")?;
    let (answer, answered) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    let ForkResult::Parent { child } = sys::fork()? else {
        let mut answered = File::from(answered);
        let (words, status) = match joined(process) {
            Ok(name) => (name.into_vec(), 0),
            Err(error) => (format!("{error:#}").into_bytes(), 1),
        };
        sys::exit(answered.write_all(&words).map_or(1, |()| status))
    };
    drop(answered);
    let mut words = Vec::new();
    let read = File::from(answer).read_to_end(&mut words);
    let ended = waitpid(child, None).with_context(|| format!("waitpid({child})"))?;
    read.context("read from a pipe")?;
    match ended {
        WaitStatus::Exited(_, 0) => Ok(OsString::from_vec(words)),
        WaitStatus::Exited(..) => bail!("{}", String::from_utf8_lossy(&words)),
        other => bail!("the process that should have read it died: {other:?}"),
    }
}

/// Joins the UTS namespace of `process`, and returns the host name there. A
/// caller without root may join it from inside the user namespace that owns it.
fn joined(process: BorrowedFd<'_>) -> Result<OsString> {
    let (uts, user) = (CloneFlags::CLONE_NEWUTS, CloneFlags::CLONE_NEWUSER);
    match setns(process, uts) {
        Err(Errno::EPERM) => setns(process, user | uts).or(Err(Errno::EPERM)),
        joined => joined,
    }
    .context("setns(CLONE_NEWUTS)")?;
    gethostname().context("gethostname")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_given_needs_no_process() {
        let uts = UtsSettings {
            uts: NamespaceMode::Container(Pid::from_raw(i32::MAX)),
            hostname: Some("box".into()),
            ..UtsSettings::default()
        };
        assert_eq!(uts.hostname_inside().unwrap(), "box");
    }

    #[test]
    fn a_process_that_does_not_exist_is_named() {
        let uts = UtsSettings {
            uts: NamespaceMode::Container(Pid::from_raw(i32::MAX)),
            ..UtsSettings::default()
        };
        let error = format!("{:#}", uts.hostname_inside().unwrap_err());
        assert!(error.contains("container:2147483647"), "{error}");
    }

    #[test]
    fn a_namespace_begins_with_the_callers_name() {
        let name = UtsSettings::default().hostname_inside().unwrap();
        assert_eq!(name, gethostname().unwrap());
    }
}
