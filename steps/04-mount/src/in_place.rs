//! A root that stays where it is: for a process that looks into a container
//! which does not run.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, umask};
use process::Isolation;

use crate::propagation::Propagation;
use crate::root::Root;
use crate::volumes::Volumes;

/// The isolation that makes a mount namespace, and mounts volumes in a root there
/// as [`Mount`](crate::Mount) does. Nothing else is mounted, and the root does
/// not become `/`.
#[derive(Debug)]
pub struct InPlace {
    root: PathBuf,
    binds: Vec<OsString>,
    read_only: bool,
    volumes: Volumes,
}

impl InPlace {
    /// The directory `root`, the volumes as `--bind` takes them, and whether all
    /// but them is read-only.
    pub fn new(root: PathBuf, binds: Vec<OsString>, read_only: bool) -> Self {
        InPlace {
            root,
            binds,
            read_only,
            volumes: Volumes::default(),
        }
    }
}

impl Isolation for InPlace {
    fn name(&self) -> &'static str {
        "mount"
    }

    fn namespaces(&self) -> CloneFlags {
        CloneFlags::CLONE_NEWNS
    }

    fn prepare(&mut self) -> Result<()> {
        self.volumes = Volumes::parse(&self.binds, &[])?;
        Ok(())
    }

    fn in_container(&mut self) -> Result<()> {
        let before = umask(Mode::empty());
        Propagation::Private.cut(true)?;
        let volumes = self.volumes.take()?;
        let root = Root::bind(&self.root)?;
        volumes.attach(root.fd(), true)?;
        if self.read_only {
            root.make_read_only()?;
        }
        umask(before);
        Ok(())
    }
}
