//! The user namespace as an isolation.

use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use kit::say;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, chroot, setresgid, setresuid};
use process::Isolation;
use uts::{Namespace, NamespaceMode};

use crate::UserSettings;
use crate::caller::Caller;
use crate::choice::{Mapping, Writer, mappings};
use crate::credentials::set_groups;
use crate::diagnose;
use crate::ids::Ids;
use crate::write_maps;

/// A user namespace, in which the set-up that follows has every capability.
///
/// It precedes every isolation that needs its rights. The kernel makes the user
/// namespace before the others of the same clone(2), so it owns them, and the
/// later isolations in the list run as its root.
pub struct User {
    args: UserSettings,
    /// Decided in `prepare`.
    namespace: Namespace,
    mappings: Vec<Mapping>,
}

impl User {
    /// The isolation that `args` describe. `prepare` checks them.
    pub fn new(args: UserSettings) -> Self {
        User {
            args,
            namespace: Namespace::new(CloneFlags::CLONE_NEWUSER, NamespaceMode::Host),
            mappings: Vec::new(),
        }
    }

    /// The mode that was asked for, or the one that works for this caller.
    fn mode(&self, caller: &Caller) -> NamespaceMode {
        match self.args.userns {
            Some(mode) => mode,
            None if self.args.asks_for_map() || !caller.is_privileged() => NamespaceMode::Private,
            None => NamespaceMode::Host,
        }
    }
}

const UNEXPLAINED: &str = "a security module or another engine's filter may forbid it; and to join \
                           a namespace of an ordinary user's container, join its user namespace \
                           too (--userns container:PID)";

impl Isolation for User {
    fn name(&self) -> &'static str {
        "user"
    }

    fn namespaces(&self) -> CloneFlags {
        // ANCHOR: exercise_new_namespace
        self.namespace.namespaces()
        // ANCHOR_END: exercise_new_namespace
    }

    fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        self.namespace.joins()
    }

    fn why_refused(&self, errno: Errno) -> Option<String> {
        match (self.namespace.mode(), errno) {
            (NamespaceMode::Private, _) => diagnose::clone_refused(Path::new("/proc"), errno)
                .or_else(|| (errno == Errno::EPERM).then(|| UNEXPLAINED.to_owned())),
            (NamespaceMode::Host, Errno::EPERM) if self.args.userns.is_some() => Some(
                "with --userns host namespaces need root: omit the option, or use sudo".to_owned(),
            ),
            (NamespaceMode::Container(pid), Errno::EPERM) => Some(format!(
                "only root and the user who made the container may join the namespaces of \
                 process {pid}"
            )),
            _ => None,
        }
    }

    fn prepare(&mut self) -> Result<()> {
        let caller = Caller::look()?;
        let mode = self.mode(&caller);
        self.namespace = Namespace::new(CloneFlags::CLONE_NEWUSER, mode);
        if mode == NamespaceMode::Private {
            self.mappings = mappings(&self.args, &caller)?;
        } else if self.args.asks_for_map() {
            bail!("a map with --userns {mode}: only a new user namespace can have one");
        }
        self.namespace.prepare()
    }

    fn opens_child(&self) -> bool {
        let mut writers = self.mappings.iter().map(|mapping| &mapping.writer);
        writers.any(|writer| *writer != Writer::Privileged)
    }

    // ANCHOR: on_host
    fn on_host(&mut self, child: Pid) -> Result<()> {
        // ANCHOR: exercise_new_namespace
        if self
            .mappings
            .iter()
            .any(|mapping| mapping.ids == Ids::Group && mapping.writer == Writer::Own)
        {
            write_maps::deny_setgroups(child)?;
        }
        for mapping in &self.mappings {
            write_maps::write_map(child, mapping)?;
        }
        Ok(())
        // ANCHOR_END: exercise_new_namespace
    }
    // ANCHOR_END: on_host

    // ANCHOR: in_container
    fn in_container(&mut self) -> Result<()> {
        if self.namespace.mode() == NamespaceMode::Host {
            return Ok(());
        }
        require_power()?;
        become_root()?;
        // A change of credentials has cleared it (prctl(2)). If the launcher
        // died before this call, the pipe on which the child waits next says
        // so.
        prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")
    }
    // ANCHOR_END: in_container
}

/// Tests that the capabilities of the new namespace are effective, with a call
/// that needs one and changes nothing. A security module may have voided them,
/// and then each later call would fail under another name.
fn require_power() -> Result<()> {
    chroot("/").map_err(|errno| match errno {
        Errno::EPERM | Errno::EACCES => Error::new(errno).context("chroot(/)").context(format!(
            "root of the new user namespace has no rights: {}",
            diagnose::powerless(Path::new("/proc"))
        )),
        other => Error::new(other).context("chroot(/)"),
    })
}

// ANCHOR: become_root
/// Takes UID and GID 0 of the namespace and drops the caller's groups, so that
/// what the set-up creates belongs to root inside. Where 0 is not mapped, the
/// IDs stay; the capabilities come from the namespace, not from the UID.
pub fn become_root() -> Result<()> {
    // ANCHOR: exercise_become_root
    set_groups(&[])?;
    let gid = Gid::from_raw(0);
    if unless_unmapped(setresgid(gid, gid, gid)).context("setresgid(0)")? {
        say!("GID 0 is not mapped: the group stays as it is");
    }
    let uid = Uid::from_raw(0);
    if unless_unmapped(setresuid(uid, uid, uid)).context("setresuid(0)")? {
        say!("UID 0 is not mapped: the user stays as it is");
    }
    Ok(())
    // ANCHOR_END: exercise_become_root
}
// ANCHOR_END: become_root

/// Whether the ID was refused with `EINVAL`, because it is not mapped.
fn unless_unmapped(set: nix::Result<()>) -> nix::Result<bool> {
    match set {
        Ok(()) => Ok(false),
        Err(Errno::EINVAL) => Ok(true),
        Err(other) => Err(other),
    }
}
