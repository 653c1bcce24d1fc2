//! An image as it comes: its configuration, and where its layers are.

use anyhow::{Result, bail};

use crate::image::config::ImageConfig;
use crate::image::digest::{Checksum, Digest};
use crate::image::source::blob::Blob;

/// The parts of an image, none of which has been unpacked.
#[derive(Debug)]
pub struct Parts {
    /// What it is called where it comes from: a name, or a tag only.
    pub names: Vec<String>,
    /// Its configuration, as it came.
    pub config: Vec<u8>,
    /// Its layers, the lowest first, each with the digest of the blob if that
    /// is known.
    pub layers: Vec<(Blob, Option<Checksum>)>,
}

impl Parts {
    /// The configuration, and what it says that the layers unpack to.
    ///
    /// # Errors
    /// If it is none, or says something about more or fewer layers.
    pub fn config(&self) -> Result<(ImageConfig, Vec<Digest>)> {
        let config = ImageConfig::parse(&self.config)?;
        let diff_ids = config.diff_ids()?;
        let (listed, there) = (diff_ids.len(), self.layers.len());
        if listed != there {
            bail!("the image has {there} layers, and its configuration lists {listed}");
        }
        Ok((config, diff_ids))
    }
}
