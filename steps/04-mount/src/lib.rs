//! Step 04: the mount namespace, and a root file system of the container's own.
//!
//! mount_namespaces(7), pivot_root(2), mount(2). A new mount namespace is a
//! copy of the caller's mounts, in which nothing looks different yet. This
//! crate turns the copy into the container's mounts, in one order:
//!
//! 1. the copy leaves the peer groups of the host's mounts ([`Propagation`]);
//! 2. the volumes' mounts are copied, while the host's paths are reachable;
//! 3. the rootfs becomes a mount (`root`), and gets `/proc`, `/sys`
//!    (`proc_sys`), `/dev` (`dev`), the volumes (`volumes`) and the masks
//!    (`masks`), each attached to a descriptor that was resolved inside it
//!    (`target`);
//! 4. it is made read-only, if requested (`remount`);
//! 5. it becomes `/`, and the host's tree is unmounted (`root`).
//!
//! Read [`Mount`] in this file and the files in parentheses, in this order.
//!
//! What makes it safe, and fit for odd hosts: `target` follows no link out of
//! the root; `detached` and `file_system` make mounts that vanish with their
//! descriptor; `remount_legacy` has the way of kernels before 5.12.

mod bind;
pub mod detached;
mod dev;
pub mod file_system;
mod in_place;
pub mod masks;
mod proc_sys;
mod propagation;
mod remount;
mod remount_legacy;
pub mod root;
mod rootfs;
pub mod target;
mod tmpfs;
mod volumes;

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, umask};
use process::Isolation;
use serde::{Deserialize, Serialize};

use crate::root::Root;
use crate::target::{FileKind, open_or_make};
use crate::volumes::Volumes;

pub use crate::in_place::InPlace;
pub use crate::propagation::{Propagation, change};

/// The root file system of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootTree {
    /// Its own: `--rootfs` was given.
    Own,
    /// The host's.
    Hosts,
}

impl RootTree {
    /// The root file system of a container with this `--rootfs`.
    pub fn of(rootfs: Option<&Path>) -> Self {
        match rootfs {
            Some(_) => RootTree::Own,
            None => RootTree::Hosts,
        }
    }
}

/// The privileges of a container over the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privileges {
    /// The privileges of every container.
    #[default]
    Reduced,
    /// All privileges of the launcher: `--privileged`.
    All,
}

/// What of the host's file systems the container sees.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Mount namespace (step 04)")]
pub struct MountSettings {
    /// Directory to use as the container's root [default: the host's root, with
    /// a new /proc]
    #[arg(long, value_name = "DIR")]
    #[serde(with = "kit::text")]
    pub rootfs: Option<PathBuf>,

    /// How mounts propagate between the host and the container
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    pub propagation: Propagation,

    /// Bind mount a file or directory of the host, read-only with :ro. A
    /// missing DST is created. Repeatable
    #[arg(long, value_name = "SRC:DST[:ro]")]
    #[serde(with = "kit::text")]
    pub bind: Vec<OsString>,

    /// Mount a tmpfs. OPTIONS are those of tmpfs(5) and mount(8), such as
    /// size=64m,mode=755. Repeatable
    #[arg(long, value_name = "DST[:OPTIONS]")]
    pub tmpfs: Vec<String>,

    /// Mount the container's root read-only. Mounts in it, such as /dev and
    /// volumes, stay writable
    #[arg(long)]
    pub read_only: bool,

    /// Use chroot(2) instead of pivot_root(2). For experiments only: the host's
    /// tree stays reachable
    #[arg(long)]
    pub chroot: bool,

    /// The size of /dev/shm in bytes, above 0. `None` is [`SHM_SIZE`].
    #[arg(skip)]
    pub shm_size: Option<u64>,
}

impl MountSettings {
    /// Whether the user has asked for a mount on exactly this path.
    pub fn mounts_on(&self, path: &Path) -> bool {
        let binds = self.bind.iter();
        let on = binds.filter_map(|bind| bind.as_bytes().split(|byte| *byte == b':').nth(1));
        let tmpfs = self.tmpfs.iter();
        let on = on.chain(tmpfs.filter_map(|tmpfs| tmpfs.as_bytes().split(|b| *b == b':').next()));
        on.map(|target| Path::new(OsStr::from_bytes(target)))
            .any(|target| target == path)
    }
}

/// The size of /dev/shm in bytes: 64 MiB, Docker's default.
pub const SHM_SIZE: u64 = 64 << 20;

/// The isolation that makes a mount namespace, and the mounts in it.
#[derive(Debug)]
pub struct Mount {
    args: MountSettings,
    offered: Vec<(PathBuf, PathBuf)>,
    rootfs: Option<PathBuf>,
    volumes: Volumes,
    host_pids: Option<String>,
    host_network: Option<String>,
    host_ipc: Option<String>,
    privileges: Privileges,
    workdir: Option<PathBuf>,
}

impl Mount {
    /// The isolation that `args` describe. They are checked in `prepare`.
    pub fn new(args: MountSettings) -> Self {
        Mount {
            args,
            offered: Vec::new(),
            rootfs: None,
            volumes: Volumes::default(),
            host_pids: None,
            host_network: None,
            host_ipc: None,
            privileges: Privileges::Reduced,
            workdir: None,
        }
    }

    /// Makes the directory `path`, if it is missing, before the root becomes
    /// read-only: afterwards the isolation that enters it could not.
    #[must_use]
    pub fn workdir(mut self, path: PathBuf) -> Self {
        self.workdir = Some(path);
        self
    }

    /// Sets the privileges. With [`Privileges::All`], nothing of `/proc` and
    /// `/sys` is masked, and root inside may write to both, and so to settings
    /// of the host's kernel.
    #[must_use]
    pub fn privileges(mut self, privileges: Privileges) -> Self {
        self.privileges = privileges;
        self
    }

    /// Adds files that another isolation has for the container: pairs of a path
    /// on the host, which exists when `prepare` is called, and a target inside.
    /// They are mounted like `--bind`, but a volume of the user on the same
    /// target takes precedence. A file is omitted if its target does not exist
    /// and cannot be made (a rootfs that is not the user's, a dangling link).
    #[must_use]
    pub fn offer(mut self, files: Vec<(PathBuf, PathBuf)>) -> Self {
        self.offered.extend(files);
        self
    }

    /// Keeps the host's tree, and mounts in it only the volumes and a /proc
    /// that fits the PID namespace.
    fn keep_host_tree(&self, new_pids: bool) -> Result<()> {
        let volumes = self.volumes.take()?;
        let root = Root::open(Path::new("/"))?;
        // If the mounts are shared with the host, a new /proc would cover the
        // host's too, and every program there that looks for itself in it would
        // fail.
        if new_pids && self.args.propagation != Propagation::Shared {
            proc_sys::mount_proc(root.fd(), new_pids)?;
        }
        volumes.attach(root.fd(), false)
    }

    // ANCHOR: change_root
    fn change_root(&self, rootfs: &Path, new_pids: bool) -> Result<()> {
        let volumes = self.volumes.take()?;
        let root = Root::bind(rootfs)?;
        proc_sys::mount_proc(root.fd(), new_pids)?;
        let hosts_network = proc_sys::is_in("net", self.host_network.as_deref());
        proc_sys::mount_sys(root.fd(), self.privileges, hosts_network)?;
        let hosts_queues = proc_sys::is_in("ipc", self.host_ipc.as_deref());
        let shm_size = self.args.shm_size.unwrap_or(SHM_SIZE);
        let dev = dev::mount_dev(root.fd(), hosts_queues, shm_size)?;
        volumes.attach(root.fd(), true)?;
        if self.privileges == Privileges::Reduced {
            masks::mask(root.fd(), dev.as_fd())?;
        }
        if self.args.read_only {
            if let Some(path) = &self.workdir {
                open_or_make(root.fd(), path, FileKind::Directory)
                    .with_context(|| format!("--workdir {path:?}"))?;
            }
            root.make_read_only()?;
        }
        match self.args.chroot {
            true => root.chroot(),
            false => root.pivot(),
        }
    }
    // ANCHOR_END: change_root
}

impl Isolation for Mount {
    fn name(&self) -> &'static str {
        "mount"
    }

    fn namespaces(&self) -> CloneFlags {
        CloneFlags::CLONE_NEWNS
    }

    fn prepare(&mut self) -> Result<()> {
        self.rootfs = match &self.args.rootfs {
            Some(rootfs) => Some(rootfs::check(rootfs)?),
            None => None,
        };
        self.volumes = Volumes::parse(&self.args.bind, &self.args.tmpfs)?;
        if self.rootfs.is_none() {
            if self.args.read_only {
                bail!("--read-only needs --rootfs: without it the root is the host's");
            }
            if self.args.chroot {
                bail!("--chroot needs --rootfs: the directory to change the root to");
            }
            if self.args.propagation == Propagation::Shared && !self.volumes.is_empty() {
                bail!(
                    "--bind and --tmpfs with --propagation shared need --rootfs: without it they \
                     would be mounted on the host as well"
                );
            }
        }
        if self.rootfs.is_some() || self.args.propagation != Propagation::Shared {
            self.volumes.offer(&self.offered)?;
        }
        self.host_pids = proc_sys::namespace("pid");
        self.host_network = proc_sys::namespace("net");
        self.host_ipc = proc_sys::namespace("ipc");
        Ok(())
    }

    // ANCHOR: in_container
    /// Makes all mounts, in the child and in its namespace: when the last
    /// process of the namespace ends, the kernel unmounts them.
    fn in_container(&mut self) -> Result<()> {
        let new_pids = proc_sys::namespace("pid") != self.host_pids;
        // Nodes and directories get the modes that are written here, whatever
        // the caller's mask. The mask is restored for the command.
        let before = umask(Mode::empty());
        self.args.propagation.cut(self.rootfs.is_some())?;
        match &self.rootfs {
            Some(rootfs) => self.change_root(rootfs, new_pids)?,
            None => self.keep_host_tree(new_pids)?,
        }
        self.args.propagation.settle()?;
        umask(before);
        Ok(())
    }
    // ANCHOR_END: in_container
}
