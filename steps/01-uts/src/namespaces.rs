//! The namespaces of a process (namespaces(7)): the links in `/proc/PID/ns`,
//! and the user namespace that owns each (ioctl_ns(2)).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::sys::owning_user_namespace;
use nix::errno::Errno;
use nix::unistd::Pid;

/// All kinds of namespaces, by their names in `/proc/PID/ns`.
pub const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// A process of this PID namespace whose namespaces are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The calling process.
    Caller,
    /// Another process, by its PID.
    Other(Pid),
}

impl Process {
    fn proc(self) -> PathBuf {
        match self {
            Process::Caller => "/proc/self".into(),
            Process::Other(pid) => format!("/proc/{pid}").into(),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Process::Caller => f.write_str("caller"),
            Process::Other(pid) => write!(f, "{pid}"),
        }
    }
}

/// One namespace of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// One of [`KINDS`].
    pub kind: &'static str,
    /// The inode of the namespace: equal for processes in the same namespace.
    /// `None` if the kernel has no such kind, or if the process is a zombie.
    pub id: Option<u64>,
    /// The inode of the owning user namespace: capabilities in that namespace
    /// apply to this one. `None` if the caller may not see it (`EPERM`: it is
    /// above the caller's own), or if there is no `id`.
    pub owner: Option<u64>,
}

/// Returns the namespaces of `process`, in the order of [`KINDS`].
///
/// # Errors
/// Names a process that does not exist, or whose namespaces the caller may not
/// read (`EACCES`, ptrace(2): another user's process).
pub fn of(process: Process) -> Result<Vec<Membership>> {
    // ANCHOR: exercise_look_at_namespaces
    let dir = process.proc().join("ns");
    match fs::metadata(&dir) {
        Err(e) if e.kind() == ErrorKind::NotFound && !Path::new("/proc/self").exists() => {
            bail!("/proc is not mounted: namespaces are shown there")
        }
        Err(e) if e.kind() == ErrorKind::NotFound => bail!("process {process} does not exist"),
        other => other.with_context(|| format!("stat {dir:?}"))?,
    };
    KINDS
        .iter()
        .map(|kind| membership(&dir, kind).map_err(|e| may_not_look(process, e)))
        .collect()
    // ANCHOR_END: exercise_look_at_namespaces
}

// ANCHOR: membership
fn membership(dir: &Path, kind: &'static str) -> Result<Membership> {
    let path = dir.join(kind);
    let namespace = match File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let (id, owner) = (None, None);
            return Ok(Membership { kind, id, owner });
        }
        opened => opened.with_context(|| format!("open {path:?}"))?,
    };
    let id = inode(&namespace).with_context(|| format!("stat {path:?}"))?;
    let owner = match owning_user_namespace(namespace.as_fd()) {
        Ok(owner) => Some(inode(&owner.into()).context("stat the owning user namespace")?),
        Err(e) if e.downcast_ref() == Some(&Errno::EPERM) => None,
        Err(e) => return Err(e).with_context(|| format!("{path:?}")),
    };
    Ok(Membership {
        kind,
        id: Some(id),
        owner,
    })
}
// ANCHOR_END: membership

fn inode(namespace: &File) -> io::Result<u64> {
    namespace.metadata().map(|m| m.ino())
}

fn may_not_look(process: Process, error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(ErrorKind::PermissionDenied) => error.context(format!(
            "only root and the owner of process {process} may see its namespaces"
        )),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_itself_under_its_pid() {
        let caller = of(Process::Caller).unwrap();
        assert_eq!(caller, of(Process::Other(Pid::this())).unwrap());
        assert_eq!(caller.len(), KINDS.len());
        assert!(caller.iter().all(|m| m.kind == "time" || m.id.is_some()));
    }

    #[test]
    fn a_process_that_does_not_exist_is_named() {
        let error = of(Process::Other(Pid::from_raw(i32::MAX))).unwrap_err();
        assert_eq!(error.to_string(), "process 2147483647 does not exist");
    }
}
