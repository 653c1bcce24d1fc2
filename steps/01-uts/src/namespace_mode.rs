//! The namespace modes, in Docker's words: a new namespace, the host's, or that
//! of a running process (clone(2), setns(2), pidfd_open(2)). Every step with a
//! namespace offers this choice.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};

/// The namespace of a container: `private`, `host` or `container:PID`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamespaceMode {
    /// A new namespace, created with the container.
    #[default]
    Private,
    /// The launcher's namespace: no isolation.
    Host,
    /// The namespace of a running process, by its PID as the launcher sees it.
    Container(Pid),
}

impl FromStr for NamespaceMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "private" => Ok(NamespaceMode::Private),
            "host" => Ok(NamespaceMode::Host),
            _ => match text.strip_prefix("container:").map(i32::from_str) {
                Some(Ok(pid @ 1..)) => Ok(NamespaceMode::Container(Pid::from_raw(pid))),
                Some(_) => bail!("container: needs the PID of a process in the container"),
                None => bail!("use private, host or container:PID"),
            },
        }
    }
}

impl fmt::Display for NamespaceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamespaceMode::Private => f.write_str("private"),
            NamespaceMode::Host => f.write_str("host"),
            NamespaceMode::Container(pid) => write!(f, "container:{pid}"),
        }
    }
}

/// A namespace of one kind, according to its mode. Provides the `namespaces`,
/// `prepare` and `joins` of an [`Isolation`](process::Isolation), which calls
/// them in its own.
///
/// ```
/// use nix::sched::CloneFlags;
/// use uts::{Namespace, NamespaceMode};
///
/// let new = Namespace::new(CloneFlags::CLONE_NEWIPC, NamespaceMode::Private);
/// assert_eq!(new.namespaces(), CloneFlags::CLONE_NEWIPC);
/// assert!(new.joins().is_none());
/// ```
#[derive(Debug)]
pub struct Namespace {
    kind: CloneFlags,
    mode: NamespaceMode,
    process: Option<OwnedFd>,
}

impl Namespace {
    /// Creates a namespace of `kind`, a single `CLONE_NEW*` flag.
    pub fn new(kind: CloneFlags, mode: NamespaceMode) -> Self {
        Namespace {
            kind,
            mode,
            process: None,
        }
    }

    /// The mode given to [`new`](Self::new).
    pub fn mode(&self) -> NamespaceMode {
        self.mode
    }

    // ANCHOR: namespace_flags
    /// The flag for clone(2) if a new namespace is wanted, else none.
    pub fn namespaces(&self) -> CloneFlags {
        match self.mode {
            NamespaceMode::Private => self.kind,
            NamespaceMode::Host | NamespaceMode::Container(_) => CloneFlags::empty(),
        }
    }
    // ANCHOR_END: namespace_flags

    // ANCHOR: namespace_prepare
    /// Opens a pidfd of the process whose namespace is to be joined. A pidfd
    /// refers to that process even after its PID is reused.
    ///
    /// # Errors
    /// Names the PID if there is no such process (`ESRCH`), or if it belongs to
    /// a thread (`EINVAL`, since Linux 6.9 `ENOENT`).
    pub fn prepare(&mut self) -> Result<()> {
        let NamespaceMode::Container(pid) = self.mode else {
            return Ok(());
        };
        // ANCHOR: exercise_join
        let raw = rustix::process::Pid::from_raw(pid.as_raw())
            .with_context(|| format!("container:{pid}: 0 is not a PID"))?;
        let process = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH => anyhow!("container:{pid}: there is no process with this PID"),
            Errno::INVAL | Errno::NOENT => {
                anyhow!("container:{pid}: this is a thread: give the PID of its process")
            }
            _ => Error::new(errno).context(format!("container:{pid}: pidfd_open")),
        })?;
        self.process = Some(process);
        Ok(())
        // ANCHOR_END: exercise_join
    }
    // ANCHOR_END: namespace_prepare

    /// The pidfd of the process to join, and the flag for setns(2). `None`
    /// before `prepare`, and in the other modes.
    pub fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        Some((self.process.as_ref()?.as_fd(), self.kind))
    }
}

kit::serde_as_text!(NamespaceMode);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_spelled_as_it_is_shown() {
        for text in ["private", "host", "container:4711"] {
            assert_eq!(text.parse::<NamespaceMode>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Host",
            "container:",
            "container:0",
            "container:-1",
            "container:x",
        ] {
            assert!(
                text.parse::<NamespaceMode>().is_err(),
                "{text} was accepted"
            );
        }
    }

    #[test]
    fn a_process_that_does_not_exist_is_named() {
        let nobody = NamespaceMode::Container(Pid::from_raw(i32::MAX));
        let error = Namespace::new(CloneFlags::CLONE_NEWUTS, nobody)
            .prepare()
            .unwrap_err();
        assert!(format!("{error:#}").contains("2147483647"));
    }

    #[test]
    fn a_joined_namespace_is_not_a_new_one() {
        let own = NamespaceMode::Container(Pid::this());
        let mut namespace = Namespace::new(CloneFlags::CLONE_NEWUTS, own);
        namespace.prepare().unwrap();
        assert!(namespace.namespaces().is_empty());
        assert!(namespace.joins().is_some());
    }
}
