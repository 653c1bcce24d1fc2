//! A container's volumes as an isolation: made and, the first time, filled with
//! what the image has at their place.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use process::{Isolation, say};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use union::tree::Tree;
use union::tree::copy::copy;

use super::Volumes;
use crate::mounts::{Mounted, Source};
use crate::record::UsedVolume;

/// The volumes of a container, and the directories of the host that it is shown.
///
/// Stands between the layers and step 04 in the list: the image's files are to
/// be seen at [`copied from`](Self::in_container), and nothing is mounted on
/// them yet.
pub struct VolumeMounts {
    volumes: Volumes,
    used: Vec<Used>,
    /// Directories of the host that are made if they are missing.
    made: Vec<PathBuf>,
    /// Where the layers are mounted before they become the root.
    root: PathBuf,
    /// The container, and whether anonymous volumes go when it ends.
    id: String,
    remove: bool,
    /// Keeps others from removing the volumes.
    held: Vec<File>,
}

struct Used {
    volume: UsedVolume,
    copy: bool,
}

impl VolumeMounts {
    /// Gives every anonymous volume of `mounted` a name. `root` is where the
    /// container's layers are mounted; `remove` says whether anonymous volumes
    /// go with the container.
    ///
    /// # Errors
    /// Those of getrandom(2).
    pub fn plan(
        volumes: Volumes,
        mounted: &[Mounted],
        id: &str,
        remove: bool,
    ) -> Result<(Self, Vec<String>)> {
        let mut this = VolumeMounts {
            volumes,
            used: Vec::new(),
            made: Vec::new(),
            root: PathBuf::new(),
            id: id.to_owned(),
            remove,
            held: Vec::new(),
        };
        let mut binds = Vec::new();
        for mount in mounted {
            let source = match &mount.source {
                Source::Host { path, make } => {
                    if *make {
                        this.made.push(path.clone());
                    }
                    path.clone()
                }
                Source::Volume { name, copy } => {
                    let (name, anonymous) = match name {
                        Some(name) => (name.clone(), false),
                        None => (crate::names::random_hex(32)?, true),
                    };
                    let data = this.volumes.data(&name);
                    this.used.push(Used {
                        volume: UsedVolume {
                            name,
                            target: mount.target.clone(),
                            anonymous,
                        },
                        copy: *copy,
                    });
                    data
                }
            };
            let mode = if mount.read_only { ":ro" } else { "" };
            binds.push(format!(
                "{}:{}{mode}",
                source.display(),
                mount.target.display()
            ));
        }
        Ok((this, binds))
    }

    /// Says where the layers are mounted before they become the root.
    #[must_use]
    pub fn root(mut self, root: Option<PathBuf>) -> Self {
        self.root = root.unwrap_or_default();
        self
    }

    /// The volumes, for the container's record.
    pub fn used(&self) -> Vec<UsedVolume> {
        self.used.iter().map(|used| used.volume.clone()).collect()
    }
}

impl Isolation for VolumeMounts {
    fn name(&self) -> &'static str {
        "volumes"
    }

    fn prepare(&mut self) -> Result<()> {
        for Used { volume, .. } in &self.used {
            let container = volume.anonymous.then_some(&*self.id);
            let held = self
                .volumes
                .take(&volume.name, volume.anonymous, container)?;
            self.held.push(held);
        }
        for path in &self.made {
            match fs::create_dir(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(path)
                    .with_context(|| format!("make the missing source {path:?} on the host"))?,
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error)
                        .with_context(|| format!("make the missing source {path:?} on the host"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// In the child, where the layers have been mounted as they are.
    fn in_container(&mut self) -> Result<()> {
        for Used { volume, copy } in &self.used {
            if *copy {
                fill(&self.volumes, &volume.name, &self.root, &volume.target)
                    .with_context(|| format!("fill the volume {:?}", volume.name))?;
            }
        }
        Ok(())
    }

    fn cleanup(&mut self) -> Result<()> {
        self.held.clear();
        if !self.remove {
            return Ok(());
        }
        for Used { volume, .. } in &self.used {
            // Unless another container has it, by its long name.
            if volume.anonymous {
                self.volumes.remove_if_there(&volume.name)?;
            }
        }
        Ok(())
    }
}

/// Copies what the image has at `target` into the volume, if that is empty:
/// with owners, modes and times, and those of the directory itself.
// ANCHOR: fill
fn fill(volumes: &Volumes, name: &str, root: &Path, target: &Path) -> Result<()> {
    // ANCHOR: exercise_fill_a_volume
    let data = volumes.data(name);
    let is_empty = || -> Result<bool> {
        let mut entries = fs::read_dir(&data).with_context(|| format!("read {data:?}"))?;
        Ok(entries.next().is_none())
    };
    if !is_empty()? {
        return Ok(());
    }
    let Some(image) = directory_in(root, target)? else {
        return Ok(());
    };
    // Two containers may have been started with it at once.
    let _alone = volumes.fill_alone(name)?;
    if is_empty()? {
        say!("copy {target:?} of the image into the volume {name}");
        copy(&Tree::at(&image)?, &Tree::open(&data)?)?;
    }
    Ok(())
    // ANCHOR_END: exercise_fill_a_volume
}
// ANCHOR_END: fill

/// The directory `path` of a root; links in it do not lead out of it.
fn directory_in(root: &Path, path: &Path) -> Result<Option<OwnedFd>> {
    let top = Tree::open(root)?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let found = openat2(
        top.root(),
        relative,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    match found {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("openat2({path:?}, RESOLVE_IN_ROOT)")),
    }
}
