//! Images: a stack of layers and a configuration.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use union::{Kind, LayerId};

pub mod config;

use config::Config;

/// An image that is ready to be run.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration: `sha256:…`.
    pub id: String,
    /// The name it was found by, for people.
    pub name: String,
    /// The topmost of its layers, in the store of the driver that it was made
    /// ready for.
    pub top: LayerId,
    /// What it says about the containers made of it.
    pub config: Config,
}

/// The images below a state directory.
#[derive(Clone, Debug)]
pub struct Images {
    root: PathBuf,
}

impl Images {
    /// The images below the state directory `root`.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Images { root: root.into() })
    }

    /// Finds the image that `reference` means: the name or the id of one that
    /// was loaded before, else a directory, a tar of a root file system, an OCI
    /// image layout or a `docker save` archive; and makes its layers ready in
    /// the store of the storage driver `kind`, once.
    ///
    /// # Errors
    /// If nothing of this kind is there, and for an image that is damaged.
    pub fn ready(&self, reference: &str, kind: Kind) -> Result<Image> {
        bail!("no image {reference:?} for {kind} in {:?}", self.root)
    }
}
