//! The records of which layers exist and of their parents, one file per layer,
//! in the format of the AUFS driver: `layers/ID` holds the ids of the layers
//! below, one per line, the parent first. Beside them are the layers' mount
//! points, `mnt/ID`.
//!
//! The file is the last part of a layer to be created and the first to be
//! removed: without a file there is no layer.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::say;

use crate::layers::id::LayerId;
use crate::layers::trash;
use kit::atomic_file::write_file;
use kit::own::{is_there, make, remove_file};

/// The records of a driver's layers, and their mount points.
#[derive(Clone, Debug)]
pub struct Lineage {
    directory: PathBuf,
    mnt: PathBuf,
}

impl Lineage {
    /// Opens the records in `layers/` of a driver's directory, and the mount
    /// points in `mnt/`.
    pub fn open(driver: &Path) -> Result<Self> {
        let (directory, mnt) = (driver.join("layers"), driver.join("mnt"));
        make(&directory, 0o700)?;
        make(&mnt, 0o700)?;
        Ok(Lineage { directory, mnt })
    }

    /// The directory on which a container's view of the layer is mounted.
    pub fn mount_point(&self, id: &LayerId) -> PathBuf {
        self.mnt.join(id)
    }

    /// The ids of the layers that exist, sorted.
    pub fn layers(&self) -> Result<Vec<LayerId>> {
        layers_in(&self.directory)
    }

    /// Whether a layer exists. If stat(2) cannot tell, that is an error and not
    /// `false`.
    pub fn has(&self, id: &LayerId) -> Result<bool> {
        is_there(&self.directory.join(id))
    }

    /// Removes the drafts of records that killed processes have left, and the
    /// mount points of layers that are gone. The caller holds the store's lock.
    pub fn sweep(&self) -> Result<()> {
        trash::sweep(&self.directory)?;
        for id in layers_in(&self.mnt)? {
            // Only rmdir(2): what somebody has mounted there is not ours to
            // remove.
            if !self.has(&id)?
                && let Err(error) = fs::remove_dir(self.mount_point(&id))
            {
                say!("{:?} stays: {error}", self.mount_point(&id));
            }
        }
        Ok(())
    }

    /// The layers below `id`, its parent first.
    ///
    /// # Errors
    /// If the layer does not exist.
    pub fn parents(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let path = self.directory.join(id);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => bail!("{}", no_layer(id)),
            Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
        };
        text.lines()
            .map(|line| line.parse().with_context(|| format!("{path:?}")))
            .collect()
    }

    /// The layers below a new layer on `parent`, `parent` first; none without a
    /// parent.
    ///
    /// # Errors
    /// If the parent does not exist.
    pub fn on(&self, parent: Option<&LayerId>) -> Result<Vec<LayerId>> {
        let Some(parent) = parent else {
            return Ok(Vec::new());
        };
        let mut below = vec![parent.clone()];
        below.extend(self.parents(parent)?);
        Ok(below)
    }

    /// Records a layer: from now on it exists.
    pub fn record(&self, id: &LayerId, below: &[LayerId]) -> Result<()> {
        let text: String = below.iter().map(|id| format!("{id}\n")).collect();
        write_file(&self.directory.join(id), &text)
    }

    /// Removes the record of a layer, and its mount point: from now on it does
    /// not exist. The caller holds the store's lock.
    ///
    /// # Errors
    /// If it does not exist, or if another layer is on top of it.
    pub fn strike(&self, id: &LayerId) -> Result<()> {
        self.parents(id)?;
        for other in self.layers()? {
            if self.parents(&other)?.first() == Some(id) {
                bail!("{}", below_another(id, &other));
            }
        }
        remove_file(&self.directory.join(id))?;
        self.sweep()
    }
}

/// The names in a directory that are valid layer ids, sorted.
pub fn layers_in(directory: &Path) -> Result<Vec<LayerId>> {
    let mut layers = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {directory:?}"))? {
        let name = entry
            .with_context(|| format!("read {directory:?}"))?
            .file_name();
        layers.extend(name.to_str().and_then(|name| name.parse::<LayerId>().ok()));
    }
    layers.sort();
    Ok(layers)
}

/// The message for a layer that does not exist.
pub fn no_layer(id: &LayerId) -> String {
    format!("there is no layer {id}: see step-08 layer ls")
}

/// The message for a layer that exists already.
pub fn exists(id: &LayerId) -> String {
    format!("layer {id} already exists: choose another name, or step-08 layer rm {id}")
}

/// The message for a layer that cannot be removed, because `other` is on top of
/// it.
pub fn below_another(id: &LayerId, other: &LayerId) -> String {
    format!("layer {id} is the parent of {other}: remove {other} first")
}
