//! What the user mounts: `--bind` and `--tmpfs`, together, because one may lie
//! in the other.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};

use crate::bind::Bind;
use crate::detached::{Detached, MountAttrFlags};
use crate::target::{Kind, Target};
use crate::tmpfs::Tmpfs;

#[derive(Clone, Debug)]
enum Volume {
    Bind(Bind),
    Tmpfs(Tmpfs),
}

impl Volume {
    fn target(&self) -> &Target {
        match self {
            Volume::Bind(bind) => &bind.target,
            Volume::Tmpfs(tmpfs) => &tmpfs.target,
        }
    }

    fn take(&self) -> Result<Detached> {
        match self {
            Volume::Bind(bind) => bind.take(),
            Volume::Tmpfs(tmpfs) => tmpfs.take(),
        }
    }

    fn read_only(&self) -> bool {
        matches!(self, Volume::Bind(bind) if bind.read_only)
    }

    fn option(&self) -> String {
        match self {
            Volume::Bind(bind) => bind.option(),
            Volume::Tmpfs(tmpfs) => format!("--tmpfs {}", tmpfs.target),
        }
    }
}

/// The volumes, in the order in which they have to be mounted.
#[derive(Debug, Default)]
pub(crate) struct Volumes(Vec<Volume>);

/// The volumes as mounts that are still without a place.
pub(crate) struct Taken<'a>(Vec<(&'a Volume, Detached)>);

impl Volumes {
    /// Checks the options. The volumes are put in the order of their depth, so
    /// that `/a` does not cover `/a/b`, whichever was given first.
    ///
    /// # Errors
    /// Those of every option, and one for two volumes on the same target.
    pub(crate) fn parse(binds: &[OsString], tmpfs: &[String]) -> Result<Self> {
        let mut volumes = Vec::new();
        for option in binds {
            volumes.push(Volume::Bind(Bind::parse(option)?));
        }
        for option in tmpfs {
            volumes.push(Volume::Tmpfs(Tmpfs::parse(option)?));
        }
        volumes.sort_by_key(|volume| volume.target().depth());
        for (i, volume) in volumes.iter().enumerate() {
            if let Some(other) = volumes[..i].iter().find(|v| v.target() == volume.target()) {
                bail!(
                    "{} and {}: two volumes on one target",
                    other.option(),
                    volume.option()
                );
            }
        }
        Ok(Volumes(volumes))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes every volume, from what the host's paths mean now.
    ///
    /// # Errors
    /// Those of [`Detached`], by option.
    pub(crate) fn take(&self) -> Result<Taken<'_>> {
        self.0
            .iter()
            .map(|volume| Ok((volume, volume.take().with_context(|| volume.option())?)))
            .collect::<Result<_>>()
            .map(Taken)
    }
}

impl Taken<'_> {
    /// Attaches every volume inside `root`.
    ///
    /// `make` says whether missing targets may be made: in a root of the
    /// container's own, not in the host's tree.
    ///
    /// # Errors
    /// Those of [`Target`] and [`Detached`], by option.
    pub(crate) fn attach(self, root: BorrowedFd<'_>, make: bool) -> Result<()> {
        for (volume, mount) in self.0 {
            attach(volume, mount, root, make).with_context(|| volume.option())?;
        }
        Ok(())
    }
}

fn attach(volume: &Volume, mount: Detached, root: BorrowedFd<'_>, make: bool) -> Result<()> {
    let target = volume.target();
    if !make && target.open(root)?.is_none() {
        bail!("{target} does not exist, and without --rootfs it would be made on the host");
    }
    let target = target.open_or_make(root, Kind::of(mount.as_fd())?)?;
    match volume.read_only() {
        true => mount.attach_with(MountAttrFlags::MOUNT_ATTR_RDONLY, target.as_fd()),
        false => mount.attach(target.as_fd()),
    }
    .map(drop)
}
