//! Namespaces by path, and those of a running container.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::sys::namespace_kind;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::sethostname;
use process::Isolation;
use rustix::system::setdomainname;
use user::isolation::become_root;

use crate::config::NamespaceKind;

impl NamespaceKind {
    pub(crate) fn flag(self) -> CloneFlags {
        match self {
            NamespaceKind::User => CloneFlags::CLONE_NEWUSER,
            NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
            NamespaceKind::Network => CloneFlags::CLONE_NEWNET,
            NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
            NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
            NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
            NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            NamespaceKind::Time => CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
        }
    }

    /// Its name in `/proc/PID/ns`.
    pub(crate) fn file(self) -> &'static str {
        match self {
            NamespaceKind::User => "user",
            NamespaceKind::Pid => "pid",
            NamespaceKind::Network => "net",
            NamespaceKind::Mount => "mnt",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Time => "time",
        }
    }
}

/// All kinds, in the order in which they are entered: the user namespace gives
/// the right to enter the others, and after the mount namespace no path of the
/// host leads anywhere.
pub(crate) const ALL: [NamespaceKind; 8] = [
    NamespaceKind::User,
    NamespaceKind::Ipc,
    NamespaceKind::Uts,
    NamespaceKind::Network,
    NamespaceKind::Pid,
    NamespaceKind::Time,
    NamespaceKind::Cgroup,
    NamespaceKind::Mount,
];

/// Opens the file of a namespace, and makes sure that it is one of this kind.
pub(crate) fn open(path: &Path, kind: NamespaceKind) -> Result<File> {
    let file = File::open(path).with_context(|| format!("open {path:?}"))?;
    // The name of the file tells nothing: it may be mounted anywhere, as `ip
    // netns add` and dockerd do.
    match namespace_kind(file.as_fd()) {
        Ok(found) if found == kind.flag() => Ok(file),
        Ok(_) | Err(Errno::ENOTTY) => bail!("{path:?} is not a {} namespace", kind.file()),
        Err(errno) => Err(errno).with_context(|| format!("ioctl({path:?}, NS_GET_NSTYPE)")),
    }
}

/// Whether this process is in the namespace.
pub(crate) fn is_own(file: &File, kind: NamespaceKind) -> Result<bool> {
    let own = format!("/proc/self/ns/{}", kind.file());
    let own = fs::metadata(&own).with_context(|| format!("stat {own}"))?;
    let there = file.metadata().context("fstat")?;
    Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
}

/// The isolation that enters a namespace. Not for a cgroup namespace, which is
/// entered after the groups (`View`).
pub(crate) struct Joined {
    kind: NamespaceKind,
    file: File,
    name: &'static str,
}

impl Joined {
    pub(crate) fn new(kind: NamespaceKind, file: File) -> Self {
        let name = match kind {
            NamespaceKind::User => "user",
            NamespaceKind::Pid => "pid",
            NamespaceKind::Network => "net",
            NamespaceKind::Mount => "mount",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Time => "time",
        };
        Joined { kind, file, name }
    }
}

impl Isolation for Joined {
    fn name(&self) -> &'static str {
        self.name
    }

    fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        Some((self.file.as_fd(), self.kind.flag()))
    }

    fn in_container(&mut self) -> Result<()> {
        if self.kind != NamespaceKind::User {
            return Ok(());
        }
        become_root()?;
        // A change of credentials has cleared it (prctl(2)).
        prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")
    }
}

/// The isolation that makes new namespaces.
pub(crate) struct New(pub CloneFlags);

impl Isolation for New {
    fn name(&self) -> &'static str {
        "namespaces"
    }

    fn namespaces(&self) -> CloneFlags {
        self.0
    }
}

/// The isolation that sets the names of a UTS namespace.
pub(crate) struct Names {
    pub hostname: String,
    pub domainname: String,
    /// Whether the namespace is another's: it is renamed then too, as runc does.
    pub outside: Option<String>,
}

impl Isolation for Names {
    fn name(&self) -> &'static str {
        "uts"
    }

    fn prepare(&mut self) -> Result<()> {
        self.outside = own("uts");
        Ok(())
    }

    fn in_container(&mut self) -> Result<()> {
        if self.hostname.is_empty() && self.domainname.is_empty() {
            return Ok(());
        }
        if self.outside == own("uts") {
            bail!("a host name in the caller's own UTS namespace would rename the host");
        }
        if !self.hostname.is_empty() {
            sethostname(&self.hostname)
                .with_context(|| format!("sethostname({:?})", self.hostname))?;
        }
        if !self.domainname.is_empty() {
            setdomainname(self.domainname.as_bytes())
                .with_context(|| format!("setdomainname({:?})", self.domainname))?;
        }
        Ok(())
    }
}

fn own(kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}
