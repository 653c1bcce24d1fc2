//! Which layers exist, and on what: a file a layer, as AUFS's driver has it.
//! `layers/ID` holds the ids below, a line each, the parent first.
//!
//! The file is the last thing that is made of a layer and the first that goes:
//! what has no file is no layer.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::say;

use crate::layers::id::LayerId;
use crate::layers::trash;
use kit::atomic_file::write_file;
use kit::own::{make, remove_file};

/// The records of a driver's layers.
#[derive(Clone, Debug)]
pub struct Lineage {
    directory: PathBuf,
}

impl Lineage {
    /// The records in `layers/` of a driver's directory.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn open(driver: &Path) -> Result<Self> {
        let directory = driver.join("layers");
        make(&directory, 0o700)?;
        Ok(Lineage { directory })
    }

    /// The layers that exist, sorted.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn layers(&self) -> Result<Vec<LayerId>> {
        layers_in(&self.directory)
    }

    /// Whether a layer exists.
    ///
    /// # Errors
    /// Those of stat(2): that it cannot be told is no answer.
    pub fn has(&self, id: &LayerId) -> Result<bool> {
        is_there(&self.directory.join(id))
    }

    /// Removes what a killed process has left of records, and the mount points in
    /// `mnt` of layers that are gone. The caller holds the store's lock.
    ///
    /// # Errors
    /// Those of reading the directories.
    pub fn sweep(&self, mnt: &Path) -> Result<()> {
        trash::sweep(&self.directory)?;
        for id in layers_in(mnt)? {
            // Whatever somebody has mounted there is not ours to look into.
            if !self.has(&id)?
                && let Err(error) = fs::remove_dir(mnt.join(&id))
            {
                say!("{:?} stays: {error}", mnt.join(&id));
            }
        }
        Ok(())
    }

    /// The layers below `id`, its parent first.
    ///
    /// # Errors
    /// If there is no such layer.
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

    /// What would stand below a new layer on `parent`.
    ///
    /// # Errors
    /// If there is no such parent.
    pub fn on(&self, parent: Option<&LayerId>) -> Result<Vec<LayerId>> {
        let Some(parent) = parent else {
            return Ok(Vec::new());
        };
        let mut below = vec![parent.clone()];
        below.extend(self.parents(parent)?);
        Ok(below)
    }

    /// From now on the layer exists.
    ///
    /// # Errors
    /// Those of writing.
    pub fn record(&self, id: &LayerId, below: &[LayerId]) -> Result<()> {
        let text: String = below.iter().map(|id| format!("{id}\n")).collect();
        write_file(&self.directory.join(id), &text)
    }

    /// From now on the layer does not exist.
    ///
    /// # Errors
    /// If it does not, or is below another.
    pub fn strike(&self, id: &LayerId) -> Result<()> {
        self.parents(id)?;
        for other in self.layers()? {
            if self.parents(&other)?.first() == Some(id) {
                bail!("{}", below_another(id, &other));
            }
        }
        remove_file(&self.directory.join(id))
    }
}

/// Whether there is anything at `path`.
///
/// # Errors
/// Those of stat(2) but that there is none.
pub fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("stat({path:?})")),
    }
}

/// The names in a directory that are layers' ids, sorted.
///
/// # Errors
/// Those of readdir(3).
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

/// The words for a layer that is not there.
pub fn no_layer(id: &LayerId) -> String {
    format!("there is no layer {id}: step-08 layer ls shows those that there are")
}

/// The words for a layer that is there already.
pub fn exists(id: &LayerId) -> String {
    format!("there is a layer {id} already: choose another name, or step-08 layer rm {id}")
}

/// The words for a layer that cannot go.
pub fn below_another(id: &LayerId, other: &LayerId) -> String {
    format!("layer {id} is below {other}: remove that first")
}
